"""Samplers inside BlackJAX's loops: their laws, their statistics, and what is refused."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.util import run_inference_algorithm
from jax.scipy.special import digamma
from jaxtyping import Array
from numpyro.diagnostics import effective_sample_size
from scipy.special import polygamma

import scoresample as ss
from scoresample.interop import as_blackjax, tuned

SHAPE, RATE = 2.5, 3.0
MEAN = np.array([1.0, -2.0])
COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])


def log_gamma(u: Array) -> Array:
    """The log density of the logarithm of a gamma variable: skewed, with a known mean and variance."""
    return SHAPE * u.sum() - RATE * jnp.exp(u).sum()


def skewed(num: int) -> ss.DensityScore:
    return ss.DensityScore(
        log_gamma, structure=jnp.zeros(num), init_position=lambda key: jax.random.normal(key, (num,))
    )


def z_of_mean(chains: np.ndarray, want: float) -> float:
    """How many standard errors the mean of (chain, draw) values is off."""
    chains = np.asarray(chains, np.float64)
    return float((chains.mean() - want) / (chains.std() / np.sqrt(effective_sample_size(chains))))


def assert_log_gamma(chains: np.ndarray) -> None:
    mean, variance = float(digamma(SHAPE) - np.log(RATE)), float(polygamma(1, SHAPE))
    assert abs(z_of_mean(chains, mean)) < 5
    assert abs(z_of_mean((chains - mean) ** 2, variance)) < 5
    third = float(polygamma(2, SHAPE))
    assert abs(z_of_mean((chains - mean) ** 3, third)) < 5
    assert abs(z_of_mean((chains - mean) ** 3, -third)) > 5, "the test does not see the skewness"


def gaussian_path() -> Any:
    return ss.perturb(ss.Gaussian(MEAN, COVARIANCE), ss.VP())


def test_steps_of_langevin_have_the_law_of_the_affine_recursion() -> None:
    variance, h, num, start = 0.7, 0.2, 20_000, 3.0
    algorithm: Any = as_blackjax(ss.ULA(h), ss.Gaussian(jnp.ones(1), variance))

    @jax.jit
    def run(key: Array) -> Array:
        states = jax.vmap(algorithm.init)(jnp.full((num, 1), start))
        for k in range(3):
            keys = jax.random.split(jax.random.fold_in(key, k), num)
            states, info = jax.vmap(algorithm.step)(keys, states)
            assert info.n_steps.shape == (num,)
        return states.position[:, 0]

    draws = np.asarray(run(jax.random.key(0)), np.float64)
    factor = 1 - h / variance
    mean = 1 + factor**3 * (start - 1)
    want = 2 * h * (1 + factor**2 + factor**4)
    assert abs(draws.mean() - mean) < 5 * np.sqrt(want / num)
    assert abs(draws.var() - want) < 5 * want * np.sqrt(2 / num)


@pytest.mark.parametrize("sampler", [ss.HMC(num_integration_steps=6), ss.MALA()], ids=lambda s: type(s).__name__)
def test_tuned_samplers_keep_a_skewed_law(sampler: Any) -> None:
    target = skewed(3)
    sampler, position = tuned(sampler, target, key=jax.random.key(1), num_warmup=500)
    assert sampler.step_size.shape == ()
    assert position.shape == (3,)
    algorithm: Any = as_blackjax(sampler, target)
    state, (states, info) = run_inference_algorithm(jax.random.key(2), algorithm, 8000, initial_position=position)
    np.testing.assert_array_equal(state.position, states.position[-1])
    assert_log_gamma(np.asarray(states.position).T)
    assert 0.4 < float(info.acceptance_rate.mean()) < 1
    np.testing.assert_allclose(info.lp, jax.vmap(log_gamma)(states.position), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", [ss.ReverseSDE(num_steps=12), ss.ProbabilityFlowODE(num_steps=12)])
def test_steps_of_a_path_sampler_are_its_independent_draws(sampler: Any) -> None:
    path, num = gaussian_path(), 8000
    algorithm: Any = as_blackjax(sampler, path)
    start = algorithm.init(jnp.array([50.0, 50.0]))
    np.testing.assert_array_equal(start.position, [50.0, 50.0])
    _, (states, info) = run_inference_algorithm(jax.random.key(0), algorithm, num, initial_state=start)
    assert set(np.asarray(info.n_steps)) == {sampler.plan(path, key=jax.random.key(0)).nfe}
    drawn = np.asarray(states.position, np.float64)
    others = ss.sample(path, sampler, key=jax.random.key(3), num_samples=num, num_chains=1, progress=False).position[0]
    for f in (lambda x: x, lambda x: (x - MEAN) ** 2, lambda x: (x - MEAN).prod(axis=1, keepdims=True)):
        a, b = f(drawn), f(np.asarray(others, np.float64))
        z = (a.mean(axis=0) - b.mean(axis=0)) / np.sqrt((a.var(axis=0) + b.var(axis=0)) / num)
        assert np.abs(z).max() < 5
    assert np.abs(drawn.mean(axis=0) - MEAN).max() < 0.1
    lagged = np.mean((drawn[1:] - MEAN) * (drawn[:-1] - MEAN), axis=0) / drawn.var(axis=0)
    assert np.abs(lagged).max() < 5 / np.sqrt(num)


def test_chains_run_on_the_last_level_of_a_path() -> None:
    path = gaussian_path()
    last = path.at(path.process.time(path.log_snr_range[1]))
    on_path: Any = as_blackjax(ss.ULA(0.1), path)
    np.testing.assert_array_equal(on_path.init(jnp.ones(2)).score, last(jnp.ones(2)))


def test_statistics_are_trees_of_one_kind() -> None:
    target = ss.Gaussian(jnp.zeros(2), 1.0)
    infos = []
    for _ in range(2):
        algorithm: Any = as_blackjax(ss.NUTS(step_size=0.5), target)
        state = algorithm.init(jnp.zeros(2))
        infos.append(jax.jit(algorithm.step)(jax.random.key(0), state)[1])
    assert jax.tree.structure(infos[0]) == jax.tree.structure(infos[1])
    assert {"n_steps", "lp", "acceptance_rate", "diverging", "tree_depth"} <= set(infos[0]._fields)


@pytest.mark.parametrize(
    ("sampler", "position"),
    [(ss.ULA(0.1), [1, 2]), (ss.HMC(step_size=0.3, num_integration_steps=2), [1.0, 2.0, 3.0])],
    ids=lambda value: type(value).__name__,
)
def test_a_target_may_learn_its_structure_from_the_position(sampler: Any, position: list[float]) -> None:
    target = ss.DensityScore(lambda x: -0.5 * jnp.sum(x**2))
    algorithm: Any = as_blackjax(sampler, target)
    state, _ = run_inference_algorithm(jax.random.key(0), algorithm, 5, initial_position=jnp.asarray(position))
    assert state.position.shape == (len(position),)
    assert np.all(np.isfinite(state.position))


@pytest.mark.parametrize("sampler", [ss.NUTS(), ss.MALA(), ss.MCLMC(step_size=0.1)], ids=lambda s: type(s).__name__)
def test_an_untuned_sampler_is_refused_with_the_way_out(sampler: Any) -> None:
    with pytest.raises(ValueError, match=r"tuned\(sampler, target, key=key\)"):
        as_blackjax(sampler, skewed(2))


class Together(ss.AbstractParticleSampler[Any]):
    """A made-up sampler whose particles see each other."""

    name: ClassVar[str] = "together"
    reference: ClassVar[str] = "none"
    asymptotically_exact: ClassVar[bool] = False
    interacting: ClassVar[bool] = True

    def plan(self, path: Any, *, key: Array) -> Any:
        return ss.ReverseSDE(num_steps=3).plan(path, key=key)

    def run(self, path: Any, particles: Any, plan: Any, *, key: Array) -> Any:
        return ss.ReverseSDE(num_steps=3).run(path, particles, plan, key=key)


class Weighted(ss.AbstractParticleSampler[Any]):
    """A made-up sampler whose draws have weights."""

    name: ClassVar[str] = "weighted"
    reference: ClassVar[str] = "none"
    asymptotically_exact: ClassVar[bool] = False
    interacting: ClassVar[bool] = False

    def plan(self, path: Any, *, key: Array) -> Any:
        return ss.ReverseSDE(num_steps=3).plan(path, key=key)

    def run(self, path: Any, particles: Any, plan: Any, *, key: Array) -> Any:
        moved, _, info = ss.ReverseSDE(num_steps=3).run(path, particles, plan, key=key)
        return moved, jnp.zeros(moved.shape[0]), info


def test_draws_that_cannot_be_taken_one_at_a_time_are_refused() -> None:
    with pytest.raises(ValueError, match="see each other"):
        as_blackjax(Together(), gaussian_path())
    with pytest.raises(ValueError, match="have weights"):
        as_blackjax(Weighted(), gaussian_path())


def test_what_does_not_fit_is_refused_at_the_door(unchecked_types: None) -> None:
    target = skewed(2)
    with pytest.raises(ValueError, match="`plan` is for path samplers"):
        as_blackjax(ss.ULA(0.1), target, plan=1)
    with pytest.raises(TypeError, match="needs a path"):
        as_blackjax(ss.ReverseSDE(), target)
    with pytest.raises(TypeError, match="LineIntegralDensity"):
        as_blackjax(ss.HMC(step_size=0.1), ss.Score(lambda x: -x, structure=jnp.zeros(2)))
    with pytest.raises(TypeError, match="must be an instance of a sampler"):
        as_blackjax(ss.NUTS, target)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be a score or a path"):
        as_blackjax(ss.ULA(0.1), log_gamma)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="only chain samplers are tuned"):
        tuned(ss.ReverseSDE(), target, key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="does not know where to start"):
        tuned(ss.MALA(), ss.DensityScore(log_gamma), key=jax.random.key(0))
    with pytest.raises(ValueError, match="has shape"):
        as_blackjax(ss.ULA(0.1), target).init(jnp.zeros(3), None)
