"""The scales of Gaussian fields against dense conditionals, made with PyWavelets."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from jax.scipy.stats import multivariate_normal

import scoresample as ss
from scoresample.paths import score_particles
from scoresample.wavelets import wavelet_stages

KINDS: dict[str, tuple[tuple[int, ...], float, str]] = {
    "8 x 8": ((8, 8), 2.0, "db2"),
    "8 x 8, less steep": ((8, 8), 1.0, "db2"),
    "not square": ((4, 8), 2.0, "sym3"),
    "on a line": ((16,), 1.0, "db2"),
}


def dense_covariance(spectrum: np.ndarray) -> np.ndarray:
    by_distance = np.real(np.fft.ifftn(spectrum))
    sites = np.indices(spectrum.shape).reshape(spectrum.ndim, -1)
    return by_distance[tuple((sites[:, :, None] - sites[:, None, :]) % np.array(spectrum.shape)[:, None, None])]


def pywavelets_level(shape: tuple[int, ...], wavelet: str) -> tuple[np.ndarray, np.ndarray]:
    """One level as two matrices: to the low-pass field and to the bands."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(shape) == 1:
            low, bands = pywt.dwt(units, wavelet, mode="periodization", axis=-1)
        else:
            low, parts = pywt.dwt2(units, wavelet, mode="periodization", axes=(-2, -1))
            bands = np.stack(parts, axis=1)
    return low.reshape(len(units), -1).T, bands.reshape(len(units), -1).T


def dense_law(field: ss.GaussianField, wavelet: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the bands given the low-pass field: scales, regression and covariance, in standard coordinates."""
    low, bands = pywavelets_level(field.spectrum.shape, wavelet)
    covariance = dense_covariance(np.asarray(field.spectrum, np.float64))
    scales = np.sqrt(np.diag(bands @ covariance @ bands.T))
    cross = bands @ covariance @ low.T
    regression = np.linalg.solve(low @ covariance @ low.T, cross.T).T
    conditional = bands @ covariance @ bands.T - regression @ cross.T
    return scales, regression / scales[:, None], conditional / scales[:, None] / scales


def made(kind: str) -> tuple[ss.GaussianField, ss.ConditionalGaussianField, jax.Array, jax.Array]:
    """A field, the path of its details, and the parts of one draw."""
    shape, exponent, wavelet = KINDS[kind]
    field = ss.GaussianField(ss.power_law_spectrum(shape, exponent, variance=3.0), 0.8)
    path = ss.ConditionalGaussianField(field, ss.VP(), wavelet=wavelet)
    draw = field.sample(jax.random.key(1), 1)[0]
    return field, path, *ss.WaveletTransform(shape, wavelet, 1).split(draw)


@pytest.mark.parametrize("kind", KINDS)
def test_details_are_dense_conditional_gaussians(kind: str) -> None:
    with jax.enable_x64(True):
        field, path, low, details = made(kind)
        scales, regression, covariance = dense_law(field, KINDS[kind][2])
        np.testing.assert_allclose(np.ravel(jnp.asarray(path.frame.scale)), scales, rtol=1e-10)
        mean = regression @ (np.ravel(low) - 0.8 * 2 ** (low.ndim / 2))
        given = path.given(low)
        np.testing.assert_allclose(np.ravel(jnp.asarray(given.conditional_mean)), mean, rtol=0, atol=1e-10)
        dense = np.linalg.eigvalsh(covariance)
        np.testing.assert_allclose(path.eigenvalues.min(), dense[0], rtol=1e-9)
        np.testing.assert_allclose(path.eigenvalues.max(), dense[-1], rtol=1e-9)
        np.testing.assert_allclose(path.smallest_scale(), dense[0] ** 0.5, rtol=1e-9)
        for t in (0.02, 0.4, 0.9):
            alpha, variance = (float(f(jnp.asarray(t))) for f in (path.process.alpha, path.process.variance))
            noised = alpha**2 * covariance + variance * np.eye(len(covariance))
            z = path.frame.to_standard(details)
            score = -np.linalg.solve(noised, np.ravel(z) - alpha * mean)
            np.testing.assert_allclose(np.ravel(given(details, t)), score / scales, rtol=1e-8, atol=1e-8)
            value = multivariate_normal.logpdf(np.ravel(z), alpha * mean, noised) - np.log(scales).sum()
            np.testing.assert_allclose(given.logdensity(details, t), value, rtol=1e-9)


@pytest.mark.parametrize("kind", ["8 x 8", "not square", "on a line"])
def test_scores_are_gradients_of_log_densities(kind: str, precision: jnp.dtype) -> None:
    _, path, low, details = made(kind)
    given, t = path.given(low), jnp.asarray(0.2, precision)

    @eqx.filter_jit
    def both(path: ss.ConditionalGaussianField, details: jax.Array) -> tuple[jax.Array, jax.Array]:
        return path(details, t), jax.grad(path.logdensity)(details, t)

    with jax.numpy_dtype_promotion("strict"):
        score, gradient = both(given, details)
    assert score.dtype == precision
    np.testing.assert_allclose(score, gradient, rtol=0, atol=(1e-5 if precision == jnp.float32 else 1e-12) * 100)


def test_single_precision_agrees() -> None:
    with jax.enable_x64(True):
        field, path, low, details = made("8 x 8")
        want = path.given(low)(details, 0.05)
        value = path.given(low).logdensity(details, 0.05)
    rounded = ss.ConditionalGaussianField(ss.GaussianField(np.asarray(field.spectrum), 0.8), ss.VP())
    given = rounded.given(jnp.asarray(low, jnp.float32))
    got = given(jnp.asarray(details, jnp.float32), 0.05)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(given.logdensity(jnp.asarray(details, jnp.float32), 0.05), value, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "wavelet"), [((8, 8), "db2"), ((4, 8), "haar"), ((16,), "sym3")], ids=["square", "not square", "line"]
)
def test_scales_multiply_to_the_field(shape: tuple[int, ...], wavelet: str) -> None:
    """``log p(field) = log p(coarse) + sum_j log p(details_j | low_j)``: noise at each scale is off at t=0."""
    with jax.enable_x64(True):
        field = ss.GaussianField(ss.power_law_spectrum(shape, 2.0, variance=2.0), -0.4)
        transform = ss.WaveletTransform(shape, wavelet)
        coarse, *stages = wavelet_stages(field, ss.VE(sigma_min=1e-9, sigma_max=10.0), transform)
        draw = field.sample(jax.random.key(2), 1)[0]
        low, *details = transform.forward(draw)
        assert isinstance(coarse, ss.AbstractDensityPath)
        total = coarse.logdensity(low, 0.0)
        for stage, bands in zip(stages, details, strict=True):
            assert isinstance(stage, ss.ConditionalGaussianField)
            total += stage.given(low).logdensity(bands, 0.0)
            low = transform.merge(low, bands)
        np.testing.assert_allclose(total, field.logdensity(draw), rtol=1e-10)
        np.testing.assert_allclose(low, draw, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "direct", "largest"), [(8, 53, 3.6), (16, 209, 4.2), (32, 831, 4.8)])
def test_condition_numbers_stay_small_where_the_fields_grow(size: int, direct: float, largest: float) -> None:
    spectrum = ss.power_law_spectrum((size, size), 2.0)
    stages = wavelet_stages(ss.GaussianField(spectrum), ss.VP(), ss.WaveletTransform((size, size), "db2"))
    conditions = [
        float(stage.eigenvalues.max() / stage.eigenvalues.min())
        for stage in stages
        if isinstance(stage, ss.ConditionalGaussianField)
    ]
    assert len(conditions) == len(stages) - 1
    np.testing.assert_allclose(max(conditions), largest, atol=0.05)
    np.testing.assert_allclose(spectrum.max() / spectrum.min(), direct, atol=0.5)


def test_a_field_is_sampled_scale_by_scale() -> None:
    """Its draws have the field's spectrum within five standard errors, and its density is the field's own."""
    spectrum = np.asarray(ss.power_law_spectrum((8, 8), 2.0), np.float64)
    field = ss.GaussianField(spectrum, 0.5)
    path = ss.perturb_wavelets(field, ss.VP())
    draws = ss.sample(path, ss.ReverseSDE(num_steps=30), key=jax.random.key(6), num_samples=1000)
    modes = np.fft.fftn(np.asarray(draws.position[0], np.float64) - 0.5, axes=(1, 2), norm="ortho")
    power = np.abs(modes) ** 2
    assert np.abs((power.mean(0) - spectrum) / (power.std(0) / 4000**0.5)).max() < 5


def test_stages_are_normalised() -> None:
    """The coefficients of draws have a variance of one in every stage's standard coordinates."""
    field = ss.GaussianField(ss.power_law_spectrum((8, 8), 1.0, variance=5.0), 2.0)
    transform = ss.WaveletTransform((8, 8))
    stages = wavelet_stages(field, ss.VP(), transform)
    for stage, part in zip(stages, transform.forward(field.sample(jax.random.key(3), 4000)), strict=True):
        z = np.asarray(jax.vmap(stage.frame.to_standard)(part), np.float64)
        mean, variance = stage.data_moments()
        assert np.abs((z.mean(0) - mean) * 4000**0.5).max() < 5
        assert np.abs((z.var(0) - variance) * (4000 / 2) ** 0.5).max() < 5
        np.testing.assert_allclose(variance, 1.0, rtol=1e-5)


def test_every_particle_has_its_own_condition() -> None:
    field, path, _, _ = made("8 x 8")
    draws = field.sample(jax.random.key(4), 5)
    low, details = ss.WaveletTransform((8, 8), "db2", 1).split(draws)
    z, t = jax.vmap(path.frame.to_standard)(details), jnp.asarray(0.3)
    together = score_particles(path.given(low), z, t)
    single = jnp.stack([path.given(one).standard_score(x, t) for one, x in zip(low, z, strict=True)])
    np.testing.assert_allclose(together, single, atol=1e-4)
    assert np.abs(score_particles(path.given(low[0]), z, t) - single).max() > 0.1
    moved = path.given(low).with_process(ss.VE())
    singles = [path.given(one).with_process(ss.VE()) for one in low]
    again = jnp.stack([one.standard_score(x, t) for one, x in zip(singles, z, strict=True)])
    np.testing.assert_allclose(score_particles(moved, z, t), again, atol=1e-4)


def test_a_sampler_draws_the_conditional_law() -> None:
    """Given one coarser field: the draws' mean and covariance are the dense law's, within five standard errors."""
    field, path, low, _ = made("on a line")
    _, regression, covariance = dense_law(field, "db2")
    draws = ss.sample(path.given(low), ss.ReverseSDE(num_steps=30), key=jax.random.key(5), num_samples=1000)
    z = np.asarray(jax.vmap(path.frame.to_standard)(draws.position[0]), np.float64).reshape(4000, -1)
    z = z - regression @ (np.asarray(low, np.float64) - 0.8 * 2**0.5)
    assert np.abs(z.mean(0) / (z.std(0) / 4000**0.5)).max() < 5
    products = z[:, :, None] * z[:, None, :]
    assert np.abs((products.mean(0) - covariance) / (products.std(0) / 4000**0.5)).max() < 5


def test_details_without_their_coarser_field_have_no_score() -> None:
    _, path, low, details = made("8 x 8")
    with pytest.raises(ValueError, match=r"call path.given\(low\)"):
        path(details, 0.5)
    with pytest.raises(ValueError, match=r"call path.given\(low\)"):
        path.logdensity(details, 0.5)
    for wrong in (jnp.zeros((8, 8)), jnp.zeros((2, 5, 4, 4))):
        with pytest.raises(ValueError, match=r"`low` must be the coarser field, of shape \(4, 4\)"):
            path.given(wrong)
    assert path.condition_axes() is None
    assert path.given(low).condition_axes() is None


def test_what_has_no_stages_is_refused(unchecked_types: Any) -> None:
    field = ss.GaussianField(ss.power_law_spectrum((8, 8), 2.0))
    with pytest.raises(ValueError, match=r"`transform` .*Make it WaveletTransform\(\(8, 8\)\)"):
        wavelet_stages(field, ss.VP(), ss.WaveletTransform((8, 16)))
    with pytest.raises(ValueError, match="`field` needs an even number"):
        ss.ConditionalGaussianField(ss.GaussianField(np.ones((3, 4))), ss.VP())
    with pytest.raises(ValueError, match="`wavelet` must be orthogonal"):
        ss.ConditionalGaussianField(field, ss.VP(), wavelet="bior2.2")
    with pytest.raises(TypeError, match="`field` must be a GaussianField"):
        ss.ConditionalGaussianField(ss.Gaussian(jnp.zeros(4), 1.0), ss.VP())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`field` must be concrete"):
        eqx.filter_jit(lambda f: ss.ConditionalGaussianField(f, ss.VP()))(field)
