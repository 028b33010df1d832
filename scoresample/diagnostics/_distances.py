"""Distances between two samples: sliced Wasserstein-2 and the energy distance."""

import numpy as np

NUM_PROJECTIONS = 64
"""Directions of the sliced distance; their Monte-Carlo error is far below that of a few thousand draws."""

MAX_DRAWS = 2000
"""Most draws of either side that the energy distance looks at: its cost is the square of this."""

_CHUNK = 512
"""Rows of the distance matrix held at once."""


def sliced_wasserstein(x: np.ndarray, y: np.ndarray, *, num_projections: int = NUM_PROJECTIONS, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance of two samples.

    ``SW2^2 = E_u W2^2(u.x, u.y)`` over directions u uniform on the sphere, with the one-dimensional
    ``W2^2 = integral over q in (0, 1) of (F_x^-1(q) - F_y^-1(q))^2``, which is exact for the two step functions
    whatever the sizes. In one dimension it is the Wasserstein-2 distance itself.

    Arguments:
        x: a sample of shape (n, dimension).
        y: a sample of shape (m, dimension).
        num_projections: how many directions to average over.
        seed: seed of the directions: the same seed gives the same directions.

    Returns:
        The distance, in the units of the samples.

    Raises:
        ValueError: if the samples are not two non-empty matrices of the same dimension.

    Source: Rabin, Peyre, Delon and Bernot (2011), *Wasserstein barycenter and its application to texture mixing*,
    where it was introduced; Bonneel, Rabin, Peyre and Pfister (2015), *Sliced and Radon Wasserstein barycenters of
    measures*, section 3.

    Examples:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0]])
        >>> sliced_wasserstein(x, x + 3.0)
        3.0
    """
    x, y = _samples(x, y)
    directions = random_directions(x.shape[1], num_projections, seed=seed)
    squares = wasserstein_squared(np.sort(directions @ x.T, axis=1), np.sort(directions @ y.T, axis=1))
    return float(np.sqrt(np.mean(squares)))


def energy_distance(x: np.ndarray, y: np.ndarray, *, max_draws: int = MAX_DRAWS, seed: int = 0) -> float:
    """Energy distance of two samples.

    The root of ``2 E|x - y| - E|x - x'| - E|y - y'|`` with Euclidean norms, estimated by the mean over all pairs
    (the V-statistic, never negative). It is zero only for equal distributions, and scales like a length near zero.

    Arguments:
        x: a sample of shape (n, dimension).
        y: a sample of shape (m, dimension).
        max_draws: the most draws of either side to look at; more are subsampled without replacement.
        seed: seed of that subsample.

    Returns:
        The distance; its square has the units of the samples.

    Raises:
        ValueError: if the samples are not two non-empty matrices of the same dimension.

    Source: Szekely and Rizzo (2013), *Energy statistics: a class of statistics based on distances*, sections 1
    (definition) and 6 (two samples).

    Examples:
        >>> import numpy as np
        >>> energy_distance(np.array([[0.0]]), np.array([[2.0]]))
        2.0
    """
    x, y = _samples(x, y)
    generator = np.random.default_rng(seed)
    x, y = (
        side[np.sort(generator.choice(len(side), max_draws, replace=False))] if len(side) > max_draws else side
        for side in (x, y)
    )
    x, y = x - y.mean(axis=0), y - y.mean(axis=0)
    square = 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)
    return float(np.sqrt(max(square, 0.0)))


def random_directions(dimension: int, num: int, *, seed: int = 0) -> np.ndarray:
    """Directions uniform on the sphere, of shape (num, dimension); on a line there is only one, (1, 1)."""
    if dimension == 1:
        return np.ones((1, 1))
    # A stream of its own: a user's draws often come from `default_rng(seed)`, and would be the directions themselves.
    normal = np.random.default_rng((seed, num, dimension)).normal(size=(num, dimension))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def wasserstein_squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Wasserstein-2 distances of pairs of sorted one-dimensional samples, row by row.

    Arguments:
        x: sorted samples of shape (rows, n).
        y: sorted samples of shape (rows, m).

    Returns:
        An array of shape (rows,).
    """
    n, m = x.shape[1], y.shape[1]
    if n == m:
        return np.mean((x - y) ** 2, axis=1)
    edges = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    i, j = np.minimum((middle * n).astype(int), n - 1), np.minimum((middle * m).astype(int), m - 1)
    return (x[:, i] - y[:, j]) ** 2 @ width


def pairwise_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs, of shape (n, m)."""
    distances = (-2.0 * x) @ y.T
    distances += np.sum(x**2, axis=1)[:, None]
    distances += np.sum(y**2, axis=1)
    np.maximum(distances, 0.0, out=distances)
    return np.sqrt(distances, out=distances)


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    sums = [np.sum(pairwise_distances(x[start : start + _CHUNK], y)) for start in range(0, len(x), _CHUNK)]
    return float(sum(sums)) / (len(x) * len(y))


def _samples(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    for name, side in (("x", x), ("y", y)):
        if side.ndim != 2 or side.shape[0] == 0 or side.shape[1] == 0:
            raise ValueError(f"`{name}` must have the shape (draws, dimension), but {side.shape} came. Flatten it.")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`x` and `y` must have one dimension, but {x.shape[1]} and {y.shape[1]} came.")
    return x, y
