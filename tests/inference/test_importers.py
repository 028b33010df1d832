"""Chains that were drawn elsewhere: every number kept, nothing made up, and `compare` takes them beside our own."""

import json
import math
from pathlib import Path
from typing import Any

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from blackjax.util import run_inference_algorithm
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from numpyro.infer import MCMC, NUTS

import scoresample as ss
from scoresample.inference import Draws
from scoresample.interop import ScoreKernel
from tests.diagnostics.made_draws import made_draws, normal_chains

Y = jnp.array([0.4, -1.3, 2.2, 0.1, 1.9])
FIELDS = ("num_steps", "accept_prob", "energy", "potential_energy", "adapt_state.step_size", "z_grad")


def model(y: Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    numpyro.deterministic("ratio", mu / tau)
    numpyro.sample("y", dist.Normal(mu, tau), obs=y)


def numpyro_run(thinning: int = 1, num_samples: int = 300, **settings: Any) -> MCMC:
    mcmc = MCMC(
        NUTS(model),
        num_warmup=200,
        num_samples=num_samples,
        num_chains=4,
        thinning=thinning,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), Y, **settings)
    return mcmc


@pytest.fixture(scope="module")
def mcmc() -> MCMC:
    return numpyro_run(extra_fields=FIELDS)


@pytest.fixture(scope="module")
def posterior() -> ss.DensityScore:
    return ss.from_numpyro(model, (Y,))


@pytest.fixture(scope="module")
def own(posterior: ss.DensityScore) -> Draws:
    return ss.sample(posterior, ss.NUTS(), key=jax.random.key(1), num_samples=300, num_warmup=200)


def history(chains: int | None = 4, steps: int = 50, algorithm: Any = None) -> tuple[Any, Any]:
    """States and infos of BlackJAX's HMC on a tree of positions."""
    score = ss.Gaussian({"a": jnp.zeros(2), "b": jnp.array(1.0)}, 1.0)
    start = {"a": jnp.ones(2), "b": jnp.array(0.0)}
    if algorithm is None:
        algorithm = blackjax.hmc(score.logdensity, 0.4, jnp.ones(3), num_integration_steps=3)

    def one(key: Array) -> Any:
        return run_inference_algorithm(key, algorithm, steps, initial_position=start)[1]

    key = jax.random.key(0)
    return one(key) if chains is None else jax.vmap(one)(jax.random.split(key, chains))


def tree_of(**sites: np.ndarray) -> xr.DataTree:
    return arviz.from_dict({"posterior": sites})


# ArviZ


def test_the_values_of_a_tree_come_through_whatever_the_order_of_its_dimensions() -> None:
    rng = np.random.default_rng(0)
    mu, theta, count = rng.normal(size=(4, 30)), rng.normal(size=(4, 30, 3)), rng.integers(0, 9, size=(4, 30))
    tree = tree_of(mu=mu, theta=theta, count=count)
    turned = xr.DataTree.from_dict({"posterior": tree["posterior"].to_dataset().transpose(..., "draw", "chain")})
    for one in (tree, turned):
        draws = Draws.from_arviz(one)
        assert (draws.num_chains, draws.num_draws, draws.kind) == (4, 30, "chains")
        for name, want in (("mu", mu), ("theta", theta), ("count", count)):
            assert draws.sites()[name].dtype == want.dtype
            np.testing.assert_array_equal(draws.sites()[name], want)
            np.testing.assert_array_equal(draws.to_arviz()["posterior"][name], want)


def test_what_a_tree_does_not_say_is_not_made_up() -> None:
    draws = Draws.from_arviz(tree_of(mu=normal_chains(0)))
    assert math.isnan(draws.nfe)
    assert math.isnan(draws.seconds)
    assert math.isnan(draws.info["num_evaluations"])
    assert "num_warmup" not in draws.info
    assert draws.attributes["asymptotically_exact"] == "unknown"
    text = repr(draws)
    assert "score evaluations not known, time not known" in text
    assert "nan" not in text


def test_statistics_and_attributes_of_other_programs_are_read() -> None:
    stats = {
        "n_steps": np.full((4, 30), 7),
        "acceptance_rate": np.full((4, 30), 0.8),
        "diverging": np.zeros((4, 30), bool),
        "reached_max_tree_depth": np.ones((4, 30), bool),
        "message": np.full((4, 30), "fine"),
        "gradient": np.zeros((4, 30, 2)),
    }
    attrs = {"sampling_time": 3.5, "tuning_steps": 1000, "inference_library": "pymc"}
    tree = arviz.from_dict(
        {"posterior": {"mu": normal_chains(0, draws=30)}, "sample_stats": stats}, attrs={"posterior": attrs}
    )
    draws = Draws.from_arviz(tree)
    assert draws.nfe == 7.0
    assert draws.seconds == 3.5
    assert draws.info["num_warmup"] == 1000
    assert draws.attributes["sampler"] == "pymc"
    assert draws.attributes["asymptotically_exact"] == 1
    assert sorted(draws.stats) == [
        "acceptance_rate",
        "diverging",
        "n_steps",
        "non_finite",
        "reached_max_treedepth",
    ]
    assert sorted(draws.info["left_out"]) == ["gradient", "message"]
    told = Draws.from_arviz(tree, name="PyMC's NUTS", nfe=8.0, seconds=1.0, asymptotically_exact=False)
    assert (told.nfe, told.seconds, told.attributes["sampler"]) == (8.0, 1.0, "PyMC's NUTS")
    assert told.attributes["asymptotically_exact"] == 0


def test_our_own_draws_go_to_arviz_and_back(own: Draws, tmp_path: Path) -> None:
    tree = own.to_arviz()
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    for back in (Draws.from_arviz(tree), Draws.from_arviz(arviz.from_netcdf(tmp_path / "draws.nc"))):
        assert (back.kind, back.nfe, back.seconds) == (own.kind, own.nfe, own.seconds)
        for name in ("sampler", "settings", "target", "versions", "device", "asymptotically_exact"):
            assert back.attributes[name] == own.attributes[name]
        for name in ("num_warmup", "num_evaluations", "compile_seconds"):
            assert back.info[name] == own.info[name]
        assert set(back.stats) == set(own.stats)
        for name, value in own.stats.items():
            np.testing.assert_array_equal(back.stats[name], value)
        for name, value in own.sites().items():
            np.testing.assert_array_equal(back.sites()[name], value)
        again = back.to_arviz()
        xr.testing.assert_equal(again["posterior"].to_dataset(), tree["posterior"].to_dataset())


def test_kinds_survive_and_copies_do_not_count() -> None:
    positions = normal_chains(0, chains=1)
    back = Draws.from_arviz(made_draws(positions, "independent").to_arviz())
    assert back.kind == "independent"
    weighted = made_draws(positions, "independent", log_weights=4.0 * positions)
    back = Draws.from_arviz(weighted.to_arviz())
    assert back.kind == "interacting"
    verdict = ss.compare({"weighted": back}).verdicts["weighted"]
    assert any("distinct draws" in check.name and check.value < 600 for check in verdict.checks)


def test_variables_are_chosen_by_name() -> None:
    tree = tree_of(mu=normal_chains(0), long=normal_chains(1, 50))
    assert list(Draws.from_arviz(tree, var_names=["mu"]).position) == ["mu"]
    with pytest.raises(ValueError, match=r"`var_names`: \['nu'\] came, but `tree` holds \['long', 'mu'\]"):
        Draws.from_arviz(tree, var_names=["nu"])


def test_draws_that_are_not_finite_are_kept_and_flagged() -> None:
    values = normal_chains(0, 2, draws=20)
    values[2, 5, 1] = np.nan
    draws = Draws.from_arviz(tree_of(x=values))
    assert np.argwhere(draws.stats["non_finite"]).tolist() == [[2, 5]]
    np.testing.assert_array_equal(draws.position["x"], values)
    assert ss.compare({"broken": draws}).verdicts["broken"].level == "do not use"


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("wrong", ["chains.nc", Path("chains.nc"), {"mu": np.zeros((4, 30))}, xr.Dataset()])
def test_only_a_data_tree_is_a_tree(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"(?s)`tree` must be an ArviZ DataTree, got .*arviz\.from_netcdf"):
        Draws.from_arviz(wrong)


def test_trees_that_hold_no_chains_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no group `posterior`, only \['prior'\]"):
        Draws.from_arviz(arviz.from_dict({"prior": {"mu": np.zeros((1, 5))}}))
    flat = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": ("draw", np.zeros(5))})})
    with pytest.raises(ValueError, match=r"'mu' .* dimensions \('draw',\), but draws need `chain` and"):
        Draws.from_arviz(flat)
    with pytest.raises(ValueError, match=r"the site 'word' holds .*, but draws are real numbers"):
        Draws.from_arviz(tree_of(word=np.full((2, 5), "yes")))
    with pytest.raises(ValueError, match="`seconds` must be a number that is not negative"):
        Draws.from_arviz(tree_of(mu=np.zeros((2, 5))), seconds=-1.0)


# NumPyro


def test_a_numpyro_run_comes_through_number_by_number(mcmc: MCMC) -> None:
    draws = Draws.from_numpyro_mcmc(mcmc)
    samples, fields = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields(group_by_chain=True)
    assert sorted(draws.sites()) == ["mu", "ratio", "tau"]
    for name, value in draws.sites().items():
        np.testing.assert_array_equal(value, samples[name])
    names = {
        "diverging": "diverging",
        "n_steps": "num_steps",
        "acceptance_rate": "accept_prob",
        "energy": "energy",
        "step_size": "adapt_state.step_size",
    }
    for name, field in names.items():
        np.testing.assert_array_equal(draws.stats[name], fields[field])
    np.testing.assert_array_equal(draws.stats["lp"], -np.asarray(fields["potential_energy"]))
    assert draws.info["left_out"] == ["z_grad"]
    assert not draws.stats["non_finite"].any()
    assert draws.nfe == pytest.approx(float(np.mean(fields["num_steps"])))
    assert math.isnan(draws.seconds)
    assert draws.info["num_warmup"] == 200
    assert draws.attributes["sampler"] == "NumPyro NUTS"
    assert draws.attributes["target"] == "model"
    assert draws.attributes["asymptotically_exact"] == 1
    assert json.loads(draws.attributes["settings"])["num_samples"] == 300


def test_a_numpyro_run_and_its_tree_agree(mcmc: MCMC) -> None:
    direct, by_tree = Draws.from_numpyro_mcmc(mcmc), Draws.from_arviz(arviz.from_numpyro(mcmc))
    for name, value in direct.sites().items():
        np.testing.assert_array_equal(by_tree.sites()[name], value)
    for name in ("lp", "n_steps", "acceptance_rate", "diverging", "energy"):
        np.testing.assert_array_equal(by_tree.stats[name], direct.stats[name])
    assert by_tree.nfe == direct.nfe


def test_thinning_counts_the_steps_that_were_not_kept() -> None:
    draws = Draws.from_numpyro_mcmc(numpyro_run(3, 60, extra_fields=("num_steps",)))
    assert draws.num_draws == 20
    assert draws.nfe == pytest.approx(3 * draws.stats["n_steps"].mean())


def test_only_a_run_is_a_run() -> None:
    unused = MCMC(NUTS(model), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=r"`mcmc` has not run, .* `mcmc\.run"):
        Draws.from_numpyro_mcmc(unused)


@pytest.mark.usefixtures("unchecked_types")
def test_samples_alone_are_no_run() -> None:
    wrong: Any = {"mu": np.zeros(5)}
    with pytest.raises(TypeError, match=r"`mcmc` must be a numpyro\.infer\.MCMC .* got dict"):
        Draws.from_numpyro_mcmc(wrong)


# BlackJAX


def test_a_vmapped_history_comes_through_number_by_number() -> None:
    states, infos = history()
    draws = Draws.from_blackjax(states, infos, axes=("chain", "draw"))
    assert (draws.num_chains, draws.num_draws) == (4, 50)
    for name in ("a", "b"):
        np.testing.assert_array_equal(draws.position[name], states.position[name])
    np.testing.assert_array_equal(draws.stats["lp"], states.logdensity)
    pairs = {"acceptance_rate": "acceptance_rate", "diverging": "is_divergent", "energy": "energy"}
    for name, field in {**pairs, "accepted": "is_accepted", "n_steps": "num_integration_steps"}.items():
        np.testing.assert_array_equal(draws.stats[name], getattr(infos, field))
    assert draws.nfe == 3.0
    assert draws.attributes["sampler"] == "BlackJAX"  # its HMCInfo is that of many samplers
    assert draws.attributes["asymptotically_exact"] == 1
    assert not {"momentum", "proposal"} & set(draws.stats)


def test_one_history_is_one_chain() -> None:
    states, infos = history(None)
    draws = Draws.from_blackjax(states, infos)
    assert (draws.num_chains, draws.num_draws) == (1, 50)
    np.testing.assert_array_equal(draws.position["a"][0], states.position["a"])
    np.testing.assert_array_equal(draws.stats["energy"][0], infos.energy)


def test_a_scan_over_vmapped_steps_has_draws_first() -> None:
    states, infos = history()
    turned = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (states, infos))
    draws = Draws.from_blackjax(*turned, axes=("draw", "chain"))
    want = Draws.from_blackjax(states, infos, axes=("chain", "draw"))
    np.testing.assert_array_equal(draws.position["a"], want.position["a"])
    np.testing.assert_array_equal(draws.stats["lp"], want.stats["lp"])
    np.testing.assert_array_equal(draws.stats["energy"], want.stats["energy"])
    for chains, draws, pair in ((50, 4, turned), (4, 50, (states, infos))):
        with pytest.raises(
            ValueError, match=rf"Are these {chains} chains of {draws} draws .*, or {draws} chains of {chains}"
        ):
            Draws.from_blackjax(*pair)


def test_positions_alone_need_their_axes() -> None:
    states, _ = history()
    with pytest.raises(ValueError, match=r"`axes`: positions alone .*axes=\(\"draw\",\)"):
        Draws.from_blackjax(states.position)
    draws = Draws.from_blackjax(states.position, axes=("chain", "draw"), name="SGLD", nfe=1.0)
    np.testing.assert_array_equal(draws.position["b"], states.position["b"])
    assert draws.attributes["asymptotically_exact"] == "unknown"
    flat = Draws.from_blackjax(np.arange(5.0), axes=["draw"])
    np.testing.assert_array_equal(flat.sites()["x"], [np.arange(5.0)])
    with pytest.raises(ValueError, match="`axes` names the leading axes in their order, got 'draw'"):
        Draws.from_blackjax(states.position, axes="draw")
    with pytest.raises(ValueError, match="does not have the axes"):
        Draws.from_blackjax(np.arange(5.0), axes=("chain", "draw"))


def test_one_history_fits_another_only_of_its_own_run() -> None:
    states, infos = history()
    with pytest.raises(ValueError, match="`infos`: nothing in them is one number for each of the 4 x 50 draws"):
        Draws.from_blackjax(states, jax.tree.map(lambda leaf: leaf[:, :-1], infos), axes=("chain", "draw"))
    with pytest.raises(TypeError, match="`infos` must be BlackJAX's infos"):
        Draws.from_blackjax(states, 3.0, axes=("chain", "draw"))
    with pytest.raises(TypeError, match=r"Draws\.from_blackjax\(\*history\)"):
        Draws.from_blackjax((states, infos))
    with pytest.raises(ValueError, match="Pass the history of states, not the last one"):
        Draws.from_blackjax(jax.tree.map(lambda leaf: leaf[0, 0], states))


def test_unadjusted_chains_do_not_vouch_for_themselves() -> None:
    score = ss.Gaussian(jnp.zeros(2), 1.0)
    algorithm = blackjax.mclmc(score.logdensity, L=1.5, step_size=0.5)
    _, (states, infos) = run_inference_algorithm(
        jax.random.key(0), algorithm, 400, initial_position=jnp.zeros(2), transform=lambda state, info: (state, info)
    )
    draws = Draws.from_blackjax(states, infos)
    assert draws.attributes["sampler"] == "BlackJAX MCLMC"
    assert draws.attributes["asymptotically_exact"] == 0
    assert math.isnan(draws.nfe)


def test_a_history_is_shown_through_the_constrain_of_its_score(posterior: ss.DensityScore) -> None:
    flat, back = ravel_pytree({"mu": jnp.zeros(()), "tau": jnp.zeros(())})
    algorithm = blackjax.nuts(lambda x: posterior.logdensity(back(x)), 0.5, jnp.ones(2))
    _, (states, infos) = run_inference_algorithm(jax.random.key(0), algorithm, 20, initial_position=flat)
    position = jax.vmap(back)(states.position)
    draws = Draws.from_blackjax(position, infos, axes=("draw",), constrain=posterior.constrain)
    np.testing.assert_allclose(draws.sites()["tau"][0], np.exp(position["tau"]), rtol=1e-6)
    assert sorted(draws.sites()) == ["mu", "ratio", "tau"]
    assert draws.attributes["sampler"] == "BlackJAX NUTS"


def test_an_unadjusted_kernel_is_not_made_exact_by_what_arviz_makes_up() -> None:
    """ArviZ derives a `tree_depth` of any number of steps."""

    def normal() -> None:
        numpyro.sample("x", dist.Normal(0.0, 1.0))

    mcmc = MCMC(ScoreKernel(ss.ULA(1.2), normal, allow_prior=True), num_warmup=5, num_samples=20, progress_bar=False)
    mcmc.run(jax.random.key(0), extra_fields=("num_steps",))
    by_tree = Draws.from_arviz(arviz.from_numpyro(mcmc))
    assert by_tree.attributes["asymptotically_exact"] == "unknown"
    assert Draws.from_numpyro_mcmc(mcmc).attributes["asymptotically_exact"] == 0


# Beside our own


def test_chains_from_everywhere_are_compared_in_their_sites(
    mcmc: MCMC, own: Draws, posterior: ss.DensityScore, tmp_path: Path
) -> None:
    thinned = {"mu": own.sites()["mu"], "tau": own.sites()["tau"]}
    runs = {
        "own": own,
        "NumPyro": Draws.from_numpyro_mcmc(mcmc),
        "tree": Draws.from_arviz(tree_of(**thinned)),
    }
    comparison = ss.compare(runs, reference="own")
    assert {verdict.level for verdict in comparison.verdicts.values()} <= {"use", "use with care"}
    values = comparison.runs["own"].values
    assert list(values) == ["mu", "tau"]
    np.testing.assert_array_equal(values["tau"], own.sites()["tau"].astype(np.float64))
    assert comparison.table.loc["tree", "mean_error"] == 0.0
    assert any("all are compared there, in the model's own coordinates" in note for note in comparison.notes)
    assert "Not in every run, so not compared: ratio." in comparison.notes
    text = str(comparison)
    assert "–" in text
    assert "nan" not in text
    page = comparison.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "NumPyro NUTS" in page
    assert json.loads(comparison.to_json())["table"]["tree"]["nfe"] is None


def test_logarithms_are_not_compared_with_the_scales_themselves(own: Draws) -> None:
    """Positions of the same names and shapes may still be in different coordinates."""
    wrong = {"mu": own.sites()["mu"], "tau": np.asarray(own.position["tau"])}
    names = ["mu", "tau", "ratio"]
    runs = {"own": own, "logs": Draws.from_arviz(tree_of(**wrong, ratio=own.sites()["ratio"]), var_names=names)}
    assert ss.compare(runs, reference="own").verdicts["logs"].level == "do not use"


def test_histories_in_the_same_space_are_compared_there(posterior: ss.DensityScore, own: Draws) -> None:
    same = Draws.from_blackjax(own.position, own.stats, axes=("chain", "draw"), constrain=posterior.constrain)
    comparison = ss.compare({"own": own, "history": same}, reference="own")
    assert "tau (unconstrained)" in comparison.runs["own"].values
    assert comparison.table.loc["history", "mean_error"] == 0.0


def test_constants_of_a_tree_are_no_coordinates() -> None:
    factor = np.zeros((4, 1000, 2, 2), np.float32)
    factor[..., 0, 0] = 1.0
    factor[..., 1, 0], factor[..., 1, 1] = normal_chains(0), np.exp(normal_chains(1))
    comparison = ss.compare({"tree": Draws.from_arviz(tree_of(L=factor), asymptotically_exact=True)})
    assert list(comparison.runs["tree"].values) == ["L[1, 0]", "L[1, 1]"]
    assert comparison.verdicts["tree"].level == "use"
    assert "Constant in every draw, so not compared: L[0, 0] and L[0, 1]." in comparison.notes


def test_chains_that_never_moved_are_not_taken_for_constants() -> None:
    stuck = ss.compare({"stuck": Draws.from_arviz(tree_of(x=np.ones((4, 100))))})
    assert stuck.verdicts["stuck"].level == "do not use"
    moving = Draws.from_arviz(tree_of(x=normal_chains(0, draws=100)))
    both = ss.compare({"moving": moving, "stuck": Draws.from_arviz(tree_of(x=np.ones((4, 100))))})
    assert "never moved" in both.verdicts["stuck"].sentence


def test_chains_of_an_unknown_sampler_ask_for_care() -> None:
    tree = tree_of(mu=normal_chains(0))
    verdict = ss.compare({"tree": Draws.from_arviz(tree)}).verdicts["tree"]
    assert verdict.level == "use with care"
    assert "not known whether their sampler is asymptotically exact" in verdict.sentence
    assert ss.compare({"tree": Draws.from_arviz(tree, asymptotically_exact=True)}).verdicts["tree"].level == "use"


def test_runs_without_a_site_in_common_are_refused() -> None:
    one, other = Draws.from_arviz(tree_of(mu=normal_chains(0))), Draws.from_arviz(tree_of(nu=normal_chains(0)))
    with pytest.raises(ValueError, match=r"no named site is in all runs: 'one' has \['mu'\]; 'other' has \['nu'\]"):
        ss.compare({"one": one, "other": other})
    longer = Draws.from_arviz(tree_of(mu=normal_chains(0, 2)))
    with pytest.raises(ValueError, match="the site 'mu' has different shapes"):
        ss.compare({"one": one, "longer": longer})
