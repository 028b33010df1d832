"""The restart solver on Gaussians, where it is an affine recursion, and what it forgets."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import noise_levels
from tests.samplers.affine_laws import (
    CORRELATED,
    IDENTITY,
    MEAN,
    UNEQUAL,
    Affine,
    affine,
    assert_normal_law,
    compose,
    ends_of,
    grid,
    last_move,
    noised_target,
    normal_particles,
    path_of,
    posterior_mean,
    scales,
    some_particles,
    start_law,
)

NUM_PARTICLES = 20_000


def heun_step(process: str, covariance: np.ndarray, s: float, after: float, noise: float) -> Affine:
    """Noise at first, then Heun's method for ``dy/ds = (y - D(y, s))/s``, y = x/alpha."""

    def slope(level: float) -> tuple[np.ndarray, np.ndarray]:
        matrix, shift = posterior_mean(process, covariance, -np.log(level))
        return (IDENTITY - matrix * scales(process, -np.log(level))[0]) / level, -shift / level

    (first, first_shift), (second, second_shift) = slope(s), slope(after)
    h = after - s
    euler, euler_shift = IDENTITY + h * first, h * first_shift
    matrix = IDENTITY + h / 2 * (first + second @ euler)
    shift = h / 2 * (first_shift + second @ euler_shift + second_shift)
    return affine(IDENTITY, np.zeros(3), noise).then(affine(matrix, shift))


def exact(process: str, covariance: np.ndarray, num_steps: int, solver: ss.Restart, *, denoise: bool) -> Affine:
    """The whole run, with alpha out at the start and the last move at the end."""
    log_snr = grid(process, covariance, num_steps)
    s = np.exp(-log_snr)
    reached = next(k for k in range(s.size) if s[k] <= solver.low)
    roots = np.linspace(solver.high ** (1 / 7), s[reached] ** (1 / 7), solver.num_restart_steps + 1)
    moves = []
    for k, (here, there) in enumerate(pairwise(s), 1):
        moves.append(heun_step(process, covariance, here, there, 0.0))
        if k == reached:
            for _ in range(solver.num_restarts):
                noise = np.sqrt(solver.high**2 - s[reached] ** 2)
                for a, b in pairwise(roots**7):
                    moves.append(heun_step(process, covariance, a, b, noise))
                    noise = 0.0
    # The last move takes x, not y = x/alpha.
    last = affine(IDENTITY * scales(process, log_snr[-1])[0], np.zeros(3))
    first = affine(IDENTITY / scales(process, log_snr[0])[0], np.zeros(3))
    return compose(first, *moves, last, last_move(process, covariance, log_snr[-1], denoise=denoise))


CASES = [
    ("VP", CORRELATED, ss.Restart(0.2, 2.0, 3, 2), 5, True),
    ("VE", CORRELATED, ss.Restart(0.1, 1.0, 1, 3), 6, False),
    ("VP", UNEQUAL, ss.Restart(0.3, 0.5, 2, 1), 4, False),
]


@pytest.mark.parametrize(("process", "covariance", "solver", "num_steps", "denoise"), CASES)
def test_particles_follow_the_affine_recursion(
    process: str, covariance: np.ndarray, solver: ss.Restart, num_steps: int, denoise: bool
) -> None:
    sampler = ss.ReverseSDE(num_steps, solver, denoise=denoise)
    law = exact(process, covariance, num_steps, solver, denoise=denoise)
    start = start_law(process, covariance, grid(process, covariance, 1)[0])
    particles = normal_particles(*start, NUM_PARTICLES)
    ends = ends_of(sampler, process, covariance, particles)
    assert_normal_law(ends, *law.law(*start), unlike=(MEAN, covariance))
    # Equal keys cancel the noise: what is left of a difference is the matrix, to float precision.
    shift = np.resize(some_particles(), particles.shape)
    moved = ends_of(sampler, process, covariance, particles + shift) - ends
    np.testing.assert_allclose(moved, shift @ law.matrix.T, rtol=0, atol=1e-9 * np.abs(shift).max())


@pytest.mark.parametrize("num_restarts", [1, 4])
def test_every_restart_forgets_its_share_of_a_wrong_start(num_restarts: int) -> None:
    """By the exact flow in a direction of variance v, ``sqrt((v + s^2)/(v + high^2))``: no NumPy copy of the steps."""
    solver = ss.Restart(0.1, 3.0, num_restarts, 40)
    runs = ss.ProbabilityFlowODE(80, "karras-heun", denoise=False), ss.ReverseSDE(80, solver, denoise=False)
    variances = UNEQUAL.diagonal()
    reached = next(s for s in np.exp(-grid("VP", UNEQUAL, 80)) if s <= solver.low)
    share = np.sqrt((variances + reached**2) / (variances + solver.high**2)) ** num_restarts
    errors = []
    for sampler in runs:
        # Equal keys and shapes cancel the noise.
        ends = [ends_of(sampler, "VP", UNEQUAL, np.full((1, 3), shift)) for shift in (0.0, 5.0)]
        errors.append((ends[1] - ends[0])[0])
    np.testing.assert_allclose(errors[1] / errors[0], share, rtol=0.02)
    assert share.max() < 0.5


def test_restarts_mend_a_score_that_is_wrong_at_high_noise_only() -> None:
    """A denoiser that is off by `bias` above s=1: the flow keeps that error, restarts below it forget most."""

    def denoiser(z: Array, s: Array) -> Array:
        return z / (1 + s**2) + jnp.where(s > 1, 0.5, 0.0)

    path = ss.PerturbedScore(denoiser, ss.VE(0.01, 20.0), structure=jnp.zeros(2), prediction="denoised", time="sigma")
    solver = ss.Restart(0.1, 0.95, 6, 6)
    samplers: list[Any] = [ss.ProbabilityFlowODE(60, "karras-heun"), ss.ReverseSDE(60, solver)]
    off = [
        float(np.mean(np.asarray(ss.sample(path, each, key=jax.random.key(0), num_samples=1000).position)))
        for each in samplers
    ]
    reached = next(s for s in np.exp(-noise_levels(path, 60).log_snr) if s <= solver.low)
    share = np.sqrt((1 + reached**2) / (1 + solver.high**2)) ** 6
    assert off[0] > 0.2
    assert off[1] == pytest.approx(share * off[0], abs=5 / np.sqrt(8000))


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_the_laws_error_is_of_order_two(process: str) -> None:
    last = noised_target(process, UNEQUAL)
    start = start_law(process, UNEQUAL, grid(process, UNEQUAL, 1)[0])
    errors = []
    for num in (100, 200, 400):
        law = exact(process, UNEQUAL, num, ss.Restart(0.1, 2.0, 2, num // 2), denoise=False).law(*start)
        errors.append(np.abs(law[1] - last[1]).max())
    # What is left is the start, which is wrong by nothing here: UNEQUAL is diagonal.
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.3)


def test_evaluations_are_counted_with_the_restarts() -> None:
    calls: list[float] = []

    def counted(z: Array, t: Array) -> Array:
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return -z

    path = ss.PerturbedScore(counted, ss.VP(), structure=jnp.zeros(2))
    sampler = ss.ReverseSDE(8, ss.Restart(num_restarts=3, num_restart_steps=2))
    draws = ss.sample(path, sampler, key=jax.random.key(0), num_samples=1, num_chains=1)
    jax.effects_barrier()
    spent = len(calls) - 1  # the check of the start looks once, at draws of its own
    assert draws.nfe == spent == 2 * (8 + 3 * 2) + 1


def test_rows_visit_the_interval_and_stay_in_the_range() -> None:
    path = path_of("VP", UNEQUAL)
    with jax.enable_x64(True):
        plan = ss.ReverseSDE(10, ss.Restart(0.1, 0.6, 2, 3), grid="karras").plan(path, key=jax.random.key(0))
        log_snr = np.asarray(jax.vmap(path.process.log_snr)(plan.steps.t))
    s, noise = np.exp(-log_snr), np.asarray(plan.steps.churn_sd)
    reached = int(np.argmax(noise > 0))
    assert np.flatnonzero(noise > 0).tolist() == [reached, reached + 3]
    np.testing.assert_allclose(s[noise > 0], 0.6, rtol=1e-6)
    # The way down ends at the level that it left, and there the ladder goes on.
    left = s[reached + 6]
    assert left <= 0.1
    np.testing.assert_allclose(noise[noise > 0], np.sqrt(0.36 - left**2), rtol=1e-6)
    assert s.size == 16
    assert s.max() <= np.exp(-float(path.log_snr_range[0])) * (1 + 1e-6)


def test_refined_takes_more_steps_on_every_way() -> None:
    times = (1.0, 0.5, 0.1, 0.001)
    finer = ss.ReverseSDE(5, ss.Restart(num_restart_steps=2), grid=times).refined(3)
    assert isinstance(finer.solver, ss.Restart)
    assert (finer.num_steps, finer.solver.num_restart_steps, len(finer.grid)) == (15, 6, 10)
    named = ss.ReverseSDE(5, "restart").refined(2).solver
    assert isinstance(named, ss.Restart)
    assert named.num_restart_steps == 2 * ss.Restart().num_restart_steps
    assert ss.ReverseSDE(5, "ddpm").refined(2).solver == "ddpm"


def test_named_solver_is_the_default_one() -> None:
    path = path_of("VP", UNEQUAL)
    plans = [ss.ReverseSDE(6, solver).plan(path, key=jax.random.key(0)) for solver in ("restart", ss.Restart())]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), *plans))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.1, 50.0, r"`low` and `high`: the ladder goes from sigma/alpha = 30 down to 0\.015.*0\.1 to 50"),
        (0.01, 0.5, r"`low` and `high`: the ladder goes from sigma/alpha = 30 down to 0\.015.*0\.01 to 0\.5"),
    ],
)
def test_an_interval_outside_the_ladder_is_refused(low: float, high: float, message: str) -> None:
    path = path_of("VP", UNEQUAL)
    with pytest.raises(ValueError, match=message):
        ss.ReverseSDE(6, ss.Restart(low, high)).plan(path, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ss.Restart(0.5, 0.5), "`low` and `high` must be two increasing.*low=0.5 and high=0.5"),
        (lambda: ss.Restart(low=-0.1), "`low` and `high` must be two increasing"),
        (lambda: ss.Restart(num_restarts=0), "`num_restarts` must be a whole number of at least 1, got 0"),
        (lambda: ss.Restart(num_restart_steps=0), "`num_restart_steps` must be a whole number of at least 1, got 0"),
        (lambda: ss.ReverseSDE(solver=ss.Restart(), eta=0.5), "`eta`: Restart brings its own noise"),
        (lambda: ss.ReverseSDE(solver="restart", eta=0.5), "`eta`: Restart brings its own noise"),
        (lambda: ss.ProbabilityFlowODE(solver=ss.Restart()), "`solver`: Restart adds fresh noise.*ReverseSDE"),
        (lambda: ss.ProbabilityFlowODE(solver="restart"), "`solver`: 'restart' is stochastic, so it is for ReverseSDE"),
    ],
)
def test_wrong_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
