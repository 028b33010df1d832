"""Many short Metropolis-adjusted Langevin chains side by side, at the last level of a path."""

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractDensityPath,
    AbstractPerturbedScore,
    AbstractScorePath,
    as_delta,
    as_time,
    check_concrete,
    check_delta,
)
from scoresample.samplers._base import AbstractPathSampler, Plan, dimension_of, inner_products
from scoresample.samplers._chain_memory import ChainMemory, chain_memory
from scoresample.samplers._doors import (
    check_at_least,
    check_noise_to_stop_at,
    check_path,
    check_positive,
    check_share,
)
from scoresample.samplers._finish import finish
from scoresample.samplers._ladders import noised_ladder
from scoresample.samplers._mala_move import MALAState, mala_init, mala_move
from scoresample.scores import Position

_GAIN, _GAIN_DECAY = 2.0, 0.6
"""Of Robbins and Monro's recursion. Near the target a change of log h changes the acceptance rate by -0.57 times it."""
_GAIN_CONSTANT = 0.25
"""Share of the warm-up before the gain decays."""
_PATIENCE, _MOST_SETBACKS, _CAUTION = 3.0, 23.0, 4.0
"""In the warm-up a chain divides its step by 4 for each rejection beyond 3, where an acceptance makes up for two."""
_MOST_TUNING = 25.0
"""The logarithm of the step size stays within this of where it started."""
_STUCK = 0.05
"""A chain that accepts a smaller share of its moves stands still."""


class ParallelMALAStep(NamedTuple):
    """One move of all chains: its level, and what becomes of the step size and of the records after it.

    Attributes:
        t: the level.
        gain: of the recursion on the step size; 0 where it is frozen.
        averaged: weight of this step in the running average of log h, which is what the step size is frozen to.
        freezes: whether this is the last move that tunes.
        counted: weight of this move in the running average of what frozen moves do.
        snapshot: which snapshot to take after it: 0, 1, or -1 for none.
        last: whether this is the last move.
    """

    t: Array
    gain: Array
    averaged: Array
    freezes: Array
    counted: Array
    snapshot: Array
    last: Array


class ParallelMALAState(NamedTuple):
    """The chains, the step size that they share, and records of the frozen part.

    Attributes:
        chains: positions in standard coordinates, scores, log densities.
        log_step_size: log h.
        log_step_size_average: its average over the tail of the warm-up.
        log_step_size_start: where it started.
        acceptance_rate: mean acceptance probability of the frozen moves so far.
        setbacks: rejections of each chain in the warm-up, less two for each acceptance.
        accepted: share of its frozen moves that each chain accepted.
        snapshots: two earlier positions.
    """

    chains: MALAState
    log_step_size: Array
    log_step_size_average: Array
    log_step_size_start: Array
    acceptance_rate: Array
    setbacks: Array
    accepted: Array
    snapshots: tuple[Position, Position]

    @property
    def position(self) -> Position:
        """The particles."""
        return self.chains.position


class ParallelMALA(AbstractPathSampler[AbstractScorePath]):
    """One short Metropolis-adjusted Langevin chain for each particle, at the last level of a path: no annealing.

    From a draw of the Gaussian with the data's mean and variances (of the reference, on a tempered path) every particle
    takes `num_steps` moves ``x + h s(x) + sqrt(2 h) z``, accepted or rejected by the density where the path has one,
    else from the score alone as by the corrector ``"metropolis"`` of [`PredictorCorrector`][
    scoresample.PredictorCorrector]. For laws with one mode that are not badly conditioned, such as the conditional laws
    of wavelet coefficients given coarser scales, one of which each particle may have for itself: there it takes a
    hundred evaluations and needs no score but that of the last level. Separated modes keep the shares of the start.

    The step size h is shared by a batch. The first `num_warmup` moves tune it to `target_acceptance_rate` by the
    recursion of Robbins and Monro, ``log h <- log h + gain (acceptance - target)`` with gains that fall from 2, and
    freeze it to the average of log h over their second half (Polyak and Juditsky 1992). Until then, chains that were
    rejected several times in a row take shorter steps, so that those which start far out, where the score is steep,
    come in. From there on every move leaves p_t invariant: the law of the data, with noise of variance `delta`. Exactly
    where the path has a density or its logarithm is a polynomial of degree four along moves; else with an error of
    order ``|y - x|^5`` in the acceptance. What is left is that chains are finite. With `denoise`, draws of a noised
    path end with ``E[x_0 | x_t]``; without it they have the law p_t.

    `Draws.info` holds the ``level_step_size`` and ``acceptance_rate`` of every move, for each batch, and what
    `Draws.info["checks"]` looks at, all of the moves with a frozen step: ``frozen_acceptance_rate``; ``stuck_share``,
    of the chains that accepted less than a twentieth of their moves; ``autocorrelation``, of the chains over half of
    these moves in the direction where it is surely largest, and ``autocorrelation_bound``, its lower confidence bound,
    from the displacements of the chains without further evaluations. Chains that have to find their law, or to cross
    it, remember where they were. Where each particle has its own condition, modes that no chain leaves are not seen.

    Source: Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181 (MALA scale by scale, since conditional laws across
    wavelet scales are log-concave). Many short chains: Margossian et al. 2024, arXiv 2110.13017. The acceptance rate
    0.574: Roberts and Rosenthal 1998, JRSS B 60(1).

    Attributes:
        num_steps: moves of every chain. One or two score evaluations each: two where the path has no density.
        num_warmup: how many of them tune the step size; None for half.
        target_acceptance_rate: what it is tuned to.
        step_size: h, in squared units of the standard coordinates: where tuning starts, and what is used with
            ``num_warmup=0``. If None, ``d^(-1/3)`` of what the scores at the start suggest.
        denoise: end with the posterior mean of the clean point (noised paths only).
        delta: variance of the noise at the level of the chains, (sigma/alpha)^2 in the path's standard coordinates;
            None for the end of the score's range. Noised paths only.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> draws = ss.sample(path, ss.ParallelMALA(num_steps=100), key=jax.random.key(0), num_samples=100)
        >>> draws.position.shape, all(check.passed for check in draws.info["checks"])
        ((1, 400, 2), True)
    """

    name: ClassVar[str] = "parallel-mala"
    reference: ClassVar[str] = "Guth et al. 2023"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=200)
    num_warmup: int | None = eqx.field(static=True, default=None)
    target_acceptance_rate: float = eqx.field(static=True, default=0.574)
    step_size: float | None = eqx.field(static=True, default=None)
    denoise: bool = eqx.field(static=True, default=True)
    delta: float | None = eqx.field(static=True, default=None, converter=as_delta)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(2, num_steps=self.num_steps)
        check_share(target_acceptance_rate=self.target_acceptance_rate)
        check_positive(step_size=self.step_size)
        check_delta(self.delta, None)
        if self.num_warmup is None:
            return
        check_at_least(0, num_warmup=self.num_warmup)
        if self.num_warmup > self.num_steps - 2:
            raise ValueError(
                f"`num_warmup` must leave two or more of the {self.num_steps} `num_steps` with a frozen step size, got "
                f"{self.num_warmup}."
            )
        if self.num_warmup == 0 and self.step_size is None:
            raise ValueError("`num_warmup` is 0, so there must be a `step_size`. Give one, or let the warm-up tune it.")

    def plan(self, path: AbstractScorePath, *, key: Array) -> Plan:
        """The last level, and what each move does to the step size."""
        del key
        check_path(path, AbstractScorePath, self)
        check_concrete(path)
        check_noise_to_stop_at(path, self.delta)
        noised = isinstance(path, AbstractPerturbedScore)
        t = noised_ladder(path, None, 1, self.delta).t[-1] if noised else 0.0
        num_warmup = self.num_steps // 2 if self.num_warmup is None else self.num_warmup
        number = np.arange(self.num_steps)
        frozen = number - num_warmup + 1
        tail = number - num_warmup // 2 + 1
        lag = (self.num_steps - num_warmup) // 2
        tunes = number < num_warmup
        decay = np.maximum(number + 1.0 - _GAIN_CONSTANT * num_warmup, 1.0) ** -_GAIN_DECAY
        snapshot = np.full(self.num_steps, -1)
        snapshot[self.num_steps - 1 - lag] = 1
        if self.num_steps > 2 * lag:
            snapshot[self.num_steps - 1 - 2 * lag] = 0
        steps = ParallelMALAStep(
            t=jnp.full(self.num_steps, t, dtype=float),
            gain=jnp.asarray(np.where(tunes, _GAIN * decay, 0.0), dtype=float),
            averaged=jnp.asarray(np.where(tunes & (tail > 0), 1 / np.maximum(tail, 1), 0.0), dtype=float),
            freezes=jnp.asarray(number == num_warmup - 1),
            counted=jnp.asarray(np.where(frozen > 0, 1 / np.maximum(frozen, 1), 0.0), dtype=float),
            snapshot=jnp.asarray(snapshot, dtype=int),
            last=jnp.asarray(number == self.num_steps - 1),
        )
        nfe = 1 + self.num_steps * (1 if isinstance(path, AbstractDensityPath) else 2) + int(self.denoise and noised)
        return Plan(steps.t[0], steps.t[-1], steps, nfe)

    def init(self, path: AbstractScorePath, particles: Position, plan: Plan, *, key: Array) -> ParallelMALAState:
        """The particles as they come, with their scores: one evaluation."""
        del key
        t = as_time(plan.t_start, particles)
        chains = mala_init(path, particles, t, by_density=isinstance(path, AbstractDensityPath))
        dimension = dimension_of(path.structure)
        if self.step_size is None:
            # In equilibrium the mean square of the score is the trace of the curvature.
            curvature = inner_products(chains.score, chains.score) / dimension
            start = -jnp.log(_median_of_finite(curvature)) - np.log(dimension) / 3
        else:
            start = jnp.full((), np.log(self.step_size))
        start = start.astype(t.dtype)
        zeros = jnp.zeros(jax.tree.leaves(particles)[0].shape[0], t.dtype)
        return ParallelMALAState(chains, start, start, start, zeros[0], zeros, zeros, (particles, particles))

    def step(
        self, path: AbstractScorePath, state: ParallelMALAState, plan_step: ParallelMALAStep, *, key: Array
    ) -> tuple[ParallelMALAState, dict[str, Array]]:
        """One move of every chain."""
        t = as_time(plan_step.t, state.position)
        gain, averaged, counted = (
            weight.astype(t.dtype) for weight in (plan_step.gain, plan_step.averaged, plan_step.counted)
        )
        h = jnp.exp(state.log_step_size)
        tunes = gain > 0
        held = jnp.maximum(state.setbacks - _PATIENCE, 0.0)
        own = h * jnp.where(tunes, _CAUTION**-held, 1.0)
        chains, probability, accept = mala_move(path, state.chains, t, own, key=key)
        free = (~(tunes & (held > 0))).astype(t.dtype)
        rate = jnp.sum(free * probability) / jnp.maximum(jnp.sum(free), 1.0)
        setbacks = jnp.where(accept, jnp.maximum(state.setbacks - 2, 0), state.setbacks + 1)
        begin = state.log_step_size_start
        tuned = state.log_step_size + gain * (rate - self.target_acceptance_rate)
        tuned = jnp.clip(tuned, begin - _MOST_TUNING, begin + _MOST_TUNING)
        average = state.log_step_size_average + averaged * (tuned - state.log_step_size_average)
        snapshots = tuple(
            jax.tree.map(lambda new, old, k=k: jnp.where(plan_step.snapshot == k, new, old), chains.position, snapshot)
            for k, snapshot in enumerate(state.snapshots)
        )
        state = ParallelMALAState(
            chains=chains,
            log_step_size=jnp.where(plan_step.freezes, average, tuned),
            log_step_size_average=average,
            log_step_size_start=begin,
            acceptance_rate=state.acceptance_rate + counted * (rate - state.acceptance_rate),
            setbacks=jnp.minimum(setbacks, _MOST_SETBACKS),
            accepted=state.accepted + counted * (accept.astype(t.dtype) - state.accepted),
            snapshots=(snapshots[0], snapshots[1]),
        )
        memory = jax.lax.cond(
            plan_step.last,
            lambda: chain_memory(
                (*state.snapshots, state.position),
                same_law=path.condition_axes() is None,
                key=jax.random.fold_in(key, 1),
            ),
            lambda: ChainMemory(jnp.full((), jnp.nan, t.dtype), jnp.full((), jnp.nan, t.dtype)),
        )
        return state, {
            "acceptance_rate": rate,
            "level_step_size": h,
            "frozen_acceptance_rate": state.acceptance_rate,
            "stuck_share": jnp.mean(state.accepted < _STUCK, dtype=t.dtype),
            "autocorrelation": memory.autocorrelation,
            "autocorrelation_bound": memory.bound,
        }

    def final(self, path: AbstractScorePath, state: ParallelMALAState, plan: Plan) -> tuple[Position, Array | None]:
        """The denoised particles, or the particles in the scale of the data."""
        if not isinstance(path, AbstractPerturbedScore):
            return state.position, None
        return finish(path, state.position, plan.t_final, denoise=self.denoise), None

    def refined(self, factor: int) -> "ParallelMALA":
        """The same sampler with `factor` times as many moves."""
        num_warmup = None if self.num_warmup is None else factor * self.num_warmup
        return dataclasses.replace(self, num_steps=factor * self.num_steps, num_warmup=num_warmup)


def _median_of_finite(values: Array) -> Array:
    """The median of the finite values; 1 where that is not a positive number."""
    finite = jnp.isfinite(values)
    middle = jnp.sort(jnp.where(finite, values, jnp.inf))[jnp.sum(finite, dtype=jnp.int32) // 2]
    return jnp.where(jnp.isfinite(middle) & (middle > 0), middle, 1.0)
