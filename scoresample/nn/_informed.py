"""Networks that see the gradient of a known density beside their input."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from scoresample.nn._posterior_network import PosteriorNetwork

_MOST_NORM = 10.0
"""Of the gradient's part, for each coordinate in root mean square; longer ones are shortened."""


class Held[Value]:
    """Something a network uses and does not train: a constant of the compiled program, equal to itself alone.

    Attributes:
        value: what is held.
    """

    def __init__(self, value: Value) -> None:
        """Hold a value."""
        self.value = value


class InformedNetwork(eqx.Module):
    """A network (x, log sigma, condition) -> vector like x that is told the gradient of the clean log density.

    At ``z = x / sqrt(1 + s^2)``, the denoised point of a standard normal law, it takes
    ``a = s / sqrt(1 + s^2) (z + grad log p(z))``: 0 for a standard normal law, and at little noise what an ``"edm"``
    network should say. It gives ``F(x, a) + gate(x, a) a``, with a gate that is learned and starts at 0. Gradients are
    shortened to ten for each coordinate; what is not finite counts as 0.

    Attributes:
        network: (x and a, log sigma, condition) -> F and gate, one after the other.
        gradient: (z, condition) -> the gradient of the clean log density.
    """

    network: PosteriorNetwork
    gradient: Held[Callable[[Array, Any], Array]] = eqx.field(static=True)

    def __call__(self, x: Float[Array, " d"], log_sigma: Float[Array, ""], condition: Any) -> Float[Array, " d"]:
        """The network's output at one point, noise level and condition."""
        variance = jnp.exp(2 * log_sigma)
        z = x / jnp.sqrt(1 + variance)
        told = jnp.sqrt(variance / (1 + variance)) * (z + self.gradient.value(z, condition))
        told = jnp.where(jnp.isfinite(told), told, 0)
        size = jnp.sqrt(jnp.mean(told**2) + 1e-12)
        told = told * jnp.minimum(1, _MOST_NORM / size)
        out, gate = jnp.split(self.network(jnp.concatenate([x, told]), log_sigma, condition), 2)
        return out + gate * told
