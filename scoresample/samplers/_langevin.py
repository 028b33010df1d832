"""The unadjusted Langevin algorithm."""

from typing import ClassVar, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, add_scaled, burn_in, for_each_chain
from scoresample.scores import AbstractScore, Position, random_like


class ULAState(NamedTuple):
    """One chain of ULA.

    Attributes:
        position: the current position.
        score: the score there.
    """

    position: Position
    score: Position


class ULA(AbstractSampler):
    """The unadjusted Langevin algorithm, ``x' = x + h s(x) + sqrt(2 h) z``.

    It needs the score only. Its invariant law is not the target's: on N(0, v) the variance is ``v / (1 - h/(2 v))``,
    and the bias is of order h in general. It diverges for h > 2/L, L the Lipschitz constant of the score.

    Source: Roberts and Tweedie 1996, Bernoulli 2(4), section 1.4.1; its bias: Vempala and Wibisono 2019, arXiv
    1903.08568.

    Attributes:
        step_size: h, in squared units of the position.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> sampler, score = ULA(step_size=0.1), Gaussian(jnp.zeros(2), 1.0)
        >>> state = sampler.init(score, jnp.ones(2), key=jax.random.key(0))
        >>> sampler.step(score, state, key=jax.random.key(1))[0].position.shape
        (2,)
    """

    name: ClassVar[str] = "ula"
    reference: ClassVar[str] = "Roberts and Tweedie 1996"
    asymptotically_exact: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    step_size: Array

    def __init__(self, step_size: float | Array = 0.01) -> None:
        """Make the sampler.

        Arguments:
            step_size: h > 0; smaller is less biased and slower.

        Raises:
            ValueError: if `step_size` is not positive.
        """
        if not isinstance(step_size, jax.core.Tracer) and not np.all(np.asarray(step_size) > 0):
            raise ValueError(f"`step_size` must be positive, got {step_size}.")
        self.step_size = jnp.asarray(step_size, dtype=float)

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> ULAState:
        """The state at a position."""
        del key
        return ULAState(position, score(position))

    def step(self, score: AbstractScore, state: ULAState, *, key: Array) -> tuple[ULAState, dict[str, Array]]:
        """One Langevin step; one score evaluation."""
        noise = random_like(key, state.position)
        position = add_scaled(state.position, (self.step_size, state.score), (jnp.sqrt(2 * self.step_size), noise))
        return ULAState(position, score(position)), {"n_steps": jnp.asarray(1)}

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[ULAState, "ULA", dict[str, Array]]:
        """Burn in: `num_warmup` steps of every chain, nothing is tuned."""
        states, evaluations = burn_in(self, score, positions, num_warmup, key=key)
        return states, for_each_chain(self, evaluations.shape[0]), {"num_evaluations": evaluations + 1}
