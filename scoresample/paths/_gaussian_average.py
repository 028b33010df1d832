"""Averages over a set of points under Gaussian weights: what the exact score of noised points is made of.

With weights ``p_i`` proportional to ``w_i exp(-|y - x_i|^2 / (2 v))``, the average of ``x_i - y`` and the logarithm of
the sum, for one y. Three ways, of which one is taken:

* squares expanded, ``|x|^2 - 2 x y + |y|^2``, in chunks: two matrix products for many y at once. Its rounding error is
  of order ``eps |x|^2`` in the squared distance, so it serves where v is large against that;
* below, only the nearest points count: the same expansion finds 256 of them, and their distances are taken exactly;
* all distances exactly, chunk by chunk: slow, and always right. It steps in where more than 256 points may count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._points import BLOCK, PointSet

_NEAREST_BLOCKS = 32
_SMALL = 2048
"""Up to so many points all distances are taken exactly where the expansion fails."""
_TOLERATED = 0.03
"""Rounding error of a log weight that is tolerated. Errors of single points are independent and average out."""
_NEGLIGIBLE = 16.0
"""Points that together weigh less than exp(-16), 1e-7, of the others are left out."""

Average = tuple[Array, Array]
"""The log of the sum of weights, a scalar, and the average offset, shape (dimension,)."""


def gaussian_average(
    y: Array, variance: Array, points: PointSet, log_factor: Callable[[Array], Array] | None = None
) -> Average:
    """``log sum_i w_i exp(-|y - x_i|^2 / (2 v))`` and the average of ``x_i - y`` under those weights.

    Under `vmap` over y the points are read once for all. Differentiable any number of times.

    Arguments:
        y: one point, shape (dimension,).
        variance: v, a positive scalar; not mapped over, or all three ways are taken at once.
        points: the set.
        log_factor: features, shape (..., features) -> further log weights of the points, shape (...).

    Returns:
        A scalar, and an array of shape (dimension,).
    """
    variance = variance.astype(y.dtype)
    y = y - points.centre.astype(y.dtype)

    def log_weights(chunk: PointSet) -> Array:
        own = chunk.log_weights.astype(y.dtype)
        if log_factor is None or chunk.features is None:
            return own
        return own + log_factor(chunk.features.astype(y.dtype))

    def exactly() -> Average:
        return _in_chunks(y, variance, points, log_weights, _exact_squares)

    def nearest() -> Average:
        average, unsure = _over_nearest(y, variance, points, log_weights)
        return jax.lax.cond(_any(jax.lax.stop_gradient(unsure)), exactly, lambda: average)

    small = points.log_weights.size <= _SMALL
    rounding = jnp.finfo(y.dtype).eps * points.squared_radius.astype(y.dtype) / (2 * variance)
    return jax.lax.cond(
        rounding > _TOLERATED,
        exactly if small else nearest,
        lambda: _in_chunks(y, variance, points, log_weights, _expanded_squares),
    )


def _expanded_squares(y: Array, x: Array) -> Array:
    """``|x - y|^2`` by products."""
    product = jnp.einsum("rcd,d->rc", x, y, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(x**2, axis=-1) - 2 * product + jnp.sum(y**2), 0.0)


def _exact_squares(y: Array, x: Array) -> Array:
    return jnp.sum((x - y) ** 2, axis=-1)


def _in_chunks(
    y: Array,
    variance: Array,
    points: PointSet,
    log_weights: Callable[[PointSet], Array],
    squares: Callable[[Array, Array], Array],
) -> Average:
    """A running softmax over the chunks."""
    exact = squares is _exact_squares

    @jax.checkpoint
    def add(carry: tuple[Array, Array, Array], chunk: PointSet) -> tuple[tuple[Array, Array, Array], None]:
        largest, total, offset = carry
        x = chunk.points.astype(y.dtype)
        logits = log_weights(chunk) - squares(y, x) / (2 * variance)
        new = jnp.maximum(largest, jax.lax.stop_gradient(jnp.max(logits)))
        safe = jnp.where(jnp.isneginf(new), 0.0, new)
        shrink, weights = jnp.exp(largest - safe), jnp.exp(logits - safe)
        if exact:
            mean = jnp.sum(weights[..., None] * (x - y), axis=(0, 1))
        else:
            mean = jnp.einsum("rc,rcd->d", weights, x, precision=jax.lax.Precision.HIGHEST)
        return (new, shrink * total + jnp.sum(weights), shrink * offset + mean), None

    start = (jnp.full((), -jnp.inf, y.dtype), jnp.zeros((), y.dtype), jnp.zeros_like(y))
    (largest, total, offset), _ = jax.lax.scan(add, start, points._replace(centre=None, squared_radius=None))
    return largest + jnp.log(total), offset / total - (0.0 if exact else y)


def _over_nearest(
    y: Array, variance: Array, points: PointSet, log_weights: Callable[[PointSet], Array]
) -> tuple[Average, Array]:
    """The average over the blocks with the nearest points, and whether others may count.

    Those left out weigh at most their number times the largest of their weights, which the expansion knows up to its
    rounding.
    """
    here = jax.lax.stop_gradient(y)

    def least(_: None, chunk: PointSet) -> tuple[None, Array]:
        lifted = _expanded_squares(here, chunk.points.astype(y.dtype)) - 2 * variance * log_weights(chunk)
        return None, jax.lax.stop_gradient(jnp.min(lifted, axis=0))

    chunks = points._replace(centre=None, squared_radius=None)
    _, lifted = jax.lax.scan(least, None, jax.lax.stop_gradient(chunks))
    # Without the barrier XLA sorts all blocks on the CPU, which takes ten times as long as everything else.
    negative, which = jax.lax.optimization_barrier(jax.lax.top_k(-lifted.ravel(), _NEAREST_BLOCKS + 1))
    which = jnp.stack(jnp.divmod(which[:_NEAREST_BLOCKS], lifted.shape[1]))

    def taken(leaf: Array) -> Array:
        return leaf[which[0], :, which[1]]

    near = jax.tree.map(taken, chunks)
    differences = near.points.astype(y.dtype) - y
    logits = log_weights(near) - jnp.sum(differences**2, axis=-1) / (2 * variance)
    log_sum = jax.nn.logsumexp(logits)
    offset = jnp.sum(jax.nn.softmax(logits.ravel())[:, None] * differences.reshape(-1, y.size), axis=0)
    reach = (jnp.linalg.norm(here) + jnp.sqrt(points.squared_radius.astype(y.dtype))) ** 2
    rounding = jnp.finfo(y.dtype).eps * (1 + 0.25 * y.size**0.5) * reach
    left_out = jnp.log(float(points.log_weights.size)) + (negative[-1] + rounding) / (2 * variance)
    return (log_sum, offset), left_out - log_sum > -_NEGLIGIBLE


@jax.custom_batching.custom_vmap
def _any(flag: Array) -> Array:
    """Whether a flag is set: of one point, or under `vmap` of any of them, so that a branch stays a branch."""
    return flag


@_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    del axis_size
    return (_any(jnp.any(flag, axis=0)), False) if in_batched[0] else (_any(flag), False)


assert BLOCK * _NEAREST_BLOCKS == 256
