import arviz as az
import numpy as np
import pytest

from scoresample.diagnostics import chain_statistics, effective_sizes, rank_r_hat
from tests.diagnostics.made_draws import autoregressive_chains, made_draws, normal_chains


@pytest.mark.parametrize("correlation", [-0.3, 0.0, 0.6, 0.9])
def test_mean_ess_of_an_autoregressive_chain(correlation: float) -> None:
    # The integrated autocorrelation time of AR(1) is (1 + rho) / (1 - rho).
    found = [
        effective_sizes(made_draws(value), {"x": value}, method="mean")["x"]
        for value in (autoregressive_chains(seed, correlation) for seed in range(8))
    ]
    expected = min(8000 * (1 - correlation) / (1 + correlation), 8000)
    error = np.std(found) / np.sqrt(len(found)) + 0.02 * expected  # Geyer's truncation is biased by a percent or two
    assert abs(np.mean(found) - expected) < 5 * error


def test_r_hat_of_stuck_chains_is_that_of_arviz_and_large() -> None:
    chains = normal_chains(0) + 4.0 * np.arange(4)[:, None]
    found = rank_r_hat(chains)
    assert found > 1.5
    expected = az.rhat(az.from_dict({"posterior": {"x": chains}}))["x"]
    np.testing.assert_allclose(found, float(expected))


def test_frozen_and_short_chains_make_no_noise() -> None:
    assert np.isinf(rank_r_hat(np.arange(4.0)[:, None] * np.ones((4, 100))))
    assert np.isnan(rank_r_hat(np.ones((4, 100))))
    assert np.isnan(rank_r_hat(np.ones((4, 2))))


def test_independent_draws_have_no_r_hat_and_count_in_full() -> None:
    found = chain_statistics(made_draws(normal_chains(0, 3, chains=1, draws=700), "independent"))
    assert found.names == ("x[0]", "x[1]", "x[2]")
    assert np.all(np.isnan(found.r_hat))
    np.testing.assert_array_equal(found.ess_bulk, 700.0)
    np.testing.assert_array_equal(found.ess_tail, 700.0)


def test_chains_have_everything() -> None:
    found = chain_statistics(made_draws(normal_chains(0, 2)))
    assert np.all(found.r_hat < 1.01)
    assert np.all((found.ess_bulk > 3000) & (found.ess_bulk <= 4000))
    assert np.all((found.ess_tail > 2500) & (found.ess_tail <= 4000))


def test_many_draws_in_single_precision_have_an_effective_size() -> None:
    """Ten million ranks do not fit into float32: the largest quantiles would be infinite, and the ESS nan."""
    value = np.random.default_rng(0).normal(size=(2, 5_500_000)).astype(np.float32)
    found = effective_sizes(made_draws(value), {"x": value})["x"]
    assert 0.98 * value.size < found <= value.size
