"""`sample` as the one entry: kinds of draws, facts of a run, failures."""

import json
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.inference import settings_of
from scoresample.paths import AbstractPerturbedScore

COUNTS: dict[str, Any] = {"num_samples": 10, "num_chains": 2, "num_warmup": 10, "progress": False}


def path() -> AbstractPerturbedScore:
    return ss.perturb(ss.Gaussian(jnp.array([1.0, -2.0]), jnp.array([0.5, 2.0])), ss.VP())


def density() -> ss.DensityScore:
    def start(key: Array) -> Array:
        return 0.1 * jax.random.normal(key, (2,))

    return ss.DensityScore(lambda x: jnp.sum(3.0 * x - jnp.exp(x)), structure=jnp.zeros(2), init_position=start)


def test_chains_come_as_chains_and_particles_as_one_row() -> None:
    chains = ss.sample(density(), ss.ULA(0.05), key=jax.random.key(0), **COUNTS)
    assert (chains.kind, chains.position.shape, chains.log_weights) == ("chains", (2, 10, 2), None)
    particles = ss.sample(path(), ss.ReverseSDE(num_steps=5), key=jax.random.key(0), **COUNTS)
    assert (particles.kind, particles.position.shape, particles.log_weights) == ("independent", (1, 20, 2), None)
    assert isinstance(chains.position, np.ndarray)
    assert isinstance(particles.position, np.ndarray)
    summary = particles.summary()
    assert np.isnan(summary["r_hat"]).all()
    assert sorted(particles.to_arviz().children) == ["posterior", "sample_stats"]


def test_exact_draws_are_independent_draws_of_the_density() -> None:
    target = ss.GaussianMixture([0.2, 0.8], [[-3.0], [1.0]], 0.25)
    draws = ss.exact_draws(target, key=jax.random.key(0), num_samples=4000)
    assert (draws.kind, draws.position.shape, draws.nfe) == ("independent", (1, 4000, 1), 0.0)
    x = draws.position[0, :, 0].astype(np.float64)
    mean, variance = (float(m[0]) for m in target.moments())
    assert abs((x.mean() - mean) / np.sqrt(variance / 4000)) < 5
    assert abs(((x < -1).mean() - 0.2) / np.sqrt(0.16 / 4000)) < 5
    assert draws.attributes["sampler"] == "exact draws"


def test_a_run_says_where_it_comes_from() -> None:
    draws = ss.sample(path(), ss.ReverseSDE(num_steps=5), key=jax.random.key(0), **COUNTS)
    attributes = draws.attributes
    assert attributes["sampler"] == "ReverseSDE"
    assert attributes["target"] == "PerturbedDensity"
    assert attributes["reference"] == "Song et al. 2021"
    assert attributes["asymptotically_exact"] == 1
    assert json.loads(attributes["settings"]) == {
        "num_steps": 5,
        "solver": "sde-dpm-solver++2m",
        "eta": None,
        "grid": "log-snr",
        "denoise": True,
        "delta": None,
    }
    versions = json.loads(attributes["versions"])
    assert versions["scoresample"] == ss.__version__
    assert versions["jax"] == jax.__version__
    assert attributes["device"].startswith("cpu:") or jax.devices()[0].platform != "cpu"
    assert 0 <= draws.info["compile_seconds"] < draws.seconds
    # One evaluation a step, and the last move is one more.
    assert draws.nfe == 6.0
    assert draws.info["num_evaluations"] == 6 * 20
    assert draws.to_arviz().attrs["settings"] == attributes["settings"]


def test_the_bias_of_an_unadjusted_chain_is_on_record() -> None:
    draws = ss.sample(density(), ss.ULA(0.05), key=jax.random.key(0), **COUNTS)
    assert draws.attributes["asymptotically_exact"] == 0
    assert draws.nfe == 1.0
    assert draws.info["num_evaluations"] == 2 * (11 + 10)


def test_settings_are_numbers_and_strings() -> None:
    settings = settings_of(ss.NUTS(step_size=jnp.asarray(0.5), inverse_mass_matrix=jnp.ones(3)))
    assert settings["step_size"] == 0.5
    assert settings["inverse_mass_matrix"] == "array of shape (3,)"
    assert settings["target_acceptance_rate"] == 0.8
    assert settings_of(ss.ProbabilityFlowODE())["solver"] == "unipc-3"
    assert settings_of(ss.ProbabilityFlowODE(solver=diffrax.Heun()))["solver"].startswith("Heun(")
    adams = settings_of(ss.ReverseSDE(solver=ss.ExponentialAdams(order=3)))["solver"]
    assert adams == "ExponentialAdams(order=3)"
    assert settings_of(ss.ReverseSDE(grid=(0.9, 0.5)))["grid"] == [0.9, 0.5]
    assert settings_of(ss.ProbabilityFlowODE())["rtol"] is None
    assert json.loads(json.dumps(settings)) == settings


def test_old_raw_keys_are_the_same_keys() -> None:
    with jax.enable_x64(False):
        raw = jax.random.key_data(jax.random.key(3))
        typed = ss.sample(path(), ss.AnnealedLangevin(3, 2), key=jax.random.key(3), **COUNTS)
        old = ss.sample(path(), ss.AnnealedLangevin(3, 2), key=raw, **COUNTS)
        np.testing.assert_array_equal(typed.position, old.position)


@pytest.mark.parametrize("sampler", [ss.ReverseSDE(num_steps=4), ss.PredictorCorrector(num_steps=4)], ids=type)
def test_a_batch_size_is_no_limit_on_the_number_of_draws(sampler: Any) -> None:
    draws = ss.sample(path(), sampler, key=jax.random.key(0), num_samples=7, num_chains=1, batch_size=3, progress=False)
    assert draws.position.shape == (1, 7, 2)
    assert len(np.unique(draws.position[0, :, 0])) == 7


@pytest.mark.parametrize(
    "sampler", [ss.AnnealedLangevin(40, 2), ss.PredictorCorrector(num_steps=40), ss.ReverseSDE(num_steps=40)], ids=type
)
def test_a_bar_changes_no_draw(sampler: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"key": jax.random.key(0), "num_samples": 5, "batch_size": 6}
    silent = ss.sample(path(), sampler, progress=False, **settings)
    assert capsys.readouterr().err == ""
    shown = ss.sample(path(), sampler, progress=True, **settings)
    # Programs of another length may round otherwise.
    np.testing.assert_allclose(silent.position, shown.position, rtol=1e-4, atol=1e-4)
    assert silent.info.keys() == shown.info.keys()
    assert silent.nfe == shown.nfe


def leaves_the_support(x: Array) -> Array:
    """A standard normal score that is not defined to the right of 0.5."""
    return jnp.where(x > 0.5, jnp.nan, -x)


def test_draws_that_are_not_finite_raise_with_the_draws_attached() -> None:
    score = ss.Score(leaves_the_support, structure=jnp.zeros(1))
    settings: dict[str, Any] = {
        "key": jax.random.key(0),
        "num_samples": 50,
        "num_chains": 3,
        "num_warmup": 0,
        "progress": False,
        "initial_position": jnp.array([[0.0], [0.0], [0.0]]),
    }
    with pytest.raises(
        ss.SamplingError, match=r"draws in chains \[.*\] are not finite.*smaller steps.*error\.draws"
    ) as e:
        ss.sample(score, ss.ULA(0.2), **settings)
    draws = e.value.draws
    assert draws.position.shape == (3, 50, 1)
    np.testing.assert_array_equal(draws.stats["non_finite"], ~np.isfinite(draws.position[..., 0]))
    assert f"{draws.stats['non_finite'].sum()} of 150 draws" in str(e.value)
    quiet = ss.sample(score, ss.ULA(0.2), throw=False, **settings)
    np.testing.assert_array_equal(quiet.position, draws.position)
    assert "draws are not finite" in repr(quiet)


def test_particles_that_are_not_finite_raise_too() -> None:
    network = ss.PerturbedScore(lambda z, t: jnp.where(z > 3.0, jnp.nan, -z), ss.VP(), structure=jnp.zeros(1))
    settings: dict[str, Any] = {"key": jax.random.key(0), "num_samples": 2000, "num_chains": 1, "progress": False}
    with pytest.raises(ss.SamplingError, match=r"of 2000 draws of the particles are not finite.*AnnealedLangevin") as e:
        ss.sample(network, ss.AnnealedLangevin(4, 4), **settings)
    bad = e.value.draws.stats["non_finite"]
    assert 0 < bad.sum() < 2000


def test_a_solver_that_stops_early_raises() -> None:
    sampler = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-6, max_steps=3)
    with pytest.raises(ss.SamplingError, match=r"ProbabilityFlowODE stopped before the end.*`max_steps`") as e:
        ss.sample(path(), sampler, key=jax.random.key(0), **COUNTS)
    assert np.all(e.value.draws.info["solver_failed"])
    assert ss.sample(path(), sampler, key=jax.random.key(0), throw=False, **COUNTS).info["solver_failed"].all()
    patient = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-6)
    assert not ss.sample(path(), patient, key=jax.random.key(0), **COUNTS).info["solver_failed"].any()
