"""The Metropolis-adjusted Langevin algorithm: BlackJAX's kernel, with the step size tuned by dual averaging."""

from typing import Any, ClassVar

import blackjax
import equinox as eqx
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler
from scoresample.samplers._density import promoted, require_density, statistics_of
from scoresample.samplers._doors import as_parameter, check_positive, check_share, require_tuned
from scoresample.samplers._step_size import tune_step_size
from scoresample.scores import AbstractScore, Position, logdensity_fn


class MALA(AbstractSampler):
    """The Metropolis-adjusted Langevin algorithm: a step of ULA as a proposal, ``x + h s(x) + sqrt(2 h) z``.

    It leaves the target invariant. Steps shrink with the dimension as d^(-1/3) and with the smallest scale, and there
    is no mass matrix: on correlated targets NUTS mixes far better.

    Source: Roberts and Tweedie 1996, Bernoulli 2(4), section 1.4.2; Roberts and Rosenthal 1998, JRSS B 60(1), for the
    acceptance rate 0.574.

    Attributes:
        target_acceptance_rate: what the step size is tuned to, by dual averaging in the warm-up.
        step_size: h, in squared units of the position: where tuning starts, and what is used without a warm-up.

    Examples:
        >>> MALA().target_acceptance_rate
        0.574
    """

    name: ClassVar[str] = "mala"
    reference: ClassVar[str] = "Roberts and Tweedie 1996"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    target_acceptance_rate: float = eqx.field(static=True, default=0.574)
    step_size: Array | float | None = eqx.field(default=None, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's MALA state at a position."""
        del key
        return blackjax.mala.init(promoted(position), logdensity_fn(require_density(self, score)))

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One transition of BlackJAX's kernel; one score evaluation."""
        kernel = blackjax.mala.build_kernel()
        state, info = kernel(key, state, logdensity_fn(require_density(self, score)), self.step_size)
        return state, statistics_of(state, info, 1)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "MALA", dict[str, Array]]:
        """`num_warmup` steps of every chain, in which its step size is tuned."""
        if num_warmup == 0:
            require_tuned(self, "step_size")
        return tune_step_size(self, score, positions, num_warmup, key=key)
