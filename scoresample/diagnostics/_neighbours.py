"""The two nearest of many points, exactly, in bounded memory."""

import numpy as np
from scipy.spatial import KDTree

_TREE_DIMENSIONS = 10
"""Largest dimension for a k-d tree. Times in seconds of 1,000 points among 100,000 standard normal ones, by a tree and
by products: .04 and 1.3 in 2-d, .13 and 1.0 in 8-d, .27 and 1.3 in 10-d, .61 and 1.1 in 12-d, 4.9 and 1.8 in 16-d."""

_CANDIDATES = 6
"""Points whose distances are computed again."""

_RELATIVE = 1e-9
"""Accuracy of a squared distance beyond which it does not matter which of two points is nearer."""

_POINTS, _BLOCK = 256, 8192
"""Distances held at once: so many points by so many others, 16 MiB."""

_NUMBERS = 2**21
"""Most differences of coordinates held at once."""


def two_nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances to the nearest and to the second nearest of other points.

    In few dimensions a k-d tree finds them. Else matrix products give every squared distance with an error of rounding
    that is large for near points, since ``|x|^2 + |y|^2 - 2 x.y`` cancels. So the products only choose candidates, by
    lower bounds on the distances that hold in spite of rounding, and the distances are those of the coordinates'
    differences. Where the bounds cannot rule out the points that were not chosen, all differences are computed.

    Arguments:
        points: float64, of shape (n, dimension).
        others: float64, of shape (m, dimension), at least two.

    Returns:
        An array of shape (n, 2), the nearer first.

    Examples:
        >>> import numpy as np
        >>> print(two_nearest(np.array([[0.0]]), np.array([[3.0], [-1.0], [5.0]])))
        [[1. 3.]]
    """
    if points.shape[1] <= _TREE_DIMENSIONS:
        nearest, _ = KDTree(others).query(points, 2)
        return np.asarray(nearest)
    centre, size = others.mean(axis=0), points.shape[1]
    shrink = 1 - 4 * (size + 8) * np.finfo(np.float64).eps
    # With these columns one product is |x|^2 + |y|^2 - 2 x.y, the squares a little smaller.
    left, right = np.ones((len(points), size + 2)), np.ones((len(others), size + 2))
    left[:, :size], right[:, :size] = points - centre, others - centre
    left[:, size] = shrink * np.einsum("ij,ij->i", left[:, :size], left[:, :size])
    right[:, size + 1] = shrink * np.einsum("ij,ij->i", right[:, :size], right[:, :size])
    left[:, :size] *= -2
    rows = max(1, min(_POINTS, _NUMBERS // (_CANDIDATES * size)))
    parts = [slice(first, first + rows) for first in range(0, len(points), rows)]
    return np.sqrt(np.concatenate([_by_products(points[part], others, left[part], right) for part in parts]))


def _by_products(points: np.ndarray, others: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Squared distances to the two nearest, among candidates with the smallest lower bounds."""
    chosen: np.ndarray = np.empty((len(points), 0), int)
    bounds: np.ndarray = np.empty((len(points), 0))
    for first in range(0, len(others), _BLOCK):
        lower = left @ right[first : first + _BLOCK].T
        kept = _smallest(lower)
        chosen = np.concatenate([chosen, first + kept], axis=1)
        bounds = np.concatenate([bounds, np.take_along_axis(lower, kept, axis=1)], axis=1)
        kept = _smallest(bounds)
        chosen, bounds = np.take_along_axis(chosen, kept, axis=1), np.take_along_axis(bounds, kept, axis=1)
    differences = points[:, None] - others[chosen]
    exact = np.sort(np.einsum("ijk,ijk->ij", differences, differences), axis=1)[:, :2]
    if len(others) > _CANDIDATES:
        for place in np.flatnonzero(bounds.max(axis=1) < (1 - _RELATIVE) * exact[:, 1]):
            exact[place] = _by_differences(points[place], others)
    return exact


def _smallest(values: np.ndarray) -> np.ndarray:
    """Places of the smallest values of each row, as many as there are candidates."""
    number = min(_CANDIDATES, values.shape[1])
    if number == values.shape[1]:
        return np.broadcast_to(np.arange(number), values.shape)
    return np.argpartition(values, number - 1, axis=1)[:, :number]


def _by_differences(point: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances of one point to the two nearest, every difference computed."""
    rows, squares = max(1, _NUMBERS // len(point)), []
    for first in range(0, len(others), rows):
        differences = others[first : first + rows] - point
        squares.append(np.einsum("ij,ij->i", differences, differences))
    return np.partition(np.concatenate(squares), 1)[:2]
