"""A distance to a reference beside what the reference's own halves are apart."""

from dataclasses import dataclass

import numpy as np

from scoresample.diagnostics._distances import (
    NUM_PROJECTIONS,
    energy_distance,
    pairwise_distances,
    random_directions,
    sliced_wasserstein,
    wasserstein_squared,
)

MAX_SIZE = 1000
"""Most draws on each side: the resolution of the comparison, and the bound on its cost."""

NUM_SPLITS = 100
"""Random halvings of the reference behind the null."""

_NUM_PAIRINGS = 2
"""Pairs of subsamples that the distance itself is averaged over."""


@dataclass(frozen=True)
class Distance:
    """A distance of draws to a reference, and its null.

    Attributes:
        value: the distance, averaged over pairs of subsamples of `size` draws each.
        null: the same distance between random halves of the reference, also of `size` draws each; shape (splits,).
        size: how many effective draws were compared on each side.
    """

    value: float
    null: np.ndarray
    size: int

    @property
    def null_median(self) -> float:
        """What the distance of two equally good samples of this size usually is."""
        return float(np.median(self.null))

    @property
    def null_95(self) -> float:
        """What it exceeds one time in twenty."""
        return float(np.quantile(self.null, 0.95))


def sliced_wasserstein_to_reference(draws: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> Distance:
    """Sliced Wasserstein-2 distance to a reference, with its null.

    Both samples are standardised by the reference's means and standard deviations. A distance between finite samples
    is never zero, and shrinks as they grow; therefore k draws are compared with k draws of the reference, and the
    null is made of k against k as well: random halves of 2k draws of the reference. Here k is the smallest of the
    number of draws, half the number of reference draws, and 1,000. Autocorrelated draws are to be thinned first
    (`effective_draws`), or the null comes out too small.

    Arguments:
        draws: a sample of shape (n, dimension).
        reference: a sample of shape (m, dimension), with m at least 2.
        seed: seed of the directions, of the subsamples and of the splits.

    Returns:
        The `Distance`, in standard deviations of the reference.

    Raises:
        ValueError: if there is nothing to compare.

    Source: `sliced_wasserstein`; the null is the permutation distribution under the hypothesis that both samples
    come from the reference: Good (2005), *Permutation, Parametric and Bootstrap Tests of Hypotheses*, chapter 3.

    Examples:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> reference = generator.normal(size=(2000, 3))
        >>> distance = sliced_wasserstein_to_reference(generator.normal(size=(2000, 3)), reference)
        >>> distance.size, distance.value < 1.5 * distance.null_95
        (1000, True)
    """
    pool, pairs = matched_samples(draws, reference, seed)
    value = np.mean([sliced_wasserstein(x, y, seed=seed) for x, y in pairs])
    projected = random_directions(pool.shape[1], NUM_PROJECTIONS, seed=seed) @ pool.T
    order = np.argsort(projected, axis=1)
    ordered = np.take_along_axis(projected, order, axis=1)
    size, rows = len(pool) // 2, len(projected)
    null = np.empty(NUM_SPLITS)
    for number, first_half in enumerate(random_halves(len(pool), seed)):
        mask = first_half[order]
        halves = ordered[mask].reshape(rows, size), ordered[~mask].reshape(rows, size)
        null[number] = np.sqrt(np.mean(wasserstein_squared(*halves)))
    return Distance(float(value), null, size)


def energy_distance_to_reference(draws: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> Distance:
    """Energy distance to a reference, with its null.

    Sizes, standardisation and null are those of `sliced_wasserstein_to_reference`.

    Arguments:
        draws: a sample of shape (n, dimension).
        reference: a sample of shape (m, dimension), with m at least 2.
        seed: seed of the subsamples and of the splits.

    Returns:
        The `Distance`.

    Raises:
        ValueError: if there is nothing to compare.

    Source: `energy_distance`; the null by permutation is Szekely and Rizzo (2013), section 6.

    Examples:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> reference = generator.normal(size=(500, 2))
        >>> distance = energy_distance_to_reference(reference + 1.0, reference)
        >>> distance.size, distance.value > 3 * distance.null_95
        (250, True)
    """
    pool, pairs = matched_samples(draws, reference, seed)
    value = np.mean([energy_distance(x, y, seed=seed) for x, y in pairs])
    size = len(pool) // 2
    # With s = +1 on one half and -1 on the other, 2 E|x - y| - E|x - x'| - E|y - y'| is -s'Ds / size^2.
    signs = np.where(random_halves(len(pool), seed), 1.0, -1.0)
    squares = -np.sum(signs.T * (pairwise_distances(pool, pool) @ signs.T), axis=0) / size**2
    return Distance(float(value), np.sqrt(np.maximum(squares, 0.0)), size)


def matched_samples(
    draws: np.ndarray, reference: np.ndarray, seed: int, *, least: int = 1
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Standardise, then draw 2k of the reference for the null and pairs of k against k for the value.

    Arguments:
        draws: a sample of shape (n, dimension).
        reference: a sample of shape (m, dimension).
        seed: seed of the subsamples.
        least: the smallest k that makes a comparison.

    Returns:
        The pool of shape (2k, dimension), and the pairs (draws, reference), each side of shape (k, dimension).

    Raises:
        ValueError: if the shapes do not match, or k is less than `least`.
    """
    draws, reference = same_dimension(draws, reference)
    size = min(len(draws), len(reference) // 2, MAX_SIZE)
    if size < least:
        raise ValueError(
            f"`draws` has {len(draws)} and `reference` {len(reference)} draws: "
            f"at least {least} and {2 * least} are needed."
        )
    centre, spread = reference.mean(axis=0), reference.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    draws, reference = (draws - centre) / spread, (reference - centre) / spread
    generator = np.random.default_rng(seed)
    pool = reference[generator.permutation(len(reference))[: 2 * size]]
    pairs = [
        (
            draws[generator.choice(len(draws), size, replace=False)],
            reference[generator.choice(len(reference), size, replace=False)],
        )
        for _ in range(_NUM_PAIRINGS)
    ]
    return pool, pairs


def random_halves(length: int, seed: int, num: int = NUM_SPLITS) -> np.ndarray:
    """Random halves as masks of shape (num, length)."""
    generator = np.random.default_rng((seed, length))
    first_half = np.arange(length) < length // 2
    return generator.permuted(np.broadcast_to(first_half, (num, length)), axis=1)


def same_dimension(
    x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("draws", "reference")
) -> tuple[np.ndarray, np.ndarray]:
    """Two samples in float64, or a `ValueError` with their names if they are not matrices of the same dimension."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have the shapes (n, dimension) and (m, dimension), but "
            f"{x.shape} and {y.shape} came."
        )
    return x, y
