from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from tests.samplers.affine_laws import COVARIANCES, IDENTITY, MEAN, Linear, assert_normal_law, compose, kl, langevin

STEP_SIZE = 0.2
NUM_CHAINS = 20_000
START = np.array([-1.0, 3.0, 0.0])


def score_of(covariance: np.ndarray) -> Linear:
    precision = np.linalg.inv(covariance)
    return Linear(-precision, precision @ MEAN)


@cache
def chains(target: str, num_warmup: int) -> np.ndarray:
    draws = ss.sample(
        ss.Gaussian(MEAN, COVARIANCES[target]),
        ss.ULA(STEP_SIZE),
        key=jax.random.key(1),
        num_samples=4,
        num_chains=NUM_CHAINS,
        num_warmup=num_warmup,
        initial_position=jnp.asarray(START),
    )
    return np.asarray(draws.position)


def invariant_covariance(covariance: np.ndarray, step_size: float) -> np.ndarray:
    """Variance ``v / (1 - h / (2 v))`` along every eigenvector."""
    variances, axes = np.linalg.eigh(covariance)
    return axes * (variances / (1 - step_size / (2 * variances))) @ axes.T


@pytest.mark.parametrize("target", COVARIANCES)
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_law_after_a_few_steps_is_the_affine_recursion(target: str, num_steps: int) -> None:
    covariance = COVARIANCES[target]
    law = compose(*[langevin(score_of(covariance), STEP_SIZE)] * num_steps).law(START, 0 * IDENTITY)
    assert_normal_law(chains(target, 0)[:, num_steps - 1], *law, unlike=(MEAN, covariance))


@pytest.mark.parametrize("target", COVARIANCES)
def test_invariant_law_has_the_known_bias_along_every_eigenvector(target: str) -> None:
    covariance = COVARIANCES[target]
    biased = invariant_covariance(covariance, STEP_SIZE)
    assert_normal_law(chains(target, 200)[:, -1], MEAN, biased, unlike=(MEAN, covariance))


@pytest.mark.parametrize("target", COVARIANCES)
def test_recursion_tends_to_the_invariant_law(target: str) -> None:
    covariance = COVARIANCES[target]
    mean, found = compose(*[langevin(score_of(covariance), STEP_SIZE)] * 300).law(START, 0 * IDENTITY)
    np.testing.assert_allclose(mean, MEAN, rtol=1e-9)
    np.testing.assert_allclose(found, invariant_covariance(covariance, STEP_SIZE), atol=1e-9)


def test_bias_is_of_first_order_in_the_step_size() -> None:
    covariance = COVARIANCES["correlated"]
    errors = [kl(MEAN, invariant_covariance(covariance, h), MEAN, covariance) for h in (0.02, 0.01)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)  # KL is the square of an error of order h


def test_successive_states_have_the_autocovariance_of_one_step() -> None:
    covariance = COVARIANCES["correlated"]
    matrix = langevin(score_of(covariance), STEP_SIZE).matrix
    biased = invariant_covariance(covariance, STEP_SIZE)
    now, after = (np.asarray(chains("correlated", 200)[:, k], np.float64) - MEAN for k in (0, 1))
    cross = now.T @ after / NUM_CHAINS
    expected = biased @ matrix.T
    error = np.sqrt((np.outer(biased.diagonal(), biased.diagonal()) + expected**2) / NUM_CHAINS)
    assert np.abs((cross - expected) / error).max() < 5
