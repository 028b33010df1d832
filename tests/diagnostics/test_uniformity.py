"""Bands of the empirical distribution function of uniform numbers, against simulation and against brute force."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import multinomial

from scoresample.diagnostics import ecdf_band, uniformity_p_value
from scoresample.diagnostics._uniformity import _counts, _points, _stays_inside, ecdf


def leaves(values: np.ndarray, level: float) -> bool:
    band = ecdf_band(len(values), level)
    curve = ecdf(values, band.points)
    return bool(np.any((curve < band.lower) | (curve > band.upper)))


def assert_rate(hits: np.ndarray, level: float, at_least: float = 0.0) -> None:
    """A share of hits at most a level, and not far below what is named, within 5 standard errors."""
    error = np.sqrt(level * (1 - level) / hits.size)
    assert at_least - 5 * error < hits.mean() < level + 5 * error


@pytest.mark.parametrize("num", [7, 40, 300])
def test_uniform_numbers_leave_the_band_as_often_as_the_level_says(num: int) -> None:
    rng = np.random.default_rng(num)
    hits = np.array([leaves(rng.uniform(size=num), 0.1) for _ in range(2000)])
    assert_rate(hits, 0.1, at_least=0.05 if num < 10 else 0.09)


def test_p_values_are_uniform_or_a_little_larger() -> None:
    rng = np.random.default_rng(0)
    p_values = np.array([uniformity_p_value(rng.uniform(size=100)) for _ in range(600)])
    for level in (0.02, 0.1, 0.5):
        assert_rate(p_values <= level, level, at_least=0.8 * level)


def test_the_p_value_is_the_smallest_level_whose_band_is_left() -> None:
    rng = np.random.default_rng(1)
    for power in np.linspace(1.0, 1.5, 20):
        values = rng.uniform(size=150) ** power
        p_value = uniformity_p_value(values)
        if 1e-6 < p_value < 0.9:
            assert leaves(values, 1.01 * p_value)
            assert not leaves(values, 0.99 * p_value)


def test_the_chance_to_stay_inside_against_all_outcomes() -> None:
    """Four numbers in four cells: every multinomial outcome counted."""
    lower, upper = _counts(4, 0.3)
    assert len(_points(4)) == 3
    total = 0.0
    for cells in product(range(5), repeat=4):
        counts = np.cumsum(cells)[:3]
        if sum(cells) == 4 and np.all((counts >= lower) & (counts <= upper)):
            total += multinomial.pmf(cells, 4, [0.25] * 4)
    assert 0.3 < total < 0.99
    assert _stays_inside(4, lower, upper) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("change", ["hump", "valley", "up"])
def test_what_is_not_uniform_is_found(change: str) -> None:
    u = np.random.default_rng(2).uniform(size=400)
    values = {"hump": 0.5 + (u - 0.5) * 0.7, "valley": np.sin(np.pi * u / 2) ** 2, "up": np.sqrt(u)}[change]
    assert uniformity_p_value(values) < 1e-4


def test_what_cannot_be_tested_is_named() -> None:
    with pytest.raises(ValueError, match="`level` must be between 0 and 1, but is 1"):
        ecdf_band(10, 1.0)
    with pytest.raises(ValueError, match="`num` must be at least 2"):
        ecdf_band(1)
    for values in (np.array([0.5]), np.array([0.5, 1.5]), np.array([0.5, np.nan]), np.zeros((3, 2))):
        with pytest.raises(ValueError, match="`values` must be at least 2 numbers from 0 to 1"):
            uniformity_p_value(values)
