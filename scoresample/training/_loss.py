"""The losses of score matching: three ways to the same minimiser."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LossName = Literal["denoising", "sliced", "implicit"]


Denoiser = Callable[[Array, Array], Array]
"""(noised point, level) -> estimate of the clean point, both vectors."""


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


def implicit_loss(
    denoiser: Denoiser, noised: Float[Array, " d"], sigma: Float[Array, ""], probe: Float[Array, " d"] | None = None
) -> Float[Array, ""]:
    """``(1 + s^2) mean (s^2 S^2 + 2 s^2 d_i S_i + 1)`` with the score ``S = (D - y)/s^2`` at one noised point y.

    It does not look at the clean point: the divergence of the score takes the place of the noise, by Stein's identity,
    so its expectation is that of [`denoising_loss`][scoresample.training.denoising_loss]. With a probe v the divergence
    is estimated by ``v . J v`` (sliced score matching with reduced variance).

    Source: Hyvärinen 2005, JMLR 6, theorem 1; Song et al. 2019, arXiv 1905.07088, eq. 8.

    Arguments:
        denoiser: (noised point, level) -> estimate of the clean point.
        noised: a point of standardised data with noise.
        sigma: the noise level, positive.
        probe: a random direction of zero mean and unit variance, or None for the exact trace, at d times the price.

    Returns:
        A scalar, which may be negative.
    """

    def at(y: Array) -> Array:
        return denoiser(y, sigma)

    dimension = noised.size
    if probe is None:
        value = at(noised)
        products = jax.vmap(lambda v: jnp.vdot(v, jax.jvp(at, (noised,), (v,))[1]))(
            jnp.eye(dimension, dtype=noised.dtype)
        )
        divergence = products.sum()
    else:
        value, product = jax.jvp(at, (noised,), (probe,))
        divergence = jnp.vdot(probe, product)
    square = jnp.sum(((value - noised) / sigma) ** 2)
    return (1 + sigma**2) / dimension * (square + 2 * (divergence - dimension) + dimension)
