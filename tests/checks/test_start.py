"""The check of the start: its value in closed form, and what `sample` makes of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.checks import measure_start

LOG_SNR = -3.0
NOISE = float(np.exp(3.0))
"""The noise that sampling starts from, relative to the signal."""


def network(mean: float = 0.0, sd: float = 1.0) -> ss.PerturbedScore:
    """The exact denoiser of normal data, given without their mean and standard deviation: 0 and 1 are assumed."""
    return ss.PerturbedScore(
        lambda y, s: (sd**2 * y + s**2 * mean) / (sd**2 + s**2),
        ss.VP(),
        structure=jnp.zeros(3),
        prediction="denoised",
        time="sigma",
        log_snr_range=(LOG_SNR, 5.0),
    )


def check_of(path: Any, sampler: Any) -> Any:
    (check,) = ss.sample(path, sampler, key=jax.random.key(0), num_samples=250).info["checks"]
    return check


@pytest.mark.parametrize("sd", [0.5, 3.0, 10.0])
def test_value_is_the_relative_error_of_the_variance(sd: float) -> None:
    """``s_p - s_r = x (1/v_r - 1/v_p)`` at x of variance v_r, times sqrt(v_r): ``|1 - v_r/v_p|`` in the mean."""
    path = network(sd=sd)
    t = path.process.time(jnp.asarray(LOG_SNR))
    expected = abs(1 - (1 + NOISE**2) / (sd**2 + NOISE**2))
    assert float(measure_start(path, jax.random.key(0), t)) == pytest.approx(expected, rel=0.15)


def test_value_is_the_shift_in_standard_deviations() -> None:
    path = network(mean=8.0)
    t = path.process.time(jnp.asarray(LOG_SNR))
    expected = 8.0 / np.sqrt(1 + NOISE**2)
    assert float(measure_start(path, jax.random.key(0), t)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "sampler",
    [ss.ReverseSDE(num_steps=5), ss.ProbabilityFlowODE(num_steps=5), ss.PredictorCorrector(num_steps=4)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_sample_tells_a_matched_start_from_others(sampler: Any) -> None:
    good, far = check_of(network(), sampler), check_of(network(sd=25.0), sampler)
    assert good.passed
    assert good.value < 1e-3
    assert not far.passed
    assert far.severity == "fail"
    assert far.value == pytest.approx(abs(1 - (1 + NOISE**2) / (625 + NOISE**2)), rel=0.15)
    assert "location" in far.remedy


def test_own_times_that_start_too_late_are_seen() -> None:
    path = ss.perturb(ss.GaussianMixture([0.2, 0.8], jnp.array([[-4.0], [4.0]]), 0.5), ss.VP())
    late = path.process.time(jnp.asarray([0.0, 1.0, 2.0, 3.0]))
    assert not check_of(path, ss.ProbabilityFlowODE(grid=np.asarray(late, np.float64))).passed


def test_it_reaches_the_verdict() -> None:
    runs = {
        name: ss.sample(path, ss.ReverseSDE(num_steps=10), key=jax.random.key(1), num_samples=500)
        for name, path in {"matched": network(), "unmatched": network(sd=25.0)}.items()
    }
    comparison = ss.compare(runs)
    assert "mismatch of the start" in {c.name for c in comparison.verdicts["unmatched"].checks if not c.passed}
