"""What short parallel chains remember of where they were: the check that they were long enough."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from scipy.special import stdtrit

from scoresample.scores import Position

_FALSE_ALARMS = 1e-3
"""Chance that the bound is above zero in any direction though the chains forget everything."""
_LEAST_CHAINS = 8.0
"""Effective number of chains below which nothing can be said."""
_NUM_DIRECTIONS = 8
_POWER_ITERATIONS = 2


class ChainMemory(NamedTuple):
    """The autocorrelation of chains in the direction where it is surely largest.

    Attributes:
        autocorrelation: the estimate there.
        bound: its lower confidence bound, corrected for the number of directions that were looked at.
    """

    autocorrelation: Array
    bound: Array


def chain_memory(snapshots: tuple[Position, Position, Position], *, same_law: bool, key: Array) -> ChainMemory:
    """The autocorrelation of many short chains between equally spaced snapshots, in any direction.

    In equilibrium two consecutive increments d, d' of a chain have ``2 <d d'>/<d^2 + d'^2> = (rho - 1)/2``, with rho
    the autocorrelation at their lag, so ``rho = 1 + 4 <d d'>/<d^2 + d'^2>``: the mean square displacement over two
    lags, relative to that over one, less 1. It is 0 where chains have forgotten where they were, and 1 where they
    diffuse as if they were free or run in one direction. The mean of a chain's own law cancels, so chains of different
    laws count together, each by the variance of its own. Where all have the same law, the plain correlation between
    snapshots is looked at too: it also sees that chains stay in the modes where they started.

    Directions are the coordinates, all of them together, and, found on one half of the chains and judged on the other,
    those in which chains travel the farthest: the slow ones, since a step moves all directions alike.

    Arguments:
        snapshots: three trees of particles, one lag apart.
        same_law: whether all chains have the same stationary law.
        key: random key, for the directions.

    Returns:
        Two scalars, not a number where there are fewer than eight chains.
    """
    values = jnp.stack([_matrix(snapshot) for snapshot in snapshots])
    if values.shape[1] < _LEAST_CHAINS:
        unknown = jnp.full((), jnp.nan, values.dtype)
        return ChainMemory(unknown, unknown)
    first, second = values[1] - values[0], values[2] - values[1]
    parts = [_terms_of_increments(first, second)]
    if same_law:
        parts.append(_terms_of_positions(values - jnp.mean(values, axis=1, keepdims=True)))
    terms = [(jnp.concatenate([a, _total(a)], axis=1), jnp.concatenate([b, _total(b)], axis=1)) for a, b in parts]
    half, dimension = values.shape[1] // 2, values.shape[2]
    start = jax.random.normal(key, (dimension, _NUM_DIRECTIONS), values.dtype)
    for seen, judged in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        along = _stretched(first[seen] + second[seen], start)
        terms.append(_terms_of_increments(first[judged] @ along, second[judged] @ along))
        if same_law:
            shown = values[:, judged] - jnp.mean(values[:, judged], axis=1, keepdims=True)
            along = _stretched(values[2, seen] - jnp.mean(values[2, seen], axis=0), start)
            terms.append(_terms_of_positions(shown @ along))
    num_looks = sum(a.shape[1] for a, _ in terms)
    estimates, bounds = zip(*(_bounded(a, b, num_looks) for a, b in terms), strict=True)
    bound, estimate = jnp.concatenate(bounds), jnp.concatenate(estimates)
    worst = jnp.argmax(bound)
    return ChainMemory(estimate[worst], bound[worst])


def _matrix(particles: Position) -> Array:
    leaves = jax.tree.leaves(particles)
    dtype = jnp.result_type(*leaves)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in leaves], axis=1)


def _terms_of_increments(first: Array, second: Array) -> tuple[Array, Array]:
    """Numerator and denominator of rho, chain by chain, from two consecutive increments."""
    squares = first**2 + second**2
    return squares + 4 * first * second, squares


def _terms_of_positions(centred: Array) -> tuple[Array, Array]:
    """Numerator and denominator of rho, chain by chain, from three positions around the mean."""
    before, middle, after = centred
    return (before + after) * middle, 0.5 * (before**2 + after**2) + middle**2


def _total(terms: Array) -> Array:
    return jnp.sum(terms, axis=1, keepdims=True)


def _stretched(rows: Array, start: Array) -> Array:
    """Directions in which the rows are long: power iterations from random ones."""
    for _ in range(_POWER_ITERATIONS):
        start = rows.T @ (rows @ start)
        start = start / jnp.maximum(jnp.linalg.norm(start, axis=0), jnp.finfo(start.dtype).tiny)
    return start


def _bounded(numerator: Array, denominator: Array, num_looks: int) -> tuple[Array, Array]:
    """Ratios of means and their lower bounds by the delta method, never below -1.

    Where few chains make up the whole there is no bound (-1). Chains that never moved have forgotten nothing (1).
    """
    number = max(numerator.shape[0], 2)
    total = jnp.sum(denominator, axis=0)
    ratio = jnp.sum(numerator, axis=0) / total
    error = jnp.sqrt(jnp.sum((numerator - ratio * denominator) ** 2, axis=0) * number / (number - 1)) / total
    quantile = float(stdtrit(number - 1, 1 - _FALSE_ALARMS / num_looks))
    enough = (numerator.shape[0] >= _LEAST_CHAINS) & (total**2 >= _LEAST_CHAINS * jnp.sum(denominator**2, axis=0))
    bound = jnp.where(enough, jnp.maximum(ratio - quantile * error, -1.0), -1.0)
    return jnp.where(total > 0, ratio, 1.0), jnp.where((total > 0) | (numerator.shape[0] < _LEAST_CHAINS), bound, 1.0)
