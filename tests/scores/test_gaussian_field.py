"""Stationary Gaussian fields against dense Gaussians."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss

SHAPES = [(8,), (7,), (4, 6), (5, 4)]


def power_law(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(ss.power_law_spectrum(shape, 1.5, variance=2.0), np.float64)


def dense_covariance(spectrum: np.ndarray) -> np.ndarray:
    """The covariance matrix of the flattened field: that of sites x and y depends on x - y."""
    by_distance = np.real(np.fft.ifftn(spectrum))
    sites = np.indices(spectrum.shape).reshape(spectrum.ndim, -1)
    return by_distance[tuple((sites[:, :, None] - sites[:, None, :]) % np.array(spectrum.shape)[:, None, None])]


def steep(shape: tuple[int, ...]) -> np.ndarray:
    """A spectrum of condition number 10^4."""
    ranks = power_law(shape)
    unit = np.log(ranks / ranks.min()) / np.log(ranks.max() / ranks.min())
    return 10.0 ** (4 * unit - 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_fields_are_dense_gaussians(shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        spectrum = steep(shape)
        field = ss.GaussianField(spectrum, 0.7)
        dense = ss.Gaussian(np.full(spectrum.size, 0.7), dense_covariance(spectrum))
        x = jnp.zeros(shape)
        for x in 0.3 + jax.random.normal(jax.random.key(0), (3, *shape)):
            value, score = field.value_and_score(x)
            np.testing.assert_allclose(value, dense.logdensity(x.ravel()), rtol=1e-11)
            np.testing.assert_allclose(score.ravel(), dense(x.ravel()), rtol=0, atol=1e-11 * np.abs(score).max())
        np.testing.assert_allclose(field.moments()[0], dense.moments()[0].reshape(shape))
        np.testing.assert_allclose(field.moments()[1], dense.moments()[1].reshape(shape))
        np.testing.assert_allclose(field.smallest_scale(), dense.smallest_scale())
        alpha, variance = jnp.asarray(0.6), jnp.asarray(0.3)
        noised, dense_noised = field.perturbed(alpha, variance), dense.perturbed(alpha, variance)
        np.testing.assert_allclose(noised(x).ravel(), dense_noised(x.ravel()), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(64,), (32, 32)])
def test_single_precision_agrees_at_condition_number_ten_thousand(shape: tuple[int, ...]) -> None:
    """On draws of the field: the rounding of its large modes is a hundred eps of its small ones."""
    with jax.enable_x64(True):
        exact = ss.GaussianField(steep(shape))
        draws = exact.sample(jax.random.key(1), 4)
        values, scores = jax.vmap(exact.value_and_score)(draws)
    rounded = ss.GaussianField(steep(shape))
    got_values, got_scores = jax.vmap(rounded.value_and_score)(jnp.asarray(draws, jnp.float32))
    assert got_scores.dtype == jnp.float32
    error = np.abs(np.asarray(got_scores, np.float64) - np.asarray(scores)).max()
    assert error < 3e-5 * np.abs(scores).max()
    np.testing.assert_allclose(got_values, values, rtol=1e-5, atol=1e-5 * scores[0].size)


@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_draws_have_the_covariance(shape: tuple[int, ...]) -> None:
    """Every mean and covariance within five standard errors; and a wrong spectrum is seen."""
    spectrum = power_law(shape)
    draws = np.asarray(ss.GaussianField(spectrum, -1.0).sample(jax.random.key(2), 20_000), np.float64)
    flat = draws.reshape(len(draws), -1) + 1.0

    def largest_z(covariance: np.ndarray) -> float:
        products = flat[:, :, None] * flat[:, None, :]
        return float(np.abs((products.mean(0) - covariance) / (products.std(0) / np.sqrt(len(flat)))).max())

    assert np.abs(flat.mean(0) / (flat.std(0) / np.sqrt(len(flat)))).max() < 5
    assert largest_z(dense_covariance(spectrum)) < 5
    assert largest_z(dense_covariance(1.1 * spectrum)) > 5


def test_starts_are_overdispersed() -> None:
    field = ss.GaussianField(power_law((4, 4)), 3.0)
    assert field.init_position is not None
    starts = np.asarray(jax.vmap(field.init_position)(jax.random.split(jax.random.key(3), 4000)))
    want = 2 * np.sqrt(2.0)
    assert abs(starts.std() / want - 1) < 0.05
    assert abs(starts.mean() - 3.0) < 0.1


def test_a_field_is_noised_as_it_is() -> None:
    """The exact path, against dense Gaussians, and its reverse SDE's draws by their spectrum."""
    spectrum = power_law((4, 4))
    path = ss.perturb(ss.GaussianField(spectrum), ss.VP())
    dense = ss.perturb(ss.Gaussian(np.zeros(16), dense_covariance(spectrum)), ss.VP())
    x = jax.random.normal(jax.random.key(4), (4, 4))
    for t in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(path(x, t).ravel(), dense(x.ravel(), t), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(path.logdensity(x, t), dense.logdensity(x.ravel(), t), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(path.log_snr_range, dense.log_snr_range, rtol=1e-5)
    draws = ss.sample(path, ss.ReverseSDE(num_steps=40), key=jax.random.key(5), num_samples=1000, num_chains=4)
    power = np.abs(np.fft.fftn(np.asarray(draws.position[0]), axes=(1, 2), norm="ortho")) ** 2
    z = (power.mean(0) - spectrum) / (power.std(0) / np.sqrt(len(power)))
    assert np.abs(z).max() < 5


def test_power_laws_are_as_the_formula_says() -> None:
    with jax.enable_x64(True):
        spectrum = np.asarray(ss.power_law_spectrum((4, 8), 3.0, infrared=0.5, variance=7.0))
    w = [2 * np.pi * np.fft.fftfreq(n) for n in (4, 8)]
    norm = np.sqrt(4 * np.sin(w[0][:, None] / 2) ** 2 + 4 * np.sin(w[1] / 2) ** 2)
    want = 1 / (0.5**3 + norm**3)
    np.testing.assert_allclose(spectrum, 7 * want / want.mean(), rtol=1e-12)
    for size, condition in ((8, 53), (16, 209), (32, 831), (64, 3321)):
        values = np.asarray(ss.power_law_spectrum((size, size), 2.0))
        np.testing.assert_allclose(values.max() / values.min(), condition, atol=0.5)
        np.testing.assert_allclose(values.mean(), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (np.ones((2, 2, 2)), r"must be a real array"),
        (np.ones(4) * 1j, r"must be a real array"),
        (np.array([1.0, 0.0, 1.0]), "positive"),
        (np.array([1.0, np.inf]), "finite"),
        (np.array([1.0, 2.0, 3.0, 4.0]), "same at w and -w"),
    ],
)
def test_what_is_no_spectrum_is_refused(spectrum: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"`spectrum` .*{message}"):
        ss.GaussianField(spectrum)


def test_other_doors() -> None:
    with pytest.raises(ValueError, match="`mean` must be one finite number"):
        ss.GaussianField(np.ones(4), np.zeros(4))
    with pytest.raises(TypeError, match="`spectrum` must be concrete"):
        eqx.filter_jit(ss.GaussianField)(jnp.ones(4))
    for settings, message in (
        ({"exponent": -1.0}, "`exponent` .*not negative"),
        ({"exponent": 1.0, "infrared": 0.0}, "`infrared` .*positive"),
        ({"exponent": 1.0, "variance": -2.0}, "`variance` .*positive"),
    ):
        with pytest.raises(ValueError, match=message):
            ss.power_law_spectrum((4, 4), **settings)
    with pytest.raises(ValueError, match="`shape` must be"):
        ss.power_law_spectrum((4, 4, 4), 2.0)
