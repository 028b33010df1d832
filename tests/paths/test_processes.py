from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss

TIMES = np.array([0.0, 1e-6, 1e-3, 0.02, 0.3, 0.75, 1.0])
RATES = [(0.1, 20.0), (0.5, 3.0)]
SIGMAS = [(0.002, 80.0), (0.01, 5.0)]


def tolerance(precision: jnp.dtype) -> float:
    return 1e-12 if precision == jnp.float64 else 2e-6


def values(function: Any, times: np.ndarray, precision: jnp.dtype) -> np.ndarray:
    result = jax.vmap(function)(jnp.asarray(times, precision))
    assert result.dtype == precision
    return np.asarray(result, np.float64)


@pytest.mark.parametrize("rates", RATES)
def test_vp_is_the_closed_form(rates: tuple[float, float], precision: jnp.dtype) -> None:
    """Song et al. 2021, eqs. 32 and 33, with the drift ``-beta x / 2`` and the diffusion ``sqrt(beta)``."""
    low, high = rates
    process, rtol = ss.VP(low, high), tolerance(precision)
    integral = TIMES * low + TIMES**2 * (high - low) / 2
    beta = low + TIMES * (high - low)
    np.testing.assert_allclose(values(process.alpha, TIMES, precision), np.exp(-integral / 2), rtol=rtol)
    np.testing.assert_allclose(values(process.variance, TIMES, precision), -np.expm1(-integral), rtol=rtol)
    np.testing.assert_allclose(values(process.drift_rate, TIMES, precision), -beta / 2, rtol=rtol)
    np.testing.assert_allclose(values(process.squared_diffusion, TIMES, precision), beta, rtol=rtol)


@pytest.mark.parametrize("sigmas", SIGMAS)
def test_ve_is_the_closed_form(sigmas: tuple[float, float], precision: jnp.dtype) -> None:
    """Song et al. 2021, eqs. 30 and 31: no drift, ``g = sigma_min (sigma_max/sigma_min)^t sqrt(2 log ratio)``."""
    low, high = sigmas
    process, rtol = ss.VE(low, high), 10 * tolerance(precision)
    sigma = low * (high / low) ** TIMES
    np.testing.assert_array_equal(values(process.alpha, TIMES, precision), 1.0)
    np.testing.assert_array_equal(values(process.drift_rate, TIMES, precision), 0.0)
    np.testing.assert_allclose(values(process.sigma, TIMES, precision), sigma, rtol=rtol)
    np.testing.assert_allclose(values(process.variance, TIMES, precision), sigma**2, rtol=rtol)
    squared_diffusion = values(process.squared_diffusion, TIMES, precision)
    np.testing.assert_allclose(squared_diffusion, 2 * sigma**2 * np.log(high / low), rtol=rtol)


@pytest.mark.parametrize("rates", RATES)
def test_sub_vp_is_the_closed_form(rates: tuple[float, float], precision: jnp.dtype) -> None:
    """Song et al. 2021, eqs. 28 and 29: ``sigma = 1 - exp(-B)``, ``g^2 = beta (1 - exp(-2 B))``, the drift of VP."""
    low, high = rates
    process, rtol = ss.SubVP(low, high), tolerance(precision)
    integral = TIMES * low + TIMES**2 * (high - low) / 2
    beta = low + TIMES * (high - low)
    np.testing.assert_allclose(values(process.alpha, TIMES, precision), np.exp(-integral / 2), rtol=rtol)
    np.testing.assert_allclose(values(process.sigma, TIMES, precision), -np.expm1(-integral), rtol=rtol)
    np.testing.assert_allclose(values(process.variance, TIMES, precision), np.expm1(-integral) ** 2, rtol=rtol)
    np.testing.assert_allclose(values(process.drift_rate, TIMES, precision), -beta / 2, rtol=rtol)
    squared_diffusion = values(process.squared_diffusion, TIMES, precision)
    np.testing.assert_allclose(squared_diffusion, -beta * np.expm1(-2 * integral), rtol=2 * rtol)


@pytest.mark.parametrize("horizon", [8.0, 1.5])
def test_ou_is_the_closed_form(horizon: float, precision: jnp.dtype) -> None:
    """``dX = -X ds + sqrt(2) dW``, ``X_s = exp(-s) X_0 + sqrt(1 - exp(-2 s)) Z`` with ``s = horizon t``."""
    process, rtol = ss.OU(horizon), tolerance(precision)
    s = horizon * TIMES
    np.testing.assert_allclose(values(process.alpha, TIMES, precision), np.exp(-s), rtol=rtol)
    np.testing.assert_allclose(values(process.variance, TIMES, precision), -np.expm1(-2 * s), rtol=rtol)
    np.testing.assert_allclose(values(process.drift_rate, TIMES, precision), -horizon, rtol=rtol)
    np.testing.assert_allclose(values(process.squared_diffusion, TIMES, precision), 2 * horizon, rtol=rtol)


@pytest.mark.parametrize("sigma_max", [80.0, 3.0])
def test_edm_is_the_closed_form(sigma_max: float, precision: jnp.dtype) -> None:
    """Karras et al. 2022, table 1, with the clock ``sigma = sigma_max t``: no drift, ``g^2 = 2 sigma dsigma/dt``."""
    process, rtol = ss.EDM(sigma_max), tolerance(precision)
    sigma = sigma_max * TIMES
    np.testing.assert_array_equal(values(process.alpha, TIMES, precision), 1.0)
    np.testing.assert_array_equal(values(process.drift_rate, TIMES, precision), 0.0)
    np.testing.assert_allclose(values(process.sigma, TIMES, precision), sigma, rtol=rtol)
    np.testing.assert_allclose(values(process.variance, TIMES, precision), sigma**2, rtol=rtol)
    np.testing.assert_allclose(values(process.squared_diffusion, TIMES, precision), 2 * sigma_max**2 * TIMES, rtol=rtol)


PROCESSES = [
    *(ss.VP(), ss.VP(0.5, 3.0), ss.VE(), ss.VE(0.01, 5.0)),
    *(ss.SubVP(), ss.SubVP(0.5, 3.0), ss.OU(), ss.OU(1.5), ss.EDM(), ss.EDM(3.0)),
]


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_drift_and_diffusion_carry_the_perturbation(process: ss.AbstractNoiseProcess) -> None:
    """The moments of ``dx = f x dt + g dW`` obey ``m' = f m`` and ``v' = 2 f v + g^2``: here by central differences."""
    with jax.enable_x64(True):
        times, step = np.array([0.01, 0.2, 0.5, 0.9]), 1e-5
        around = [
            values(lambda t: jnp.stack([process.alpha(t), process.variance(t)]), t, jnp.dtype("float64"))
            for t in (times - step, times, times + step)
        ]
        slopes = (around[2] - around[0]) / (2 * step)
        drift = values(process.drift_rate, times, jnp.dtype("float64"))
        squared = values(process.squared_diffusion, times, jnp.dtype("float64"))
    np.testing.assert_allclose(slopes[:, 0], drift * around[1][:, 0], rtol=1e-6)
    np.testing.assert_allclose(slopes[:, 1], 2 * drift * around[1][:, 1] + squared, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_time_inverts_the_log_snr_near_the_data_too(process: ss.AbstractNoiseProcess, precision: jnp.dtype) -> None:
    times = np.concatenate([np.geomspace(1e-8, 0.1, 15), np.linspace(0.15, 1, 10)])
    back = values(lambda t: process.time(process.log_snr(t)), times, precision)
    single = precision == jnp.float32
    if isinstance(process, ss.VE):
        rtol, atol = 0.0, 1e-6 if single else 2e-14
    else:  # a pole of the log-SNR at t=0: times near the data keep their relative precision
        rtol, atol = 2e-5 if single else 2e-12, 0.0
    np.testing.assert_allclose(back, np.asarray(jnp.asarray(times, precision), np.float64), rtol=rtol, atol=atol)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_log_snr_inverts_the_time(process: ss.AbstractNoiseProcess, precision: jnp.dtype) -> None:
    start, end = (float(process.log_snr(jnp.asarray(t))) for t in (1.0, 0.0))
    log_snr = np.linspace(start, min(end, 12.0), 30)
    there = values(lambda x: process.log_snr(process.time(x)), log_snr, precision)
    np.testing.assert_allclose(there, log_snr, rtol=0, atol=1e-11 if precision == jnp.float64 else 1e-5)
    times = values(process.time, log_snr, precision)
    assert np.all(np.diff(times) < 0)
    assert times[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_log_snr_is_the_logarithm_of_the_ratio(process: ss.AbstractNoiseProcess) -> None:
    t = jnp.asarray(0.4)
    assert float(process.log_snr(t)) == pytest.approx(float(jnp.log(process.alpha(t) / process.sigma(t))), rel=1e-5)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (0.1, float("inf"))])
def test_bounds_that_do_not_make_a_process_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="beta_min"):
        ss.VP(*bounds)
    with pytest.raises(ValueError, match="sigma_min"):
        ss.VE(*bounds)
    with pytest.raises(ValueError, match="beta_min"):
        ss.SubVP(*bounds)


@pytest.mark.parametrize("constant", [0.0, -1.0, float("inf"), float("nan")])
def test_constants_that_do_not_make_a_process_are_refused(constant: float) -> None:
    with pytest.raises(ValueError, match="horizon"):
        ss.OU(constant)
    with pytest.raises(ValueError, match="sigma_max"):
        ss.EDM(constant)
