"""Does the law that sampling starts from match the noised data there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks._check import Check, graded_check
from scoresample.paths import AbstractPerturbedScore, denoise_particles, num_conditions, with_conditions_of
from scoresample.scores import Position

_NUM_PARTICLES = 256
"""Enough for two digits of a root mean square."""
_WARN, _FAIL = 0.05, 0.3
"""Of a standard deviation: an ODE keeps such an error to the end, and 5% is what diagnostics of draws begin to see."""


def start_mismatch(path: AbstractPerturbedScore, particles: Position, denoised: Position, t: Array) -> Array:
    """How far the score is from that of the Gaussian which sampling starts from, at draws of that Gaussian.

    ``sqrt(mean |s(z, t) - s_start(z)|^2 v)`` with v the variance of the start, coordinate by coordinate: 0 where the
    start has the law of the noised data, the shift in standard deviations where only the mean is off, and the relative
    error of the variance where only that is. It is the root of a relative Fisher divergence.

    Arguments:
        path: the perturbed score.
        particles: the start in standard coordinates, with a leading axis; the first 256 are looked at.
        denoised: the posterior means of the clean points there.
        t: the level of the start.

    Returns:
        A scalar, without units.
    """
    alpha, variance = path.process.alpha(t), path.process.variance(t)

    def squares(z: Array, d: Array, mean: Array, data_variance: Array) -> tuple[Array, int]:
        z, d = z[:_NUM_PARTICLES], d[:_NUM_PARTICLES]
        total = alpha**2 * data_variance + variance
        expected = mean + alpha * data_variance / total * (z - alpha * mean)
        return jnp.sum(((d - expected) * jnp.sqrt(total) * alpha / variance) ** 2), z.size

    parts = jax.tree.leaves(
        jax.tree.map(squares, particles, denoised, *path.data_moments()), is_leaf=lambda x: isinstance(x, tuple)
    )
    return jnp.sqrt(sum(total for total, _ in parts) / sum(size for _, size in parts))


def measure_start(path: AbstractPerturbedScore, key: Array, t: Array) -> Array:
    """`start_mismatch` at fresh draws of the start: one evaluation of the score for each."""
    have = num_conditions(path)
    number = _NUM_PARTICLES if have is None else min(have, _NUM_PARTICLES)
    return _measure_start(with_conditions_of(path, np.arange(number)), key, t, number)


@eqx.filter_jit
def _measure_start(path: AbstractPerturbedScore, key: Array, t: Array, number: int) -> Array:
    t = t.astype(jnp.result_type(*jax.tree.leaves(path.structure)))
    particles = path.sample_reference(key, number, t)
    return start_mismatch(path, particles, denoise_particles(path, particles, t), t)


def start_check(mismatch: float) -> Check:
    """The check that follows from a mismatch."""
    return graded_check(
        "mismatch of the start",
        mismatch,
        warn=_WARN,
        fail=_FAIL,
        cause="Sampling starts from a Gaussian that is not the law of the noised data there, and an ODE never forgets "
        "its start.",
        remedy="Standardise the data (`location`, `scale`), or let the score's range and the process reach more noise "
        "(`log_snr_range`, `sigma_max`, `beta_max`).",
    )
