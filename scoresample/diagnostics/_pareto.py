"""The tail of importance weights: its shape, and weights with a smoothed one."""

from typing import NamedTuple

import numpy as np
from arviz_stats.base.array import array_stats

_FEWEST = 30
"""Weights below which a tail, a fifth of them, has fewer than the six values that a fit by their quartile takes."""
_ALIKE = 0.01
"""Log weights within such a range are equal for every purpose: what differs may be rounding, whose tail is noise."""


class SmoothedWeights(NamedTuple):
    """Log weights with the shape of their tail.

    Attributes:
        log_weights: the logarithms, smoothed, up to a constant; -inf where a weight is zero.
        pareto_k: the shape of the generalised Pareto law of the largest weights, -inf where all are alike, nan where
            there are too few or too many ties for a fit.
    """

    log_weights: np.ndarray
    pareto_k: float


def pareto_smoothed(log_weights: np.ndarray) -> SmoothedWeights:
    """Importance weights whose largest ones are replaced by quantiles of a generalised Pareto law fitted to them.

    Weights have a finite variance where the shape is below 1/2. The smoothed ones have less variance than the raw
    ones for a small bias, and can be relied on up to a shape of 0.7. No more can be said of a tail than the draws
    show: a region where the proposal has no draws leaves no trace.

    Source: Vehtari et al. 2024, "Pareto smoothed importance sampling", arXiv 1507.02646; computed
    by ArviZ.

    Arguments:
        log_weights: logarithms of weights of independent draws, of shape (n,), up to a constant; -inf for zero.

    Returns:
        The smoothed logarithms and the shape; weights as they came where nothing could be fitted.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> bool(pareto_smoothed(0.1 * rng.normal(size=2000)).pareto_k < 0.5)
        True
        >>> pareto_smoothed(np.zeros(100)).pareto_k
        -inf
    """
    log_weights = np.asarray(log_weights, np.float64)
    positive = np.isfinite(log_weights)
    held = log_weights[positive]
    if held.size < _FEWEST:
        return SmoothedWeights(log_weights, float("nan"))
    if np.ptp(held) < _ALIKE:
        return SmoothedWeights(log_weights, -float("inf"))
    tail = np.sort(held)[-max(int(3 * held.size**0.5) if held.size > 225 else held.size // 5, 5) :]
    if tail[-1] == tail[0]:  # the largest weight comes many times: it is bounded, and there is nothing to smooth
        return SmoothedWeights(log_weights, -float("inf"))
    # ArviZ takes the logarithms of the inverse weights, as leave-one-out cross-validation has them.
    smoothed, shape = array_stats.psislw(-held)
    result = log_weights.copy()
    result[positive] = smoothed
    return SmoothedWeights(result, float(shape))
