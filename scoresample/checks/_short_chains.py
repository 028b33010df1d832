"""Were many short chains long enough, and did they move."""

from collections.abc import Mapping

import numpy as np

from scoresample.checks._check import Check, graded_check

_WARN_MEMORY, _FAIL_MEMORY = 0.2, 0.5
"""Over half of the frozen moves: 4% and 25% over all of them, and the square of that or less from the start on."""
_LEAST_RATE, _MOST_RATE = 0.2, 0.95
_WARN_STUCK, _FAIL_STUCK = 0.01, 0.1


def short_chain_checks(stats: Mapping[str, np.ndarray]) -> list[Check]:
    """The checks that follow from a run of many short Metropolised chains, on its worst batch.

    Arguments:
        stats: by name, with one entry a batch: ``autocorrelation_bound``, the lower confidence bound of the chains'
            largest autocorrelation over half of the frozen moves, not a number for a batch of too few chains;
            ``frozen_acceptance_rate``; ``stuck_share``.
    """
    bounds = np.asarray(stats["autocorrelation_bound"], np.float64).ravel()
    untold = bool(np.isnan(bounds).all())
    autocorrelation = np.nan if untold else float(np.nanmax(bounds))
    rates = np.asarray(stats["frozen_acceptance_rate"], np.float64).ravel()
    acceptance_rate = float(rates[np.argmax(np.maximum(_LEAST_RATE - rates, rates - _MOST_RATE))])
    accepted = _LEAST_RATE <= acceptance_rate <= _MOST_RATE
    too_many = acceptance_rate > _MOST_RATE
    return [
        Check(
            "memory of the short chains",
            autocorrelation,
            _WARN_MEMORY,
            False,
            "All batches have fewer than eight chains: nothing can be said about whether they were long enough.",
            "Raise `batch_size` or `num_samples`.",
            "warn",
        )
        if untold
        else graded_check(
            "memory of the short chains",
            autocorrelation,
            warn=_WARN_MEMORY,
            fail=_FAIL_MEMORY,
            cause="Some direction of the chains still depends on where they were many moves before, so that the draws "
            "depend on the start: the chains are too short.",
            remedy="Raise `num_steps`, or scale the coordinates alike. Where modes are apart no number of moves is "
            "enough: take a sampler that comes down from noise, such as ReverseSDE.",
        ),
        Check(
            "acceptance rate of the short chains",
            acceptance_rate,
            _MOST_RATE if too_many else _LEAST_RATE,
            accepted,
            "Nearly all moves are accepted, so the steps are too short to get anywhere."
            if too_many
            else "Most moves are rejected, so the chains hardly move.",
            "Raise `num_warmup`, which tunes the step size, or give another `step_size` to start from.",
            "warn",
        ),
        graded_check(
            "share of chains that stand still",
            float(np.mean(stats["stuck_share"])),
            warn=_WARN_STUCK,
            fail=_FAIL_STUCK,
            cause="Chains share a step size, and for some it is far too long (or the score where they are is not "
            "finite): they accepted less than a twentieth of their moves.",
            remedy="Give a `step_size` that suits all with `num_warmup=0`, tune to a higher `target_acceptance_rate`, "
            "or sample conditions of different scale apart.",
        ),
    ]
