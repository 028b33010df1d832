"""A network of local convolutions, for fields of any size."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scoresample.nn._channels_last import convolve
from scoresample.nn._conv_block import EMBEDDING_WIDTH, ConvBlock, conv
from scoresample.nn._features import NoiseLevelFeatures, zeroed
from scoresample.scores import Position

_SCALE_EMBEDDING_WIDTH = 16


class ResidualConv(eqx.Module):
    """A network (x, log sigma[, condition[, scale]]) -> array like x of convolutions at one resolution.

    It has no size of its own: one network serves fields of all sizes, such as the details of all scales of a wavelet
    transform, where it is told the scale. What it does is the same everywhere, so on periodic fields its scores move
    along with the fields. Apart from the normalisation of channels, which averages over the field, an output sees the
    ``2 (2 blocks + 2) + 1`` sites around it.

    Source: residual blocks as in Ho et al. 2020, arXiv 2006.11239; local conditional scores across scales: Guth et al.
    2022, arXiv 2208.05003.

    Attributes:
        num_axes: axes of space, one to three.
        width: channels of the hidden layers.
        blocks: residual blocks.
        channels: channels of x, its first axis; None for fields without one.
        condition_channels: channels of the condition, a field of the same space: without a channel axis it is one.
        num_scales: scales that are told apart, 0 where none is told.
        periodic: whether the field goes on at the other side.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> network = ResidualConv(2, width=8, blocks=1, channels=3, condition_channels=1, key=jax.random.key(0))
        >>> network(jnp.ones((3, 8, 8)), jnp.array(0.0), jnp.ones((8, 8))).shape
        (3, 8, 8)
    """

    num_axes: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    channels: int | None = eqx.field(static=True)
    condition_channels: int = eqx.field(static=True)
    num_scales: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    features: NoiseLevelFeatures
    embed: eqx.nn.Linear
    scales: Array | None
    lift: eqx.nn.Conv
    rows: tuple[ConvBlock, ...]
    project: eqx.nn.Conv

    def __init__(
        self,
        num_axes: int,
        *,
        width: int = 32,
        blocks: int = 4,
        channels: int | None = None,
        condition_channels: int = 0,
        num_scales: int = 0,
        periodic: bool = True,
        key: Array,
    ) -> None:
        """Make a network.

        Arguments:
            num_axes: axes of space.
            width: channels of the hidden layers.
            blocks: residual blocks.
            channels: channels of x, or None.
            condition_channels: channels of the condition, 0 for none.
            num_scales: scales that are told apart, 0 for none.
            periodic: whether fields are periodic.
            key: random key of the initial weights.

        Raises:
            ValueError: if a size is out of range.
        """
        sizes = {"width": width, "blocks": blocks, "channels": 1 if channels is None else channels}
        counts = {"condition_channels": condition_channels, "num_scales": num_scales}
        for name, size in (sizes | counts).items():
            if size < int(name in sizes):
                raise ValueError(f"`{name}` must be at least {int(name in sizes)}, got {size}.")
        if not 1 <= num_axes <= 3:
            raise ValueError(f"`num_axes` must be 1, 2 or 3, got {num_axes}.")
        self.num_axes, self.width, self.blocks, self.channels = num_axes, width, blocks, channels
        self.condition_channels, self.num_scales, self.periodic = condition_channels, num_scales, periodic
        mode, keys = "CIRCULAR" if periodic else "ZEROS", iter(jax.random.split(key, blocks + 4))
        self.features = NoiseLevelFeatures()
        told = self.features.num_features + (_SCALE_EMBEDDING_WIDTH if num_scales else 0)
        self.embed = eqx.nn.Linear(told, EMBEDDING_WIDTH, key=next(keys))
        self.scales = jax.random.normal(next(keys), (num_scales, _SCALE_EMBEDDING_WIDTH)) if num_scales else None
        inputs = (channels or 1) + condition_channels
        self.lift = conv(num_axes, inputs, width, mode, key=next(keys))
        self.project = zeroed(conv(num_axes, width, channels or 1, mode, key=next(keys)))
        self.rows = tuple(ConvBlock(num_axes, width, width, mode, key=k) for k in keys)

    def __call__(
        self, x: Position, log_sigma: Float[Array, ""], condition: Position | None = None, scale: int = 0
    ) -> Position:
        """The network's output at one point (an array, or a tree of one array) and noise level.

        Arguments:
            x: the field.
            log_sigma: the noise level.
            condition: a field of the same space, where there are condition channels.
            scale: the number of the scale, where scales are told apart.

        Raises:
            ValueError: if x or the condition does not have the axes and channels that the network was made for.
        """
        field, tree = _one_array("x", x)
        hidden = field if self.channels is not None else field[None]
        arrays, wanted = [hidden], [(self.channels or 1, *hidden.shape[1:])]
        if condition is not None:
            told = _one_array("condition", condition)[0]
            arrays.append(told if told.ndim > self.num_axes else told[None])
        if self.condition_channels:
            wanted.append((self.condition_channels, *hidden.shape[1:]))
        if hidden.ndim != self.num_axes + 1 or [array.shape for array in arrays] != wanted:
            raise ValueError(
                f"`x`, and the condition where there is one, must have {self.num_axes} axes of space after their "
                f"channels, {[shape[0] for shape in wanted]}, and the same space; got shapes "
                f"{[array.shape for array in arrays]}."
            )
        features = self.features(log_sigma)
        if self.scales is not None:
            features = jnp.concatenate([features, self.scales[scale].astype(features.dtype)])
        features = jax.nn.silu(self.embed(features))
        hidden = convolve(self.lift, jnp.moveaxis(jnp.concatenate(arrays), 0, -1))
        for row in self.rows:
            hidden = row(hidden, features)
        output = convolve(self.project, jax.nn.silu(hidden))
        return jax.tree.unflatten(tree, [jnp.moveaxis(output, -1, 0) if self.channels else output[..., 0]])


def _one_array(name: str, tree: Position) -> tuple[Array, Any]:
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) != 1:
        raise ValueError(f"`{name}` must be one array, got {len(leaves)}.")
    return leaves[0], structure
