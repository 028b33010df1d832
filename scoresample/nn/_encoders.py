"""Encoders of observations: a vector of features from numbers, or from a set of exchangeable parts."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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
_MOST_CORRELATED = 8
"""Numbers of a part up to which their correlations are told too."""
_LEAST_VARIANCE = 1e-6
_MOST_CORRELATION = 0.999


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
        self.layers = _perceptron([size, width, num_features], jax.random.split(key))

    def __call__(self, observation: Encoded) -> Float[Array, " features"]:
        """The features of one observation."""
        return _applied(self.layers, _flat(observation))


class SetEncoder(eqx.Module):
    """A function of exchangeable parts, whatever their order and number.

    It adds two sets of features: those of the parts' moments (means, logarithms of standard deviations, and for parts
    of up to eight numbers correlations), which are all that there is to know of normal parts; and those of layers that
    see a part beside the mean of all, ``h_i <- silu(A h_i + B mean_j h_j + c)``, then ``g(mean_i h_i, log(1 + n))``.
    Parts of which nothing is there do not count, and what is missing counts as 0 in moments.

    Source: Zaheer et al. 2017, arXiv 1703.06114, theorem 2 and lemma 3.

    Attributes:
        has_gaps: whether single numbers of a part may be missing, so that layers see which are there.
        each: the layers that see one part and the mean of all.
        pooled: the layers that see the mean of all and their number.
        of_moments: the layers that see the moments and the number.
    """

    has_gaps: bool = eqx.field(static=True)
    each: tuple[eqx.nn.Linear, ...]
    pooled: tuple[eqx.nn.Linear, ...]
    of_moments: tuple[eqx.nn.Linear, ...]

    def __init__(self, size: int, width: int, num_features: int, *, has_gaps: bool = False, key: Array) -> None:
        """Make an encoder.

        Arguments:
            size: the numbers of one part.
            has_gaps: whether single ones may be missing.
            width: width of the layers of moments; the others have half of it.
            num_features: length of the result.
            key: random key of the initial weights.
        """
        keys = jax.random.split(key, _SET_LAYERS + 5)
        self.has_gaps = has_gaps
        size = 2 * size if has_gaps else size
        narrow = max(width // 2, 1)
        sizes = [size] + [narrow] * (_SET_LAYERS - 1)
        self.each = tuple(eqx.nn.Linear(2 * n, narrow, key=k) for n, k in zip(sizes, keys, strict=False))
        self.pooled = _perceptron([narrow + 1, narrow, num_features], keys[_SET_LAYERS:])
        self.of_moments = _perceptron([_num_moments(size) + 1, width, width, num_features], keys[_SET_LAYERS + 2 :])

    def __call__(self, observation: Encoded) -> Float[Array, " features"]:
        """The features of one observation."""
        number = observation.values.shape[0]
        hidden = observation.values.reshape(number, -1)
        counts = jnp.ones(number, hidden.dtype)
        if observation.present is not None:
            present = observation.present.reshape(number, -1).astype(hidden.dtype)
            counts = present.max(axis=1)
            if self.has_gaps:
                hidden = jnp.concatenate([hidden, present], axis=1)
        total = counts.sum()
        shares = counts / jnp.maximum(total, 1)
        moments = _moments(hidden, shares)
        for layer in self.each:
            own, others = jnp.split(layer.weight, 2, axis=1)
            assert layer.bias is not None
            hidden = jax.nn.silu(hidden @ own.T + others @ (shares @ hidden) + layer.bias)
        size = jnp.log1p(total)
        return _applied(self.pooled, jnp.append(shares @ hidden, size)) + _applied(
            self.of_moments, jnp.append(moments, size)
        )


def _perceptron(sizes: list[int], keys: Array) -> tuple[eqx.nn.Linear, ...]:
    return tuple(eqx.nn.Linear(m, n, key=k) for m, n, k in zip(sizes, sizes[1:], keys, strict=False))


def _applied(layers: tuple[eqx.nn.Linear, ...], x: Array) -> Array:
    for layer in layers[:-1]:
        x = jax.nn.silu(layer(x))
    return layers[-1](x)


def _num_moments(size: int) -> int:
    return 2 * size + (size * (size - 1) // 2 if size <= _MOST_CORRELATED else 0)


def _moments(parts: Array, shares: Array) -> Array:
    """Means, logarithms of standard deviations and, of few numbers, transformed correlations."""
    mean = shares @ parts
    apart = parts - mean
    size = parts.shape[1]
    if size > _MOST_CORRELATED:
        return jnp.concatenate([mean, 0.5 * jnp.log(shares @ apart**2 + _LEAST_VARIANCE)])
    covariance = (apart.T * shares) @ apart + _LEAST_VARIANCE * jnp.eye(size, dtype=parts.dtype)
    spread = jnp.sqrt(jnp.diag(covariance))
    above = np.triu_indices(size, 1)
    correlations = (covariance / spread / spread[:, None])[above]
    return jnp.concatenate([mean, jnp.log(spread), jnp.arctanh(_MOST_CORRELATION * correlations)])


def _flat(observation: Encoded) -> Array:
    values = jnp.ravel(observation.values)
    if observation.present is None:
        return values
    return jnp.concatenate([values, jnp.ravel(observation.present).astype(values.dtype)])
