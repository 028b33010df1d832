"""Short Markov chains from many draws at once, side by side and with one step size."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks import Check, short_chain_checks
from scoresample.diagnostics import coordinates, normalized_weights, systematic_resample
from scoresample.inference import Draws
from scoresample.samplers import NUTS, AbstractSampler, chain_memory, tune_step_size
from scoresample.scores import AbstractDensityScore
from scoresample.workflows._regions import regional_checks
from scoresample.workflows._reweight import log_densities
from scoresample.workflows._whitened import Whitened, whitened

_TUNING_CHAINS = 128
"""Chains in which the step size is tuned; their moves are thrown away."""
_STUCK = 0.05
"""Chains that accept less stand still."""
_LEFT_OUT = 5
"""One part in so many of the moves comes before those whose memory is measured: draws that come too wide or too narrow
are on their way then, which looks like memory."""


def moved(
    draws: Draws,
    target: AbstractDensityScore,
    key: Array,
    sampler: Any,
    num_steps: int,
    num_warmup: int,
    step_size: float | None,
    dense: bool | None,
    batch_size: int | None,
) -> Draws:
    """Draws resampled by their weights, if they have any, and moved; see [`polish`][scoresample.polish].

    Arguments:
        draws: the draws.
        target: the density that the moves leave invariant.
        key: random key.
        sampler: whose moves, in coordinates in which the draws have covariance 1.
        num_steps: moves of every chain.
        num_warmup: moves that tune the step size.
        step_size: the step size, or None to tune it.
        dense: whether the coordinates use correlations, or None where there are draws enough.
        batch_size: the most chains at a time.
    """
    key_resample, key_tune, key_move, key_memory = jax.random.split(key, 4)
    shape = (draws.num_chains, draws.num_draws)
    rows = coordinates(draws).reshape(shape[0] * shape[1], -1)
    ancestors = np.arange(len(rows))
    if draws.log_weights is not None:
        seed = int(jax.random.randint(key_resample, (), 0, np.iinfo(np.int32).max))
        ancestors = systematic_resample(normalized_weights(draws), len(rows), seed=seed)
        shape = (1, len(rows))
    rows = rows[ancestors]
    _check_starts(draws, target, ancestors, batch_size)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], jnp.asarray(x[:0]).dtype), draws.position)
    settled = draws.log_weights is not None
    score, u, num_scores = whitened(target, like, rows, settled=settled, dense=dense, batch_size=batch_size)
    starts = jnp.asarray(u, float)
    if isinstance(sampler, NUTS):
        sampler = dataclasses.replace(sampler, inverse_mass_matrix=jnp.ones(starts.shape[1]))
    if step_size is None:
        few = starts[jnp.asarray(np.linspace(0, len(u) - 1, min(len(u), _TUNING_CHAINS)).astype(int))]
        step_size, evaluations = _tune(score, sampler, few, num_warmup, key_tune)
    else:
        evaluations = 0
    sampler = dataclasses.replace(sampler, step_size=jnp.asarray(step_size, float))
    run = _run(score, sampler, starts, num_steps, key_move, batch_size)
    memory = _memory((run.before, run.middle, run.end), key_memory)
    facts = {
        "acceptance_rate": float(np.mean(run.acceptance_rate)),
        "step_size": float(step_size),
        "autocorrelation": float(memory.autocorrelation),
        "autocorrelation_bound": float(memory.bound),
        "stuck_share": float(np.mean(run.acceptance_rate < _STUCK)),
        "start_end_correlation": _largest_correlation(np.asarray(u), np.asarray(run.end)),
        "num_distinct": len(np.unique(run.end, axis=0)),
        "num_ancestors": len(np.unique(ancestors)),
    }
    checks = short_chain_checks(
        {
            "autocorrelation_bound": np.array([facts["autocorrelation_bound"]]),
            "frozen_acceptance_rate": np.array([facts["acceptance_rate"]]),
            "stuck_share": np.array([facts["stuck_share"]]),
        }
    )
    if not checks[0].passed:
        instead = regional_checks(draws, ancestors, np.asarray(u), np.asarray(run.end))
        checks = checks if instead is None else instead + checks[1:]
    evaluations += num_scores + len(rows) + int(run.evaluations.sum())  # one of each to check the starts
    position = jax.tree.map(
        lambda x, old: np.asarray(x).astype(old.dtype).reshape(*shape, *old.shape[2:]),
        _positions(score, jnp.asarray(run.end)),
        draws.position,
    )
    return dataclasses.replace(
        draws,
        position=position,
        kind=draws.kind if draws.log_weights is None else "interacting",
        log_weights=None,
        stats={
            "non_finite": ~np.isfinite(run.end).all(axis=1).reshape(shape),
            "acceptance_rate": run.acceptance_rate.reshape(shape),
        },
        info=info_of_moves(draws, evaluations, checks) | facts,
        nfe=draws.nfe + evaluations / len(rows),
    )


def info_of_moves(draws: Draws, evaluations: int, checks: list[Check]) -> dict[str, Any]:
    """What goes over from draws to what becomes of them; how they were drawn no longer bears on their law."""
    kept = {name: draws.info[name] for name in ("log_z", "log_z_se", "compile_seconds") if name in draws.info}
    before = draws.info.get("num_evaluations", 0)
    return {"num_warmup": 0, "num_evaluations": before + evaluations, "checks": checks, **kept}


def _check_starts(draws: Draws, target: AbstractDensityScore, ancestors: np.ndarray, batch_size: int | None) -> None:
    values = log_densities(target, draws, batch_size).ravel()[ancestors]
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"`draws`: {bad} of {values.size} lie where the target has no finite log density, and chains cannot start "
            "there. Weigh the draws first, which gives such draws no weight: reweight(draws, target)."
        )


class _Run(NamedTuple):
    """Chains before, between and after two equal stretches of moves, and by chain their rates and evaluations."""

    before: np.ndarray
    middle: np.ndarray
    end: np.ndarray
    acceptance_rate: np.ndarray
    evaluations: np.ndarray


def _run(
    score: Whitened, sampler: AbstractSampler, starts: Array, num_steps: int, key: Array, batch_size: int | None
) -> _Run:
    """All chains, block by block; the last block is filled up with the first chains."""
    num, lag = len(starts), (num_steps - num_steps // _LEFT_OUT) // 2
    size = num if batch_size is None else min(batch_size, num)
    blocks = []
    for number, first in enumerate(range(0, num, size)):
        index = np.arange(first, first + size) % num
        states = _start(score, sampler, starts[index])
        rates, spent, seen = np.zeros(size), np.ones(size, int), []
        for stretch, length in enumerate((num_steps - 2 * lag, lag, lag)):
            if length:
                key_stretch = jax.random.fold_in(jax.random.fold_in(key, number), stretch)
                states, rate, evaluations = _advance(score, sampler, states, key_stretch, length)
                rates, spent = rates + np.asarray(rate, np.float64), spent + np.asarray(evaluations)
            seen.append(np.asarray(states.position))
        blocks.append((*seen, rates / num_steps, spent))
    return _Run(*(np.concatenate(parts)[:num] for parts in zip(*blocks, strict=True)))


@eqx.filter_jit
def _start(score: Whitened, sampler: AbstractSampler, positions: Array) -> Any:
    return jax.vmap(lambda u: sampler.init(score, u, key=jax.random.key(0)))(positions)


@eqx.filter_jit
def _advance(
    score: Whitened, sampler: AbstractSampler, states: Any, key: Array, num_steps: int
) -> tuple[Any, Array, Array]:
    """Some moves of all chains: the states, the sum of acceptance rates and the evaluations of each chain."""
    number = states.position.shape[0]

    def body(carry: tuple[Any, Array, Array], key: Array) -> tuple[tuple[Any, Array, Array], None]:
        states, rates, evaluations = carry
        keys = jax.random.split(key, number)
        states, stats = jax.vmap(lambda state, key: sampler.step(score, state, key=key))(states, keys)
        rate = jnp.nan_to_num(stats["acceptance_rate"]).astype(rates.dtype)
        return (states, rates + rate, evaluations + stats["n_steps"].astype(evaluations.dtype)), None

    zeros = jnp.zeros(number), jnp.zeros(number, int)
    return jax.lax.scan(body, (states, *zeros), jax.random.split(key, num_steps))[0]


@eqx.filter_jit
def _positions(score: Whitened, u: Array) -> Any:
    return jax.vmap(score.position)(u)


_memory: Callable[..., Any] = eqx.filter_jit(
    lambda snapshots, key: chain_memory(jax.tree.map(jnp.asarray, snapshots), same_law=True, key=key)
)


def _tune(score: Whitened, sampler: Any, starts: Array, num_warmup: int, key: Array) -> tuple[float, int]:
    """The median of the step sizes that single chains find, and the evaluations it took."""
    _, _, facts = _tune_all(score, sampler, starts, num_warmup, key)
    found = np.asarray(facts["step_size"], np.float64)
    found = found[np.isfinite(found) & (found > 0)]
    if not found.size:
        raise ValueError("`target`: no step size could be tuned at the draws. Give a `step_size`, and check the score.")
    return float(np.median(found)), int(np.sum(facts["num_evaluations"]))


@eqx.filter_jit
def _tune_all(score: Whitened, sampler: Any, starts: Array, num_warmup: int, key: Array) -> Any:
    return tune_step_size(sampler, score, starts, num_warmup, key=key)


def _largest_correlation(start: np.ndarray, end: np.ndarray) -> float:
    """The largest correlation of a coordinate of the chains between two times; nan for a chain alone."""
    first, last = start - start.mean(axis=0), end - end.mean(axis=0)
    scale = np.sqrt(np.sum(first**2, axis=0) * np.sum(last**2, axis=0))
    usable = scale > 0
    if not usable.any():
        return float("nan")
    return float(np.max(np.sum(first * last, axis=0)[usable] / scale[usable]))
