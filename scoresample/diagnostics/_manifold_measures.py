"""What a perturbed score does near the data: squares at noised points, intrinsic dimension at clean ones, its span."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.diagnostics._score_measures import as_matrix
from scoresample.paths import AbstractPerturbedScore, Levels
from scoresample.scores import Position, inner_product, random_like

_BLOCK = 256
"""Noised points measured at once, which bounds the memory."""
_TRACE_BLOCK = 16
"""Clean points whose Jacobians are taken at once."""
LARGEST_TRACE = 64
"""Dimension up to which the trace of the Jacobian is exact."""
_NUM_PROBES = 32
"""Random directions at each point above that."""
_OVERSAMPLING = 4
"""Scores for each dimension behind a spectrum (Stanczuk et al. 2022, arXiv 2212.12611)."""


class NoisedSquares(NamedTuple):
    """Per level and point, shape (levels, points), summed over coordinates.

    Their means are those of the squares; most of the spread that is the noise's length is taken out.

    Attributes:
        score: ``sigma^2 |s|^2``.
        loss: ``|sigma s + e|^2``.
        error: ``sigma^2 |s - s*|^2`` against the exact score; zero without one.
    """

    score: np.ndarray
    loss: np.ndarray
    error: np.ndarray


def noised_squares(
    score: AbstractPerturbedScore, exact: AbstractPerturbedScore | None, points: Position, ladder: Levels, key: Array
) -> NoisedSquares:
    """Squares of the score at noised points; every level adds the same noise, so that their differences are paired.

    Arguments:
        score: the perturbed score.
        exact: the true score in the same standard coordinates under the same process, or None.
        points: clean points in standard coordinates, with a leading axis.
        ladder: the levels.
        key: random key of the noise.
    """
    number = jax.tree.leaves(points)[0].shape[0]
    block = min(number, _BLOCK)
    rows = np.arange(-(-number // block) * block) % number
    noise = random_like(key, score.structure, number)
    padded, noise = (jax.tree.map(lambda x: x[rows], tree) for tree in (points, noise))
    times = jnp.asarray(ladder.t, jnp.result_type(*jax.tree.leaves(points)))
    found = _noised_squares(score, exact, padded, noise, times)
    lengths = np.sum(np.asarray(as_matrix(noise), np.float64)[:number] ** 2, axis=1)
    size = sum(leaf.size for leaf in jax.tree.leaves(score.structure))
    squares = (np.asarray(value, np.float64)[:, :number] for value in found)
    return NoisedSquares(*(_without_noise_length(values, lengths, size) for values in squares))


@eqx.filter_jit
def _noised_squares(
    score: AbstractPerturbedScore, exact: AbstractPerturbedScore | None, points: Position, noise: Position, times: Array
) -> tuple[Array, Array, Array]:
    """The fields of `NoisedSquares`; the points fill their blocks."""
    number = jax.tree.leaves(points)[0].shape[0]
    block = min(number, _BLOCK)

    def one_point(z_0: Position, e: Position, t: Array) -> tuple[Array, Array, Array]:
        alpha, sigma = score.process.alpha(t), score.process.sigma(t)
        z = jax.tree.map(lambda x, e: alpha * x + sigma * e, z_0, e)
        s = score.standard_score(z, t)
        truth = s if exact is None else exact.standard_score(z, t)
        scaled = jax.tree.map(lambda s: sigma * s, s)
        missed = jax.tree.map(lambda s, e: s + e, scaled, e)
        wrong = jax.tree.map(lambda a, b: sigma * (a - b), s, truth)
        return _square(scaled), _square(missed), _square(wrong)

    def level(t: Array) -> tuple[Array, Array, Array]:
        def blocks(pair: tuple[Position, Position]) -> tuple[Array, Array, Array]:
            return jax.vmap(one_point, in_axes=(0, 0, None))(*pair, t)

        cut = jax.tree.map(lambda x: x.reshape(number // block, block, *x.shape[1:]), (points, noise))
        return jax.tree.map(jnp.ravel, jax.lax.map(blocks, cut))

    return jax.lax.map(level, times)


def intrinsic_dimensions(score: AbstractPerturbedScore, points: Position, ladder: Levels, key: Array) -> np.ndarray:
    """FLIPD, ``D + sigma^2 (tr grad s + |s|^2)`` at ``z = alpha z_0``, the clean points without noise.

    The trace is exact up to 64 dimensions; beyond, the mean of ``<v, grad s v>`` over random signs v, which is
    unbiased and independent from point to point, so that the spread over points holds its error.

    Source: Kamkari et al. 2024, arXiv 2406.03537, in the coordinates of any noise process.

    Arguments:
        score: the perturbed score.
        points: clean points in standard coordinates, with a leading axis.
        ladder: the levels.
        key: random key of the signs.

    Returns:
        An array of shape (levels, points).
    """
    number = jax.tree.leaves(points)[0].shape[0]
    block = min(number, _TRACE_BLOCK)
    rows = np.arange(-(-number // block) * block) % number
    padded = jax.tree.map(lambda x: x[rows], points)
    times = jnp.asarray(ladder.t, jnp.result_type(*jax.tree.leaves(points)))
    found = _intrinsic_dimensions(score, padded, jax.random.split(key, rows.size), times)
    return np.asarray(found, np.float64)[:, :number]


@eqx.filter_jit
def _intrinsic_dimensions(score: AbstractPerturbedScore, points: Position, keys: Array, times: Array) -> Array:
    number = keys.shape[0]
    block = min(number, _TRACE_BLOCK)
    size = sum(leaf.size for leaf in jax.tree.leaves(score.structure))

    def one_point(z_0: Position, key: Array, t: Array) -> Array:
        alpha, variance = score.process.alpha(t), score.process.variance(t)
        flat, unravel = ravel_pytree(jax.tree.map(lambda x: alpha * x, z_0))

        def field(z: Array) -> Array:
            return ravel_pytree(score.standard_score(unravel(z), t))[0]

        if size <= LARGEST_TRACE:
            trace = jnp.trace(jax.jacfwd(field)(flat))
        else:
            probes = jax.random.rademacher(key, (_NUM_PROBES, size), flat.dtype)
            trace = jnp.mean(jax.vmap(lambda v: jnp.vdot(v, jax.jvp(field, (flat,), (v,))[1]))(probes))
        return size + variance * (trace + jnp.sum(field(flat) ** 2))

    def level(t: Array) -> Array:
        def blocks(pair: tuple[Position, Array]) -> Array:
            return jax.vmap(one_point, in_axes=(0, 0, None))(*pair, t)

        cut = jax.tree.map(lambda x: x.reshape(number // block, block, *x.shape[1:]), (points, keys))
        return jnp.ravel(jax.lax.map(blocks, cut))

    return jax.lax.map(level, times)


def noised_spectra(score: AbstractPerturbedScore, points: Position, time: float, key: Array) -> np.ndarray:
    """Singular values of the scores around each point, in units of the noise: 1 in a direction normal to the data.

    At each point 4 D scores ``sigma s(alpha z_0 + sigma e)`` are the rows of a matrix, whose singular values are
    divided by ``sqrt(4 D)``. Near a manifold the scores point back to it: they span its normal space.

    Source: Stanczuk et al. 2022, arXiv 2212.12611.

    Arguments:
        score: the perturbed score.
        points: clean points in standard coordinates, with a leading axis.
        time: the level.
        key: random key of the noise.

    Returns:
        An array of shape (points, D), decreasing along the second axis.
    """
    t = jnp.asarray(time, jnp.result_type(*jax.tree.leaves(points)))
    keys = jax.random.split(key, jax.tree.leaves(points)[0].shape[0])
    scores = np.asarray(_scaled_scores(score, points, keys, t), np.float64)
    if not np.isfinite(scores).all():
        return np.full((scores.shape[0], scores.shape[2]), np.nan)
    return np.linalg.svd(scores, compute_uv=False) / np.sqrt(scores.shape[1])


@eqx.filter_jit
def _scaled_scores(score: AbstractPerturbedScore, points: Position, keys: Array, t: Array) -> Array:
    """The noise that the score predicts around each point, shape (points, 4 D, D)."""
    size = sum(leaf.size for leaf in jax.tree.leaves(score.structure))
    alpha, sigma = score.process.alpha(t), score.process.sigma(t)

    def one_point(pair: tuple[Position, Array]) -> Array:
        z_0, key = pair
        noise = random_like(key, score.structure, _OVERSAMPLING * size)
        noised = jax.tree.map(lambda x, e: alpha * x + sigma * e, z_0, noise)
        return sigma * as_matrix(jax.vmap(lambda z: score.standard_score(z, t))(noised))

    return jax.lax.map(one_point, (points, keys))


def _without_noise_length(values: np.ndarray, squared_noise: np.ndarray, size: int) -> np.ndarray:
    """Values with less spread and the same mean: less their regression on ``|e|^2 - D``, whose mean is zero.

    Arguments:
        values: shape (levels, points).
        squared_noise: ``|e|^2`` of the noise at the points, shape (points,).
        size: D.
    """
    control = squared_noise - size
    slopes = np.mean(values * (control - np.mean(control)), axis=1) / np.var(control)
    return values - slopes[:, None] * control


def _square(tree: Position) -> Array:
    return inner_product(tree, tree)
