"""The integrals behind a sampling budget, point by point, from data with noise added."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.diagnostics._score_measures import MOST_CENTRES, as_matrix, empirical_loss, numbered
from scoresample.paths import AbstractPerturbedScore, Levels, PerturbedDensity, levels_at, score_particles, tweedie
from scoresample.scores import Position, random_like

Frozen = Literal["score", "denoiser"]
"""What a sampler keeps fixed over a step."""

_FEWEST_NODES, _MOST_NODES = 5, 24
"""Gauss-Legendre nodes of a step: the integrand grows like ``exp(2 lambda)``, so long steps take more."""


class StepSquares(NamedTuple):
    """Per step and point, shape (steps, points), sums over coordinates.

    Attributes:
        discretisation: the step's integral with the exact score at both ends, in nats.
        fisher: ``|s - s*|^2`` of the scores at the start of the step, in standard coordinates.
        interaction: ``<s*, s* - s>`` there.
        excess_gaussian: denoising loss beyond that of the other points' normal law; zero where it is not asked for.
        excess_empirical: the same beyond that of the other points' noised empirical measure.
    """

    discretisation: np.ndarray
    fisher: np.ndarray
    interaction: np.ndarray
    excess_gaussian: np.ndarray
    excess_empirical: np.ndarray


class StepWeights(NamedTuple):
    """What the squares of each step count, shape (steps,), in nats.

    Attributes:
        fisher: of the squared error of the score.
        interaction: of its product with the exact score; zero where the exact score is a martingale as it is.
        excess: of the excess denoising loss.
    """

    fisher: np.ndarray
    interaction: np.ndarray
    excess: np.ndarray


class _Rows(NamedTuple):
    """One step's level and nodes; in the coordinates ``y = z/alpha`` a node is ``x_0 + keep (y - x_0) + spread e``."""

    t: Array
    alpha: Array
    noise: Array
    t_nodes: Array
    alpha_nodes: Array
    keep: Array
    spread: Array
    weight: Array


def step_squares(
    score: AbstractPerturbedScore,
    exact: AbstractPerturbedScore | None,
    points: Position,
    levels: Levels,
    key: Array,
    *,
    frozen: Frozen,
    losses: bool,
) -> tuple[StepSquares, StepWeights]:
    """The integrals of all steps of a sampler, along fresh noise for each.

    Arguments:
        score: the sampler's score.
        exact: the true one in the same standard coordinates and under the same process; None stands for the score.
        points: clean points in standard coordinates, with a leading axis.
        levels: the sampler's levels.
        key: random key.
        frozen: what the sampler keeps fixed over a step.
        losses: whether to compute the excess losses.

    Returns:
        The squares, and what they count.
    """
    columns, weights = _columns_and_weights(score, levels, frozen)
    dtype = jnp.result_type(*jax.tree.leaves(points))
    rows = _Rows(*(jnp.asarray(column, dtype) for column in columns))
    keys = jax.random.split(key, len(levels.t) - 1)
    found = _measure(score, exact, points, numbered(points), rows, keys, frozen == "denoiser", losses)
    return StepSquares(*(np.asarray(value, np.float64) for value in found)), weights


def start_divergence(
    score: AbstractPerturbedScore, density: PerturbedDensity | None, points: Position, levels: Levels, key: Array
) -> np.ndarray:
    """Per point, what averages to the divergence of the noised data from the law that the sampler starts with.

    With a density, log ratios at noised points. Without, the divergences of single noised points from the start,
    ``KL(N(alpha x, sigma^2) || N(alpha m, alpha^2 v + sigma^2))``: by convexity their mean is no less.
    """
    alpha, sigma = float(levels.alpha[0]), float(levels.sigma[0])
    number = jax.tree.leaves(points)[0].shape[0]
    moments = (
        jax.tree.map(lambda m, x: jnp.broadcast_to(m, x.shape[1:])[None], m, points) for m in score.data_moments()
    )
    mean, variance = (np.asarray(as_matrix(tree), np.float64) for tree in moments)
    total = alpha**2 * variance + sigma**2
    if density is None:
        offset = alpha * (np.asarray(as_matrix(points), np.float64) - mean)
        ratio = sigma**2 / total
        return 0.5 * np.sum(ratio - 1 - np.log(ratio) + offset**2 / total, axis=1)
    noise = random_like(key, score.structure, number)
    z = jax.tree.map(lambda x, e: alpha * x + sigma * e, points, noise)
    dtype = jnp.result_type(*jax.tree.leaves(points))
    values = np.asarray(_logdensities(density, z, jnp.asarray(levels.t[0], dtype)), np.float64)
    offset = np.asarray(as_matrix(z), np.float64) - alpha * mean
    return values + 0.5 * np.sum(np.log(2 * np.pi * total) + offset**2 / total, axis=1)


@eqx.filter_jit
def _logdensities(density: PerturbedDensity, z: Position, t: Array) -> Array:
    return jax.vmap(density.standard_logdensity, in_axes=(0, None))(z, t)


def _columns_and_weights(
    score: AbstractPerturbedScore, levels: Levels, frozen: Frozen
) -> tuple[tuple[np.ndarray, ...], StepWeights]:
    """The columns of `_Rows`, with nodes by Gauss-Legendre in the log-SNR, and weights, in float64."""
    h = np.diff(levels.log_snr)
    number = int(np.clip(np.ceil(_FEWEST_NODES + 2 * (h.max() - 1)), _FEWEST_NODES, _MOST_NODES))
    nodes, weights = np.polynomial.legendre.leggauss(number)
    log_snr = levels.log_snr[:-1, None] + h[:, None] * (nodes + 1) / 2
    inner = levels_at(score, log_snr.reshape(-1))
    t, alpha, sigma = (column.reshape(log_snr.shape) for column in (inner.t, inner.alpha, inner.sigma))
    before, here = np.exp(-2 * np.hstack([levels.log_snr[:-1, None], log_snr[:, :-1]])), np.exp(-2 * log_snr)
    unit = np.exp(2 * log_snr) if frozen == "denoiser" else sigma**2
    weight = 0.5 * h[:, None] * weights * unit
    whole, first_alpha, first_sigma = weight.sum(axis=1), levels.alpha[:-1], levels.sigma[:-1]
    if frozen == "denoiser":
        fisher, interaction = whole * first_sigma**4 / first_alpha**2, np.zeros_like(whole)
    else:
        fisher, interaction = whole, 2 * np.sum(weight * (first_alpha[:, None] / alpha - 1), axis=1)
    first_noise = np.exp(-levels.log_snr[:-1])
    spread = np.sqrt(here * (before - here) / before)
    columns = (levels.t[:-1], first_alpha, first_noise, t, alpha, here / before, spread, weight)
    return columns, StepWeights(fisher, interaction, fisher / first_sigma**2)


@eqx.filter_jit
def _measure(
    score: AbstractPerturbedScore,
    exact: AbstractPerturbedScore | None,
    points: Position,
    alike: Array,
    rows: _Rows,
    keys: Array,
    denoiser: bool,
    losses: bool,
) -> tuple[Array, ...]:
    """The fields of `StepSquares`."""
    number = jax.tree.leaves(points)[0].shape[0]
    truth = score if exact is None else exact
    flat = as_matrix(points)

    def noised(alpha: Array, away: Position) -> Position:
        return jax.tree.map(lambda x, r: alpha.astype(x.dtype) * (x + r), points, away)

    def what_counts(z: Position, s: Position, t: Array) -> Position:
        return tweedie(z, s, score.process.alpha(t), score.process.variance(t)) if denoiser else s

    def step(_: None, inputs: tuple[_Rows, Array]) -> tuple[None, tuple[Array, ...]]:
        row, key = inputs
        key_start, key_nodes = jax.random.split(key)
        noise = random_like(key_start, score.structure, number)
        start = jax.tree.map(lambda e: row.noise.astype(e.dtype) * e, noise)
        z = noised(row.alpha, start)
        own = score_particles(score, z, row.t)
        true = own if exact is None else score_particles(exact, z, row.t)
        fixed = what_counts(z, true, row.t)

        def node(carry: tuple[Position, Array], inputs: tuple[Array, ...]) -> tuple[tuple[Position, Array], None]:
            # Down to less noise: given the clean point, a Brownian motion's past is a Brownian bridge.
            away, total = carry
            t, alpha, keep, spread, weight, key = inputs
            fresh = random_like(key, score.structure, number)
            away = jax.tree.map(lambda r, e: keep.astype(r.dtype) * r + spread.astype(r.dtype) * e, away, fresh)
            z = noised(alpha, away)
            value = what_counts(z, score_particles(truth, z, t), t)
            return (away, total + weight * _product(*[jax.tree.map(jnp.subtract, value, fixed)] * 2)), None

        node_keys = jax.random.split(key_nodes, row.t_nodes.shape[0])
        nodes = (row.t_nodes, row.alpha_nodes, row.keep, row.spread, row.weight, node_keys)
        (_, discretisation), _ = jax.lax.scan(node, (start, jnp.zeros_like(flat[:, 0])), nodes)
        gap = jax.tree.map(jnp.subtract, true, own)
        excess = _excess_losses(own, z, noise, flat, alike, row) if losses else (jnp.zeros_like(discretisation),) * 2
        return None, (discretisation, _product(gap, gap), _product(true, gap), *excess)

    return jax.lax.scan(step, None, (rows, keys))[1]


def _excess_losses(
    score: Position, z: Position, noise: Position, points: Array, alike: Array, row: _Rows
) -> tuple[Array, Array]:
    """``|sigma s + e|^2`` beyond that of two scores that the other points give."""
    alpha, sigma, number = row.alpha, row.alpha * row.noise, points.shape[0]
    s, noised, e = as_matrix(score), as_matrix(z), as_matrix(noise)
    mean, variance = jnp.mean(points, axis=0), jnp.var(points, axis=0)
    # Each point's own normal law is that of the others: it would flatter itself otherwise.
    others_mean = mean - (points - mean) / (number - 1)
    others_variance = (variance - (points - mean) ** 2 / (number - 1)) * number / (number - 1)
    normal = -(noised - alpha * others_mean) / (alpha**2 * others_variance + sigma**2)
    loss, gaussian = (jnp.sum((sigma * each + e) ** 2, axis=1) for each in (s, normal))
    centres, others = points[:MOST_CENTRES], alike[:MOST_CENTRES]
    empirical = points.shape[1] * empirical_loss(noised, e, centres, alike, others, alpha, sigma)
    return loss - gaussian, loss - empirical


def _product(a: Position, b: Position) -> Array:
    """The inner product of each point's numbers."""
    return jnp.sum(as_matrix(a) * as_matrix(b), axis=1)
