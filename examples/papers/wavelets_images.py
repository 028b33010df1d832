"""Images learned scale by scale, against one score of whole images: recognisable digits within minutes on two cores.

Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003. Run as
`python -m examples.papers.wavelets_images --data FILE.npz [--quick] [--json FILE] [--cache FOLDER] [--out FOLDER]`; the
file holds grey images as the array `X`, (n, height, width) of bytes, such as digits of 28 x 28, which are padded to
32 x 32.

Two models learn from the same images for about the same time: a score for each scale of a wavelet transform
(`fit_wavelet`), and a score of whole images (`fit_score` with a U-Net). Both draw with the same sampler and the same
number of evaluations, and are judged by images that neither has seen. The exit status is 1 if a goal fails. Trainings
and draws are kept in the cache folder, so an interrupted run goes on.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

import scoresample as ss
from scoresample.diagnostics import sliced_wasserstein
from scoresample.nn import ResidualConv, ResidualMLP, UNet
from tests.benchmarks.report import cached, keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
MODELS = ("wavelet", "direct")
WAVELET = "haar"
SECONDS_GOAL, MEMORISED_GOAL, RATIO_GOAL = 600.0, 0.05, 1.0
NUM_SPLITS, NUM_DIRECTIONS = 20, 256
"""Halvings of the held-out images, and directions of the sliced distance."""
COLUMNS, ROWS = 16, 2
"""Draws of each model on the sheet; images of the data have one row."""
IDLE_SHARE = 0.7
"""Of the cores' time: a training that had less shared the machine with others."""


@dataclass(frozen=True)
class Setting:
    """Sizes and lengths of both trainings: as long as fits in 600 s on two cores that do nothing else.

    `epochs` are those of the stages, coarse to fine; `widths` and `blocks` those of the networks of the details.
    """

    size: int = 32
    levels: int = 2
    num_held_out: int = 2000
    num_train: int = 8000
    mlp_width: int = 512
    mlp_depth: int = 4
    widths: tuple[int, ...] = (32, 24)
    blocks: tuple[int, ...] = (3, 3)
    epochs: tuple[int, ...] = (70, 18, 12)
    direct_width: int = 16
    direct_levels: int = 3
    direct_epochs: int = 7
    batch_size: int = 64
    learning_rate: float = 2e-3
    sigma_range: tuple[float, float] = (0.03, 30.0)
    num_draws: int = 1000
    steps: tuple[int, ...] = (20, 50)


QUICK = Setting(
    size=16, levels=1, num_train=3000, mlp_width=192, mlp_depth=2, widths=(16,), blocks=(1,), epochs=(25, 8),
    direct_width=8, direct_levels=1, direct_epochs=6, num_draws=500, steps=(20,),
)  # fmt: skip
"""Digits of 16 x 16."""
NOT_TRAINED_WITH = ("num_draws", "steps")

# ---------------------------------------------------------------------------------------------------------------------
# Images, trainings and draws
# ---------------------------------------------------------------------------------------------------------------------


def images_of(file: Path, size: int) -> np.ndarray:
    """Images from 0 to 1 of (size, size), in random order: padded with zeros to 2^k, then averaged down to the size."""
    with np.load(file) as arrays:
        pixels = arrays["X"]
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"`--data`: X must be bytes (n, height, width), got {pixels.dtype} of shape {pixels.shape}.")
    whole = max(2 ** math.ceil(math.log2(max(pixels.shape[1:]))), size)
    margins = [((whole - length) // 2, whole - length - (whole - length) // 2) for length in pixels.shape[1:]]
    pixels = np.pad(pixels, [(0, 0), *margins]).astype(np.float32) / 255
    cell = whole // size
    pixels = pixels.reshape(-1, size, cell, size, cell).mean(axis=(2, 4))
    distinct = np.unique(pixels, axis=0)
    return distinct[np.random.default_rng(0).permutation(len(distinct))]


def split(images: np.ndarray, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Images to train on, and held-out ones."""
    needed = setting.num_held_out + setting.num_train
    if len(images) < needed:
        raise ValueError(f"`--data`: {needed:,} distinct images are needed, got {len(images):,}.")
    return images[setting.num_held_out : needed], images[: setting.num_held_out]


def networks(setting: Setting) -> Any:
    """What makes the networks of the scales: a perceptron for the coarsest field, local convolutions for details."""

    def make(shape: tuple[int, ...], known: tuple[int, ...] | None, key: Array) -> Any:
        if known is None:
            return ResidualMLP(math.prod(shape), width=setting.mlp_width, depth=setting.mlp_depth, key=key)
        place = round(math.log2(known[0] * 2**setting.levels / setting.size))
        return ResidualConv(
            2, width=setting.widths[place], blocks=setting.blocks[place], channels=3, condition_channels=1,
            periodic=False, key=key,
        )  # fmt: skip

    return make


def fit(model: str, training: np.ndarray, setting: Setting, checkpoint: Path) -> Any:
    """One of the two models; a finished training is found in its checkpoint."""
    common: dict[str, Any] = {
        "key": jax.random.key(0), "batch_size": setting.batch_size, "learning_rate": setting.learning_rate,
        "sigma_range": setting.sigma_range, "validation_fraction": 0.05, "patience": None,
    }  # fmt: skip
    if model == "wavelet":
        return ss.fit_wavelet(
            training, wavelet=WAVELET, levels=setting.levels, network=networks(setting), num_epochs=setting.epochs,
            checkpoint=checkpoint, **common,
        )  # fmt: skip
    checkpoint.mkdir(parents=True, exist_ok=True)
    shape, width, levels = training.shape[1:], setting.direct_width, setting.direct_levels
    return ss.fit_score(
        training, network=lambda key: UNet(shape, width=width, num_levels=levels, key=key), standardise="arrays",
        num_epochs=setting.direct_epochs, checkpoint=checkpoint / "direct.safetensors", **common,
    )  # fmt: skip


def records(path: Any) -> dict[str, Any]:
    """The records of a model's trainings, by stage."""
    if isinstance(path, ss.WaveletPath):
        return {name: stage.record for name, stage in zip(path.stage_names(), path.stages, strict=True)}
    return {"whole images": path.record}


def train(model: str, training: np.ndarray, setting: Setting, checkpoint: Path) -> dict[str, Any]:
    """What a training took; `cores` is how many it had, nan where it goes on from an interruption."""
    fresh, started, used = not checkpoint.exists(), time.perf_counter(), time.process_time()
    found = records(fit(model, training, setting, checkpoint))
    cores = (time.process_time() - used) / (time.perf_counter() - started)
    return {
        "cores": cores if fresh else float("nan"),
        "stages": {
            name: {
                "seconds": record.seconds, "parameters": record.num_parameters, "epochs": len(record.train_loss),
                "epoch": record.best_epoch + 1, "loss": record.best_loss,
            }
            for name, record in found.items()
        },
    }  # fmt: skip


def draw(model: str, steps: int, training: np.ndarray, setting: Setting, checkpoint: Path, place: Path) -> None:
    """Draws of a model, with what they took."""
    path, sampler = fit(model, training, setting, checkpoint), ss.ReverseSDE(num_steps=steps)
    draws = ss.sample(path, sampler, key=jax.random.key(1), num_chains=1, num_samples=setting.num_draws, batch_size=250)
    nfe = draws.info.get("full_size_nfe", draws.nfe)
    facts = {"nfe": draws.nfe, "full_size_nfe": nfe, "seconds": draws.seconds}
    np.savez_compressed(place, images=np.asarray(draws.position[0], np.float32), **facts)


def apart(draws: np.ndarray, held_out: np.ndarray) -> tuple[float, float, float]:
    """Sliced Wasserstein-2 distance of draws to halves of the held-out images, its null, and the deviation of that.

    In grey levels from 0 to 1; distances of as many draws as a half has images. The null is that of the two halves.
    """
    draws, held_out = (side.reshape(len(side), -1) for side in (draws, held_out))
    rng, half = np.random.default_rng(2), min(len(held_out) // 2, len(draws))
    values, null = [], []
    for seed in range(NUM_SPLITS):
        order = rng.permutation(len(held_out))
        first, second = held_out[order[:half]], held_out[order[half : 2 * half]]
        values.append(sliced_wasserstein(draws[:half], first, num_projections=NUM_DIRECTIONS, seed=seed))
        null.append(sliced_wasserstein(second, first, num_projections=NUM_DIRECTIONS, seed=seed))
    return float(np.mean(values)), float(np.mean(null)), float(np.std(null, ddof=1))


def judge(draws: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Everything that is measured of draws."""
    value, null, spread = apart(draws, held_out)
    found = ss.memorisation(draws, training, held_out, scale="none")
    return {
        "distance": value, "null": null, "null spread": spread, "ratio": value / null,
        "fraction": found.fraction, "fraction se": found.fraction_se, "chance": found.chance,
        "chance se": found.chance_se, "nearer": found.nearer, "nearer se": found.nearer_se,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Goals and the page
# ---------------------------------------------------------------------------------------------------------------------


class Goal(NamedTuple):
    """A claim, what was measured, what is asked, and whether it holds."""

    claim: str
    measured: str
    goal: str
    holds: bool


Cells = dict[str, dict[str, Any]]


def seconds_of(cell: dict[str, Any]) -> float:
    """How long a model was trained, all stages together."""
    return sum(stage["seconds"] for stage in cell["stages"].values())


def goals_of(trained: Cells, judged: Cells, setting: Setting) -> list[Goal]:
    """What is asked: each claim, the number, the goal, and whether it holds."""
    found = []
    for model in MODELS:
        seconds = seconds_of(trained[model])
        found.append(
            Goal(f"{model}: training, seconds", f"{seconds:.0f}", f"<= {SECONDS_GOAL:g}", seconds <= SECONDS_GOAL)
        )
    for model in MODELS:
        for steps in setting.steps:
            cell = judged[f"{model}|{steps}"]
            above = cell["fraction"] - cell["chance"]
            claim = f"{model}, {steps} steps: memorised above chance"
            found.append(Goal(claim, f"{above:+.4f}", f"<= {MEMORISED_GOAL:g}", above <= MEMORISED_GOAL))
    for steps in setting.steps:
        ratio = judged[f"wavelet|{steps}"]["ratio"] / judged[f"direct|{steps}"]["ratio"]
        claim = f"{steps} steps: sliced distance over null, wavelet over direct"
        found.append(Goal(claim, f"{ratio:.2f}", f"<= {RATIO_GOAL:g}", ratio <= RATIO_GOAL))
    return found


def trainings_table(trained: Cells) -> str:
    """What each stage took."""
    lines = []
    for model in MODELS:
        for name, stage in trained[model]["stages"].items():
            lines.append([
                model, name, f"{stage['parameters']:,}", str(stage["epochs"]), str(stage["epoch"]),
                f"{stage['loss']:.3f}", f"{stage['seconds']:.0f}",
            ])  # fmt: skip
    return table(["model", "stage", "weights", "epochs", "kept", "held-out loss", "seconds"], lines)


def draws_table(judged: Cells, setting: Setting) -> str:
    """What was measured of the draws."""
    lines = []
    for steps in setting.steps:
        for model in MODELS:
            cell = judged[f"{model}|{steps}"]
            lines.append([
                str(steps), model, f"{cell['nfe']:g}", f"{cell['full_size_nfe']:g}", f"{cell['seconds']:.0f}",
                f"{cell['distance']:.4f}", f"{cell['null']:.4f} ± {cell['null spread']:.4f}", f"{cell['ratio']:.2f}",
                f"{cell['fraction']:.4f} ± {cell['fraction se']:.4f}",
                f"{cell['chance']:.4f} ± {cell['chance se']:.4f}", f"{cell['nearer']:.2f} ± {cell['nearer se']:.2f}",
            ])  # fmt: skip
    header = [
        "steps", "model", "NFE", "full-size NFE", "seconds", "sliced distance", "null", "ratio", "memorised", "chance",
        "nearer",
    ]  # fmt: skip
    return table(header, lines)


def sheet_of(rows: dict[str, np.ndarray]) -> Figure:
    """Rows of images."""
    size, counts = rows["data"].shape[-1], {name: len(images) // COLUMNS for name, images in rows.items()}
    figure, panels = plt.subplots(
        len(rows), 1, figsize=(10, 0.68 * sum(counts.values()) + 0.4), height_ratios=list(counts.values()),
        layout="constrained",
    )  # fmt: skip
    for panel, (name, images) in zip(panels, rows.items(), strict=True):
        grid = images[: counts[name] * COLUMNS].reshape(counts[name], COLUMNS, size, size)
        panel.imshow(grid.transpose(0, 2, 1, 3).reshape(counts[name] * size, -1), cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[], ylabel=name)
    return figure


def shared_machine(trained: Cells) -> str:
    """Whether the seconds are those of a machine that does nothing else."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sentences = []
    for model in MODELS:
        cores = trained[model]["cores"]
        if not np.isfinite(cores):
            sentences.append(f"The {model} training was interrupted: how much of the machine it had is not known.")
            continue
        had = f"The {model} training had {cores:.1f} of {available} cores"
        if cores < IDLE_SHARE * available:
            worth = cores * seconds_of(trained[model]) / available
            had += f": the machine was busy with other work, and the same processor time on all cores is {worth:.0f} s"
        sentences.append(had + ".")
    return " ".join(sentences)


def report(trained: Cells, judged: Cells, setting: Setting, source: str, picture: str) -> tuple[list[str], list[str]]:
    """The page, and the goals that are missed; `source` names the file of the images."""
    found = goals_of(trained, judged, setting)
    lines = [
        [goal.claim, goal.measured, goal.goal, "yes"]
        if goal.holds
        else [f"**{goal.claim}**", f"**{goal.measured}**", goal.goal, "**no**"]
        for goal in found
    ]
    size, coarse = setting.size, setting.size // 2**setting.levels
    parts = [
        "Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003: the score of images is easier to learn scale by "
        "scale. Here a person can look at it: two models learn the same images, one the coarsest field and then the "
        "details of each scale given the coarser field (`fit_wavelet`), the other whole images (`fit_score` with a "
        "U-Net). Goals that are missed are in bold.",
        table(["claim", "measured", "goal", "holds"], lines),
        *([picture] if picture else []),
        f"## What was done\n\n`python -m examples.papers.wavelets_images --data {source}`: of its grey images, padded "
        f"with zeros or averaged down to {size} x {size}, {setting.num_train:,} are learned from, "
        f"{setting.num_held_out:,} others are held out. The wavelet is `{WAVELET}`, with {setting.levels} levels, down "
        f"to {coarse} x {coarse} "
        f"sites. The coarsest field is learned by a residual perceptron of width {setting.mlp_width} and depth "
        f"{setting.mlp_depth}; details by local convolutions of widths {_listed(setting.widths)} and "
        f"{_listed(setting.blocks)} blocks, coarse to fine; whole images by a U-Net of width {setting.direct_width} "
        f"that halves them {setting.direct_levels} times. All are trained with steps of {setting.batch_size} images, "
        f"learning rate {setting.learning_rate:g} and noise from {setting.sigma_range[0]:g} to "
        f"{setting.sigma_range[1]:g} standard deviations: its least is below three grey levels of 256 for images, so "
        "nothing is added to their pixels. The numbers of epochs are bounds on the trainings' time. There is one "
        "seed.",
        f"## Trainings\n\n{trainings_table(trained)}\n\n`kept` is the epoch with the smallest held-out loss, whose "
        "weights are used. Seconds are wall clock, compilation included. Losses of different stages are of different "
        f"things and do not compare. {shared_machine(trained)}",
        f"## Draws\n\n{draws_table(judged, setting)}\n\n{setting.num_draws:,} draws of `ReverseSDE` with its defaults "
        "but for the number of steps, the same for each scale as for whole images. An evaluation for a field of a "
        "quarter of the sites counts a quarter in `full-size NFE`; since all scales together have as many numbers as "
        "an image, equal steps at every scale are equal full-size NFE too, so one comparison is both. (The networks "
        "differ in their cost: see the seconds.)\n\n"
        "- `sliced distance`: sliced Wasserstein-2 distance of draws to a half of the held-out images, of as many, in "
        f"units of white; mean over {NUM_SPLITS} random halves. `null`: that of the other half. `ratio`: of the two.\n"
        "- `memorised`: fraction of draws that are less than a third as far from one training image as from any "
        "other; `chance`: of held-out images; `nearer`: probability that a draw is nearer to the training images than "
        "a held-out image, .5 for new images (`memorisation`).\n"
        "- Errors after ± are standard errors, for the null the deviation over halvings.",
    ]  # fmt: skip
    return parts, [goal.claim for goal in found if not goal.holds]


def _listed(numbers: tuple[int, ...]) -> str:
    return " and ".join(str(number) for number in numbers)


def digest(*facts: Any) -> str:
    """What tells the trainings and draws of one setting from those of another."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def main() -> int:
    """Train, draw, measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="an .npz whose `X` are grey images, (n, h, w) bytes")
    parser.add_argument("--quick", action="store_true", help="smaller images and networks, short trainings")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "scoresample-papers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    setting, folder = QUICK if options.quick else Setting(), options.cache
    folder.mkdir(parents=True, exist_ok=True)
    training, held_out = split(images_of(options.data, setting.size), setting)
    facts = {name: value for name, value in asdict(setting).items() if name not in NOT_TRAINED_WITH}
    data = hashlib.sha256(training.tobytes() + held_out.tobytes()).hexdigest()
    trained, judged, rows = {}, {}, {"data": held_out[:COLUMNS]}
    for model in MODELS:
        parts = ("direct",) if model == "wavelet" else ("mlp", "widths", "blocks", "epochs", "levels")
        own = {name: value for name, value in facts.items() if not name.startswith(parts)}
        name = f"wavelets_images-{model}-{digest(own, WAVELET, data)}"
        checkpoint = folder / f"{name}.training"
        trained[model] = cached(
            folder, name, lambda model=model, checkpoint=checkpoint: train(model, training, setting, checkpoint)
        )
        print(f"{model}: trained in {seconds_of(trained[model]):.0f} s", file=sys.stderr, flush=True)
        for steps in setting.steps:
            place = folder / f"{name}-{steps}-{setting.num_draws}.npz"
            if not place.exists():
                draw(model, steps, training, setting, checkpoint, place)
            with np.load(place) as kept:
                images = kept["images"]
                taken = {fact: float(kept[fact]) for fact in ("nfe", "full_size_nfe", "seconds")}
            judged[f"{model}|{steps}"] = taken | judge(images, training, held_out)
            print(f"{model}: {steps} steps in {taken['seconds']:.0f} s", file=sys.stderr, flush=True)
        rows[f"{model}\n{setting.steps[-1]} steps"] = images[: COLUMNS * ROWS]
    if options.json:
        options.json.write_text(json.dumps({"trained": trained, "draws": judged}))
    page, pictures = options.out or DOCS / "papers", options.out or DOCS / "images"
    kept_page = not options.quick or options.out is not None
    picture = ""
    if kept_page:
        pictures.mkdir(parents=True, exist_ok=True)
        sheet_of(rows).savefig(pictures / "wavelets-images.png", dpi=110)
        picture = (
            "![Held-out images, draws of the wavelet path and draws of the score of whole images, row by row]"
            f"({os.path.relpath(pictures, page)}/wavelets-images.png)"
        )
    parts, missed = report(trained, judged, setting, options.data.name, picture)
    if kept_page:
        keep("wavelets_images", "Images, scale by scale", *parts, out=page)
    else:
        print("\n\n".join(parts))
    for claim in missed:
        print("missed:", claim, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
