"""The bounds behind a plan against exact values, and plans against the laws of the draws they promise."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest

import scoresample as ss
from scoresample.workflows._plan_bounds import (
    adapted_noise,
    discretisation_bound,
    fewest_steps,
    langevin_plan,
    largest_mmse,
    score_bound,
    start_bound,
)

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def two_points(noise: np.ndarray) -> np.ndarray:
    """The mean squared error of the best denoiser of +-1 with equal weights: ``1 - E tanh(y/s^2)^2``, y = 1 + s e."""
    e = np.linspace(-10, 10, 4001)
    density = np.exp(-(e**2) / 2)
    density /= density.sum()
    s = np.asarray(noise)[..., None]
    return np.sum(density / np.cosh(np.clip((1 + s * e) / s**2, -300, 300)) ** 2, axis=-1)


LAWS: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
    "normal": (np.array([1.0]), lambda s: s**2 / (1 + s**2)),
    "three unlike coordinates": (np.array([0.01, 1.0, 9.0]), lambda s: largest_mmse(np.array([0.01, 1.0, 9.0]), s)),
    "nearly a point": (np.array([1e-6]), lambda s: 1e-6 * s**2 / (1e-6 + s**2)),
    "two points": (np.array([1.0]), two_points),
}
LADDERS = {
    "adapted": lambda v, n: adapted_noise(v, 30.0, 0.02, n),
    "geometric": lambda v, n: np.geomspace(30.0, 0.02, n + 1),
    "uniform": lambda v, n: np.linspace(30.0, 0.02, n + 1),
    "irregular": lambda v, n: np.sort(np.r_[30.0, 0.02, np.exp(np.random.default_rng(n).uniform(-3.9, 3.4, n - 1))])[
        ::-1
    ],
}


def path_kl(mmse: Callable[[np.ndarray], np.ndarray], noise: np.ndarray) -> float:
    """``sum_k integral e^(2 lambda) [m_k - m(lambda)] dlambda``, by quadrature."""
    before, after = np.log(noise[:-1]), np.log(noise[1:])
    log_s = before[:, None] + (after - before)[:, None] * (NODES + 1) / 2
    integrand = np.exp(-2 * log_s) * (mmse(noise[:-1])[:, None] - mmse(np.exp(log_s).ravel()).reshape(log_s.shape))
    return float(np.sum((before - after) / 2 * (integrand @ WEIGHTS)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("ladder", LADDERS)
def test_discretisation_bound_holds_for_any_law(law: str, ladder: str) -> None:
    variances, mmse = LAWS[law]
    for num_steps in (3, 30, 300):
        noise = LADDERS[ladder](variances, num_steps)
        exact, bound = path_kl(mmse, noise), discretisation_bound(variances, noise)
        assert 0 <= exact <= bound, (num_steps, exact, bound)
    if law == "normal" and ladder != "uniform":
        assert bound < 4 * exact


def test_bound_on_the_adapted_ladder_is_nearly_linear_in_the_dimension() -> None:
    """``d l (l + 1)/(2 N)``, l = log(1 + v/delta), of which a normal law shows nearly half."""
    for dimension, variance in ((1, 1.0), (50, 4.0)):
        variances = np.full(dimension, variance)
        noise = adapted_noise(variances, 2000.0, 0.01, 20_000)
        length = np.log(1 + variance / 1e-4)
        expected = dimension * length * (length + 1) / (2 * 20_000)
        assert discretisation_bound(variances, noise) == pytest.approx(expected, rel=0.01)
        normal = path_kl(lambda s, v=variances: largest_mmse(v, s), noise)
        assert normal == pytest.approx(dimension * length**2 / (4 * 20_000), rel=0.02)


def test_adapted_ladder_is_the_best_of_its_kind() -> None:
    variances = np.array([0.01, 1.0, 1.0, 9.0])
    adapted = discretisation_bound(variances, adapted_noise(variances, 50.0, 0.005, 2000))
    for other in (np.geomspace(50.0, 0.005, 2001), adapted_noise(np.ones(1), 50.0, 0.005, 2000)):
        assert adapted < discretisation_bound(variances, other)


@pytest.mark.parametrize("noise", [0.5, 3.0, 20.0])
def test_start_bound_is_above_the_divergence(noise: float) -> None:
    """The two-point law noised, against the normal law with its moments; and unlike normal coordinates: zero."""
    y = np.linspace(-1 - 12 * noise, 1 + 12 * noise, 20_001)
    density = sum(np.exp(-((y - c) ** 2) / (2 * noise**2)) for c in (-1, 1)) / (2 * noise * np.sqrt(2 * np.pi))
    reference = np.exp(-(y**2) / (2 * (1 + noise**2))) / np.sqrt(2 * np.pi * (1 + noise**2))
    kl = np.sum(density * np.log(density / reference)) * (y[1] - y[0])
    assert 0 < kl <= start_bound(np.ones(1), noise)
    assert start_bound(np.ones(1), 100.0) == pytest.approx(0.5e-4, rel=1e-3)


def test_score_bound_is_the_error_of_a_score_that_is_off_by_a_constant() -> None:
    """D off by s b at every level: ``E|dD|^2 = s^2 b^2``, weighted by the integral of e^(2 lambda)."""
    noise, b = np.geomspace(10.0, 0.1, 8), 0.3
    expected = sum((1 / y**2 - 1 / x**2) / 2 * (x * b) ** 2 for x, y in pairwise(noise))
    assert score_bound(b**2, 1, noise) == pytest.approx(expected)


def frozen_denoiser_kl(variances: np.ndarray, noise: np.ndarray, start: np.ndarray) -> float:
    """KL(data noised to the last level || law of DDPM) on normal coordinates, from start variances."""
    law = start
    for s, after in pairwise(noise):
        kept = (after / s) ** 2
        gain = variances / (variances + s**2)
        law = (kept + (1 - kept) * gain) ** 2 * law + after**2 * (1 - kept)
    ratio = (variances + noise[-1] ** 2) / law
    return float(np.sum(ratio - 1 - np.log(ratio)) / 2)


@pytest.mark.parametrize("grid", ["adapted", "exponential", "log-snr"])
def test_plans_keep_what_they_promise(grid: Any) -> None:
    scales = [0.3, 1.0, 2.0]
    plan = ss.plan((3, scales), error=0.2, delta=1e-3, grid=grid)
    variances = np.array(scales) ** 2
    assert plan.total <= 0.2
    assert plan.noise[-1] == pytest.approx(np.sqrt(1e-3))
    assert frozen_denoiser_kl(variances, plan.noise, variances + plan.noise[0] ** 2) < 0.2
    assert plan.steps_by_grid.keys() == {"adapted", "exponential", "log-snr"} - {grid}
    assert ss.plan((3, scales), error=0.05, delta=1e-3, grid=grid).num_steps > 2 * plan.num_steps


def test_the_sampler_of_a_plan_stays_within_its_bound() -> None:
    """By the budget, measured on data of a mixture."""
    density = ss.GaussianMixture(jnp.array([0.3, 0.7]), jnp.array([[-1.0], [1.0]]), jnp.full((2, 1, 1), 0.05))
    path = ss.perturb(density, ss.VE(0.002, 80.0))
    plan = ss.plan(path, error=0.5, delta=0.05)
    sampler = plan.sampler(path)
    budget = ss.sampling_budget(path, sampler, density.sample(jax.random.key(0), 512), key=jax.random.key(1))
    assert budget.num_steps == plan.num_steps
    assert budget.total + 3 * budget.total_se < plan.total
    draws = ss.sample(path, sampler, key=jax.random.key(2), num_samples=500)
    assert draws.nfe == plan.num_steps


def test_score_error_is_in_the_plan() -> None:
    exact, wrong = (ss.plan((4, 1.0), error=0.5, score_error=e) for e in (0.0, 0.01))
    assert exact.score == 0
    assert wrong.score == pytest.approx(4 * 0.01 * np.log(wrong.noise[0] / wrong.noise[-1]), rel=0.3)
    assert wrong.num_steps > exact.num_steps
    with pytest.raises(ValueError, match=r"`score_error`: 1 a coordinate adds about"):
        ss.plan((4, 1.0), error=0.5, score_error=1.0)


def ula_kl(plan: Any, variance: float, dimension: int) -> float:
    """KL(law of annealed Langevin || last level) on normal coordinates: every level's affine recursion, exactly."""
    law = level = variance + 20.0**2  # the start
    for noise, steps, relative in zip(plan.noise, plan.steps, plan.step_size, strict=True):
        level = variance + noise**2
        h = relative * level  # curvature 1/level
        fixed = level / (1 - h / (2 * level))
        law = fixed + (1 - h / level) ** (2 * steps) * (law - fixed)
    ratio = law / level
    return float(dimension * (ratio - 1 - np.log(ratio)) / 2)


@pytest.mark.parametrize("error", [0.5, 0.05])
def test_langevin_plans_end_within_their_error(error: float) -> None:
    plan = langevin_plan(np.ones(3), 1.0, error, 20.0, 0.3, lambda noise: 1 / (1 + noise**2))
    assert ula_kl(plan, 1.0, 3) < error
    assert (plan.steps >= 1).all()
    assert (langevin_plan(np.ones(3), 1.0, 8.0, 20.0, 0.3, lambda noise: 1 / (1 + noise**2)).steps >= 1).all()
    rough = langevin_plan(np.ones(3), 1.0, error, 20.0, 0.3, lambda noise: 1 / noise**2)
    assert rough.steps.sum() > plan.steps.sum()


def test_langevin_needs_more_steps_where_the_log_sobolev_constant_is_larger() -> None:
    plans = [ss.plan((2, 1.0), error=0.1, log_sobolev=c, lipschitz=1.0) for c in (1.0, 10.0, 100.0)]
    steps = [float(plan.langevin.steps.sum()) for plan in plans if plan.langevin is not None]
    assert steps[0] < steps[1] < steps[2]
    assert len({plan.num_steps for plan in plans}) == 1
    assert isinstance(plans[0].figure(), matplotlib.figure.Figure)
    assert "Annealed Langevin with log-Sobolev constant 10:" in str(plans[1])


def test_fewest_steps_are_found_within_half_a_percent() -> None:
    for needed in (1, 7, 513, 40_000):
        found = fewest_steps(lambda n, m=needed: m / n, 1.0, 10**6)
        assert found is not None
        assert needed <= found <= needed * 1.006 + 1
    assert fewest_steps(lambda n: 1e9 / n, 1.0, 1000) is None


def test_text_spells_the_terms_out() -> None:
    text = str(ss.plan((2, 1.0), error=0.1, grid="exponential"))
    for part in ("start", "discretisation", "score error", "total", "kappa^2 d N + kappa d T", "d exp(-2T)"):
        assert part in text
    assert list(ss.plan((2, 1.0)).table.index) == ["start", "discretisation", "score error", "total"]


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ((0, 1.0), {}, "a dimension of at least 1"),
        ((2, [1.0, 2.0, 3.0]), {}, "`target`: the scale must be one positive number or 2 of them"),
        ((2, -1.0), {}, "`target`: the scale must be one positive number"),
        ((2, 1.0), {"error": 0.0}, "`error` must be positive and finite"),
        ((2, 1.0), {"delta": -1.0}, "`delta` must be positive and finite"),
        ((2, 1.0), {"score_error": -1.0}, "`score_error` must be at least 0"),
        ((2, 1.0), {"log_sobolev": float("nan")}, "`log_sobolev` must be positive and finite"),
        ((2, 2.0), {"log_sobolev": 3.9}, "`log_sobolev`: no log-Sobolev constant is below the largest variance, 4"),
        ((2, 1.0), {"grid": "karras"}, "`grid` must be one of"),
        ((2, 1.0), {"error": 1e-12}, "would take more than 1,000,000 steps"),
    ],
)
def test_doors(target: Any, settings: dict[str, Any], message: str, unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=message):
        ss.plan(target, **settings)


def test_paths_that_are_too_short_are_refused(unchecked_types: None) -> None:
    path = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VE(0.01, 2.0))
    with pytest.raises(ValueError, match=r"the path starts at sigma/alpha = 2, which alone leaves"):
        ss.plan(path, error=0.01)
    with pytest.raises(ValueError, match=r"`delta`: the path ends at sigma/alpha = 0.03"):
        ss.plan(path, error=1.0, delta=1e-6)
    plan = ss.plan((2, 1.0), error=0.1)
    with pytest.raises(ValueError, match=r"`path` is valid for sigma/alpha from 0.03 to 2, but the plan goes"):
        plan.sampler(path)
    with pytest.raises(ValueError, match="`path` has 1 coordinates, but the plan was made for 2"):
        plan.sampler(ss.perturb(ss.Gaussian(jnp.zeros(1), 1.0), ss.VE(0.01, 2.0)))
    with pytest.raises(ValueError, match="`path`: its data have up to 9 times the variance"):
        plan.sampler(ss.perturb(ss.Gaussian(jnp.zeros(2), 9.0), ss.VE(0.01, 80.0)))
    with pytest.raises(TypeError, match="`target` must be a perturbed score"):
        ss.plan(ss.Gaussian(jnp.zeros(2), 1.0))  # pyright: ignore[reportArgumentType]
