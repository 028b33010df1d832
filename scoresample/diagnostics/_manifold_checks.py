"""What the geometry of a perturbed score is held against."""

import math

import numpy as np

from scoresample.checks import Check, graded_check
from scoresample.diagnostics._data_dimension import DataDimension
from scoresample.diagnostics._finite_energy import FiniteEnergy

_STANDARD_ERRORS = 3.0

# Chosen with 2,048 held-out draws by what was found for exact scores (circle, cube and normal law on planes in 20-d,
# correlated normals in 2-d, 10-d and 20-d, two modes in 2-d), for those of the noised circle's own samples of 50 to
# 4,000 points, for exact scores of the plane times 0.9, 1.1 and 1.3, and for networks trained on 2,000 points of a
# circle in 8-d for 60 and 300 epochs. The columns are the values of the checks, a dash where nothing was seen:
#                       exact   sample 50  200    1,000   4,000 to .01   x 0.9, 1.1    x 1.3   60 epochs   300 epochs
#   error of the score  -       85         4.5    0.21    -              0.010         0.077   0.32        0.11
#   memory (FLIPD)      0       953        56     2.7     0.03           0             0       0           0
#   agreement           0       0.2        0      0       0              0.8-1.6       11      0.9         0.5
# FLIPD of the sample of 4,000 sampled to noise .002, four times its spacing, gave 0.30 in the second row.
_ENERGY_LIMITS = (0.0, 0.2)
_MEMORY_LIMITS = (0.25, 0.6)
_AGREEMENT_LIMIT = 0.25
_STOPPING_LIMIT = 0.03
"""What a direction whose scale is ten times the last noise still gains: 1/(1 + 1/100) - 1/(1 + 4/100)."""


def energy_check(energy: FiniteEnergy, size: int) -> Check:
    """Whether the integral of the score's error converges, and how large an error that does not is.

    The value is the integrand at the last level for each coordinate, 0 where no error is seen, not finite where the
    score is not. An integral that is
    found to diverge fails where that is large, and warns elsewhere: every network has such an error, and a small one
    moves no draw visibly.
    """
    rate = float(energy.rate[-1]) / size
    if math.isfinite(rate) and not energy.seen:
        rate = 0.0
    words = "finite-energy integral, the error seen at the last level in nats for each e-fold and coordinate"
    if energy.verdict == "finite" or (energy.verdict == "cannot tell" and not energy.seen):
        return Check(f"{words}: {energy.verdict}", rate, _ENERGY_LIMITS[1], True, "", "", "warn")
    cause = (
        "The error of the score, as noise that it predicts wrongly, does not fall with the noise: its divergence from "
        "the data grows with every e-fold, so that nothing guarantees draws on the support of the data, and they may "
        "keep to a few points of it."
        if energy.verdict == "infinite"
        else "The score has an error near the data, and whether it falls fast enough with the noise to keep the draws "
        "on the support of the data cannot be told from these levels."
    )
    remedy = (
        "Train longer at little noise, or on a network that predicts the noise there; stop sampling where the "
        "integrand is still small."
    )
    fails = energy.verdict == "infinite" and not rate <= _ENERGY_LIMITS[1]
    limit = _ENERGY_LIMITS[1] if fails else _ENERGY_LIMITS[0]
    return Check(f"{words}: {energy.verdict}", rate, limit, False, cause, remedy, "fail" if fails else "warn")


def memory_check(noise: np.ndarray, held_out: np.ndarray, training: np.ndarray, dimension: float) -> Check:
    """FLIPD at held-out points less that at training points, beyond chance, over the dimension."""
    warn, fail = _MEMORY_LIMITS
    gap = np.mean(held_out, axis=1) - np.mean(training, axis=1)
    chance = np.hypot(
        np.std(held_out, axis=1) / np.sqrt(held_out.shape[1]), np.std(training, axis=1) / np.sqrt(training.shape[1])
    )
    beyond = np.maximum(gap - _STANDARD_ERRORS * chance, 0.0) / max(1.0, dimension)
    place = int(np.argmax(np.where(np.isfinite(beyond), beyond, np.inf)))
    value = float(beyond[place])
    return graded_check(
        f"FLIPD at training against held-out points over the dimension, worst level (noise {noise[place]:.3g})",
        value,
        warn=warn,
        fail=fail,
        cause=f"At noise {noise[place]:.3g} the score tells training points from held-out ones: it has learned the "
        "sample and not the law, and draws fall back on training points.",
        remedy="Stop sampling at more noise, stop training earlier, or train on more draws.",
    )


def break_check(break_noise: float, last: float) -> Check:
    """Whether FLIPD breaks above the noise at which sampling stops."""
    broken = np.isfinite(break_noise)
    return Check(
        "noise at which FLIPD leaves its plateau, over that at which sampling stops",
        break_noise / last if broken else 0.0,
        1.0,
        not broken,
        f"From noise {break_noise:.3g} on down the score is not that of the data's own noised law, and sampling goes "
        f"on to {last:.3g}: the last steps follow the sample, or the network's errors, and not the law.",
        "Stop sampling above the break (`delta` of the sampler), or train on more draws.",
        "warn",
    )


def agreement_check(difference: DataDimension, dimension: float) -> Check:
    """Whether the estimates of the dimension agree, beyond chance and relative to it."""
    beyond = max(difference.value - _STANDARD_ERRORS * difference.se, 0.0) / max(1.0, dimension)
    return Check(
        "difference of the estimates of the dimension beyond chance, over the dimension",
        beyond,
        _AGREEMENT_LIMIT,
        bool(beyond <= _AGREEMENT_LIMIT),
        "Blow-up, FLIPD and the spectrum of the score give different dimensions on the plateau: the score is that of "
        "no single manifold there.",
        "Train longer; on curved or multiscale data look at less noise.",
        "warn",
    )


def stopping_check(drop: float, drop_se: float, dimension: float, last: float) -> Check:
    """Whether the last level resolves the smallest scale of the data."""
    limit = _STOPPING_LIMIT * max(1.0, dimension)
    beyond = drop - _STANDARD_ERRORS * drop_se
    return Check(
        "directions still coming into sight between twice the last noise and the last, beyond chance",
        beyond,
        limit,
        bool(beyond <= limit),
        f"Sampling stops at noise {last:.3g} before the smallest scale of the data is resolved, or the score no longer "
        "grows as the noise falls: what is thinner comes out blurred.",
        "Sample to less noise: a tenth of the smallest scale leaves 1% of its variance.",
        "warn",
    )
