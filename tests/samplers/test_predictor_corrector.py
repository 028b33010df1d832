from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.samplers import _corrector, _predictor_corrector
from tests.samplers.affine_laws import (
    CORRELATED,
    COVARIANCES,
    IDENTITY,
    MEAN,
    UNEQUAL,
    Affine,
    affine,
    assert_normal_law,
    compose,
    grid,
    kl,
    langevin,
    last_move,
    noised_target,
    path_of,
    posterior_mean,
    scales,
    score,
    some_particles,
    start_law,
)


def predictor(process: str, covariance: np.ndarray, log_snr: float, next_log_snr: float, eta: float) -> Affine:
    """``y' = exp(-c h) y + (1 - exp(-c h)) D + s' sqrt(1 - exp(-2 eta^2 h)) z`` with y = x/alpha, c = 1 + eta^2."""
    h = next_log_snr - log_snr
    alpha, _ = scales(process, log_snr)
    next_alpha, next_sigma = scales(process, next_log_snr)
    kept = np.exp(-(1 + eta**2) * h)
    denoiser = posterior_mean(process, covariance, log_snr)
    return affine(
        next_alpha * (kept / alpha * IDENTITY + (1 - kept) * denoiser.matrix),
        next_alpha * (1 - kept) * denoiser.shift,
        float(next_sigma * np.sqrt(1 - np.exp(-2 * eta**2 * h))),
    )


def exact(sampler: ss.PredictorCorrector, process: str, covariance: np.ndarray) -> Affine:
    log_snr = grid(process, covariance, sampler.num_steps, sampler.delta)
    moves = []
    relative = 0.2 if sampler.corrector_step_size is None else sampler.corrector_step_size
    assert isinstance(relative, float)
    assert isinstance(sampler.corrector_steps, int)
    for here, there in pairwise(log_snr):
        moves.append(predictor(process, covariance, here, there, sampler.eta))
        variance = scales(process, there)[1] ** 2
        corrector = langevin(score(process, covariance, there), relative * variance)
        moves.extend([corrector] * sampler.corrector_steps)
    return compose(*moves, last_move(process, covariance, log_snr[-1], denoise=sampler.denoise))


def exact_law(sampler: ss.PredictorCorrector, process: str, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = start_law(process, covariance, grid(process, covariance, 1)[0])
    return exact(sampler, process, covariance).law(*start)


def coarse(eta: float, corrector_steps: int, *, denoise: bool = True) -> ss.PredictorCorrector:
    return ss.PredictorCorrector(
        num_steps=4, corrector_steps=corrector_steps, corrector_step_size=0.6, eta=eta, denoise=denoise
    )


SETTINGS = [("VP", eta, steps) for eta in (0.0, 0.5, 1.0) for steps in (1, 2)] + [("VE", 0.5, 1), ("VE", 1.0, 2)]


@pytest.mark.parametrize(("process", "eta", "corrector_steps"), SETTINGS)
def test_moves_are_the_affine_recursion_to_float_precision(
    process: str, eta: float, corrector_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.array([0.3, -1.2, 2.0])
    for module in (_predictor_corrector, _corrector):
        monkeypatch.setattr(module, "random_like", lambda _key, tree: 0 * tree + noise)
    sampler = coarse(eta, corrector_steps, denoise=corrector_steps == 1)
    law = exact(sampler, process, CORRELATED)
    with jax.enable_x64(True):
        path: Any = path_of(process, CORRELATED)
        plan = sampler.plan(path, key=jax.random.key(0))
        ends = sampler.run(path, jnp.asarray(some_particles()), plan, key=jax.random.key(0))[0]
    expected = some_particles() @ law.matrix.T + law.shift + law.response @ noise
    np.testing.assert_allclose(np.asarray(ends), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("process", "eta", "corrector_steps"), [("VE", 0.0, 1), ("VP", 0.5, 2), ("VP", 1.0, 1)])
def test_law_of_the_draws_is_that_of_the_recursion(process: str, eta: float, corrector_steps: int) -> None:
    sampler = coarse(eta, corrector_steps)
    for covariance in COVARIANCES.values():
        draws = ss.sample(path_of(process, covariance), sampler, key=jax.random.key(3), num_samples=5_000)
        law = exact_law(sampler, process, covariance)
        assert_normal_law(draws.position, *law, unlike=(MEAN, covariance))


@pytest.mark.parametrize("process", ["VP", "VE"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_law_tends_to_the_target_with_order_one(process: str, eta: float) -> None:
    """KL is the square of an error of order 1/n, where the corrector's step shrinks as 1/n too."""
    last = noised_target(process, UNEQUAL)
    errors = []
    for num_steps in (400, 800):
        sampler = ss.PredictorCorrector(num_steps, corrector_step_size=10 / num_steps, eta=eta, denoise=False)
        errors.append(kl(*exact_law(sampler, process, UNEQUAL), *last))
    assert errors[1] < 2e-5
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


def test_law_tends_to_the_target_at_the_default_corrector_step() -> None:
    last = noised_target("VP", UNEQUAL)
    samplers = [ss.PredictorCorrector(num_steps, denoise=False) for num_steps in (400, 1000, 2500)]
    errors = [kl(*exact_law(sampler, "VP", UNEQUAL), *last) for sampler in samplers]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 2e-6
