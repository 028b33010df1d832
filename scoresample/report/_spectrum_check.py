"""The check of fields: is there as much power on every scale as in the reference."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from scoresample.checks import Check, graded_check
from scoresample.report._fields import FieldStatistics
from scoresample.report._format import human
from scoresample.report._statistics import RunStatistics

POWER_RATIOS = (1.1, 1.2)
"""Ratios of power, or their inverses, without a warning and without a failure."""

FALSE_ALARMS = 1e-4
"""Probability that chance alone takes any band of an exact run beyond its limit, whatever their number."""

_NOTHING = 1e-10
"""Power below this share of the largest is round-off."""


@dataclass(frozen=True)
class PowerRatio:
    """The power of a run over the reference's; all arrays have the shape (bands,).

    Attributes:
        ratio: of the two means.
        log_se: Monte-Carlo standard error of its logarithm.
        in_errors: the logarithm over that error.
        limit: beyond which that is no chance, the number of bands and of effective draws considered.
    """

    ratio: np.ndarray
    log_se: np.ndarray
    in_errors: np.ndarray
    limit: np.ndarray


def power_ratio(found: FieldStatistics, reference: FieldStatistics) -> PowerRatio:
    """Compare two spectra band by band.

    Means of few draws have heavier tails than a normal variable: the limit is a quantile of Student's t with Welch's
    degrees of freedom, at the level that Bonferroni's inequality asks for.

    Arguments:
        found: fields of the run.
        reference: fields of the reference.

    Source: Welch (1947), *The generalization of 'Student's' problem when several different population variances are
    involved*, for the degrees of freedom.
    """
    floor = _NOTHING * float(np.max(reference.power)) or np.finfo(np.float64).tiny
    powers = [np.maximum(side.power, floor) for side in (found, reference)]
    squares = [(side.power_se / power) ** 2 for side, power in zip((found, reference), powers, strict=True)]
    log_ratio, log_se = np.log(powers[0] / powers[1]), np.sqrt(squares[0] + squares[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [
            square**2 / np.maximum(np.nan_to_num(side.power_ess, nan=2.0) - 1, 1)
            for side, square in zip((found, reference), squares, strict=True)
        ]
        freedom = np.where(log_se > 0, log_se**4 / (terms[0] + terms[1]), np.inf)
        in_errors = np.where(log_ratio == 0, 0.0, np.abs(log_ratio) / log_se)
    limit = stats.t.isf(FALSE_ALARMS / (2 * len(log_se)), freedom)
    return PowerRatio(np.exp(log_ratio), log_se, in_errors, np.asarray(limit))


def spectrum_check(run: RunStatistics, found: FieldStatistics, reference: FieldStatistics) -> list[Check]:
    """Check the power spectrum of a run against the reference's.

    Arguments:
        run: statistics of the run.
        found: its fields.
        reference: fields of the reference.

    Returns:
        One check: it fails if the power in some band is off by more than `POWER_RATIOS`, and by more than chance.
    """
    compared = power_ratio(found, reference)
    beyond = compared.in_errors > compared.limit
    size = np.abs(np.log(compared.ratio))
    place = int(np.argmax(np.where(beyond, size, -1.0) if np.any(beyond) else size))
    ratio, wavenumber = float(compared.ratio[place]), round(float(found.wavenumbers[place]))
    rough = ratio > 1
    warn, fail = POWER_RATIOS if rough else tuple(1 / limit for limit in POWER_RATIOS)
    name = f"power spectrum against the reference, ratio farthest from 1 (wavenumber {wavenumber})"
    words, remedy = _words(run, found, wavenumber, rough)
    cause = (
        f"{words} the power at wavenumber {wavenumber} is {human(ratio, 3)} times the reference's, "
        f"{human(float(compared.in_errors[place]), 2)} Monte-Carlo standard errors from it."
    )
    if not np.any(beyond):
        return [Check(name, ratio, warn, True, cause, remedy, "warn")]
    return [graded_check(name, ratio, warn=warn, fail=fail, cause=cause, remedy=remedy, smaller_is_better=rough)]


def _words(run: RunStatistics, found: FieldStatistics, wavenumber: int, rough: bool) -> tuple[str, str]:
    """What is wrong with the scale of a wavenumber, and what to do."""
    chains = run.draws.kind == "chains"
    side = min(found.shape)
    if wavenumber == 0:
        words = f"The mean over all sites is too {'large or too variable' if rough else 'near zero or too constant'}:"
        return words, _large_scales_remedy(chains)
    length = f"waves of {human(side / wavenumber, 2)} sites"
    if wavenumber <= side / 8:
        return f"Large scales are too {'strong' if rough else 'weak'} ({length}):", _large_scales_remedy(chains)
    scales = "Fine scales" if wavenumber > side / 4 else "Middle scales"
    words = f"{scales} are too {'rough' if rough else 'smooth'} ({length}):"
    if chains:
        remedy = (
            "Use a smaller step size or a Metropolis step: the error of a discretised step is largest on fine scales."
        )
    elif rough:
        remedy = (
            "Take more steps at small noise and stop at less of it: leftover noise roughens the fields. If that "
            "changes nothing, train the score longer at small noise levels."
        )
    else:
        remedy = (
            "Train the score longer, or a larger network, with more weight on small noise levels: a score that misses "
            "detail gives blurred fields. Few steps of a deterministic sampler blur too: take more."
        )
    return words, remedy


def _large_scales_remedy(chains: bool) -> str:
    if chains:
        return "Large scales move slowest: run longer, or use a sampler that moves them (a path sampler, wavelets)."
    return (
        "Start the path at a larger noise level. A learned score needs a network that sees the whole field (more "
        "levels of a U-Net), and training at large noise levels."
    )
