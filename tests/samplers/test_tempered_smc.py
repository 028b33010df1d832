"""Tempered sequential Monte Carlo: weights of modes, the normalising constant, and what is reported."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.checks import Check
from scoresample.samplers import TemperedSMC
from tests.cases import density, mixture

RUNS = 12


def far_modes() -> ss.TemperedPath:
    """Two modes twelve standard deviations apart, with weights .3 and .7, times e^2: its constant is e^2."""
    modes = ss.GaussianMixture([0.3, 0.7], [[-3.0, 0.0], [3.0, 1.0]], [0.25 * jnp.eye(2)] * 2)
    scaled = ss.DensityScore(lambda x: modes.logdensity(x) + 2.0, structure=jnp.zeros(2))
    return ss.TemperedPath(ss.Gaussian(jnp.array([1.0, 0.0]), 16.0), scaled)


def test_modes_keep_their_weights_and_the_constant_is_found() -> None:
    path, shares, constants = far_modes(), [], []
    for seed in range(RUNS):
        draws = ss.sample(path, TemperedSMC(), key=jax.random.key(seed), num_samples=1000, num_chains=1)
        assert draws.kind == "interacting"
        assert draws.log_weights is not None
        weights = np.exp(np.asarray(draws.log_weights[0], np.float64))
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-4)
        shares.append(weights @ (draws.position[0, :, 0] < 0))
        constants.append(np.exp(draws.info["log_z"].item() - 2.0))
    for values, truth in ((shares, 0.3), (constants, 1.0)):
        z = (np.mean(values) - truth) / (np.std(values, ddof=1) / RUNS**0.5)
        assert abs(z) < 5, (np.mean(values), truth, z)
    assert np.std(shares) < 0.05


def test_a_run_that_does_not_arrive_is_a_failure() -> None:
    with pytest.raises(ss.SamplingError, match="stopped before the end"):
        ss.sample(far_modes(), TemperedSMC(max_levels=1), key=jax.random.key(0), num_samples=100, num_chains=1)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    "target", [ss.perturb(mixture(), ss.VP()), density()], ids=lambda target: type(target).__name__
)
def test_it_needs_a_tempered_path(target: Any) -> None:
    with pytest.raises(TypeError, match=f"{type(target).__name__} is no TemperedPath. Make one"):
        ss.sample(target, TemperedSMC(), key=jax.random.key(0))


def test_densities_that_are_nowhere_do_not_stop_it() -> None:
    """Outside its support a log density is minus infinity or not a number: such particles get no weight."""

    def half(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), jnp.where(x[1] > 0, -jnp.inf, jnp.nan))

    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 4.0), ss.DensityScore(half, structure=jnp.zeros(2)))
    draws = ss.sample(path, TemperedSMC(), key=jax.random.key(0), num_samples=2000, num_chains=1)
    assert draws.log_weights is not None
    weights = np.exp(np.asarray(draws.log_weights[0], np.float64))
    assert weights[draws.position[0, :, 0] <= 0].sum() < 1e-6
    mean = weights @ draws.position[0, :, 0]
    np.testing.assert_allclose(mean, np.sqrt(2 / np.pi), atol=0.1)
    # of the integral of exp(-|x|^2 / 2) over the half plane
    np.testing.assert_allclose(draws.info["log_z"].item(), np.log(np.pi), atol=0.15)


def test_a_reference_that_is_too_narrow_is_widened_level_by_level() -> None:
    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(3), 0.09), ss.Gaussian(jnp.zeros(3), 1.0))
    constants, spreads = [], []
    for seed in range(RUNS):
        draws = ss.sample(path, TemperedSMC(), key=jax.random.key(seed), num_samples=1000, num_chains=1)
        assert draws.log_weights is not None
        weights = np.exp(np.asarray(draws.log_weights[0], np.float64))
        assert 1 / np.sum(weights**2) > 400, "a level went further than the weights allow"
        constants.append(draws.info["log_z"].item())
        spreads.append((weights @ draws.position[0] ** 2).mean())
    assert abs(np.mean(constants)) < 0.1
    np.testing.assert_allclose(np.mean(spreads), 1.0, atol=0.06)


def test_moves_that_are_too_short_are_noticed() -> None:
    scales = jnp.logspace(-1, 1, 5)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0], jnp.float32)
    narrow = ss.Gaussian(jnp.zeros(5), rotation @ jnp.diag(scales**2) @ rotation.T)
    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(5), 100.0), narrow)

    def check(sampler: TemperedSMC) -> Check:
        draws = ss.sample(path, sampler, key=jax.random.key(0), num_samples=500, num_chains=1)
        (found,) = draws.info["checks"]
        assert found.name == "least move of the particles"
        return found

    assert not check(TemperedSMC(num_moves=1, num_integration_steps=1)).passed
    assert check(TemperedSMC(num_moves=20, num_integration_steps=20)).passed


def test_the_reported_number_of_evaluations_is_the_number_of_calls() -> None:
    calls: list[int] = []

    def counted(x: jax.Array) -> jax.Array:
        jax.debug.callback(lambda _: calls.append(1), x[0])
        return -0.5 * jnp.sum((x - 1) ** 2)

    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 9.0), ss.DensityScore(counted, structure=jnp.zeros(2)))
    draws = ss.sample(
        path, TemperedSMC(num_moves=2, num_integration_steps=3), key=jax.random.key(0), num_samples=10, num_chains=1
    )
    jax.effects_barrier()
    assert len(calls) == 10 * draws.nfe == draws.info["num_evaluations"]
