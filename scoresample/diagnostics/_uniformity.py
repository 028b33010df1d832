"""Whether numbers are uniform on (0, 1): their empirical distribution function within simultaneous bands."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike
from scipy.special import gammaln
from scipy.stats import binom

_MOST_POINTS = 100
"""Where the empirical distribution function is looked at: finer grids cost more and find hardly more."""
_BISECTIONS = 16
_LEAST_P_VALUE = 1e-12
_ROUNDING = 1e-9
"""Tail probabilities that differ by no more are taken for equal."""


class EcdfBand(NamedTuple):
    """Where the empirical distribution function of uniform numbers stays, at all points at once.

    Attributes:
        points: where it is looked at, shape (points,), from above 0 to below 1.
        lower: the lowest values inside, shape (points,).
        upper: the highest values inside, shape (points,).
    """

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def ecdf_band(num: int, level: float = 0.05) -> EcdfBand:
    """The simultaneous band of the empirical distribution function of independent uniform numbers.

    At the point z the number of values up to z is binomial, of probability z. The band cuts off the same tail
    probability at every point, the largest for which the function leaves it somewhere with probability at most
    `level`. That probability is computed without simulation, by following the law of the counts from point to point.

    Arguments:
        num: how many numbers there are, at least 2.
        level: the probability to leave the band, between 0 and 1.

    Returns:
        The band at ``min(num, 100) - 1`` equally spaced points.

    Raises:
        ValueError: if `num` or `level` is out of range.

    Source: Säilynoja, Bürkner and Vehtari 2022, arXiv 2103.10522, section 2.

    Examples:
        >>> band = ecdf_band(1000)
        >>> middle = len(band.points) // 2
        >>> float(band.points[middle]), float(band.lower[middle]), float(band.upper[middle])
        (0.5, 0.453, 0.547)
    """
    check_level(level)
    if num < 2:
        raise ValueError(f"`num` must be at least 2, but is {num}.")
    points, lower, upper = _points(num), *_counts(num, _band_tail(num, float(level)))
    return EcdfBand(points, lower / num, upper / num)


def uniformity_p_value(values: ArrayLike) -> float:
    """The p-value of the hypothesis that numbers are independent and uniform on (0, 1).

    It is the smallest level of an [`ecdf_band`][scoresample.diagnostics.ecdf_band] that their empirical distribution
    function leaves, and so it is exact, but for being discrete: at any level the hypothesis is rejected by mistake at
    most as often as the level says.

    Arguments:
        values: numbers from 0 to 1 of shape (num,), at least 2.

    Returns:
        A number from 1e-12 to 1: smaller ones are lost in rounding.

    Raises:
        ValueError: if they are no such numbers.

    Source: Säilynoja, Bürkner and Vehtari 2022, arXiv 2103.10522, section 2.

    Examples:
        >>> import numpy as np
        >>> values = np.random.default_rng(0).uniform(size=500)
        >>> uniformity_p_value(values) > 0.05, uniformity_p_value(values**2) < 1e-6
        (True, True)
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"`values` must be at least 2 numbers from 0 to 1 in one axis, but an array of shape {values.shape} came, "
            "or some are outside or not finite."
        )
    num, points = len(values), _points(len(values))
    counts = np.searchsorted(np.sort(values), points, side="right")
    tails = 2 * np.minimum(binom.cdf(counts, num, points), binom.sf(counts - 1, num, points))
    if len(points) * tails.min() < _LEAST_P_VALUE:  # the p-value is at most that
        return _LEAST_P_VALUE
    stays = _stays_inside(num, *_counts(num, float(tails.min()) * (1 + _ROUNDING)))
    return float(np.clip(1 - stays, _LEAST_P_VALUE, 1))


def ecdf(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The share of values up to each point.

    Arguments:
        values: shape (num,).
        points: shape (points,).
    """
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def check_level(level: float) -> None:
    """Raise a ValueError unless the level is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, but is {level}: 0.05 fails one good posterior in twenty.")


def _points(num: int) -> np.ndarray:
    size = min(num, _MOST_POINTS)
    return np.arange(1, size) / size


def _counts(num: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest counts with at least half of `tail` on their outer side, themselves included."""
    points = _points(num)
    lower = np.clip(binom.ppf(min(tail / 2, 1), num, points), 0, num)
    upper = np.clip(binom.isf(min(tail / 2, 1), num, points), 0, num)
    # ppf and isf are inverses up to rounding only: put them right against cdf and sf.
    lower += binom.cdf(lower, num, points) < tail / 2
    lower -= (lower > 0) & (binom.cdf(lower - 1, num, points) >= tail / 2)
    upper += binom.sf(upper, num, points) >= tail / 2
    upper -= binom.sf(upper - 1, num, points) < tail / 2
    return np.clip(lower, 0, num).astype(int), np.clip(upper, 0, num).astype(int)


def _stays_inside(num: int, lower: np.ndarray, upper: np.ndarray) -> float:
    """The probability that the counts stay between the bounds at all points.

    Given the count c at one point, what is added up to the next is binomial of num - c numbers.
    """
    size = len(lower) + 1
    if np.any(lower > upper):
        return 0.0
    log_factorial = gammaln(np.arange(num + 1) + 1.0)
    counts, chances = np.zeros(1, int), np.ones(1)
    for step in range(size - 1):
        following = np.arange(lower[step], upper[step] + 1)
        added, share = following[None] - counts[:, None], 1 / (size - step)
        # log (n! / (a! r!)) p^a (1-p)^r, with n of the row, r of the column and a of both.
        row = log_factorial[num - counts] - counts * np.log(share)
        column = following * np.log(share) + (num - following) * np.log1p(-share) - log_factorial[num - following]
        log_mass = row[:, None] + column - log_factorial[np.abs(added)]
        chances = chances @ np.exp(np.where(added >= 0, log_mass, -np.inf))
        counts = following
    return float(np.sum(chances))


@functools.lru_cache(maxsize=64)
def _band_tail(num: int, level: float) -> float:
    """The largest tail probability at which the counts leave the band with probability at most `level`."""
    low, high = np.log(level / _MOST_POINTS / 4), np.log(level)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        leaves = 1 - _stays_inside(num, *_counts(num, float(np.exp(middle))))
        low, high = (middle, high) if leaves <= level else (low, middle)
    return float(np.exp(low))
