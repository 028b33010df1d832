"""Lattice fields at a phase transition, learned scale by scale, against a long HMC run.

Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003; Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181. Run
as `python -m examples.papers.wavelets_phi4 [--quick] [--json FILE] [--out FOLDER] [--cache FOLDER]`.

The phi^4 model in two dimensions is disordered at kappa = .32, near its transition at .34, and ordered at .36. Fields
of an HMC run (`phi4_reference`), each moved by random symmetries of the model, teach local energies of the coarsest
field and of the details of every scale, in closed form (`fit_wavelet_energies`), and new fields are drawn from coarse
to fine by MALA. Near the transition networks learn the scores of the same scales too (`fit_wavelet`), the finest ones
from the model's own score as well, since given the coarser field it holds theirs; their fields are drawn by a reverse
SDE. `--quick` leaves the networks out. The exit status is 1 if a goal fails. References, trainings and measurements are
kept in the cache folder, so an interrupted run goes on.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

import scoresample as ss
from examples.papers import phi4_reference
from examples.papers.phi4_reference import KAPPAS, Reference, hmc_reference, observables, with_error
from tests.benchmarks.report import cached, keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
DISTANCES = (1, 4, 16)
MOST_ERRORS = 3.0
NULL_QUANTILE = 0.9973
"""What three standard errors are to a normal number."""
MOST_SCORE_ERROR = 0.1
CHECKED_NOISE = 0.01
"""Noise at which the finest learned score is held against the model's own, in standard deviations of the details."""
NUM_BINS, NUM_RESAMPLED = 20, 2000
NUM_SHOWN = 4
ENERGIES, NETWORKS = "energies, MALA", "networks, reverse SDE"


@dataclass(frozen=True)
class Setting:
    """How long and how large. One number for each stage, coarse to fine, where there are several.

    Attributes:
        length: of a side of the lattice.
        kappas: couplings of neighbours.
        hmc: of the reference.
        copies: random symmetric images of each field that are learned from: for energies more hardly help.
        widths: of the networks: multilayer perceptrons of the coarsest field and the details beside it, else
            convolutions.
        depths: residual blocks of the networks.
        epochs: of the trainings.
        batch_size: of the trainings.
        learning_rate: of the trainings.
        network_kappas: where networks are trained too.
        num_draws: fields that are drawn by each model.
        num_steps: of the reverse SDE, at every scale.
        mala_steps: moves of ParallelMALA, at every scale.
    """

    length: int = 32
    kappas: tuple[float, ...] = KAPPAS
    hmc: phi4_reference.Setting = field(default_factory=phi4_reference.Setting)
    copies: int = 4
    widths: tuple[int, ...] = (128, 128, 24, 24, 16)
    depths: tuple[int, ...] = (3, 3, 2, 2, 2)
    epochs: tuple[int, ...] = (30, 30, 30, 20, 12)
    batch_size: int = 64
    learning_rate: float = 3e-3
    network_kappas: tuple[float, ...] = (0.34,)
    num_draws: int = 2000
    num_steps: int = 40
    mala_steps: int = 300

    @property
    def levels(self) -> int:
        """Scales of details."""
        return len(self.widths) - 1


QUICK = Setting(
    length=16, kappas=(0.34,), hmc=phi4_reference.QUICK, widths=(64, 64, 16, 16), depths=(2, 2, 2, 2),
    epochs=(10, 10, 8, 4), network_kappas=(), num_draws=1000, num_steps=25, mala_steps=200,
)  # fmt: skip

# ---------------------------------------------------------------------------------------------------------------------
# Training and sampling
# ---------------------------------------------------------------------------------------------------------------------


def augmented(fields: np.ndarray, copies: int, seed: int) -> np.ndarray:
    """Images of square fields under random symmetries of the model: sign, shift, reflections, transposition.

    Arguments:
        fields: (n, L, L).
        copies: images of each.
        seed: of the choice.

    Returns:
        (copies * n, L, L); each image has the law of the model if the fields have.
    """
    rng = np.random.default_rng(seed)
    num, length = copies * len(fields), fields.shape[1]
    rows, columns = (
        rng.choice([-1, 1], (num, 1)) * np.arange(length) + rng.integers(length, size=(num, 1)) for _ in range(2)
    )
    source = np.tile(np.arange(len(fields)), copies)
    images = fields[source[:, None, None], (rows % length)[:, :, None], (columns % length)[:, None, :]]
    turned = rng.random(num) < 0.5
    images[turned] = images[turned].transpose(0, 2, 1)
    return images * rng.choice(np.array([-1, 1], fields.dtype), (num, 1, 1))


def learned(target: ss.LatticePhi4, data: np.ndarray, setting: Setting, checkpoint: Path) -> ss.WaveletPath:
    """The path from coarse to fine, by networks."""
    coarsest = setting.length >> setting.levels

    def network(shape: tuple[int, ...], known: tuple[int, ...] | None, key: Array) -> Any:
        stage = 0 if known is None else (known[-1] // coarsest).bit_length()
        width, depth = setting.widths[stage], setting.depths[stage]
        if known is None or known == (coarsest, coarsest):
            told = None if known is None else coarsest**2
            return ss.nn.ResidualMLP(int(np.prod(shape)), width=width, depth=depth, condition_size=told, key=key)
        return ss.nn.ResidualConv(2, width=width, blocks=depth, channels=3, condition_channels=1, key=key)

    return ss.fit_wavelet(
        data, scores=np.asarray(_scores(target, jnp.asarray(data))), key=jax.random.key(1), wavelet="haar",
        levels=setting.levels, network=network, num_epochs=setting.epochs, batch_size=setting.batch_size,
        learning_rate=setting.learning_rate, ema_decay=0.995, validation_fraction=0.05, patience=None,
        checkpoint=checkpoint,
    )  # fmt: skip


@eqx.filter_jit
def _scores(target: ss.LatticePhi4, fields: Array) -> Array:
    return jax.vmap(target)(fields)


@eqx.filter_jit
def _noised_scores(stage: Any, details: Array, low: Array, t: Array) -> Array:
    return jax.vmap(lambda d, x: stage.given(x)(stage.process.alpha(t) * d, t))(details, low)


@eqx.filter_jit
def _scores_without_noise(stage: ss.LocalEnergyPath, details: Array, low: Array) -> Array:
    return jax.vmap(lambda d, x: stage.given(x)(d, 0.0))(details, low)


def score_error(path: ss.WaveletPath, target: ss.LatticePhi4, fields: np.ndarray) -> float:
    """Relative error of the finest learned score, of a network at little noise.

    Without noise ``p(d | x_1)`` is proportional to ``exp(-S)``, so the score is the part of the model's own along the
    finest details.
    """
    values = jnp.asarray(fields)
    low, details = path.transform.split(values)
    stage = path.stages[-1]
    if isinstance(stage, ss.LocalEnergyPath):
        found = _scores_without_noise(stage, details, low)
    else:
        t = jnp.asarray(stage.process.time(jnp.asarray(-np.log(CHECKED_NOISE), values.dtype)), values.dtype)
        found = stage.process.alpha(t) * _noised_scores(stage, details, low, t)
    exact = path.transform.split(_scores(target, values))[1]
    return float(jnp.sqrt(jnp.mean((found - exact) ** 2) / jnp.mean(exact**2)))


def sampler_of(name: str, setting: Setting) -> Any:
    """The sampler of a model."""
    if name == ENERGIES:
        return ss.ParallelMALA(num_steps=setting.mala_steps)
    return ss.ReverseSDE(num_steps=setting.num_steps)


# ---------------------------------------------------------------------------------------------------------------------
# Measurements
# ---------------------------------------------------------------------------------------------------------------------


class Gap(NamedTuple):
    """An observable of the draws beside the reference's: values, standard errors."""

    found: float
    found_se: float
    reference: float
    reference_se: float

    @property
    def errors(self) -> float:
        """The gap in standard errors of both together."""
        return (self.found - self.reference) / float(np.hypot(self.found_se, self.reference_se))

    @property
    def percent(self) -> float:
        """The gap relative to the reference."""
        return 100 * (self.found / self.reference - 1)


def gaps(series: dict[str, np.ndarray], reference: Reference) -> dict[str, Gap]:
    """Observables of independent draws, (1, draw, ...), beside those of the reference."""

    def of(values: np.ndarray, value: float, error: float) -> Gap:
        return Gap(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)), value, error)

    found = {}
    for name in ("|m|", "action per site", "phi^2"):
        each = reference.estimates[name]
        found[name] = of(series[name], each.value, each.standard_error)
    values, errors = reference.curves["two-point function"]
    for r in DISTANCES:
        if r < len(values):
            found[f"C({r})"] = of(series["two-point function"][..., r], float(values[r]), float(errors[r]))
    return found


def bins_of(values: np.ndarray) -> np.ndarray:
    """Edges of bins that hold equal shares of the values."""
    edges = np.quantile(values, np.linspace(0, 1, NUM_BINS + 1))
    edges[0], edges[-1] = 0.0, np.inf
    return edges


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of the values in each bin."""
    return np.histogram(values, edges)[0] / values.size


def variation(draws: np.ndarray, chains: np.ndarray) -> tuple[float, float, float]:
    """Total variation between binned draws and binned chains, and its mean and quantile if both had one law.

    Arguments:
        draws: independent values.
        chains: (chain, draw) values of the reference, which also stand for the law.

    Returns:
        The distance; its mean, and its quantile at three standard errors, where chains are drawn from the chains with
        replacement and as many exact draws as there are from them all.
    """
    edges = bins_of(chains)
    law = shares(chains, edges)
    rows = np.array([shares(chain, edges) for chain in chains])
    rng = np.random.default_rng(0)
    again = rows[rng.integers(len(rows), size=(NUM_RESAMPLED, len(rows)))].mean(axis=1)
    exact = rng.multinomial(draws.size, law, size=NUM_RESAMPLED) / draws.size
    null = 0.5 * np.abs(again - exact).sum(axis=1)
    return (
        float(0.5 * np.abs(shares(draws, edges) - law).sum()), float(null.mean()),
        float(np.quantile(null, NULL_QUANTILE)),
    )  # fmt: skip


def measure(kappa: float, number: int, setting: Setting, cache: Path, folder: Path) -> dict[str, Any]:
    """Everything that is shown of one coupling."""
    target = ss.LatticePhi4((setting.length, setting.length), kappa)
    reference = hmc_reference(target, jax.random.key(number), setting=setting.hmc, cache=cache)
    data = augmented(reference.fields, setting.copies, 0)
    started = time.perf_counter()
    paths = {ENERGIES: ss.fit_wavelet_energies(data, levels=setting.levels, even=True)}
    taken = {ENERGIES: time.perf_counter() - started}
    networks: list[Any] = []
    if kappa in setting.network_kappas:
        paths[NETWORKS] = learned(target, data, setting, folder)
        networks = list(zip(paths[NETWORKS].stage_names(), paths[NETWORKS].stages, strict=True))
        taken[NETWORKS] = sum(stage.record.seconds for _, stage in networks)
    size = reference.estimates["|m|"]
    burn_in = setting.hmc.num_burn_in * setting.hmc.num_chains * setting.hmc.num_integration_steps
    cell: dict[str, Any] = {
        "hmc": {
            "evaluations": reference.num_evaluations + burn_in, "seconds": reference.seconds, "steps": size.steps,
            "evaluations per independent": size.evaluations,
            "seconds per independent": reference.seconds * size.evaluations / reference.num_evaluations,
            "acceptance": reference.acceptance, "r_hat": max(e.r_hat for e in reference.estimates.values()),
            "fields": len(reference.fields),
        },
        "training": {
            "seconds": taken,
            "stages": [
                {
                    "name": name, "seconds": stage.record.seconds, "parameters": stage.record.num_parameters,
                    "epoch": stage.record.best_epoch + 1, "loss": stage.record.best_loss,
                }
                for name, stage in networks
            ],
        },
        "score errors": {name: score_error(path, target, reference.fields[::5]) for name, path in paths.items()},
        "copies": setting.copies,
        "samplers": {},
        "|m|": np.abs(reference.series["m"]).reshape(-1)[::10].tolist(),
        "curves": {name: [part.tolist() for part in pair] for name, pair in reference.curves.items()},
        "wavenumbers": reference.wavenumbers.tolist(),
        "fields": reference.fields[:: len(reference.fields) // NUM_SHOWN][:NUM_SHOWN].tolist(),
    }  # fmt: skip
    num = setting.num_draws
    for name, path in paths.items():
        draws = ss.sample(
            path, sampler_of(name, setting), key=jax.random.key(2), num_chains=1, num_samples=num,
            batch_size=min(num, 500),
        )  # fmt: skip
        fields = np.asarray(draws.position)
        series = observables(target, jnp.asarray(fields))
        cell["samplers"][name] = {
            "gaps": {what: list(gap) for what, gap in gaps(series, reference).items()},
            "variation": variation(np.abs(series["m"]).ravel(), np.abs(reference.series["m"])),
            "seconds": draws.seconds - draws.info["compile_seconds"], "draws": num, "nfe": draws.nfe,
            "full size nfe": draws.info["full_size_nfe"],
            "checks": [check.name for check in draws.info["checks"] if not check.passed],
            "|m|": np.abs(series["m"]).ravel().tolist(),
            "curves": {
                what: [series[what].mean(axis=(0, 1)).tolist(),
                       (series[what].std(axis=(0, 1), ddof=1) / np.sqrt(num)).tolist()]
                for what in ("two-point function", "spectrum")
            },
            "fields": fields[0, :NUM_SHOWN].tolist(),
        }  # fmt: skip
    return cell


# ---------------------------------------------------------------------------------------------------------------------
# The goals, the tables, the picture
# ---------------------------------------------------------------------------------------------------------------------

Cells = dict[float, dict[str, Any]]
"""What was measured, by kappa."""


def goal_rows(cells: Cells) -> list[tuple[str, str, str, bool]]:
    """The claim, the number, the goal, and whether it holds."""
    rows = []
    for kappa, cell in cells.items():
        for name, found in cell["samplers"].items():
            claim = f"kappa = {kappa:g}, {name}"
            for what, parts in found["gaps"].items():
                gap = Gap(*parts)
                rows.append((
                    f"{claim}: {what}, gap to HMC in standard errors", f"{gap.errors:+.1f} ({gap.percent:+.2f}%)",
                    f"within {MOST_ERRORS:g}", abs(gap.errors) <= MOST_ERRORS,
                ))  # fmt: skip
            distance, null, most = found["variation"]
            rows.append((
                f"{claim}: total variation of binned |m|, over its mean under one law", f"{distance / null:.2f}",
                f"<= {most / null:.2f}", distance <= most,
            ))  # fmt: skip
        for name, error in cell["score errors"].items():
            where = "without noise" if name == ENERGIES else f"at noise {CHECKED_NOISE:g}"
            rows.append((
                f"kappa = {kappa:g}, {name}: finest score {where}, relative error", f"{error:.3f}",
                f"<= {MOST_SCORE_ERROR:g}", error <= MOST_SCORE_ERROR,
            ))  # fmt: skip
    return rows


def models_of(cells: Cells) -> tuple[str, ...]:
    """The models that were drawn from at any kappa."""
    return tuple(name for name in (ENERGIES, NETWORKS) if any(name in cell["samplers"] for cell in cells.values()))


def values_table(cells: Cells) -> str:
    """Observables with one standard error in units of their last digits."""
    lines, models = [], models_of(cells)
    for kappa, cell in cells.items():
        columns = {name: {w: Gap(*g) for w, g in each["gaps"].items()} for name, each in cell["samplers"].items()}
        for what, gap in columns[ENERGIES].items():
            drawn = [
                with_error(columns[name][what].found, columns[name][what].found_se) if name in columns else ""
                for name in models
            ]
            lines.append([f"{kappa:g}", what, with_error(gap.reference, gap.reference_se), *drawn])
    return table(["kappa", "mean", "HMC", *models], lines)


def costs_table(cells: Cells) -> str:
    """What a field costs."""
    rows: dict[str, list[str]] = {}

    def add(name: str, text: str) -> None:
        rows.setdefault(name, []).append(text)

    for cell in cells.values():
        hmc = cell["hmc"]
        add("HMC: target evaluations, with burn-in, millions", f"{hmc['evaluations'] / 1e6:.1f}")
        add("HMC: seconds", f"{hmc['seconds']:.0f}")
        add("HMC: trajectories to an independent |m|", f"{hmc['steps']:.1f}")
        add("HMC: target evaluations to an independent |m|", f"{hmc['evaluations per independent']:.0f}")
        add("HMC: milliseconds to an independent |m|", f"{1e3 * hmc['seconds per independent']:.1f}")
        for name in models_of(cells):
            each = cell["samplers"].get(name)
            texts = [""] * 5
            if each is not None:
                training, own = cell["training"]["seconds"][name], each["seconds"] / each["draws"]
                saved = hmc["seconds per independent"] - own
                more = 0 if name == ENERGIES else hmc["fields"] * cell["copies"]
                texts = [
                    f"{training:.0f}", str(more), f"{each['full size nfe']:.0f}", f"{1e3 * own:.1f}",
                    f"{training / saved:.0f}" if saved > 0 else "never",
                ]  # fmt: skip
            for what, text in zip(
                ("seconds of learning", "target evaluations of learning, beyond HMC's",
                 "own evaluations of a field, in full sizes", "milliseconds of a field",
                 "fields after which learning is paid for, the reference not counted"),
                texts, strict=True,
            ):  # fmt: skip
                add(f"{name}: {what}", text)
    return table(["", *[f"kappa = {kappa:g}" for kappa in cells]], [[name, *texts] for name, texts in rows.items()])


def trainings_table(cells: Cells) -> str:
    """The trainings of every stage."""
    lines = [
        [f"{kappa:g}", s["name"], f"{s['parameters']}", str(s["epoch"]), f"{s['loss']:.3f}", f"{s['seconds']:.0f}"]
        for kappa, cell in cells.items()
        for s in cell["training"]["stages"]
    ]
    return table(["kappa", "stage", "weights", "epoch", "held-out loss", "seconds"], lines)


def figure_of(cells: Cells) -> Figure:
    """Fields, histograms of |m|, two-point functions and spectra."""
    plt.rcParams |= {"font.size": 10}
    figure = plt.figure(figsize=(13, 4.1 * len(cells)), layout="constrained")
    strips = figure.subfigures(len(cells), 1, squeeze=False)[:, 0]
    colours = {ENERGIES: "#0072B2", NETWORKS: "#D55E00"}
    for strip, (kappa, cell) in zip(strips, cells.items(), strict=True):
        strip.suptitle(f"kappa = {kappa:g}")
        left, right = strip.subfigures(1, 2, width_ratios=[1.05, 2])
        sheets = left.subplots(2, NUM_SHOWN)
        wavelets = cell["samplers"][ENERGIES]
        for row, name, fields in zip(sheets, ("HMC", ENERGIES), (cell["fields"], wavelets["fields"]), strict=True):
            row[0].set_title(name, loc="left", fontsize=10)
            for panel, values in zip(row, fields, strict=True):
                panel.imshow(values, cmap="RdBu_r", vmin=-1.6, vmax=1.6)
                panel.set_axis_off()
        panels = right.subplots(1, 3)
        edges = np.linspace(0, max(cell["|m|"]) * 1.05, 31)
        centres = 0.5 * (edges[1:] + edges[:-1])
        for name, each in cell["samplers"].items():
            panels[0].hist(each["|m|"], edges, density=True, histtype="step", color=colours[name], label=name)
            correlation, error = map(np.array, each["curves"]["two-point function"])
            panels[1].errorbar(
                np.arange(len(correlation)), correlation, 2 * error, fmt="o", ms=3, capsize=2, color=colours[name]
            )
            power, error = map(np.array, each["curves"]["spectrum"])
            panels[2].errorbar(
                cell["wavenumbers"][1:], power[1:], 2 * error[1:], fmt="o", ms=3, capsize=2, color=colours[name]
            )
        known = {"color": "black", "ls": "--", "lw": 1.2}
        panels[0].plot(centres, np.histogram(cell["|m|"], edges, density=True)[0], label="HMC", **known)
        panels[1].plot(cell["curves"]["two-point function"][0], **known)
        panels[2].plot(cell["wavenumbers"][1:], cell["curves"]["spectrum"][0][1:], **known)
        panels[0].set(xlabel="|m|", ylabel="density")
        panels[1].set(xlabel="distance r", ylabel="two-point function C(r)", ylim=(0, None))
        panels[2].set(xlabel="wavenumber", ylabel="power", xscale="log", yscale="log")
        panels[2].xaxis.set_minor_formatter(NullFormatter())
        panels[2].yaxis.set_minor_formatter(NullFormatter())
        peak = panels[0].get_ylim()[1]
        panels[0].set(ylim=(0, 1.35 * peak))
        panels[0].legend(frameon=False, fontsize=9, loc="upper left")
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
    return figure


def report(cells: Cells, setting: Setting, picture: str) -> tuple[list[str], list[str]]:
    """The parts of the page, and the goals that were missed."""
    rows = goal_rows(cells)
    length, hmc = setting.length, setting.hmc
    parts = [
        "Guth, Coste, De Bortoli and Mallat 2022, [arXiv 2208.05003](https://arxiv.org/abs/2208.05003); "
        "Guth, Lempereur, Bruna and Mallat 2023, [arXiv 2306.00181](https://arxiv.org/abs/2306.00181). At a phase "
        "transition fields have structure at all scales; their law given the field at half the size does not: it is "
        "local. [`fit_wavelet_energies`][scoresample.fit_wavelet_energies] learns these conditional laws as local "
        "energies, in closed form; [`fit_wavelet`][scoresample.fit_wavelet] with networks.",
        f"[`LatticePhi4`][scoresample.LatticePhi4] on {length} x {length} sites with lam = 1: disordered at kappa "
        f"= .32, near its transition at .34, ordered at .36. HMC: {hmc.num_chains} chains of "
        f"{hmc.num_blocks * hmc.block_length} trajectories of {hmc.num_integration_steps} steps, one field in "
        f"{hmc.thinning} kept, each learned from in {setting.copies} images under random symmetries of the model: "
        f"sign, shifts, reflections, transposition. Haar wavelets, {setting.levels} scales. {setting.num_draws:,} "
        f"fields are drawn from the energies by [`ParallelMALA`][scoresample.ParallelMALA] with {setting.mala_steps} "
        "moves at every scale"
        + (
            f", and as many from the networks by [`ReverseSDE`][scoresample.ReverseSDE] with {setting.num_steps} "
            "steps. The networks' finest details are learned from the model's own score too."
            if setting.network_kappas
            else "."
        ),
        "The reference is also what was trained on: its own errors, with which it stands in the gaps, are in part "
        "inherited. A gap of three standard errors is therefore a mild goal; the percentages say how large it is.",
        *([picture] if picture else []),
        table(
            ["", "measured", "goal", "holds"],
            [[what, found, goal, "yes" if holds else "**no**"] for what, found, goal, holds in rows],
        ),
        f"## The observables\n\nMeans with one standard error in units of their last digits.\n\n{values_table(cells)}",
        "## What a field costs\n\nHMC's fields are dependent: what counts is the integrated autocorrelation time of "
        "|m|, the slowest even observable. Draws of the wavelet paths are independent. Their evaluations are of "
        f"what was learned, not of the target, which is cheap here: the seconds compare.\n\n{costs_table(cells)}",
    ]
    failed = [
        f"kappa = {kappa:g}, {name}: {', '.join(each['checks'])}"
        for kappa, cell in cells.items()
        for name, each in cell["samplers"].items()
        if each["checks"]
    ]
    if any(cell["training"]["stages"] for cell in cells.values()):
        parts.append(f"## The trainings of networks\n\n{trainings_table(cells)}")
    if failed:
        parts.append("## Checks of the runs that did not pass\n\n" + "; ".join(failed) + ".")
    if "coarsest field" in parts[-1]:
        parts.append(
            "The coarsest field has two modes, of either sign, between which short chains do not cross. Their shares "
            "are those of the start, near fields of either sign: half each, as they should be. Where the shares are "
            "not known, such a run cannot be trusted, and the check says so."
        )
    return parts, [what for what, *_, holds in rows if not holds]


def digest(setting: Setting, *left_out: str) -> str:
    """What tells one setting from another."""
    facts = {name: value for name, value in asdict(setting).items() if name not in left_out}
    return hashlib.sha256(repr((facts, CHECKED_NOISE, NUM_BINS)).encode()).hexdigest()[:8]


def main() -> int:
    """Run HMC, train, draw, measure, and print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="16 x 16 sites, one kappa, no networks")
    size.add_argument("--full", action="store_true", help="32 x 32 sites and three kappas, the default")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "scoresample-papers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    setting, folder = QUICK if options.quick else Setting(), options.cache
    drawing = ("num_draws", "num_steps", "mala_steps", "network_kappas", "kappas")
    cells: Cells = {}
    for kappa in setting.kappas:
        started, number = time.perf_counter(), KAPPAS.index(kappa)
        training = folder / f"wavelets_phi4-{kappa:g}-{digest(setting, *drawing)}.training"
        cells[kappa] = cached(
            folder, f"wavelets_phi4 {kappa:g} {digest(setting, 'kappas')}",
            lambda kappa=kappa, number=number, training=training: measure(kappa, number, setting, folder, training),
        )  # fmt: skip
        print(f"kappa={kappa:g}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps({f"{kappa:g}": cell for kappa, cell in cells.items()}))
    page, images = options.out or DOCS / "papers", options.out or DOCS / "images"
    kept_page = options.out is not None or not options.quick
    picture = ""
    if kept_page:
        images.mkdir(parents=True, exist_ok=True)
        figure_of(cells).savefig(images / "wavelets-phi4.png", dpi=110)
        picture = (
            "![Fields by HMC and by the wavelet path, histograms of the magnetisation, two-point functions and radial "
            f"spectra at three couplings]({os.path.relpath(images, page)}/wavelets-phi4.png)"
        )
    parts, missed = report(cells, setting, picture)
    if kept_page:
        keep("wavelets_phi4", "A phase transition, scale by scale", *parts, out=page)
    else:
        print("\n\n".join(parts))
    for name in missed:
        print("missed:", name, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
