"""Pathfinder: starts and a Gaussian near the target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from tests.cases import bare, density, gaussian, tree_position


def test_it_finds_a_gaussian_and_gives_a_start_for_every_chain() -> None:
    target = gaussian()
    fit = ss.pathfinder(target, key=jax.random.key(0), num_paths=3, num_draws=2000, initial_position=jnp.full(2, 30.0))
    assert fit.position.shape == (3, 2000, 2)
    assert fit.log_weights.shape == (3, 2000)
    np.testing.assert_allclose(np.exp(fit.log_weights).sum(), 1.0, rtol=1e-3)
    np.testing.assert_allclose(fit.position.mean(axis=(0, 1)), target.mean, atol=0.2)
    np.testing.assert_allclose(fit.gaussian(1.0).variances, [2.0, 0.5], rtol=0.5)
    np.testing.assert_allclose(fit.gaussian(4.0).variances, 4 * fit.gaussian(1.0).variances, rtol=1e-5)
    assert fit.starts().shape == (3, 2)
    assert len(np.unique(fit.starts())) == 6
    draws = ss.sample(
        target,
        ss.HMC(),
        key=jax.random.key(1),
        num_chains=3,
        num_samples=3,
        num_warmup=20,
        initial_position=fit.starts(),
    )
    assert draws.position.shape == (3, 3, 2)


def test_trees_have_starts_and_a_reference_too() -> None:
    fit = ss.pathfinder(density(), key=jax.random.key(0), initial_position=tree_position(), num_draws=50)
    assert fit.starts()["effects"].shape == (4, 2)
    assert ss.TemperedPath(fit.gaussian(), density()).structure == density().structure


def test_what_it_cannot_follow_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Score is a bare score.*LineIntegralDensity"):
        ss.pathfinder(bare(), key=jax.random.key(0), initial_position=jnp.zeros(2))
    fit = ss.pathfinder(gaussian(), key=jax.random.key(0), num_draws=10)
    with pytest.raises(ValueError, match="`inflation` must be positive"):
        fit.gaussian(0.0)
