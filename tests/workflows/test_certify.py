"""Certificates: how far draws are from a density, and what to use instead."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import scoresample as ss
from scoresample.diagnostics import normalized_weights
from scoresample.workflows._reweight import pareto_smoothed

TARGET = ss.Gaussian(jnp.zeros(2), 1.0)


def drawn(mean: float, variance: float, num: int = 2000, seed: int = 0) -> tuple[ss.Draws, ss.Gaussian]:
    proposal = ss.Gaussian(jnp.full(2, mean), variance)
    return ss.exact_draws(proposal, key=jax.random.key(seed), num_samples=num), proposal


def certified(mean: float, variance: float, **settings: Any) -> ss.Certificate:
    draws, proposal = drawn(mean, variance, **settings)
    return ss.certify(draws, TARGET, proposal, key=jax.random.key(1))


@pytest.mark.parametrize("shift", [0.02, 0.2, 0.6, 1.0])
def test_the_total_variation_is_that_of_shifted_normal_laws(shift: float) -> None:
    found = certified(shift, 1.0)
    exact = 2 * stats.norm.cdf(shift * np.sqrt(2) / 2) - 1
    assert abs(found.total_variation - exact) < 5 * found.total_variation_se
    assert abs(found.log_evidence) < 5 * found.log_evidence_se


def test_the_total_variation_is_that_of_a_wider_normal_law() -> None:
    found = certified(0.0, 1.5)
    # The densities cross where |x|^2 = 2 log(1.5) / (1 - 1/1.5), in two dimensions.
    square = 2 * np.log(1.5) / (1 - 1 / 1.5)
    exact = stats.chi2(2).cdf(square) - stats.chi2(2).cdf(square / 1.5)
    assert abs(found.total_variation - exact) < 5 * found.total_variation_se


@pytest.mark.parametrize(
    ("mean", "variance", "verdict"),
    [
        (0.0, 1.0, "use"),
        (0.03, 1.0, "use"),
        (0.2, 1.1, "use weighted"),
        (0.0, 0.2, "use polished"),
        (4.0, 1.0, "do not use"),
    ],
)
def test_verdicts_grow_worse_with_the_distance(mean: float, variance: float, verdict: str) -> None:
    found = certified(mean, variance, num=4000)
    assert found.verdict == verdict, str(found)
    words = str(found)
    assert "where no draw is" in words
    if verdict in ("use", "use polished"):
        assert found.draws.log_weights is None
        position = np.asarray(found.draws.position).reshape(-1, 2)
        assert np.abs(position.mean(axis=0)).max() < 0.03 + 5 / np.sqrt(4000)
    else:
        assert found.draws.log_weights is not None


def test_perfect_draws_have_no_tail() -> None:
    found = certified(0.0, 1.0)
    assert found.total_variation < 1e-5
    assert found.pareto_k == -np.inf
    np.testing.assert_allclose(found.ess, 2000, rtol=1e-4)


def test_pareto_k_is_that_of_the_weights_and_not_of_their_inverse() -> None:
    """Weights of a narrow proposal have the tail of a Pareto law; those of a wide one are bounded."""
    rng = np.random.default_rng(0)
    for index in (0.3, 0.9):
        shape, smoothed = pareto_smoothed(index * rng.exponential(size=20_000))
        assert abs(shape - index) < 0.12
        assert smoothed.shape == (20_000,)
    assert pareto_smoothed(-rng.exponential(size=20_000))[0] < 0.1


def test_draws_without_a_density_of_their_own_are_refused() -> None:
    draws, _ = drawn(0.0, 1.0, num=100)
    with pytest.raises(ValueError, match="WithDensity"):
        ss.certify(draws, TARGET, key=jax.random.key(0))


def test_folded_draws_count_for_nothing() -> None:
    path = ss.perturb(TARGET, ss.VP())
    draws = ss.sample(path, ss.WithDensity(), key=jax.random.key(0), num_samples=100, num_chains=1)
    draws.stats["folded"] = np.arange(100)[None] < 7
    weighted = ss.reweight(draws, TARGET)
    assert weighted.info["num_failed_weights"] == 7
    assert np.isneginf(np.asarray(weighted.log_weights)[0, :7]).all()


def test_polishing_leaves_a_density_invariant() -> None:
    mean, covariance = jnp.array([1.0, -2.0]), jnp.array([[2.0, 0.6], [0.6, 0.5]])
    target = ss.Gaussian(mean, covariance)
    draws = ss.exact_draws(target, key=jax.random.key(0), num_samples=4000)
    moved = np.asarray(ss.polish(draws, target, key=jax.random.key(1)).position[0])
    assert np.abs(moved - np.asarray(draws.position[0])).max(axis=0).min() > 0.5
    np.testing.assert_allclose(moved.mean(axis=0), mean, atol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(np.cov(moved.T), covariance, atol=5 * 2 * np.sqrt(2 / 4000))


def test_polishing_mends_a_wrong_start_of_a_tree() -> None:
    def logdensity(position: dict[str, Any]) -> Any:
        return -0.5 * jnp.sum((position["a"] - 1.0) ** 2 / 0.01) - 0.5 * position["b"] ** 2

    target = ss.DensityScore(logdensity, structure={"a": jnp.zeros(2), "b": jnp.zeros(())})
    wrong = ss.Gaussian.like({"a": jnp.zeros(2), "b": jnp.zeros(())}, 1.0)
    draws = ss.exact_draws(wrong, key=jax.random.key(0), num_samples=2000)
    moved = ss.polish(draws, target, key=jax.random.key(1), num_steps=200)
    a, b = np.asarray(moved.position["a"][0]), np.asarray(moved.position["b"][0])
    np.testing.assert_allclose(a.mean(axis=0), 1.0, atol=5 * 0.1 / np.sqrt(2000))
    np.testing.assert_allclose(a.std(axis=0), 0.1, rtol=5 / np.sqrt(2 * 2000))
    np.testing.assert_allclose(b.std(), 1.0, rtol=5 / np.sqrt(2 * 2000))
    assert moved.info["distinct_starts"] == 2000


def test_polishing_starts_from_weighted_draws() -> None:
    draws, proposal = drawn(0.5, 1.3)
    weighted = ss.reweight(draws, TARGET, proposal)
    moved = ss.polish(weighted, TARGET, key=jax.random.key(1))
    assert moved.log_weights is None
    assert 500 < moved.info["distinct_starts"] < 2000
    position = np.asarray(moved.position[0])
    assert np.unique(position[:, 0]).size > moved.info["distinct_starts"]
    np.testing.assert_allclose(position.mean(axis=0), 0, atol=5 / np.sqrt(1000))


def test_smoothed_weights_lead_to_the_target() -> None:
    draws, proposal = drawn(0.5, 1.3, num=4000)
    position = np.asarray(draws.position).reshape(-1, 2)
    for weighted in (
        ss.reweight(draws, TARGET, proposal, smooth=True),
        ss.certify(draws, TARGET, proposal, key=jax.random.key(1)).draws,
    ):
        weights = normalized_weights(weighted)
        np.testing.assert_allclose(weights @ position, 0, atol=5 / np.sqrt(weighted.info["ess"]))
        assert np.abs(position.mean(axis=0)).min() > 0.4


def test_weights_are_not_made_twice() -> None:
    draws = ss.sample(ss.perturb(TARGET, ss.VP()), ss.WithDensity(), key=jax.random.key(0), num_samples=50)
    weighted = ss.reweight(draws, TARGET)
    with pytest.raises(ValueError, match="weights already"):
        ss.reweight(weighted, TARGET)
    with pytest.raises(ValueError, match="weights already"):
        ss.certify(weighted, TARGET, key=jax.random.key(0))
