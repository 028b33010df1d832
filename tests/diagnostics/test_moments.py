import numpy as np

from scoresample.diagnostics import MomentErrors, compare_moments, moment_estimates
from tests.diagnostics.made_draws import autoregressive_chains, made_draws, normal_chains


def errors_of(run: np.ndarray, reference: np.ndarray) -> MomentErrors:
    return compare_moments(moment_estimates(made_draws(run)), moment_estimates(made_draws(reference)))


def test_errors_in_standard_errors_are_standard_normal() -> None:
    # Autocorrelated chains against a shorter independent reference, both N(0, 1): 300 quantities, 300 z-scores.
    run = np.stack([autoregressive_chains(seed, 0.7, draws=1000) for seed in range(300)], axis=-1)
    reference = normal_chains(1000, 300, draws=500)
    found = errors_of(run, reference)
    mean_z = found.mean_error / found.mean_error_se
    sd_z = np.log(found.sd_ratio) / found.log_sd_ratio_se
    for squares in (mean_z**2, sd_z**2):  # chi-squared: the mean of 300 has the standard error sqrt(2 / 300)
        assert abs(squares.mean() - 1.0) < 5 * np.sqrt(2 / 300) * 1.1
    assert mean_z.max() < 4.5


def test_known_shift_and_scale_are_found() -> None:
    reference = normal_chains(0, 2, draws=4000)
    run = 1.5 * normal_chains(1, 2, draws=4000) + np.array([0.0, 2.0], np.float32)
    found = errors_of(run, reference)
    np.testing.assert_array_less(np.abs(found.mean_error - [0.0, 2.0]), 5 * found.mean_error_se)
    np.testing.assert_array_less(np.abs(np.log(found.sd_ratio / 1.5)), 5 * found.log_sd_ratio_se)
    np.testing.assert_allclose(found.mean_error_se, np.sqrt(1.5**2 / 16000 + 1 / 16000), rtol=0.1)
    np.testing.assert_allclose(found.log_sd_ratio_se, np.sqrt(1 / 16000), rtol=0.1)


def test_weights_are_used() -> None:
    sample = normal_chains(2, chains=1, draws=20_000)
    found = moment_estimates(made_draws(sample, "independent", log_weights=0.5 * sample))
    assert abs(found.mean[0] - 0.5) < 5 / np.sqrt(found.ess_mean[0])
    assert abs(found.sd[0] - 1.0) < 5 / np.sqrt(2 * found.ess_sd[0])
    assert found.ess_mean[0] < 18_000


def test_heavy_tails_widen_the_error_of_the_ratio() -> None:
    heavy = np.random.default_rng(3).standard_t(3, size=(4, 2000))
    found = errors_of(heavy, normal_chains(4, draws=2000))
    assert found.log_sd_ratio_se[0] > 1.5 * np.sqrt(1 / 8000)


def test_a_reference_without_spread_gives_nan() -> None:
    found = errors_of(normal_chains(0), np.zeros((4, 1000)))
    assert np.isnan(found.mean_error[0])
    assert np.isnan(found.sd_ratio[0])
