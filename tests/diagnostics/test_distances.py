from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy_distance
from scipy.stats import norm

from scoresample.diagnostics import (
    Distance,
    energy_distance,
    energy_distance_to_reference,
    sliced_wasserstein,
    sliced_wasserstein_to_reference,
)

Size = tuple[int, int]
ToReference = Callable[..., Distance]


def normal(seed: int, size: Size) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def normal_quantiles(size: int) -> np.ndarray:
    return norm.ppf((np.arange(size) + 0.5) / size)[:, None]


def test_wasserstein_between_normals_on_a_line() -> None:
    # W2^2 between N(m, s^2) and N(0, 1) is m^2 + (s - 1)^2; midpoint quantiles leave no sampling noise.
    x = normal_quantiles(20_000)
    assert np.isclose(sliced_wasserstein(2.0 + 1.5 * x, x), np.sqrt(2.0**2 + 0.5**2), rtol=1e-3)


def test_wasserstein_is_exact_for_unequal_sizes() -> None:
    # Half of the mass of {0} moves to 1, the other half to 3: (1 + 9) / 2.
    assert np.isclose(sliced_wasserstein(np.zeros((1, 1)), np.array([[1.0], [3.0]])), np.sqrt(5.0))
    # {0, 1} against {0, 1, 2} splits at 1/3, 1/2, 2/3: (0 + 1/6 + 0 + 1/3).
    assert np.isclose(sliced_wasserstein(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])), np.sqrt(0.5))
    x = normal(0, (7, 3))
    assert np.isclose(sliced_wasserstein(x, np.repeat(x, 5, axis=0)), 0.0, atol=1e-12)


def test_sliced_wasserstein_of_a_shift() -> None:
    # A shift by v costs E (u.v)^2 = |v|^2 / d; 2,000 directions leave a relative error of about sqrt(1 / 2,000).
    x, shift = normal(0, (500, 4)), np.array([1.0, -2.0, 0.5, 0.0])
    found = sliced_wasserstein(x, x + shift, num_projections=2000)
    assert abs(found / (np.linalg.norm(shift) / 2) - 1) < 5 * 0.5 * np.sqrt(2 / 2000)
    assert found == sliced_wasserstein(x, x + shift, num_projections=2000)


def test_energy_distance_between_normals_on_a_line() -> None:
    # 2 E|N(m, 2)| - 2 E|N(0, 2)| with E|N(m, s^2)| = s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m (1 - 2 Phi(-m / s)).
    shift, spread = 1.3, np.sqrt(2.0)
    folded = spread * np.sqrt(2 / np.pi) * np.exp(-(shift**2) / 4) + shift * (1 - 2 * norm.cdf(-shift / spread))
    expected = np.sqrt(2 * (folded - spread * np.sqrt(2 / np.pi)))
    x = normal_quantiles(2000)
    assert np.isclose(energy_distance(x + shift, x), expected, rtol=2e-3)


def test_energy_distance_agrees_with_scipy_on_a_line() -> None:
    x, y = normal(0, (300, 1)), 1.2 * normal(1, (450, 1)) + 0.1
    assert np.isclose(energy_distance(x, y), scipy_energy_distance(x[:, 0], y[:, 0]), rtol=1e-6)


def test_energy_distance_does_not_mind_a_far_origin_or_chunks() -> None:
    x, y = normal(0, (1100, 2)), normal(1, (700, 2)) + 0.5
    assert np.isclose(energy_distance(x + 1e6, y + 1e6), energy_distance(x, y), rtol=1e-6)


def test_energy_distance_subsamples_by_its_seed() -> None:
    x, y = normal(0, (3000, 1)), normal(1, (3000, 1)) + 1.0
    few = energy_distance(x, y, max_draws=500, seed=1)
    assert few == energy_distance(x, y, max_draws=500, seed=1)
    assert few != energy_distance(x, y, max_draws=500, seed=2)
    assert abs(few - energy_distance(x, y, max_draws=3000)) < 0.15


@pytest.mark.parametrize("to_reference", [sliced_wasserstein_to_reference, energy_distance_to_reference])
@pytest.mark.parametrize("size", [100, 700, 3000])
def test_an_exact_sample_of_any_size_lies_within_the_null(to_reference: ToReference, size: int) -> None:
    reference = normal(0, (4000, 3))
    values, medians = [], []
    for seed in range(6):
        distance = to_reference(normal(10 + seed, (size, 3)), reference, seed=seed)
        assert distance.size == min(size, 1000)
        values.append(distance.value)
        medians.append(distance.null_median)
        assert distance.value < 1.5 * distance.null_95
    spread = np.std(values) / np.sqrt(6) + 0.02 * np.mean(medians)
    assert abs(np.mean(values) - np.mean(medians)) < 5 * spread


@pytest.mark.parametrize("to_reference", [sliced_wasserstein_to_reference, energy_distance_to_reference])
def test_a_shift_stands_out_whatever_the_units(to_reference: ToReference) -> None:
    reference, shifted = normal(0, (2000, 2)), normal(1, (2000, 2)) + 0.7
    scale = np.array([1.0, 1000.0])
    distance = to_reference(shifted, reference)
    assert distance.value > 3 * distance.null_95
    assert np.isclose(to_reference(scale * shifted, scale * reference).value, distance.value)


def test_the_null_of_the_energy_distance_is_the_distance_of_halves() -> None:
    reference = normal(0, (200, 2))
    distance = energy_distance_to_reference(reference, reference)
    halves = [
        energy_distance(permuted[:100], permuted[100:])
        for permuted in (np.random.default_rng(seed).permutation(reference) for seed in range(200))
    ]
    error = np.hypot(np.std(halves), np.std(distance.null)) / np.sqrt(100)
    assert abs(np.mean(halves) / reference.std() - np.mean(distance.null)) < 5 * error + 0.02


@pytest.mark.parametrize(
    ("x", "y", "word"),
    [
        (np.zeros(3), np.zeros((3, 1)), "`x`"),
        (np.zeros((3, 1)), np.zeros((0, 1)), "`y`"),
        (np.zeros((3, 1)), np.zeros((3, 2)), "dimension"),
    ],
)
def test_misshapen_samples_are_refused(x: np.ndarray, y: np.ndarray, word: str) -> None:
    for distance in (sliced_wasserstein, energy_distance):
        with pytest.raises(ValueError, match=word):
            distance(x, y)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        energy_distance_to_reference(np.zeros((3, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="shapes"):
        sliced_wasserstein_to_reference(np.zeros((3, 1)), np.zeros((4, 2)))
