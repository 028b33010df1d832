"""Draws of the clean law, as a user has them, in the standard coordinates of a path."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.diagnostics._effective import effective_draws
from scoresample.diagnostics._quantities import coordinates
from scoresample.inference import Draws
from scoresample.paths import AbstractPerturbedScore
from scoresample.scores import Position, check_structure

_FEWEST_POINTS = 50


def clean_points(
    score: AbstractPerturbedScore,
    data: Any,
    num_points: int,
    key: Array,
    *,
    name: str = "data",
    fewest: int = _FEWEST_POINTS,
) -> Position:
    """At most `num_points` of the draws, chosen at random, in standard coordinates.

    Arguments:
        score: the path whose coordinates are meant.
        data: an array, a tree of arrays with one leading axis, or Draws.
        num_points: most draws to keep.
        key: random key.
        name: the argument that errors name.
        fewest: the number of draws below which there is an error.

    Raises:
        TypeError: if the data hold no floating arrays.
        ValueError: if they do not fit the score, are too few or not finite.
    """
    tree = _unweighted(score, data, name, fewest) if isinstance(data, Draws) else jax.tree.map(np.asarray, data)
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(np.issubdtype(leaf.dtype, np.number) for leaf in leaves):
        raise TypeError(
            f"`{name}` must be an array, a tree of arrays with one leading axis, or Draws, got {type(data).__name__}."
        )
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < fewest:
        raise ValueError(
            f"`{name}` needs one leading axis of at least {fewest} draws, shared by all arrays; the shapes are "
            f"{[leaf.shape for leaf in leaves]}. Hold out more draws."
        )
    if num_points < _FEWEST_POINTS:
        raise ValueError(f"`num_points` must be at least {_FEWEST_POINTS}, got {num_points}: fewer say too little.")
    check_structure(jax.tree.map(lambda x: x[0], tree), score.structure, name=name, what="draw")
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError(f"`{name}`: some values are not finite. Drop those draws.")
    rows = np.asarray(jax.random.permutation(key, lengths.pop()))[:num_points]
    chosen = jax.tree.map(lambda x, leaf: jnp.asarray(x[rows], leaf.dtype), tree, score.structure)
    return jax.vmap(score.frame.to_standard)(chosen)


def _unweighted(score: AbstractPerturbedScore, draws: Draws, name: str, fewest: int) -> Position:
    """As many draws of a run as it is worth: a tree with one leading axis."""
    check_structure(jax.tree.map(lambda x: x[0, 0], draws.position), score.structure, name=name, what="draw")
    if not np.isfinite(coordinates(draws)).all():
        raise ValueError(f"`{name}`: some draws are not finite. Look for their cause, or drop them.")
    flat = effective_draws(draws, minimum=fewest)
    leaves, tree = jax.tree.flatten(score.structure)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=1)
    shaped = [part.reshape(len(flat), *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(tree, shaped)
