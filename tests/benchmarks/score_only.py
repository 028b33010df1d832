"""Metropolised samplers on scores that come without their density.

Run it as `python -m tests.benchmarks.score_only [--quick] [--json FILE] [--out FOLDER]`.

Each target is given by its score alone, and its log density is recovered as a line integral. Beside it stands what is
often done instead: a log density with the right gradient and the constant value zero. The last rows add a rotation to
a score, which then is no gradient, and show what the checks of the run say. The exit status is 1 if a goal fails.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import scoresample as ss
from scoresample.diagnostics import effective_sizes
from tests.benchmarks.report import against_goal, keep, table

MEAN_GOAL, COVARIANCE_GOAL, ESS_GOAL = 0.05, 0.05, 20_000
"""Errors of the mean in standard deviations and of the covariance in units of the variances."""


@dataclass(frozen=True)
class Target:
    """A density by its score alone, with its true moments."""

    score: ss.Score
    origin: Array
    num_nodes: int
    mean: np.ndarray
    covariance: np.ndarray


def correlated() -> Target:
    """Five normal variables, neighbours correlated by .9, of scales from .5 to 2."""
    scale = np.linspace(0.5, 2.0, 5)
    covariance = scale[:, None] * 0.9 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))) * scale
    mean = np.array([1.0, -1.0, 2.0, 0.0, 0.5])
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    score = ss.Score(lambda x, m, p: -p @ (x - m), jnp.asarray(mean, jnp.float32), precision, structure=jnp.zeros(5))
    return Target(score, jnp.zeros(5), 8, mean, covariance)


WIDTH, BEND = 2.0, 0.25


def banana() -> Target:
    """``x_1 = 2 z_1``, ``x_2 = z_2 + (x_1^2 - 4) / 4`` with z standard normal: its log density is a quartic."""

    def score(x: Array) -> Array:
        residual = x[1] - BEND * (x[0] ** 2 - WIDTH**2)
        return jnp.stack([-x[0] / WIDTH**2 + 2 * BEND * x[0] * residual, -residual])

    covariance = np.diag([WIDTH**2, 1 + 2 * BEND**2 * WIDTH**4])
    return Target(ss.Score(score, structure=jnp.zeros(2)), jnp.array([0.0, -1.0]), 8, np.zeros(2), covariance)


def mixture() -> Target:
    """Two normal modes of unit width, 3 apart, with weights .3 and .7."""
    centres, weights = np.array([[-1.5, 0.0], [1.5, 0.0]]), np.array([0.3, 0.7])

    def score(x: Array, centres: Array, weights: Array) -> Array:
        offsets = centres - x
        shares = jax.nn.softmax(jnp.log(weights) - 0.5 * jnp.sum(offsets**2, axis=1))
        return shares @ offsets

    mean = weights @ centres
    covariance = np.eye(2) + np.einsum("k,ki,kj", weights, centres - mean, centres - mean)
    arrays = (jnp.asarray(centres, jnp.float32), jnp.asarray(weights, jnp.float32))
    return Target(ss.Score(score, *arrays, structure=jnp.zeros(2)), jnp.array([0.5, 0.0]), 16, mean, covariance)


TARGETS: dict[str, Callable[[], Target]] = {
    "correlated Gaussian, d=5": correlated,
    "banana": banana,
    "mixture, 3 sd apart": mixture,
}
SAMPLERS: dict[str, tuple[Any, int]] = {
    "NUTS": (ss.NUTS(target_acceptance_rate=0.9), 15_000),
    "HMC": (ss.HMC(target_acceptance_rate=0.9), 10_000),
    "MALA": (ss.MALA(target_acceptance_rate=0.8), 150_000),
    "adjusted MCLMC": (ss.AdjustedMCLMC(), 10_000),
}
"""Each with the draws of a chain."""
LONGER = {("correlated Gaussian, d=5", "MALA"): 6}
"""Where a chain is so many times as long: MALA has no mass matrix."""
NUM_CHAINS, NUM_WARMUP = 16, 1_000
CONSTANT_SAMPLES = 2_000
"""Of a chain on the constant value, where trees grow to their limit."""
QUICK_SAMPLERS = ("NUTS", "MALA")
ROTATIONS = (0.0, 0.02, 0.3, 1.0)


class ConstantValue(ss.AbstractDensityScore):
    """The common hack: the right gradient, and a log density that is zero everywhere."""

    score: ss.AbstractScore
    structure: Any
    constrain: Any
    init_position: Any

    def logdensity(self, position: Array) -> Array:
        return jnp.zeros(())

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        return self.logdensity(position), self.score(position)


@dataclass(frozen=True)
class Row:
    """One sampler on one target."""

    target: str
    sampler: str
    value: str
    mean_error: float
    covariance_error: float
    ess: float
    divergences: int
    checks: dict[str, float]
    flags: tuple[str, ...]
    judged: bool

    @property
    def met(self) -> bool:
        return self.mean_error <= MEAN_GOAL and self.covariance_error <= COVARIANCE_GOAL and self.ess >= ESS_GOAL

    def cells(self) -> list[str]:
        goals = (MEAN_GOAL, COVARIANCE_GOAL) if self.judged else (None, None)
        short = self.judged and self.ess < ESS_GOAL
        return [
            self.target,
            self.sampler,
            self.value,
            against_goal(self.mean_error, goals[0], f"{self.mean_error:.3f}"),
            against_goal(self.covariance_error, goals[1], f"{self.covariance_error:.1%}"),
            f"**{self.ess:,.0f}** (goal {ESS_GOAL:,})" if short else f"{self.ess:,.0f}",
            f"{self.divergences:,}",
            ", ".join(f"{name.removesuffix(' of the score')} {value:.2g}" for name, value in self.checks.items())
            or "-",
            "; ".join(self.flags) or "none",
        ]


HEADER = ["target", "sampler", "log density", "mean", "covariance", "ESS", "divergences", "checks", "flags"]


def measure(name: str, target: Target, label: str, value: str, density: Any, *, judged: bool) -> Row:
    """Run a sampler on a density, and hold its moments against the truth."""
    sampler, num_samples = SAMPLERS[label]
    num_samples = num_samples * LONGER.get((name, label), 1) if judged else CONSTANT_SAMPLES
    draws = ss.sample(
        density,
        sampler,
        key=jax.random.key(0),
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        num_warmup=NUM_WARMUP,
        initial_position=target.origin,
        throw=False,
    )
    flat = np.asarray(draws.position, np.float64).reshape(-1, len(target.mean))
    scale = np.sqrt(np.diag(target.covariance))
    off = np.abs(np.cov(flat.T) - target.covariance) / np.outer(scale, scale)
    values = {f"x[{i}]": np.asarray(draws.position)[..., i] for i in range(len(target.mean))}
    checks = draws.info["checks"]
    return Row(
        name,
        label,
        value,
        float(np.max(np.abs(flat.mean(axis=0) - target.mean) / scale)),
        float(off.max()),
        float(min(effective_sizes(draws, values).values())),
        int(draws.stats["diverging"].sum()) if "diverging" in draws.stats else 0,
        {check.name: check.value for check in checks},
        tuple(f"{check.name}: {check.severity}" for check in checks if not check.passed),
        judged,
    )


def rotated(target: Target, amount: float) -> ss.Score:
    """The score with a rotation of its first two coordinates around the mean added."""

    def score(x: Array, base: ss.Score, mean: Array, amount: Array) -> Array:
        offset = x - mean
        turn = jnp.zeros_like(x).at[0].set(-offset[1]).at[1].set(offset[0])
        return base(x) + amount * turn

    mean = jnp.asarray(target.mean, jnp.float32)
    return ss.Score(score, target.score, mean, jnp.asarray(amount), structure=target.origin)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two samplers on the mixture; the goals stay")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    options = parser.parse_args()
    rows: list[Row] = []

    def add(*arguments: Any, judged: bool) -> None:
        rows.append(measure(*arguments, judged=judged))
        print(rows[-1].cells(), flush=True)

    for name in ["mixture, 3 sd apart"] if options.quick else TARGETS:
        target = TARGETS[name]()
        density = ss.LineIntegralDensity(target.score, target.origin, num_nodes=target.num_nodes)
        for label in QUICK_SAMPLERS if options.quick else SAMPLERS:
            add(name, target, label, f"line integral, {target.num_nodes} nodes", density, judged=True)
        hack = ConstantValue(
            score=target.score, structure=target.score.structure, constrain=target.score.constrain, init_position=None
        )
        for label in ("NUTS",) if options.quick else ("NUTS", "HMC", "MALA"):
            add(name, target, label, "constant (wrong)", hack, judged=False)
    caught = []
    name, target = "banana", banana()
    for amount in (0.0, 1.0) if options.quick else ROTATIONS:
        density = ss.LineIntegralDensity(rotated(target, amount), target.origin)
        add(f"{name}, rotation {amount:g}", target, "NUTS", "line integral, 8 nodes", density, judged=not amount)
        caught.append(bool(rows[-1].flags) == (amount >= 0.3) or 0 < amount < 0.3)
    lines = table(HEADER, [row.cells() for row in rows])
    if options.quick and options.out is None:
        print(lines)
    else:
        keep(
            "score_only",
            "Metropolised samplers on a score alone",
            f"{NUM_CHAINS} chains after {NUM_WARMUP:,} steps of warm-up, single precision, one key. Mean: largest "
            f"error in standard deviations, goal {MEAN_GOAL}. Covariance: largest error of an entry in units of the "
            f"standard deviations, goal {COVARIANCE_GOAL:.0%}. ESS: smallest bulk ESS of a coordinate, goal "
            f"{ESS_GOAL:,}. The rows with a constant in place of the log density show what that hack costs, mostly "
            "without a divergence. A rotation added to a score makes it the gradient of nothing: the checks give the "
            "antisymmetric share of its Jacobian and the integral around closed loops in nats.",
            lines,
            out=options.out,
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    missed = [f"{row.sampler} on {row.target}" for row in rows if row.judged and not row.met]
    if missed:
        print("Goals were missed by " + ", ".join(missed) + ".", file=sys.stderr)
    if not all(caught):
        print("The checks did not tell a rotated score from a gradient.", file=sys.stderr)
    return 1 if missed or not all(caught) else 0


if __name__ == "__main__":
    sys.exit(main())
