"""Stopping early: with `delta` and without denoising, draws have the law of the data with that much noise added."""

import itertools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.paths import noise_levels
from tests.samplers import (
    test_annealed_langevin,
    test_predictor_corrector,
    test_probability_flow,
    test_reverse_sde,
)
from tests.samplers.affine_laws import (
    CORRELATED,
    IDENTITY,
    MEAN,
    Affine,
    assert_normal_law,
    ends_of,
    grid,
    kl,
    normal_particles,
    path_of,
    some_particles,
    start_law,
)

DELTA = 0.3
STOPPED = CORRELATED + DELTA * IDENTITY

COARSE: dict[str, Any] = {
    "reverse SDE": ss.ReverseSDE(num_steps=3, solver=diffrax.Euler(), delta=DELTA, denoise=False),
    "reverse SDE, denoised": ss.ReverseSDE(num_steps=3, solver=diffrax.ShARK(), delta=DELTA),
    "probability flow": ss.ProbabilityFlowODE(num_steps=3, solver=diffrax.Heun(), delta=DELTA, denoise=False),
    "predictor-corrector": ss.PredictorCorrector(num_steps=3, corrector_step_size=0.6, delta=DELTA, denoise=False),
    "predictor-corrector, denoised": ss.PredictorCorrector(num_steps=3, corrector_step_size=0.6, delta=DELTA),
    "annealed Langevin": ss.AnnealedLangevin(3, 2, step_size=0.7, delta=DELTA, denoise=False),
    "annealed Langevin, denoised": ss.AnnealedLangevin(3, 2, step_size=0.7, delta=DELTA),
}


def exact(sampler: Any, process: str) -> Affine:
    match sampler:
        case ss.ReverseSDE():
            solver = type(sampler.solver).__name__
            return test_reverse_sde.exact(solver, sampler, process, CORRELATED)
        case ss.ProbabilityFlowODE():
            return test_probability_flow.exact(type(sampler.solver).__name__, sampler, process, CORRELATED)
        case ss.PredictorCorrector():
            return test_predictor_corrector.exact(sampler, process, CORRELATED)
        case _:
            return test_annealed_langevin.exact(sampler, process, CORRELATED)


@pytest.mark.parametrize(("name", "process"), [*zip(COARSE, itertools.cycle(["VP", "VE"]), strict=False)])
def test_particles_follow_the_affine_recursion_to_delta(name: str, process: str) -> None:
    sampler = COARSE[name]
    law = exact(sampler, process)
    start = start_law(process, CORRELATED, grid(process, CORRELATED, 1)[0])
    particles = normal_particles(*start, 4000)
    ends = ends_of(sampler, process, CORRELATED, particles)
    assert_normal_law(ends, *law.law(*start), unlike=None)
    # Equal keys cancel the noise: what is left of a difference is the matrix, to float precision.
    shift = np.resize(some_particles(), particles.shape)
    moved = ends_of(sampler, process, CORRELATED, particles + shift) - ends
    np.testing.assert_allclose(moved, shift @ law.matrix.T, rtol=0, atol=1e-9 * np.abs(shift).max())


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_recursions_tend_to_the_law_with_noise_of_variance_delta(process: str) -> None:
    samplers: list[Any] = [
        ss.ReverseSDE(800, solver=diffrax.ShARK(), delta=DELTA, denoise=False),
        ss.ProbabilityFlowODE(800, solver=diffrax.Heun(), delta=DELTA, denoise=False),
        ss.PredictorCorrector(800, corrector_step_size=0.01, delta=DELTA, denoise=False),
        ss.AnnealedLangevin(400, 100, step_size=0.01, delta=DELTA, denoise=False),
    ]
    start = start_law(process, CORRELATED, grid(process, CORRELATED, 1)[0])
    for sampler in samplers:
        law = exact(sampler, process).law(*start)
        assert kl(*law, MEAN, STOPPED) < 2e-4, sampler.name
        assert kl(*law, MEAN, CORRELATED) > 0.1, sampler.name


@pytest.mark.parametrize(
    "sampler",
    [
        ss.ReverseSDE(60, delta=DELTA, denoise=False),
        ss.ProbabilityFlowODE(delta=DELTA, denoise=False),
        ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-5, delta=DELTA, denoise=False),
        ss.PredictorCorrector(60, corrector="metropolis", delta=DELTA, denoise=False),
        ss.AnnealedLangevin(60, corrector="metropolis", delta=DELTA, denoise=False),
    ],
    ids=lambda sampler: f"{sampler.name}-{getattr(sampler, 'solver', '')!s:.6}",
)
def test_draws_have_the_law_with_noise_of_variance_delta(sampler: Any) -> None:
    draws = ss.sample(path_of("VP", CORRELATED), sampler, key=jax.random.key(1), num_samples=2500)
    assert_normal_law(draws.position, MEAN, STOPPED, unlike=(MEAN, CORRELATED))
    assert draws.info["noise_left"] == pytest.approx(np.sqrt(DELTA), rel=1e-5)
    assert f'"delta": {DELTA}' in draws.attributes["settings"]


@pytest.mark.parametrize("solver", ["fixed", "adaptive"])
def test_the_flow_stops_at_delta(solver: str) -> None:
    settings: Any = {"num_steps": 1000} if solver == "fixed" else {"rtol": 1e-8}
    sampler = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), delta=DELTA, denoise=False, **settings)
    truth = test_probability_flow.flow("VE", CORRELATED, DELTA)
    expected = some_particles() @ truth.matrix.T + truth.shift
    np.testing.assert_allclose(ends_of(sampler, "VE", CORRELATED, some_particles()), expected, rtol=1e-6, atol=1e-6)


def test_delta_is_in_standard_coordinates_and_draws_in_the_scale_of_the_data() -> None:
    scale = jnp.array([0.1, 20.0])
    path = ss.PerturbedScore(
        lambda y, s: y / (1 + s**2), ss.VP(), structure=scale, prediction="denoised", time="sigma", scale=scale
    )
    stopped, whole = (
        ss.sample(path, ss.ProbabilityFlowODE(delta=d, denoise=False), key=jax.random.key(0), num_samples=2000)
        for d in (0.5, None)
    )
    np.testing.assert_allclose(stopped.position / whole.position, np.sqrt(1.5), rtol=1e-3)
    assert "smallest_scale" not in stopped.info


def test_an_ornstein_uhlenbeck_time_is_a_delta() -> None:
    path = ss.perturb(ss.Gaussian(jnp.zeros(1), 1.0), ss.OU(4.0))
    plan = ss.ReverseSDE(delta=float(np.expm1(2 * 0.05))).plan(path, key=jax.random.key(0))
    assert float(plan.t_final) * 4.0 == pytest.approx(0.05, rel=1e-5)


SAMPLERS: list[Any] = [ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector, ss.AnnealedLangevin]


@pytest.mark.parametrize("cls", SAMPLERS)
def test_refined_samplers_stop_at_the_same_noise(cls: Any) -> None:
    assert cls(delta=DELTA).refined(2).delta == DELTA


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("cls", SAMPLERS)
def test_numbers_of_any_kind_become_python_floats(cls: Any) -> None:
    for number in (jnp.asarray(0.25), np.float32(0.25), np.asarray(0.25)):
        assert type(cls(delta=number).delta) is float
    assert hash(cls(delta=jnp.asarray(0.25)).delta) == hash(0.25)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("cls", SAMPLERS)
def test_deltas_that_mean_nothing_are_refused(cls: Any) -> None:
    unlike: list[Any] = [0.0, -1.0, float("inf"), float("nan"), True, "0.1"]
    for wrong in unlike:
        with pytest.raises(ValueError, match=r"`delta` is the variance of the noise .* got"):
            cls(delta=wrong)
    name = "ladder" if cls is ss.AnnealedLangevin else "grid"
    times: dict[str, Any] = {name: np.linspace(0.9, 0.1, 100)}
    with pytest.raises(ValueError, match=f"`delta` and times of your own in `{name}`"):
        cls(delta=DELTA, **times)
    path, key = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VE(0.01, 10.0)), jax.random.key(0)
    with pytest.raises(
        ValueError, match=r"`delta`: the score is not valid .* at least 0\.0009, .* below 100, .* 0\.0008"
    ):
        cls(delta=8e-4).plan(path, key=key)
    for wrong in (100.0, 1000.0):
        with pytest.raises(ValueError, match=r"`delta`: nothing is left after the start.* below 100"):
            cls(delta=wrong).plan(path, key=key)


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_a_delta_equal_to_the_end_of_the_range_is_accepted(precision: Any) -> None:
    """Whatever single precision made of it."""
    for scale in (0.013, 0.7, 3.1):
        with jax.enable_x64(precision == jnp.float64):
            path = ss.perturb(ss.Gaussian(jnp.zeros(1, precision), jnp.asarray([scale**2], precision)), ss.VP())
            end = float(np.asarray(path.log_snr_range)[1])
            for delta in ((0.03 * scale) ** 2, float(np.exp(-2 * end)), float(np.float32(np.exp(-2 * end)))):
                levels = noise_levels(path, 5, delta=delta)
                assert end - 1e-6 < levels.log_snr[-1] <= end


def test_a_tempered_path_has_no_noise_to_stop_at() -> None:
    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(1), 4.0), ss.Gaussian(jnp.ones(1), 1.0))
    with pytest.raises(ValueError, match=r"`delta`: a TemperedPath has no noise to stop at"):
        ss.AnnealedLangevin(delta=DELTA).plan(path, key=jax.random.key(0))


def test_a_single_level_is_that_of_delta() -> None:
    plan = ss.AnnealedLangevin(num_levels=1, delta=DELTA).plan(path_of("VE", CORRELATED), key=jax.random.key(0))
    assert plan.steps.t.shape == (1,)
    assert float(0.002 * 5000**plan.t_final) == pytest.approx(np.sqrt(DELTA), rel=1e-5)


def test_plans_and_samplers_agree_on_where_to_stop() -> None:
    path, key = path_of("VP", CORRELATED), jax.random.key(0)
    planned = ss.plan(path, error=2.0, delta=DELTA)
    assert planned.noise[-1] == pytest.approx(np.sqrt(DELTA), rel=1e-9)
    ours, theirs = (s.plan(path, key=key) for s in (ss.ReverseSDE(delta=DELTA), planned.sampler(path)))
    assert float(ours.t_final) == pytest.approx(float(theirs.t_final), rel=1e-6)
    end = float(np.exp(-2 * np.asarray(path.log_snr_range, np.float64)[1]))
    last = [s.plan(path, key=key).t_final for s in (ss.ReverseSDE(delta=end), ss.ReverseSDE())]
    assert float(last[0]) == float(last[1])


def test_diagnostics_stop_where_the_sampler_does() -> None:
    density = ss.Gaussian(jnp.zeros(2), jnp.array([1.0, 0.04]))
    path, key = ss.perturb(density, ss.VP()), jax.random.key(0)
    data = density.sample(jax.random.key(1), 512)
    budgets = [ss.sampling_budget(path, ss.ReverseSDE(20, "ddpm", delta=delta), data, key=key) for delta in (0.1, None)]
    levels = noise_levels(path, 20, delta=0.1)
    np.testing.assert_allclose(np.append(budgets[0].t, budgets[0].t_next[-1]), levels.t)
    assert budgets[0].last_noise / budgets[0].noise[0] == pytest.approx(
        np.sqrt(0.1) / np.exp(-levels.log_snr[0]), rel=1e-6
    )
    assert budgets[0].total < 0.5 * budgets[1].total
    found = ss.warm_start(path, key=key, num_levels=30, delta=0.1)
    assert found.noise_next[-1] == pytest.approx(np.sqrt(0.1))
    times = ss.loss_adaptive_grid(path, data, key=key, num_steps=10, delta=0.1)
    assert times[-1] == pytest.approx(levels.t[-1], rel=1e-6)


def test_discretisation_error_compares_runs_that_stop_at_the_same_noise() -> None:
    """The narrow coordinate would be three times as wide in the one as in the other."""
    path = ss.perturb(ss.Gaussian(jnp.zeros(2), jnp.array([1.0, 0.04])), ss.VP())
    sampler = ss.ProbabilityFlowODE(delta=DELTA, denoise=False)
    error = ss.discretisation_error(path, sampler, key=jax.random.key(0), num_samples=500)
    assert error.check().passed
    np.testing.assert_allclose(error.moments.sd_ratio, 1.0, atol=1e-3)
