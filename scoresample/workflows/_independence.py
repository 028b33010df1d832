"""Independence Metropolis-Hastings over draws that come with the density with which they were drawn."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array

from scoresample.checks import graded_check
from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore
from scoresample.workflows._moves import info_of_moves
from scoresample.workflows._reweight import log_densities

_NUM_CHAINS = 4
_WARN, _FAIL = 0.2, 0.02
"""Acceptance rates: a draw that is kept for five moves on the average, and for fifty."""


def independence_chains(
    draws: Draws, target: AbstractDensityScore, *, key: Array, num_steps: int, batch_size: int | None
) -> Draws:
    """Draws as the proposals of four chains that leave the target invariant; see [`polish`][scoresample.polish].

    The chain at x moves to the next draw y with probability ``min(1, w(y)/w(x))``, ``w = target/proposal``.

    Raises:
        ValueError: if the draws are not independent, do not bring their own density, or are too few.
    """
    if "log_proposal" not in draws.stats or draws.kind != "independent":
        raise ValueError(
            '`method`: "independence" needs independent draws that bring the density with which they were drawn. Draw '
            "them with WithDensity(ProbabilityFlowODE(...)), or take another method."
        )
    num = draws.num_chains * draws.num_draws
    length = num // _NUM_CHAINS
    if length <= num_steps:
        raise ValueError(
            f"`num_steps`: the {num} draws make {_NUM_CHAINS} chains of {length} states, of which {num_steps} are to "
            "be left out. Bring more draws, or leave out fewer."
        )
    log_proposal = np.asarray(draws.stats["log_proposal"], np.float64)
    log_weights = (log_densities(target, draws, batch_size) - log_proposal).ravel()
    failed = np.isnan(log_weights) | np.isposinf(log_weights) | np.asarray(draws.stats.get("folded", False)).ravel()
    log_weights = np.where(failed, -np.inf, log_weights)
    pool = np.arange(_NUM_CHAINS * length).reshape(_NUM_CHAINS, length)
    uniforms = np.asarray(jax.random.uniform(key, pool.shape), np.float64)
    states, accepted = pool.copy(), np.zeros(pool.shape, bool)
    for move in range(1, length):
        held, new = log_weights[states[:, move - 1]], log_weights[pool[:, move]]
        # A weight of zero is left for any other at once, and is never gone to.
        accepted[:, move] = np.isfinite(new) & (~np.isfinite(held) | (np.log1p(-uniforms[:, move]) < new - held))
        states[:, move] = np.where(accepted[:, move], pool[:, move], states[:, move - 1])
    states, accepted = states[:, num_steps:], accepted[:, num_steps:]
    rate = float(accepted.mean())
    check = graded_check(
        "acceptance rate of the independence chains",
        rate,
        warn=_WARN,
        fail=_FAIL,
        smaller_is_better=False,
        cause="Chains stay at draws of large weight: the proposal misses part of the target.",
        remedy="Improve the score or take more steps, or polish by MALA.",
    )
    distinct = len(np.unique(states))
    return dataclasses.replace(
        draws,
        position=jax.tree.map(lambda x: np.asarray(x).reshape(num, *x.shape[2:])[states], draws.position),
        kind="chains",
        log_weights=None,
        stats={
            "non_finite": np.asarray(draws.stats["non_finite"]).ravel()[states],
            "acceptance_rate": accepted.astype(np.float64),
        },
        info=info_of_moves(draws, num, [check])
        | {"num_warmup": num_steps, "acceptance_rate": rate, "num_distinct": distinct, "num_ancestors": distinct},
        nfe=(draws.nfe + 1) * num / states.size,
    )
