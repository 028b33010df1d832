"""Barker's proposal: BlackJAX's kernel, with the step size tuned by dual averaging."""

from typing import Any, ClassVar

import blackjax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler
from scoresample.samplers._density import promoted, require_density, statistics_of
from scoresample.samplers._doors import as_parameter, check_positive, check_share, require_tuned
from scoresample.samplers._step_size import tune_step_size
from scoresample.scores import AbstractScore, Position, logdensity_fn


class Barker(AbstractSampler):
    """Barker's proposal: a Gaussian jump whose sign, coordinate by coordinate, the score makes more or less likely.

    It leaves the target invariant. It uses the score as MALA does, but forgives a step size that is too large.

    Source: Livingstone and Zanella 2022, JRSS B 84(2), arXiv 1908.11812; their section 6 for the acceptance rate 0.4.

    Attributes:
        target_acceptance_rate: what the step size is tuned to, by dual averaging in the warm-up.
        step_size: standard deviation of the jump: where tuning starts, and what is used without a warm-up.
        inverse_mass_matrix: estimated covariance, diagonal or dense: jumps have `step_size` times its root as standard
            deviation. The identity if None.

    Examples:
        >>> Barker().needs_density
        True
    """

    name: ClassVar[str] = "barker"
    reference: ClassVar[str] = "Livingstone and Zanella 2022"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    target_acceptance_rate: float = eqx.field(static=True, default=0.4)
    step_size: Array | float | None = eqx.field(default=None, converter=as_parameter)
    inverse_mass_matrix: Any = eqx.field(default=None, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's Barker state at a position."""
        del key
        return blackjax.barker.init(promoted(position), logdensity_fn(require_density(self, score)))

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One transition of BlackJAX's kernel; one score evaluation."""
        kernel = blackjax.barker.build_kernel()
        # BlackJAX's kernel scales its jumps by the root of the mass matrix, so what it calls the inverse is the mass.
        covariance = self.inverse_mass_matrix
        mass = None if covariance is None else 1 / covariance if covariance.ndim < 2 else jnp.linalg.inv(covariance)
        state, info = kernel(
            key,
            state,
            logdensity_fn(require_density(self, score)),
            self.step_size,
            mass,
        )
        return state, statistics_of(state, info, 1)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "Barker", dict[str, Array]]:
        """`num_warmup` steps of every chain, in which its step size is tuned."""
        if num_warmup == 0:
            require_tuned(self, "step_size")
        return tune_step_size(self, score, positions, num_warmup, key=key)
