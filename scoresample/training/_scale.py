"""The smallest scale of data: how narrow their narrowest part is."""

import numpy as np

_MOST_POINTS = 2000
"""Enough for some ten percent, in a fraction of a second."""
_POINTS_PER_DIMENSION = 10
"""Of a component that counts: with fewer its smallest eigenvalue is far too small by chance."""
_NUM_COMPONENTS = (1, 2, 4, 8)
_MOST_ITERATIONS = 100
_SETTLED = 1e-4
"""Of a log likelihood a point, in nats. A narrow mode of a small share inside a wide one takes long to be found."""
_ROUNDING = 1e-5
"""Of the largest scale: what single precision makes of a direction without thickness."""


def unexplained(points: np.ndarray, conditions: np.ndarray | None) -> np.ndarray:
    """What a linear regression of points on conditions leaves over, with the spread that new points would have.

    Arguments:
        points: points, shape (n, d).
        conditions: what belongs to each, shape (n, m), or None.

    Returns:
        The residuals of at most max(2,000, 20 m) of the points; the points themselves without conditions, or where
        there are fewer than ten a number of a condition.
    """
    if conditions is None:
        return points
    chosen = np.random.default_rng(0).permutation(len(points))[: max(_MOST_POINTS, 20 * conditions.shape[1])]
    known = np.column_stack([np.ones(len(chosen)), conditions[chosen]])
    number, columns = known.shape
    if number < _POINTS_PER_DIMENSION * columns:
        return points
    targets = points[chosen]
    residuals = targets - known @ np.linalg.lstsq(known, targets, rcond=None)[0]
    return residuals * np.sqrt(number / (number - columns))


def smallest_scale(points: np.ndarray) -> float:
    """The standard deviation of the narrowest direction of the narrowest mode of data, estimated from points.

    Gaussian mixtures of one, two, four and eight components are fitted by expectation maximisation to at most 2,000 of
    the points; of the one with the least Bayesian information criterion (Schwarz 1978) it is the root of the smallest
    eigenvalue of all covariances. So it sees a narrow direction along no axis, and a narrow mode inside a wide one,
    which the variances of all data do not show. Where so many normal laws describe the data it is within a factor of
    two.

    It is no bound. Components of fewer than ten points a dimension do not count, so a mode of a smaller share is not
    seen. Of thin curved data, such as a circle, it is what eight straight pieces leave, and of laws with edges, such as
    a uniform one, the size of a piece. Directions in which the points, or those of a component, do not vary beyond
    rounding have no scale and are left out: it is never 0.

    Arguments:
        points: points, shape (n, d).

    Returns:
        The scale, in the points' units; nan where there are fewer than ten distinct points a dimension.
    """
    generator = np.random.default_rng(0)
    points = np.asarray(points, np.float64)
    points = np.unique(points[generator.permutation(len(points))[:_MOST_POINTS]], axis=0)
    number, dimension = points.shape
    if number < _POINTS_PER_DIMENSION * dimension:
        return float("nan")
    values, directions = np.linalg.eigh(np.cov(points, rowvar=False).reshape(dimension, dimension))
    least = values[-1] * _ROUNDING**2
    points = (points - points.mean(axis=0)) @ directions[:, values > least]
    enough = _POINTS_PER_DIMENSION * points.shape[1]
    best, found, worse = np.inf, float("nan"), 0
    for components in _NUM_COMPONENTS:
        if number < enough * components or worse == 2:
            break
        criterion, variances, counts = _fit_mixture(points, components, least, generator)
        worse += 1
        if criterion < best:
            counted = variances[counts >= enough]
            best, worse = criterion, 0
            found = float(np.sqrt(np.min(counted, initial=np.inf, where=counted > 4 * least)))
    return found if np.isfinite(found) else float("nan")


def _fit_mixture(
    points: np.ndarray, components: int, least: float, generator: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray]:
    """The Bayesian information criterion of a mixture, its eigenvalues (k, d) and its numbers of points (k,)."""
    number, dimension = points.shape
    shares = _shares_of_nearest(points, components, generator)
    mean, iterations = -np.inf, 0
    while True:
        counts = shares.sum(axis=0) + 1e-10
        apart = points - ((shares.T @ points) / counts[:, None])[:, None]
        covariances = np.swapaxes(apart * shares.T[:, :, None], 1, 2) @ apart / counts[:, None, None]
        variances, directions = np.linalg.eigh(covariances + least * np.eye(dimension))
        squares = np.sum((apart @ directions) ** 2 / variances[:, None], axis=2)
        logs = np.log(counts / number) - 0.5 * np.sum(np.log(2 * np.pi * variances), axis=1) - 0.5 * squares.T
        densities = np.logaddexp.reduce(logs, axis=1)
        shares, before, mean = np.exp(logs - densities[:, None]), mean, float(densities.mean())
        iterations += 1
        if mean - before < _SETTLED or iterations == _MOST_ITERATIONS:
            parameters = components * (1 + dimension + dimension * (dimension + 1) / 2) - 1
            return parameters * np.log(number) - 2 * number * mean, variances, counts


def _shares_of_nearest(points: np.ndarray, components: int, generator: np.random.Generator) -> np.ndarray:
    """Whole points to the nearest of spread-out centres (k-means++, and ten rounds of k-means)."""

    def squares(centres: np.ndarray) -> np.ndarray:
        return np.stack([np.sum((points - centre) ** 2, axis=1) for centre in centres], axis=1)

    centres = points[:1]
    for _ in range(components - 1):
        nearest = squares(centres).min(axis=1)
        centres = np.vstack([centres, points[generator.choice(len(points), p=nearest / nearest.sum())]])
    shares = np.eye(components)[squares(centres).argmin(axis=1)]
    for _ in range(10):
        centres = (shares.T @ points) / np.maximum(shares.sum(axis=0), 1)[:, None]
        shares = np.eye(components)[squares(centres).argmin(axis=1)]
    return shares
