import numpy as np
import pytest

from scoresample.diagnostics import mmd_squared, mmd_to_reference
from scoresample.diagnostics._mmd import MAX_POOLED, median_distance
from scoresample.diagnostics._null import random_halves

Size = tuple[int, int]


def normal(seed: int, size: Size) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def expected_kernel(shift: float, variance: float, bandwidth: float, dimension: int) -> float:
    """E exp(-|z|^2 / 2 b^2) of z ~ N(m, v I): (b^2 / (b^2 + v))^(d/2) exp(-|m|^2 / 2 (b^2 + v))."""
    total = bandwidth**2 + variance
    return (bandwidth**2 / total) ** (dimension / 2) * np.exp(-(shift**2) * dimension / (2 * total))


@pytest.mark.parametrize(("shift", "scale", "dimension"), [(0.0, 1.0, 2), (0.7, 1.0, 1), (0.3, 1.5, 3)])
@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_the_estimate_between_normals_has_no_bias(shift: float, scale: float, dimension: int, bandwidth: float) -> None:
    expected = (
        expected_kernel(0.0, 2.0, bandwidth, dimension)
        + expected_kernel(0.0, 2.0 * scale**2, bandwidth, dimension)
        - 2 * expected_kernel(shift, 1.0 + scale**2, bandwidth, dimension)
    )
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x, y = generator.normal(size=(40, dimension)), generator.normal(shift, scale, (60, dimension))
        found.append(mmd_squared(x, y, bandwidth=bandwidth))
    assert abs(np.mean(found) - expected) < 5 * np.std(found) / np.sqrt(400)


def test_the_estimate_is_the_mean_over_pairs_of_different_draws() -> None:
    x, y = normal(0, (6, 2)), normal(1, (4, 2)) + 0.5

    def mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * 0.8**2)) for a, b in pairs]))

    within_x = mean([(x[i], x[j]) for i in range(6) for j in range(6) if i != j])
    within_y = mean([(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    expected = within_x + within_y - 2 * mean([(a, b) for a in x for b in y])
    assert np.isclose(mmd_squared(x, y, bandwidth=0.8), expected)
    assert np.isclose(mmd_squared(y, x, bandwidth=0.8), expected)


def test_the_bandwidth_is_the_median_distance_of_the_pooled_sample() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[3.0], [7.0]])
    assert np.isclose(mmd_squared(x, y), mmd_squared(x, y, bandwidth=3.5))  # of 1, 2, 3, 4, 6, 7
    # |N(0, 2)| has the median 0.6745 sqrt(2); its density there and 6,000 draws leave an error of 0.01.
    many = normal(0, (3 * MAX_POOLED, 1))
    assert abs(median_distance(many) - 0.6745 * np.sqrt(2)) < 0.05
    assert median_distance(many) == median_distance(many)


def test_the_estimate_does_not_mind_units_a_far_origin_or_chunks() -> None:
    x, y = normal(0, (1100, 2)), normal(1, (700, 2)) + 0.5
    found = mmd_squared(x, y)
    assert np.isclose(mmd_squared(1000.0 * x, 1000.0 * y), found)
    assert np.isclose(mmd_squared(x + 1e6, y + 1e6), found, rtol=1e-6)


@pytest.mark.parametrize("size", [100, 700, 3000])
def test_an_exact_sample_of_any_size_lies_within_the_null(size: int) -> None:
    reference = normal(0, (4000, 3))
    values, spreads = [], []
    for seed in range(6):
        distance = mmd_to_reference(normal(10 + seed, (size, 3)), reference, seed=seed)
        assert distance.size == min(size, 1000)
        values.append(distance.value)
        spreads.append(np.std(distance.null))
        # Halves of one pool are drawn without replacement, so that the mean of the null lies just below zero.
        assert abs(np.mean(distance.null)) < 5 * np.std(distance.null) / np.sqrt(len(distance.null))
    assert abs(np.mean(values)) < 5 * np.mean(spreads) / np.sqrt(6)


def test_a_shift_stands_out_whatever_the_units() -> None:
    reference, shifted = normal(0, (2000, 2)), normal(1, (2000, 2)) + 0.7
    scale = np.array([1.0, 1000.0])
    distance = mmd_to_reference(shifted, reference)
    assert distance.value > 10 * distance.null_95
    assert np.isclose(mmd_to_reference(scale * shifted, scale * reference).value, distance.value)


def test_the_null_is_the_estimate_between_halves() -> None:
    reference = normal(0, (100, 2))
    standard = (reference - reference.mean(axis=0)) / reference.std(axis=0)
    pool = standard[np.random.default_rng(3).permutation(100)]
    halves = [mmd_squared(pool[half], pool[~half]) for half in random_halves(100, 3)]
    assert np.allclose(mmd_to_reference(reference, reference, seed=3).null, halves, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (np.zeros(3), np.zeros((3, 1)), "`x`"),
        (np.zeros((3, 1)), np.zeros((3, 2)), "dimension"),
        (np.zeros((3, 0)), np.zeros((3, 0)), "dimension"),
        (np.zeros((3, 1)), np.zeros((1, 1)), "at least 2"),
        (np.full((3, 2), 7.0), np.full((4, 2), 7.0), "Give `bandwidth`"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(x: np.ndarray, y: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        mmd_squared(x, y)


def test_bad_bandwidths_and_references_are_refused() -> None:
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`bandwidth`"):
            mmd_squared(normal(0, (5, 1)), normal(1, (5, 1)), bandwidth=bandwidth)
    with pytest.raises(ValueError, match="at least 2 and 4"):
        mmd_to_reference(normal(0, (5, 1)), normal(1, (3, 1)))
    mostly_one = np.concatenate((np.full((90, 3), 5.0), normal(0, (10, 3))))
    with pytest.raises(ValueError, match="`reference`"):
        mmd_to_reference(normal(0, (50, 3)), mostly_one)
