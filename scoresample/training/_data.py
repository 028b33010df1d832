"""What `fit_score` accepts as data: arrays, trees of arrays, or draws."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import Constrain, Position, named_sites

_FEWEST_DRAWS = 50


@runtime_checkable
class DrawsLike(Protocol):
    """Draws of a sampler, as far as training needs them."""

    position: Any
    log_weights: Any
    constrain: Any


class TrainingData(NamedTuple):
    """Standardised training data.

    Attributes:
        points: (n, d) points of zero mean and unit variance.
        scores: (n, d) scores of the clean density at the points, in their coordinates, or None.
        position: one position, for its tree and shapes.
        location: the mean that was subtracted, a tree like a position.
        scale: the standard deviation by which it was divided, likewise.
        constrain: position -> named sites.
    """

    points: Array
    scores: Array | None
    position: Position
    location: Position
    scale: Position
    constrain: Constrain


def prepare(data: Any, scores: Any, key: Array) -> TrainingData:
    """Flatten, check and standardise data.

    Raises:
        TypeError: if `data` holds no floating arrays.
        ValueError: if there are too few draws, lengths differ, values are not finite or a coordinate never varies.
    """
    constrain: Constrain = named_sites
    tree: Any
    if isinstance(data, DrawsLike):
        constrain = data.constrain
        tree, scores = (
            jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), t) for t in (data.position, scores)
        )
        if data.log_weights is not None:
            chosen = np.asarray(jax.random.categorical(key, jnp.ravel(data.log_weights), shape=data.log_weights.shape))
            tree, scores = jax.tree.map(lambda x: x[chosen.ravel()], (tree, scores))
    else:
        tree, scores = jax.tree.map(np.asarray, (data, scores))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves or not all(np.issubdtype(leaf.dtype, np.number) for _, leaf in leaves):
        raise TypeError(
            f"`data` must be an array, a tree of arrays with one leading axis, or Draws, got {type(data).__name__}."
        )
    lengths = {leaf.shape[0] if leaf.ndim else 0 for _, leaf in leaves}
    if len(lengths) != 1 or lengths.pop() < _FEWEST_DRAWS:
        raise ValueError(
            f"`data` needs one leading axis of at least {_FEWEST_DRAWS} draws, shared by all arrays; the shapes are "
            f"{[leaf.shape for _, leaf in leaves]}. A score learned from fewer points only remembers them."
        )
    for path, leaf in leaves:
        where = jax.tree_util.keystr(path, simple=True, separator=".") or "data"
        if not np.isfinite(leaf).all():
            raise ValueError(f"`data`: {int((~np.isfinite(leaf)).sum())} values of {where} are not finite. Drop them.")
        constant = leaf.astype(np.float64).std(axis=0) <= 1e-7 * np.abs(leaf).max(axis=0)
        if np.any(constant):
            raise ValueError(
                f"`data`: {int(np.sum(constant))} coordinates of {where} never vary. They have no density: drop them."
            )
    if scores is not None:
        _check_scores(scores, tree)
    dtype = jnp.asarray(0.0).dtype
    tree = jax.tree.map(lambda x: x.astype(np.float64), tree)
    location = jax.tree.map(lambda x: x.mean(axis=0), tree)
    scale = jax.tree.map(lambda x: x.std(axis=0), tree)
    standard = jax.tree.map(lambda x, m, s: ((x - m) / s).reshape(x.shape[0], -1), tree, location, scale)
    points = np.concatenate(jax.tree.leaves(standard), axis=1)
    if scores is not None:
        scores = jax.tree.map(lambda g, s: (g * s).reshape(g.shape[0], -1), scores, scale)
        scores = np.concatenate(jax.tree.leaves(scores), axis=1)

    def as_array(x: np.ndarray | np.generic) -> Array:
        return jnp.asarray(x, dtype)

    return TrainingData(
        as_array(points),
        None if scores is None else as_array(scores),
        jax.tree.map(lambda x: as_array(x[0]), tree),
        jax.tree.map(as_array, location),
        jax.tree.map(as_array, scale),
        constrain,
    )


def _check_scores(scores: Any, tree: Any) -> None:
    shapes = [[leaf.shape for leaf in jax.tree.leaves(t)] for t in (scores, tree)]
    if jax.tree.structure(scores) != jax.tree.structure(tree) or shapes[0] != shapes[1]:
        raise ValueError(
            f"`scores` must look like `data`, with a score for every draw; the shapes are {shapes[0]} and {shapes[1]}."
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scores)):
        raise ValueError("`scores`: some are not finite. Leave those draws out, or leave `scores` out.")
