"""Correctors: moves at one level of a path that leave its law invariant, or nearly."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, score_particles
from scoresample.samplers._base import add_scaled
from scoresample.samplers._doors import check_at_least
from scoresample.scores import Position, random_like


class AbstractCorrector(eqx.Module):
    """Moves of all particles at one level.

    Attributes:
        evaluations_per_step: score evaluations of one step.
        evaluations_per_level: further ones, once for each level.
    """

    evaluations_per_step: ClassVar[int]
    evaluations_per_level: ClassVar[int]

    num_steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def correct(
        self, path: AbstractScorePath, particles: Position, t: Array, h: Array, *, key: Array
    ) -> tuple[Position, dict[str, Array]]:
        """Move the particles `num_steps` times.

        Arguments:
            path: the path.
            particles: points in standard coordinates, with a leading axis.
            t: the level.
            h: the step size, in squared units of the particles.
            key: random key.

        Returns:
            The particles, and statistics by name (scalars).
        """

    @property
    def num_evaluations(self) -> int:
        """Score evaluations at one level."""
        return self.num_steps * self.evaluations_per_step + self.evaluations_per_level


class LangevinCorrector(AbstractCorrector):
    """Unadjusted Langevin steps, ``x <- x + h s(x) + sqrt(2 h) z``, of bias of order h.

    Attributes:
        num_steps: number of steps.
    """

    evaluations_per_step: ClassVar[int] = 1
    evaluations_per_level: ClassVar[int] = 0

    num_steps: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps)

    def correct(
        self, path: AbstractScorePath, particles: Position, t: Array, h: Array, *, key: Array
    ) -> tuple[Position, dict[str, Array]]:
        """The steps."""

        def body(index: Array, particles: Position) -> Position:
            noise = random_like(jax.random.fold_in(key, index), particles)
            return add_scaled(particles, (h, score_particles(path, particles, t)), (jnp.sqrt(2 * h), noise))

        return jax.lax.fori_loop(0, self.num_steps, body, particles), {}


class MetropolisCorrector(AbstractCorrector):
    """Langevin steps that are accepted or rejected from the score alone.

    The proposal is ``y = x + h s(x) + sqrt(2 h) z``. It is accepted with the Metropolis probability, in which the
    difference of the log density is Simpson's rule for the score's line integral,
    ``log p(y) - log p(x) = <y - x, s(x) + 4 s((x + y)/2) + s(y)>/6``. That is exact where the log density is a
    polynomial of degree up to four along the segment, and the law of the level is then left invariant exactly, at any
    step size; elsewhere its error is of order ``|y - x|^5``. Two new score evaluations a step.

    A step whose score or position is not finite is rejected.

    Source: Metropolis-adjusted diffusion models, arXiv 2605.09654.

    Attributes:
        num_steps: number of steps.
    """

    evaluations_per_step: ClassVar[int] = 2
    evaluations_per_level: ClassVar[int] = 1

    num_steps: int = eqx.field(static=True, default=1)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps)

    def correct(
        self, path: AbstractScorePath, particles: Position, t: Array, h: Array, *, key: Array
    ) -> tuple[Position, dict[str, Array]]:
        """The steps, and the share of them that was accepted."""

        def body(index: Array, carry: tuple[Position, Position, Array]) -> tuple[Position, Position, Array]:
            x, score_x, accepted = carry
            key_noise, key_accept = jax.random.split(jax.random.fold_in(key, index))
            noise = random_like(key_noise, x)
            y = add_scaled(x, (h, score_x), (jnp.sqrt(2 * h), noise))
            middle = jax.tree.map(lambda a, b: 0.5 * (a + b), x, y)
            score_middle, score_y = score_particles(path, middle, t), score_particles(path, y, t)
            step = jax.tree.map(jnp.subtract, y, x)
            simpson = jax.tree.map(lambda a, b, c: (a + 4 * b + c) / 6, score_x, score_middle, score_y)
            # log q(x|y) - log q(y|x), with y - x - h s(x) = sqrt(2 h) z.
            back = add_scaled(step, (h, score_y))
            log_ratio = _dots(step, simpson) - _dots(back, back) / (4 * h) + 0.5 * _dots(noise, noise)
            uniform = jax.random.uniform(key_accept, log_ratio.shape, log_ratio.dtype, minval=jnp.finfo(h.dtype).tiny)
            accept = jnp.log(uniform) < log_ratio
            x, score_x = (_chosen(accept, new, old) for new, old in ((y, x), (score_y, score_x)))
            return x, score_x, accepted + jnp.mean(accept, dtype=accepted.dtype)

        dtype = jnp.result_type(*jax.tree.leaves(particles))
        start = particles, score_particles(path, particles, t), jnp.zeros((), dtype)
        particles, _, accepted = jax.lax.fori_loop(0, self.num_steps, body, start)
        return particles, {"acceptance_rate": accepted / self.num_steps}


def _dots(x: Position, y: Position) -> Array:
    """The inner product of every particle's two vectors."""
    products = jax.tree.map(lambda a, b: jnp.sum((a * b).reshape(a.shape[0], -1), axis=1), x, y)
    return jax.tree.reduce(jnp.add, products)


def _chosen(accept: Array, new: Position, old: Position) -> Position:
    def one(a: Array, b: Array) -> Any:
        return jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(one, new, old)
