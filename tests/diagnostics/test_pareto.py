"""The tail of importance weights."""

import numpy as np
import pytest

from scoresample.diagnostics import pareto_smoothed


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_it_finds_the_shape_of_a_pareto_law(shape: float) -> None:
    """And not that of the inverse weights, which are bounded by 1."""
    rng = np.random.default_rng(0)
    found = np.array([pareto_smoothed(-shape * np.log(rng.random(4000))).pareto_k for _ in range(40)])
    # ArviZ shrinks the shape towards 1/2 with the weight of ten draws among the tail's 189.
    expected = (shape * 189 + 0.5 * 10) / 199
    assert abs(found.mean() - expected) < 5 * found.std() / np.sqrt(found.size) + 0.03
    assert found.mean() > 0.15


def test_smoothing_takes_the_outlier_away_and_keeps_the_rest() -> None:
    log_weights = np.random.default_rng(0).normal(size=1000)
    log_weights[17], log_weights[18] = 12.0, -np.inf
    smoothed, shape = pareto_smoothed(log_weights)
    assert np.isneginf(smoothed[18])
    assert shape > 0.5
    bulk = np.flatnonzero(np.isfinite(log_weights) & (log_weights < np.quantile(log_weights, 0.85)))
    np.testing.assert_allclose(np.ptp(smoothed[bulk] - log_weights[bulk]), 0.0, atol=1e-10)
    assert np.argmax(smoothed) == 17
    assert smoothed[17] - np.median(smoothed[bulk]) < 12


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_equal_weights_have_no_tail(noise: float) -> None:
    log_weights = 3 + noise * np.random.default_rng(0).normal(size=100)
    smoothed, shape = pareto_smoothed(log_weights)
    assert shape == -np.inf
    np.testing.assert_array_equal(smoothed, log_weights)


def test_a_largest_weight_that_comes_many_times_is_a_bound() -> None:
    log_weights = np.zeros(1000)
    log_weights[:300] = -1 - np.random.default_rng(0).random(300)
    assert pareto_smoothed(log_weights).pareto_k == -np.inf


def test_few_weights_have_no_shape() -> None:
    assert np.isnan(pareto_smoothed(np.arange(29.0)).pareto_k)
    assert np.isfinite(pareto_smoothed(np.arange(30.0)).pareto_k)
