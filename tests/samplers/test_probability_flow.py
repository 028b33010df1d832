from itertools import pairwise

import diffrax
import jax
import numpy as np
import pytest

import scoresample as ss
from tests.samplers.affine_laws import (
    CORRELATED,
    IDENTITY,
    MEAN,
    UNEQUAL,
    Affine,
    Linear,
    affine,
    assert_normal_law,
    compose,
    ends_of,
    grid,
    last_move,
    path_of,
    scales,
    score,
    some_particles,
    start_law,
)


def drift(process: str, covariance: np.ndarray, log_snr: float) -> Linear:
    """The flow of v = x / sqrt(alpha^2 + sigma^2) in the log-SNR clock, from ``dx/dt = f x - g^2 s/2`` (eq. 13).

    Chain rule, with the process's own time: ``dx/dlambda = (dx/dt) / (dlambda/dt)``. For VP (v = x)
    ``lambda = -log(e^B - 1)/2`` has ``dlambda/dt = -beta/(2 sigma^2)``, f = -beta/2, g^2 = beta. For VE
    ``dlambda/dt = -log r``, g^2 = 2 sigma^2 log r.
    """
    s = score(process, covariance, log_snr)
    _, sigma = scales(process, log_snr)
    if process == "VP":
        return Linear(sigma**2 * (IDENTITY + s.matrix), sigma**2 * s.shift)
    root = np.sqrt(1 + sigma**2)
    return Linear(sigma**2 * s.matrix + sigma**2 / root**2 * IDENTITY, sigma**2 * s.shift / root)


def step(solver: str, process: str, covariance: np.ndarray, here: float, there: float) -> Affine:
    h = there - here
    first, second = drift(process, covariance, here), drift(process, covariance, there)
    if solver == "Euler":
        return affine(IDENTITY + h * first.matrix, h * first.shift)
    matrix = IDENTITY + h / 2 * (first.matrix + second.matrix @ (IDENTITY + h * first.matrix))
    return affine(matrix, h / 2 * (first.shift + second.matrix @ (h * first.shift) + second.shift))


def exact(solver: str, sampler: ss.ProbabilityFlowODE, process: str, covariance: np.ndarray) -> Affine:
    log_snr = grid(process, covariance, sampler.num_steps, sampler.delta)
    roots = [np.sqrt(sum(np.square(scales(process, end)))) for end in log_snr[[0, -1]]]
    return compose(
        affine(IDENTITY / roots[0], np.zeros(3)),
        *[step(solver, process, covariance, *pair) for pair in pairwise(log_snr)],
        affine(IDENTITY * roots[1], np.zeros(3)),
        last_move(process, covariance, log_snr[-1], denoise=sampler.denoise),
    )


def flow(process: str, covariance: np.ndarray, delta: float | None = None) -> Affine:
    """The flow itself: ``(y - m) / sqrt(v + s^2)`` stays along every eigenvector, y = x/alpha."""
    variances, axes = np.linalg.eigh(covariance)
    here, there = grid(process, covariance, 1, delta)
    alpha, _ = scales(process, here)
    growth = np.sqrt((variances + np.exp(-2 * there)) / (variances + np.exp(-2 * here)))
    matrix = axes * growth @ axes.T
    return affine(matrix / alpha, MEAN - matrix @ MEAN)


SOLVERS = {"Euler": diffrax.Euler, "Heun": diffrax.Heun}


@pytest.mark.parametrize(("solver", "process"), [("Euler", "VE"), ("Heun", "VP"), ("Heun", "VE")])
def test_particles_follow_the_affine_recursion_to_float_precision(solver: str, process: str) -> None:
    sampler = ss.ProbabilityFlowODE(num_steps=3, solver=SOLVERS[solver](), denoise=process == "VP")
    law = exact(solver, sampler, process, CORRELATED)
    expected = some_particles() @ law.matrix.T + law.shift
    np.testing.assert_allclose(ends_of(sampler, process, CORRELATED, some_particles()), expected, rtol=1e-9, atol=1e-9)
    continuous = flow(process, CORRELATED)
    assert np.abs(expected - some_particles() @ continuous.matrix.T - continuous.shift).max() > 0.02


def test_law_of_the_draws_is_that_of_the_recursion() -> None:
    sampler = ss.ProbabilityFlowODE(num_steps=3, solver=diffrax.Heun())
    draws = ss.sample(path_of("VP", CORRELATED), sampler, key=jax.random.key(6), num_samples=5_000)
    start = start_law("VP", CORRELATED, grid("VP", CORRELATED, 1)[0])
    assert_normal_law(draws.position, *exact("Heun", sampler, "VP", CORRELATED).law(*start), unlike=(MEAN, CORRELATED))


@pytest.mark.parametrize("process", ["VP", "VE"])
@pytest.mark.parametrize("covariance", [CORRELATED, UNEQUAL], ids=["correlated", "unequal"])
@pytest.mark.parametrize(("solver", "order"), [("Euler", 1), ("Heun", 2)])
def test_map_tends_to_the_flow_with_the_solvers_order(
    solver: str, order: int, process: str, covariance: np.ndarray
) -> None:
    samplers = [ss.ProbabilityFlowODE(n, SOLVERS[solver](), denoise=False) for n in (200, 400)]
    truth = flow(process, covariance)
    errors = [np.abs(exact(solver, s, process, covariance).matrix - truth.matrix).max() for s in samplers]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_adaptive_steps_keep_to_the_flow() -> None:
    sampler = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-8, denoise=False)
    truth = flow("VE", CORRELATED)
    expected = some_particles() @ truth.matrix.T + truth.shift
    np.testing.assert_allclose(ends_of(sampler, "VE", CORRELATED, some_particles()), expected, atol=1e-5)
