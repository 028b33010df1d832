"""The maximum mean discrepancy of two samples, with a Gaussian kernel."""

import numpy as np

from scoresample.diagnostics._distances import pairwise_distances
from scoresample.diagnostics._null import Distance, matched_samples, random_halves, same_dimension

MAX_POOLED = 2000
"""Most draws of the pooled sample behind the median of the distances."""

_CHUNK = 512
"""Rows of the kernel matrix held at once."""

_COINCIDENT = 1e-6
"""Distances below this share of the sample's spread are rounding errors of zero."""


def mmd_squared(x: np.ndarray, y: np.ndarray, *, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy of two samples, without bias.

    ``MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)`` with the Gaussian kernel
    ``k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))``, estimated by the mean over all pairs of different draws (the
    U-statistic). Its expectation is zero for equal distributions, so that it can come out negative. All pairs are
    looked at: the cost is the square of the number of draws.

    Arguments:
        x: a sample of shape (n, dimension), with n at least 2.
        y: a sample of shape (m, dimension), with m at least 2.
        bandwidth: the bandwidth of the kernel, in the units of the samples; by default the median of the Euclidean
            distances of all pairs in the pooled sample, of which at most 2,000 random draws are taken (always the
            same ones).

    Returns:
        The estimate of MMD^2, without units; it is at most 2.

    Raises:
        ValueError: if the samples are not two matrices of the same dimension with two rows or more, if the bandwidth
            is not positive, or if half of the pairs coincide and none is given.

    Source: Gretton, Borgwardt, Rasch, Schoelkopf and Smola (2012), *A kernel two-sample test*, Lemma 6, equation 3;
    section 8 for the median.

    Examples:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0]])
        >>> bool(np.isclose(mmd_squared(x, x + 1000.0, bandwidth=1.0), 2 * np.exp(-0.5)))
        True
        >>> mmd_squared(x, x, bandwidth=1.0) < 0
        True
    """
    x, y = same_dimension(x, y, ("x", "y"))
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"`x` has {n} and `y` {m} draws: at least 2 are needed of each.")
    if bandwidth is None:
        bandwidth = median_distance(np.concatenate((x, y)))
        if bandwidth == 0:
            raise ValueError("Half of the pairs of `x` and `y` coincide: their median distance is 0. Give `bandwidth`.")
    if not bandwidth > 0:
        raise ValueError(f"`bandwidth` must be positive, but is {bandwidth}.")
    # The diagonals of the kernel matrices are ones.
    within = (_kernel_sum(x, x, bandwidth) - n) / (n * (n - 1)) + (_kernel_sum(y, y, bandwidth) - m) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(x, y, bandwidth) / (n * m))


def mmd_to_reference(draws: np.ndarray, reference: np.ndarray, *, seed: int = 0) -> Distance:
    """Squared maximum mean discrepancy to a reference, with its null.

    Sizes, standardisation and null are those of `sliced_wasserstein_to_reference`. The bandwidth is the median
    distance of the 2k draws of the reference behind the null, for the value and the null alike.

    Arguments:
        draws: a sample of shape (n, dimension), with n at least 2.
        reference: a sample of shape (m, dimension), with m at least 4.
        seed: seed of the subsamples and of the splits.

    Returns:
        The `Distance`: estimates of MMD^2 without bias, so that the null has values of both signs.

    Raises:
        ValueError: if there is nothing to compare, or if half of the pairs of draws of the reference coincide.

    Source: `mmd_squared`; the null by permutation is that of `sliced_wasserstein_to_reference`.

    Examples:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> reference = generator.normal(size=(500, 2))
        >>> distance = mmd_to_reference(reference + 1.0, reference)
        >>> distance.size, distance.value > 3 * distance.null_95
        (250, True)
    """
    pool, pairs = matched_samples(draws, reference, seed, least=2)
    bandwidth = median_distance(pool)
    if bandwidth == 0:
        raise ValueError(
            "Half of the pairs of draws of `reference` coincide, so their median distance is no bandwidth: "
            "leave out its repeated draws."
        )
    value = np.mean([mmd_squared(x, y, bandwidth=bandwidth) for x, y in pairs])
    size = len(pool) // 2
    kernel = gaussian_kernel(pool, pool, bandwidth)
    np.fill_diagonal(kernel, 0.0)
    # With s = +1 on one half and -1 on the other, s'Ks is what lies within the halves less what lies between them.
    signs = np.where(random_halves(len(pool), seed), 1.0, -1.0)
    difference, total = np.sum(signs.T * (kernel @ signs.T), axis=0), np.sum(kernel)
    null = (total + difference) / (2 * size * (size - 1)) - (total - difference) / (2 * size**2)
    return Distance(float(value), null, size)


def median_distance(points: np.ndarray) -> float:
    """Median of the Euclidean distances of all pairs of different rows, or exactly 0 where it is a rounding error."""
    if len(points) > MAX_POOLED:
        points = points[np.random.default_rng(0).choice(len(points), MAX_POOLED, replace=False)]
    points = points - points.mean(axis=0)
    distances = pairwise_distances(points, points)[np.triu_indices(len(points), k=1)]
    median = float(np.median(distances))
    return median if median > _COINCIDENT * np.sqrt(np.mean(np.sum(points**2, axis=1))) else 0.0


def gaussian_kernel(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    """The kernel of all pairs, of shape (n, m)."""
    exponents = pairwise_distances(x, y)
    exponents /= bandwidth
    exponents *= exponents
    exponents *= -0.5
    return np.exp(exponents, out=exponents)


def _kernel_sum(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    chunks = (x[start : start + _CHUNK] for start in range(0, len(x), _CHUNK))
    return float(sum(np.sum(gaussian_kernel(chunk, y, bandwidth)) for chunk in chunks))
