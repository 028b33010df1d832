"""A residual block of convolutions that is modulated by features."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.nn._channels_last import convolve, normalise

EMBEDDING_WIDTH = 64
"""Width of the features that a block is modulated by."""
_MOST_GROUPS = 8
"""Groups of channels that are normalised together: fewer where they do not divide the channels."""


class ConvBlock(eqx.Module):
    """``skip(h) + C2 silu((1 + gain) C1 silu(normalise(h)) + shift)``: a residual block of convolutions."""

    norm: eqx.nn.GroupNorm
    first: eqx.nn.Conv
    second: eqx.nn.Conv
    modulation: eqx.nn.Linear
    skip: eqx.nn.Conv | None

    def __init__(self, num_axes: int, inputs: int, outputs: int, padding_mode: str, *, key: Array) -> None:
        """Make a block from so many channels to so many."""
        keys = jax.random.split(key, 4)
        self.norm = eqx.nn.GroupNorm(math.gcd(_MOST_GROUPS, inputs), inputs)
        self.first = conv(num_axes, inputs, outputs, padding_mode, key=keys[0])
        self.second = conv(num_axes, outputs, outputs, padding_mode, key=keys[1])
        self.modulation = eqx.nn.Linear(EMBEDDING_WIDTH, 2 * outputs, key=keys[2])
        self.skip = None if inputs == outputs else eqx.nn.Conv(num_axes, inputs, outputs, 1, key=keys[3])

    def __call__(self, hidden: Array, features: Array) -> Array:
        """Apply the block to an array with channels last."""
        inner = convolve(self.first, jax.nn.silu(normalise(self.norm, hidden)))
        gain, shift = jnp.split(self.modulation(features), 2)
        inner = convolve(self.second, jax.nn.silu((1 + gain) * inner + shift))
        return inner + (hidden if self.skip is None else convolve(self.skip, hidden))


def conv(num_axes: int, inputs: int, outputs: int, padding_mode: str, *, stride: int = 1, key: Array) -> eqx.nn.Conv:
    """A convolution of three cells along every axis."""
    return eqx.nn.Conv(num_axes, inputs, outputs, 3, stride=stride, padding=1, padding_mode=padding_mode, key=key)
