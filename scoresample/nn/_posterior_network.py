"""The network of amortised posteriors: a residual perceptron, modulated by the noise level and the observation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from scoresample.nn._encoders import Encoded, SetEncoder, VectorEncoder
from scoresample.nn._features import NoiseLevelFeatures, zeroed
from scoresample.nn._mlp import FiLMBlock

_NOISE_WIDTH = 64
_NUM_FEATURES = 64
"""Of an observation."""


class PosteriorNetwork(eqx.Module):
    """A network (x, log sigma, observation) -> vector like x.

    An encoder makes features of the observation; together with those of the noise level they scale and shift the first
    layer and every residual block, and they stand beside x at the first layer. Scaling the first layer lets a network
    look closely at a place that moves with the observation.

    Attributes:
        dimension: numbers in x.
        shape: shape of an observation's values.
        exchangeable: whether its first axis holds exchangeable parts.
        has_gaps: whether single numbers may be missing, beside whole parts of a set.
        width: width of the hidden layers.
        depth: number of residual blocks.
        outputs: length of the result, or None for that of x.
        features: the features of the noise level.
        embed: their embedding.
        encoder: observation -> features.
        lift: the first layer.
        focus: its scales and shifts.
        blocks: the residual blocks.
        project: the last layer.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.nn import Encoded
        >>> network = PosteriorNetwork(2, (5, 3), exchangeable=True, key=jax.random.key(0))
        >>> network(jnp.ones(2), jnp.array(0.0), Encoded(jnp.ones((5, 3)))).shape
        (2,)
    """

    dimension: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    exchangeable: bool = eqx.field(static=True)
    has_gaps: bool = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    features: NoiseLevelFeatures
    embed: eqx.nn.Linear
    encoder: VectorEncoder | SetEncoder
    lift: eqx.nn.Linear
    focus: eqx.nn.Linear
    blocks: tuple[FiLMBlock, ...]
    project: eqx.nn.Linear

    def __init__(
        self,
        dimension: int,
        shape: tuple[int, ...],
        *,
        exchangeable: bool = False,
        has_gaps: bool = False,
        width: int = 128,
        depth: int = 3,
        outputs: int | None = None,
        key: Array,
    ) -> None:
        """Make a network.

        Arguments:
            dimension: numbers in x.
            shape: shape of an observation's values.
            exchangeable: whether its first axis holds exchangeable parts.
            has_gaps: whether single numbers may be missing, beside whole parts of a set.
            width: width of the hidden layers.
            depth: number of residual blocks.
            outputs: length of the result, by default that of x.
            key: random key of the initial weights.
        """
        self.dimension, self.shape, self.exchangeable, self.has_gaps = dimension, shape, exchangeable, has_gaps
        self.width, self.depth, self.outputs = width, depth, outputs
        keys = jax.random.split(key, depth + 5)
        self.features = NoiseLevelFeatures()
        self.embed = eqx.nn.Linear(self.features.num_features, _NOISE_WIDTH, key=keys[0])
        self.encoder = make_encoder(shape, _NUM_FEATURES, exchangeable, has_gaps, width, keys[3])
        self.lift = eqx.nn.Linear(dimension + _NUM_FEATURES, width, key=keys[1])
        self.focus = eqx.nn.Linear(_NOISE_WIDTH + _NUM_FEATURES, 2 * width, key=keys[4])
        self.blocks = tuple(FiLMBlock(width, _NOISE_WIDTH + _NUM_FEATURES, key=k) for k in keys[5:])
        self.project = zeroed(eqx.nn.Linear(width, dimension if outputs is None else outputs, key=keys[2]))

    def __call__(self, x: Float[Array, " d"], log_sigma: Float[Array, ""], condition: Encoded) -> Float[Array, " d"]:
        """The network's output at one point, noise level and observation."""
        told = self.encoder(condition)
        features = jax.nn.silu(jnp.concatenate([self.embed(self.features(log_sigma)), told]))
        log_scale, shift = jnp.split(self.focus(features), 2)
        hidden = jnp.exp(log_scale) * self.lift(jnp.concatenate([x, told])) + shift
        for block in self.blocks:
            hidden = block(hidden, features)
        return self.project(jax.nn.silu(hidden))


class MeanNetwork(eqx.Module):
    """``m(x) = slope summary(x) + intercept + root shift(x)``: a vector for every observation.

    The summary holds the observation's numbers, of sets their means over parts. The linear part, and the symmetric root
    of the covariance of what it leaves over, are found by least squares and not trained; the shift is a network that
    starts at 0.

    Attributes:
        dimension: length of the vector.
        shape: shape of an observation's values.
        exchangeable: whether its first axis holds exchangeable parts.
        has_gaps: whether single numbers may be missing, beside whole parts of a set.
        width: width of the encoder's layers.
        slope: a matrix.
        intercept: a vector.
        root: a symmetric matrix.
        mixing: a root of the covariance of what the whole mean leaves over.
        encoder: observation -> features.
        project: the last layer of the shift.
    """

    dimension: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    exchangeable: bool = eqx.field(static=True)
    has_gaps: bool = eqx.field(static=True)
    width: int = eqx.field(static=True)
    slope: Array
    intercept: Array
    root: Array
    mixing: Array
    encoder: VectorEncoder | SetEncoder
    project: eqx.nn.Linear

    def __init__(
        self,
        dimension: int,
        shape: tuple[int, ...],
        *,
        exchangeable: bool = False,
        has_gaps: bool = False,
        width: int = 128,
        key: Array,
    ) -> None:
        """Make a network; see [`PosteriorNetwork`][scoresample.nn.PosteriorNetwork]."""
        self.dimension, self.shape, self.exchangeable, self.has_gaps = dimension, shape, exchangeable, has_gaps
        self.width = width
        keys = jax.random.split(key)
        self.encoder = make_encoder(shape, _NUM_FEATURES, exchangeable, has_gaps, width, keys[0])
        self.project = zeroed(eqx.nn.Linear(_NUM_FEATURES, dimension, key=keys[1]))
        self.intercept, self.root, self.mixing = jnp.zeros(dimension), jnp.eye(dimension), jnp.eye(dimension)
        self.slope = jnp.zeros((dimension, _size(shape[1:] if exchangeable else shape)))

    def summary(self, condition: Encoded) -> Array:
        """What the linear part sees."""
        if isinstance(self.encoder, VectorEncoder):
            return jnp.ravel(condition.values)
        values = condition.values.reshape(condition.values.shape[0], -1)
        if condition.present is None:
            return values.mean(axis=0)
        return values.sum(axis=0) / jnp.maximum(condition.present.reshape(values.shape).sum(axis=0), 1)

    def linear(self, condition: Encoded) -> Float[Array, " d"]:
        """The linear part."""
        return self.slope @ self.summary(condition) + self.intercept

    def shift(self, condition: Encoded) -> Float[Array, " d"]:
        """What the network adds, in units of the root."""
        return self.project(jax.nn.silu(self.encoder(condition)))

    def __call__(self, condition: Encoded) -> Float[Array, " d"]:
        """The vector for one observation."""
        return self.linear(condition) + self.root @ self.shift(condition)


def make_encoder(
    shape: tuple[int, ...], num_features: int, exchangeable: bool, has_gaps: bool, width: int, key: Array
) -> VectorEncoder | SetEncoder:
    """An encoder of observations of a shape."""
    seen = shape[1:] if exchangeable else shape
    size = _size(seen)
    if exchangeable:
        return SetEncoder(size, width, num_features, has_gaps=has_gaps, key=key)
    return VectorEncoder(2 * size if has_gaps else size, width, num_features, key=key)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))
