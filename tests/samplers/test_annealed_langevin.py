from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.samplers import _corrector
from tests.samplers.affine_laws import (
    CORRELATED,
    COVARIANCES,
    IDENTITY,
    MEAN,
    UNEQUAL,
    Affine,
    Linear,
    affine,
    assert_normal_law,
    compose,
    grid,
    kl,
    langevin,
    last_move,
    noised_target,
    path_of,
    scales,
    score,
    some_particles,
    start_law,
)

REFERENCE_MEAN = np.array([0.0, 1.0, -1.0])
REFERENCE_VARIANCES = np.array([4.0, 9.0, 3.0])
SCALE = np.array([0.5, 1.0, 2.0])
"""The frame of the tempered path: position = SCALE z."""


def exact(sampler: ss.AnnealedLangevin, process: str, covariance: np.ndarray) -> Affine:
    """At every level: to the level's alpha, then Langevin steps with ``h = step_size sigma^2``."""
    log_snr = grid(process, covariance, sampler.num_levels - 1, sampler.delta)
    moves, before = [], None
    assert isinstance(sampler.step_size, float)
    assert isinstance(sampler.steps_per_level, int)
    for level in log_snr:
        alpha, sigma = scales(process, level)
        moves.append(affine(IDENTITY * (1 if before is None else alpha / before), np.zeros(3)))
        moves.extend(
            [langevin(score(process, covariance, level), sampler.step_size * sigma**2)] * sampler.steps_per_level
        )
        before = alpha
    return compose(*moves, last_move(process, covariance, log_snr[-1], denoise=sampler.denoise))


def exact_law(sampler: ss.AnnealedLangevin, process: str, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return exact(sampler, process, covariance).law(*start_law(process, covariance, grid(process, covariance, 1)[0]))


def tempered_score(covariance: np.ndarray, t: float) -> Linear:
    """The score of ``reference^t target^(1-t)`` in the coordinates z = x/SCALE."""
    reference, target = np.diag(1 / REFERENCE_VARIANCES), np.linalg.inv(covariance)
    scaling = np.diag(SCALE)
    return Linear(
        -scaling @ (t * reference + (1 - t) * target) @ scaling,
        scaling @ (t * reference @ REFERENCE_MEAN + (1 - t) * target @ MEAN),
    )


def tempered_times(num_levels: int) -> np.ndarray:
    return 1 - (np.arange(1, num_levels + 1) / num_levels) ** 3


def exact_tempered(sampler: ss.AnnealedLangevin, covariance: np.ndarray) -> Affine:
    """Langevin steps with ``h = step_size / L_t``; L_t mixes the ends' constants, seen in the frame."""
    lipschitz_target = 1 / np.linalg.eigvalsh(covariance)[0]
    moves = []
    assert isinstance(sampler.step_size, float)
    assert isinstance(sampler.steps_per_level, int)
    for t in tempered_times(sampler.num_levels):
        lipschitz = SCALE.max() ** 2 * (t / REFERENCE_VARIANCES.min() + (1 - t) * lipschitz_target)
        moves.extend([langevin(tempered_score(covariance, t), sampler.step_size / lipschitz)] * sampler.steps_per_level)
    return compose(*moves)


def tempered_path(covariance: np.ndarray, *, known: bool = True) -> ss.TemperedPath:
    lipschitz = float(1 / np.linalg.eigvalsh(covariance)[0]) if known else None
    reference = ss.Gaussian(REFERENCE_MEAN, REFERENCE_VARIANCES)
    return ss.TemperedPath(reference, ss.Gaussian(MEAN, covariance), lipschitz=lipschitz, scale=jnp.asarray(SCALE))


def fixed_noise(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Replace every standard normal vector by one and the same."""
    noise = np.array([0.3, -1.2, 2.0])
    monkeypatch.setattr(_corrector, "random_like", lambda _key, tree: 0 * tree + noise)
    return noise


@pytest.mark.parametrize(("process", "denoise"), [("VP", False), ("VE", True)])
def test_moves_are_the_affine_recursion_to_float_precision(
    process: str, denoise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = fixed_noise(monkeypatch)
    sampler = ss.AnnealedLangevin(num_levels=4, steps_per_level=3, step_size=0.7, denoise=denoise)
    law = exact(sampler, process, CORRELATED)
    with jax.enable_x64(True):
        path: Any = path_of(process, CORRELATED)
        plan = sampler.plan(path, key=jax.random.key(0))
        ends = sampler.run(path, jnp.asarray(some_particles()), plan, key=jax.random.key(0))[0]
    expected = some_particles() @ law.matrix.T + law.shift + law.response @ noise
    np.testing.assert_allclose(np.asarray(ends), expected, rtol=1e-9, atol=1e-9)


def test_moves_on_a_tempered_path_are_the_affine_recursion_to_float_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = fixed_noise(monkeypatch)
    sampler = ss.AnnealedLangevin(num_levels=4, steps_per_level=3, step_size=0.7, ladder="power")
    law = exact_tempered(sampler, CORRELATED)
    with jax.enable_x64(True):
        path = tempered_path(CORRELATED)
        plan = sampler.plan(path, key=jax.random.key(0))
        ends = sampler.run(path, jnp.asarray(some_particles()), plan, key=jax.random.key(0))[0]
    expected = some_particles() @ law.matrix.T + law.shift + law.response @ noise
    np.testing.assert_allclose(np.asarray(ends), expected, rtol=1e-9, atol=1e-9)


def test_law_of_the_draws_is_that_of_the_recursion() -> None:
    sampler = ss.AnnealedLangevin(num_levels=6, steps_per_level=3, step_size=0.7)
    for covariance in COVARIANCES.values():
        draws = ss.sample(path_of("VP", covariance), sampler, key=jax.random.key(4), num_samples=5_000)
        assert_normal_law(draws.position, *exact_law(sampler, "VP", covariance), unlike=(MEAN, covariance))


def test_law_of_the_draws_of_a_tempered_path_is_that_of_the_recursion() -> None:
    sampler = ss.AnnealedLangevin(num_levels=6, steps_per_level=3, step_size=0.7, ladder="power")
    for covariance in COVARIANCES.values():
        draws = ss.sample(tempered_path(covariance), sampler, key=jax.random.key(4), num_samples=5_000)
        start = REFERENCE_MEAN / SCALE, np.diag(REFERENCE_VARIANCES / SCALE**2)
        mean, spread = exact_tempered(sampler, covariance).law(*start)
        scaling = np.diag(SCALE)
        assert_normal_law(draws.position, scaling @ mean, scaling @ spread @ scaling, unlike=(MEAN, covariance))


def test_unknown_lipschitz_constants_are_estimated() -> None:
    sampler = ss.AnnealedLangevin(num_levels=6, steps_per_level=1, step_size=0.5, ladder="power")
    draws = ss.sample(tempered_path(CORRELATED, known=False), sampler, key=jax.random.key(4), num_samples=16)
    largest = [-np.linalg.eigvalsh(tempered_score(CORRELATED, t).matrix)[0] for t in tempered_times(6)]
    np.testing.assert_allclose(draws.info["level_step_size"][0], 0.5 / np.array(largest), rtol=0.02)


@pytest.mark.parametrize(("kind", "step_size"), [("noised", 0.7), ("tempered", 0.2)])
def test_default_step_follows_from_the_kind_of_path(kind: str, step_size: float) -> None:
    path = path_of("VP", UNEQUAL) if kind == "noised" else tempered_path(UNEQUAL)
    settings: dict[str, Any] = {"key": jax.random.key(0), "num_samples": 4}
    default = ss.sample(path, ss.AnnealedLangevin(5, 2), **settings)
    named = ss.sample(path, ss.AnnealedLangevin(5, 2, step_size=step_size), **settings)
    np.testing.assert_array_equal(default.position, named.position)


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_default_settings_leave_draws_too_wide_by_under_two_percent(process: str) -> None:
    _, spread = exact_law(ss.AnnealedLangevin(step_size=0.7), process, UNEQUAL)
    ratio = np.sqrt(np.diag(spread) / np.diag(UNEQUAL))
    assert (1.0 < ratio).all()
    assert (ratio < 1.02).all(), ratio


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_law_tends_to_the_target_with_more_levels_and_steps(process: str) -> None:
    last = noised_target(process, UNEQUAL)
    samplers = [ss.AnnealedLangevin(n, n // 4, step_size=0.4, denoise=False) for n in (20, 80, 320)]
    errors = [kl(*exact_law(sampler, process, UNEQUAL), *last) for sampler in samplers]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5


def test_law_on_a_tempered_path_tends_to_that_of_langevin_on_the_target() -> None:
    """The last level is the target: what is left is the known bias ``v / (1 - h / (2 v))`` there."""
    sampler = ss.AnnealedLangevin(num_levels=100, steps_per_level=100, step_size=0.5)
    start = REFERENCE_MEAN / SCALE, np.diag(REFERENCE_VARIANCES / SCALE**2)
    mean, spread = exact_tempered(sampler, CORRELATED).law(*start)
    step = 0.5 * np.linalg.eigvalsh(CORRELATED)[0] / SCALE.max() ** 2
    in_frame = CORRELATED / np.outer(SCALE, SCALE)
    variances, axes = np.linalg.eigh(in_frame)
    biased = axes * (variances / (1 - step / (2 * variances))) @ axes.T
    to_biased, to_target = (kl(mean, spread, MEAN / SCALE, law) for law in (biased, in_frame))
    assert to_biased < 1e-3 < to_target, (to_biased, to_target)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_tempered_path_mixes_the_ends_whatever_its_frame(t: float) -> None:
    path = tempered_path(CORRELATED)
    position = jnp.array([0.5, -1.0, 2.0])
    ends = ss.Gaussian(REFERENCE_MEAN, REFERENCE_VARIANCES), ss.Gaussian(MEAN, CORRELATED)
    parts = [end.value_and_score(position) for end in ends]
    np.testing.assert_allclose(path.logdensity(position, t), t * parts[0][0] + (1 - t) * parts[1][0], rtol=1e-5)
    np.testing.assert_allclose(path(position, t), t * parts[0][1] + (1 - t) * parts[1][1], rtol=1e-5, atol=1e-6)
    in_frame = jax.grad(lambda z: path.standard_logdensity(z, jnp.asarray(t)))(position / SCALE)
    np.testing.assert_allclose(path.standard_score(position / SCALE, jnp.asarray(t)), in_frame, rtol=1e-4, atol=1e-5)
    density = path.logdensity(position, t) + np.log(SCALE).sum()
    np.testing.assert_allclose(path.standard_logdensity(position / SCALE, jnp.asarray(t)), density, rtol=1e-5)
