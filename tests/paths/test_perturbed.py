from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import Prediction, TimeInput, noise_levels, start_log_snr

LOCATION = np.array([3.0, -1.0])
SCALE = np.array([0.5, 4.0])
MEAN = np.array([0.4, -0.7])
VARIANCES = np.array([0.6, 1.7])
"""Data are normal with these moments in standard coordinates, position = LOCATION + SCALE z."""
POSITIONS = LOCATION + SCALE * np.array([[0.3, -2.0], [-1.5, 0.8], [2.5, 2.5]])
TIMES = [0.02, 0.35, 0.9]
NUM_LEVELS = 500

PROCESSES: dict[str, ss.AbstractNoiseProcess] = {"VP": ss.VP(), "VE": ss.VE(0.01, 30.0)}


def scales(process: str, t: Any) -> tuple[Any, Any]:
    """Alpha and sigma of the two processes in closed form."""
    if process == "VP":
        integral = 0.1 * t + 9.95 * t**2
        return jnp.exp(-integral / 2), jnp.sqrt(-jnp.expm1(-integral))
    return 1.0 + 0 * t, 0.01 * 3000**t


def scales_from(process: str, kind: str, value: Array) -> tuple[Any, Any]:
    """Alpha and sigma as a network would know them from its time input alone."""
    match kind:
        case "t":
            return scales(process, value)
        case "index":
            return scales(process, value / (NUM_LEVELS - 1))
        case "log_snr":
            ratio = jnp.exp(-value)
        case _:
            ratio = value
    alpha = 1 / jnp.sqrt(1 + ratio**2) if process == "VP" else jnp.ones_like(ratio)
    return alpha, alpha * ratio


def exact_network(process: str, prediction: str, kind: str) -> Any:
    """What a perfect network returns for normal data, by conditioning normal variables."""

    def network(z: Array, time: Array, mean: Array, variances: Array) -> Array:
        alpha, sigma = scales_from(process, kind, time)
        z = alpha * z if kind == "sigma" else z
        total = alpha**2 * variances + sigma**2
        clean = mean + alpha * variances / total * (z - alpha * mean)
        noise = sigma / total * (z - alpha * mean)
        return {
            "score": -(z - alpha * mean) / total,
            "noise": noise,
            "denoised": clean,
            "velocity": alpha * noise - sigma * clean,
        }[prediction]

    return network


def framed(process: str, prediction: Prediction = "score", time: TimeInput = "t") -> ss.PerturbedScore:
    return ss.PerturbedScore(
        exact_network(process, prediction, time),
        PROCESSES[process],
        structure=jnp.zeros(2),
        prediction=prediction,
        time=time,
        args=(jnp.asarray(MEAN), jnp.asarray(VARIANCES)),
        num_levels=NUM_LEVELS,
        location=jnp.asarray(LOCATION),
        scale=jnp.asarray(SCALE),
    )


def exact_score(process: str, position: np.ndarray, t: float) -> np.ndarray:
    """The score of ``LOCATION + SCALE (alpha z_0 + sigma e)``, a normal variable."""
    alpha, sigma = (float(x) for x in scales(process, t))
    mean = LOCATION + SCALE * alpha * MEAN
    variances = SCALE**2 * (alpha**2 * VARIANCES + sigma**2)
    return -(position - mean) / variances


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("time", get_args(TimeInput))
@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_every_parametrisation_gives_the_exact_score(process: str, prediction: Prediction, time: TimeInput) -> None:
    with jax.enable_x64(True):
        path = framed(process, prediction, time)
        for t in TIMES:
            found = jax.vmap(lambda x, t=t: path(x, t))(jnp.asarray(POSITIONS))
            np.testing.assert_allclose(found, exact_score(process, POSITIONS, t), rtol=1e-8)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_float32_keeps_the_score_near_the_data(prediction: Prediction) -> None:
    path, t = framed("VP", prediction), 1e-4
    position = LOCATION + SCALE * (MEAN + 0.01 * np.array([1.0, -2.0]))
    error = np.asarray(path(jnp.asarray(position, jnp.float32), t)) - exact_score("VP", position, t)
    of_the_noise = 1 / (float(scales("VP", t)[1]) * SCALE)
    assert np.abs(error / of_the_noise).max() < 1e-3


@pytest.mark.parametrize("process", PROCESSES)
def test_denoise_is_the_posterior_mean(process: str) -> None:
    path = framed(process)
    for t in TIMES:
        alpha, sigma = (float(x) for x in scales(process, t))
        z = (POSITIONS - LOCATION) / SCALE
        gain = alpha * VARIANCES / (alpha**2 * VARIANCES + sigma**2)
        expected = LOCATION + SCALE * (MEAN + gain * (z - alpha * MEAN))
        found = jax.vmap(lambda x, t=t: path.denoise(x, t))(jnp.asarray(POSITIONS))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[-2.0, 0.5], [1.0, -1.0], [2.5, 2.0]])
COVARIANCES = np.array([[[0.3, 0.2], [0.2, 0.5]], [[1.0, -0.4], [-0.4, 0.3]], [[0.2, 0.0], [0.0, 0.8]]])
POINTS = jnp.array([[-1.0, 0.3], [0.5, 0.5], [2.0, -2.0], [4.0, 3.0]])


def log_density_at(process: str, x: Array, t: Any) -> Array:
    alpha, sigma = scales(process, t)
    covariances = alpha**2 * COVARIANCES + sigma**2 * np.eye(2)
    parts = [multivariate_normal.logpdf(x, alpha * m, c) for m, c in zip(MEANS, covariances, strict=True)]
    return jax.nn.logsumexp(jnp.log(WEIGHTS) + jnp.stack(parts))


@partial(jax.jit, static_argnums=0)
def exact_mixture(process: str, points: Array, t: Any) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(lambda x: log_density_at(process, x, t)))(points)


def skewed_path(process: str) -> Any:
    return ss.perturb(ss.GaussianMixture(WEIGHTS, MEANS, COVARIANCES), PROCESSES[process])


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("t", TIMES)
def test_perturbed_mixture_has_the_score_of_its_log_density(process: str, t: float) -> None:
    with jax.enable_x64(True):
        path, points = skewed_path(process), jnp.asarray(POINTS, float)
        expected, score = exact_mixture(process, points, t)
        np.testing.assert_allclose(jax.vmap(lambda x: path.logdensity(x, t))(points), expected, rtol=1e-10)
        np.testing.assert_allclose(jax.vmap(lambda x: path(x, t))(points), score, rtol=1e-8)


@pytest.mark.parametrize("t", [0.05, 0.3])
def test_denoiser_of_a_skewed_mixture_is_the_posterior_mean_by_quadrature(t: float) -> None:
    weights, means, variances = np.array([0.7, 0.3]), np.array([-1.0, 2.0]), np.array([0.2, 1.0])
    path = ss.perturb(ss.GaussianMixture(weights, means[:, None], variances), ss.VP())
    alpha, sigma = (float(x) for x in scales("VP", t))
    clean = np.linspace(-12, 12, 20_001)
    prior = np.sum(weights / np.sqrt(variances) * np.exp(-((clean[:, None] - means) ** 2) / (2 * variances)), axis=1)
    for x in (-1.5, 0.2, 1.7):
        posterior = prior * np.exp(-((x - alpha * clean) ** 2) / (2 * sigma**2))
        expected = np.sum(clean * posterior) / np.sum(posterior)
        assert float(path.denoise(jnp.array([x]), t)[0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("trained", "other"), [("VP", "VE"), ("VE", "VP")])
@pytest.mark.parametrize("t", TIMES)
def test_another_process_sees_the_same_data(trained: str, other: str, t: float) -> None:
    with jax.enable_x64(True):
        points = jnp.asarray(POINTS, float)
        expected = jax.vmap(lambda x: skewed_path(other)(x, t))(points)
        found = jax.vmap(lambda x: skewed_path(trained).with_process(PROCESSES[other])(x, t))(points)
        np.testing.assert_allclose(found, expected, rtol=1e-8)
        network = jax.vmap(lambda x: framed(trained, "velocity", "sigma").with_process(PROCESSES[other])(x, t))
        np.testing.assert_allclose(network(jnp.asarray(POSITIONS)), exact_score(other, POSITIONS, t), rtol=1e-8)


def test_another_process_and_back_is_the_score_itself() -> None:
    path = skewed_path("VP")
    back = path.with_process(PROCESSES["VE"]).with_process(PROCESSES["VP"])
    assert back.inner is path
    np.testing.assert_allclose(back(POINTS[0], 0.3), path(POINTS[0], 0.3), rtol=1e-4)


def test_a_standardised_path_keeps_the_moments_of_its_reference() -> None:
    path = framed("VP")
    draws = jax.vmap(path.frame.to_position)(path.sample_reference(jax.random.key(0), 20_000, 0.4))
    alpha, sigma = (float(x) for x in scales("VP", 0.4))
    spread = SCALE * np.sqrt(alpha**2 + sigma**2)  # standard coordinates have zero mean and unit variance
    assert np.abs((np.mean(draws, axis=0) - LOCATION) / (spread / np.sqrt(20_000))).max() < 5
    assert np.abs((np.std(draws, axis=0) / spread - 1) * np.sqrt(2 * 20_000)).max() < 5


@pytest.mark.parametrize("process", PROCESSES)
def test_reference_of_an_exact_path_has_the_moments_of_the_noised_data(process: str) -> None:
    draws = np.asarray(skewed_path(process).sample_reference(jax.random.key(1), 20_000, 0.6), np.float64)
    alpha, sigma = (float(x) for x in scales(process, 0.6))
    mean = WEIGHTS @ MEANS
    variances = WEIGHTS @ (np.stack([c.diagonal() for c in COVARIANCES]) + (MEANS - mean) ** 2)
    spread = np.sqrt(alpha**2 * variances + sigma**2)
    assert np.abs((draws.mean(0) - alpha * mean) / (spread / np.sqrt(20_000))).max() < 5
    assert np.abs((draws.std(0) / spread - 1) * np.sqrt(2 * 20_000)).max() < 5


def network(process: ss.AbstractNoiseProcess, log_snr_range: tuple[float, float] | None = None) -> ss.PerturbedScore:
    return ss.PerturbedScore(lambda z, t: -z, process, structure=jnp.zeros(2), log_snr_range=log_snr_range)


def test_default_range_of_a_network_stays_on_its_process() -> None:
    wide = network(ss.VP()).log_snr_range
    np.testing.assert_allclose(wide, [float(ss.VP().log_snr(jnp.asarray(1.0))), -np.log(0.002)], rtol=1e-6)
    # This process ends at t=0 above the default: a network must not be asked for t < 0.
    short = network(ss.VE(0.01, 50.0))
    np.testing.assert_allclose(short.log_snr_range, [-np.log(50.0), -np.log(0.01)], rtol=1e-6)
    assert noise_levels(short, 5).t[-1] == pytest.approx(0, abs=1e-7)


def test_range_of_an_exact_path_ends_at_its_smallest_scale() -> None:
    smallest = np.sqrt(min(np.linalg.eigvalsh(c)[0] for c in COVARIANCES))
    assert float(skewed_path("VP").log_snr_range[1]) == pytest.approx(-np.log(0.03 * smallest), rel=1e-5)


def test_sampling_starts_inside_the_range_at_twenty_data_scales() -> None:
    largest = np.sqrt(
        (WEIGHTS @ (np.stack([c.diagonal() for c in COVARIANCES]) + (MEANS - WEIGHTS @ MEANS) ** 2)).max()
    )
    assert start_log_snr(skewed_path("VP")) == pytest.approx(-np.log(20 * largest), rel=1e-5)
    assert start_log_snr(network(ss.VE(0.01, 5.0))) == pytest.approx(-np.log(5.0), rel=1e-5)
    assert start_log_snr(network(ss.VP(), (-1.0, 4.0))) == pytest.approx(-1.0)


def test_levels_are_the_process_at_uniform_log_snr() -> None:
    levels = noise_levels(network(ss.VP(), (-2.0, 4.0)), 6)
    np.testing.assert_allclose(levels.log_snr, np.linspace(-2, 4, 7), atol=1e-12)
    np.testing.assert_allclose(levels.alpha**2, 1 / (1 + np.exp(-2 * levels.log_snr)), rtol=1e-12)
    np.testing.assert_allclose(levels.alpha**2 + levels.sigma**2, 1, rtol=1e-12)
    np.testing.assert_allclose(0.1 * levels.t + 9.95 * levels.t**2, -2 * np.log(levels.alpha), rtol=1e-10)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (-np.inf, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_ranges_that_are_none_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="log_snr_range"):
        network(ss.VP(), bounds)


def test_a_range_without_levels_is_refused_when_planning() -> None:
    with pytest.raises(ValueError, match="log_snr_range"):
        noise_levels(network(ss.VE(0.01, 5.0), (-9.0, -2.0)), 5)


def test_a_traced_path_has_no_plan() -> None:
    def plan(shift: Array) -> Array:
        path = ss.PerturbedScore(lambda z, t, m: m - z, ss.VP(), structure=jnp.zeros(2), args=(shift,))
        return jnp.asarray(noise_levels(path, 3).t)

    with pytest.raises(TypeError, match="plan"):
        jax.jit(plan)(jnp.zeros(2))
