"""The law of Metropolised chains on skewed targets, against quadrature."""

from functools import cache
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

from scoresample.inference import Draws, sample
from scoresample.inference._progress import chunk_length
from scoresample.paths import VE, VP, PerturbedScore, TemperedPath, perturb
from scoresample.samplers import HMC, NUTS, ULA
from scoresample.scores import DensityScore, Gaussian, LineIntegralDensity, Position, Score, from_numpyro

TIMES = jnp.array([0.1, 0.4, 0.2, 3.0])
NUM_SAMPLES = 1500


def waiting(times: Array) -> None:
    """Few and unequal waiting times: the posterior of scale and rate is skewed and correlated."""
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0 / (0.5 + scale)))
    numpyro.sample("times", dist.Exponential(rate), obs=times)


def posterior() -> DensityScore:
    return from_numpyro(waiting, (TIMES,))


STATISTICS = {
    "mean of scale": lambda u, v: u,
    "mean of rate": lambda u, v: v,
    "square of scale": lambda u, v: u**2,
    "square of rate": lambda u, v: v**2,
    "cube of scale": lambda u, v: u**3,
    "cube of rate": lambda u, v: v**3,
    "product": lambda u, v: u * v,
}
"""Functions of u = log(scale) and v = log(rate)."""


@cache
def truth() -> dict[str, float]:
    """Expectations by the trapezoidal rule, on the density written out by hand."""
    u, v = np.meshgrid(np.linspace(-12.0, 3.5, 900), np.linspace(-7.0, 4.0, 900), indexing="ij")
    scale, rate = np.exp(u), np.exp(v)
    inverse = 1 / (0.5 + scale)
    times = np.asarray(TIMES, np.float64)
    log_p = -(scale**2) / 8 + u + 2 * np.log(inverse) + 2 * v - inverse * rate + len(times) * v - rate * times.sum()
    weights = np.exp(log_p - log_p.max())
    assert weights[[0, -1]].max() < 1e-4
    assert weights[:, [0, -1]].max() < 1e-6
    return {name: float((f(u, v) * weights).sum() / weights.sum()) for name, f in STATISTICS.items()}


def z_scores(draws: Draws) -> dict[str, float]:
    u, v = (np.asarray(draws.position[name], np.float64) for name in ("scale", "rate"))
    found = {}
    for name, f in STATISTICS.items():
        value = f(u, v)
        found[name] = (value.mean() - truth()[name]) / float(arviz.mcse(value, method="mean"))
    return found


@pytest.fixture(scope="module")
def nuts() -> Draws:
    return sample(posterior(), NUTS(), key=jax.random.key(0), num_samples=NUM_SAMPLES, num_warmup=500, progress=False)


def test_nuts_has_the_posterior_as_its_law(nuts: Draws) -> None:
    mean, square, cube = (truth()[f"{power} of scale"] for power in ("mean", "square", "cube"))
    skewness = (cube - 3 * mean * square + 2 * mean**3) / (square - mean**2) ** 1.5
    assert abs(skewness) > 0.5, "the target should be skewed"
    assert max(map(abs, z_scores(nuts).values())) < 5, z_scores(nuts)


@pytest.mark.parametrize("dense", [False, True])
def test_hmc_has_the_posterior_as_its_law(dense: bool) -> None:
    sampler = HMC(num_integration_steps=8, dense_mass_matrix=dense)
    draws = sample(posterior(), sampler, key=jax.random.key(1), num_samples=NUM_SAMPLES, num_warmup=500, progress=False)
    assert max(map(abs, z_scores(draws).values())) < 5, z_scores(draws)
    assert draws.nfe == 8.0


def test_hmc_on_a_bare_score_with_a_line_integral_has_the_same_law() -> None:
    density = posterior()
    bare = Score(lambda x, inner: inner(x), density, structure=density.structure)
    origin = {"scale": jnp.asarray(truth()["mean of scale"]), "rate": jnp.asarray(truth()["mean of rate"])}
    draws = sample(
        LineIntegralDensity(bare, origin, num_nodes=16),
        HMC(num_integration_steps=8),
        key=jax.random.key(2),
        num_samples=500,
        num_warmup=300,
        initial_position=origin,
        progress=False,
    )
    assert max(map(abs, z_scores(draws).values())) < 5, z_scores(draws)


def test_statistics_of_nuts_are_those_of_its_transitions(nuts: Draws) -> None:
    stats = nuts.stats
    names = {"lp", "acceptance_rate", "diverging", "energy", "n_steps", "tree_depth", "reached_max_treedepth"}
    assert set(stats) == {*names, "non_finite"}
    assert all(value.shape == (4, NUM_SAMPLES) for value in stats.values())
    flat = jax.tree.map(lambda x: jnp.asarray(x.reshape(-1)[:200]), nuts.position)
    np.testing.assert_allclose(stats["lp"].reshape(-1)[:200], jax.vmap(posterior().logdensity)(flat), rtol=1e-4)
    assert (stats["n_steps"] >= 2.0 ** (stats["tree_depth"] - 1)).all()
    assert (stats["n_steps"] < 2.0 ** stats["tree_depth"]).all()
    assert 0.7 < stats["acceptance_rate"].mean() < 0.95
    assert nuts.nfe == pytest.approx(stats["n_steps"].mean())
    assert nuts.info["num_warmup"] == 500
    assert nuts.info["num_evaluations"] > stats["n_steps"].sum() + 4 * 500
    assert nuts.info["warmup_step_size"].shape == (4,)


def test_sites_are_shown_in_the_models_coordinates(nuts: Draws) -> None:
    tree = nuts.to_arviz()
    np.testing.assert_allclose(tree["posterior"]["rate"], np.exp(nuts.position["rate"]), rtol=1e-5)
    assert tree.attrs["sampler"] == "NUTS"
    assert np.max(np.asarray(arviz.rhat(tree)["rate"])) < 1.02


def test_a_limit_on_the_tree_is_kept_and_reported() -> None:
    sampler = NUTS(max_num_doublings=2)
    draws = sample(posterior(), sampler, key=jax.random.key(3), num_samples=50, num_warmup=50, progress=False)
    assert draws.stats["tree_depth"].max() == 2
    assert draws.stats["n_steps"].max() <= 3
    np.testing.assert_array_equal(draws.stats["reached_max_treedepth"], draws.stats["tree_depth"] == 2)
    assert draws.stats["reached_max_treedepth"].any()


def test_a_given_step_size_needs_no_warm_up() -> None:
    settings: dict[str, Any] = {"key": jax.random.key(4), "num_samples": 40, "num_warmup": 0, "progress": False}
    draws = sample(posterior(), HMC(step_size=0.3, num_integration_steps=4), **settings)
    assert draws.info["num_warmup"] == 0
    np.testing.assert_allclose(draws.info["warmup_step_size"], 0.3, rtol=1e-6)
    assert draws.info["num_evaluations"] == 4 + 4 * 40 * 4
    other = sample(posterior(), HMC(step_size=0.1, num_integration_steps=4), **settings)
    assert draws.stats["acceptance_rate"].mean() < other.stats["acceptance_rate"].mean()


def start(key: Array) -> Position:
    return jnp.array([1.0, -1.0]) + jax.random.normal(key, (2,))


def test_one_start_is_for_all_chains_and_several_are_one_each() -> None:
    density = Gaussian(jnp.zeros(2), 1.0)
    settings: dict[str, Any] = {"key": jax.random.key(5), "num_samples": 1, "num_warmup": 0, "progress": False}
    still = ULA(step_size=1e-12)
    one = sample(density, still, initial_position=np.array([3.0, -4.0]), **settings)
    np.testing.assert_allclose(one.position, np.broadcast_to([3.0, -4.0], (4, 1, 2)), rtol=1e-5)
    several = np.arange(8.0).reshape(4, 2)
    each = sample(density, still, initial_position=several, **settings)
    np.testing.assert_allclose(each.position[:, 0], several, atol=1e-4)


@pytest.mark.parametrize("process", [VP(), VE(0.01, 50.0)], ids=["VP", "VE"])
def test_chains_given_a_path_run_on_its_last_level(process: Any) -> None:
    path = perturb(Gaussian(jnp.array([2.0, -1.0]), jnp.array([0.5, 1.5])), process)
    t_min = process.time(path.log_snr_range[1])
    settings: dict[str, Any] = {"key": jax.random.key(6), "num_samples": 20, "num_warmup": 20, "progress": False}
    on_path = sample(path, HMC(num_integration_steps=4), **settings)
    on_level = sample(path.at(t_min), HMC(num_integration_steps=4), **settings)
    np.testing.assert_array_equal(on_path.position, on_level.position)
    assert on_path.attributes["target"] == "FrozenDensityScore"
    np.testing.assert_allclose(
        path.at(t_min)(jnp.array([0.0, 0.5])),
        Gaussian(jnp.array([2.0, -1.0]), jnp.array([0.5, 1.5]))(jnp.array([0.0, 0.5])),
        rtol=0.02,
    )


def test_chains_given_a_tempered_path_run_on_the_target() -> None:
    target = DensityScore(lambda x: jnp.sum(3.0 * x - jnp.exp(x)), structure=jnp.zeros(2))
    path = TemperedPath(Gaussian(jnp.zeros(2), 4.0), target)
    np.testing.assert_allclose(path.at(0.0)(jnp.array([0.3, 2.0])), target(jnp.array([0.3, 2.0])), rtol=1e-6)
    draws = sample(path, ULA(0.05), key=jax.random.key(7), num_samples=5, num_warmup=5, progress=False)
    assert draws.attributes["target"] == "FrozenDensityScore"


def test_a_network_has_no_density_but_unadjusted_chains_run_on_it() -> None:
    network = PerturbedScore(lambda z, t: -z, VP(), structure=jnp.zeros(2))
    with pytest.raises(TypeError, match=r"FrozenScore is a bare score.*LineIntegralDensity"):
        sample(network, NUTS(), key=jax.random.key(8))
    assert (
        sample(network, ULA(0.1), key=jax.random.key(8), num_samples=5, num_warmup=5, progress=False).kind == "chains"
    )


@pytest.mark.parametrize("sampler", [NUTS(max_num_doublings=4), HMC(num_integration_steps=3), ULA(0.05)], ids=type)
def test_float32_positions_stay_float32_under_x64(sampler: Any) -> None:
    with jax.enable_x64(True):
        centre = jnp.array([1.0, -2.0], jnp.float32)
        density = DensityScore(
            lambda x, c: -0.5 * jnp.sum((x - c) ** 2), centre, structure=centre, init_position=lambda key: centre + 0.1
        )
        draws = sample(density, sampler, key=jax.random.key(9), num_samples=10, num_warmup=20, progress=False)
        assert draws.position.dtype == np.float32


def test_a_run_with_a_bar_is_cut_into_chunks_of_one_length() -> None:
    for num in (1, 7, 20, 97, 1000, 1500, 4001):
        assert 1 <= chunk_length(num) <= max(num // 5, 1)
        assert num % chunk_length(num, must_divide=True) == 0
    assert chunk_length(1000) == 50
    assert chunk_length(4001, must_divide=True) == 4001


def test_a_bar_changes_no_draw(capsys: pytest.CaptureFixture[str]) -> None:
    settings: dict[str, Any] = {"key": jax.random.key(10), "num_samples": 47, "num_warmup": 5, "num_chains": 2}
    density = DensityScore(lambda x: jnp.sum(3.0 * x - jnp.exp(x)), structure=jnp.zeros(2), init_position=start)
    silent = sample(density, ULA(0.05), progress=False, **settings)
    assert capsys.readouterr().err == ""
    shown = sample(density, ULA(0.05), progress=True, **settings)
    np.testing.assert_array_equal(silent.position, shown.position)
    assert shown.stats["n_steps"].shape == (2, 47)
