"""Regions between which chains do not cross, and what weights know of their shares."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.diagnostics import systematic_resample
from scoresample.inference import exact_draws
from scoresample.workflows._regions import _error_of_shares, regional_checks


def weighted_draws(log_weights: np.ndarray) -> ss.Draws:
    draws = exact_draws(ss.Gaussian(jnp.zeros(2), 1.0), key=jax.random.key(0), num_samples=log_weights.size)
    return dataclasses.replace(draws, log_weights=jnp.asarray(log_weights[None], float))


def test_the_error_of_shares_is_that_of_repeated_runs() -> None:
    """Weights that differ from region to region, and vary within each."""
    rng = np.random.default_rng(0)
    shares, claimed = np.array([0.2, 0.5, 0.3]), []
    errors = []
    for run in range(300):
        labels = rng.choice(3, size=2000, p=[0.6, 0.3, 0.1])
        weights = (shares / [0.6, 0.3, 0.1])[labels] * rng.exponential(size=2000)
        weights = weights / weights.sum()
        chosen = systematic_resample(weights, 2000, seed=run)
        errors.append(0.5 * np.abs(np.bincount(labels, weights=weights) - shares).sum())
        claimed.append(_error_of_shares(weights[chosen], labels[chosen]))
    assert abs(np.mean(claimed) - np.mean(errors)) < 5 * np.std(errors) / np.sqrt(300)


@pytest.mark.parametrize(("kept", "passed"), [(0.0, True), (0.1, True), (0.5, False), (1.0, False)])
def test_chains_are_to_forget_where_in_their_region_they_were(kept: float, passed: bool) -> None:
    """Modes are kept by all; the correlation within is what differs."""
    rng = np.random.default_rng(1)
    draws = weighted_draws(0.3 * rng.normal(size=6000))
    ancestors = np.arange(6000)
    mode = np.where(rng.random(6000) < 0.3, -20.0, 20.0)[:, None] * np.array([1.0, 0.0])
    starts, fresh = rng.normal(size=(2, 6000, 2))
    ends = kept * starts + np.sqrt(1 - kept**2) * fresh
    # Chains that remember at all do so within smaller regions too, unless they move farther than these are wide.
    checks = regional_checks(draws, ancestors, mode + starts, mode + ends)
    assert (checks is not None and checks[0].name.endswith("within 2 regions")) == passed
    if kept == 1:
        assert checks is None
        unmoved = regional_checks(draws, ancestors, mode + starts, mode + starts * np.array([-1.0, 1.0]))
        assert unmoved is None


def test_scales_are_to_be_forgotten_too() -> None:
    """Chains that keep their distance from the middle of their mode are not correlated, but their squares are."""
    rng = np.random.default_rng(2)
    draws = weighted_draws(0.3 * rng.normal(size=6000))
    starts = rng.normal(size=(6000, 2)) * np.exp(rng.normal(size=(6000, 1)))
    kept = starts * rng.choice([-1.0, 1.0], size=(6000, 2))
    assert regional_checks(draws, np.arange(6000), starts, rng.permutation(starts)) is not None
    assert regional_checks(draws, np.arange(6000), starts, kept) is None


def test_weights_that_do_not_know_the_shares_give_no_checks() -> None:
    rng = np.random.default_rng(3)
    starts, ends = rng.normal(size=(2, 6000, 2))
    good = 0.3 * rng.normal(size=6000)
    ancestors = np.arange(6000)
    assert regional_checks(weighted_draws(good), ancestors, starts, ends) is not None
    one_large = good.copy()
    one_large[0] = np.log(6000 * 0.06)  # one draw with 6% of the mass
    few = np.where(ancestors < 500, good, -20.0)
    heavy = -1.3 * np.log(rng.random(6000))
    smoothed = weighted_draws(good)
    smoothed.info["smoothed"] = True
    chains = dataclasses.replace(weighted_draws(good), kind="chains")
    plain = dataclasses.replace(weighted_draws(good), log_weights=None)
    for draws in (*map(weighted_draws, (one_large, few, heavy)), smoothed, chains, plain):
        assert regional_checks(draws, ancestors, starts, ends) is None


def moons(theta: jax.Array) -> jax.Array:
    """Two thin crescents with edges, as the posterior of the two-moons simulator at 0."""
    right, up = jnp.abs(theta[0] + theta[1]) / jnp.sqrt(2.0) - 0.25, (theta[0] - theta[1]) / jnp.sqrt(2.0)
    radius = jnp.hypot(right, up)
    return jnp.where(right > 0, -0.5 * ((radius - 0.1) / 0.01) ** 2 - jnp.log(radius), -jnp.inf)


def test_two_moons() -> None:
    """No chain goes from moon to moon, nor far along one; weights and moves together have it all."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, 1000), 0.1 + 0.01 * rng.normal(size=1000)
    along, up = (0.25 + radius * np.cos(angle)) * np.where(rng.random(1000) < 0.7, -1, 1), radius * np.sin(angle)
    points = np.stack([along + up, along - up], axis=1) / np.sqrt(2)
    proposal = ss.GaussianMixture(jnp.full(1000, 1e-3), jnp.asarray(points, jnp.float32), jnp.full((1000, 2), 0.005**2))
    target = ss.DensityScore(moons, structure=jnp.zeros(2))
    draws = exact_draws(proposal, key=jax.random.key(0), num_samples=8000)
    weighted = ss.reweight(draws, target, proposal)
    assert weighted.info["ess"] < 0.75 * 8000
    polished = ss.polish(weighted, target, key=jax.random.key(1))
    assert polished.info["autocorrelation_bound"] > 0.9
    assert all(check.passed for check in polished.info["checks"]), [str(check) for check in polished.info["checks"]]
    x = np.asarray(polished.position[0], np.float64)
    error = 0.5 / np.sqrt(weighted.info["ess"])
    assert abs(np.mean(x.sum(axis=1) > 0) - 0.5) < 5 * error
    assert abs(np.mean(x[:, 0] > x[:, 1]) - 0.5) < 5 * error
    radii = np.hypot(np.abs(x.sum(axis=1)) / np.sqrt(2) - 0.25, (x[:, 0] - x[:, 1]) / np.sqrt(2))
    assert abs(radii.mean() - 0.1) < 5 * 0.01 * 2 * error
    assert abs(radii.std() - 0.01) < 5 * 0.01 * 2 * error
    unknown = dataclasses.replace(weighted, info={**weighted.info, "smoothed": True})
    assert not ss.polish(unknown, target, key=jax.random.key(1)).info["checks"][0].passed
