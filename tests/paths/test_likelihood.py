"""The log density of the probability flow against closed forms, of exact and of wrong scores."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import Likelihood
from tests.cases import gaussian_tree, network_path, tree_position


def correlated(dimension: int, seed: int = 0) -> np.ndarray:
    """A covariance with eigenvalues from 0.1 to 2 along random axes."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, dimension)))
    return axes @ np.diag(np.geomspace(0.1, 2.0, dimension)) @ axes.T


def equicorrelated(dimension: int, correlation: float) -> np.ndarray:
    return correlation * np.ones((dimension, dimension)) + (1 - correlation) * np.eye(dimension)


def mixture(dimension: int) -> ss.GaussianMixture:
    means = np.random.default_rng(1).normal(size=(3, dimension))
    return ss.GaussianMixture([0.2, 0.3, 0.5], 1.5 * means, np.stack([correlated(dimension, k) for k in range(3)]))


EXACT: dict[str, Callable[[], Any]] = {
    "correlated gaussian": lambda: ss.perturb(ss.Gaussian(jnp.array([1.0, -2.0]), equicorrelated(2, 0.95)), ss.VP()),
    "gaussian in 50 dimensions": lambda: ss.perturb(ss.Gaussian(jnp.ones(50), equicorrelated(50, 0.9)), ss.VP()),
    "mixture": lambda: ss.perturb(mixture(2), ss.EDM()),
    "mixture in 10 dimensions": lambda: ss.perturb(mixture(10), ss.VE(0.001, 200.0)),
}


@eqx.filter_jit
def evaluated(density: ss.ProbabilityFlowDensity, positions: Any) -> Likelihood:
    return jax.vmap(density.evaluate)(positions)


@eqx.filter_jit
def values(density: ss.AbstractDensityScore, positions: Any) -> Array:
    return jax.vmap(density.logdensity)(positions)


@pytest.mark.parametrize("name", EXACT)
def test_the_flow_of_an_exact_score_has_its_log_density_and_an_honest_error(name: str) -> None:
    with jax.enable_x64(True):
        path = EXACT[name]()
        draws = path.density.sample(jax.random.key(0), 24)
        far = draws.mean(axis=0) + 4 * (draws[:8] - draws.mean(axis=0))
        points = jnp.concatenate([draws, far])
        density = ss.ProbabilityFlowDensity(path)
        found = evaluated(density, points)
        error = np.abs(found.value - jax.vmap(lambda x: path.logdensity(x, density.t))(points))
        assert error.max() < 1e-3
        assert np.mean(error > 3 * np.asarray(found.error)) < 0.15
        assert np.median(found.error) < 1e-3
        assert np.max(found.num_evaluations) < 1000


def test_float32_keeps_its_dtype_and_a_thousandth_of_a_nat() -> None:
    path = EXACT["mixture"]()
    points = path.density.sample(jax.random.key(0), 24)
    density = ss.ProbabilityFlowDensity(path)
    found = evaluated(density, points)
    assert found.value.dtype == found.error.dtype == np.float32
    error = np.abs(found.value - jax.vmap(lambda x: path.logdensity(x, density.t))(points))
    assert error.max() < 2e-3
    assert np.mean(error > 3 * np.asarray(found.error)) < 0.2


def test_the_flow_of_a_wrong_score_of_trees_is_solved_in_positions() -> None:
    """A linear denoiser ``gain y/(1 + s^2)`` carries a normal law, ``d log y/ds = (1 - gain/(1 + s^2))/s``."""
    gain, sigma, most = 0.7, 0.05, 50.0
    with jax.enable_x64(True):
        path = network_path(gain)
        density = ss.ProbabilityFlowDensity(path, path.process.time(jnp.asarray(-np.log(sigma))))
        spread = sigma / np.sqrt(1 - gain / (1 + most**2))
        spread *= (most**2 / (1 + most**2)) ** (gain / 2) / (sigma**2 / (1 + sigma**2)) ** (gain / 2)
        location, scale = np.array([3.0, -4.0, 1.0]), np.array([0.5, 2.0, 0.1])
        for shift in (0.0, 1.3, -4.0):
            flat = location + shift * scale * np.array([1.0, -0.5, 0.3])
            z = (flat - location) / (scale * spread)
            expected = -0.5 * z @ z - np.log(scale * spread * np.sqrt(2 * np.pi)).sum()
            position = {"effects": jnp.asarray(flat[:2]), "log_scale": jnp.asarray(flat[2])}
            found = eqx.filter_jit(density.value_and_score)(position)
            assert float(found[0]) == pytest.approx(expected, abs=1e-4)
            assert jax.tree.structure(found[1]) == jax.tree.structure(tree_position())
            np.testing.assert_allclose(found[1]["effects"], path(position, density.t)["effects"])


def twisted_denoiser(y: Array, sigma: Array) -> Array:
    """No denoiser of any data: its Jacobian is not symmetric and its levels do not fit each other."""
    turned = jnp.array([1.0, -1.0]) * jnp.tanh(2 * y[::-1])
    return (y + 0.6 * turned + jnp.array([0.3, 0.0])) / (1 + 1.2 * sigma**2)


def grid(half_width: float, num: int) -> tuple[Array, float]:
    line = jnp.linspace(-half_width, half_width, num)
    points = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, float(line[1] - line[0]) ** 2


def test_the_density_is_normalised_whatever_the_score() -> None:
    with jax.enable_x64(True):
        path = ss.PerturbedScore(
            twisted_denoiser, ss.VE(0.01, 100.0), structure=jnp.zeros(2), prediction="denoised", time="sigma"
        )
        t = path.process.time(jnp.asarray(-np.log(0.3)))
        points, cell = grid(7.0, 71)
        found = values(ss.ProbabilityFlowDensity(path, t, rtol=1e-4, atol=1e-4), points)
        assert float(jnp.exp(found).sum() * cell) == pytest.approx(1.0, abs=2e-3)


def test_the_density_is_that_of_the_same_data_under_any_process() -> None:
    with jax.enable_x64(True):
        path = ss.perturb(mixture(2), ss.VP())
        density = ss.ProbabilityFlowDensity(path)
        other = ss.ProbabilityFlowDensity(path.with_process(ss.VE(0.001, 200.0)))
        points, alpha = path.density.sample(jax.random.key(0), 8), path.process.alpha(density.t)
        under_other = values(other, points / alpha) - 2 * jnp.log(alpha)
        np.testing.assert_allclose(values(density, points), under_other, atol=1e-3)


def test_error_bars_of_estimated_divergences_are_calibrated() -> None:
    path = ss.perturb(ss.Gaussian(jnp.ones(10), correlated(10)), ss.VP())
    points = path.density.sample(jax.random.key(0), 100)
    density = ss.ProbabilityFlowDensity(
        path, divergence="hutchinson", num_probes=16, key=jax.random.key(1), rtol=1e-4, atol=1e-4
    )
    keys = jax.random.split(jax.random.key(2), 100)
    found = eqx.filter_jit(lambda d, x, k: jax.vmap(lambda y, key: d.evaluate(y, key=key))(x, k))(density, points, keys)
    truth = jax.vmap(lambda x: path.logdensity(x, density.t))(points)
    assert np.median(found.error) > 0.05
    standardised = (np.asarray(found.value) - np.asarray(truth)) / np.asarray(found.error)
    assert 0.8 < np.sqrt(np.mean(standardised**2)) < 1.35
    assert abs(standardised.mean()) < 5 * 1.1 / np.sqrt(100)
    np.testing.assert_array_equal(values(density, points), values(density, points))


def test_a_solve_that_does_not_end_is_nan() -> None:
    density = ss.ProbabilityFlowDensity(EXACT["mixture"](), max_steps=4)
    assert np.isnan(values(density, jnp.ones((1, 2)))).all()


def biased_score(z: Array, t: Array, path: Any, decay: Array) -> Array:
    """The exact score of a skewed mixture with a slant near the data."""
    slant = jnp.array([0.5 * jnp.sin(z[0] + z[1]), 1.0])
    return path.standard_score(z, t) + slant * jnp.exp(-decay * path.process.variance(t))


def biased_path(decay: float) -> ss.PerturbedScore:
    """The shorter the slant reaches into the noise, the less of it the flow feels."""
    target = ss.GaussianMixture([0.35, 0.65], [[-1.2, 0.0], [1.0, 0.6]], [[0.5, 1.0], [0.8, 0.4]])
    exact = ss.perturb(target, ss.VE(0.1, 60.0))
    return ss.PerturbedScore(
        biased_score,
        exact.process,
        structure=jnp.zeros(2),
        args=(exact, jnp.asarray(decay)),
        log_snr_range=(-np.log(60.0), -np.log(0.2)),
    )


def test_nuts_draws_from_the_density_of_the_flow_and_not_from_the_score() -> None:
    path = biased_path(4.0)
    density = ss.ProbabilityFlowDensity(path, rtol=1e-4, atol=1e-4)
    points, _ = grid(7.0, 41)
    weights = np.exp(np.asarray(values(density, points), np.float64))
    mean = weights @ points / weights.sum()
    second = weights @ np.asarray(points) ** 2 / weights.sum()
    draws = ss.sample(
        density,
        ss.NUTS(max_num_doublings=2),
        key=jax.random.key(0),
        num_chains=64,
        num_samples=25,
        num_warmup=40,
        progress=False,
    )
    for found, expected in ((draws.position, mean), (draws.position**2, second)):
        chains = np.asarray(found, np.float64).mean(axis=1)
        standard_error = chains.std(axis=0, ddof=1) / np.sqrt(64)
        assert np.abs((chains.mean(axis=0) - expected) / standard_error).max() < 4.5
    # What the score at the last level alone would give, by its line integral.
    alone = np.exp(
        np.asarray(values(ss.LineIntegralDensity(path.at(density.t), jnp.zeros(2), num_nodes=16), points), np.float64)
    )
    chains = np.asarray(draws.position, np.float64).mean(axis=1)
    off = (chains.mean(axis=0) - alone @ points / alone.sum()) / (chains.std(axis=0, ddof=1) / np.sqrt(64))
    assert np.abs(off).max() > 6


def test_the_derivative_of_the_value_is_that_of_the_solve() -> None:
    with jax.enable_x64(True):
        path = EXACT["correlated gaussian"]()
        density = ss.ProbabilityFlowDensity(path)
        point = jnp.array([1.3, -2.2])
        found = eqx.filter_jit(lambda d, x: jax.grad(d.logdensity)(x))(density, point)
        np.testing.assert_allclose(found, path(point, density.t), atol=1e-3)


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_settings_are_refused_at_the_door() -> None:
    path = ss.perturb(gaussian_tree(), ss.VP())
    with pytest.raises(TypeError, match=r"`path` must be a perturbed score, got Gaussian.*fit_score"):
        ss.ProbabilityFlowDensity(gaussian_tree())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`divergence` must be one of"):
        ss.ProbabilityFlowDensity(path, divergence="trace")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`key`"):
        ss.ProbabilityFlowDensity(path, divergence="hutchinson")
    wrong: dict[str, Any] = {"num_probes": 0, "max_steps": 0, "rtol": 0.0, "atol": 1.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"`{name}` must"):
            ss.ProbabilityFlowDensity(path, **{name: value})
    for t in (1.0, -0.1, 1e-9):
        with pytest.raises(ValueError, match="`t` must be a level"):
            ss.ProbabilityFlowDensity(path, t)
    one_probe = ss.ProbabilityFlowDensity(path, divergence="hutchinson", num_probes=1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least 2 probes"):
        one_probe.evaluate(tree_position())
    with pytest.raises(ValueError, match="`position`"):
        ss.ProbabilityFlowDensity(path).evaluate(jnp.zeros(3))
