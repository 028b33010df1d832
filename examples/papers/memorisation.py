"""Where does memorisation end? A score learned from 50 to 20,000 points of a manifold, judged by diagnostics alone.

Pidstrigach 2022, arXiv 2206.01018: a model that matches the score of its training points returns those points. Run as
`python -m examples.papers.memorisation [--quick] [--json FILE] [--cache FOLDER] [--out FOLDER]`.

One law on a three-dimensional torus in twelve dimensions, one network, one number of optimiser steps; only the number n
of training points differs. Each training gives two scores: with the weights after its last step, and with those of its
smallest held-out loss, which `fit_score` keeps. The exit status is 1 if a goal fails. Trainings and measurements are
kept in the cache folder, so an interrupted run goes on.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure
from scipy.spatial import KDTree

import scoresample as ss
from tests.benchmarks.report import cached, keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
ANGLES, DIMENSION = 3, 13
SIGMAS = (0.2, 0.4, 0.8)
"""Noise levels sigma/alpha; coordinates of the data have variances near one."""
NUM_DRAWS, NUM_HELD_OUT = 1000, 5000
"""Draws of each score, and held-out points."""
HEALTH_POINTS = 256
"""Points at which one call of `manifold_health` measures the intrinsic dimension."""
QUADRATURE = 48
"""Nodes for each angle, for the true score."""
SIGMA_RANGE = (0.01, 10.0)

MEMORISED_GOAL, GENERALISED_GOAL, GAP_GOAL, FACTOR_GOAL, ERRORS = 0.5, 0.05, 10.0, 4.0, 3.0
DRAWS_END, GAP_END = 0.05, 0.3
"""The transition is where the memorised fraction is so much above chance; where the loss at held-out points is so much
above that at training points, a tenth of the true dimension; and where so much lies between the dimensions there."""

Denoiser = Callable[[Array, Array], Array]
WHERE = ("held out", "training")
Kept = Literal["last", "best"]
KEPT: tuple[Kept, ...] = ("last", "best")


@dataclass(frozen=True)
class Setting:
    """How long and how large: every n has `rows` rows, its points over and over, so that all trainings are alike.

    `num_calls` is that of `manifold_health`, each on points of its own.
    """

    sizes: tuple[int, ...] = (50, 100, 200, 500, 1000, 2000, 5000, 20_000)
    rows: int = 20_000
    batch_size: int = 250
    num_epochs: int = 100
    width: int = 128
    depth: int = 3
    learning_rate: float = 2e-3
    num_calls: int = 8

    @property
    def num_steps(self) -> int:
        """Optimiser steps of a training."""
        return self.num_epochs * self.rows // self.batch_size


QUICK = Setting(
    (50, 20_500), rows=20_500, batch_size=50, num_epochs=12, width=96, depth=2, learning_rate=4e-3, num_calls=2
)
"""With these sizes the arrays of both trainings have the same shapes, so that one compilation serves both."""

# ---------------------------------------------------------------------------------------------------------------------
# The law
# ---------------------------------------------------------------------------------------------------------------------

TURN = 0.5
FREQUENCIES = np.array([m for m in itertools.product((-1, 0, 1), repeat=ANGLES) if m > (0,) * ANGLES], float)
PHASES = np.random.default_rng(0).uniform(0, 2 * np.pi, DIMENSION)


def angles(rng: np.random.Generator, num: int) -> np.ndarray:
    """Three angles, each von Mises around the one before: far from uniform, and dependent."""
    found = [rng.vonmises(0.0, 1.0, num)]
    for _ in range(ANGLES - 1):
        found.append(found[-1] + rng.vonmises(TURN, 1.0, num))
    return np.stack(found, axis=1)


def embedded(theta: np.ndarray) -> np.ndarray:
    """Points of a curved torus in thirteen dimensions: ``sqrt(2) cos(<m, theta> + phase)`` for all m of -1, 0 and 1."""
    return np.sqrt(2) * np.cos(theta @ FREQUENCIES.T + PHASES)


def points(seed: int, num: int) -> np.ndarray:
    """Points of the law."""
    return embedded(angles(np.random.default_rng(seed), num))


def distances(positions: np.ndarray) -> np.ndarray:
    """Distances from the torus, by Gauss and Newton's method: the control, of which no diagnostic knows."""
    starts = np.random.default_rng(7).uniform(-np.pi, np.pi, (200_000, ANGLES))
    theta = starts[KDTree(embedded(starts)).query(positions)[1]]
    for _ in range(8):
        tangents = -np.sqrt(2) * np.sin(theta @ FREQUENCIES.T + PHASES)[:, :, None] * FREQUENCIES
        squares = np.einsum("nij,nik->njk", tangents, tangents)
        steps = np.einsum("nij,ni->nj", tangents, positions - embedded(theta))
        theta = theta + np.linalg.solve(squares + 1e-6 * np.eye(ANGLES), steps[..., None])[..., 0]
    return np.linalg.norm(positions - embedded(theta), axis=1)


def quadrature(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the law on an even grid of angles: at the least of the noise levels exact to .2%."""
    axis = np.linspace(-np.pi, np.pi, num, endpoint=False)
    theta = np.stack(np.meshgrid(*[axis] * ANGLES, indexing="ij"), axis=-1).reshape(-1, ANGLES)
    weights = np.exp(np.cos(theta[:, 0]) + np.cos(np.diff(theta, axis=1) - TURN).sum(axis=1))
    return embedded(theta), weights / weights.sum()


# ---------------------------------------------------------------------------------------------------------------------
# Trainings and what is measured of them
# ---------------------------------------------------------------------------------------------------------------------


def fit(n: int, kept: Kept, setting: Setting, checkpoint: Path) -> Any:
    """A score learned from n points, with n/10 more (at least 10) to choose the best weights by.

    Of a stream the first points are held out. The second call finds the finished training of the first.
    """
    num_chosen_by = max(n // 10, 10)
    data = np.concatenate([points(2, num_chosen_by), np.tile(points(1, n), (setting.rows // n, 1))])
    return ss.fit_score(
        lambda: iter([data]), key=jax.random.key(0), keep=kept, checkpoint=checkpoint, buffer_size=len(data),
        validation_fraction=(num_chosen_by + 0.5) / len(data), standardise="none", sigma_range=SIGMA_RANGE,
        num_epochs=setting.num_epochs, batch_size=setting.batch_size, width=setting.width, depth=setting.depth,
        learning_rate=setting.learning_rate, patience=None,
    )  # fmt: skip


def checkpoint_of(folder: Path, n: int, setting: Setting) -> Path:
    """Where a training is kept."""
    return folder / f"memorisation-{n}-{digest(setting)}.training"


def cell_name(n: int, kept: Kept, setting: Setting) -> str:
    """Under which the measurements of a score are kept."""
    measured = repr((SIGMAS, NUM_DRAWS, NUM_HELD_OUT, setting.num_calls, HEALTH_POINTS))
    return f"memorisation {n} {kept} {digest(setting)} {hashlib.sha256(measured.encode()).hexdigest()[:8]}"


def digest(setting: Setting) -> str:
    """What tells the trainings of one setting from those of another."""
    facts = {name: value for name, value in asdict(setting).items() if name not in ("sizes", "num_calls")}
    return hashlib.sha256(repr((facts, SIGMA_RANGE, ANGLES, DIMENSION, TURN)).encode()).hexdigest()[:8]


def noised(clean: np.ndarray, sigma: float) -> tuple[Array, Array]:
    """At least `NUM_HELD_OUT` pairs of a clean point and the same with noise; the noise is the same for every score."""
    repeats = -(-NUM_HELD_OUT // len(clean))
    clean = np.tile(clean, (repeats, 1))[:NUM_HELD_OUT]
    noise = np.random.default_rng(5).normal(size=clean.shape)
    return jnp.asarray(clean, float), jnp.asarray(clean + sigma * noise, float)


@eqx.filter_jit
def denoised(score: Any, positions: Array, sigma: Array) -> Array:
    """Denoisers at points with noise sigma, alpha being one."""
    t = score.process.time(-jnp.log(sigma))
    return jax.vmap(lambda x: score.denoise(score.process.alpha(t) * x, t))(positions)


def loss(denoise: Denoiser, clean: np.ndarray, sigma: float) -> tuple[float, float]:
    """The denoising loss ``E|D(x + sigma e) - x|^2 / sigma^2`` and its standard error over the clean points.

    At little noise the true score's is the dimension of the data: noise along them cannot be told from them.
    """
    truth, positions = noised(clean, sigma)
    missed = np.asarray(denoise(positions, jnp.asarray(sigma, float)), np.float64) - np.asarray(truth)
    squares = np.sum(missed**2, axis=1) / sigma**2
    num = min(len(clean), len(squares))
    each = [np.mean(squares[k::num]) for k in range(num)]
    return float(np.mean(squares)), float(np.std(each, ddof=1) / np.sqrt(num))


def measure(n: int, kept: Kept, setting: Setting, checkpoint: Path) -> dict[str, Any]:
    """Everything that the tables show of one score."""
    score = fit(n, kept, setting, checkpoint)
    training, held_out = points(1, n), points(3, NUM_HELD_OUT)
    draws = ss.sample(score, ss.ReverseSDE(), key=jax.random.key(4), num_chains=1, num_samples=NUM_DRAWS)
    found = ss.memorisation(draws, training, held_out)
    off = distances(np.asarray(draws.position, np.float64).reshape(-1, DIMENSION))
    cell: dict[str, Any] = {
        "fraction": found.fraction, "fraction se": found.fraction_se, "chance": found.chance,
        "chance se": found.chance_se, "nearer": found.nearer, "nearer se": found.nearer_se,
        "distance": float(np.median(off)), "far": float(np.quantile(off, 0.9)), "nfe": draws.nfe,
        "seconds": score.record.seconds, "epoch": score.record.best_epoch + 1,
    }  # fmt: skip
    for sigma, found_here in dimensions(score, held_out, training, setting.num_calls).items():
        for (name, clean), (mean, error) in zip(
            (("held out", held_out), ("training", training[:NUM_HELD_OUT])), found_here, strict=True
        ):
            cell[f"dimension {name} {sigma}"], cell[f"dimension {name} se {sigma}"] = mean, error
            cell[f"loss {name} {sigma}"], cell[f"loss {name} se {sigma}"] = loss(
                lambda x, s: denoised(score, x, s), clean, sigma
            )
    return cell


def dimensions(
    score: Any, held_out: np.ndarray, training: np.ndarray, num_calls: int
) -> dict[float, list[tuple[float, float]]]:
    """FLIPD by noise level: means and standard errors at held-out points and at training points.

    `manifold_health` takes 256 points of either; several calls on different points have a smaller error. Where there
    are fewer training points they are all taken each time.
    """
    times = [float(score.process.time(jnp.asarray(-np.log(sigma), float))) for sigma in sorted(SIGMAS, reverse=True)]
    tables = []
    for call in range(num_calls):
        rows = slice(call * HEALTH_POINTS, (call + 1) * HEALTH_POINTS)
        trained = training[rows] if len(training) >= num_calls * HEALTH_POINTS else training
        key = jax.random.fold_in(jax.random.key(6), call)
        tables.append(ss.manifold_health(score, held_out[rows], key=key, training=trained, levels=times).table)
    found = {}
    for place, sigma in enumerate(sorted(SIGMAS, reverse=True)):
        assert np.isclose(tables[0]["noise"][place], sigma, rtol=1e-3)
        found[sigma] = []
        for column, num in (("flipd", len(held_out)), ("flipd_training", len(training))):
            mean = np.mean([each[column][place] for each in tables])
            error = np.mean([each[f"{column}_se"][place] for each in tables])
            found[sigma].append((float(mean), float(error / np.sqrt(min(num_calls, max(num / HEALTH_POINTS, 1))))))
    return found


def without_training(name: str) -> dict[str, Any]:
    """Held-out losses of exact scores: of n points themselves with noise around each, or of the law."""
    nodes, weights = quadrature(QUADRATURE) if name == "law" else (points(1, int(name)), None)
    score, held_out = ss.perturb(nodes, ss.VP(), weights=weights), points(3, NUM_HELD_OUT)
    return {str(sigma): loss(lambda x, s: denoised(score, x, s), held_out, sigma) for sigma in SIGMAS}


# ---------------------------------------------------------------------------------------------------------------------
# Where it ends, and the goals
# ---------------------------------------------------------------------------------------------------------------------

Cells = dict[str, dict[str, Any]]
"""What was measured, by ``n|kept``."""


def excess(cell: dict[str, Any]) -> tuple[float, float]:
    """The memorised fraction above chance, and its standard error."""
    return cell["fraction"] - cell["chance"], float(np.hypot(cell["fraction se"], cell["chance se"]))


def gap(cell: dict[str, Any], sigma: float = SIGMAS[0]) -> tuple[float, float]:
    """The loss at held-out points less that at training points, and its standard error."""
    return _difference(cell, "loss", sigma)


def dimension_gap(cell: dict[str, Any], sigma: float = SIGMAS[0]) -> tuple[float, float]:
    """The intrinsic dimension at held-out points less that at training points, and its standard error."""
    return _difference(cell, "dimension", sigma)


def _difference(cell: dict[str, Any], what: str, sigma: float) -> tuple[float, float]:
    error = np.hypot(cell[f"{what} held out se {sigma}"], cell[f"{what} training se {sigma}"])
    return cell[f"{what} held out {sigma}"] - cell[f"{what} training {sigma}"], float(error)


SIGNS: dict[str, tuple[Callable[[dict[str, Any]], tuple[float, float]], float]] = {
    "memorised fraction": (excess, DRAWS_END),
    "loss": (gap, GAP_END),
    "dimension": (dimension_gap, GAP_END),
}
"""Signs of memorisation, and below what they count as gone."""


def transition(sizes: tuple[int, ...], values: list[float], end: float) -> float:
    """The n from which on values stay below `end`, between sizes in proportion to log n; inf if they never do."""
    above = [k for k, value in enumerate(values) if value > end]
    if not above:
        return float(sizes[0])
    last = above[-1]
    if last + 1 == len(sizes):
        return float("inf")
    share = (values[last] - end) / (values[last] - values[last + 1])
    return float(np.exp(np.interp(share, [0, 1], np.log([sizes[last], sizes[last + 1]]))))


def transitions(cells: Cells, sizes: tuple[int, ...], kept: Kept) -> dict[str, float]:
    """Where each sign of memorisation ends."""
    return {
        name: transition(sizes, [sign(cells[f"{n}|{kept}"])[0] for n in sizes], end)
        for name, (sign, end) in SIGNS.items()
    }


def goal_rows(cells: Cells, sizes: tuple[int, ...]) -> list[tuple[str, str, str, bool]]:
    """What is asked of a right implementation: the claim, the number, the goal, and whether it holds."""
    last = [cells[f"{n}|last"] for n in sizes]
    few, many = excess(last[0])[0], excess(last[-1])[0]
    gaps = [gap(cell) for cell in last]
    rises = [(b[0] - a[0]) / np.hypot(a[1], b[1]) for a, b in itertools.pairwise(gaps)]
    fall = gaps[0][0] / max(gaps[-1][0], gaps[-1][1])
    found = transitions(cells, sizes, "last")
    more = [
        (excess(cells[f"{n}|best"])[0] - excess(cell)[0]) / np.hypot(excess(cells[f"{n}|best"])[1], excess(cell)[1])
        for n, cell in zip(sizes, last, strict=True)
    ]
    factors = {
        name: max(found[name], found["memorised fraction"]) / min(found[name], found["memorised fraction"])
        for name in ("loss", "dimension")
    }
    first, final = f"n = {sizes[0]:,}", f"n = {sizes[-1]:,}"
    return [
        (f"last weights, {first}: memorised above chance", f"{few:.3f}", f">= {MEMORISED_GOAL}", few >= MEMORISED_GOAL),
        (
            f"last weights, {final}: memorised above chance", f"{many:+.3f}", f"<= {GENERALISED_GOAL}",
            many <= GENERALISED_GOAL,
        ),
        (
            "last weights: largest rise of the loss gap from one n to the next, in standard errors",
            f"{max(rises):+.1f}", f"<= {ERRORS:g}", max(rises) <= ERRORS,
        ),
        (
            f"last weights: the loss gap falls from {first} to {final} by a factor of", f"{fall:.0f}",
            f">= {GAP_GOAL:g}", fall >= GAP_GOAL,
        ),
        *(
            (
                f"last weights: ends of memorisation by draws and by {name}, factor between them in n", f"{factor:.1f}",
                f"<= {FACTOR_GOAL:g}", factor <= FACTOR_GOAL,
            )
            for name, factor in factors.items()
        ),
        (
            "best weights memorise more than the last, at most, in standard errors", f"{max(more):+.1f}",
            f"<= {ERRORS:g}", max(more) <= ERRORS,
        ),
    ]  # fmt: skip


def figure_of(cells: Cells, bare: dict[str, Any], sizes: tuple[int, ...]) -> Figure:
    """The memorised fraction, the losses and the intrinsic dimension against n."""
    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(1, 3, figsize=(12.5, 4.8), layout="constrained")
    colours = {"last": "#D55E00", "best": "#0072B2"}
    sigma = SIGMAS[0]

    def series(name: str, kept: str) -> np.ndarray:
        return np.array([cells[f"{n}|{kept}"][name] for n in sizes])

    chance, error = series("chance", "last"), series("chance se", "last")
    band = panels[0].fill_between(sizes, chance - 2 * error, chance + 2 * error, color="0.8")
    lines: dict[str, Any] = {"chance: held-out points (± 2 s.e.)": band}
    for kept, colour in colours.items():
        fraction, error = series("fraction", kept), series("fraction se", kept)
        drawn = panels[0].errorbar(sizes, fraction, 2 * error, fmt="D-", ms=5, capsize=2, color=colour)
        lines[f"{kept} weights, draws (± 2 s.e.)"] = drawn
        for panel, what in ((panels[1], "loss"), (panels[2], "dimension")):
            for where, style in zip(WHERE, ("o-", "s--"), strict=True):
                (drawn,) = panel.plot(sizes, series(f"{what} {where} {sigma}", kept), style, ms=5, color=colour)
                lines[f"{kept} weights, {where.replace(' ', '-')} points"] = drawn
    (drawn,) = panels[1].plot(sizes, [bare[str(n)][str(sigma)][0] for n in sizes], "^:", ms=5, color="0.45")
    lines["score of the n points, held-out points"] = drawn
    truths = [ANGLES if "law" not in bare else bare["law"][str(sigma)][0], ANGLES]
    for panel, truth in zip(panels[1:], truths, strict=True):
        lines["true score"] = panel.axhline(truth, color="black", lw=1)
    panels[0].set(title="Draws", ylabel="memorised fraction of the draws", ylim=(0, 1.05))
    loss_label = r"$E|D(x + \sigma e) - x|^2 / \sigma^2$, dimensions"
    panels[1].set(title=f"Denoising loss, noise {sigma:g}", ylabel=loss_label, yscale="log")
    panels[1].set_yticks([0.3, 1, 3, 10, 30, 100], ["0.3", "1", "3", "10", "30", "100"])
    panels[2].set(title=f"Intrinsic dimension (FLIPD), noise {sigma:g}", ylabel="dimensions", ylim=(-1, 130))
    panels[2].set_yscale("symlog", linthresh=1.0)
    panels[2].set_yticks([-1, 0, 1, 3, 10, 30, 100], ["-1", "0", "1", "3", "10", "30", "100"])
    for panel, end in zip(panels, transitions(cells, sizes, "last").values(), strict=True):
        panel.set(xscale="log", xlabel="training points n")
        panel.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=45)
        panel.minorticks_off()
        if np.isfinite(end):
            lines["end of memorisation, last weights"] = panel.axvline(end, color=colours["last"], lw=1, ls=":")
            panel.text(
                end * 1.07, 0.97, f"n = {end:,.0f}", transform=panel.get_xaxis_transform(), va="top",
                color=colours["last"],
            )  # fmt: skip
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def measurements(cells: Cells, bare: dict[str, Any], sizes: tuple[int, ...], kept: Kept) -> str:
    """The table of one kind of weights at the least noise."""
    sigma, lines = SIGMAS[0], []
    for n in sizes:
        cell = cells[f"{n}|{kept}"]
        lines.append([
            f"{n:,}", str(cell["epoch"]), f"{cell['fraction']:.3f} ± {cell['fraction se']:.3f}",
            f"{cell['chance']:.3f}", f"{cell['nearer']:.2f}",
            *(with_error(cell, f"loss {where}", sigma) for where in ("held out", "training")),
            f"{bare[str(n)][str(sigma)][0]:.1f}",
            *(with_error(cell, f"dimension {where}", sigma) for where in ("held out", "training")),
            f"{cell['distance']:.3f}", f"{cell['far']:.3f}",
        ])  # fmt: skip
    header = [
        "n", "epoch", "memorised", "chance", "nearer", "loss, held out", "loss, training", "loss of the points",
        "FLIPD, held out", "FLIPD, training", "distance, median", "distance, 90%",
    ]  # fmt: skip
    return table(header, lines)


def with_error(cell: dict[str, Any], what: str, sigma: float) -> str:
    """A mean and its standard error."""
    return f"{cell[f'{what} {sigma}']:.2f} ± {cell[f'{what} se {sigma}']:.2f}"


def ends_table(cells: Cells, sizes: tuple[int, ...]) -> str:
    """Where the signs of memorisation end, at every noise level."""
    lines = []
    for kept in KEPT:
        fraction = transition(sizes, [excess(cells[f"{n}|{kept}"])[0] for n in sizes], DRAWS_END)
        lines.append([kept, f"memorised fraction {DRAWS_END:g} above chance", ends(fraction, sizes), "", ""])
        for name, sign in (("loss", gap), ("FLIPD", dimension_gap)):
            found = [
                transition(sizes, [sign(cells[f"{n}|{kept}"], sigma)[0] for n in sizes], GAP_END) for sigma in SIGMAS
            ]
            lines.append([
                kept, f"{name} {GAP_END:g} higher at held-out points than at training points",
                *(ends(end, sizes) for end in found),
            ])  # fmt: skip
    return table(["weights", "last sign of memorisation", *(f"noise {sigma:g}" for sigma in SIGMAS)], lines)


def ends(end: float, sizes: tuple[int, ...]) -> str:
    """An n in words."""
    if end == sizes[0]:
        return f"never seen, n >= {sizes[0]}"
    return f"n = {end:,.0f}" if np.isfinite(end) else f"not by n = {sizes[-1]:,}"


def losses_table(cells: Cells, bare: dict[str, Any], sizes: tuple[int, ...]) -> str:
    """Losses at all noise levels."""
    lines = []
    for sigma in SIGMAS:
        for n in sizes:
            last, best = (cells[f"{n}|{kept}"] for kept in KEPT)
            lines.append([
                f"{sigma:g}", f"{n:,}",
                *(with_error(cell, f"loss {where}", sigma) for cell in (last, best) for where in WHERE),
                f"{bare[str(n)][str(sigma)][0]:.2f}",
                f"{bare['law'][str(sigma)][0]:.2f}" if "law" in bare else "-",
            ])  # fmt: skip
    header = [
        "noise", "n", "last, held out", "last, training", "best, held out", "best, training",
        "score of the points, held out", "true score, held out",
    ]  # fmt: skip
    return table(header, lines)


def report(cells: Cells, bare: dict[str, Any], setting: Setting, picture: str) -> tuple[list[str], list[str]]:
    """The page, and the goals that are missed."""
    sizes = setting.sizes
    rows = goal_rows(cells, sizes)
    goals = [
        [name, value, goal, "yes"] if holds else [f"**{name}**", f"**{value}**", goal, "**no**"]
        for name, value, goal, holds in rows
    ]
    sigma = SIGMAS[0]
    law = f" (here {bare['law'][str(sigma)][0]:.2f})" if "law" in bare else ""
    parts = [
        "Pidstrigach 2022, arXiv 2206.01018: a model that matches the score of its training points, with noise around "
        "each, returns those points. On few points a large network that is trained for long does so; on many it learns "
        "the law. Here the n at which the one ends and the other begins is found from draws, training points and "
        "held-out points alone, as it can be for data of your own. Goals that are missed are in bold.",
        table(["claim", "measured", "goal", "holds"], goals),
        *([picture] if picture else []),
        how_to_read(cells, sizes),
        "## What was done\n\nThe data lie on a curved three-dimensional torus in thirteen dimensions, `x_m = sqrt(2) "
        "cos(<m, theta> + phase_m)`, m being the thirteen directions with entries -1, 0 and 1, with angles that are "
        "dependent and far from uniform. One network, the residual MLP of `fit_score` of width "
        f"{setting.width} and depth {setting.depth}, is trained from the same first weights for {setting.num_steps:,} "
        f"steps of {setting.batch_size} points, with learning rate {setting.learning_rate:g} and noise from "
        f"{SIGMA_RANGE[0]:g} to {SIGMA_RANGE[1]:g}. Only n differs: an epoch has {setting.rows:,} rows, the n points "
        "over and over. Another n/10 points (at least 10) are held out of the training. `last` are the weights after "
        "the last step (`keep=\"last\"`), `best`, the default of `fit_score`, those with the smallest loss on these "
        "n/10: one training gives both. The training's length, the network and the data's curvature were chosen by "
        "pilot runs, so that memorisation ends among these n. It depends on all three: on a flat torus, a product of "
        "three circles, the same network had generalised from 500 points on. There is one seed.",
        f"## Numbers at noise {sigma:g}\n\n{NUM_DRAWS:,} draws of `ReverseSDE()` with its defaults, and "
        f"{NUM_HELD_OUT:,} held-out points that no training saw. ± is a standard error.\n\n"
        "- `epoch`: the one whose weights these are.\n"
        "- `memorised`: fraction of draws that are less than a third as far from one training point as from any other; "
        "`chance`: of held-out points; `nearer`: probability that a draw is nearer to the training points than a "
        "held-out point, .5 for new draws (`memorisation`).\n"
        "- `loss`: `E|D(x + sigma e) - x|^2/sigma^2`. The true score's is, at little noise, the dimension of the data"
        f"{law}; that of a score that knows the points by heart is 0 at these points.\n"
        "- `loss of the points`: at the held-out points that of the score of the n points themselves, which is what "
        "full memorisation would give.\n"
        f"- `FLIPD`: local intrinsic dimension, {ANGLES} for the true score (`manifold_health`, {setting.num_calls} "
        f"calls on {HEALTH_POINTS} points each). One call alone, with a standard error of .11 of the difference, is "
        f"too coarse for a difference of {GAP_END:g}: at first it put the end at n = 3,730, a factor of 6.3 from that "
        "of the draws, which missed the goal.\n"
        "- `distance`: of the draws from the torus, which no diagnostic knows: the control.",
        f"### Last weights\n\n{measurements(cells, bare, sizes, 'last')}",
        f"### Best weights\n\n{measurements(cells, bare, sizes, 'best')}",
        f"## Where memorisation ends\n\nThe n from which on a sign is no longer seen, between two n in proportion to "
        f"log n.\n\n{ends_table(cells, sizes)}",
        f"## Losses at other noise levels\n\n{losses_table(cells, bare, sizes)}",
    ]  # fmt: skip
    return parts, [name for name, *_, holds in rows if not holds]


def how_to_read(cells: Cells, sizes: tuple[int, ...]) -> str:
    """What the numbers mean for somebody with n points."""
    sigma = SIGMAS[0]
    first, best = cells[f"{sizes[0]}|last"], cells[f"{sizes[0]}|best"]
    found = {name: ends(end, sizes) for name, end in transitions(cells, sizes, "last").items()}
    most, most_error = max(excess(cells[f"{n}|best"]) for n in sizes)
    return "\n".join([
        "## How to read it",
        "",
        f"- **Draws.** With {sizes[0]} points and the last weights {first['fraction']:.0%} of the draws are copies, "
        f"where chance makes {first['chance']:.0%}. The excess falls to {DRAWS_END:.0%} at "
        f"{found['memorised fraction']}.",
        "- **Losses.** The score tells training points from others for longer than the fraction of copies shows: at "
        f"noise {sigma:g} the loss is lower at training points by {GAP_END:g} of a dimension until "
        f"{found['loss']}. It takes no sampling to see. Of the draws `nearer` tells the same: it leaves .5 while "
        "copies are still no more than chance makes.",
        "- **FLIPD.** The same in the derivatives of the score: as much lower at training points until "
        f"{found['dimension']}. With {sizes[0]} points it "
        f"is {first[f'dimension training {sigma}']:.1f} at training points, known by heart, and "
        f"{first[f'dimension held out {sigma}']:.0f} at others, on its way to their squared distance from the known "
        "ones in units of the noise, and no dimension.",
        "- **The default protects from copies, not from having few points.** The weights of the smallest held-out loss "
        f"copy at most {most:.3f} ± {most_error:.3f} above chance. With {sizes[0]} points they are those of epoch "
        f"{best['epoch']}, and the draws lie {best['distance']:.2g} from the data: little was learned. The last "
        f"weights' draws lie {first['distance']:.2g} from them, since copies lie on the data: being near the data is "
        f"no proof of having learned them. {in_between(cells, sizes)}With enough points both kinds of weights are "
        "alike.",
        "- **Enough points are not enough training.** The score of the points themselves, `perturb(points, process)`, "
        "costs nothing to try. Where its held-out loss is the smaller one, as it is here for many points at more "
        "noise, or where the loss stays above the true score's although training and held-out points agree, the "
        "network is what is missing.",
        "- **Your own n.** Hold out points, train on the rest, and look at `memorisation(draws, training, held_out)` "
        "and at `manifold_health(score, held_out, training=training)`. Copies among the draws: keep the best weights, "
        "and get more points. No copies, but losses or FLIPD that differ: the score still leans on single points, and "
        "more points improve it. No difference: more points of the same kind will change little, a larger network or "
        "a longer training may. The n found here is that of this network, this training and these data.",
    ])  # fmt: skip


def in_between(cells: Cells, sizes: tuple[int, ...]) -> str:
    """What the choice of the weights costs just above chance, where there is such an n."""
    for n in sizes:
        last, best = (cells[f"{n}|{kept}"] for kept in KEPT)
        above, error = excess(last)
        if ERRORS * error < above < 2 * DRAWS_END:
            return (
                f"In between it is a choice: with {n:,} points the last weights copy {above:.3f} ± {error:.3f} above "
                f"chance, and their draws lie {last['distance']:.2g} from the data, those of the best weights "
                f"{best['distance']:.2g}. "
            )
    return ""


def main() -> int:
    """Train, measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two sizes, a small network, a short training")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "scoresample-papers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    setting, folder = QUICK if options.quick else Setting(), options.cache
    folder.mkdir(parents=True, exist_ok=True)
    cells, bare = {}, {}
    for n in setting.sizes:
        for kept in KEPT:
            started = time.perf_counter()
            cells[f"{n}|{kept}"] = cached(
                folder, cell_name(n, kept, setting),
                lambda n=n, kept=kept: measure(n, kept, setting, checkpoint_of(folder, n, setting)),
            )  # fmt: skip
            print(f"n={n} {kept}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    for name in [*map(str, setting.sizes), *([] if options.quick else ["law"])]:
        bare[name] = cached(folder, f"memorisation exact {name} {QUADRATURE}", lambda name=name: without_training(name))
    if options.json:
        options.json.write_text(json.dumps({"learned": cells, "exact": bare}))
    page, images = options.out or DOCS / "papers", options.out or DOCS / "images"
    kept_page = options.out is not None or not options.quick
    picture = ""
    if kept_page:
        images.mkdir(parents=True, exist_ok=True)
        figure_of(cells, bare, setting.sizes).savefig(images / "memorisation-transition.png", dpi=110)
        picture = (
            "![Memorised fraction of the draws, denoising losses and intrinsic dimension, against the number of "
            f"training points]({os.path.relpath(images, page)}/memorisation-transition.png)"
        )
    parts, missed = report(cells, bare, setting, picture)
    if kept_page:
        keep("memorisation", "Where memorisation ends", *parts, out=page)
    else:
        print("\n\n".join(parts))
    for name in missed:
        print("missed:", name, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
