"""The data behind a diagnostic of a perturbed score: held-out draws, at the door."""

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


def held_out(score: AbstractPerturbedScore, data: Any, num_points: int, key: Array) -> Position:
    """At most `num_points` of the draws, in standard coordinates."""
    tree = _unweighted(score, data) if isinstance(data, Draws) else jax.tree.map(np.asarray, data)
    leaves = jax.tree.leaves(tree)
    if not leaves or not all(np.issubdtype(leaf.dtype, np.number) for leaf in leaves):
        raise TypeError(
            f"`data` must be an array, a tree of arrays with one leading axis, or Draws, got {type(data).__name__}."
        )
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(lengths) != 1 or min(lengths) < _FEWEST_POINTS:
        raise ValueError(
            f"`data` needs one leading axis of at least {_FEWEST_POINTS} draws, shared by all arrays; the shapes are "
            f"{[leaf.shape for leaf in leaves]}. Hold out more draws."
        )
    if num_points < _FEWEST_POINTS:
        raise ValueError(f"`num_points` must be at least {_FEWEST_POINTS}, got {num_points}: fewer say too little.")
    check_structure(jax.tree.map(lambda x: x[0], tree), score.structure, name="data", what="draw")
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError("`data`: some values are not finite. Drop those draws.")
    rows = np.asarray(jax.random.permutation(key, lengths.pop()))[:num_points]
    chosen = jax.tree.map(lambda x, leaf: jnp.asarray(x[rows], leaf.dtype), tree, score.structure)
    return jax.vmap(score.frame.to_standard)(chosen)


def _unweighted(score: AbstractPerturbedScore, draws: Draws) -> Position:
    """As many draws of a run as it is worth: a tree with one leading axis."""
    check_structure(jax.tree.map(lambda x: x[0, 0], draws.position), score.structure, name="data", what="draw")
    if not np.isfinite(coordinates(draws)).all():
        raise ValueError("`data`: some draws are not finite. Look for their cause, or drop them.")
    flat = effective_draws(draws, minimum=_FEWEST_POINTS)
    leaves, tree = jax.tree.flatten(score.structure)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=1)
    shaped = [part.reshape(len(flat), *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(tree, shaped)
