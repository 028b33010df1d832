"""A small U-Net for fields and images that is told the noise level."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scoresample.nn._channels_last import convolve
from scoresample.nn._conv_block import EMBEDDING_WIDTH, ConvBlock, conv
from scoresample.nn._features import NoiseLevelFeatures, zeroed
from scoresample.scores import Position


class UNet(eqx.Module):
    """A network (x, log sigma) -> array like x, for fields and images of one to three axes.

    With a `condition_shape` it is a network (x, log sigma, condition) -> array like x: the condition, a field on the
    same cells, enters as further channels.

    Going down, each level halves the resolution with a strided convolution; going up, it is doubled by repetition, and
    what the way down knew at that resolution is put beside it. Every block is modulated by the noise level.

    Source: Ronneberger et al. 2015, arXiv 1505.04597; residual blocks as in Ho et al. 2020, arXiv 2006.11239.

    Attributes:
        shape: the event's shape, such as (32, 32), or (3, 32, 32) with channels.
        width: channels at the full resolution; each level down doubles them, up to four times as many.
        num_levels: number of halvings; every axis must be a multiple of ``2**num_levels``.
        blocks: residual blocks on each level, on either way.
        channels: whether the first axis of the shape is one of channels.
        periodic: whether the field goes on at the other side, as on a lattice.
        condition_shape: shape of the condition, the space of x, with an axis of channels before it or without; None
            where there is none.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> network = UNet((8, 8), width=8, num_levels=2, key=jax.random.key(0))
        >>> network(jnp.ones((8, 8)), jnp.array(0.0)).shape
        (8, 8)
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    width: int = eqx.field(static=True)
    num_levels: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True)
    channels: bool = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    condition_shape: tuple[int, ...] | None = eqx.field(static=True)
    features: NoiseLevelFeatures
    embed: eqx.nn.Linear
    lift: eqx.nn.Conv
    down: tuple[tuple[ConvBlock, ...], ...]
    halve: tuple[eqx.nn.Conv, ...]
    middle: tuple[ConvBlock, ...]
    narrow: tuple[eqx.nn.Conv, ...]
    up: tuple[tuple[ConvBlock, ...], ...]
    project: eqx.nn.Conv

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 32,
        num_levels: int = 2,
        blocks: int = 1,
        channels: bool = False,
        periodic: bool = False,
        condition_shape: tuple[int, ...] | None = None,
        key: Array,
    ) -> None:
        """Make a network.

        Arguments:
            shape: the event's shape.
            width: channels at the full resolution.
            num_levels: number of halvings.
            blocks: residual blocks on each level.
            channels: whether the first axis of the shape is one of channels.
            periodic: whether the field is periodic.
            condition_shape: shape of a condition on the same cells: the event's space, with an axis of channels before
                it or without.
            key: random key of the initial weights.

        Raises:
            ValueError: if a size is below 1, the shape has no or more than three axes of space, an axis cannot be
                halved so often, or the condition has another space.
        """
        shape = tuple(int(length) for length in shape)
        num_channels, space = (shape[0], shape[1:]) if channels else (1, shape)
        for name, size in (("width", width), ("blocks", blocks), ("num_levels", num_levels)):
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1, got {size}.")
        if not 1 <= len(space) <= 3:
            raise ValueError(f"`shape` must have one to three axes of space, got {shape} with channels={channels}.")
        if any(length < 2**num_levels or length % 2**num_levels for length in space):
            raise ValueError(
                f"`shape`: the axes {space} must be multiples of {2**num_levels} to be halved {num_levels} times. Pad "
                "the data, or lower `num_levels`."
            )
        if condition_shape is not None:
            condition_shape = tuple(int(length) for length in condition_shape)
            if condition_shape[-len(space) :] != space or len(condition_shape) > len(space) + 1 or 0 in condition_shape:
                raise ValueError(
                    f"`condition_shape` must be the space {space}, or have one axis of channels before it, got "
                    f"{condition_shape}. Bring conditions of a lower resolution to that of x first."
                )
        self.condition_shape = condition_shape
        self.shape, self.width, self.num_levels, self.blocks = shape, width, num_levels, blocks
        self.channels, self.periodic = channels, periodic
        axes, mode = len(space), "CIRCULAR" if periodic else "ZEROS"
        widths = [width * min(2**level, 4) for level in range(num_levels + 1)]
        keys = iter(jax.random.split(key, 4 + 2 * num_levels * (blocks + 2) + blocks))

        def row(inputs: int, outputs: int) -> tuple[ConvBlock, ...]:
            sizes = [inputs, *[outputs] * blocks]
            return tuple(ConvBlock(axes, a, b, mode, key=next(keys)) for a, b in itertools.pairwise(sizes))

        self.features = NoiseLevelFeatures()
        self.embed = eqx.nn.Linear(self.features.num_features, EMBEDDING_WIDTH, key=next(keys))
        told = 0 if condition_shape is None else math.prod(condition_shape) // math.prod(space)
        self.lift = conv(axes, num_channels + told, width, mode, key=next(keys))
        self.down = tuple(row(w, w) for w in widths[:-1])
        self.halve = tuple(conv(axes, a, b, mode, stride=2, key=next(keys)) for a, b in itertools.pairwise(widths))
        self.middle = row(widths[-1], widths[-1])
        self.narrow = tuple(conv(axes, b, a, mode, key=next(keys)) for a, b in itertools.pairwise(widths))
        self.up = tuple(row(2 * w, w) for w in widths[:-1])
        self.project = zeroed(conv(axes, width, num_channels, mode, key=next(keys)))

    def __call__(self, x: Position, log_sigma: Float[Array, ""], condition: Any = None) -> Position:
        """The network's output at one point (an array, or a tree of one array), noise level and condition.

        Raises:
            ValueError: if x is not one array of the network's shape, or the condition not one of its own.
        """
        leaves, tree = jax.tree.flatten(x)
        if len(leaves) != 1 or leaves[0].shape != self.shape:
            raise ValueError(f"`x` must be one array of shape {self.shape}, got {[leaf.shape for leaf in leaves]}.")
        features = jax.nn.silu(self.embed(self.features(log_sigma)))
        hidden = convolve(self.lift, self._channels_last(leaves[0], condition))
        known = []
        for row, halve in zip(self.down, self.halve, strict=True):
            hidden = _apply(row, hidden, features)
            known.append(hidden)
            hidden = convolve(halve, hidden)
        hidden = _apply(self.middle, hidden, features)
        for row, narrow in zip(reversed(self.up), reversed(self.narrow), strict=True):
            for axis in range(hidden.ndim - 1):
                hidden = jnp.repeat(hidden, 2, axis=axis)
            hidden = _apply(row, jnp.concatenate([convolve(narrow, hidden), known.pop()], axis=-1), features)
        output = convolve(self.project, jax.nn.silu(hidden))
        return jax.tree.unflatten(tree, [jnp.moveaxis(output, -1, 0) if self.channels else output[..., 0]])

    def _channels_last(self, x: Array, condition: Any) -> Array:
        """The input, and the condition beside it, with channels last."""
        arrays, shapes = [x, *jax.tree.leaves(condition)], [self.shape]
        if self.condition_shape is not None:
            shapes.append(self.condition_shape)
        if [array.shape for array in arrays] != shapes:
            raise ValueError(
                f"`condition` must be {'None' if len(shapes) == 1 else f'one array of shape {shapes[1]}'} for this "
                f"network, got {[array.shape for array in arrays[1:]]}. Say it when you make it: "
                "UNet(..., condition_shape=)."
            )
        axes = len(self.shape) - self.channels
        parts = [jnp.moveaxis(a, 0, -1) if a.ndim > axes else a[..., None] for a in arrays]
        return jnp.concatenate(parts, axis=-1)


def _apply(row: tuple[ConvBlock, ...], hidden: Array, features: Array) -> Array:
    for block in row:
        hidden = block(hidden, features)
    return hidden
