"""Langevin moves at one level that are accepted or rejected from the score alone."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, score_particles
from scoresample.samplers._base import add_scaled, inner_products
from scoresample.samplers._corrector import AbstractCorrector, LevelStep
from scoresample.scores import Position, random_like


class MetropolisCorrector(AbstractCorrector):
    """Langevin steps that are accepted or rejected from the score alone.

    The proposal is ``y = x + h s(x) + sqrt(2 h) z``. It is accepted with the Metropolis probability, in which the
    difference of the log density is Simpson's rule for the score's line integral,
    ``log p(y) - log p(x) = <y - x, s(x) + 4 s((x + y)/2) + s(y)>/6``. That is exact where the log density is a
    polynomial of degree up to four along the segment, and the law of the level is then left invariant exactly, at any
    step size; elsewhere its error is of order ``|y - x|^5``. Two new score evaluations a step.

    A step with a score, at its end or in its middle, or a position that is not finite is rejected.

    Source: Metropolis-adjusted diffusion models, arXiv 2605.09654.
    """

    evaluations_per_step: ClassVar[int] = 2
    evaluations_per_level: ClassVar[int] = 1
    most_relative_step: ClassVar[float] = float("inf")

    def relative_step(self, dimension: int, otherwise: float) -> float:
        """``d^(-1/3)``, as the optimal step of MALA scales (Roberts and Rosenthal 1998, JRSS B 60(1))."""
        del otherwise
        return dimension ** (-1 / 3)

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
        """The steps, and the share of them that was accepted."""
        h = step.size

        def body(index: Array, carry: tuple[Position, Position, Array]) -> tuple[Position, Position, Array]:
            x, score_x, accepted = carry
            key_noise, key_accept = jax.random.split(jax.random.fold_in(key, index))
            noise = random_like(key_noise, x)
            y = add_scaled(x, (h, score_x), (jnp.sqrt(2 * h), noise))
            middle = jax.tree.map(lambda a, b: 0.5 * (a + b), x, y)
            score_middle, score_y = score_particles(path, middle, t), score_particles(path, y, t)
            move = jax.tree.map(jnp.subtract, y, x)
            simpson = jax.tree.map(lambda a, b, c: (a + 4 * b + c) / 6, score_x, score_middle, score_y)
            log_ratio = inner_products(move, simpson) + log_proposal_ratio(move, noise, score_y, h)
            uniform = jax.random.uniform(key_accept, log_ratio.shape, log_ratio.dtype, minval=jnp.finfo(h.dtype).tiny)
            accept = (jnp.log(uniform) < log_ratio) & jnp.isfinite(log_ratio)
            x, score_x = (_chosen(accept, new, old) for new, old in ((y, x), (score_y, score_x)))
            return x, score_x, accepted + jnp.mean(accept, dtype=accepted.dtype)

        start = particles, score_particles(path, particles, t), jnp.zeros((), h.dtype)
        particles, _, accepted = jax.lax.fori_loop(0, num_steps, body, start)
        return particles, {"acceptance_rate": accepted / jnp.asarray(num_steps).astype(h.dtype)}


def log_proposal_ratio(move: Position, noise: Position, score_end: Position, h: Array) -> Array:
    """``log q(x | y) - log q(y | x)`` of Langevin proposals ``y = x + h s(x) + sqrt(2 h) noise``, for every particle.

    Arguments:
        move: y - x.
        noise: what the proposal was made with.
        score_end: s(y).
        h: the step size.
    """
    back = add_scaled(move, (h, score_end))
    return 0.5 * inner_products(noise, noise) - inner_products(back, back) / (4 * h)


def _chosen(accept: Array, new: Position, old: Position) -> Position:
    def one(a: Array, b: Array) -> Any:
        return jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(one, new, old)
