"""A weighted set of points, laid out so that Gaussian averages over it are matrix products with bounded memory."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.spatial import KDTree

BLOCK = 8
"""Points that are picked together; neighbours, as far as a k-d tree can make them so."""
_COLUMNS = 64
"""Blocks side by side in a chunk."""
_SAMPLED_SPACINGS = 500
_CANDIDATES = 4
"""Points whose distance is taken exactly: others may be nearer by rounding only."""
_ROWS = 20_000


class PointSet(NamedTuple):
    """Distinct points in chunks of 512, in which the points of one block stand below each other.

    Attributes:
        points: shape (chunks, 8, 64, dimension), less `centre`; filled up with copies of weight zero.
        log_weights: logarithms of the normalised weights, shape (chunks, 8, 64), minus infinity where filled up.
        features: what conditions are held against, shape (chunks, 8, 64, features), or None.
        centre: the mean, shape (dimension,): distances are most precise around it.
        squared_radius: largest squared distance from the centre, a scalar.
    """

    points: Array
    log_weights: Array
    features: Array | None
    centre: Array
    squared_radius: Array


def make_point_set(points: np.ndarray, log_weights: np.ndarray, features: np.ndarray | None) -> PointSet:
    """Lay out points: copies are merged, neighbours brought together.

    Arguments:
        points: shape (n, dimension), finite.
        log_weights: shape (n,), normalised.
        features: shape (n, features), or None. With features, copies are not merged.

    Returns:
        The set, in the default floating dtype.
    """
    if features is None:
        points, log_weights = _merged(points, log_weights)
    number, dtype = len(points), jnp.asarray(0.0).dtype
    # Rounded before it is subtracted: otherwise all points move by its rounding.
    centre = np.asarray(points.mean(axis=0), dtype).astype(np.float64)
    order = KDTree(points, leafsize=BLOCK).indices
    size = BLOCK * _COLUMNS
    order = np.concatenate([order, np.repeat(order[-1:], -number % size)])
    log_weights = np.where(np.arange(order.size) < number, log_weights[order], -np.inf)

    def in_chunks(values: np.ndarray) -> Array:
        shaped = values.reshape(-1, _COLUMNS, BLOCK, *values.shape[1:])
        return jnp.asarray(np.swapaxes(shaped, 1, 2), dtype)

    centred = points - centre
    return PointSet(
        in_chunks(centred[order]),
        in_chunks(log_weights),
        None if features is None else in_chunks(features[order]),
        jnp.asarray(centre, dtype),
        jnp.asarray(np.max(np.sum(centred**2, axis=1)), dtype),
    )


def _merged(points: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every point once, with the weight of all its copies."""
    distinct, which = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) == len(points):
        return points, log_weights
    weights = np.zeros(len(distinct))
    np.add.at(weights, which.ravel(), np.exp(log_weights))
    with np.errstate(divide="ignore"):
        return distinct, np.log(weights)


def moved(points: PointSet, factor: np.ndarray, shift: np.ndarray) -> PointSet:
    """The set of ``factor * x + shift``, coordinate by coordinate, shapes (dimension,)."""
    dtype = jnp.asarray(0.0).dtype
    exact = factor * np.asarray(points.centre, np.float64) + shift
    centre = np.asarray(exact, dtype).astype(np.float64)
    centred = factor * np.asarray(points.points, np.float64) + (exact - centre)
    return points._replace(
        points=jnp.asarray(centred, dtype),
        centre=jnp.asarray(centre, dtype),
        squared_radius=jnp.asarray(np.max(np.sum(centred**2, axis=-1)), dtype),
    )


def spacing(points: np.ndarray) -> float:
    """The median distance of points to their nearest other point, over at most 500 of them; 0 if there is no other.

    Arguments:
        points: shape (n, dimension).
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) < 2:
        return 0.0
    centred = distinct - distinct.mean(axis=0)
    some = np.random.default_rng(0).permutation(len(centred))[:_SAMPLED_SPACINGS]
    squares = np.sum(centred**2, axis=1)
    nearest = np.full((some.size, _CANDIDATES), np.inf)
    for start in range(0, len(centred), _ROWS):
        chunk = slice(start, start + _ROWS)
        approximate = squares[chunk] - 2 * centred[some] @ centred[chunk].T
        few = np.argpartition(approximate, min(_CANDIDATES, approximate.shape[1]) - 1, axis=1)[:, :_CANDIDATES]
        exact = np.sum((centred[chunk][few] - centred[some][:, None]) ** 2, axis=2)
        exact = np.where(start + few == some[:, None], np.inf, exact)
        nearest = np.sort(np.concatenate([nearest, exact], axis=1), axis=1)[:, :_CANDIDATES]
    return float(np.sqrt(np.median(nearest[:, 0])))
