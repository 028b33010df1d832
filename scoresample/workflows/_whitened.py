"""A density in coordinates in which some draws have mean 0 and covariance 1."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure, named_sites

_DRAWS_FOR_DENSE = 10
"""Distinct draws for each coordinate from which on correlations are worth estimating: fewer make them noise."""
_LEAST_SHRINKAGE = 1e-3
"""Share of the diagonal in a covariance: draws in a subspace have no inverse without it."""


class Whitened(AbstractDensityScore):
    """A density score in flat coordinates u, ``position = mean + factor u``, without the constant of the change.

    Attributes:
        score: the density score.
        like: tree of `jax.ShapeDtypeStruct` of one of its positions.
        mean: the origin, (d,).
        factor: a lower triangle, (d, d), or a diagonal, (d,).
    """

    score: AbstractDensityScore
    like: Structure
    mean: Array
    factor: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, score: AbstractDensityScore, like: Structure, mean: Array, factor: Array) -> None:
        """Change the coordinates of a score."""
        self.score, self.like, self.mean, self.factor = score, like, mean, factor
        self.structure = jax.ShapeDtypeStruct(mean.shape, mean.dtype)
        self.constrain, self.init_position = named_sites, None

    def position(self, u: Array) -> Position:
        """The position at u, in the dtype of u."""
        shift = self.factor @ u if self.factor.ndim == 2 else self.factor * u
        leaves, tree = jax.tree.flatten(self.like)
        ends = np.cumsum([leaf.size for leaf in leaves])
        parts = jnp.split(self.mean + shift, ends[:-1].tolist())
        return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])

    def logdensity(self, position: Array) -> Array:
        """The log density at u, up to the constant of the change of coordinates: a scalar."""
        return self.score.logdensity(self.position(position))

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        """The log density and the score in u."""
        value, score = self.score.value_and_score(self.position(position))
        flat = jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(score)])
        return value, self.factor.T @ flat if self.factor.ndim == 2 else self.factor * flat


def whitened(
    score: AbstractDensityScore, like: Structure, points: np.ndarray, *, dense: bool | None
) -> tuple[Whitened, np.ndarray]:
    """A density in the coordinates of some points, and the points there.

    Arguments:
        score: the density.
        like: tree of `jax.ShapeDtypeStruct` of one position.
        points: positions as flat rows in float64, (n, d).
        dense: whether to use their correlations; None for whether there are enough of them.
    """
    distinct = np.unique(points, axis=0)
    if dense is None:
        dense = distinct.shape[0] >= _DRAWS_FOR_DENSE * points.shape[1]
    mean, sd = points.mean(axis=0), points.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    if dense:
        scaled = (points - mean) / sd
        correlation = scaled.T @ scaled / len(points)
        correlation = (1 - _LEAST_SHRINKAGE) * correlation + _LEAST_SHRINKAGE * np.eye(len(sd))
        factor = sd[:, None] * np.linalg.cholesky(correlation)
        u = np.linalg.solve(factor, (points - mean).T).T
    else:
        factor, u = sd, (points - mean) / sd
    return Whitened(score, like, jnp.asarray(mean, float), jnp.asarray(factor, float)), u
