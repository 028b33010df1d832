"""How networks see the noise level."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.25, 8.0
"""Range of the angular frequencies of the noise-level features, in radians per unit of log sigma."""


class NoiseLevelFeatures(eqx.Module):
    """Sines and cosines of the logarithm of the noise level.

    Attributes:
        num_features: number of features, even.
    """

    num_features: int = eqx.field(static=True, default=16)

    def __call__(self, log_sigma: Float[Array, ""]) -> Float[Array, " features"]:
        """The features of one noise level."""
        frequencies = np.geomspace(_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY, self.num_features // 2)
        angles = jnp.asarray(frequencies, log_sigma.dtype) * log_sigma
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def zeroed[Layer: eqx.Module](layer: Layer) -> Layer:
    """A last layer that gives zeros: untrained, an ``"edm"`` network is the score of a standard normal law."""
    return jax.tree.map(lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x, layer)
