"""Denoising score matching."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Denoiser = Callable[[Array, Array], Array]


def denoising_loss(
    denoiser: Denoiser,
    clean: Float[Array, " d"],
    clean_score: Float[Array, " d"] | None,
    noise: Float[Array, " d"],
    sigma: Float[Array, ""],
) -> Float[Array, ""]:
    """``(1 + s^2) / s^2 * mean (D(z + s e, s) - target)^2`` for one clean point, one noise and one level.

    The target is z. Where the score g(z) of the clean density is known it is ``z + s / (1 + s^2) (e + s g(z))``, which
    has the same conditional mean and less variance: it mixes the two unbiased estimates ``-e/s`` and ``g(z)`` of the
    noised score with the weights that cancel all variance when the data are standard normal (target score matching,
    De Bortoli et al. 2024, arXiv 2402.08667). It needs a density without hard edges.

    Its minimiser over all functions is the posterior mean, hence the score. With the weight of Karras et al. 2022
    (arXiv 2206.00364, table 1, sigma_data = 1) a preconditioned network has a target of unit variance at every level,
    and a network that knows nothing has loss 1. Source: Vincent 2011, Neural Computation 23(7), eq. 9.

    Arguments:
        denoiser: (noised point, level) -> estimate of the clean point.
        clean: a point of standardised data.
        clean_score: the score of the clean density there, in standardised coordinates, or None.
        noise: standard normal.
        sigma: the noise level, positive.

    Returns:
        A non-negative scalar.
    """
    target = clean
    if clean_score is not None:
        target = clean + sigma / (1 + sigma**2) * (noise + sigma * clean_score)
    error = denoiser(clean + sigma * noise, sigma) - target
    return (1 + sigma**2) / sigma**2 * jnp.mean(error**2)


def stratified_log_sigma(key: Array, num: int, low: float, high: float, dtype: jnp.dtype) -> Float[Array, " n"]:
    """`num` levels uniform in [low, high], one in each of `num` equal cells, in random order."""
    key_jitter, key_order = jax.random.split(key)
    cells = jax.random.permutation(key_order, num).astype(dtype)
    return low + (high - low) * (cells + jax.random.uniform(key_jitter, (num,), dtype)) / num
