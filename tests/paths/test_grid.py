"""The grids of noise levels, against their published formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.paths import Levels, levels_at, noise_levels

PROCESSES: dict[str, ss.AbstractNoiseProcess] = {
    "VP": ss.VP(),
    "VE": ss.VE(0.01, 10.0),
    "SubVP": ss.SubVP(),
    "OU": ss.OU(4.0),
    "EDM": ss.EDM(10.0),
}
NUM_STEPS = 12


def scales(process: str, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and sigma in closed form."""
    match process:
        case "VE":
            return np.ones_like(t), 0.01 * 1000**t
        case "EDM":
            return np.ones_like(t), 10 * t
        case "OU":
            return np.exp(-4 * t), np.sqrt(-np.expm1(-8 * t))
        case _:
            rate = 0.1 * t + 9.95 * t**2
            variance = -np.expm1(-rate)
            return np.exp(-rate / 2), np.sqrt(variance) if process == "VP" else variance


def path_of(process: str) -> ss.AbstractPerturbedScore:
    """Data of unit variance: from twenty scales, or the end of the process, to 3%."""
    return ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), PROCESSES[process])


def levels_of(process: str, grid: Any, num_steps: int = NUM_STEPS) -> Levels:
    with jax.enable_x64(True):
        return noise_levels(path_of(process), num_steps, grid)


def ends(process: str) -> np.ndarray:
    """Sigma over alpha at the first and the last level."""
    alpha, sigma = scales(process, np.array(1.0))
    return np.array([min(float(sigma / alpha), 20.0), 0.03])


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("grid", ["log-snr", "karras", "exponential", "uniform"])
def test_levels_are_the_process_from_end_to_end(process: str, grid: str) -> None:
    levels = levels_of(process, grid)
    assert levels.t.shape == (NUM_STEPS + 1,)
    assert (np.diff(levels.t) < 0).all()
    ratio = np.exp(-levels.log_snr)
    np.testing.assert_allclose(ratio[[0, -1]], ends(process), rtol=1e-9)
    for found, expected in zip((levels.alpha, levels.sigma), scales(process, levels.t), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(levels.sigma / levels.alpha, ratio, rtol=1e-12)


@pytest.mark.parametrize("process", PROCESSES)
def test_karras_levels(process: str) -> None:
    """Karras et al. 2022, eq. 5 with rho = 7, on N + 1 levels."""
    first, last = ends(process)
    i = np.arange(NUM_STEPS + 1)
    expected = (first ** (1 / 7) + i / NUM_STEPS * (last ** (1 / 7) - first ** (1 / 7))) ** 7
    np.testing.assert_allclose(np.exp(-levels_of(process, "karras").log_snr), expected, rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 40])
@pytest.mark.parametrize("process", ["VE", "OU"])
def test_exponential_levels(process: str, num_steps: int) -> None:
    """Benton et al. 2024, section 3: steps ``kappa min(1, T)`` in the time of ``dX = -X dT + sqrt(2) dW``."""
    levels = levels_of(process, "exponential", num_steps)
    times = 4 * levels.t if process == "OU" else 0.5 * np.log1p(levels.sigma**2)
    kappa = -np.diff(times) / np.minimum(1, times[:-1])
    np.testing.assert_allclose(kappa, kappa[0], rtol=1e-7)
    assert times[0] > 1 > times[-1]


@pytest.mark.parametrize("process", PROCESSES)
def test_uniform_levels(process: str) -> None:
    t = levels_of(process, "uniform").t
    np.testing.assert_allclose(np.diff(t), (t[-1] - t[0]) / NUM_STEPS, rtol=1e-8)


OWN = (0.9, 0.5, 0.45, 0.3)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", [tuple, list, np.asarray, jnp.asarray])
def test_own_times_are_taken_as_they_are(process: str, kind: Any) -> None:
    with jax.enable_x64(True):
        own = kind(OWN)
    levels = levels_of(process, own, num_steps=77)
    np.testing.assert_allclose(levels.t, OWN, rtol=1e-11)
    for found, expected in zip((levels.alpha, levels.sigma), scales(process, levels.t), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("grid", ["log-snr", "karras", "exponential", "uniform"])
def test_the_times_of_a_grid_are_a_grid(process: str, grid: str) -> None:
    """In single precision too, where the ends may be rounded out of the range."""
    first = levels_of(process, grid)
    again = noise_levels(path_of(process), 1, first.t.astype(np.float32))
    np.testing.assert_allclose(again.log_snr, first.log_snr, atol=2e-4)


@pytest.mark.parametrize(
    "times",
    [(0.5, 0.5), (0.2, 0.4), (0.9, 0.5, 0.6), (0.5,), (), (1.1, 0.5), (0.5, -0.1), (0.5, float("nan")), [[0.5, 0.4]]],
)
@pytest.mark.usefixtures("unchecked_types")
def test_times_that_do_not_decrease_in_the_unit_interval_are_refused(times: Any) -> None:
    with pytest.raises(ValueError, match="decrease"):
        levels_of("VP", np.asarray(times))
    for sampler in (ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector):
        with pytest.raises(ValueError, match="`grid`"):
            sampler(grid=np.asarray(times))


@pytest.mark.usefixtures("unchecked_types")
def test_names_that_are_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`grid` must be one of .*karras.*'linear'"):
        levels_of("VP", "linear")
    wrong: Any = "linear"
    for sampler in (ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector):
        with pytest.raises(ValueError, match="'linear'"):
            sampler(grid=wrong)


@pytest.mark.parametrize(("process", "times"), [("VP", (0.9, 0.001)), ("VE", (0.9, 0.05)), ("EDM", (1.0, 0.0))])
def test_times_outside_the_range_of_the_score_are_refused(process: str, times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="the score is valid from t=1 to t=0"):
        levels_of(process, times)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps"):
        levels_of("VP", "karras", 0)


@pytest.mark.parametrize("process", PROCESSES)
def test_levels_at_a_log_snr(process: str) -> None:
    log_snr = np.linspace(-1, 3, 9)
    levels = levels_at(path_of(process), log_snr)
    np.testing.assert_allclose(np.log(levels.alpha / levels.sigma), log_snr, atol=1e-12)
    alpha, sigma = scales(process, levels.t)
    np.testing.assert_allclose(np.log(alpha / sigma), log_snr, atol=1e-10)
