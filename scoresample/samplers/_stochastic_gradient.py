"""Stochastic-gradient samplers: BlackJAX's kernels, on a score alone."""

from typing import Any, ClassVar, NamedTuple

import blackjax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, burn_in, for_each_chain
from scoresample.samplers._density import promoted
from scoresample.samplers._doors import as_parameter, check_positive
from scoresample.scores import AbstractScore, Position


class StochasticGradientState(NamedTuple):
    """One chain of a stochastic-gradient sampler.

    Attributes:
        position: the current position.
    """

    position: Position


def _gradient(score: AbstractScore) -> Any:
    """What BlackJAX calls a gradient estimator: the score, whatever the minibatch."""
    return lambda position, _minibatch: score(position)


class SGLD(AbstractSampler):
    """Stochastic-gradient Langevin dynamics at a constant step, ``x' = x + h s(x) + sqrt(2 T h) z``.

    With an exact score and T = 1 it is [`ULA`][scoresample.ULA], with ULA's bias of order h. A score that is an
    unbiased estimate (a minibatch drawn inside it) adds noise of its own, so the draws are wider than the target.

    Source: Welling and Teh 2011, ICML, equation 4.

    Attributes:
        step_size: h, in squared units of the position.
        temperature: T; the draws are those of ``p^(1/T)``, up to the bias.

    Examples:
        >>> SGLD(step_size=0.1).needs_density
        False
    """

    name: ClassVar[str] = "sgld"
    reference: ClassVar[str] = "Welling and Teh 2011"
    asymptotically_exact: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    step_size: Array | float = eqx.field(default=0.01, converter=as_parameter)
    temperature: Array | float = eqx.field(default=1.0, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_positive(step_size=self.step_size)
        check_positive(temperature=self.temperature)

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> StochasticGradientState:
        """The state at a position."""
        del score, key
        return StochasticGradientState(promoted(position))

    def step(
        self, score: AbstractScore, state: StochasticGradientState, *, key: Array
    ) -> tuple[StochasticGradientState, dict[str, Array]]:
        """One step of BlackJAX's kernel; one score evaluation."""
        kernel = blackjax.sgld.build_kernel()
        position = kernel(key, state.position, _gradient(score), None, self.step_size, self.temperature)
        return StochasticGradientState(position), {"n_steps": jnp.asarray(1)}

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "SGLD", dict[str, Array]]:
        """Burn in: `num_warmup` steps of every chain, nothing is tuned."""
        states, evaluations = burn_in(self, score, positions, num_warmup, key=key)
        return states, for_each_chain(self, evaluations.shape[0]), {"num_evaluations": evaluations}


class SGHMC(AbstractSampler):
    """Stochastic-gradient Hamiltonian Monte Carlo: trajectories with friction and noise, nothing accepted or rejected.

    A draw takes a fresh momentum and `num_integration_steps` steps of ``x' = x + h p``,
    ``p' = (1 - a h) p + h s(x) + sqrt(h (2 a - b h)) z``. Its bias is of order h. It diverges for h beyond the smallest
    scale of the target.

    Source: Chen, Fox and Guestrin 2014, arXiv 1402.4102, equation 13, in the scaling of Ma, Chen and Fox 2015, arXiv
    1506.04696.

    Attributes:
        step_size: h, in units of the position.
        num_integration_steps: steps in a trajectory.
        friction: a >= 0.
        gradient_noise: b >= 0, an estimate of the variance of the score's own noise; 0 for an exact score.

    Examples:
        >>> SGHMC(step_size=0.1, num_integration_steps=20).needs_density
        False
    """

    name: ClassVar[str] = "sghmc"
    reference: ClassVar[str] = "Chen et al. 2014"
    asymptotically_exact: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    step_size: Array | float = eqx.field(default=0.01, converter=as_parameter)
    num_integration_steps: int = eqx.field(static=True, default=10)
    friction: float = eqx.field(static=True, default=0.01)
    gradient_noise: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_positive(step_size=self.step_size)
        if self.num_integration_steps < 1:
            raise ValueError(f"`num_integration_steps` must be at least 1, got {self.num_integration_steps}.")
        if self.friction < 0 or self.gradient_noise < 0:
            raise ValueError(
                f"`friction` and `gradient_noise` must not be negative, got {self.friction} and {self.gradient_noise}."
            )

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> StochasticGradientState:
        """The state at a position."""
        del score, key
        return StochasticGradientState(promoted(position))

    def step(
        self, score: AbstractScore, state: StochasticGradientState, *, key: Array
    ) -> tuple[StochasticGradientState, dict[str, Array]]:
        """One trajectory of BlackJAX's kernel; `num_integration_steps` score evaluations."""
        kernel = blackjax.sghmc.build_kernel(self.friction, self.gradient_noise)
        position = kernel(key, state.position, _gradient(score), None, self.step_size, self.num_integration_steps)
        return StochasticGradientState(position), {"n_steps": jnp.asarray(self.num_integration_steps)}

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "SGHMC", dict[str, Array]]:
        """Burn in: `num_warmup` trajectories of every chain, nothing is tuned."""
        states, evaluations = burn_in(self, score, positions, num_warmup, key=key)
        return states, for_each_chain(self, evaluations.shape[0]), {"num_evaluations": evaluations}
