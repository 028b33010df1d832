"""What a perturbed score does at noised points: squares whose means are residuals and losses."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Levels, rademacher_like, score_fokker_planck
from scoresample.scores import Position, random_like

_BLOCK = 256
"""Points measured at once, which bounds the memory."""
MOST_CENTRES = 1024
"""Held-out points behind the score of their own noised empirical measure."""
LARGEST_EXACT = 16
"""Dimension up to which the divergence is an exact trace."""
_NUM_PROBES = 4
"""Random directions of each of the two estimates above that."""
_NUM_JACOBIANS = 256
"""Points at which the asymmetry of the Jacobian is measured."""


class Measured(NamedTuple):
    """Per level and point, shape (levels, points): squares that are means over coordinates.

    Attributes:
        residual: of the Fokker-Planck equation, for one e-fold of sigma/alpha, in units of the noise; or the product of
            two estimates of it.
        change: of the score, in the same units.
        loss: of the score.
        constant: of the best constant.
        gaussian: of the normal law with the data's coordinate means and variances.
        empirical: of the other points, noised.
        fisher: squared distance to the exact score in units of the noise; zero without one.
    """

    residual: np.ndarray
    change: np.ndarray
    loss: np.ndarray
    constant: np.ndarray
    gaussian: np.ndarray
    empirical: np.ndarray
    fisher: np.ndarray


def measured_squares(
    score: AbstractPerturbedScore,
    exact: AbstractPerturbedScore | None,
    points: Position,
    ladder: Levels,
    key: Array,
) -> tuple[Measured, Position]:
    """Squares at every level and point, and the first noised points of each level as positions.

    Arguments:
        score: the perturbed score.
        exact: the true score in the same standard coordinates under the same process, or None.
        points: clean points in standard coordinates, with a leading axis.
        ladder: the levels.
        key: random key of the noise and the probes.

    Returns:
        The squares, each of shape (levels, points), and positions with leading axes (levels, at most 256).
    """
    number = jax.tree.leaves(points)[0].shape[0]
    rows = np.arange(-(-number // _BLOCK) * _BLOCK) if number > _BLOCK else np.arange(number)
    padded = jax.tree.map(lambda x: x[rows % number], points)
    keys = jax.random.split(key, (len(ladder.t), 2))
    dtype = jnp.result_type(*jax.tree.leaves(points))
    found, noised = _measure(score, exact, padded, points, numbered(points), keys, jnp.asarray(ladder.t, dtype))
    return Measured(*(np.asarray(value, np.float64)[:, :number] for value in found)), noised


@eqx.filter_jit
def _measure(
    score: AbstractPerturbedScore,
    exact: AbstractPerturbedScore | None,
    padded: Position,
    points: Position,
    alike: Array,
    keys: Array,
    times: Array,
) -> tuple[tuple[Array, ...], Position]:
    """The fields of `Measured`; `padded` repeats the points until they fill their last block, `alike` numbers them."""
    number, different = (jax.tree.leaves(tree)[0].shape[0] for tree in (padded, points))
    block = min(number, _BLOCK)
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), points)
    variance = jax.tree.map(lambda x: jnp.var(x, axis=0), points)
    centres = as_matrix(jax.tree.map(lambda x: x[:MOST_CENTRES], points))

    def level(inputs: tuple[Array, Array]) -> tuple[tuple[Array, ...], Position]:
        (key_noise, key_probes), t = inputs
        alpha, sigma = score.process.alpha(t), score.process.sigma(t)
        noise = random_like(key_noise, score.structure, number)
        average = jax.tree.map(lambda e: jnp.mean(e[:different], axis=0), noise)
        noised = jax.tree.map(lambda z, e: alpha * z + sigma * e, padded, noise)

        def one_block(inputs: tuple[Position, Position, Array, Array]) -> tuple[Array, ...]:
            z, e, own, probe_keys = inputs
            residual, change, s = jax.vmap(lambda z, k: _fokker_planck(score, z, t, k))(z, probe_keys)
            normal = jax.tree.map(lambda z, m, v: -(z - alpha * m) / (alpha**2 * v + sigma**2), z, mean, variance)
            truth = s if exact is None else jax.vmap(exact.standard_score, in_axes=(0, None))(z, t)
            scaled = jax.tree.map(lambda a, b: sigma * (a - b), s, truth)
            return (
                residual,
                change,
                _mean_square(jax.tree.map(lambda s, e: sigma * s + e, s, e)),
                _mean_square(jax.tree.map(jnp.subtract, e, average)),
                _mean_square(jax.tree.map(lambda s, e: sigma * s + e, normal, e)),
                empirical_loss(as_matrix(z), as_matrix(e), centres, own, alike[:MOST_CENTRES], alpha, sigma),
                _mean_square(scaled),
            )

        def in_blocks(x: Array) -> Array:
            return x.reshape(number // block, block, *x.shape[1:])

        own, probe_keys = alike[jnp.arange(number) % different], jax.random.split(key_probes, number)
        found = jax.lax.map(one_block, jax.tree.map(in_blocks, (noised, noise, own, probe_keys)))
        first = jax.tree.map(lambda z: z[:_NUM_JACOBIANS], noised)
        return jax.tree.map(jnp.ravel, found), jax.vmap(score.frame.to_position)(first)

    return jax.lax.map(level, (keys, times))


def _fokker_planck(score: AbstractPerturbedScore, z: Position, t: Array, key: Array) -> tuple[Array, Array, Position]:
    """Mean squares of the residual and of the score's change, in units of the noise for one e-fold; and the score."""
    process = score.process
    rate, squared_diffusion = process.drift_rate(t), process.squared_diffusion(t)
    unit = process.sigma(t) / -jax.grad(process.log_snr)(t)
    size = sum(leaf.size for leaf in jax.tree.leaves(z))

    def residual(probes: Position | None) -> tuple[Position, Position]:
        left, right = score_fokker_planck(
            score.standard_score, z, t, drift_rate=rate, squared_diffusion=squared_diffusion, probes=probes
        )
        return left, jax.tree.map(lambda a, b: unit * (a - b), left, right)

    if size <= LARGEST_EXACT:
        moved, first = residual(None)
        second = first
    else:
        (moved, first), (_, second) = (residual(rademacher_like(k, z, _NUM_PROBES)) for k in jax.random.split(key))
    tangent = jax.tree.map(lambda x: rate * x, z)
    value, along = jax.jvp(lambda x: score.standard_score(x, t), (z,), (tangent,))
    change = jax.tree.map(lambda d, a, s: unit * (d + a + rate * s), moved, along, value)
    product = jax.tree.map(lambda a, b: jnp.sum(a * b), first, second)
    square = jax.tree.map(lambda a: jnp.sum(a * a), change)
    return jax.tree.reduce(jnp.add, product) / size, jax.tree.reduce(jnp.add, square) / size, value


def empirical_loss(
    z: Array, noise: Array, centres: Array, own: Array, others: Array, alpha: Array, sigma: Array
) -> Array:
    """The loss of the noised empirical measure of all centres but the point itself: ``E[z_0 | z]`` is their softmax."""
    squares = jnp.sum(centres**2, axis=1) * alpha**2 - 2 * alpha * z @ centres.T
    log_weights = jnp.where(others == own[:, None], -jnp.inf, -squares / (2 * sigma**2))
    clean = jax.nn.softmax(log_weights, axis=1) @ centres
    return jnp.mean((noise - (z - alpha * clean) / sigma) ** 2, axis=1)


def numbered(points: Position) -> Array:
    """A number for each point, the same for copies: those of a chain that did not move are no other points."""
    _, alike = np.unique(np.asarray(as_matrix(points)), axis=0, return_inverse=True)
    return jnp.asarray(alike)


def as_matrix(tree: Position) -> Array:
    """All coordinates of points side by side, shape (points, dimension)."""
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def _mean_square(tree: Position) -> Array:
    return jnp.mean(as_matrix(tree) ** 2, axis=1)
