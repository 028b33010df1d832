"""BlackJAX's Hamiltonian samplers with BlackJAX's own window adaptation."""

import abc
from typing import Any, ClassVar

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, with_parameters
from scoresample.samplers._density import count_steps, promoted, require_density, statistics_of, untuned
from scoresample.samplers._doors import check_positive, check_share, require_tuned
from scoresample.scores import AbstractScore, Position, logdensity_fn


class AbstractHamiltonian(AbstractSampler):
    """What BlackJAX's Hamiltonian samplers share: the state, the window adaptation and the statistics.

    Attributes:
        target_acceptance_rate: what the step size is tuned to.
        dense_mass_matrix: adapt a full mass matrix instead of a diagonal.
        step_size: the leapfrog step; None until it is tuned.
        inverse_mass_matrix: estimated covariance, diagonal or dense; None until it is tuned.
    """

    target_acceptance_rate: AbstractVar[float]
    dense_mass_matrix: AbstractVar[bool]
    step_size: AbstractVar[Array | float | None]
    inverse_mass_matrix: AbstractVar[Array | None]

    @abc.abstractmethod
    def algorithm(self) -> Any:
        """The BlackJAX algorithm."""

    @abc.abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The algorithm's parameters that are not adapted."""

    @abc.abstractmethod
    def extra_stats(self, info: Any) -> dict[str, Array]:
        """Statistics of a step beyond those that all Hamiltonian samplers have."""

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's HMC state at a position."""
        del key
        return self.algorithm().init(promoted(position), logdensity_fn(require_density(self, score)))

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One transition of BlackJAX's kernel."""
        kernel = self.algorithm().build_kernel()
        state, info = kernel(
            key,
            state,
            logdensity_fn(require_density(self, score)),
            step_size=self.step_size,
            inverse_mass_matrix=self.inverse_mass_matrix,
            **self.parameters(),
        )
        return state, statistics_of(state, info, info.num_integration_steps) | self.extra_stats(info)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "AbstractHamiltonian", dict[str, Array]]:
        """Stan's window adaptation of every chain, by BlackJAX."""
        logdensity = logdensity_fn(require_density(self, score))
        positions = promoted(positions)
        num_chains = jax.tree.leaves(positions)[0].shape[0]
        if num_warmup == 0:
            require_tuned(self, "step_size")
            sampler: Any = untuned(self, positions)
            states = jax.vmap(lambda position: self.init(score, position, key=key))(positions)
            evaluations = jnp.ones((num_chains,), int)
        else:
            adaptation = blackjax.window_adaptation(
                self.algorithm(),
                logdensity,
                is_mass_matrix_diagonal=not self.dense_mass_matrix,
                target_acceptance_rate=self.target_acceptance_rate,
                adaptation_info_fn=count_steps,
                **self.parameters(),
            )

            run: Any = adaptation.run

            def one_chain(position: Position, key: Array) -> tuple[Any, dict[str, Array], Array]:
                result, num_steps = run(key, position, num_warmup)
                return result.state, result.parameters, jnp.sum(num_steps) + 1

            states, tuned, evaluations = jax.vmap(one_chain)(positions, jax.random.split(key, num_chains))
            sampler = with_parameters(
                self, step_size=tuned["step_size"], inverse_mass_matrix=tuned["inverse_mass_matrix"]
            )
        return states, sampler, {"num_evaluations": evaluations, "step_size": sampler.step_size}


class NUTS(AbstractHamiltonian):
    """The no-U-turn sampler: BlackJAX's kernel and BlackJAX's window adaptation of step size and mass matrix.

    It leaves the target invariant. Chains that start in different modes may never meet: watch R-hat.

    Source: Hoffman and Gelman 2014, arXiv 1111.4246, with multinomial sampling (Betancourt 2017, arXiv 1701.02434).

    Attributes:
        target_acceptance_rate: what the step size is tuned to; raise it when transitions diverge.
        dense_mass_matrix: adapt a full mass matrix instead of a diagonal.
        max_num_doublings: trajectories have at most ``2**max_num_doublings`` leapfrog steps.
        step_size: the leapfrog step; tuned in the warm-up.
        inverse_mass_matrix: estimated covariance, diagonal or dense; tuned in the warm-up.

    Examples:
        >>> NUTS(target_acceptance_rate=0.95).needs_density
        True
    """

    name: ClassVar[str] = "nuts"
    reference: ClassVar[str] = "Hoffman and Gelman 2014"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    target_acceptance_rate: float = eqx.field(static=True, default=0.8)
    dense_mass_matrix: bool = eqx.field(static=True, default=False)
    max_num_doublings: int = eqx.field(static=True, default=10)
    step_size: Array | float | None = None
    inverse_mass_matrix: Array | None = None

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)
        if self.max_num_doublings < 1:
            raise ValueError(f"`max_num_doublings` must be at least 1, got {self.max_num_doublings}.")

    def algorithm(self) -> Any:
        """`blackjax.nuts`."""
        return blackjax.nuts

    def parameters(self) -> dict[str, Any]:
        """The largest number of doublings."""
        return {"max_num_doublings": self.max_num_doublings}

    def extra_stats(self, info: Any) -> dict[str, Array]:
        """The depth of the tree, and whether it hit the limit."""
        depth = jnp.asarray(info.num_trajectory_expansions)
        return {"tree_depth": depth, "reached_max_treedepth": depth >= self.max_num_doublings}


class HMC(AbstractHamiltonian):
    """Hamiltonian Monte Carlo with a fixed number of leapfrog steps: BlackJAX's kernel and window adaptation.

    It leaves the target invariant.

    Source: Duane et al. 1987, Physics Letters B 195(2); Neal 2011, arXiv 1206.1901.

    Attributes:
        num_integration_steps: leapfrog steps in a trajectory.
        target_acceptance_rate: what the step size is tuned to.
        dense_mass_matrix: adapt a full mass matrix instead of a diagonal.
        step_size: the leapfrog step; tuned in the warm-up.
        inverse_mass_matrix: estimated covariance, diagonal or dense; tuned in the warm-up.

    Examples:
        >>> HMC(num_integration_steps=16).needs_density
        True
    """

    name: ClassVar[str] = "hmc"
    reference: ClassVar[str] = "Duane et al. 1987"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    num_integration_steps: int = eqx.field(static=True, default=10)
    target_acceptance_rate: float = eqx.field(static=True, default=0.8)
    dense_mass_matrix: bool = eqx.field(static=True, default=False)
    step_size: Array | float | None = None
    inverse_mass_matrix: Array | None = None

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)
        if self.num_integration_steps < 1:
            raise ValueError(f"`num_integration_steps` must be at least 1, got {self.num_integration_steps}.")

    def algorithm(self) -> Any:
        """`blackjax.hmc`."""
        return blackjax.hmc

    def parameters(self) -> dict[str, Any]:
        """The number of leapfrog steps."""
        return {"num_integration_steps": self.num_integration_steps}

    def extra_stats(self, info: Any) -> dict[str, Array]:
        """Nothing more."""
        return {}
