"""A denoiser around a raw network, with inputs and outputs of unit scale at every noise level."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.scores import Position


class PreconditionedDenoiser(eqx.Module):
    """``D(y, s) = y / (1 + s^2) + s / sqrt(1 + s^2) F(y / sqrt(1 + s^2), log s)`` for data of unit variance.

    It estimates ``E[z_0 | z_0 + s e = y]``. F sees inputs of unit variance and has targets of unit variance at every
    noise level s. Source: Karras et al. 2022, arXiv 2206.00364, table 1 (with sigma_data = 1).

    Attributes:
        network: F, a map (vector, log s) -> vector.

    Examples:
        >>> import jax.numpy as jnp
        >>> gaussian = PreconditionedDenoiser(lambda x, log_s: jnp.zeros_like(x))
        >>> gaussian(jnp.array([2.0]), jnp.array(1.0)).tolist()
        [1.0]
    """

    network: Callable[[Array, Array], Array]

    def __call__(self, y: Position, s: Array) -> Position:
        """The denoised point, a tree like y."""
        vector, unravel = ravel_pytree(y)
        total = 1 + s**2
        root = jnp.sqrt(total)
        return unravel(vector / total + (s / root) * self.network(vector / root, jnp.log(s)))


def parameter_count(module: eqx.Module) -> int:
    """The number of numbers in a module's floating arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array)))
