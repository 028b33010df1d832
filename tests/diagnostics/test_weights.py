import numpy as np

from scoresample.diagnostics import effective_draws, effective_sizes, kish_ess, normalized_weights, systematic_resample
from tests.diagnostics.made_draws import autoregressive_chains, made_draws, normal_chains


def test_normalised_weights_survive_huge_logarithms() -> None:
    log_weights = np.array([[1000.0, 1000.0 + np.log(3.0)]])
    draws = made_draws(np.zeros((1, 2), np.float32), "independent", log_weights=log_weights)
    np.testing.assert_allclose(normalized_weights(draws), [0.25, 0.75], rtol=1e-4)
    assert np.isclose(kish_ess(normalized_weights(draws)), 1.6, rtol=1e-4)


def test_systematic_resampling_keeps_each_count_within_one_of_its_share() -> None:
    generator = np.random.default_rng(0)
    weights = generator.exponential(size=50)
    counts = np.bincount(systematic_resample(weights, 200, seed=3), minlength=50)
    share = 200 * weights / weights.sum()
    assert np.all(np.abs(counts - share) < 1)
    np.testing.assert_array_equal(systematic_resample(np.ones(20), 20), np.arange(20))


def test_ess_of_weighted_independent_draws_is_kish() -> None:
    log_weights = np.random.default_rng(1).normal(size=(1, 500))
    draws = made_draws(normal_chains(0, chains=1, draws=500), "independent", log_weights=log_weights)
    sizes = effective_sizes(draws, {"x": normal_chains(0, chains=1, draws=500)})
    assert np.isclose(sizes["x"], kish_ess(np.exp(log_weights)))


def test_copies_of_interacting_particles_count_once() -> None:
    position = np.repeat(normal_chains(0, 2, chains=1, draws=100), 5, axis=1)
    draws = made_draws(position, "interacting")
    assert effective_sizes(draws, {"x": position[..., 0]}) == {"x": 100.0}


def test_effective_draws_thin_chains_to_their_ess_and_use_weights_up() -> None:
    chains = autoregressive_chains(0, 0.9)
    thinned = effective_draws(made_draws(chains))
    assert 200 < len(thinned) < 800  # ESS is 8,000 (1 - .9) / (1 + .9) = 421
    sample = normal_chains(1, chains=1, draws=20_000)
    tilted = made_draws(sample, "independent", log_weights=0.8 * sample)  # N(0, 1) times exp(.8 x) is N(.8, 1)
    resampled = effective_draws(tilted)
    assert abs(resampled.mean() - 0.8) < 5 / np.sqrt(len(resampled))
    assert abs(resampled.std() - 1.0) < 5 / np.sqrt(2 * len(resampled))
