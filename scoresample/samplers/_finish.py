"""The last move of every sampler that reverses a noise process."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, denoise_particles
from scoresample.samplers._base import scaled
from scoresample.scores import Position


def finish(path: AbstractPerturbedScore, particles: Position, t: Array, *, denoise: bool) -> Position:
    """Particles at the last noise level as draws: their posterior means, or rescaled to the data as they are."""
    t = t.astype(jnp.result_type(*jax.tree.leaves(particles)))
    return denoise_particles(path, particles, t) if denoise else scaled(1 / path.process.alpha(t), particles)
