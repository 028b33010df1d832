"""Weights that turn the draws of one density into those of another."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.diagnostics import kish_ess, normalized_weights
from scoresample.inference import exact_draws
from tests.paths.test_likelihood import biased_path

WIDE = ss.Gaussian(jnp.array([0.0, 0.5]), jnp.array([2.0, 1.0]))
NARROW = ss.Gaussian(jnp.array([0.5, 0.0]), jnp.array([[1.0, 0.4], [0.4, 0.5]]))


def wide_draws(num: int = 4000) -> ss.Draws:
    return exact_draws(WIDE, key=jax.random.key(0), num_samples=num)


def log_weights(draws: ss.Draws) -> np.ndarray:
    assert draws.log_weights is not None
    return np.asarray(draws.log_weights)


def assert_mean(draws: ss.Draws, expected: np.ndarray) -> None:
    """The weighted mean within 5 of its standard errors."""
    weights, points = normalized_weights(draws), np.asarray(draws.position).reshape(-1, 2)
    mean = weights @ points
    standard_error = np.sqrt(weights**2 @ (points - mean) ** 2)
    assert np.abs((mean - expected) / standard_error).max() < 5


def test_weighted_draws_have_the_moments_of_the_target() -> None:
    draws = wide_draws()
    weighted = ss.reweight(draws, NARROW, WIDE)
    assert draws.log_weights is None
    assert weighted.position is draws.position
    assert log_weights(weighted).shape == (1, 4000)
    assert log_weights(weighted).max() == 0
    assert weighted.info["num_failed_weights"] == 0
    assert_mean(weighted, np.array([0.5, 0.0]))
    flat = jnp.asarray(draws.position[0])
    expected = jax.vmap(NARROW.logdensity)(flat) - jax.vmap(WIDE.logdensity)(flat)
    np.testing.assert_allclose(log_weights(weighted)[0], expected - expected.max(), atol=1e-4)


def test_the_mean_weight_is_the_evidence() -> None:
    """A target with the constant 3, from a normalised proposal, also in two steps."""
    wide, narrow = ss.Gaussian(jnp.zeros(1), 4.0), ss.Gaussian(jnp.ones(1), 1.0)
    scaled = ss.DensityScore(lambda x: narrow.logdensity(x) + jnp.log(3.0), structure=jnp.zeros(1))
    draws = ss.exact_draws(wide, key=jax.random.key(0), num_samples=4000)
    once = ss.reweight(draws, scaled, wide)
    shares = np.exp(np.asarray(once.log_weights, np.float64)).ravel()
    error = shares.std() / shares.mean() / np.sqrt(shares.size)
    assert abs(once.info["log_z"] - np.log(3.0)) < 5 * error < 0.2
    again = ss.reweight(once, narrow, scaled)
    assert again.info["log_z"] == pytest.approx(-np.log(3.0), abs=1e-4)


def test_weights_are_multiplied_and_do_not_depend_on_batches() -> None:
    draws = wide_draws(101)
    twice = ss.reweight(ss.reweight(draws, NARROW, WIDE, batch_size=7), WIDE, NARROW, batch_size=500)
    np.testing.assert_allclose(log_weights(twice), np.zeros((1, 101)), atol=1e-5)


def test_chains_keep_their_axes() -> None:
    draws = wide_draws(40)
    chains = dataclasses.replace(draws, position=jnp.asarray(draws.position).reshape(4, 10, 2), kind="chains")
    weighted, flat = ss.reweight(chains, NARROW, WIDE, batch_size=16), ss.reweight(draws, NARROW, WIDE)
    assert weighted.kind == "chains"
    np.testing.assert_allclose(log_weights(weighted).ravel(), log_weights(flat).ravel(), atol=1e-6)


def truncated(x: Array, bound: Array) -> Array:
    return jnp.where(x[0] > bound, jnp.where(x[1] > 3 * bound, -0.5 * x @ x, jnp.nan), -jnp.inf)


def test_draws_without_a_weight_count_as_zero_and_are_counted() -> None:
    draws = wide_draws()
    x, y = np.asarray(draws.position[0]).T
    weighted = ss.reweight(draws, ss.DensityScore(truncated, jnp.asarray(-0.3), structure=jnp.zeros(2)), WIDE)
    failed = (x > -0.3) & (y <= -0.9)
    assert failed.any()
    np.testing.assert_array_equal(weighted.stats["weight_failed"][0], failed)
    assert weighted.info["num_failed_weights"] == failed.sum()
    np.testing.assert_array_equal(np.isneginf(log_weights(weighted)[0]), failed | (x <= -0.3))
    assert not np.isnan(log_weights(weighted)).any()
    nowhere = ss.DensityScore(truncated, jnp.asarray(100.0), structure=jnp.zeros(2))
    with pytest.raises(ValueError, match="none of the 4000 draws gets a weight"):
        ss.reweight(draws, nowhere, WIDE)


def test_draws_of_a_biased_flow_are_turned_into_those_of_the_target() -> None:
    path = biased_path(0.7)
    flow = ss.ProbabilityFlowODE(num_steps=40, denoise=False)
    draws = ss.sample(path, flow, key=jax.random.key(0), num_samples=1000, num_chains=1, progress=False)
    proposal = ss.ProbabilityFlowDensity(path, rtol=1e-4, atol=1e-4)
    exact = path.args[0]
    weighted = ss.reweight(draws, exact.at(proposal.t), proposal)
    assert kish_ess(normalized_weights(weighted)) > 500
    mean = np.asarray(exact.data_moments()[0])
    assert_mean(weighted, mean)
    with pytest.raises(AssertionError):
        assert_mean(draws, mean)


def own_draws(num_samples: int = 500) -> ss.Draws:
    """Draws of a crude run with the density of this very run."""
    flow = ss.WithDensity(ss.ProbabilityFlowODE(num_steps=5))
    settings: dict[str, Any] = {"key": jax.random.key(0), "num_samples": num_samples, "progress": False}
    return ss.sample(ss.perturb(WIDE, ss.VP()), flow, **settings)


def test_draws_with_their_own_density_need_no_proposal() -> None:
    draws = own_draws()
    weighted = ss.reweight(draws, NARROW)
    expected = np.asarray(jax.vmap(NARROW.logdensity)(jnp.asarray(draws.position[0]))) - draws.stats["log_proposal"][0]
    np.testing.assert_allclose(log_weights(weighted)[0], expected - expected.max(), atol=1e-4)
    assert abs(weighted.info["log_z"]) < 5 * weighted.info["log_z_se"] < 0.2
    assert weighted.info["ess"] == pytest.approx(kish_ess(normalized_weights(weighted)), rel=1e-4)
    assert -3 < weighted.info["pareto_k"] < 0.7
    assert_mean(weighted, np.array([0.5, 0.0]))
    smoothed = ss.reweight(draws, NARROW, smooth=True)
    assert smoothed.info["log_z"] == weighted.info["log_z"]
    assert np.abs(log_weights(smoothed) - log_weights(weighted)).max() > 1e-3
    assert log_weights(smoothed).max() == 0
    assert_mean(smoothed, np.array([0.5, 0.0]))
    with pytest.raises(ValueError, match="`draws` have weights already"):
        ss.reweight(smoothed, NARROW)
    with pytest.raises(ValueError, match=r"`proposal`: these draws .*WithDensity"):
        ss.reweight(wide_draws(5), NARROW)


def test_folded_draws_get_no_weight() -> None:
    draws = own_draws(10)
    folded = np.arange(40)[None] % 7 == 0
    draws = dataclasses.replace(draws, stats={**draws.stats, "folded": folded})
    weighted = ss.reweight(draws, NARROW)
    np.testing.assert_array_equal(weighted.stats["weight_failed"], folded)
    np.testing.assert_array_equal(np.isneginf(log_weights(weighted)), folded)
    assert ss.reweight(draws, NARROW, WIDE).info["num_failed_weights"] == 0


def test_a_perfect_proposal_has_equal_weights() -> None:
    weighted = ss.reweight(wide_draws(), WIDE, WIDE, smooth=True)
    assert weighted.info["pareto_k"] == -np.inf
    assert weighted.info["ess"] == 4000
    assert weighted.info["log_z"] == weighted.info["log_z_se"] == 0


def test_the_error_of_the_evidence_is_that_of_repeated_runs() -> None:
    """Of 100 runs, each of 100 draws; and of a second step, whose ratio is of weighted draws."""
    draws = wide_draws(10_000)
    runs = [dataclasses.replace(draws, position=draws.position[:, k : k + 100]) for k in range(0, 10_000, 100)]
    runs = [dataclasses.replace(run, stats={}) for run in runs]
    once = [ss.reweight(run, NARROW, WIDE) for run in runs]
    again = [ss.reweight(run, WIDE, NARROW) for run in once]
    for found, spread in ((once, 0.25), (again, 0.25)):
        values = np.array([run.info["log_z"] for run in found])
        errors = np.array([run.info["log_z_se"] for run in found])
        assert abs(np.median(errors) / values.std() - 1) < spread


@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_refused_at_the_door() -> None:
    draws = wide_draws(5)
    with pytest.raises(TypeError, match="`draws` must be Draws, got"):
        ss.reweight(draws.position, NARROW, WIDE)
    with pytest.raises(TypeError, match="`target` must be a score with a log density, got Score"):
        ss.reweight(draws, ss.Score(lambda x: -x, structure=jnp.zeros(2)), WIDE)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"`proposal` .* got PerturbedScore.*ProbabilityFlowDensity"):
        ss.reweight(draws, NARROW, biased_path(1.0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`target`"):
        ss.reweight(draws, ss.Gaussian(jnp.zeros(3), 1.0), WIDE)
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        ss.reweight(draws, NARROW, WIDE, batch_size=0)
