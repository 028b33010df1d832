"""Equinox's convolutions and group normalisation on arrays whose last axis is that of channels.

The layers keep their arrays and shapes; only the way to compute is another. Inside loops, XLA's CPU compiler has fast
code for convolutions of one layout alone: channels last in the input, the output and, input before output channels,
the kernel. The convolutions that are the derivatives of one have other layouts, and there run twenty to ninety times as
long as they need to. Here derivatives are sums of matrix products, one for each cell of the kernel.
"""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

_SPACE = ("W", "HW", "DHW")
"""Names of one to three axes of space."""


def convolve(layer: eqx.nn.Conv, x: Array) -> Array:
    """What a convolution of odd kernel gives for one array, channels last; padded by half a kernel.

    Arguments:
        layer: the convolution, without groups or dilation.
        x: shape (*space, channels).
    """
    weight = layer.weight.astype(x.dtype)
    half = [length // 2 for length in weight.shape[2:]]
    mode = "wrap" if layer.padding_mode == "CIRCULAR" else "constant"
    if any(half):
        x = jnp.pad(x, [*((width, width) for width in half), (0, 0)], mode=mode)
    valid = _valid_convolution if jax.default_backend() == "cpu" else _forward
    output = valid(x, weight, layer.stride)
    return output if layer.bias is None else output + layer.bias.astype(x.dtype).ravel()


def normalise(layer: eqx.nn.GroupNorm, x: Array) -> Array:
    """What a group normalisation gives for one array, channels last."""
    grouped = x.reshape(*x.shape[:-1], layer.groups, -1)
    axes = (*range(x.ndim - 1), x.ndim)
    centred = grouped - grouped.mean(axis=axes, keepdims=True)
    variance = jnp.mean(centred**2, axis=axes, keepdims=True)
    output = (centred * jax.lax.rsqrt(variance + layer.eps)).reshape(x.shape)
    assert layer.weight is not None
    assert layer.bias is not None
    return output * layer.weight + layer.bias


def _forward(x: Array, weight: Array, stride: tuple[int, ...]) -> Array:
    space = _SPACE[len(stride) - 1]
    kernel = jnp.moveaxis(weight, (1, 0), (-2, -1))
    layouts = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x[None], kernel, stride, "VALID", dimension_numbers=layouts)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _valid_convolution(x: Array, weight: Array, stride: tuple[int, ...]) -> Array:
    """A convolution without padding: x of shape (*space, inputs), the weight of shape (outputs, inputs, *kernel)."""
    return _forward(x, weight, stride)


def _tangent(stride: tuple[int, ...], primals: tuple[Array, Array], tangents: Any) -> tuple[Array, Array]:
    x, weight = primals
    output = _valid_convolution(x, weight, stride)
    pairs = [(tangents[0], weight), (x, tangents[1])]
    parts = [_by_cells(*pair, stride, output.shape[:-1]) for pair in pairs if not _zero(*pair)]
    return output, functools.reduce(jnp.add, parts)


_valid_convolution.defjvp(_tangent, symbolic_zeros=True)


def _zero(*arrays: Any) -> bool:
    return any(isinstance(array, SymbolicZero) for array in arrays)


def _by_cells(x: Array, weight: Array, stride: tuple[int, ...], space: tuple[int, ...]) -> Array:
    """The same convolution as a sum over the kernel's cells of matrix products; fast when transposed."""
    total = []
    for cell in itertools.product(*map(range, weight.shape[2:])):
        window = [
            slice(k, k + step * (length - 1) + 1, step) for k, step, length in zip(cell, stride, space, strict=True)
        ]
        total.append(x[tuple(window)] @ weight[(..., *cell)].T)
    return functools.reduce(jnp.add, total)
