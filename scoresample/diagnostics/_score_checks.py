"""What the measures of a perturbed score are held against."""

import numpy as np

from scoresample.checks import Check, graded_check
from scoresample.diagnostics._null import Distance
from scoresample.diagnostics._score_measures import Measured

_LITTLE = 0.1
"""Of what the draws gain over a Gaussian: a score so close to the Gaussian has learned nothing else."""
_STANDARD_ERRORS = 3.0
"""Differences within so many standard errors are taken for chance."""
_PREDICTABLE = 0.95
"""Asymmetry is judged where some prediction leaves at most this share of the noise. Closer to the data the score is
that of the clean law, whose Jacobian is far below 1/sigma^2: there even a network that loses nothing had 0.6."""

# Each pair is (warn, fail). They were chosen with 1,024 held-out draws of four laws (two narrow modes in 2-d, a
# correlated normal in 2-d, a standard normal in 10-d, two modes in 5-d), by what was found for their exact scores under
# VP and VE in single precision; for networks trained on 4,000 draws for 60 epochs, and for 3; for exact scores times
# 1.1, times 1.3, with the sign flipped, and with 0.3 of the score turned by a quarter in one plane:
#                           exact     60 epochs    3 epochs     x 1.1        x 1.3        sign      turned
#   residual                < 2e-6    0.01-0.17    0.02-0.22    0.13-0.14    0.46-0.51    2.4-2.6   0.05-0.22
#   asymmetry               < 1e-7    0.02-0.04    0.03-0.12        0            0            0          0.14-0.29
#   excess over a Gaussian  0         0            0-0.04       1.7-5.7      16-51        > 700     6-51
#   excess over the draws   0         0            0-0.9        1.7-5.7      16-51        > 700     6-51
#   ODE-SDE gap             0.3-0.8   0.3-0.9      0.8-0.9      1.0          2.1          9.9       0.5
_RESIDUAL_LIMITS = (0.3, 1.0)
_ASYMMETRY_LIMITS = (0.05, 0.2)
_GAUSSIAN_LIMITS = (0.02, 0.2)
_EMPIRICAL_LIMITS = (0.05, 0.5)
_GAP_LIMITS = (1.5, 3.0)


def score_checks(
    found: Measured, asymmetries: np.ndarray, noise: np.ndarray, gap: Distance | None, *, probed: bool
) -> list[Check]:
    """Hold the measures of a score against their limits.

    Arguments:
        found: squares by level and point.
        asymmetries: shares of the Jacobian, by level.
        noise: sigma/alpha of the levels in standard deviations of the data.
        gap: the ODE-SDE gap, or None.
        probed: whether the residual's squares are products of two estimates, whose mean may fall below zero by chance.
    """
    return [
        _residual_check(found.residual, probed),
        _asymmetry_check(np.where(_telling(found), asymmetries, 0.0), noise),
        _gaussian_check(found, noise),
        _empirical_check(found, noise),
        *([] if gap is None else [_gap_check(gap)]),
    ]


def _telling(found: Measured) -> np.ndarray:
    """The levels where some prediction of the noise does well; all of them if there is none."""
    losses = [np.mean(loss, axis=1) for loss in (found.loss, found.gaussian, found.empirical)]
    telling = np.nanmin(losses, axis=0) < _PREDICTABLE * np.mean(found.constant, axis=1)
    return telling if telling.any() else np.ones_like(telling)


def _residual_check(residual: np.ndarray, probed: bool) -> Check:
    warn, fail = _RESIDUAL_LIMITS
    mean = np.mean(residual)
    if probed:
        mean -= _STANDARD_ERRORS * np.std(np.mean(residual, axis=0)) / np.sqrt(residual.shape[1])
    return graded_check(
        "residual of the Fokker-Planck equation in units of the noise, all levels",
        float(np.sqrt(np.maximum(mean, 0.0))),
        warn=warn,
        fail=fail,
        cause="The scores of neighbouring noise levels are not those of one density: samplers that take the levels "
        "differently (ODE, SDE, Langevin) draw from different laws.",
        remedy="Train longer, on more draws or with a wider network; if the score is your own, check its sign, its "
        "scale, its noise process and what it takes as time.",
    )


def _asymmetry_check(asymmetries: np.ndarray, noise: np.ndarray) -> Check:
    warn, fail = _ASYMMETRY_LIMITS
    place = int(np.argmax(asymmetries))
    return graded_check(
        f"asymmetry of the score, worst level (noise {noise[place]:.3g})",
        float(asymmetries[place]),
        warn=warn,
        fail=fail,
        cause=f"At noise {noise[place]:.3g} data standard deviations the score's Jacobian is not symmetric, so the "
        "score is no gradient of a log density.",
        remedy="Train longer or on more draws, or train the gradient of a scalar network.",
    )


def _gaussian_check(found: Measured, noise: np.ndarray) -> Check:
    warn, fail = _GAUSSIAN_LIMITS
    excess, place = _worst_excess(found.loss, found.gaussian)
    constant = np.mean(found.loss[place]) > np.mean(found.constant[place])
    what = "a constant guess of the noise" if constant else "the normal law with the data's means and variances"
    return graded_check(
        f"excess of the denoising loss over a Gaussian's, worst level (noise {noise[place]:.3g})",
        excess,
        warn=warn,
        fail=fail,
        cause=f"At noise {noise[place]:.3g} data standard deviations the score predicts the noise of held-out draws "
        f"worse than {what}.",
        remedy="Train longer or on more draws; if the score is your own, check its sign, its scale, its noise process "
        "and its standardisation.",
    )


def _empirical_check(found: Measured, noise: np.ndarray) -> Check:
    warn, fail = _EMPIRICAL_LIMITS
    excess, place = _worst_excess(found.loss, found.empirical)
    loss, gaussian, empirical = (np.mean(x[place]) for x in (found.loss, found.gaussian, found.empirical))
    cause = f"At noise {noise[place]:.3g} data standard deviations the held-out draws predict each other better than "
    cause += "the score does: it misses structure of the data"
    if abs(gaussian - loss) < _LITTLE * (gaussian - empirical):
        cause += ", and has learned nothing but mean and scale"
    return graded_check(
        f"excess of the denoising loss over that of the draws themselves, worst level (noise {noise[place]:.3g})",
        excess,
        warn=warn,
        fail=fail,
        cause=f"{cause}.",
        remedy="Train longer, or with a wider network.",
    )


def _gap_check(gap: Distance) -> Check:
    warn, fail = _GAP_LIMITS
    return graded_check(
        "ODE-SDE gap, over the 95% quantile of its null",
        gap.value / gap.null_95,
        warn=warn,
        fail=fail,
        cause="The probability-flow ODE and the reverse SDE draw different laws from this score: it is not that of one "
        "noised density.",
        remedy="Train longer; until then prefer the SDE, whose noise forgets errors that the ODE keeps.",
    )


def _worst_excess(loss: np.ndarray, other: np.ndarray) -> tuple[float, int]:
    """The largest ratio of losses minus 1, less three standard errors of their paired difference; and its level."""
    if not np.isfinite(loss).all():
        return float("nan"), int(np.argmin(np.isfinite(loss).all(axis=1)))
    difference = loss - other
    error = np.std(difference, axis=1) / np.sqrt(loss.shape[1])
    excess = (np.mean(difference, axis=1) - _STANDARD_ERRORS * error) / np.mean(other, axis=1)
    place = int(np.argmax(excess))
    return max(float(excess[place]), 0.0), place
