"""Draws moved on by chains that leave the target invariant."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.inference import exact_draws
from scoresample.workflows._whitened import whitened

COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 25.0]])
MEAN = np.array([1.0, -1.0, 10.0])
TARGET = ss.Gaussian(jnp.asarray(MEAN), jnp.asarray(COVARIANCE))
WRONG = ss.Gaussian(jnp.asarray(MEAN + np.array([0.3, 0.0, -2.0])), jnp.asarray(1.5 * COVARIANCE))
Method = Literal["mala", "independence", "nuts"]


def draws_of(density: Any, num: int = 2000) -> ss.Draws:
    return exact_draws(density, key=jax.random.key(0), num_samples=num)


def with_density(draws: ss.Draws, density: Any) -> ss.Draws:
    """Draws that bring the density that they have."""
    values = np.asarray(jax.vmap(density.logdensity)(jnp.asarray(draws.position[0])))
    return dataclasses.replace(draws, stats={**draws.stats, "log_proposal": values[None]})


def assert_moments(draws: ss.Draws, worth: float = 1.0) -> None:
    """Means and second moments of the target within 5 standard errors, for a share of independent draws."""
    flat = np.asarray(draws.position, np.float64).reshape(-1, 3) - MEAN
    error = np.sqrt(1 / (worth * len(flat)))
    scale = np.sqrt(COVARIANCE.diagonal())
    assert np.abs(flat.mean(axis=0) / scale).max() < 5 * error
    products = (flat / scale).T @ (flat / scale) / len(flat)
    correlation = COVARIANCE / np.outer(scale, scale)
    assert np.abs((products - correlation) / np.sqrt(1 + correlation**2)).max() < 5 * error


@pytest.mark.parametrize(("method", "num_steps"), [("mala", 20), ("nuts", 4), ("independence", 20)])
def test_exact_draws_stay_exact(method: Method, num_steps: int) -> None:
    draws = with_density(draws_of(TARGET), TARGET)
    polished = ss.polish(draws, TARGET, key=jax.random.key(1), method=method, num_steps=num_steps)
    assert_moments(polished)
    assert polished.log_weights is None
    assert polished.kind == ("chains" if method == "independence" else "independent")
    assert all(check.passed for check in polished.info["checks"])
    assert "log_proposal" not in polished.stats
    assert polished.position.dtype == draws.position.dtype
    assert polished.nfe >= (1 if method == "independence" else num_steps)


@pytest.mark.parametrize(
    ("method", "num_steps", "worth"), [("mala", 40, 1.0), ("nuts", 8, 1.0), ("independence", 20, 0.4)]
)
def test_wrong_draws_become_those_of_the_target(method: Method, num_steps: int, worth: float) -> None:
    draws = with_density(draws_of(WRONG, 4000), WRONG)
    with pytest.raises(AssertionError):
        assert_moments(draws)
    polished = ss.polish(draws, TARGET, key=jax.random.key(1), method=method, num_steps=num_steps)
    assert_moments(polished, worth)
    assert 0.4 < polished.info["acceptance_rate"] < 0.97
    assert polished.info["num_distinct"] > 0.4 * 4000


def test_weighted_draws_are_resampled_first() -> None:
    weighted = ss.reweight(draws_of(WRONG), TARGET, WRONG)
    polished = ss.polish(weighted, TARGET, key=jax.random.key(1), num_steps=20)
    assert polished.kind == "interacting"
    assert polished.log_weights is None
    assert polished.info["num_ancestors"] < 1900
    assert polished.info["num_distinct"] > 1900
    assert polished.info["log_z"] == weighted.info["log_z"]
    assert_moments(polished, worth=0.5)
    # Weights alone leave copies: after a single accepted move or none they are still there.
    barely = ss.polish(weighted, TARGET, key=jax.random.key(1), num_steps=2, step_size=1e-6)
    assert barely.info["start_end_correlation"] > 0.999
    assert barely.info["autocorrelation_bound"] > 0.5
    assert not all(check.passed for check in barely.info["checks"])
    assert polished.info["start_end_correlation"] < 0.15


def test_modes_keep_their_shares_and_the_memory_says_so() -> None:
    means = jnp.array([[-20.0, 0.0], [20.0, 0.0]])
    even, uneven = (ss.GaussianMixture(jnp.array(w), means, jnp.ones((2, 2))) for w in ([0.5, 0.5], [0.8, 0.2]))
    polished = ss.polish(draws_of(uneven), even, key=jax.random.key(0))
    assert abs(np.mean(np.asarray(polished.position)[..., 0] < 0) - 0.8) < 0.05
    assert polished.info["autocorrelation_bound"] > 0.9
    assert any(check.severity == "fail" and not check.passed for check in polished.info["checks"])


def test_trees_batches_and_chains_keep_their_shapes() -> None:
    tree = ss.DensityScore(
        lambda x: -0.5 * jnp.sum(x["a"] ** 2) - 0.5 * jnp.sum((x["b"] - 3) ** 2),
        structure={"a": jnp.zeros((2, 2)), "b": jnp.zeros(())},
    )
    rng = np.random.default_rng(0)
    position = {"a": rng.normal(size=(2, 51, 2, 2)), "b": rng.normal(size=(2, 51))}
    position = jax.tree.map(lambda x: x.astype(np.float32), position)
    draws = dataclasses.replace(draws_of(TARGET, 10), position=position, kind="chains")
    polished = ss.polish(draws, tree, key=jax.random.key(0), batch_size=40, num_steps=30)
    assert polished.kind == "chains"
    assert polished.stats["acceptance_rate"].shape == (2, 51)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), polished.position) == jax.tree.map(
        lambda x: (x.shape, x.dtype), position
    )
    assert abs(np.mean(polished.position["b"]) - 3) < 5 / np.sqrt(102)


def test_the_start_of_independence_chains_is_forgotten_at_any_weight() -> None:
    """A draw without mass is left at once; a folded one is never gone to."""
    draws = with_density(draws_of(TARGET, 400), TARGET)
    folded = np.zeros((1, 400), bool)
    folded[0, ::3] = True
    draws = dataclasses.replace(draws, stats={**draws.stats, "folded": folded})
    polished = ss.polish(draws, TARGET, key=jax.random.key(0), method="independence", num_steps=2)
    kept = {tuple(x) for x in np.asarray(polished.position).reshape(-1, 3)}
    assert not kept & {tuple(x) for x in np.asarray(draws.position)[folded]}


@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_refused_at_the_door() -> None:
    draws, key = draws_of(TARGET, 100), jax.random.key(0)
    with pytest.raises(TypeError, match="`draws` must be Draws"):
        ss.polish(draws.position, TARGET, key=key)
    with pytest.raises(TypeError, match="`target` must be a score with a log density"):
        ss.polish(draws, ss.Score(lambda x: -x, structure=jnp.zeros(3)), key=key)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`method` must be one of"):
        ss.polish(draws, TARGET, key=key, method="gibbs")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`num_steps` must be a whole number of at least 2"):
        ss.polish(draws, TARGET, key=key, num_steps=1)
    with pytest.raises(ValueError, match="`step_size` must be positive"):
        ss.polish(draws, TARGET, key=key, step_size=0.0)
    with pytest.raises(ValueError, match=r"`method`.*WithDensity"):
        ss.polish(draws, TARGET, key=key, method="independence")
    with pytest.raises(ValueError, match="`num_steps`: the 100 draws make 4 chains of 25"):
        ss.polish(with_density(draws, TARGET), TARGET, key=key, method="independence", num_steps=25)
    half = ss.DensityScore(lambda x: jnp.where(x[0] > 1, -x[0], -jnp.inf), structure=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"`draws`: \d+ of 100 lie where.*reweight"):
        ss.polish(draws, half, key=key)


def test_coordinates_of_wrong_draws_are_those_of_the_target() -> None:
    """The geometric mean of the covariances of draws and, inverted, of scores is the target's; the longest are cut."""
    wrong = ss.Gaussian(jnp.zeros(3), jnp.array([4.0, 0.25, 1.0]))
    points = np.asarray(draws_of(wrong, 20_000).position[0], np.float64)
    settings: dict[str, Any] = {"dense": True, "batch_size": None}
    like = jax.ShapeDtypeStruct((3,), jnp.float32)
    found, u, _ = whitened(TARGET, like, points, settled=False, **settings)
    factor = np.asarray(found.factor, np.float64)
    np.testing.assert_allclose(u @ factor.T + points.mean(axis=0), points, atol=1e-3)
    whole = np.linalg.inv(np.linalg.cholesky(COVARIANCE)) @ factor
    values = np.linalg.eigvalsh(whole @ whole.T)
    assert values.max() / values.min() < 1.3
    by_points = points.T @ points / len(points)
    before = np.linalg.eigvals(np.linalg.solve(COVARIANCE, by_points)).real
    assert before.max() / before.min() > 50


def test_coordinates_of_modes_apart_are_those_of_one_mode() -> None:
    means = jnp.array([[-20.0, 0.0], [20.0, 0.0]])
    target = ss.GaussianMixture(jnp.array([0.5, 0.5]), means, jnp.array([[1.0, 4.0], [1.0, 4.0]]))
    points = np.asarray(draws_of(target, 4000).position[0], np.float64)
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    for dense, batch_size in ((True, None), (False, 300)):
        found, _, num = whitened(target, like, points, settled=True, dense=dense, batch_size=batch_size)
        factor = np.asarray(found.factor) if dense else np.diag(np.asarray(found.factor))
        ratio = np.sqrt((factor @ factor.T).diagonal()) / np.array([1.0, 2.0])
        assert ratio.max() / ratio.min() < 1.2
        assert ratio.max() < 1.4
        assert num == 4000
