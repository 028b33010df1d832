"""Many short MALA chains: the law that they leave invariant, their step size, and the checks of their length."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.special import digamma, polygamma

import scoresample as ss
from scoresample.checks import Check, short_chain_checks
from scoresample.paths import Frame, make_frame
from scoresample.samplers._chain_memory import chain_memory
from scoresample.scores import Constrain, Position, Structure, named_sites, structure_of
from tests.conftest import Compilations
from tests.samplers.affine_laws import CORRELATED, MEAN, PROCESSES
from tests.samplers.test_correctors import quartic, quartic_moments, tempered

MEMORY = "memory of the short chains"
RATE = "acceptance rate of the short chains"
STUCK = "share of chains that stand still"
SHAPE = 3.0
"""Of the gamma variables whose logarithms are drawn: skewed to the left."""


class ScoreGiven(ss.AbstractScorePath):
    """``spread * x + condition``: x with a given score and nothing else; conditions and spreads chain by chain."""

    condition: Array
    spread: Array
    quartic: bool = eqx.field(static=True)
    structure: Structure
    frame: Frame
    constrain: Constrain

    def __init__(self, condition: Array, spread: Array | float = 1.0, *, quartic: bool = False) -> None:
        self.condition = condition
        self.spread = jnp.broadcast_to(jnp.asarray(spread, dtype=float), condition.shape[:-1])
        self.quartic = quartic
        self.structure = structure_of(jnp.zeros(condition.shape[-1]))
        self.frame = make_frame(None, None, self.structure)
        self.constrain = named_sites

    def standard_score(self, z: Position, t: Array) -> Position:
        x = (z - self.condition.astype(z.dtype)) / self.spread.astype(z.dtype)
        score = jax.grad(quartic)(x) if self.quartic else SHAPE - jnp.exp(x)
        return score / self.spread.astype(z.dtype)

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        return 3.0 * jax.random.normal(key, (num_particles, *self.structure.shape), self.structure.dtype)

    def lipschitz(self, t: Array) -> None:
        return None

    def condition_axes(self) -> Any:
        if self.condition.ndim == 1:
            return None
        nothing = jax.tree.map(lambda _: None, self)
        return eqx.tree_at(lambda s: (s.condition, s.spread), nothing, (0, 0), is_leaf=lambda leaf: leaf is None)


def draw(path: Any, num: int = 4000, *, seed: int = 0, **settings: Any) -> ss.Draws:
    batch_size = settings.pop("batch_size", None)
    sampler = ss.ParallelMALA(**settings)
    return ss.sample(
        path, sampler, key=jax.random.key(seed), num_samples=num, num_chains=1, batch_size=batch_size, progress=False
    )


def standard_errors(values: np.ndarray, expected: Any) -> np.ndarray:
    return (values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(len(values)))


def check(draws: ss.Draws, name: str) -> Check:
    return next(each for each in draws.info["checks"] if each.name == name)


def unequal(condition_number: float, dimension: int = 4) -> Any:
    variances = jnp.geomspace(1 / condition_number, 1.0, dimension)
    return ss.perturb(ss.Gaussian(jnp.ones(dimension), variances), ss.VE(0.01, 50.0))


@pytest.mark.parametrize(("process", "denoise"), [("VP", False), ("VE", True)])
def test_gaussians_have_their_exact_law(process: str, denoise: bool) -> None:
    """Noised to variance delta, ``C + delta``; denoised from there, ``C (C + delta)^-1 C``."""
    delta, num = 0.1, 4000
    draws = draw(ss.perturb(ss.Gaussian(MEAN, CORRELATED), PROCESSES[process]()), num, delta=delta, denoise=denoise)
    noised = CORRELATED + delta * np.eye(3)
    law = CORRELATED @ np.linalg.solve(noised, CORRELATED) if denoise else noised
    x = np.asarray(draws.position[0], np.float64)
    assert np.abs((x.mean(axis=0) - MEAN) / np.sqrt(np.diag(law) / num)).max() < 5
    error = np.sqrt((np.outer(np.diag(law), np.diag(law)) + law**2) / num)
    assert np.abs((np.cov(x.T) - law) / error).max() < 5
    assert draws.nfe == 201 + denoise
    assert draws.info["num_evaluations"] == num * draws.nfe
    assert all(each.passed for each in draws.info["checks"])
    assert {each.name for each in draws.info["checks"]} == {MEMORY, RATE, STUCK}


def test_a_skewed_density_has_its_moments() -> None:
    """On a tempered path, at t=0; the logarithm of a gamma variable."""
    draws = draw(tempered(lambda x: jnp.sum(SHAPE * x - jnp.exp(x)), 3))
    x = np.asarray(draws.position[0], np.float64)
    assert np.abs(standard_errors(x, digamma(SHAPE))).max() < 5
    assert np.abs(standard_errors((x - digamma(SHAPE)) ** 2, polygamma(1, SHAPE))).max() < 5
    assert np.abs(standard_errors((x - digamma(SHAPE)) ** 3, polygamma(2, SHAPE))).max() < 5
    assert draws.nfe == 201
    assert all(each.passed for each in draws.info["checks"])


def test_a_bare_quartic_score_has_its_moments() -> None:
    draws = draw(ScoreGiven(jnp.zeros(2), quartic=True), 5000)
    means, squares = quartic_moments()
    x = np.asarray(draws.position[0], np.float64)
    assert np.abs(standard_errors(x, means)).max() < 5
    assert np.abs(standard_errors(x**2, squares)).max() < 5
    assert draws.nfe == 401
    assert all(each.passed for each in draws.info["checks"])


def test_every_chain_has_the_law_of_its_own_condition() -> None:
    """Chains of different laws are no chains that remember, though their positions correlate."""
    num = 4000
    condition = 5.0 * jax.random.normal(jax.random.key(8), (num, 2))
    draws = draw(ScoreGiven(condition), num)
    residual = np.asarray(draws.position[0], np.float64) - np.asarray(condition, np.float64)
    assert np.abs(standard_errors(residual, digamma(SHAPE))).max() < 5
    assert np.abs(standard_errors((residual - digamma(SHAPE)) ** 2, polygamma(1, SHAPE))).max() < 5
    centred = residual - residual.mean(axis=0)
    assert np.abs(standard_errors(centred * np.asarray(condition), np.zeros(2))).max() < 5
    assert all(each.passed for each in draws.info["checks"])
    assert draws.info["autocorrelation"] < 0.1


def test_smoothed_points_given_their_labels() -> None:
    labels = np.repeat([0, 1, 2], 40)
    centres = np.array([[0.0, 0.0], [4.0, -3.0], [-5.0, 6.0]])[labels]
    points = centres + np.asarray(ss.Gaussian(jnp.zeros(2), 0.5).sample(jax.random.key(5), 120))
    path = ss.perturb(points, ss.VE(0.01, 50.0), conditions=labels, bandwidth=0.5)
    wanted = np.arange(600) % 3
    draws = draw(path.given(wanted), 600, denoise=False, delta=0.05, num_steps=80, batch_size=200)
    x = np.asarray(draws.position[0], np.float64)
    for label in range(3):
        own = points[labels == label]
        assert np.abs(standard_errors(x[wanted == label], own.mean(axis=0))).max() < 5
        second = own.var(axis=0) + 0.25 + 0.05
        assert np.abs(standard_errors((x[wanted == label] - own.mean(axis=0)) ** 2, second)).max() < 5
    assert draws.info["autocorrelation_bound"].shape == (3,)
    assert all(each.passed for each in draws.info["checks"])


@pytest.mark.parametrize(("dimension", "step_size"), [(2, 1e-6), (32, None), (32, 1e3)])
def test_the_step_is_tuned_from_anywhere(dimension: int, step_size: float | None) -> None:
    info = draw(unequal(5.0, dimension), 500, step_size=step_size).info
    assert info["frozen_acceptance_rate"] == pytest.approx(0.574, abs=0.03)
    frozen = info["level_step_size"][0, 100:]
    assert (frozen == frozen[0]).all()


def test_the_acceptance_rate_is_that_of_blackjax_at_the_same_step() -> None:
    """In equilibrium, judged by the density and by the score alone."""
    target = ss.DensityScore(lambda x: jnp.sum(SHAPE * x - jnp.exp(x)), structure=jnp.zeros(2))
    step, num = 0.5, 500
    gammas = np.random.default_rng(0).gamma(SHAPE, size=(num, 2))
    chains = ss.sample(
        target,
        ss.MALA(step_size=step),
        key=jax.random.key(2),
        num_samples=20,
        num_chains=num,
        num_warmup=0,
        initial_position=jnp.asarray(np.log(gammas), dtype=float),
    )
    rates = np.asarray(chains.stats["acceptance_rate"], np.float64).mean(axis=1)
    error = np.sqrt(2) * rates.std() / np.sqrt(num)
    for path in (tempered(lambda x: jnp.sum(SHAPE * x - jnp.exp(x)), 2), ScoreGiven(jnp.zeros(2))):
        sampler = ss.ParallelMALA(num_steps=20, num_warmup=0, step_size=step)
        plan = sampler.plan(path, key=jax.random.key(0))
        start = jnp.asarray(np.log(gammas), dtype=float)
        _, _, info = eqx.filter_jit(sampler.run)(path, start, plan, key=jax.random.key(3))
        assert abs(float(info.stats["frozen_acceptance_rate"]) - rates.mean()) < 5 * error
    assert 0.3 < rates.mean() < 0.9
    assert error < 0.015


# The checks


@pytest.mark.parametrize(("condition_number", "passed"), [(5.0, True), (1e4, False)])
def test_chains_that_are_too_short_are_flagged(condition_number: float, passed: bool) -> None:
    """They start from the right law, so no summary of the draws could tell."""
    found = check(draw(unequal(condition_number), 1000, num_steps=100), MEMORY)
    assert found.passed == passed
    assert passed or (found.severity == "fail" and "num_steps" in found.remedy)


def test_chains_with_conditions_that_are_too_short_are_flagged() -> None:
    """The starts are far from some of the laws; more moves cure it."""
    condition = 5.0 * jax.random.normal(jax.random.key(8), (1000, 2))
    slow: dict[str, Any] = {"num_warmup": 0, "step_size": 0.005}
    for settings, passed in ((slow, False), ({}, True)):
        assert check(draw(ScoreGiven(condition), 1000, num_steps=100, **settings), MEMORY).passed == passed


def test_modes_that_no_chain_leaves_are_flagged() -> None:
    modes = ss.GaussianMixture([0.2, 0.8], jnp.array([[-6.0], [6.0]]), jnp.ones((2, 1, 1)))
    found = check(draw(ss.perturb(modes, ss.VE(0.01, 50.0)), 1000), MEMORY)
    assert not found.passed
    assert found.severity == "fail"


@pytest.mark.parametrize(("step_size", "words"), [(30.0, "rejected"), (1e-4, "accepted")])
def test_steps_that_do_not_fit_are_flagged(step_size: float, words: str) -> None:
    draws = draw(unequal(2.0), 500, num_steps=60, num_warmup=0, step_size=step_size)
    found = check(draws, RATE)
    assert not found.passed
    assert words in found.cause
    assert not check(draws, MEMORY).passed


def test_chains_that_stand_still_among_others_that_move_are_flagged() -> None:
    """One in twenty has a law two hundred times narrower."""
    spread = jnp.where(jnp.arange(1000) % 20 == 0, 0.005, 1.0)
    draws = draw(ScoreGiven(jnp.zeros((1000, 2)), spread), 1000)
    assert draws.info["stuck_share"] == pytest.approx(0.05, abs=0.005)
    assert check(draws, STUCK).severity == "warn"
    assert not check(draws, STUCK).passed


@pytest.mark.parametrize("same_law", [True, False])
def test_the_memory_of_chains_is_measured_and_seldom_imagined(same_law: bool) -> None:
    """Autoregressive chains, of unequal scales and, unless their law is the same, means of their own."""
    num, dimension, repeats = 500, 8, 60
    scales = jnp.exp(jax.random.normal(jax.random.key(3), (dimension,)))

    def one(key: Array, memory: Array) -> Any:
        rho = jnp.zeros(dimension).at[2].set(memory)
        noise = jax.random.normal(key, (4, num, dimension))
        first = noise[0]
        second = rho * first + jnp.sqrt(1 - rho**2) * noise[1]
        third = rho * second + jnp.sqrt(1 - rho**2) * noise[2]
        own = 0.0 if same_law else 30.0 * noise[3]
        return chain_memory(
            (scales * first + own, scales * second + own, scales * third + own),
            same_law=same_law,
            key=jax.random.fold_in(key, 1),
        )

    measure = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0), repeats)
    none = measure(keys, jnp.zeros(repeats))
    assert float(jnp.mean(none.bound > 0)) <= 0.02
    assert not bool(jnp.any(none.bound > 0.2))
    much = measure(keys, jnp.full(repeats, 0.8))
    assert float(jnp.mean(much.bound > 0.2)) > 0.95
    error = 1.5 / np.sqrt(num)
    assert np.abs(np.asarray(much.autocorrelation) - 0.8).max() < 5 * error


def test_too_few_chains_say_nothing_and_chains_at_rest_everything() -> None:
    few = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2)), dtype=float)
    assert np.isnan(float(chain_memory((few[0], few[1], few[2]), same_law=True, key=jax.random.key(0)).bound))
    untold = check(draw(tempered(quartic, 1), 5, num_steps=10), MEMORY)
    assert not untold.passed
    assert untold.severity == "warn"
    assert "fewer than eight chains" in untold.cause
    # A last batch of few chains says nothing; the others do.
    rest = {name: np.array([0.5, 0.5]) for name in ("frozen_acceptance_rate", "stuck_share")}
    one = short_chain_checks({"autocorrelation_bound": np.array([0.4, np.nan]), **rest})[0]
    assert (one.passed, one.value) == (False, 0.4)
    still = jnp.ones((20, 2))
    assert float(chain_memory((still, still, still), same_law=False, key=jax.random.key(0)).bound) == 1.0


# The rest


def test_starts_and_moves_that_are_not_finite_stand_still() -> None:
    draws = draw(tempered(lambda x: jnp.sum(jnp.sqrt(1.0 - x) - 0.5 * x**2), 1), 500)
    outside = float(draws.info["stuck_share"][0])
    assert 0.05 < outside < 0.3
    assert np.isfinite(draws.position).all()
    assert not check(draws, STUCK).passed


def test_chains_that_start_where_the_density_is_zero_come_in() -> None:
    half = tempered(lambda x: jnp.sum(jnp.where(x > 0, -0.5 * x**2, -jnp.inf)), 1)
    draws = draw(half, 1000)
    found = np.asarray(draws.position).ravel()
    # Half of them start outside; a few of these are too far out to propose a point inside, and counted as stuck.
    outside = float(np.mean(found < 0))
    assert outside < 0.02
    assert float(draws.info["stuck_share"][0]) >= outside - 1e-6
    assert abs(found[found > 0].mean() - np.sqrt(2 / np.pi)) < 4 * np.sqrt((1 - 2 / np.pi) / 1000)


def test_a_score_that_is_nowhere_finite_is_never_accepted() -> None:
    draws = draw(tempered(lambda x: jnp.sum(jnp.log(-1.0 - x**2)), 1), 50, num_steps=10)
    assert draws.info["frozen_acceptance_rate"] == 0
    assert np.isfinite(draws.info["level_step_size"]).all()
    assert {each.name for each in draws.info["checks"] if not each.passed} == {MEMORY, RATE, STUCK}


def test_score_evaluations_are_counted() -> None:
    calls: list[float] = []

    def counted(z: Array, t: Array) -> Array:
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return -2 * z

    path = ss.PerturbedScore(counted, ss.VP(), structure=jnp.zeros(2))
    draws = draw(path, 1, num_steps=5)
    jax.effects_barrier()
    assert draws.nfe == draws.info["num_evaluations"] == len(calls) == 12


def test_a_run_with_a_progress_bar_is_the_same(compilations: Compilations) -> None:
    path = unequal(5.0)
    settings: dict[str, Any] = {"key": jax.random.key(0), "num_samples": 20, "num_chains": 1}
    plain = ss.sample(path, ss.ParallelMALA(num_steps=20), progress=False, **settings)
    chunked = ss.sample(path, ss.ParallelMALA(num_steps=20), progress=True, **settings)
    np.testing.assert_allclose(chunked.position, plain.position, rtol=1e-5)
    for name in ("autocorrelation", "autocorrelation_bound", "frozen_acceptance_rate", "stuck_share"):
        np.testing.assert_allclose(chunked.info[name], plain.info[name], rtol=1e-4, atol=1e-5)
    with compilations.none_expected():
        ss.sample(unequal(3.0), ss.ParallelMALA(num_steps=20), progress=False, **settings)


def test_more_steps() -> None:
    assert ss.ParallelMALA(num_steps=10).refined(3) == ss.ParallelMALA(num_steps=30)
    assert ss.ParallelMALA(10, 4).refined(3) == ss.ParallelMALA(30, 12)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`num_warmup` must leave two or more of the 10 `num_steps`.*got 9"):
        ss.ParallelMALA(10, 9)
    with pytest.raises(ValueError, match=r"`num_warmup` is 0, so there must be a `step_size`"):
        ss.ParallelMALA(10, 0)
    with pytest.raises(ValueError, match=r"`num_steps` must be .* at least 2"):
        ss.ParallelMALA(1)
    with pytest.raises(ValueError, match=r"`step_size` must be positive"):
        ss.ParallelMALA(step_size=-1.0)
    with pytest.raises(ValueError, match=r"`delta`: a TemperedPath has no noise to stop at"):
        draw(tempered(lambda x: -jnp.sum(x**2), 1), 4, delta=0.1)


@pytest.mark.usefixtures("unchecked_types")
def test_a_density_is_no_path() -> None:
    with pytest.raises(TypeError, match=r"`target`: ParallelMALA needs a path"):
        draw(ss.Gaussian(jnp.zeros(1), 1.0), 4)
