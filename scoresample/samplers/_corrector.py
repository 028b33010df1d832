"""Correctors: moves at one level of a path that leave its law invariant, or nearly."""

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, score_particles
from scoresample.samplers._base import add_scaled
from scoresample.scores import Position, random_like


class LevelStep(NamedTuple):
    """The step of the moves at one level.

    Attributes:
        size: h, in squared units of the particles.
        relative: c, the same relative to ``1/L``, L the curvature of the level.
    """

    size: Array
    relative: Array


class AbstractCorrector(eqx.Module):
    """Moves of all particles at one level.

    Attributes:
        evaluations_per_step: score evaluations of one step, where they are known beforehand.
        evaluations_per_level: further ones, once for each level.
        most_relative_step: relative steps from here on diverge.
    """

    evaluations_per_step: ClassVar[int]
    evaluations_per_level: ClassVar[int]
    most_relative_step: ClassVar[float]

    @abc.abstractmethod
    def relative_step(self, dimension: int, otherwise: float) -> float:
        """The relative step where the user gave none; `otherwise` is what unadjusted Langevin would take."""

    @abc.abstractmethod
    def check(self, path: AbstractScorePath) -> None:
        """Raise unless this corrector can move on the path."""

    @abc.abstractmethod
    def correct(
        self,
        path: AbstractScorePath,
        particles: Position,
        t: Array,
        step: LevelStep,
        *,
        num_steps: int | Array,
        key: Array,
    ) -> tuple[Position, dict[str, Array]]:
        """Move the particles `num_steps` times.

        Arguments:
            path: the path.
            particles: points in standard coordinates, with a leading axis.
            t: the level.
            step: the size of the steps.
            num_steps: how many; one number for all particles.
            key: random key.

        Returns:
            The particles, and statistics by name (scalars).
        """


class LangevinCorrector(AbstractCorrector):
    """Unadjusted Langevin steps, ``x <- x + h s(x) + sqrt(2 h) z``, of bias of order h."""

    evaluations_per_step: ClassVar[int] = 1
    evaluations_per_level: ClassVar[int] = 0
    most_relative_step: ClassVar[float] = 2.0

    def relative_step(self, dimension: int, otherwise: float) -> float:
        """As the sampler says."""
        del dimension
        return otherwise

    def check(self, path: AbstractScorePath) -> None:
        """Any path will do."""

    def correct(
        self,
        path: AbstractScorePath,
        particles: Position,
        t: Array,
        step: LevelStep,
        *,
        num_steps: int | Array,
        key: Array,
    ) -> tuple[Position, dict[str, Array]]:
        """The steps."""
        h = step.size

        def body(index: Array, particles: Position) -> Position:
            noise = random_like(jax.random.fold_in(key, index), particles)
            return add_scaled(particles, (h, score_particles(path, particles, t)), (jnp.sqrt(2 * h), noise))

        return jax.lax.fori_loop(0, num_steps, body, particles), {}
