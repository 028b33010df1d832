"""Penalties that hold a learned family of scores to the Fokker-Planck equation."""

from collections.abc import Callable
from typing import Literal

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

    def residual(probes: Array | None) -> Array:
        left, right = score_fokker_planck(
            lambda y, u: denoiser.score(y, jnp.exp(u)),
            noised,
            log_sigma,
            drift_rate=0.0,
            squared_diffusion=2 * jnp.exp(2 * log_sigma),
            probes=probes,
        )
        return left - right

    variance = jnp.exp(2 * log_sigma)
    weight = (1 + variance) ** 2 * variance / (variance + _SMALL_NOISE**2)
    return weight * _square(residual, noised, key, num_probes) / noised.size


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

    def residual(probes: Array | None) -> Array:
        left, right = logdensity_fokker_planck(
            lambda y, u: denoiser.logdensity(y, jnp.exp(u)),
            noised,
            log_sigma,
            drift_rate=0.0,
            squared_diffusion=2 * jnp.exp(2 * log_sigma),
            probes=probes,
        )
        return left - right

    return _square(residual, noised, key, num_probes) / noised.size


def _square(residual: Callable[[Array | None], Array], noised: Array, key: Array, num_probes: int) -> Array:
    """The squared norm of a residual, or with probes an unbiased estimate of it, which may be negative."""
    if num_probes == 0 or noised.size <= 2 * num_probes:
        value = residual(None)
        return jnp.sum(value**2)
    first, second = (rademacher_like(k, noised, num_probes) for k in jax.random.split(key))
    return jnp.sum(residual(first) * residual(second))
