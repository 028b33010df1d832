"""What draws say of their own geometry, without any score: how close they lie, and in how many dimensions."""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

_MOST_QUERIES = 1024
"""Points whose nearest neighbours are looked for, among all."""
_NEIGHBOURS = (10, 20)
"""Numbers of neighbours; Levina and Bickel 2004 use 10 to 20."""
_DIMENSIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Of the normal laws that the estimate is read off."""


class DataDimension(NamedTuple):
    """An estimate of the dimension of the data, from the distances of neighbours.

    Attributes:
        value: the dimension; nan where there are too few draws.
        se: its standard error, with half of the correction for the estimator's bias.
    """

    value: float
    se: float


def sample_spacing(points: np.ndarray) -> float:
    """The median distance of a point to its nearest neighbour; copies of one point count once.

    Arguments:
        points: an array (n, dimension).
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) < 2:
        return float("nan")
    return float(np.median(_neighbours(distinct, 1)[:, 0]))


def leading_scale(points: np.ndarray) -> float:
    """The standard deviation along the directions that hold most of the variance: ``sqrt(tr C^2 / tr C)``.

    The same in all rotations, and with any number of coordinates that do not vary.

    Arguments:
        points: an array (n, dimension).
    """
    centred = points - np.mean(points, axis=0)
    number, size = centred.shape
    covariance = (centred.T @ centred if size <= number else centred @ centred.T) / number
    return float(np.sqrt(np.sum(covariance**2) / np.trace(covariance))) if np.trace(covariance) > 0 else 0.0


def data_dimension(points: np.ndarray, *, seed: int = 0) -> DataDimension:
    """The dimension of the set that draws lie on, as it shows at the distance of their neighbours.

    With ``T_j`` the distance to the j-th neighbour, ``sum_{j<K} log(T_K/T_j)`` is near a Gamma variable of shape K - 1
    and rate k (Levina and Bickel 2004, NeurIPS 17); the mean over points is taken of the inverses (MacKay and
    Ghahramani 2005, a comment on it). The estimate falls short in more than a few dimensions, so it is read off draws
    of standard normal laws of the same number: the dimension of the one that gives the same.

    Arguments:
        points: an array (n, dimension).
        seed: of the normal draws.
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) <= 2 * max(_NEIGHBOURS):
        return DataDimension(float("nan"), float("inf"))
    found = _levina_bickel(distinct)
    raw, se = found
    generator = np.random.default_rng(seed)
    known, seen = [0.0], [0.0]
    for dimension in (*(d for d in _DIMENSIONS if d < points.shape[1]), points.shape[1]):
        known.append(float(dimension))
        seen.append(max(_levina_bickel(generator.normal(size=(len(distinct), dimension)))[0], seen[-1] + 1e-9))
        if seen[-1] > raw:
            break
    value = float(np.interp(raw, seen, known))
    return DataDimension(value, float(np.hypot(se * value / raw, 0.5 * (value - raw))))


def _levina_bickel(points: np.ndarray) -> tuple[float, float]:
    """The mean of the estimates with few and with many neighbours, and its error: chance, and their difference.

    Neighbours share neighbours, so the number of independent points is taken to be a K-th.
    """
    values, errors = [], []
    distances = _neighbours(points, max(_NEIGHBOURS))
    for number in _NEIGHBOURS:
        inverse = np.mean(np.log(distances[:, number - 1 : number] / distances[:, : number - 1]), axis=1)
        value = 1 / np.mean(inverse)
        values.append(value)
        errors.append(value**2 * np.std(inverse) * np.sqrt(number / len(inverse)))
    return float(np.mean(values)), float(np.hypot(np.mean(errors), values[0] - values[1]))


def _neighbours(points: np.ndarray, number: int) -> np.ndarray:
    """Distances to the nearest neighbours, increasing, for at most 1,024 of the points (they come in random order)."""
    rows = np.random.default_rng(0).permutation(len(points))[:_MOST_QUERIES]
    distances, _ = NearestNeighbors(n_neighbors=number + 1).fit(points).kneighbors(points[rows])
    return distances[:, 1:]
