"""The Fokker-Planck equations that the scores and the log densities of noised data obey, as two sides to compare."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractDensityPath, as_time
from scoresample.paths._perturbed import AbstractPerturbedScore
from scoresample.scores import Position, check_structure, inner_product, random_like

ScoreFunction = Callable[[Position, Array], Position]
"""(point, level) -> score."""


def score_fokker_planck(
    score: ScoreFunction,
    z: Position,
    t: Array,
    *,
    drift_rate: Array | float,
    squared_diffusion: Array | float,
    probes: Position | None = None,
) -> tuple[Position, Position]:
    """Both sides of the equation that a family of scores s(z, t) obeys if it is that of one noised density.

    ``d_t s = grad [ g^2/2 (div s + |s|^2) - f <z, s> ]`` for the process ``dz = f z dt + g dW``: the gradient of the
    Fokker-Planck equation of log q_t. The divergence is the exact trace, by one Jacobian-vector product for each
    coordinate, or the mean of ``<v, J v>`` over given probes.

    Source: Lai et al. 2023, arXiv 2210.04296, eq. 7.

    Arguments:
        score: (z, t) -> score, differentiable.
        z: one point.
        t: the level, a scalar.
        drift_rate: f(t).
        squared_diffusion: g(t)^2.
        probes: random directions of zero mean and unit variance, trees like z with a leading axis, or None for the
            exact trace.

    Returns:
        The two sides, trees like z. With probes the right-hand side is an unbiased estimate.
    """
    _, left = jax.jvp(lambda u: score(z, u), (t,), (jnp.ones_like(t),))

    def bracket(point: Position) -> Array:
        value = score(point, t)
        growth = _divergence(lambda x: score(x, t), point, probes) + inner_product(value, value)
        return 0.5 * squared_diffusion * growth - drift_rate * inner_product(point, value)

    return left, jax.grad(bracket)(z)


def logdensity_fokker_planck(
    logdensity: Callable[[Position, Array], Array],
    z: Position,
    t: Array,
    *,
    drift_rate: Array | float,
    squared_diffusion: Array | float,
    probes: Position | None = None,
) -> tuple[Array, Array]:
    """Both sides of the Fokker-Planck equation of a family of log densities.

    ``d_t log q = g^2/2 (div grad log q + |grad log q|^2) - f <z, grad log q> - f d`` for the process
    ``dz = f z dt + g dW`` in d dimensions. Unlike the equation of the scores it ties the constants of the levels to
    each other, and so the weights of separate modes at low noise to those at high noise.

    Arguments:
        logdensity: (z, t) -> log q_t(z), a scalar, twice differentiable.
        z: one point.
        t: the level, a scalar.
        drift_rate: f(t).
        squared_diffusion: g(t)^2.
        probes: random directions, as in [`score_fokker_planck`][scoresample.paths.score_fokker_planck].

    Returns:
        The two sides, scalars.
    """
    score = jax.grad(logdensity)
    _, left = jax.jvp(lambda u: logdensity(z, u), (t,), (jnp.ones_like(t),))
    value = score(z, t)
    growth = _divergence(lambda x: score(x, t), z, probes) + inner_product(value, value)
    size = sum(leaf.size for leaf in jax.tree.leaves(z))
    return left, 0.5 * squared_diffusion * growth - drift_rate * (inner_product(z, value) + size)


def fokker_planck_residual(
    path: AbstractPerturbedScore, position: Position, t: Array | float, *, probes: Position | None = None
) -> tuple[Position, Position]:
    """By how much a perturbed score misses the score Fokker-Planck equation at one point, and the size to hold it to.

    In the path's own clock and standard coordinates. The score of data noised by the path's process has residual 0; a
    learned one has not, and where the residual is as large as the terms themselves, the scores of neighbouring levels
    are not those of one density.

    Source: Lai et al. 2023, arXiv 2210.04296, eq. 7.

    Arguments:
        path: a perturbed score, learned or exact.
        position: one position.
        t: the level, away from t=0, where the equation's terms may diverge.
        probes: None for the exact divergence, which costs d Jacobian-vector products; or random directions (see
            [`score_fokker_planck`][scoresample.paths.score_fokker_planck]).

    Returns:
        The residual ``d_t s - right-hand side`` and the term ``d_t s``, trees like a position, in standard coordinates.

    Raises:
        TypeError: if `path` is no perturbed score.
        ValueError: if `position` does not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> from scoresample.paths import VP, perturb
        >>> path = perturb(Gaussian(jnp.ones(2), 0.5), VP())
        >>> residual, term = fokker_planck_residual(path, jnp.array([1.0, 2.0]), 0.3)
        >>> bool(jnp.all(jnp.abs(residual) < 1e-5 * jnp.abs(term).max()))
        True
    """
    if not isinstance(path, AbstractPerturbedScore):
        raise TypeError(
            f"`path` must be a perturbed score, got {type(path).__name__}. Make one with perturb(density, process), "
            "PerturbedScore(network, process) or fit_score(draws)."
        )
    left, right = score_fokker_planck(path.standard_score, probes=probes, **_at(path, position, t))
    return jax.tree.map(jnp.subtract, left, right), left


def logdensity_residual(
    path: AbstractDensityPath, position: Position, t: Array | float, *, probes: Position | None = None
) -> tuple[Array, Array]:
    """By how much a path's log densities miss the Fokker-Planck equation at one point, and the size to hold it to.

    Arguments:
        path: a perturbed score with log densities: one with a closed form, or an energy network.
        position: one position.
        t: the level, away from t=0.
        probes: as in [`fokker_planck_residual`][scoresample.paths.fokker_planck_residual].

    Returns:
        The residual ``d_t log q - right-hand side`` and the term ``d_t log q``, scalars, for one unit of the clock.

    Raises:
        TypeError: if `path` is no perturbed score with densities.
        ValueError: if `position` does not fit.
    """
    if not isinstance(path, AbstractPerturbedScore) or not isinstance(path, AbstractDensityPath):
        raise TypeError(
            f"`path` must be a perturbed score with log densities, got {type(path).__name__}. Make one with "
            "perturb(density, process) or fit_score(draws, parametrisation='energy')."
        )
    left, right = logdensity_fokker_planck(path.standard_logdensity, probes=probes, **_at(path, position, t))
    return left - right, left


def _at(path: AbstractPerturbedScore, position: Position, t: Array | float) -> dict[str, Any]:
    """A position in standard coordinates, and a level with its drift and diffusion."""
    check_structure(position, path.structure, name="position")
    t = as_time(t, position)
    rates = {"drift_rate": path.process.drift_rate(t), "squared_diffusion": path.process.squared_diffusion(t)}
    return {"z": path.frame.to_standard(position), "t": t, **rates}


def rademacher_like(key: Array, tree: Position, num: int) -> Position:
    """Random signs: the probes with the least variance for a trace.

    Arguments:
        key: random key.
        tree: arrays whose shapes and dtypes the probes have.
        num: the number of probes, the length of their leading axis.
    """
    return jax.tree.map(lambda x: jnp.where(x < 0, -jnp.ones_like(x), jnp.ones_like(x)), random_like(key, tree, num))


def _divergence(field: Callable[[Position], Position], point: Position, probes: Position | None) -> Array:
    """The divergence of a vector field, by its exact trace or estimated from probes."""
    average = probes is not None
    if probes is None:
        probes = _basis(point)

    def product(direction: Position) -> Array:
        return inner_product(direction, jax.jvp(field, (point,), (direction,))[1])

    products = jax.vmap(product)(probes)
    return products.mean() if average else products.sum()


def _basis(point: Position) -> Position:
    """The unit vectors of a tree of arrays, along a leading axis."""
    leaves, tree = jax.tree.flatten(point)
    size = sum(leaf.size for leaf in leaves)
    made, first = [], 0
    for leaf in leaves:
        rows = jnp.eye(size, leaf.size, -first, dtype=leaf.dtype)
        made.append(rows.reshape(size, *leaf.shape))
        first += leaf.size
    return jax.tree.unflatten(tree, made)
