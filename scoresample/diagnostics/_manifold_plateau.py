"""Where the intrinsic dimension of a perturbed score stands still, and where it breaks."""

import numpy as np

from scoresample.diagnostics._data_dimension import DataDimension

_STANDARD_ERRORS = 3.0
_MARGIN = (0.5, 0.1)
"""By how much FLIPD may exceed its bound: dimensions, and a share of the bound."""
_NORMAL = 0.2
"""Singular values from here on may belong to normal directions: theirs scatter from 0.5 to 1.5 with 4 D scores."""
_NO_DROP = 2.0
"""A drop is a ratio of successive singular values larger than this."""
_ALL_NORMAL = 0.4
"""Without a drop, all directions are normal if the least singular value is above this; it should be near 0.5."""
_FAR = 0.5
"""Levels of more noise than this share of the data's standard deviation are no plateau: there every law is a point."""


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the last axis, and their standard errors."""
    return np.mean(values, axis=-1), np.std(values, axis=-1) / np.sqrt(values.shape[-1])


def break_level(
    noise: np.ndarray, dimensions: np.ndarray, training: np.ndarray | None, codimension: np.ndarray, size: int
) -> float:
    """The noise from which on, going down, the score is no longer that of the data's own noised law; nan if never.

    Two signs, either of which has to stay to the last level:

    * FLIPD above what the noised points allow, while K falls. For a normal law with variances v, the share ``u = v/(v +
      s^2)`` of each direction adds ``u`` to ``K = D - sigma^2 E|s|^2`` and ``u (2 - u)`` to FLIPD, so FLIPD is at most
      ``K (2 - K/D)``, and both rise together as finer directions come into sight. Below its plateau the score of a
      noised sample parts them: FLIPD grows like (distance to the sample/s)^2, and K falls below zero;
    * FLIPD at held-out points above that at training points. The true score does not know which is which.

    Arguments:
        noise: sigma/alpha of the levels, decreasing.
        dimensions: FLIPD at held-out points, shape (levels, points).
        training: FLIPD at training points, likewise, or None.
        codimension: ``sigma^2 |s|^2`` at noised held-out points, likewise.
        size: D.
    """
    mean, error = mean_and_error(dimensions)
    blow_up, blow_up_error = mean_and_error(codimension)
    known = np.clip(size - blow_up, 0.0, size)
    bound = known * (2 - known / size)
    apart = mean - bound - _STANDARD_ERRORS * np.hypot(error, 2 * blow_up_error) > _MARGIN[0] + _MARGIN[1] * bound
    falls = np.maximum.accumulate(size - blow_up) - (size - blow_up)
    apart &= falls > _STANDARD_ERRORS * blow_up_error
    if training is not None:
        other, other_error = mean_and_error(training)
        gap = mean - other - _STANDARD_ERRORS * np.hypot(error, other_error)
        apart |= gap > _MARGIN[0] + _MARGIN[1] * np.abs(other)
    apart |= ~np.isfinite(mean)
    stays = np.logical_and.accumulate(apart[::-1])[::-1]
    return float(noise[np.argmax(stays)]) if stays.any() else float("nan")


def plateau_level(noise: np.ndarray, dimension: np.ndarray, break_noise: float, spacing: float, scale: float) -> int:
    """The level where FLIPD changes least with the noise; above its break, and then above the spacing too.

    A score that does not break is not held to the spacing: the true one knows the law below it.

    Arguments:
        noise: sigma/alpha of the levels, decreasing.
        dimension: FLIPD at held-out points by level.
        break_noise: where it breaks, or nan.
        spacing: of the points, or nan.
        scale: standard deviation of the data, above half of which every law looks like a point.
    """
    lowest = np.nanmax([break_noise * 1.001, spacing]) if np.isfinite(break_noise) else 0.0
    allowed = (noise < _FAR * scale) & (noise >= lowest) & np.isfinite(dimension)
    if not allowed.any():
        place = np.flatnonzero(noise >= lowest)
        return int(place[-1]) if place.size else 0
    if len(noise) < 2:
        return 0
    change = np.abs(np.gradient(np.where(np.isfinite(dimension), dimension, 0.0), np.log(noise)))
    return int(np.argmin(np.where(allowed, change, np.inf)))


def spectrum_dimension(values: np.ndarray) -> float:
    """D less the number of normal directions: the singular values before the largest drop.

    Only drops from values of the size of the noise count, since it is in the normal directions that a score undoes
    the noise; a spectrum that starts below has none of them, one that ends there has no others. Nan without a drop.

    Arguments:
        values: singular values in units of the noise, decreasing, shape (D,).
    """
    size = len(values)
    logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
    drops = np.concatenate([[-logs[0]], -np.diff(logs)])
    drops[1:][values[:-1] < _NORMAL] = 0.0
    place = int(np.argmax(drops))
    if drops[place] < np.log(_NO_DROP):
        return 0.0 if values[-1] >= _ALL_NORMAL else float("nan")
    return float(size - place)


def combined(estimates: list[DataDimension]) -> DataDimension:
    """The largest difference of finite estimates, and its standard error; nan with fewer than two."""
    finite = [estimate for estimate in estimates if np.isfinite(estimate.value)]
    if len(finite) < 2:
        return DataDimension(float("nan"), float("nan"))
    low, high = min(finite, key=lambda e: e.value), max(finite, key=lambda e: e.value)
    return DataDimension(high.value - low.value, float(np.hypot(low.se, high.se)))
