"""Data on manifolds, and the exact scores of their noised laws."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e, i1e, log_ndtr
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import AbstractNoiseProcess

PROCESS = ss.OU(5.0)
AMBIENT = 20


def circle_draws(key: Array, number: int, dimension: int = AMBIENT) -> Array:
    """The uniform law on the unit circle of the first two coordinates."""
    angle = jax.random.uniform(key, (number,), maxval=2 * jnp.pi)
    flat = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return jnp.pad(flat, ((0, 0), (0, dimension - 2)))


def _circle(z: Array, t: Array) -> Array:
    """``E[z_0|z]`` is the mean of a von Mises law, of length ``I_1(a)/I_0(a)`` with ``a = alpha r/sigma^2``."""
    alpha, variance = PROCESS.alpha(t), PROCESS.variance(t)
    radius = jnp.sqrt(z[0] ** 2 + z[1] ** 2 + jnp.finfo(z.dtype).tiny)
    ratio = alpha * radius / variance
    mean = i1e(ratio) / i0e(ratio) / radius
    clean = jnp.concatenate([mean * z[:2], jnp.zeros_like(z[2:])])
    return (alpha * clean - z) / variance


def circle(dimension: int = AMBIENT, **settings: Any) -> ss.PerturbedScore:
    """The exact score of the noised circle."""
    return ss.PerturbedScore(_circle, PROCESS, structure=jnp.zeros(dimension), **settings)


def sphere_draws(key: Array, number: int, sphere: int, dimension: int = AMBIENT) -> Array:
    """The uniform law on the unit sphere of the first coordinates, of dimension `sphere`."""
    normal = jax.random.normal(key, (number, sphere + 1))
    flat = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
    return jnp.pad(flat, ((0, 0), (0, dimension - sphere - 1)))


def cube_draws(key: Array, number: int, flat: int = 3, dimension: int = AMBIENT) -> Array:
    """The uniform law on [-1, 1]^k in the first k coordinates."""
    draws = jax.random.uniform(key, (number, flat), minval=-1.0, maxval=1.0)
    return jnp.pad(draws, ((0, 0), (0, dimension - flat)))


def _cube(z: Array, t: Array, flat: Array) -> Array:
    """The mean of a normal law cut off at -1 and 1, ``x + s (phi(a) - phi(b)) / (Phi(b) - Phi(a))``."""
    alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
    noise, x = sigma / alpha, jnp.abs(z / alpha)
    upper, lower = (1 - x) / noise, (-1 - x) / noise
    log_mass = log_ndtr(upper) + jnp.log1p(-jnp.exp(log_ndtr(lower) - log_ndtr(upper)))
    densities = [jnp.exp(-0.5 * end**2 - log_mass) / jnp.sqrt(2 * jnp.pi) for end in (lower, upper)]
    inside = jnp.sign(z) * (x + noise * (densities[0] - densities[1]))
    return (alpha * jnp.where(flat > 0, inside, 0.0) - z) / sigma**2


def cube(flat: int = 3, dimension: int = AMBIENT) -> ss.PerturbedScore:
    """The exact score of the noised cube, uniform on [-1, 1]^k."""
    along = (jnp.arange(dimension) < flat).astype(float)
    return ss.PerturbedScore(_cube, PROCESS, structure=jnp.zeros(dimension), args=(along,))


def _normal(z: Array, t: Array, variances: Array, factor: Array, shift: Array, process: AbstractNoiseProcess) -> Array:
    return -factor * z / (process.alpha(t) ** 2 * variances + process.variance(t)) + shift


def normal(
    variances: Any, *, factor: float = 1.0, shift: float = 0.0, process: AbstractNoiseProcess = PROCESS, **settings: Any
) -> ss.PerturbedScore:
    """The score of N(0, v), v = 0 allowed, times a factor, plus a constant in every coordinate."""
    values = jnp.asarray(variances, float)
    args = (values, jnp.asarray(factor, float), jnp.asarray(shift, float), process)
    return ss.PerturbedScore(_normal, process, structure=jnp.zeros(values.size), args=args, **settings)
