"""Microcanonical Langevin Monte Carlo: BlackJAX's kernels and BlackJAX's tuners."""

from collections.abc import Callable
from typing import Any, ClassVar

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.mcmc.adjusted_mclmc_dynamic import make_random_trajectory_length_fn
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, with_parameters
from scoresample.samplers._density import promoted, require_density, statistics_of, untuned
from scoresample.samplers._doors import as_parameter, check_positive, check_share, require_tuned
from scoresample.scores import (
    AbstractDensityScore,
    AbstractScore,
    Position,
    inner_product,
    line_integral,
    logdensity_fn,
)

_EVALUATIONS_PER_STEP = 2
"""Of the minimal-norm integrator (McLachlan) that BlackJAX uses."""
_WORK_NODES = 3
"""Gauss-Legendre nodes of the work along one step; its error is of order h^7, that of the energy of order h^3."""
_APPROACH_STEPS, _APPROACH_GROWTH = 100, 1.5
_LEAST_MEAN_STEPS = 1.2
_TUNING_SHARE = 0.3
"""Of the warm-up for each of the tuner's three parts; a third of one more for the step size."""


def valueless_logdensity_fn(score: AbstractScore) -> Callable[[Position], Array]:
    """A function whose gradient is the score and whose value is zero: only for kernels that ignore values."""

    @jax.custom_jvp
    def value(position: Position) -> Array:
        return jnp.zeros((), jnp.result_type(*jax.tree.leaves(position)))

    @value.defjvp
    def rule(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Array, Array]:
        products = jax.tree.map(jnp.vdot, score(primals[0]), tangents[0])
        return value(primals[0]), jax.tree.reduce(jnp.add, products)

    return value


def _shift_by(start: Position) -> Callable[[Position], Position]:
    """From a chain's start as the origin back to positions.

    BlackJAX's tuners estimate a variance as ``E x^2 - (E x)^2``, which cancels in float32 far from the origin.
    """
    return lambda position: jax.tree.map(jnp.add, position, start)


def _at_zero(state: Any) -> Any:
    return state._replace(position=jax.tree.map(jnp.zeros_like, state.position))


def approach(score: AbstractScore, position: Position) -> Position:
    """Climb towards the bulk from far outside, where BlackJAX's tuner of MCLMC would shrink its step to nothing.

    Steps of a length that adapts along the score's direction, each kept if it gains more than one nat per dimension and
    does not jump over the bulk. Hardly a step in the bulk gains so much, so a chain that starts there stays there.

    Arguments:
        score: any score.
        position: a start.

    Returns:
        A position; it cost `_APPROACH_STEPS + 1` score evaluations.
    """
    leaves = jax.tree.leaves(position)
    dimension, dtype = sum(leaf.size for leaf in leaves), jnp.result_type(*leaves)

    def body(_: Array, carry: tuple[Position, Position, Array]) -> tuple[Position, Position, Array]:
        here, uphill, length = carry
        stride = length / jnp.sqrt(jnp.maximum(inner_product(uphill, uphill), jnp.finfo(dtype).tiny))
        there = jax.tree.map(lambda x, s: x + stride.astype(x.dtype) * s, here, uphill)
        beyond = score(there)
        onwards = inner_product(uphill, beyond)  # negative beyond the bulk: such a step may have jumped over it
        gain = stride * (inner_product(uphill, uphill) + onwards) / 2
        kept = jnp.isfinite(gain) & (gain > dimension) & (onwards >= 0)
        here, uphill = jax.tree.map(lambda new, old: jnp.where(kept, new, old), (there, beyond), (here, uphill))
        return here, uphill, jnp.where(kept, _APPROACH_GROWTH, 0.5).astype(dtype) * length

    first = (position, score(position), jnp.asarray(dimension**0.5 / 4, dtype))
    return jax.lax.fori_loop(0, _APPROACH_STEPS, body, first)[0]


def require_two_dimensions(sampler: AbstractSampler, position: Position) -> None:
    """Raise a ValueError on the line, where a direction of constant speed cannot turn."""
    dimension = sum(jnp.size(leaf) for leaf in jax.tree.leaves(position))
    if dimension < 2:
        raise ValueError(
            f"`target` has {dimension} dimension, but {type(sampler).__name__} moves at constant speed and needs at "
            "least 2. Use NUTS()."
        )


class MCLMC(AbstractSampler):
    """Unadjusted microcanonical Langevin Monte Carlo.

    Dynamics of constant speed whose direction the score turns and noise decoheres over a length L. Nothing is accepted
    or rejected, so its invariant law is off by order h^2 in the step h; the tuner chooses h so that the variance of
    the energy error stays at `desired_energy_var` per dimension. That error is measured as the work done along each
    step, an integral of the score, so a score without a density will do.

    Source: Robnik, De Luca, Silverstein and Seljak 2023, arXiv 2212.08549; Robnik and Seljak 2023, arXiv 2303.18221.

    Attributes:
        steps_per_draw: integrator steps from one draw to the next, in the warm-up too.
        desired_energy_var: variance of the energy error per dimension; smaller is less biased and slower.
        decoherence_length: L; None until it is tuned.
        step_size: h; None until it is tuned.
        inverse_mass_matrix: estimated variances of the coordinates; None until they are tuned.

    Examples:
        >>> MCLMC(steps_per_draw=5).needs_density
        False
    """

    name: ClassVar[str] = "mclmc"
    reference: ClassVar[str] = "Robnik et al. 2023"
    asymptotically_exact: ClassVar[bool] = False
    needs_density: ClassVar[bool] = False

    steps_per_draw: int = eqx.field(static=True, default=10)
    desired_energy_var: float = eqx.field(static=True, default=5e-4)
    decoherence_length: Array | float | None = eqx.field(default=None, converter=as_parameter)
    step_size: Array | float | None = eqx.field(default=None, converter=as_parameter)
    inverse_mass_matrix: Array | None = eqx.field(default=None, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        if self.steps_per_draw < 1:
            raise ValueError(f"`steps_per_draw` must be at least 1, got {self.steps_per_draw}.")
        check_positive(
            desired_energy_var=self.desired_energy_var,
            decoherence_length=self.decoherence_length,
            step_size=self.step_size,
            inverse_mass_matrix=self.inverse_mass_matrix,
        )

    def _logdensity(self, score: AbstractScore) -> Callable[[Position], Array]:
        return logdensity_fn(score) if isinstance(score, AbstractDensityScore) else valueless_logdensity_fn(score)

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's state at a position: with a direction."""
        require_two_dimensions(self, position)
        return blackjax.mclmc.init(promoted(position), self._logdensity(score), key)

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """`steps_per_draw` steps of BlackJAX's kernel, of two score evaluations each."""
        kernel, logdensity = blackjax.mclmc.build_kernel(), self._logdensity(score)

        def body(state: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
            state, info = kernel(
                key, state, logdensity, self.inverse_mass_matrix, self.decoherence_length, self.step_size
            )
            return state, (info.energy_change, info.nonans)

        state, (energy, finite) = jax.lax.scan(body, state, jax.random.split(key, self.steps_per_draw))
        stats = {"n_steps": jnp.asarray(_EVALUATIONS_PER_STEP * self.steps_per_draw), "diverging": ~finite.all()}
        if isinstance(score, AbstractDensityScore):
            stats |= {"lp": state.logdensity, "energy_error": energy.sum()}
        return state, stats

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "MCLMC", dict[str, Array]]:
        """BlackJAX's tuner of step, variances and decoherence length, ``num_warmup * steps_per_draw`` steps long.

        Chains that start far outside the bulk climb towards it first.
        """
        positions = promoted(positions)
        num_chains = jax.tree.leaves(positions)[0].shape[0]
        key_init, key_run = jax.random.split(key)
        if num_warmup > 0:
            positions = jax.vmap(lambda position: approach(score, position))(positions)
        else:
            require_tuned(self, "step_size", "decoherence_length")
        states = jax.vmap(lambda p, k: self.init(score, p, key=k))(positions, jax.random.split(key_init, num_chains))
        if num_warmup == 0:
            return states, untuned(self, positions), {"num_evaluations": jnp.ones((num_chains,), int)}
        num_steps, logdensity = num_warmup * self.steps_per_draw, self._logdensity(score)

        def one_chain(state: Any, key: Array) -> tuple[Any, Any]:
            shift = _shift_by(state.position)
            state, parameters, _ = blackjax.mclmc_find_L_and_step_size(
                self._tuning_kernel(lambda x: score(shift(x))),
                num_steps,
                _at_zero(state),
                key,
                logdensity_fn=lambda x: logdensity(shift(x)),
                frac_tune1=_TUNING_SHARE,
                frac_tune2=_TUNING_SHARE,
                frac_tune3=_TUNING_SHARE,
                desired_energy_var=self.desired_energy_var,
            )
            return state._replace(position=shift(state.position)), parameters

        states, tuned = jax.vmap(one_chain)(states, jax.random.split(key_run, num_chains))
        sampler = with_parameters(
            self, decoherence_length=tuned.L, step_size=tuned.step_size, inverse_mass_matrix=tuned.inverse_mass_matrix
        )
        third = round(_TUNING_SHARE * num_steps)  # a third of a third tunes the step once more, with the variances
        tuning = 2 * third + round(third / 3)
        evaluations = _APPROACH_STEPS + 2 + _EVALUATIONS_PER_STEP * (tuning + third) + _WORK_NODES * tuning
        evaluations = jnp.full((num_chains,), evaluations)
        facts = {"step_size": tuned.step_size, "decoherence_length": tuned.L}
        return states, sampler, {"num_evaluations": evaluations, **facts}

    def _tuning_kernel(self, score: Callable[[Position], Position]) -> Callable[..., Any]:
        """BlackJAX's kernel, with the energy error from the work along the step.

        Also where there is a density: far from the bulk its values are so large that their difference in float32 is
        rounding error, whatever the step, and a tuner that believes it shrinks the step to nothing.
        """
        kernel = blackjax.mclmc.build_kernel()

        def with_work(rng_key: Array, state: Any, **parameters: Any) -> tuple[Any, Any]:
            after, info = kernel(rng_key, state, **parameters)
            change = info.kinetic_change - line_integral(score, state.position, after.position, _WORK_NODES)
            finite = jnp.isfinite(change)
            return after, info._replace(
                energy_change=jnp.where(finite, change, 0.0).astype(info.energy_change.dtype),
                nonans=info.nonans & finite,
            )

        return with_work


class AdjustedMCLMC(AbstractSampler):
    """Metropolis-adjusted microcanonical Monte Carlo, with trajectories of random length.

    It leaves the target invariant. A proposal is a trajectory of constant speed; its length is drawn uniformly with
    mean `num_integration_steps`.

    Source: Robnik, Cohn-Gordon and Seljak 2025, arXiv 2503.01707.

    Attributes:
        num_integration_steps: mean number of steps in a trajectory.
        target_acceptance_rate: what the step size is tuned to.
        step_size: the integrator's step; None until it is tuned.
        inverse_mass_matrix: estimated variances of the coordinates; None until they are tuned.

    Examples:
        >>> AdjustedMCLMC().needs_density
        True
    """

    name: ClassVar[str] = "adjusted-mclmc"
    reference: ClassVar[str] = "Robnik et al. 2025"
    asymptotically_exact: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True

    num_integration_steps: float = eqx.field(static=True, default=10.0)
    target_acceptance_rate: float = eqx.field(static=True, default=0.9)
    step_size: Array | float | None = eqx.field(default=None, converter=as_parameter)
    inverse_mass_matrix: Array | None = eqx.field(default=None, converter=as_parameter)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)
        check_positive(inverse_mass_matrix=self.inverse_mass_matrix)
        if self.num_integration_steps < _LEAST_MEAN_STEPS:
            raise ValueError(
                f"`num_integration_steps` must be at least {_LEAST_MEAN_STEPS}, got {self.num_integration_steps}: "
                "below, the tuner drives the step size to zero."
            )

    def _kernel(self) -> Callable[..., Any]:
        return blackjax.adjusted_mclmc_dynamic.build_kernel(
            integration_steps_fn=make_random_trajectory_length_fn(random_trajectory_length=True)
        )

    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """BlackJAX's state at a position: with a key of its own for the lengths of trajectories."""
        require_two_dimensions(self, position)
        return blackjax.adjusted_mclmc_dynamic.init(
            promoted(position), logdensity_fn(require_density(self, score)), key
        )

    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One transition of BlackJAX's kernel, of two score evaluations for each step of the trajectory."""
        state, info = self._kernel()(
            key,
            state,
            logdensity_fn(require_density(self, score)),
            self.step_size,
            inverse_mass_matrix=self.inverse_mass_matrix,
            integration_steps_params=(self.num_integration_steps,),
        )
        return state, statistics_of(state, info, _EVALUATIONS_PER_STEP * info.num_integration_steps)

    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "AdjustedMCLMC", dict[str, Array]]:
        """BlackJAX's tuner of step and variances, `num_warmup` transitions long."""
        logdensity = logdensity_fn(require_density(self, score))
        positions = promoted(positions)
        num_chains = jax.tree.leaves(positions)[0].shape[0]
        key_init, key_run = jax.random.split(key)
        states = jax.vmap(lambda p, k: self.init(score, p, key=k))(positions, jax.random.split(key_init, num_chains))
        if num_warmup == 0:
            require_tuned(self, "step_size")
            return states, untuned(self, positions), {"num_evaluations": jnp.ones((num_chains,), int)}

        def one_chain(state: Any, key: Array) -> tuple[Any, Any, Any]:
            shift = _shift_by(state.position)
            state, parameters, steps = blackjax.adjusted_mclmc_find_L_and_step_size(
                self._kernel(),
                lambda x: logdensity(shift(x)),
                num_warmup,
                _at_zero(state),
                key,
                target=self.target_acceptance_rate,
                frac_tune1=0.35,
                frac_tune2=0.3,
                target_num_integration_steps=self.num_integration_steps,
            )
            return state._replace(position=shift(state.position)), parameters, steps

        states, tuned, steps = jax.vmap(one_chain)(states, jax.random.split(key_run, num_chains))
        sampler = with_parameters(self, step_size=tuned.step_size, inverse_mass_matrix=tuned.inverse_mass_matrix)
        evaluations = _EVALUATIONS_PER_STEP * steps + 1
        return states, sampler, {"num_evaluations": evaluations, "step_size": tuned.step_size}
