"""The weights of annealed importance sampling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, score_particles
from scoresample.samplers._base import add_scaled
from scoresample.samplers._mala_move import log_proposal_ratio
from scoresample.scores import Position, random_like


def updated_weights(log_weights: Array, gained: Array, density: Array, before: Array) -> Array:
    """``log_weights + gained + density - before``; particles that once were where there is no mass have no weight."""
    lost = jnp.isneginf(log_weights) | jnp.isneginf(density)
    return jnp.where(lost, -jnp.inf, log_weights + gained + density - before)


def weighted_langevin(
    path: AbstractScorePath, particles: Position, t: Array, h: Array, *, num_steps: int | Array, key: Array
) -> tuple[Position, Array]:
    """Unadjusted Langevin steps at one level, and what their proposals contribute to the log weights.

    The law of a whole trajectory is weighed against that of its reversal, whose steps are Langevin steps too: a step
    from x to y contributes ``log q(x | y) - log q(y | x)``. One more evaluation than steps.

    Arguments:
        path: the path.
        particles: points in standard coordinates, with a leading axis.
        t: the level.
        h: the step size.
        num_steps: number of steps.
        key: random key.

    Returns:
        The particles, and one number for each.
    """

    def body(index: Array, carry: tuple[Position, Position, Array]) -> tuple[Position, Position, Array]:
        x, score_x, gained = carry
        noise = random_like(jax.random.fold_in(key, index), x)
        y = add_scaled(x, (h, score_x), (jnp.sqrt(2 * h), noise))
        score_y = score_particles(path, y, t)
        return y, score_y, gained + log_proposal_ratio(jax.tree.map(jnp.subtract, y, x), noise, score_y, h)

    zeros = jnp.zeros(jax.tree.leaves(particles)[0].shape[0], t.dtype)
    particles, _, gained = jax.lax.fori_loop(
        0, num_steps, body, (particles, score_particles(path, particles, t), zeros)
    )
    return particles, gained
