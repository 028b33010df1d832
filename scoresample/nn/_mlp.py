"""A residual multilayer perceptron that is told the noise level."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from scoresample.nn._features import NoiseLevelFeatures, zeroed
from scoresample.scores import Position

Modulation = Literal["film", "concatenate"]
"""How the noise level enters a network."""

_EMBEDDING_WIDTH = 64
"""Width of the embedding of the noise level."""


class FiLMBlock(eqx.Module):
    """``h + W2 silu((1 + gain(c)) (W1 normalise(h)) + shift(c))``: one residual block, modulated by features c.

    Source: feature-wise linear modulation, Perez et al. 2018, arXiv 1709.07871.
    """

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    modulation: eqx.nn.Linear | None

    def __init__(self, width: int, num_features: int | None, *, key: Array) -> None:
        """Make a block of a width; without features there is no modulation."""
        keys = jax.random.split(key, 3)
        self.norm = eqx.nn.LayerNorm(width)
        self.first = eqx.nn.Linear(width, width, key=keys[0])
        self.second = eqx.nn.Linear(width, width, key=keys[1])
        self.modulation = None if num_features is None else eqx.nn.Linear(num_features, 2 * width, key=keys[2])

    def __call__(self, hidden: Float[Array, " width"], features: Array) -> Float[Array, " width"]:
        """Apply the block."""
        inner = self.first(self.norm(hidden))
        if self.modulation is not None:
            gain, shift = jnp.split(self.modulation(features), 2)
            inner = (1 + gain) * inner + shift
        return hidden + self.second(jax.nn.silu(inner))


class ResidualMLP(eqx.Module):
    """A network (x, log sigma) -> tree like x, for positions of any shapes: they are laid out in one vector.

    With a `condition_size` it is a network (x, log sigma, condition) -> tree like x: the condition's numbers stand
    beside those of x.

    Attributes:
        dimension: numbers in a position.
        width: width of the hidden layers.
        depth: number of residual blocks.
        outputs: length of the output vector, or None for a tree like x. 1 gives a scalar, for energies.
        noise_level: ``"film"`` scales and shifts every block by features of the noise level; ``"concatenate"`` hands
            them over once, beside x.
        condition_size: numbers in a condition, or None where there is none.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> network = ResidualMLP(3, width=32, depth=2, key=jax.random.key(0))
        >>> network(jnp.ones(3), jnp.array(0.0)).shape
        (3,)
    """

    dimension: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    noise_level: Modulation = eqx.field(static=True)
    condition_size: int | None = eqx.field(static=True)
    features: NoiseLevelFeatures
    embed: eqx.nn.Linear
    lift: eqx.nn.Linear
    blocks: tuple[FiLMBlock, ...]
    project: eqx.nn.Linear

    def __init__(
        self,
        dimension: int,
        *,
        width: int = 128,
        depth: int = 3,
        outputs: int | None = None,
        noise_level: Modulation = "film",
        condition_size: int | None = None,
        key: Array,
    ) -> None:
        """Make a network.

        Arguments:
            dimension: numbers in a position.
            width: width of the hidden layers.
            depth: number of residual blocks.
            outputs: length of the output vector, or None for a tree like x.
            noise_level: ``"film"`` or ``"concatenate"``.
            condition_size: numbers in a condition, in all its arrays together, or None.
            key: random key of the initial weights.

        Raises:
            ValueError: if a size is below 1 or `noise_level` is unknown.
        """
        sizes = {"dimension": dimension, "width": width, "depth": depth, "outputs": outputs or 1}
        for name, size in {**sizes, "condition_size": 1 if condition_size is None else condition_size}.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        if noise_level not in get_args(Modulation):
            raise ValueError(f"`noise_level` must be one of {list(get_args(Modulation))}, got {noise_level!r}.")
        self.dimension, self.width, self.depth = dimension, width, depth
        self.outputs, self.noise_level, self.condition_size = outputs, noise_level, condition_size
        keys = jax.random.split(key, depth + 3)
        film = noise_level == "film"
        self.features = NoiseLevelFeatures()
        self.embed = eqx.nn.Linear(self.features.num_features, _EMBEDDING_WIDTH, key=keys[0])
        inputs = dimension + (condition_size or 0) + (0 if film else _EMBEDDING_WIDTH)
        self.lift = eqx.nn.Linear(inputs, width, key=keys[1])
        self.blocks = tuple(FiLMBlock(width, _EMBEDDING_WIDTH if film else None, key=k) for k in keys[3:])
        project = eqx.nn.Linear(width, dimension if outputs is None else outputs, key=keys[2])
        self.project = zeroed(project)

    def __call__(self, x: Position, log_sigma: Float[Array, ""], condition: Any = None) -> Position:
        """The network's output at one point, noise level and condition.

        Raises:
            ValueError: if the condition has other numbers than the network was made for.
        """
        vector, unravel = ravel_pytree(x)
        told = ravel_pytree(condition)[0]
        if told.size != (self.condition_size or 0):
            raise ValueError(
                f"`condition` has {told.size} numbers, but this network takes {self.condition_size or 0}. Say it when "
                "you make it: ResidualMLP(..., condition_size=)."
            )
        features = jax.nn.silu(self.embed(self.features(log_sigma)))
        beside = [] if self.condition_size is None else [told]
        beside += [] if self.noise_level == "film" else [features]
        hidden = self.lift(jnp.concatenate([vector, *beside]) if beside else vector)
        for block in self.blocks:
            hidden = block(hidden, features)
        output = self.project(jax.nn.silu(hidden))
        if self.outputs is not None:
            return output[0] if self.outputs == 1 else output
        return unravel(output)
