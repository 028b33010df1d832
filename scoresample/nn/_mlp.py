"""A residual multilayer perceptron whose layers are modulated by the noise level."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.25, 8.0
"""Range of the angular frequencies of the noise-level features, in radians per unit of log sigma."""

_EMBEDDING_WIDTH = 64
"""Width of the embedding of the noise level."""


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


class FiLMBlock(eqx.Module):
    """``h + W2 silu((1 + gain(c)) normalise(W1 h) + shift(c))``: one residual block, modulated by features c.

    Source: feature-wise linear modulation, Perez et al. 2018, arXiv 1709.07871.
    """

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    modulation: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, width: int, num_features: int, *, key: Array) -> None:
        """Make a block of a width."""
        keys = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(width)
        self.first = eqx.nn.Linear(width, width, key=keys[0])
        self.second = eqx.nn.Linear(width, width, key=keys[1])
        self.modulation = eqx.nn.Linear(num_features, 2 * width, key=keys[2])

    def __call__(self, hidden: Float[Array, " width"], features: Array) -> Float[Array, " width"]:
        """Apply the block."""
        gain, shift = jnp.split(self.modulation(features), 2)
        return hidden + self.second(jax.nn.silu((1 + gain) * self.first(self.norm(hidden)) + shift))


class ResidualMLP(eqx.Module):
    """A network (vector, log sigma) -> vector of the same length.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> network = ResidualMLP(3, width=32, depth=2, key=jax.random.key(0))
        >>> network(jnp.ones(3), jnp.array(0.0)).shape
        (3,)
    """

    features: NoiseLevelFeatures
    embed: eqx.nn.Linear
    lift: eqx.nn.Linear
    blocks: tuple[FiLMBlock, ...]
    project: eqx.nn.Linear

    def __init__(self, dimension: int, *, width: int = 128, depth: int = 3, key: Array) -> None:
        """Make a network.

        Arguments:
            dimension: length of the vectors.
            width: width of the hidden layers.
            depth: number of residual blocks.
            key: random key of the initial weights.
        """
        keys = jax.random.split(key, depth + 3)
        self.features = NoiseLevelFeatures()
        self.embed = eqx.nn.Linear(self.features.num_features, _EMBEDDING_WIDTH, key=keys[0])
        self.lift = eqx.nn.Linear(dimension, width, key=keys[1])
        self.blocks = tuple(FiLMBlock(width, _EMBEDDING_WIDTH, key=k) for k in keys[3:])
        project = eqx.nn.Linear(width, dimension, key=keys[2])
        self.project = eqx.tree_at(lambda layer: (layer.weight, layer.bias), project, replace_fn=jnp.zeros_like)

    def __call__(self, x: Float[Array, " d"], log_sigma: Float[Array, ""]) -> Float[Array, " d"]:
        """The network's output at one point and noise level."""
        features = jax.nn.silu(self.embed(self.features(log_sigma)))
        hidden = self.lift(x)
        for block in self.blocks:
            hidden = block(hidden, features)
        return self.project(jax.nn.silu(hidden))
