"""Penalties that hold a learned family of scores to the Fokker-Planck equation."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import logdensity_fokker_planck, rademacher_like, score_fokker_planck
from scoresample.training._layout import VectorDenoiser

_SMALL_NOISE = 0.1
"""In data standard deviations."""

PenaltyName = Literal["score-fpe", "logdensity-fpe"]


def score_fpe_penalty(denoiser: VectorDenoiser, noised: Array, log_sigma: Array, key: Array, num_probes: int) -> Array:
    """``w(s) mean |r|^2`` at one point, r the residual of the score Fokker-Planck equation.

    In the variance-exploding coordinates y and the clock u = log s, where ``r = d_u S - s^2 grad(div S + |S|^2)``. The
    weight ``w = (1 + s^2)^2 s^2 / (s^2 + .01)`` keeps residuals of equal relative size of equal weight: at much noise
    what a score says about the data shrinks like 1/s^2, and below a tenth of the data's scale the errors of any
    network grow like 1/s, and would crowd out everything else.

    With probes, two independent estimates of r are multiplied. The square of one, which the paper takes, holds the
    variance of the probe as well, and so penalises the curvature of scores that obey the equation.

    Source: Lai et al. 2023, arXiv 2210.04296, eq. 12, with the squared norm.

    Arguments:
        denoiser: the network.
        noised: one point y.
        log_sigma: its level.
        key: random key of the probes.
        num_probes: directions for each estimate of the divergence; 0 for the exact trace, which is also taken where it
            costs no more.
    """

    def sides(probes: Array | None, **clock: Any) -> tuple[Array, Array]:
        return score_fokker_planck(
            lambda y, u: denoiser.score(y, jnp.exp(u)), noised, log_sigma, probes=probes, **clock
        )

    variance = jnp.exp(2 * log_sigma)
    weight = (1 + variance) ** 2 * variance / (variance + _SMALL_NOISE**2)
    return weight * _square(sides, noised, log_sigma, key, num_probes) / noised.size


def logdensity_fpe_penalty(
    denoiser: VectorDenoiser, noised: Array, log_sigma: Array, key: Array, num_probes: int
) -> Array:
    """``r^2 / d`` at one point, r the residual of the Fokker-Planck equation of the log density, in the clock log s.

    Source: Plainer et al. 2025, arXiv 2506.17139.

    Arguments:
        denoiser: an energy network.
        noised: one point y.
        log_sigma: its level.
        key: random key of the probes.
        num_probes: directions for each estimate of the divergence; 0 for the exact trace.
    """

    def sides(probes: Array | None, **clock: Any) -> tuple[Array, Array]:
        def logdensity(y: Array, u: Array) -> Array:
            return denoiser.logdensity(y, jnp.exp(u))

        return logdensity_fokker_planck(logdensity, noised, log_sigma, probes=probes, **clock)

    return _square(sides, noised, log_sigma, key, num_probes) / noised.size


def _square(sides: Callable[..., Any], noised: Array, log_sigma: Array, key: Array, num_probes: int) -> Array:
    """The squared norm of what two sides are apart, or with probes an unbiased estimate, which may be negative."""

    def residual(probes: Array | None) -> Array:
        left, right = sides(probes, drift_rate=0.0, squared_diffusion=2 * jnp.exp(2 * log_sigma))
        return left - right

    if num_probes == 0 or noised.size <= 2 * num_probes:
        return jnp.sum(residual(None) ** 2)
    first, second = (rademacher_like(k, noised, num_probes) for k in jax.random.split(key))
    return jnp.sum(residual(first) * residual(second))
