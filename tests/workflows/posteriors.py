"""Conditional posteriors in closed form, right and wrong ones: theta ~ N(0, I), x = theta + N(0, NOISE)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import scoresample as ss

NOISE = np.array([[0.5, -0.4], [-0.4, 0.5]])
COVARIANCE = np.linalg.inv(np.eye(2) + np.linalg.inv(NOISE))
"""Of the posterior; its correlation is -0.62."""
GAIN = COVARIANCE @ np.linalg.inv(NOISE)
"""The posterior's mean is GAIN x."""


def simulate(key: Array, num: int) -> tuple[Array, Array]:
    theta, noise = jax.random.normal(key, (2, num, 2))
    return theta, theta + noise @ jnp.asarray(np.linalg.cholesky(NOISE).T, theta.dtype)


def denoiser(y: Array, s: Array, x: Array, gain: Array, shift: Array, covariance: Array) -> Array:
    mean = gain @ x + shift
    return mean + covariance @ jnp.linalg.solve(covariance + s**2 * jnp.eye(2, dtype=y.dtype), y - mean)


def gaussian_posterior(
    gain: np.ndarray = GAIN, shift: np.ndarray | None = None, covariance: np.ndarray = COVARIANCE, **settings: Any
) -> ss.PerturbedScore:
    """The posterior N(gain x + shift, covariance), by default the right one."""
    shift = np.zeros(2) if shift is None else shift
    return ss.PerturbedScore(
        denoiser,
        ss.VE(0.005, 30.0),
        structure=jnp.zeros(2),
        prediction="denoised",
        time="sigma",
        args=tuple(jnp.asarray(value, dtype=float) for value in (gain, shift, covariance)),
        condition=jnp.zeros(2),
        **settings,
    )


def posterior_named(name: str) -> ss.PerturbedScore:
    scales = np.sqrt(np.diag(COVARIANCE))
    return {
        "exact": gaussian_posterior,
        "too wide": lambda: gaussian_posterior(covariance=1.5**2 * COVARIANCE),
        "too narrow": lambda: gaussian_posterior(covariance=0.7**2 * COVARIANCE),
        "too high": lambda: gaussian_posterior(shift=np.array([0.4, 0.0]) * scales),
        "too low": lambda: gaussian_posterior(shift=np.array([0.0, -0.4]) * scales),
        "without correlations": lambda: gaussian_posterior(covariance=np.diag(scales**2)),
        "the prior": lambda: gaussian_posterior(gain=np.zeros((2, 2)), covariance=np.eye(2)),
    }[name]()
