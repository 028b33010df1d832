"""Denoising score matching."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Denoiser = Callable[[Array, Array], Array]


def denoising_loss(
    denoiser: Denoiser, clean: Float[Array, " d"], noise: Float[Array, " d"], sigma: Float[Array, ""]
) -> Float[Array, ""]:
    """``(1 + s^2) / s^2 * mean (D(z + s e, s) - z)^2`` for one clean point, one noise and one level.

    Its minimiser over all functions is the posterior mean, hence the score. With the weight of Karras et al. 2022
    (arXiv 2206.00364, table 1, sigma_data = 1) a preconditioned network has a target of unit variance at every level,
    and a network that knows nothing has loss 1. Source: Vincent 2011, Neural Computation 23(7), eq. 9.

    Arguments:
        denoiser: (noised point, level) -> estimate of the clean point.
        clean: a point of standardised data.
        noise: standard normal.
        sigma: the noise level, positive.

    Returns:
        A non-negative scalar.
    """
    error = denoiser(clean + sigma * noise, sigma) - clean
    return (1 + sigma**2) / sigma**2 * jnp.mean(error**2)


def stratified_log_sigma(key: Array, num: int, low: float, high: float, dtype: jnp.dtype) -> Float[Array, " n"]:
    """`num` levels uniform in [low, high], one in each of `num` equal cells, in random order."""
    key_jitter, key_order = jax.random.split(key)
    cells = jax.random.permutation(key_order, num).astype(dtype)
    return low + (high - low) * (cells + jax.random.uniform(key_jitter, (num,), dtype)) / num
