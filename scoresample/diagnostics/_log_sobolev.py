"""How large a log-Sobolev constant is, as far as draws and scores can tell."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.diagnostics._quantities import coordinates
from scoresample.inference import Draws
from scoresample.scores import AbstractScore, Position, check_structure

_MOST_POINTS = 256
"""Points at which the Jacobian is looked at."""
_CONTRADICTION = 1.3
"""The upper estimate is dropped where the lower one exceeds it by this factor and chance."""
_MOST_DIMENSIONS = 512
"""Beyond, a full Jacobian is too dear."""


class LogSobolevBounds(NamedTuple):
    """A log-Sobolev constant C, ``Ent(f^2) <= 2 C E|grad f|^2``, between two estimates.

    Attributes:
        lower: the largest variance in any direction: C is at least that (linear functions f).
        upper: ``1/m``, m the least eigenvalue of minus the score's Jacobian over the draws and over points between
            pairs of them: C is at most that if m is positive everywhere (Bakry and Emery 1985). Infinite where it is
            not, or where the lower estimate contradicts it, which says nothing about C.
    """

    lower: float
    upper: float


def log_sobolev_bounds(score: AbstractScore, draws: Draws | Any) -> LogSobolevBounds:
    """Estimates of the log-Sobolev constant of a density, from its score and draws of it.

    Exact on normal densities, where both are the largest variance. Separated modes make the constant exponentially
    large: the upper estimate is then infinite, and the lower one knows only the variance.

    Arguments:
        score: the score of the density, such as ``path.at(t)``.
        draws: draws of it: [`Draws`][scoresample.Draws], an array (n, ...), or a tree of arrays with one leading axis.

    Returns:
        The two estimates, in squared units of the positions.

    Raises:
        TypeError: if `score` is not a score.
        ValueError: if the draws do not fit it, or there are more than 512 coordinates.

    Source: Bakry, Gentil and Ledoux 2014, *Analysis and Geometry of Markov Diffusion Operators*, sections 5.1 and 5.7.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> density = ss.Gaussian(jnp.zeros(2), jnp.array([1.0, 4.0]))
        >>> bounds = ss.log_sobolev_bounds(density, density.sample(jax.random.key(0), 1000))
        >>> round(bounds.upper, 3), abs(bounds.lower - 4) < 1
        (4.0, True)
    """
    if not isinstance(score, AbstractScore):
        raise TypeError(
            f"`score` must be a score, got {type(score).__name__}. A path has one at each level: path.at(t)"
        )
    if isinstance(draws, Draws):
        tree = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), draws.position)
        flat = coordinates(draws).reshape(-1, coordinates(draws).shape[-1])
    else:
        tree = jax.tree.map(np.asarray, draws)
        leaves = jax.tree.leaves(tree)
        if not leaves or min(leaf.ndim for leaf in leaves) < 1 or min(leaf.shape[0] for leaf in leaves) < 2:
            raise ValueError("`draws` need one leading axis of at least two draws.")
        flat = np.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
    if score.structure is not None:
        check_structure(jax.tree.map(lambda x: x[0], tree), score.structure, name="draws", what="draw")
    if flat.shape[1] > _MOST_DIMENSIONS:
        raise ValueError(f"`draws` have {flat.shape[1]} coordinates; full Jacobians go up to {_MOST_DIMENSIONS}.")
    if not np.isfinite(flat).all():
        raise ValueError("`draws`: some values are not finite. Drop those draws.")
    lower = float(np.linalg.eigvalsh(np.atleast_2d(np.cov(flat.T)))[-1])
    least = float(np.min(np.asarray(_least_curvatures(score, _places(tree, flat.shape[0])))))
    upper = 1 / least if least > 0 else float("inf")
    chance = 1 + np.sqrt(flat.shape[1] / flat.shape[0])  # by which the largest eigenvalue of a sample is too large
    return LogSobolevBounds(lower, float("inf") if lower > _CONTRADICTION * chance**2 * upper else upper)


def _places(tree: Position, number: int) -> Position:
    """Some of the draws, and points on the segments between pairs of them, where a valley between modes would be."""
    step = -(-number // _MOST_POINTS)

    def one(x: np.ndarray) -> Array:
        first = x[::step]
        second = np.roll(first, first.shape[0] // 2, axis=0)
        share = np.linspace(0.3, 0.7, first.shape[0], dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.asarray(np.concatenate([first, (1 - share) * first + share * second]))

    return jax.tree.map(one, tree)


@eqx.filter_jit
def _least_curvatures(score: AbstractScore, points: Position) -> Array:
    """The least eigenvalue of minus the symmetric part of the score's Jacobian, at every point."""

    def one(point: Position) -> Array:
        flat, unravel = ravel_pytree(point)
        jacobian = jax.jacfwd(lambda x: ravel_pytree(score(unravel(x)))[0])(flat)
        return jnp.linalg.eigvalsh(-(jacobian + jacobian.T) / 2)[0]

    return jax.lax.map(one, points)
