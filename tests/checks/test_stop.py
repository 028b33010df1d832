"""The check of where sampling stopped, and what `sample`, files and reports make of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.checks import point_stop_check, stop_check

NAME = "noise left where sampling stopped, over the data's smallest scale"
DENSITY = ss.GaussianMixture([0.5, 0.5], jnp.array([[-1.0], [1.0]]), jnp.array([[[0.04]], [[1.0]]]))
"""Its smallest standard deviation is 0.2."""


def draws_of(delta: float | None, sampler: Any = ss.ReverseSDE) -> ss.Draws:
    settings: dict[str, Any] = {"num_levels" if sampler is ss.AnnealedLangevin else "num_steps": 10}
    path = ss.perturb(DENSITY, ss.VP())
    return ss.sample(path, sampler(delta=delta, **settings), key=jax.random.key(0), num_samples=250)


def check_of(draws: ss.Draws) -> Any:
    found = [check for check in ss.compare({"run": draws}).verdicts["run"].checks if check.name == NAME]
    return found[0] if found else None


@pytest.mark.parametrize("ratio", [0.02, 0.3, 0.8])
def test_the_cause_names_the_error_of_the_width(ratio: float) -> None:
    """Of N(0, v) with noise of variance ``r^2 v`` added."""
    check = stop_check(2 * ratio, 2.0)
    assert check.value == pytest.approx(ratio)
    assert f"{np.sqrt(1 + ratio**2) - 1:.1%} too wide" in check.cause


@pytest.mark.parametrize("sampler", [ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector, ss.AnnealedLangevin])
def test_runs_carry_where_they_stopped(sampler: Any) -> None:
    info = draws_of(0.01, sampler).info
    assert info["noise_left"] == pytest.approx(0.1, rel=1e-5)
    assert info["smallest_scale"] == pytest.approx(0.2, rel=1e-5)


def test_a_plan_of_ones_own_decides_where_it_stopped() -> None:
    path, key = ss.perturb(DENSITY, ss.VP()), jax.random.key(0)
    plan = ss.ReverseSDE(num_steps=10, delta=0.01).plan(path, key=key)
    draws = ss.sample(path, ss.ReverseSDE(num_steps=10), key=key, plan=plan, num_samples=10)
    assert draws.info["noise_left"] == pytest.approx(0.1, rel=1e-5)


def test_reports_pass_warn_and_fail() -> None:
    default = check_of(draws_of(None))
    assert default.passed
    assert default.value == pytest.approx(0.03, rel=1e-3)
    assert check_of(draws_of(0.015**2)).passed
    warned = check_of(draws_of(0.05**2))
    assert (warned.passed, warned.severity, warned.threshold) == (False, "warn", 0.1)
    assert warned.value == pytest.approx(0.25, rel=1e-3)
    failed = check_of(draws_of(0.15**2))
    assert (failed.passed, failed.severity, failed.threshold) == (False, "fail", 0.5)
    assert "`delta`" in failed.remedy


def test_it_survives_arviz() -> None:
    again = ss.Draws.from_arviz(draws_of(0.05**2).to_arviz())
    assert check_of(again).value == pytest.approx(0.25, rel=1e-3)


def test_no_check_where_there_is_no_noise_or_no_scale() -> None:
    network = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(1))
    unknown = ss.sample(network, ss.ReverseSDE(num_steps=5), key=jax.random.key(0), num_samples=50)
    assert unknown.info["noise_left"] == pytest.approx(0.002, rel=1e-3)
    assert check_of(unknown) is None
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(1), 4.0), ss.Gaussian(jnp.ones(1), 1.0))
    draws = ss.sample(tempered, ss.AnnealedLangevin(num_levels=5), key=jax.random.key(0), num_samples=50)
    assert "noise_left" not in draws.info
    assert check_of(draws) is None


def test_points_are_given_back_below_their_spacing() -> None:
    """Draws of the score of points fail once the noise is small against their spacing, and say why."""
    points = np.random.default_rng(0).normal(size=(200, 3))
    path = ss.perturb(points, ss.VP())
    spacing = float(path.spacing)

    def found(path: Any, delta: float | None) -> Any:
        sampler = ss.ReverseSDE(num_steps=10, delta=delta)
        draws = ss.sample(path, sampler, key=jax.random.key(0), num_samples=50)
        checks = ss.compare({"run": draws}).verdicts["run"].checks
        return [check for check in checks if "spacing of the points" in check.name]

    (copies,) = found(path, None)
    assert copies.value == pytest.approx(0.003, rel=0.02)
    assert (copies.passed, copies.severity) == (False, "fail")
    (near,) = found(path, (0.6 * spacing) ** 2)
    assert (near.passed, near.severity) == (False, "warn")
    (far,) = found(path, (1.5 * spacing) ** 2)
    assert far.passed
    assert not found(ss.perturb(points, ss.VP(), bandwidth="spacing"), None)
    assert point_stop_check(1.0, 1.0).passed
    (reclocked,) = found(path.with_process(ss.VE(1e-4, 50.0)), None)
    assert reclocked.value == pytest.approx(copies.value, rel=0.02)
    (narrow,) = found(ss.perturb(points, ss.VP(), bandwidth=0.1 * spacing), None)
    assert narrow.value == pytest.approx(0.1 * np.hypot(1, 0.03), rel=0.02)
    assert narrow.severity == "fail"
