"""One Metropolis-adjusted Langevin move of all particles at one level, from the density or from the score alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractDensityPath, AbstractScorePath, as_time, score_particles
from scoresample.samplers._base import inner_products
from scoresample.scores import Position, random_like


class MALAState(NamedTuple):
    """Particles in standard coordinates, their scores, and their log densities where moves are judged by those."""

    position: Position
    score: Position
    log_density: Array | None


def level_densities(path: AbstractScorePath, particles: Position, t: Array) -> Array:
    """The log density of level t at every particle."""
    assert isinstance(path, AbstractDensityPath)
    time = as_time(t, particles)
    return jax.vmap(lambda p, z: p.standard_logdensity(z, time), in_axes=(path.condition_axes(), 0))(path, particles)


def mala_init(path: AbstractScorePath, particles: Position, t: Array, *, by_density: bool) -> MALAState:
    """The state at some particles: one evaluation."""
    log_density = level_densities(path, particles, t) if by_density else None
    return MALAState(particles, score_particles(path, particles, t), log_density)


def mala_move(
    path: AbstractScorePath, state: MALAState, t: Array, h: Array, *, key: Array
) -> tuple[MALAState, Array, Array]:
    """Propose ``y = x + h s(x) + sqrt(2 h) z`` and accept or reject it.

    The difference of the log density is that of the state's values if it has them (one evaluation), else Simpson's rule
    for the score's line integral (two): see `MetropolisCorrector`. A proposal with a score, a position or a density
    that is not finite is rejected.

    Arguments:
        path: the path.
        state: the particles.
        t: the level.
        h: the step size, one number or one for each particle.
        key: random key.

    Returns:
        The state, the probability with which each proposal was accepted, and whether it was.
    """
    x, score_x, density_x = state
    key_noise, key_accept = jax.random.split(key)
    noise = random_like(key_noise, x)
    y = jax.tree.map(lambda a, s, z: a + _along(h, a) * s + _along(jnp.sqrt(2 * h), a) * z, x, score_x, noise)
    move = jax.tree.map(jnp.subtract, y, x)
    if density_x is None:
        middle = jax.tree.map(lambda a, b: 0.5 * (a + b), x, y)
        score_middle, score_y = score_particles(path, middle, t), score_particles(path, y, t)
        simpson = jax.tree.map(lambda a, b, c: (a + 4 * b + c) / 6, score_x, score_middle, score_y)
        density_y, gained = None, inner_products(move, simpson)
    else:
        score_y, density_y = score_particles(path, y, t), level_densities(path, y, t)
        gained = density_y - density_x
    of_proposals = log_proposal_ratio(move, noise, score_y, h)
    log_ratio = gained + of_proposals
    # A particle where the density is zero takes the first proposal where it is not.
    usable = jnp.isfinite(log_ratio)
    if density_y is not None:
        usable = jnp.isfinite(of_proposals) & jnp.isfinite(density_y) & ~jnp.isnan(log_ratio)
    uniform = jax.random.uniform(key_accept, log_ratio.shape, log_ratio.dtype, minval=jnp.finfo(log_ratio.dtype).tiny)
    accept = (jnp.log(uniform) < log_ratio) & usable
    probability = jnp.where(usable, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return _chosen(accept, MALAState(y, score_y, density_y), state), probability, accept


def log_proposal_ratio(move: Position, noise: Position, score_end: Position, h: Array) -> Array:
    """``log q(x | y) - log q(y | x)`` of Langevin proposals ``y = x + h s(x) + sqrt(2 h) noise``, for every particle.

    Arguments:
        move: y - x.
        noise: what the proposal was made with.
        score_end: s(y).
        h: the step size, one number or one for each particle.
    """
    back = jax.tree.map(lambda a, s: a + _along(h, a) * s, move, score_end)
    return 0.5 * inner_products(noise, noise) - inner_products(back, back) / (4 * h)


def _chosen(accept: Array, new: MALAState, old: MALAState) -> MALAState:
    def one(a: Array, b: Array) -> Any:
        return jnp.where(_along(accept, a), a, b)

    return jax.tree.map(one, new, old)


def _along(values: Array, leaf: Array) -> Array:
    """One number, or one for each particle, to multiply a leaf by."""
    values = values if values.dtype == bool else values.astype(leaf.dtype)
    return values if values.ndim == 0 else values.reshape(-1, *[1] * (leaf.ndim - 1))
