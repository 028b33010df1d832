"""Importance weights: normalised weights, Kish's effective size, and resampling."""

import jax
import numpy as np

from scoresample.inference import Draws


def normalized_weights(draws: Draws) -> np.ndarray:
    """The weights of all draws, summing to one.

    Arguments:
        draws: any run.

    Returns:
        An array of shape (chain * draw,), chain by chain; all equal where the run has no weights.
    """
    shape = sample_shape(draws)
    if draws.log_weights is None:
        return np.full(shape[0] * shape[1], 1.0 / (shape[0] * shape[1]))
    log_weights = np.asarray(draws.log_weights, dtype=np.float64).ravel()
    weights = np.exp(log_weights - np.max(log_weights))
    return weights / np.sum(weights)


def kish_ess(weights: np.ndarray) -> float:
    """Kish's effective size of a weighted sample, ``(sum w)^2 / sum w^2``.

    Arguments:
        weights: non-negative weights, of any shape; they need not sum to one.

    Returns:
        A number between 1 and the number of weights.

    Source: Kish (1965), *Survey Sampling*, section 11.7; as the effective size of importance sampling: Kong (1992).

    Examples:
        >>> import numpy as np
        >>> kish_ess(np.ones(10)), kish_ess(np.array([1.0, 0.0, 0.0]))
        (10.0, 1.0)
    """
    weights = np.asarray(weights, dtype=np.float64)
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


def systematic_resample(weights: np.ndarray, num: int, *, seed: int = 0) -> np.ndarray:
    """Indices drawn in proportion to weights, with one uniform shift for all of them.

    Draw number k takes the first index whose cumulative weight exceeds ``(k + u) / num``. Every index comes
    ``num * w`` times, rounded up or down; equal weights with `num` equal to their number give each index once.

    Arguments:
        weights: non-negative weights of shape (n,).
        num: how many indices to draw.
        seed: seed of the one uniform number.

    Returns:
        Integers of shape (num,), in increasing order.

    Source: Kitagawa (1996), *Monte Carlo filter and smoother*, appendix; Douc and Cappe (2005), section 2.4.

    Examples:
        >>> import numpy as np
        >>> systematic_resample(np.array([0.5, 0.0, 0.25, 0.25]), 4)
        array([0, 0, 2, 3])
    """
    shift = np.random.default_rng(seed).random()
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    targets = (np.arange(num) + shift) / num * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, targets, side="right"), len(cumulative) - 1)


def sample_shape(draws: Draws) -> tuple[int, int]:
    """How many chains, and how many draws in each."""
    chains, length = jax.tree.leaves(draws.position)[0].shape[:2]
    return int(chains), int(length)
