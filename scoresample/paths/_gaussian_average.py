"""Averages over a set of points under Gaussian weights: what the exact score of noised points is made of.

With weights ``p_i`` proportional to ``w_i exp(-|y - x_i|^2 / (2 v))``, the average of ``x_i - y`` and the logarithm of
the sum, for one y. Three ways, of which one is taken:

* squares expanded, ``|x|^2 - 2 x y + |y|^2``, in chunks: two matrix products for many y at once. Its rounding error is
  of order ``eps |x|^2`` in the squared distance, so it serves where v is large against that;
* below, only the nearest points count: the same expansion finds 256 of them, and their distances are taken exactly;
* all distances exactly, chunk by chunk: slow, and always right. It steps in where more than 256 points may count.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._points import BLOCK, PointSet

_NEAREST_BLOCKS = 32
_GROUP = 4
"""Blocks whose differences are taken at once: 32 points for each y, which bounds the memory."""
_SMALL = 2048
"""Up to so many points all distances are taken exactly where the expansion fails."""
_TOLERATED = 0.03
"""Rounding error of a log weight that is tolerated. Errors of single points are independent and average out."""
_NEGLIGIBLE = 15.0
"""Points that together weigh less than exp(-15), 3e-7, of the others are left out."""

Average = tuple[Array, Array]
"""The log of the sum of weights, a scalar, and the average offset, shape (dimension,)."""
Visit = tuple[Array, Callable[[Array], Array]]
"""Log weights of some points, and the sum of what is averaged under weights of that shape."""


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

    chunks = points._replace(centre=None, squared_radius=None)

    def log_weights(chunk: PointSet) -> Array:
        own = chunk.log_weights.astype(y.dtype)
        if log_factor is None or chunk.features is None:
            return own
        return own + log_factor(chunk.features.astype(y.dtype))

    at_distances = _by_differences(y, variance, log_weights)

    def at_products(chunk: PointSet) -> Visit:
        x = chunk.points.astype(y.dtype)
        # Subtracted: XLA fuses the product into an addition on the CPU, and then takes three times as long.
        logits = (log_weights(chunk) - jnp.sum(x**2, axis=-1) / (2 * variance)) - _products(x, -y / variance)
        return logits, lambda weights: jnp.einsum("rc,rcd->d", weights, x, precision=jax.lax.Precision.HIGHEST)

    def expanded() -> Average:
        log_sum, mean = _running_softmax(at_products, chunks, y)
        return log_sum - jnp.sum(y**2) / (2 * variance), mean - y

    def exactly() -> Average:
        few = jax.tree.map(lambda leaf: leaf.reshape(-1, _GROUP, BLOCK, *leaf.shape[3:]), chunks)
        return _running_softmax(at_distances, few, y)

    def nearest() -> Average:
        average, unsure = _over_nearest(y, variance, points, log_weights)
        return jax.lax.cond(_any(jax.lax.stop_gradient(unsure)), exactly, lambda: average)

    small = points.log_weights.size <= _SMALL
    rounding = jnp.finfo(y.dtype).eps * points.squared_radius.astype(y.dtype) / (2 * variance)
    return jax.lax.cond(rounding > _TOLERATED, exactly if small else nearest, expanded)


def _by_differences(y: Array, variance: Array, log_weights: Callable[[PointSet], Array]) -> Callable[[PointSet], Visit]:
    """Of a chunk: log weights by exact distances, and the sum of the differences."""

    def visit(chunk: PointSet) -> Visit:
        differences = chunk.points.astype(y.dtype) - y
        logits = log_weights(chunk) - jnp.sum(differences**2, axis=-1) / (2 * variance)
        return logits, lambda weights: jnp.sum(weights[..., None] * differences, axis=(0, 1))

    return visit


def _over_nearest(
    y: Array, variance: Array, points: PointSet, log_weights: Callable[[PointSet], Array]
) -> tuple[Average, Array]:
    """The average over the blocks with the nearest points, and whether others may count."""
    chunks = points._replace(centre=None, squared_radius=None)
    visit, here = _by_differences(y, variance, log_weights), jax.lax.stop_gradient(y)
    lifted = _least_distances(here, variance, chunks, log_weights)
    # Without the barrier XLA sorts all blocks on the CPU, which takes ten times as long as everything else.
    negative, which = jax.lax.optimization_barrier(jax.lax.top_k(-lifted.ravel(), _NEAREST_BLOCKS + 1))
    groups = jnp.stack(jnp.divmod(which[:_NEAREST_BLOCKS], lifted.shape[1]), axis=1).reshape(-1, _GROUP, 2)

    def near(places: Array) -> Visit:
        return visit(jax.tree.map(lambda leaf: leaf[places[:, 0], :, places[:, 1]], chunks))

    average = _running_softmax(near, groups, y)
    others = jnp.where(lifted >= -negative[-1], -lifted, -jnp.inf)
    return average, _may_count(here, variance, points, others, average[0])


def _products(x: Array, y: Array) -> Array:
    return jnp.einsum("rcd,d->rc", x, y, precision=jax.lax.Precision.HIGHEST)


def _running_softmax(visit: Callable[[Any], Visit], visited: Any, like: Array) -> Average:
    """A softmax over everything that is visited: the log of the sum of weights, and the average under the weights."""

    @jax.checkpoint
    def add(carry: tuple[Array, Array, Array], place: Any) -> tuple[tuple[Array, Array, Array], None]:
        largest, total, mean = carry
        logits, summed = visit(place)
        new = jnp.maximum(largest, jax.lax.stop_gradient(jnp.max(logits)))
        safe = jnp.where(jnp.isneginf(new), 0.0, new)
        shrink, weights = jnp.exp(largest - safe), jnp.exp(logits - safe)
        return (new, shrink * total + jnp.sum(weights), shrink * mean + summed(weights)), None

    start = (jnp.full((), -jnp.inf, like.dtype), jnp.zeros((), like.dtype), jnp.zeros_like(like))
    (largest, total, mean), _ = jax.lax.scan(add, start, visited)
    return largest + jnp.log(total), mean / total


def _least_distances(y: Array, variance: Array, chunks: PointSet, log_weights: Callable[[PointSet], Array]) -> Array:
    """For each block the least ``|x - y|^2 - |y|^2 - 2 v log w`` of its points, by products: (chunks, columns)."""

    def least(_: None, chunk: PointSet) -> tuple[None, Array]:
        x = chunk.points.astype(y.dtype)
        lifted = (jnp.sum(x**2, axis=-1) - 2 * variance * log_weights(chunk)) - _products(x, 2 * y)
        return None, jax.lax.stop_gradient(jnp.min(lifted, axis=0))

    return jax.lax.scan(least, None, jax.lax.stop_gradient(chunks))[1]


def _may_count(y: Array, variance: Array, points: PointSet, others: Array, log_sum: Array) -> Array:
    """Whether the blocks left out may weigh anything against a sum of weights.

    Each of a block's points weighs at most as much as the nearest of them, which is known up to rounding.
    """
    reach = (jnp.linalg.norm(y) + jnp.sqrt(points.squared_radius.astype(y.dtype))) ** 2
    rounding = jnp.finfo(y.dtype).eps * (1 + 0.25 * y.size**0.5) * reach
    left_out = jax.nn.logsumexp((others - jnp.sum(y**2) + rounding) / (2 * variance))
    return jnp.log(float(BLOCK)) + left_out - log_sum > -_NEGLIGIBLE


@jax.custom_batching.custom_vmap
def _any(flag: Array) -> Array:
    """Whether a flag is set: of one point, or under `vmap` of any of them, so that a branch stays a branch."""
    return flag


@_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: Array) -> tuple[Array, bool]:
    del axis_size
    return (_any(jnp.any(flag, axis=0)), False) if in_batched[0] else (_any(flag), False)


assert BLOCK * _NEAREST_BLOCKS == 256
