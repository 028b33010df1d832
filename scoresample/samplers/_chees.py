"""Hamiltonian Monte Carlo with trajectories of varying length: BlackJAX's dynamic HMC, tuned by ChEES."""

from typing import Any, ClassVar

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from blackjax.mcmc.dynamic_hmc import halton_sequence
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, for_each_chain, with_parameters
from scoresample.samplers._density import count_steps, promoted, require_density, statistics_of, untuned
from scoresample.samplers._doors import as_parameter, check_positive, check_share, require_tuned
from scoresample.scores import AbstractScore, Position, logdensity_fn

_HALTON_BITS = 20
"""The sequence of trajectory lengths repeats after 2^20 draws."""
_START_STEP_SIZE = 0.1
_LEARNING_RATE = 0.025
"""Of Adam on the logarithm of the trajectory length, as in the paper's section 4."""


def _next_count(count: Array) -> Array:
    return count + 1


def _num_steps(count: Array, longest: Array) -> Array:
    """The trajectory of draw number `count`: a quasi-random share of the longest, and at least one step."""
    return jnp.maximum(jnp.ceil(halton_sequence(count, _HALTON_BITS) * longest), 1).astype(int)


class DynamicHMC(AbstractSampler):
    """Hamiltonian Monte Carlo whose trajectories have quasi-random lengths, tuned on all chains together by ChEES.

    It leaves the target invariant. The length, the step size and the variances are shared by all chains, which take
    the same number of steps at the same time: made for many chains (16 or more) and wide hardware, where NUTS waits
    for its longest tree. The warm-up needs at least two chains.

    Source: Hoffman, Radul and Sountsov 2021, AISTATS, PMLR 130 (ChEES).

    Attributes:
        target_acceptance_rate: what the step size is tuned to.
        max_num_steps: longest trajectory in the warm-up.
        step_size: the leapfrog step; None until it is tuned.
        num_integration_steps: steps of the longest trajectory; lengths lie evenly between one and it.
        inverse_mass_matrix: estimated variances of the coordinates; None until they are tuned.

    Examples:
        >>> DynamicHMC().needs_density
        True
    """

    name: ClassVar[str] = "dynamic-hmc"
    reference: ClassVar[str] = "Hoffman et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    target_acceptance_rate: float = eqx.field(static=True, default=0.651)
    max_num_steps: int = eqx.field(static=True, default=1000)
    step_size: Array | float | None = eqx.field(default=None, converter=as_parameter)
    num_integration_steps: Array | float | None = eqx.field(default=None, converter=as_parameter)
    inverse_mass_matrix: Array | None = eqx.field(default=None, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(
            max_num_steps=self.max_num_steps,
            step_size=self.step_size,
            num_integration_steps=self.num_integration_steps,
            inverse_mass_matrix=self.inverse_mass_matrix,
        )

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's state at a position, with a counter in it."""
        del key
        logdensity = logdensity_fn(require_density(self, score))
        return blackjax.dynamic_hmc.init(promoted(position), logdensity, jnp.zeros((), int))

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One transition of BlackJAX's kernel."""
        kernel = blackjax.dynamic_hmc.build_kernel(next_random_arg_fn=_next_count, integration_steps_fn=_num_steps)
        state, info = kernel(
            key,
            state,
            logdensity_fn(require_density(self, score)),
            self.step_size,
            self.inverse_mass_matrix,
            (self.num_integration_steps,),
        )
        return state, statistics_of(state, info, info.num_integration_steps)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "DynamicHMC", dict[str, Array]]:
        """BlackJAX's ChEES adaptation of all chains together, with estimated variances."""
        positions = promoted(positions)
        leaves = jax.tree.leaves(positions)
        num_chains = leaves[0].shape[0]
        if num_warmup == 0:
            require_tuned(self, "step_size", "num_integration_steps")
            states = jax.vmap(lambda position: self.init(score, position, key=key))(positions)
            return states, untuned(self, positions), {"num_evaluations": jnp.ones((num_chains,), int)}
        if num_chains < 2:
            raise ValueError(
                "`num_chains` (or `batch_size`) is 1, but ChEES tunes DynamicHMC by comparing chains. Run at least 2, "
                "better 16, at once, or use NUTS()."
            )
        adaptation = blackjax.chees_adaptation(
            logdensity_fn(require_density(self, score)),
            num_chains,
            target_acceptance_rate=self.target_acceptance_rate,
            max_leapfrog_steps=self.max_num_steps,
            mass_matrix_estimation="diagonal",
            adaptation_info_fn=count_steps,
        )
        start = jnp.asarray(_START_STEP_SIZE, leaves[0].dtype) if self.step_size is None else self.step_size
        run: Any = adaptation.run
        (states, tuned), info = run(key, positions, start, optax.adam(_LEARNING_RATE), num_warmup)
        values = {
            "step_size": tuned["step_size"],
            "num_integration_steps": tuned["integration_steps_params"][0],
            "inverse_mass_matrix": tuned["inverse_mass_matrix"],
        }
        sampler: Any = for_each_chain(with_parameters(self, **values), num_chains)
        evaluations = info._wrapped_info.sum(axis=0) + 1
        facts = {"step_size": sampler.step_size, "num_integration_steps": sampler.num_integration_steps}
        return states, sampler, {"num_evaluations": evaluations, **facts}
