from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm
from jaxtyping import Array

import scoresample as ss

MEAN = np.array([1.0, -2.0, 0.5])
MATRIX = np.array([[1.5, 0.6, -0.3], [0.6, 0.8, 0.2], [-0.3, 0.2, 0.5]])
VARIANCES = np.array([0.3, 1.0, 4.0])
WEIGHTS = np.array([1.0, 2.0, 5.0])
MEANS = np.array([[-2.0, 0.5, 0.0], [1.0, -1.0, 3.0], [2.5, 2.0, -1.0]])
POINTS = np.array([[0.0, 0.0, 0.0], [2.0, -3.0, 1.0], [-1.0, 2.5, -4.0]])
NUM_DRAWS = 20_000

COVARIANCES: dict[str, Any] = {"a number": 0.7, "variances": VARIANCES, "a matrix": MATRIX}
MIXTURE_COVARIANCES: dict[str, Any] = {
    "one": 0.7,
    "one each": np.array([0.5, 1.0, 2.0]),
    "coordinates": np.stack([VARIANCES, VARIANCES[::-1], np.full(3, 0.5)]),
    "matrices": np.stack([MATRIX, 0.5 * np.eye(3), MATRIX[::-1, ::-1]]),
}


def as_matrices(covariance: Any) -> np.ndarray:
    """Three (3, 3) matrices, however the mixture's covariances were given."""
    covariance = np.asarray(covariance)
    if covariance.ndim == 3:
        return covariance
    if covariance.ndim == 2:
        return np.stack([np.diag(row) for row in covariance])
    return np.stack([np.eye(3) * each for each in np.broadcast_to(covariance, (3,))])


def as_matrix(covariance: Any) -> np.ndarray:
    covariance = np.asarray(covariance)
    return covariance if covariance.ndim == 2 else np.eye(3) * covariance


def mixture_logpdf(x: Array, covariances: np.ndarray) -> Array:
    parts = [multivariate_normal.logpdf(x, m, c) for m, c in zip(MEANS, covariances, strict=True)]
    return jax.nn.logsumexp(jnp.log(WEIGHTS / WEIGHTS.sum()) + jnp.stack(parts))


def assert_same(density: Any, logpdf: Any) -> None:
    for x in jnp.asarray(POINTS, float):
        expected, score = jax.value_and_grad(logpdf)(x)
        np.testing.assert_allclose(density.logdensity(x), expected, rtol=1e-10)
        np.testing.assert_allclose(density(x), score, rtol=1e-9, atol=1e-12)
        value, again = density.value_and_score(x)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        np.testing.assert_array_equal(again, density(x))


def assert_moments(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Mean and covariance within five Monte-Carlo standard errors (estimated: mixtures have other fourth moments)."""
    draws = np.asarray(draws, np.float64)
    centred = draws - mean
    assert np.abs(centred.mean(0) / (draws.std(0) / np.sqrt(len(draws)))).max() < 5
    products = centred[:, :, None] * centred[:, None, :]
    assert np.abs((products.mean(0) - covariance) / (products.std(0) / np.sqrt(len(draws)))).max() < 5


@pytest.mark.parametrize("kind", COVARIANCES)
def test_gaussian_has_the_normal_density(kind: str) -> None:
    with jax.enable_x64(True):
        covariance = as_matrix(COVARIANCES[kind])
        assert_same(ss.Gaussian(MEAN, COVARIANCES[kind]), lambda x: multivariate_normal.logpdf(x, MEAN, covariance))


@pytest.mark.parametrize("kind", MIXTURE_COVARIANCES)
def test_mixture_has_the_density_of_its_parts(kind: str) -> None:
    with jax.enable_x64(True):
        covariances = as_matrices(MIXTURE_COVARIANCES[kind])
        density = ss.GaussianMixture(WEIGHTS, MEANS, MIXTURE_COVARIANCES[kind])
        assert_same(density, lambda x: mixture_logpdf(x, covariances))


@pytest.mark.parametrize("kind", COVARIANCES)
def test_gaussian_draws_have_its_moments(kind: str) -> None:
    density = ss.Gaussian(MEAN, COVARIANCES[kind])
    covariance = as_matrix(COVARIANCES[kind])
    assert_moments(np.asarray(density.sample(jax.random.key(0), NUM_DRAWS)), MEAN, covariance)
    mean, variances = density.moments()
    np.testing.assert_allclose(mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(variances, covariance.diagonal(), rtol=1e-5)
    assert float(density.smallest_scale()) == pytest.approx(np.sqrt(np.linalg.eigvalsh(covariance)[0]), rel=1e-5)


@pytest.mark.parametrize("kind", MIXTURE_COVARIANCES)
def test_mixture_draws_have_its_moments(kind: str) -> None:
    density = ss.GaussianMixture(WEIGHTS, MEANS, MIXTURE_COVARIANCES[kind])
    covariances, weights = as_matrices(MIXTURE_COVARIANCES[kind]), WEIGHTS / WEIGHTS.sum()
    mean = weights @ MEANS
    spread = np.einsum("k,kde->de", weights, covariances + np.einsum("kd,ke->kde", MEANS - mean, MEANS - mean))
    assert_moments(np.asarray(density.sample(jax.random.key(1), NUM_DRAWS)), mean, spread)
    found_mean, variances = density.moments()
    np.testing.assert_allclose(found_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(variances, spread.diagonal(), rtol=1e-5)
    smallest = min(np.linalg.eigvalsh(c)[0] for c in covariances)
    assert float(density.smallest_scale()) == pytest.approx(np.sqrt(smallest), rel=1e-5)


def test_draws_of_a_skewed_mixture_have_its_distribution_function() -> None:
    """The largest distance of the two distribution functions, against the bound of Dvoretzky, Kiefer and Wolfowitz."""
    weights, means, variances = np.array([0.8, 0.2]), np.array([0.0, 3.0]), np.array([0.25, 2.0])
    density = ss.GaussianMixture(weights, means[:, None], variances)
    draws = np.sort(np.asarray(density.sample(jax.random.key(2), NUM_DRAWS))[:, 0])
    cdf = norm.cdf(draws[:, None], means, np.sqrt(variances)) @ weights
    distance = np.abs(np.asarray(cdf) - (np.arange(NUM_DRAWS) + 0.5) / NUM_DRAWS).max()
    assert distance < np.sqrt(np.log(2 / 1e-6) / (2 * NUM_DRAWS))


def test_perturbed_densities_are_convolutions() -> None:
    alpha, variance = 0.6, 0.5
    with jax.enable_x64(True):
        gaussian = ss.Gaussian(MEAN, MATRIX).perturbed(jnp.asarray(alpha), jnp.asarray(variance))
        covariance = alpha**2 * MATRIX + variance * np.eye(3)
        assert_same(gaussian, lambda x: multivariate_normal.logpdf(x, alpha * MEAN, covariance))
        mixture = ss.GaussianMixture(WEIGHTS, MEANS, MIXTURE_COVARIANCES["matrices"])
        noised = mixture.perturbed(jnp.asarray(alpha), jnp.asarray(variance))

        def logpdf(x: Array) -> Array:
            spreads = alpha**2 * MIXTURE_COVARIANCES["matrices"] + variance * np.eye(3)
            parts = [multivariate_normal.logpdf(x, alpha * m, c) for m, c in zip(MEANS, spreads, strict=True)]
            return jax.nn.logsumexp(jnp.log(WEIGHTS / WEIGHTS.sum()) + jnp.stack(parts))

        assert_same(noised, logpdf)


def test_scores_far_from_every_component_are_finite() -> None:
    density = ss.GaussianMixture(WEIGHTS, MEANS, 0.01)
    value, score = density.value_and_score(jnp.array([500.0, -500.0, 500.0]))
    assert np.isfinite(value)
    assert np.all(np.isfinite(score))


def test_smallest_scale_can_be_traced() -> None:
    density = ss.Gaussian(MEAN, MATRIX)
    traced = jax.jit(lambda scale: density.perturbed(scale, scale).smallest_scale())
    assert float(traced(jnp.asarray(1.0))) == pytest.approx(np.sqrt(np.linalg.eigvalsh(MATRIX)[0] + 1), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ss.Gaussian(np.zeros(2), np.ones(3)), "covariance"),
        (lambda: ss.Gaussian(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]])), "covariance"),
        (lambda: ss.Gaussian(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "covariance"),
        (lambda: ss.Gaussian(np.zeros(2), -1.0), "covariance"),
        (lambda: ss.Gaussian(np.array([0.0, np.nan]), 1.0), "mean"),
        (lambda: ss.GaussianMixture([0.5, -0.5], np.zeros((2, 1)), 1.0), "weights"),
        (lambda: ss.GaussianMixture([0.5, 0.5], np.zeros((3, 1)), 1.0), "weights"),
        (lambda: ss.GaussianMixture([0.5, 0.5], np.zeros(2), 1.0), "means"),
        (lambda: ss.GaussianMixture([0.5, 0.5], np.zeros((2, 3)), np.ones((3, 3))), "covariances"),
    ],
)
def test_what_is_no_density_is_refused(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()
