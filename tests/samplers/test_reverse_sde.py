from itertools import pairwise

import diffrax
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
    kl,
    last_move,
    noised_target,
    normal_particles,
    scales,
    score,
    some_particles,
    start_law,
)

NUM_PARTICLES = 20_000
NUM_STEPS = 3


def drift(process: str, covariance: np.ndarray, log_snr: float, eta: float) -> Linear:
    """The drift of v = x / sqrt(N), N = alpha^2 + sigma^2, in the log-SNR clock.

    From y = x/alpha with ``dy = (1 + eta^2) s^2 grad log p(y) dlambda + eta sqrt(2) s dW`` (Song et al. 2021, eq. 6,
    where alpha is 1, with ``d(s^2) = -2 s^2 dlambda``) and v = y / sqrt(1 + s^2), whose factor moves with
    ``d log(1 + s^2)^(-1/2) / dlambda = s^2 / (1 + s^2)``.
    """
    alpha, sigma = scales(process, log_snr)
    squared = (sigma / alpha) ** 2
    root = np.sqrt(1 + squared)
    of_x = score(process, covariance, log_snr)
    # x = alpha root v, and the score of y is alpha times that of x.
    of_y = Linear(alpha * of_x.matrix * (alpha * root), alpha * of_x.shift)
    return Linear(
        (1 + eta**2) * squared * of_y.matrix / root + squared / root**2 * IDENTITY,
        (1 + eta**2) * squared * of_y.shift / root,
    )


def diffusion(log_snr: float, eta: float) -> float:
    squared = np.exp(-2 * log_snr)
    return float(eta * np.sqrt(2 * squared / (1 + squared)))


def euler_step(process: str, covariance: np.ndarray, here: float, there: float, eta: float) -> Affine:
    h = there - here
    f = drift(process, covariance, here, eta)
    return affine(IDENTITY + h * f.matrix, h * f.shift, float(np.sqrt(h) * diffusion(here, eta)))


def shark_step(process: str, covariance: np.ndarray, here: float, there: float, eta: float) -> Affine:
    """ShARK (Foster, dos Reis and Strange 2023, arXiv 2210.17543, eq. 6.1) with W ~ N(0, h) and H ~ N(0, h/12).

    ``a = v + g H``, ``b = a + 5/6 (f(a) h + g W)``, ``v' = v + (2/5 f(a) + 3/5 f(b)) h + int g dW``, where for g linear
    over the step ``int g dW = g W + (g' - g)(W/2 - H)``.
    """
    h = there - here
    g, g_next = diffusion(here, eta), diffusion(there, eta)
    first, second = drift(process, covariance, here, eta), drift(process, covariance, here + 5 / 6 * h, eta)

    def stages(v: np.ndarray, w: np.ndarray, area: np.ndarray, on: float) -> np.ndarray:
        """One step for the columns of v, w and area; `on` switches the constant part."""
        a = v + g * area
        f_a = first.matrix @ a + on * first.shift[:, None]
        b = a + 5 / 6 * (f_a * h + g * w)
        f_b = second.matrix @ b + on * second.shift[:, None]
        return v + (0.4 * f_a + 0.6 * f_b) * h + g * w + (g_next - g) * (w / 2 - area)

    none = np.zeros((3, 3))
    of_w, of_area = stages(none, IDENTITY, none, 0.0), stages(none, none, IDENTITY, 0.0)
    covariance_of_noise = h * of_w @ of_w.T + h / 12 * of_area @ of_area.T
    return Affine(stages(IDENTITY, none, none, 0.0), stages(none, none, none, 1.0)[:, 0], covariance_of_noise, none)


STEPS = {"Euler": euler_step, "ShARK": shark_step}
SOLVERS = {"Euler": diffrax.Euler, "ShARK": diffrax.ShARK}


def exact(solver: str, sampler: ss.ReverseSDE, process: str, covariance: np.ndarray) -> Affine:
    log_snr = grid(process, covariance, sampler.num_steps, sampler.delta)
    roots = [np.sqrt(sum(np.square(scales(process, end)))) for end in log_snr[[0, -1]]]
    pairs = pairwise(log_snr)
    eta = 1.0 if sampler.eta is None else sampler.eta
    return compose(
        affine(IDENTITY / roots[0], np.zeros(3)),
        *[STEPS[solver](process, covariance, here, there, eta) for here, there in pairs],
        affine(IDENTITY * roots[1], np.zeros(3)),
        last_move(process, covariance, log_snr[-1], denoise=sampler.denoise),
    )


def exact_law(
    solver: str, sampler: ss.ReverseSDE, process: str, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    start = start_law(process, covariance, grid(process, covariance, 1)[0])
    return exact(solver, sampler, process, covariance).law(*start)


CASES = [
    ("Euler", "VP", 1.0, True),
    ("Euler", "VE", 0.5, False),
    ("ShARK", "VP", 0.5, True),
    ("ShARK", "VE", 1.0, False),
]


@pytest.mark.parametrize(("solver", "process", "eta", "denoise"), CASES)
def test_particles_follow_the_affine_recursion(solver: str, process: str, eta: float, denoise: bool) -> None:
    sampler = ss.ReverseSDE(num_steps=NUM_STEPS, solver=SOLVERS[solver](), eta=eta, denoise=denoise)
    law = exact(solver, sampler, process, CORRELATED)
    start = start_law(process, CORRELATED, grid(process, CORRELATED, 1)[0])
    particles = normal_particles(*start, NUM_PARTICLES)
    ends = ends_of(sampler, process, CORRELATED, particles)
    assert_normal_law(ends, *law.law(*start), unlike=(MEAN, CORRELATED))
    # Equal keys cancel the noise: what is left of a difference is the matrix, to float precision.
    shift = np.resize(some_particles(), particles.shape)
    moved = ends_of(sampler, process, CORRELATED, particles + shift) - ends
    np.testing.assert_allclose(moved, shift @ law.matrix.T, rtol=0, atol=1e-9 * np.abs(shift).max())


@pytest.mark.parametrize("process", ["VP", "VE"])
@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(("solver", "order"), [("Euler", 1), ("ShARK", 2)])
def test_law_tends_to_the_target_with_the_solvers_weak_order(solver: str, order: int, process: str, eta: float) -> None:
    last = noised_target(process, UNEQUAL)
    laws = [
        exact_law(solver, ss.ReverseSDE(n, solver=SOLVERS[solver](), eta=eta, denoise=False), process, UNEQUAL)
        for n in (400, 800)
    ]
    errors = [np.abs(covariance - last[1]).max() for _, covariance in laws]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    assert kl(*laws[1], *last) < (1e-3 if order == 1 else 1e-6)
