"""Langevin moves at one level that are accepted or rejected from the score alone."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractScorePath
from scoresample.samplers._corrector import AbstractCorrector, LevelStep
from scoresample.samplers._mala_move import MALAState, mala_init, mala_move
from scoresample.scores import Position


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

        def body(index: Array, carry: tuple[MALAState, Array]) -> tuple[MALAState, Array]:
            state, accepted = carry
            state, _, accept = mala_move(path, state, t, h, key=jax.random.fold_in(key, index))
            return state, accepted + jnp.mean(accept, dtype=accepted.dtype)

        start = mala_init(path, particles, t, by_density=False), jnp.zeros((), h.dtype)
        state, accepted = jax.lax.fori_loop(0, num_steps, body, start)
        return state.position, {"acceptance_rate": accepted / jnp.asarray(num_steps).astype(h.dtype)}
