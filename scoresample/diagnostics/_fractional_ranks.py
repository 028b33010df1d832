"""Where each truth lies among the draws of its posterior: the one number that all tests of calibration look at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike

_STREAM = 180406788
"""Beside the seed, so that the numbers are never those of a user's own generator with that seed."""


def fractional_ranks(
    truths: ArrayLike, draws: ArrayLike, *, log_weights: ArrayLike | None = None, seed: int = 0
) -> np.ndarray:
    """The share of draws below each truth, ties and the truth's own place broken at random.

    With b of L draws below a truth and e equal to it, the rank is ``(b + u (e + 1)) / (L + 1)``, u uniform on (0, 1).
    If truth and draws are independent draws of one law, it is uniform on (0, 1) exactly, for every L and also where the
    law has atoms. Draws of a chain must be thinned until they are independent, or the ranks gather at both ends.

    With weights, b and e are the weights' shares times Kish's effective size of the draws, which also stands for L.
    That is uniform only in the limit of many draws. Equal weights change nothing.

    Arguments:
        truths: shape (simulations, quantities).
        draws: of each simulation's posterior, shape (simulations, draws, quantities).
        log_weights: shape (simulations, draws), or None where all draws count alike.
        seed: seed of the uniform numbers.

    Returns:
        An array of shape (simulations, quantities), between 0 and 1.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, or the draws of a simulation have no weight.

    Source: Cook, Gelman and Rubin 2006; Talts et al. 2018, arXiv 1804.06788, theorem 1; for ties Modrák et al. 2023,
    arXiv 2211.02383, section 2.

    Examples:
        >>> import numpy as np
        >>> truths, draws = np.array([[0.5]]), np.array([[[0.1], [0.2], [0.9]]])
        >>> bool(2 / 4 < fractional_ranks(truths, draws)[0, 0] < 3 / 4)
        True
    """
    truths, draws = checked_simulations(truths, draws)
    shape = draws.shape[:2]
    if log_weights is None:
        weights, sizes = np.full(shape, 1 / shape[1]), np.full(shape[0], float(shape[1]))
    else:
        weights = checked_weights(log_weights, shape)
        sizes = 1 / np.sum(weights**2, axis=1)
    below, equal = np.empty(truths.shape), np.empty(truths.shape)
    for index, (truth, some, weight) in enumerate(zip(truths, draws, weights, strict=True)):
        below[index], equal[index] = weight @ (some < truth), weight @ (some == truth)
    sizes, uniform = sizes[:, None], np.random.default_rng((seed, _STREAM)).random(truths.shape)
    # Sums of weights may round to a little more than 1.
    return np.clip((sizes * below + uniform * (sizes * equal + 1)) / (sizes + 1), 0.0, 1.0)


def checked_simulations(truths: ArrayLike, draws: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Truths and draws as finite arrays of matching shapes, or a ValueError that says what is wrong."""
    truths, draws = np.asarray(truths), np.asarray(draws)
    fits = truths.ndim == 2 and draws.ndim == 3 and (draws.shape[0], draws.shape[2]) == truths.shape
    if not fits or 0 in draws.shape:
        raise ValueError(
            "`truths` and `draws` must have the shapes (simulations, quantities) and (simulations, draws, quantities), "
            f"but {truths.shape} and {draws.shape} came."
        )
    for name, values in (("truths", truths), ("draws", draws)):
        count = int(np.sum(~np.isfinite(values)))
        if count:
            raise ValueError(f"`{name}`: {count} of {values.size} numbers are not finite. Find out why before testing.")
    return truths, draws


def checked_weights(log_weights: ArrayLike, shape: tuple[int, int]) -> np.ndarray:
    """Weights that sum to one for each simulation, of shape (simulations, draws)."""
    logs = np.asarray(log_weights, np.float64)
    if logs.shape != shape:
        raise ValueError(f"`log_weights` must have the shape (simulations, draws) = {shape}, but {logs.shape} came.")
    highest = logs.max(axis=1, keepdims=True)
    if np.any(~np.isfinite(highest)):
        raise ValueError("`log_weights`: nan, infinite, or no draw of a simulation has any weight. Leave it out.")
    weights = np.exp(logs - highest)
    return weights / weights.sum(axis=1, keepdims=True)


def checked_names(names: Sequence[str] | None, number: int) -> tuple[str, ...]:
    """One name for each quantity, by default their numbers."""
    if names is None:
        return tuple(f"quantity {index}" for index in range(number))
    if isinstance(names, str) or len(names) != number:
        raise ValueError(f"`names` must be {number} names, one for each quantity, but {names!r} came.")
    return tuple(names)
