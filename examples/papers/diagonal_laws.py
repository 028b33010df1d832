"""The exact law of a path sampler on independent normal coordinates, from its own plan.

Each coordinate then undergoes an affine map with independent normal noise at every step: its variance follows a
recursion, here in float64. The levels and the coefficients are the sampler's; what is written out is how its documented
update turns them into a map of one coordinate. `check` holds this to runs of the sampler itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import scoresample as ss

DiagonalSampler = ss.ReverseSDE | ss.PredictorCorrector | ss.AnnealedLangevin


def biased_score(z: Array, t: Array, exact: Any, factor: Array) -> Array:
    """The exact score times a factor."""
    return factor.astype(z.dtype) * exact.standard_score(z, t)


@dataclass(frozen=True)
class DiagonalProblem:
    """Independent normal coordinates of mean zero under the Ornstein-Uhlenbeck process.

    Attributes:
        variances: those of the coordinates.
        horizon: the time T of the process at which sampling starts.
        last: the time at which it ends: the law that is sought is that of the data noised for so long.
        factor: the score is the exact one times this.
    """

    variances: np.ndarray
    horizon: float
    last: float
    factor: float = 1.0

    @cached_property
    def path(self) -> ss.PerturbedScore:
        """A score without known moments, so that sampling starts from N(0, I)."""
        process = ss.OU(self.horizon)
        exact = ss.perturb(ss.Gaussian(jnp.zeros(self.variances.size), self.variances), process)
        arguments = (exact, jnp.asarray(self.factor, float))
        return ss.PerturbedScore(biased_score, process, structure=jnp.zeros(self.variances.size), args=arguments)

    def geometric_times(self, num_levels: int) -> np.ndarray:
        """Levels in geometric progression from T to the last, on the clock of the process."""
        times = np.geomspace(1.0, self.last / self.horizon, num_levels)
        times[0] = 1.0
        return times

    def curvature(self, t: Array) -> Array:
        """The Lipschitz constant of the exact score at a level."""
        decay = jnp.exp(-2 * self.horizon * t)
        return 1 / jnp.min(jnp.asarray(self.variances, decay.dtype) * decay + 1 - decay)

    def levels(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Alpha, the noise's variance, and the variances of the noised coordinates, as columns."""
        decay = np.exp(-2 * self.horizon * np.asarray(t, np.float64))[:, None]
        return np.sqrt(decay), -np.expm1(-2 * self.horizon * t)[:, None], self.variances * decay + 1 - decay

    def target(self) -> np.ndarray:
        """The variances of the data with the noise of the last level, in the scale of the data."""
        return self.variances + np.expm1(2 * self.last)


def affine_maps(
    problem: DiagonalProblem, sampler: DiagonalSampler, plan: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (a, b) of one step after the other: ``x' = a x + sqrt(b) noise``, from the start to the draws."""
    rows = jax.tree.map(lambda row: np.asarray(row, np.float64), plan.steps)
    ones = np.ones(problem.variances.size)
    alpha, noise, noised = problem.levels(rows.t)
    denoiser = 1 - problem.factor * noise / noised  # the factor of alpha E[x_0 | z] in z
    if isinstance(sampler, ss.ReverseSDE):  # moves z/alpha
        yield ones / alpha[0], 0 * ones
        for k in range(rows.t.size):
            yield rows.keep[k] + rows.predict[k, 0] * denoiser[k], rows.spread[k] ** 2 * ones
        return
    if isinstance(sampler, ss.AnnealedLangevin):
        t_after = rows.t
        before = ((rows.rescale[k] * ones, 0 * ones) for k in range(rows.t.size))
        counts, relative = rows.num_steps, rows.step_size
    else:
        t_after = rows.t_next
        before = (
            (rows.keep[k] + rows.pull[k] / alpha[k] * denoiser[k], rows.spread[k] ** 2 * ones)
            for k in range(rows.t.size)
        )
        counts, relative = rows.corrector_steps, rows.corrector_step_size
    alpha_after, _, noised_after = problem.levels(t_after)
    step_sizes = relative * noised_after.min(axis=1)
    for k, move in enumerate(before):
        yield move
        for _ in range(int(counts[k])):
            yield 1 - problem.factor * step_sizes[k] / noised_after[k], 2 * step_sizes[k] * ones
    yield ones / alpha_after[-1], 0 * ones


def law(problem: DiagonalProblem, sampler: DiagonalSampler, plan: Any) -> tuple[np.ndarray, np.ndarray]:
    """The variances of the draws, from a start in N(0, I), and the factors by which starts appear in them."""
    variance = total = np.ones(problem.variances.size)
    for factor, noise in affine_maps(problem, sampler, plan):
        variance, total = factor**2 * variance + noise, factor * total
    return variance, total


def kl(variance: np.ndarray, target: np.ndarray) -> float:
    """KL of N(0, variance) from N(0, target), over all coordinates."""
    ratio = variance / target
    return float(0.5 * np.sum(ratio - 1 - np.log(ratio)))


@eqx.filter_jit
def _ends(path: Any, sampler: Any, plan: Any, particles: Array, key: Array) -> Array:
    return sampler.run(path, particles, plan, key=key)[0]


def check(
    problem: DiagonalProblem, sampler: DiagonalSampler, plan: Any, num_draws: int = 20_000
) -> tuple[float, float]:
    """How far a run of the sampler, in float64, is from its law.

    Returns:
        The largest error of the factors of the start, which two runs with one key give to rounding, relative to the
        variances' roots; and the largest z-score of the variances of many draws.
    """
    variance, total = law(problem, sampler, plan)
    shape = problem.variances.size
    low, high = (
        _ends(problem.path, sampler, plan, jnp.full((1, shape), value), jax.random.key(0))[0] for value in (0.0, 1.0)
    )
    assert low.dtype == jnp.float64
    error = np.abs(np.asarray(high - low) - total) / np.sqrt(variance)
    starts = jax.random.normal(jax.random.key(1), (num_draws, shape), jnp.float64)
    draws = np.asarray(_ends(problem.path, sampler, plan, starts, jax.random.key(2)))
    z = (np.mean(draws**2, axis=0) / variance - 1) / np.sqrt(2 / num_draws)
    return float(error.max()), float(np.abs(z).max())
