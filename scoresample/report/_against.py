"""The checks of a run against the reference: is it off by more than chance, and by enough to matter."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scoresample.checks import Check, graded_check
from scoresample.diagnostics import Distance, MomentErrors
from scoresample.inference import UNKNOWN
from scoresample.report._format import counted, human
from scoresample.report._statistics import Deviation, RunStatistics

MEAN_ERROR_LIMITS = (0.1, 0.3)
"""In standard deviations of the reference."""

SD_RATIO_BOUNDS = ((0.9, 1.1), (0.7, 1.4))
"""Ratios of standard deviations without a warning, and without a failure."""

BEYOND_CHANCE = 4.0
"""Monte-Carlo standard errors: 1 in 16,000 by chance, so that even hundreds of quantities rarely raise an alarm."""

NULL_FACTORS = (1.5, 3.0)
"""Multiples of the null's 95% quantile. None of 144 exact samples of 1 to 12 dimensions came beyond 1.5."""


def reference_checks(run: RunStatistics, deviation: Deviation) -> list[Check]:
    """Check a run against the reference.

    Arguments:
        run: statistics of the run.
        deviation: what it shows against the reference.

    Returns:
        Checks of means, of standard deviations, and of two distances beside their nulls. The distances are left out
        where either side is worth too few draws to judge them; all are where no quantity varies in the reference.
    """
    if np.all(np.isnan(deviation.moments.mean_error)):
        return []
    checks = [_mean_error(run, deviation.moments), _sd_ratio(run, deviation.moments)]
    if deviation.conclusive:
        checks.append(_distance(run, "sliced Wasserstein-2 distance", deviation.sliced_wasserstein))
        checks.append(_distance(run, "energy distance", deviation.energy))
    return checks


def unverified_check(run: RunStatistics, why: str) -> list[Check]:
    """Say which draws carry no evidence about their own bias.

    Independent draws and particles have no chains that could disagree; the chains of a sampler with a bias of its own
    (unadjusted Langevin) can agree on a wrong answer. Only chains that are exact in the limit vouch for themselves.

    Arguments:
        run: statistics of the run.
        why: why there is nothing to compare them with, as a clause.
    """
    exact = run.draws.attributes.get("asymptotically_exact", True)
    remedy = "Compare with a run you trust (reference=...), such as long chains with a Metropolis step."
    if run.draws.kind != "chains":
        reason = "they have no chains that could disagree"
    elif exact == UNKNOWN:
        reason = "it is not known whether their sampler is asymptotically exact (chains of one that is not can agree)"
        remedy = f"If it is, say `asymptotically_exact=True` where they are brought in. {remedy}"
    elif not exact:
        reason = "chains of a sampler that is not asymptotically exact can agree on a wrong answer"
    else:
        return []
    cause = f"Nothing vouches for these draws: {why}, and {reason}."
    return [Check("compared with a trusted reference", 0.0, 1.0, False, cause, remedy, "warn")]


def distrust(checks: Sequence[Check], reference: str) -> list[Check]:
    """Turn failures against a reference that failed its own checks into warnings that say so.

    Arguments:
        checks: checks against the reference.
        reference: its name.
    """
    prefix = f"This comparison is with an untrusted reference ({reference} failed its own checks)."
    remedy = "Mend the reference first: see its own checks."
    return [
        check if check.passed else replace(check, severity="warn", cause=f"{prefix} {check.cause}", remedy=remedy)
        for check in checks
    ]


def _mean_error(run: RunStatistics, moments: MomentErrors) -> Check:
    in_errors = moments.mean_error / moments.mean_error_se
    place, significant = _worst(moments.mean_error, in_errors)
    quantity, value = moments.names[place], float(moments.mean_error[place])
    cause = (
        f"The mean of {quantity} is {human(value, 2)} reference standard deviations from the reference's, "
        f"{human(float(in_errors[place]), 2)} Monte-Carlo standard errors: this is bias, not chance."
    )
    return _beyond_chance(
        f"standardised error of the mean, worst of all quantities ({quantity})",
        value,
        MEAN_ERROR_LIMITS,
        significant,
        cause,
        _bias_remedy(run),
    )


def _sd_ratio(run: RunStatistics, moments: MomentErrors) -> Check:
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(moments.sd_ratio))
    place, significant = _worst(distance, distance / moments.log_sd_ratio_se)
    quantity, ratio = moments.names[place], float(moments.sd_ratio[place])
    (low_warn, high_warn), (low_fail, high_fail) = SD_RATIO_BOUNDS
    narrow = ratio < 1
    shape = "too narrow" if narrow else "too wide"
    return _beyond_chance(
        f"ratio of standard deviations, farthest from 1 ({quantity})",
        ratio,
        (low_warn, low_fail) if narrow else (high_warn, high_fail),
        significant,
        f"The draws are {shape} in {quantity}: its standard deviation is {human(ratio, 2)} times the reference's.",
        _spread_remedy(run, narrow),
        smaller_is_better=not narrow,
    )


def _distance(run: RunStatistics, name: str, distance: Distance) -> Check:
    ratio = distance.value / distance.null_95
    cause = (
        f"The {name} to the reference is {human(distance.value, 2)}, {human(ratio, 2)} times what two halves of the "
        f"reference exceed one time in twenty ({human(distance.null_95, 2)}; {counted(distance.size, 'draw')} a side)."
    )
    warn, fail = NULL_FACTORS
    return graded_check(
        f"{name}, over the 95% quantile of its null", ratio, warn=warn, fail=fail, cause=cause, remedy=_bias_remedy(run)
    )


def _worst(sizes: np.ndarray, in_errors: np.ndarray) -> tuple[int, bool]:
    """Place of the largest value among those beyond chance, or of all where chance explains every one."""
    beyond = in_errors > BEYOND_CHANCE
    return int(np.nanargmax(np.where(beyond, sizes, -1.0) if np.any(beyond) else sizes)), bool(np.any(beyond))


def _beyond_chance(
    name: str,
    value: float,
    limits: tuple[float, float],
    significant: bool,
    cause: str,
    remedy: str,
    smaller_is_better: bool = True,
) -> Check:
    check = graded_check(
        name,
        value,
        warn=limits[0],
        fail=limits[1],
        cause=cause,
        remedy=remedy,
        smaller_is_better=smaller_is_better,
    )
    return check if significant else replace(check, passed=True, threshold=limits[0], severity="warn")


def _bias_remedy(run: RunStatistics) -> str:
    if run.draws.kind == "chains":
        return (
            "Run longer from dispersed starts. If the sampler has no Metropolis step, use a smaller step size or add "
            "one; if the target has several modes, use a path sampler on perturb(...) or fit_score(...)."
        )
    return (
        "Take more steps along the path. If that changes nothing, the score itself is off: train it longer or on "
        "more draws, or start the path at a larger noise level."
    )


def _spread_remedy(run: RunStatistics, narrow: bool) -> str:
    if run.draws.kind == "chains":
        if narrow:
            return "Run longer from dispersed starts, and look for modes and tails that the chains never visited."
        return "Use a smaller step size or a Metropolis step, and drop a longer warm-up."
    if narrow:
        return "Start the path at a larger noise level, and train a learned score on draws that cover the tails."
    return "Take more steps, and end the path at a smaller noise level: leftover noise widens the draws."
