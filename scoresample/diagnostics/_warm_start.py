"""How warm each level of a ladder starts from the one before: a Renyi divergence of neighbouring levels."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base.array import array_stats
from jaxtyping import Array

from scoresample.diagnostics._clean_points import clean_points
from scoresample.paths import (
    AbstractDensityPath,
    AbstractPerturbedScore,
    Grid,
    Levels,
    PerturbedDensity,
    TemperedPath,
    check_concrete,
    noise_levels,
)
from scoresample.scores import Gaussian, Position, random_like

_LARGEST_K = 0.7
"""Vehtari et al. 2024, arXiv 1507.02646: beyond it an average of weights is not to be trusted."""
_LONGEST_STEP = 0.5 * np.log(2.0)
"""In log-SNR: the noise's variance halves."""
_FEWEST_POINTS = 50
_BLOCK = 512
"""Points measured at once, which bounds the memory."""
_MOST_ROWS = 12
"""Of the table in a terminal."""


@dataclasses.dataclass(frozen=True, eq=False)
class WarmStart:
    """What `warm_start` found: arrays with one entry for each move of a ladder, from noise to data.

    Attributes:
        t: times of the levels that particles leave.
        t_next: times of the levels that they come to.
        noise: sigma/alpha at `t`.
        noise_next: sigma/alpha at `t_next`.
        renyi2: ``R2(p_t || p_t_next)`` in nats; inf where it is infinite, nan where it was not estimated.
        renyi2_se: its standard error; 0 in closed form.
        pareto_k: shape of the tail of ``p_t / p_t_next`` under p_t: its mean is finite for shapes below 1, and is
            estimated for shapes below 0.7. In many dimensions the shape that draws show is the larger one.
        finite: whether a finite value was found.
        bound: the divergence that the noise alone would have. That of noised data is never larger, whatever their law;
            inf where a step in log-SNR is log(2)/2 or longer.
        exact: whether the values are in closed form.
    """

    t: np.ndarray
    t_next: np.ndarray
    noise: np.ndarray
    noise_next: np.ndarray
    renyi2: np.ndarray
    renyi2_se: np.ndarray
    pareto_k: np.ndarray
    finite: np.ndarray
    bound: np.ndarray
    exact: bool

    @property
    def chi_square(self) -> np.ndarray:
        """``exp(R2) - 1``, the chi-square divergence."""
        return np.expm1(self.renyi2)

    @property
    def enough_levels(self) -> int:
        """Levels, uniform in log-SNR over the same range, between which the divergence is finite for every law."""
        return int(np.floor(np.log(self.noise[0] / self.noise_next[-1]) / _LONGEST_STEP)) + 2

    @property
    def table(self) -> pd.DataFrame:
        """One row for each move."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return pd.DataFrame({name: value for name, value in arrays.items() if isinstance(value, np.ndarray)})

    def __str__(self) -> str:
        """Some rows of the table, and what they mean."""
        rows = np.unique(np.linspace(0, self.t.size - 1, min(self.t.size, _MOST_ROWS)).round().astype(int))
        text = self.table.iloc[rows].to_string(index=False, float_format=lambda value: f"{value:.3g}")
        how = "in closed form" if self.exact else "estimated from draws"
        lines = [f"Warm starts along {self.t.size + 1} levels, {how}", "", text, ""]
        if self.finite.any():
            worst = int(np.nanargmax(np.where(self.finite, self.renyi2, -np.inf)))
            lines.append(
                f"The coldest start is at sigma/alpha = {self.noise_next[worst]:.3g}: R2 = {self.renyi2[worst]:.3g}, a "
                f"chi-square of {self.chi_square[worst]:.3g}. Langevin steps of size h on a law with Poincare constant "
                "1/a bring it to eps in about (R2 + log(1/eps)) / (2 a h) of them."
            )
        if not self.finite.all():
            what = "infinite" if self.exact else "not estimated (too heavy a tail) and may be infinite"
            advice = f" Use a finer ladder: {self.enough_levels} levels uniform in log-SNR are enough for every law."
            if np.isfinite(self.bound[~self.finite]).all():
                what = f"not estimated (too heavy a tail), but at most {self.bound[~self.finite].max():.3g}"
                advice = ""
            lines.append(f"At {int((~self.finite).sum())} of {self.t.size} levels it is {what}.{advice}")
        return "\n".join(lines)


def warm_start(
    path: AbstractPerturbedScore,
    *,
    key: Array,
    num_levels: int = 100,
    grid: Grid = "log-snr",
    delta: float | None = None,
    data: Any = None,
    num_points: int = 4000,
) -> WarmStart:
    """How far each level of a ladder is from the one at which its particles start.

    A sampler that goes down a ladder of levels, as [`AnnealedLangevin`][scoresample.AnnealedLangevin] does, starts each
    from the draws of the last. How long it then takes depends on the Renyi divergence of order 2,
    ``R2(p_k || p_{k+1}) = log E_{p_k}[p_k / p_{k+1}] = log(1 + chi-square)``, here of the laws of ``y = z/alpha``,
    since particles are rescaled between levels. Langevin dynamics shrinks the chi-square at the rate of the Poincare
    constant, as long as it is finite. For normal data of variance v it is finite if and only if
    ``v + s'^2 > (v + s^2)/2``, s = sigma/alpha; every law keeps it finite if ``s'^2 > s^2/2``.

    For the path of a Gaussian it is computed in closed form. Else the mean is over draws of p_k, clean draws with
    noise, as ``log mean(1/r) + log mean(r)`` with ``r = p_{k+1}/p_k``. Constants of the two densities cancel in it, and
    so does most of the chance where the two are close. It is of no use where the shape of the weights' tail is 0.7 or
    more.

    Source: Lee, Lu and Tan 2022, arXiv 2206.06227, where the levels of annealed Langevin start warm in chi-square.

    Arguments:
        path: a noised path with densities: ``perturb(density, process)`` or a
            [`PerturbedEnergy`][scoresample.PerturbedEnergy].
        key: random key.
        num_levels: number of levels.
        grid: how they are placed, or times of your own (`num_levels` is then not used).
        delta: variance of the noise, (sigma/alpha)^2, of the last level: as in the sampler.
        data: clean draws of the path's law, as arrays, trees or [`Draws`][scoresample.Draws]; needed where the path has
            no draws of its own. The divergence is then of the path's densities, averaged over these draws, so far as
            the two fit.
        num_points: most draws to use.

    Returns:
        The `WarmStart`: `print` shows it, `table` holds the numbers.

    Raises:
        TypeError: if `path` is no noised path with densities.
        ValueError: if `data` are missing, not needed or do not fit, a number is out of its range, or the path is
            tempered.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
        >>> found = ss.warm_start(path, key=jax.random.key(0), num_levels=30)
        >>> bool(found.finite.all()), round(float(found.renyi2.max()), 2), found.enough_levels
        (True, 0.38, 20)
        >>> bool(ss.warm_start(path, key=jax.random.key(0), num_levels=15).finite.all())
        False
    """
    _check(path, num_levels, num_points)
    ladder = noise_levels(path, num_levels - 1, grid, delta)
    key_points, key_noise = jax.random.split(key)
    if isinstance(path, PerturbedDensity):
        if data is not None:
            raise ValueError("`data`: this path has exact draws of its own. Leave `data` out.")
        if isinstance(path.density, Gaussian):
            return _warm_start(path, ladder, *_of_gaussian(path.density, ladder), exact=True)
        points = path.density.sample(key_points, num_points)
    elif data is None:
        raise ValueError(
            f"`data`: a {type(path).__name__} has no draws of its own. Give clean draws of its law, such as those that "
            "were held out of its training."
        )
    else:
        points = clean_points(path, data, num_points, key_points)
    return _warm_start(path, ladder, *_from_draws(path, points, ladder, key_noise), exact=False)


def _check(path: AbstractPerturbedScore, num_levels: int, num_points: int) -> None:
    if isinstance(path, TemperedPath):
        raise ValueError(
            "`path`: a TemperedPath needs draws at every level, and no noise makes them of draws of the target. "
            "AnnealedLangevin places its levels on it by a pilot run and reports the divergence of neighbours, "
            "draws.info['warm_start_divergence']."
        )
    if not (isinstance(path, AbstractPerturbedScore) and isinstance(path, AbstractDensityPath)):
        raise TypeError(
            f"`path` must be a noised path with densities, got {type(path).__name__}. Make one with perturb(density, "
            'process), PerturbedEnergy(fn, process) or fit_score(draws, parametrisation="energy").'
        )
    check_concrete(path)
    if path.condition_axes() is not None:
        raise ValueError("`path` holds a condition for each particle. Look at it under one condition at a time.")
    for name, value, least in (("num_levels", num_levels, 2), ("num_points", num_points, _FEWEST_POINTS)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}.")


def _warm_start(
    path: AbstractPerturbedScore,
    ladder: Levels,
    renyi2: np.ndarray,
    renyi2_se: np.ndarray,
    pareto_k: np.ndarray,
    *,
    exact: bool,
) -> WarmStart:
    ratio = np.exp(-ladder.log_snr)
    size = sum(leaf.size for leaf in jax.tree.leaves(path.structure))
    bound = size * _normal_renyi2(ratio[:-1] ** 2, ratio[1:] ** 2)
    finite = np.isfinite(renyi2)
    return WarmStart(
        ladder.t[:-1], ladder.t[1:], ratio[:-1], ratio[1:], renyi2, renyi2_se, pareto_k, finite, bound, exact
    )


def _normal_renyi2(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """``R2(N(0, a) || N(0, b)) = log b - log(a (2 b - a))/2``, infinite unless ``2 b > a``."""
    rest = 2 * after - before
    value = np.log(after) - 0.5 * np.log(before * np.where(rest > 0, rest, 1.0))
    return np.where(rest > 0, value, np.inf)


def _of_gaussian(density: Gaussian, ladder: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """In closed form: sums over the directions of the covariance. The means are those of the data at every level."""
    leaves = [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(density.variances)]
    variances = np.concatenate(leaves) + np.exp(-2 * ladder.log_snr)[:, None]
    before, after = variances[:-1], variances[1:]
    # Under N(0, a), exp(x^2 (1/b - 1/a)/2) exceeds w with a probability that falls like w^(-b/(a - b)).
    shape = ((before - after) / after).max(axis=1)
    return _normal_renyi2(before, after).sum(axis=1), np.zeros(len(before)), shape


def _from_draws(
    path: AbstractPerturbedScore, points: Position, ladder: Levels, key: Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates with their standard errors by the delta method, and the shape of the weights' tail."""
    number = jax.tree.leaves(points)[0].shape[0]
    times = jnp.asarray(ladder.t, jnp.result_type(*jax.tree.leaves(points)))
    size, columns = min(number, _BLOCK), []
    for first in range(0, number, size):
        # The last block is filled up with the first points, which do not count.
        rows = np.arange(first, first + size) % number
        block = jax.tree.map(lambda x, rows=rows: x[rows], points)
        found = _log_weights(path, block, times, jax.random.fold_in(key, first))
        columns.append(np.asarray(found, np.float64)[:, : number - first])
    log_weights = np.concatenate(columns, axis=1)
    shape = np.array([_tail_shape(each) for each in log_weights])
    usable = np.isfinite(log_weights).all(axis=1) & (shape < _LARGEST_K)
    up, down = _relative(log_weights), _relative(-log_weights)
    renyi2 = up.log_mean + down.log_mean
    error = np.std(up.parts + down.parts, axis=1) / np.sqrt(number)
    return np.where(usable, renyi2, np.nan), np.where(usable, error, np.nan), shape


class _Relative(NamedTuple):
    """Weights over their mean, and the logarithm of the mean."""

    parts: np.ndarray
    log_mean: np.ndarray


def _relative(log_weights: np.ndarray) -> _Relative:
    largest = log_weights.max(axis=1, keepdims=True)
    weights = np.exp(log_weights - np.where(np.isfinite(largest), largest, 0.0))
    mean = weights.mean(axis=1, keepdims=True)
    return _Relative(weights / mean, (np.log(mean) + largest)[:, 0])


def _tail_shape(log_weights: np.ndarray) -> float:
    """The shape of the generalised Pareto law that fits the largest weights; -inf for equal ones."""
    if not np.isfinite(log_weights).all():
        return float("nan")
    if np.ptp(log_weights) == 0:
        return -float("inf")
    # ArviZ takes the logarithms of the inverse weights, as leave-one-out cross-validation has them.
    return float(array_stats.psislw(-log_weights)[1])


@eqx.filter_jit
def _log_weights(path: AbstractPerturbedScore, points: Position, times: Array, key: Array) -> Array:
    """``log p_k(y)/p_{k+1}(y)`` up to a constant, y of the law p_k, for every move: (moves, points)."""
    assert isinstance(path, AbstractDensityPath)
    process, standard_logdensity = path.process, path.standard_logdensity
    number = jax.tree.leaves(points)[0].shape[0]

    def logdensity(y: Position, t: Array) -> Array:
        alpha = process.alpha(t)
        return standard_logdensity(jax.tree.map(lambda x: alpha * x, y), t)

    def move(inputs: tuple[Array, Array, Array]) -> Array:
        t, t_next, key = inputs
        ratio = process.sigma(t) / process.alpha(t)
        noise = random_like(key, path.structure, number)
        noised = jax.tree.map(lambda x, e: x + ratio * e, points, noise)
        before, after = (jax.vmap(logdensity, in_axes=(0, None))(noised, each) for each in (t, t_next))
        return before - after

    return jax.lax.map(move, (times[:-1], times[1:], jax.random.split(key, times.size - 1)))
