"""The PyMC adapter against PyMC itself and closed forms; skipped where PyMC is not installed."""

import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.interop import from_pymc
from scoresample.scores import Position

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Y = np.array([0.3, 1.0, -2.0, 0.5])


def start_of(score: ss.DensityScore, key: Array) -> Position:
    assert score.init_position is not None
    return score.init_position(key)


@pytest.fixture(scope="module")
def pm() -> Any:
    return pytest.importorskip("pymc")


@pytest.fixture(scope="module")
def many_kinds(pm: Any) -> Any:
    """A real line, a half line, a simplex, an interval, a deterministic variable and mutable data."""
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.0, 2.0)
        tau = pm.Gamma("tau", 2.0, 1.5)
        weights = pm.Dirichlet("weights", np.array([1.0, 2.0, 3.0]))
        share = pm.Beta("share", 2.0, 5.0)
        theta = pm.Normal("theta", mu + weights[0], tau, shape=4)
        pm.Deterministic("ratio", mu / tau)
        y = pm.Data("data", Y)
        pm.Normal("y", theta + share, 1.0, observed=y)
    return model


def test_log_density_and_score_are_those_that_pymc_compiles(many_kinds: Any, precision: jnp.dtype) -> None:
    score = from_pymc(many_kinds)
    assert set(score.structure) == {"mu", "tau_log__", "weights_simplex__", "share_logodds__", "theta"}
    assert {leaf.dtype for leaf in score.structure.values()} == {precision}
    logp, gradient = many_kinds.compile_logp(), many_kinds.compile_dlogp()
    value_and_score, start = jax.jit(lambda x: score.value_and_score(x)), jax.jit(lambda key: start_of(score, key))
    tolerance = 2e-5 if precision == jnp.float32 else 1e-12
    for seed in range(3):
        position = start(jax.random.key(seed))
        point = {name: np.asarray(value, np.float64) for name, value in position.items()}
        value, found = value_and_score(position)
        np.testing.assert_allclose(value, logp(point), rtol=tolerance)
        flat = np.concatenate([np.ravel(found[variable.name]) for variable in many_kinds.value_vars])
        np.testing.assert_allclose(flat, gradient(point), rtol=tolerance, atol=10 * tolerance)


def test_sites_are_the_models_own_variables(many_kinds: Any) -> None:
    score = from_pymc(many_kinds)
    position = start_of(score, jax.random.key(0))
    sites = score.constrain(position)
    assert set(sites) == {"mu", "tau", "weights", "share", "theta", "ratio"}
    np.testing.assert_allclose(sites["tau"], np.exp(position["tau_log__"]), rtol=1e-6)
    np.testing.assert_allclose(np.sum(sites["weights"]), 1.0, rtol=1e-6)
    np.testing.assert_allclose(sites["ratio"], position["mu"] / sites["tau"], rtol=1e-6)


def test_chains_start_within_one_of_pymcs_initial_point(many_kinds: Any) -> None:
    score = from_pymc(many_kinds)
    starts = jax.vmap(lambda key: start_of(score, key))(jax.random.split(jax.random.key(0), 200))
    for name, value in many_kinds.initial_point().items():
        offsets = np.asarray(starts[name]) - value
        assert np.max(np.abs(offsets)) <= 1.0 + 1e-6
        assert offsets.min() < -0.9
        assert offsets.max() > 0.9


def test_settings_of_jax_stay_as_they_were(many_kinds: Any) -> None:
    before = jax.config.jax_enable_x64, os.environ.get("XLA_FLAGS"), jax.device_count()
    from_pymc(many_kinds)
    assert (jax.config.jax_enable_x64, os.environ.get("XLA_FLAGS"), jax.device_count()) == before


def test_nuts_finds_the_posterior_in_closed_form(pm: Any) -> None:
    """A rate with a gamma prior and exponential data: the posterior is a gamma law."""
    waits = np.array([0.4, 1.7, 0.2, 3.1])
    with pm.Model() as model:
        rate = pm.Gamma("rate", 3.0, 2.0)
        pm.Exponential("waits", rate, observed=waits)
    draws = ss.sample(from_pymc(model), ss.NUTS(), key=jax.random.key(0), num_samples=2000, num_warmup=300)
    shape, scale = 3.0 + len(waits), 1.0 / (2.0 + waits.sum())
    rates = draws.sites()["rate"]
    mean_error = np.abs(rates.mean() - shape * scale) / (np.sqrt(shape) * scale)
    ess = float(draws.summary().loc["rate", "ess_bulk"])
    assert mean_error < 5 / np.sqrt(ess)
    np.testing.assert_allclose(rates.std(), np.sqrt(shape) * scale, rtol=0.1)


def test_pymcs_own_chains_come_in_by_arviz(pm: Any) -> None:
    with pm.Model() as model:
        scale = pm.HalfNormal("scale", 1.0)
        pm.Normal("y", 0.0, scale, observed=Y)
        tree = pm.sample(200, tune=200, chains=2, cores=1, random_seed=0, progressbar=False)
    by_pymc = ss.Draws.from_arviz(tree, name="PyMC NUTS")
    np.testing.assert_array_equal(by_pymc.sites()["scale"], tree["posterior"]["scale"])
    assert by_pymc.nfe > 1
    assert by_pymc.seconds > 0
    assert by_pymc.attributes["asymptotically_exact"] == 1
    ours = ss.sample(from_pymc(model), ss.NUTS(), key=jax.random.key(0), num_samples=500, num_warmup=300)
    comparison = ss.compare({"PyMC": by_pymc, "ours": ours}, reference="ours")
    assert list(comparison.runs["PyMC"].values) == ["scale"]
    assert comparison.table.loc["PyMC", "mean_error"] < 0.3


def test_models_without_a_score_are_refused(pm: Any) -> None:
    with pm.Model() as discrete:
        count = pm.Poisson("count", 3.0)
        pm.Normal("y", count, 1.0, observed=Y)
    with pytest.raises(ValueError, match=r"\['count'\] are discrete free variables"):
        from_pymc(discrete)
    with pm.Model() as prior:
        pm.Normal("mu")
    with pytest.raises(ValueError, match="this is the prior and not a posterior"):
        from_pymc(prior)
    assert from_pymc(prior, allow_prior=True).structure["mu"].shape == ()
    with pm.Model() as known:
        pm.Normal("y", 0.0, 1.0, observed=Y)
    with pytest.raises(ValueError, match="no free variable"):
        from_pymc(known)
    with pytest.raises(TypeError, match=r"must be a pymc\.Model, got function"):
        from_pymc(lambda: None)


@pytest.mark.skipif(importlib.util.find_spec("pymc") is not None, reason="PyMC is installed")
def test_without_pymc_the_error_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r'pip install "scoresample\[pymc\]"'):
        from_pymc(None)
