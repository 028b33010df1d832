"""Draws, training set and held-out points, as users have them, as matrices in common coordinates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scoresample.diagnostics._effective import effective_draws
from scoresample.diagnostics._quantities import coordinates
from scoresample.inference import Draws
from scoresample.scores import Structure, check_structure

FEWEST_POINTS = 50
"""Of draws, of training points and of held-out points."""

_SAME = (0.01, 0.99)
"""A coordinate whose quantiles at these levels agree hardly varies: its standard deviation is made by a few points."""

_ULPS = 8
"""Units in the last place within which two numbers agree."""

_MOST_ROWS = 2000
"""Training points behind those quantiles."""


class Points(NamedTuple):
    """Points as rows of float64, the structure of one, and the precision that they came with."""

    rows: np.ndarray
    structure: Structure
    dtype: np.dtype


def point_set(value: Any, name: str, like: Structure | None = None, *, effective: bool = True) -> Points:
    """Points with one leading axis, or a run.

    Arguments:
        value: an array (n, ...), a tree of arrays with one leading axis, or `Draws`.
        name: the argument's name, for messages.
        like: the structure that one point must have.
        effective: whether a run is cut down to the draws that it is worth, its weights used up; else all its positions
            are taken as they are.

    Raises:
        TypeError: if it holds no numbers.
        ValueError: if the shapes do not fit, the points are too few or not finite.
    """
    run = isinstance(value, Draws)
    tree = jax.tree.map(np.asarray, value.position if isinstance(value, Draws) else value)
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(jnp.issubdtype(leaf.dtype, jnp.number) for leaf in leaves):
        raise TypeError(
            f"`{name}` must be an array, a tree of arrays with one leading axis, or Draws, got {type(value).__name__}."
        )
    leading = {leaf.shape[: 2 if run else 1] for leaf in leaves}
    count = int(np.prod(next(iter(leading)))) if all(leading) else 0
    if len(leading) != 1 or count < FEWEST_POINTS:
        raise ValueError(
            f"`{name}` needs one leading axis of at least {FEWEST_POINTS} points, shared by all arrays; the shapes are "
            f"{[leaf.shape for leaf in leaves]}. Pass more points."
        )
    structure = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2 if run else 1 :], leaf.dtype), tree)
    if like is not None:
        check_structure(structure, like, name=name, what="point")
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError(f"`{name}`: some values are not finite. Look for their cause, or drop those points.")
    if not isinstance(value, Draws):
        rows = np.concatenate([leaf.reshape(count, -1).astype(np.float64) for leaf in leaves], axis=1)
    elif effective:
        rows = effective_draws(value, minimum=FEWEST_POINTS)
    else:
        rows = coordinates(value).reshape(count, -1)
    floats = [leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return Points(rows, structure, min(floats, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float64)))


def spaced_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, at even distances."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)]


def distinct_rows(rows: np.ndarray) -> np.ndarray:
    """The rows without repetitions, in their order."""
    first = {row: len(rows) - 1 - place for place, row in enumerate(reversed(_written(rows)))}
    return rows[np.sort(list(first.values()))]


def shared_rows(rows: Points, others: Points) -> int:
    """How many rows are also in the other set, in the precision of the coarser of the two."""
    dtype = min(rows.dtype, others.dtype, key=lambda dtype: dtype.itemsize)
    known = set(_written(others.rows.astype(dtype)))
    return sum(row in known for row in _written(rows.rows.astype(dtype)))


def scales_of(scale: Any, training: Points) -> np.ndarray:
    """What each coordinate is divided by, shape (dimension,).

    Raises:
        ValueError: if `scale` is none of its names and no positive finite scale of every coordinate.
    """
    rows = training.rows
    if isinstance(scale, str):
        if scale not in ("coordinates", "none"):
            raise ValueError(
                f"`scale` must be 'coordinates', 'none' or a tree of scales like one training point, got {scale!r}."
            )
        return _standard_deviations(training) if scale == "coordinates" else np.ones(rows.shape[1])
    shapes = jax.tree.leaves(training.structure)
    if jax.tree.structure(scale) != jax.tree.structure(training.structure):
        raise ValueError(f"`scale` must have the tree of one training point, {jax.tree.structure(training.structure)}.")
    try:
        parts = [
            np.broadcast_to(np.asarray(leaf, np.float64), like.shape).ravel()
            for leaf, like in zip(jax.tree.leaves(scale), shapes, strict=True)
        ]
    except ValueError:
        raise ValueError(
            f"`scale` must have the shapes of one training point, {[like.shape for like in shapes]}, or be numbers."
        ) from None
    scales = np.concatenate(parts)
    if not np.all(np.isfinite(scales) & (scales > 0)):
        raise ValueError("`scale`: every scale must be positive and finite.")
    return scales


def _standard_deviations(training: Points) -> np.ndarray:
    """Those of the coordinates that vary, and their root mean square for the others."""
    rows = training.rows
    deviations = rows.std(axis=0)
    low, high = np.quantile(spaced_rows(rows, _MOST_ROWS), _SAME, axis=0)
    rounding = _ULPS * float(jnp.finfo(training.dtype).eps) * np.abs(rows).max(axis=0)
    varies = (high - low > rounding) & (deviations > 0)
    if not varies.any():
        varies = deviations > 0
    return np.where(varies, deviations, np.sqrt(np.mean(deviations[varies] ** 2)))


def _written(rows: np.ndarray) -> list[bytes]:
    """Every row as bytes, which are equal where the numbers are (zero has two signs)."""
    return [row.tobytes() for row in np.ascontiguousarray(rows + np.zeros((), rows.dtype))]
