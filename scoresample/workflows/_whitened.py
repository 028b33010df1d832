"""A density in the coordinates in which chains from some draws move best."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure, named_sites

_DRAWS_FOR_DENSE = 10
"""Distinct draws for each coordinate from which on correlations are worth estimating: fewer make them noise."""
_LEAST_SHRINKAGE = 1e-3
"""Share of the diagonal in a covariance: draws in a subspace have no inverse without it."""
_NUM_SCORES = 4000
"""From which the covariance of scores is estimated, or ten for each coordinate."""
_MOST_FISHER = 1e8
"""Of the variance of scores in the coordinates of the draws: an edge of a support has an infinite one."""
_NOT_CUT = 0.9
"""Share of scores that keep their length: near an edge a few may be as long as all the others together."""


class Whitened(AbstractDensityScore):
    """A density score in flat coordinates u, ``position = mean + factor u``, without the constant of the change.

    Attributes:
        score: the density score.
        like: tree of `jax.ShapeDtypeStruct` of one of its positions.
        mean: the origin, (d,).
        factor: a matrix, (d, d), or a diagonal, (d,).
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
    score: AbstractDensityScore,
    like: Structure,
    points: np.ndarray,
    *,
    settled: bool,
    dense: bool | None,
    batch_size: int | None,
) -> tuple[Whitened, np.ndarray, int]:
    """A density in the coordinates in which chains from some points move best, and the points there.

    The covariance of points of the density is the one to move by where it has one mode. Where it has several apart, or
    is curved, that covariance is far too wide, and chains that have to take short steps in it crawl in all other
    directions: the inverse of the covariance of the scores, ``F = cov(s)``, is never wider (by the inequality of
    Cramer and Rao) and the best there is for Langevin moves (Titsias 2023, arXiv 2305.14442, section 3). Of points that
    are not yet those of the density, the geometric mean of both is taken: for normal laws of covariance C with points
    of covariance B the scores have ``C^-1 B C^-1``, and the mean of B and its inverse is C, whatever B is.

    Arguments:
        score: the density.
        like: tree of `jax.ShapeDtypeStruct` of one position.
        points: positions as flat rows in float64, (n, d).
        settled: whether the points are those of the density, up to the noise of weights.
        dense: whether to use their correlations; None for whether there are enough of them.
        batch_size: the most scores at a time.

    Returns:
        The density, the points in its coordinates, (n, d), and the number of scores that it took.
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
    by_points = Whitened(score, like, jnp.asarray(mean, float), jnp.asarray(factor, float))
    few = u[np.linspace(0, len(u) - 1, min(len(u), max(_NUM_SCORES, _DRAWS_FOR_DENSE * len(sd)))).astype(int)]
    scores = _scores(by_points, few, batch_size)
    if len(scores) < _DRAWS_FOR_DENSE * (len(sd) if dense else 1):
        return by_points, u, len(few)
    power, least = (0.5, 1.0) if settled else (0.25, 1 / _MOST_FISHER)
    if dense:
        values, axes = np.linalg.eigh(np.atleast_2d(np.cov(scores, rowvar=False)))
        change = np.clip(values, least, _MOST_FISHER) ** -power
        return _with(by_points, (factor @ axes) * change), (u @ axes) / change, len(few)
    change = np.clip(np.var(scores, axis=0), least, _MOST_FISHER) ** -power
    return _with(by_points, factor * change), u / change, len(few)


def _with(whitened: Whitened, factor: np.ndarray) -> Whitened:
    return Whitened(whitened.score, whitened.like, whitened.mean, jnp.asarray(factor, float))


def _scores(score: Whitened, u: np.ndarray, batch_size: int | None) -> np.ndarray:
    """The finite ones of the scores at some points, the longest tenth cut to the length of the next."""
    size = len(u) if batch_size is None else min(batch_size, len(u))
    blocks = [
        np.asarray(_evaluate(score, jnp.asarray(u[np.arange(first, first + size) % len(u)], float)), np.float64)
        for first in range(0, len(u), size)
    ]
    scores = np.concatenate(blocks)[: len(u)]
    scores = scores[np.isfinite(scores).all(axis=1)]
    if not len(scores):
        return scores
    lengths = np.linalg.norm(scores, axis=1)
    longest = np.quantile(lengths, _NOT_CUT)
    return scores * np.minimum(1.0, longest / np.maximum(lengths, np.finfo(float).tiny))[:, None]


@eqx.filter_jit
def _evaluate(score: Whitened, u: Array) -> Array:
    return jax.vmap(lambda x: score.value_and_score(x)[1])(u)
