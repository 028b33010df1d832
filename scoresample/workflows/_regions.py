"""Chains that do not cross between regions whose shares are known from weights."""

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2

from scoresample.checks import Check
from scoresample.diagnostics import kish_ess, normalized_weights, pareto_smoothed
from scoresample.inference import Draws

_NUMBERS = (2, 4, 8, 16, 32, 64)
"""Of regions, from few to many: with more of them chains have less to forget, and more shares have to be known."""
_LEAST_ESS, _LEAST_SHARE = 1000.0, 0.1
"""Of the effective size, in all and in the number of draws: fewer leave the shares of regions to a few draws."""
_MOST_MEMORY = 0.2
"""Within regions: what is left of the error that draws had inside of them, which their weights have made small."""
_MOST_WRONG = 0.05
"""Total variation that wrong shares may leave."""
_FEWEST_CHAINS = 30
"""In a region on the average, for each coordinate: fewer fit their own mean and scale."""


def regional_checks(draws: Draws, ancestors: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[Check] | None:
    """Two checks in the place of that of the chains' memory, where both are passed; None where they are not.

    Let ``c`` be the region of a start. If the law of a chain's end depends on its start through c alone, chains from
    the shares ``a_c`` end with the law ``sum_c a_c P_c``, and the target, which the moves leave invariant, is
    ``sum_c p_c P_c`` with its own shares ``p_c``. The two differ by at most ``sum_c |a_c - p_c| / 2`` in total
    variation, whether chains cross between regions or not, and however regions are cut. So chains need to forget only
    where in their region they were; what they were resampled by has to know the shares. It knows them up to

    * the spread of self-normalised weights, ``sum w_i^2 (1_c(x_i) - a_c)^2`` (weights of sum 1) for each share, whose
      root times sqrt(2/pi) is the mean error;
    * what is beyond the largest weight. Under the tail of a Pareto law of shape k, n draws leave out about
      ``max w/(1 - k)`` of the mass: the expectation of what the weight at the exceedance 1/n or a larger one carries.
      It is infinite from k = 1 on.

    Smoothed weights do not tell the largest, so that they get no such checks.

    Regions are found by k-means among the starts, in coordinates in which all directions count alike for the chains.
    Memory is the largest canonical correlation of starts with ends over all moves, between coordinates and their
    squares with the mean and scale of every region taken out. It is not corrected for chance, which makes it larger. A
    region without draws is no part of this, as anywhere.

    Arguments:
        draws: the weighted draws that chains started from.
        ancestors: which draw each chain started from, (n,).
        starts: where, in the coordinates of the chains, (n, d).
        ends: where they ended, (n, d).
    """
    if draws.kind != "independent" or draws.log_weights is None or draws.info.get("smoothed", False):
        return None
    weights = normalized_weights(draws)
    shape = pareto_smoothed(np.asarray(draws.log_weights, np.float64).ravel()).pareto_k
    ess = kish_ess(weights)
    if not (shape < 1 and ess >= _LEAST_ESS and ess >= _LEAST_SHARE * len(weights) and np.isfinite(ends).all()):
        return None
    beyond = float(weights.max()) / (1 - max(shape, 0.0))
    for number in _NUMBERS:
        if len(starts) < _FEWEST_CHAINS * number * starts.shape[1]:
            break
        labels = _regions(starts, number)
        wrong = beyond + _error_of_shares(weights[ancestors], labels)
        if wrong > _MOST_WRONG:
            break
        memory = _memory(_within(starts, labels), _within(ends, labels))
        if memory <= _MOST_MEMORY:
            return _checks(number, memory, wrong)
    return None


def _regions(points: np.ndarray, number: int) -> np.ndarray:
    """The region of each point, numbered from 0 without gaps; there may be fewer than were asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty", category=UserWarning)
        labels = kmeans2(points, number, minit="++", rng=np.random.default_rng(number))[1]
    return np.unique(labels, return_inverse=True)[1]


def _error_of_shares(weights: np.ndarray, labels: np.ndarray) -> float:
    """The mean total variation of weighted shares, by chains: resampling made up one factor of the weights' squares."""
    inside = labels[:, None] == np.arange(labels.max() + 1)
    variances = np.mean(weights[:, None] * (inside - inside.mean(axis=0)) ** 2, axis=0)
    return float(0.5 * np.sum(np.sqrt(2 / np.pi * variances)))


def _within(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Coordinates and their squares, with the mean and the scale of each region taken out."""
    rows = _standardised(np.asarray(points, np.float64), labels)
    return np.concatenate([rows, _standardised(rows**2, labels)], axis=1)


def _standardised(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    inside = (labels == np.arange(labels.max() + 1)[:, None]).astype(np.float64)
    inside = inside / inside.sum(axis=1, keepdims=True)
    centred = rows - (inside @ rows)[labels]
    scale = np.sqrt(inside @ centred**2)
    return centred / np.where(scale > 0, scale, 1.0)[labels]


def _memory(before: np.ndarray, after: np.ndarray) -> float:
    """The largest canonical correlation of centred features, (n, p) each."""
    bases = [np.linalg.qr(features)[0] for features in (before, after)]
    return float(np.linalg.norm(bases[0].T @ bases[1], ord=2))


def _checks(number: int, memory: float, wrong: float) -> list[Check]:
    return [
        Check(
            f"memory of the short chains within {number} regions",
            memory,
            _MOST_MEMORY,
            True,
            "Chains remember where in their region they were.",
            "Raise `num_steps`.",
        ),
        Check(
            f"error of the shares of {number} regions",
            wrong,
            _MOST_WRONG,
            True,
            "Chains do not cross between regions, and the weights do not know their shares.",
            "Draw more.",
        ),
    ]
