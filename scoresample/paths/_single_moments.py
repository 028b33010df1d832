"""Means and covariances of the laws behind noised scores, from a short run of their probability flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths._observations import Singles, level_score
from scoresample.paths._perturbed import AbstractPerturbedScore

_NUM_STEPS = 80
_MOST_NOISE = 80.0
"""The flow starts at most at this sigma/alpha: the error of a start of unit variance is then one part in 6,400."""


def single_moments(singles: Singles, low: float, high: float, num_draws: int, key: Array) -> tuple[np.ndarray, ...]:
    """The mean (n, d) and the covariance (n, d, d) under each observation, in y = z/alpha.

    Draws go down the probability flow by exponential Adams steps of third order in the denoiser, uniform in log-SNR (Lu
    et al. 2022, arXiv 2211.01095, section 4). They start around the denoised origin, from normal numbers that are
    shifted and turned to have zero mean and unit covariance exactly, so for normal laws, where the flow is affine, the
    moments have no Monte-Carlo error. The covariance is that of the last points with their denoised ones, which is free
    of the last level's noise there.
    """
    steps, noise = _steps(low, high), _white(key, num_draws, _dimension(singles.path))
    indices = jnp.arange(singles.number)
    means, covariances = _moments_of_all(singles.path, indices, steps, noise)
    return np.asarray(means, np.float64), np.asarray(covariances, np.float64)


def path_moments(path: AbstractPerturbedScore, num_draws: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """The same, (d,) and (d, d), of a path without conditions."""
    low, high = (float(end) for end in np.asarray(path.log_snr_range))
    mean, covariance = _moments_of_one(path, _steps(low, high), _white(key, num_draws, _dimension(path)))
    return np.asarray(mean, np.float64), np.asarray(covariance, np.float64)


def _steps(low: float, high: float) -> Array:
    return jnp.asarray(np.linspace(max(low, -float(np.log(_MOST_NOISE))), high, _NUM_STEPS + 1), dtype=float)


def _dimension(path: AbstractPerturbedScore) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(path.structure))


def _white(key: Array, number: int, dimension: int) -> Array:
    """Normal numbers (number, dimension) with zero mean and unit covariance, exactly."""
    draws = np.asarray(jax.random.normal(key, (number, dimension), float), np.float64)
    draws = draws - draws.mean(axis=0)
    factor = np.linalg.cholesky(draws.T @ draws / number)
    return jnp.asarray(np.linalg.solve(factor, draws.T).T, dtype=float)


@eqx.filter_jit
def _moments_of_all(path: AbstractPerturbedScore, indices: Array, steps: Array, noise: Array) -> tuple[Array, Array]:
    """One observation after another, all draws of one at once."""
    singles = Singles(path, indices.shape[0], None)
    own, shared = singles.split()
    return jax.lax.map(lambda one: _moments(eqx.combine(one, shared), steps, noise), own)


@eqx.filter_jit
def _moments_of_one(path: AbstractPerturbedScore, steps: Array, noise: Array) -> tuple[Array, Array]:
    return _moments(path, steps, noise)


def _moments(path: AbstractPerturbedScore, steps: Array, noise: Array) -> tuple[Array, Array]:
    def denoised(y: Array, log_snr: Array) -> Array:
        return y + jnp.exp(-2 * log_snr) * jax.vmap(lambda one: level_score(path, one, log_snr))(y)

    length = (steps[-1] - steps[0]) / (steps.size - 1)
    shrink, constant = jnp.exp(-length), -jnp.expm1(-length)
    linear = length - constant
    quadratic = length**2 - 2 * linear

    def step(carry: tuple[Array, Array, Array], ends: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        y, before, slope_before = carry
        log_snr, index = ends
        now = denoised(y, log_snr)
        slope = jnp.where(index > 0, now - before, 0)
        bend = jnp.where(index > 1, slope - slope_before, 0)
        curved = 0.5 * (quadratic / length + linear) / length
        y = shrink * y + constant * now + linear / length * slope + curved * bend
        return (y, now, slope), None

    most = jnp.exp(-steps[0])
    centre = denoised(jnp.zeros_like(noise[:1]), steps[0])
    y = centre + jnp.sqrt(1 + most**2) * noise
    nothing = jnp.zeros_like(y)
    (y, _, _), _ = jax.lax.scan(step, (y, nothing, nothing), (steps[:-1], jnp.arange(steps.size - 1)))
    last = denoised(y, steps[-1])
    mean = jnp.mean(last, axis=0)
    cross = (y - jnp.mean(y, axis=0)).T @ (last - mean) / y.shape[0]
    return mean, 0.5 * (cross + cross.T)
