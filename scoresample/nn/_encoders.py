"""Encoders of observations: a vector of features from numbers, or from a set of exchangeable parts."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Encoded(NamedTuple):
    """One observation as networks see it: of order one, with no gaps.

    Attributes:
        values: its numbers, of any shape, 0 where they are missing; in sets the first axis is that of the parts.
        present: 1 where a number is there and 0 where it is missing, shaped like the values; None where none ever is.
    """

    values: Array
    present: Array | None = None


_SET_LAYERS = 3


class VectorEncoder(eqx.Module):
    """A multilayer perceptron of all of an observation's numbers, and of which are there.

    Attributes:
        layers: its layers.
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, size: int, width: int, num_features: int, *, key: Array) -> None:
        """Make an encoder.

        Arguments:
            size: the numbers that it sees, those that tell which are missing among them.
            width: width of the hidden layer.
            num_features: length of the result.
            key: random key of the initial weights.
        """
        keys = jax.random.split(key)
        self.layers = eqx.nn.Linear(size, width, key=keys[0]), eqx.nn.Linear(width, num_features, key=keys[1])

    def __call__(self, observation: Encoded) -> Float[Array, " features"]:
        """The features of one observation."""
        first, second = self.layers
        return second(jax.nn.silu(first(_flat(observation))))


class SetEncoder(eqx.Module):
    """A function of exchangeable parts, whatever their order and number.

    Layers that see a part beside the mean of all, ``h_i <- silu(A h_i + B mean_j h_j + c)``, then
    ``g(mean_i h_i, log(1 + n))``. Parts of which nothing is there do not count.

    Source: Zaheer et al. 2017, arXiv 1703.06114, theorem 2 and eq. 4.

    Attributes:
        each: the layers that see one part and the mean of all.
        pooled: the layers that see the mean of all and their number.
    """

    each: tuple[eqx.nn.Linear, ...]
    pooled: tuple[eqx.nn.Linear, ...]

    def __init__(self, size: int, width: int, num_features: int, *, key: Array) -> None:
        """Make an encoder.

        Arguments:
            size: the numbers of one part that it sees, those that tell which are missing among them.
            width: width of the hidden layers.
            num_features: length of the result.
            key: random key of the initial weights.
        """
        keys = jax.random.split(key, _SET_LAYERS + 2)
        sizes = [size] + [width] * (_SET_LAYERS - 1)
        self.each = tuple(eqx.nn.Linear(2 * n, width, key=k) for n, k in zip(sizes, keys, strict=False))
        self.pooled = eqx.nn.Linear(width + 1, width, key=keys[-2]), eqx.nn.Linear(width, num_features, key=keys[-1])

    def __call__(self, observation: Encoded) -> Float[Array, " features"]:
        """The features of one observation."""
        number = observation.values.shape[0]
        hidden = observation.values.reshape(number, -1)
        counts = jnp.ones(number, hidden.dtype)
        if observation.present is not None:
            present = observation.present.reshape(number, -1).astype(hidden.dtype)
            hidden, counts = jnp.concatenate([hidden, present], axis=1), present.max(axis=1)
        total = counts.sum()
        shares = counts / jnp.maximum(total, 1)
        for layer in self.each:
            own, others = jnp.split(layer.weight, 2, axis=1)
            assert layer.bias is not None
            hidden = jax.nn.silu(hidden @ own.T + others @ (shares @ hidden) + layer.bias)
        first, second = self.pooled
        return second(jax.nn.silu(first(jnp.append(shares @ hidden, jnp.log1p(total)))))


def _flat(observation: Encoded) -> Array:
    values = jnp.ravel(observation.values)
    if observation.present is None:
        return values
    return jnp.concatenate([values, jnp.ravel(observation.present).astype(values.dtype)])
