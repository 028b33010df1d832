"""`Draws` as such: axes, named sites, the DataTree, weights."""

import json
from pathlib import Path

import arviz
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jaxtyping import Array

from scoresample.inference import Draws
from scoresample.scores import Position
from tests.diagnostics.made_draws import made_draws, normal_chains


def constrain(position: Position) -> dict[str, Array]:
    scale = jnp.exp(position["log_scale"])
    return {"scale": scale, "product": scale * position["effects"]}


def chains() -> Draws:
    position = {"effects": normal_chains(0, 2, draws=50), "log_scale": normal_chains(1, draws=50)}
    accepted = np.full((4, 50), 0.8)
    return made_draws(position, constrain=constrain, stats={"acceptance_rate": accepted, "non_finite": accepted > 1})


def weighted(log_weights: np.ndarray) -> Draws:
    """Draws that are the numbers from 0 on, with statistics that repeat them."""
    numbers = np.arange(log_weights.size, dtype=np.float32).reshape(log_weights.shape)
    return made_draws(numbers, "independent", log_weights=log_weights, stats={"lp": -numbers})


def test_axes_are_chain_and_draw() -> None:
    draws = chains()
    assert (draws.num_chains, draws.num_draws) == (4, 50)


def test_sites_are_constrained_draw_by_draw() -> None:
    draws = chains()
    sites = draws.sites()
    scale = np.exp(draws.position["log_scale"])
    assert sorted(sites) == ["product", "scale"]
    np.testing.assert_allclose(sites["scale"], scale, rtol=1e-6)
    np.testing.assert_allclose(sites["product"], scale[..., None] * draws.position["effects"], rtol=1e-6)
    assert sites["product"].dtype == np.float32


def test_a_data_tree_holds_sites_statistics_and_the_run() -> None:
    draws = chains()
    tree = draws.to_arviz()
    assert isinstance(tree, xr.DataTree)
    assert sorted(tree.children) == ["posterior", "sample_stats"]
    assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": 50, "product_dim_0": 2}
    np.testing.assert_array_equal(tree["posterior"]["scale"], draws.sites()["scale"])
    np.testing.assert_array_equal(tree["sample_stats"]["acceptance_rate"], draws.stats["acceptance_rate"])
    for attributes in (tree.attrs, tree["posterior"].attrs):
        assert attributes["sampler"] == "made up"
        assert json.loads(attributes["settings"]) == {"steps": 10}
        assert attributes["kind"] == "chains"
        assert attributes["nfe"] == 10.0
        assert attributes["seconds"] == 2.5
        assert "resampled" not in attributes


def test_draws_without_statistics_have_no_such_group() -> None:
    assert sorted(made_draws(normal_chains(0)).to_arviz().children) == ["posterior"]


def test_chains_have_an_r_hat_and_independent_draws_have_none() -> None:
    several = arviz.rhat(made_draws(normal_chains(0)).to_arviz())["x"]
    np.testing.assert_allclose(several, 1.0, atol=0.01)
    alone = made_draws(normal_chains(0, chains=1), "independent")
    assert np.isnan(arviz.rhat(alone.to_arviz())["x"])
    summary = alone.summary()
    assert np.isnan(summary["r_hat"]).all()
    assert summary.loc["x", "mean"] == pytest.approx(alone.position.mean(), abs=1e-6)


@pytest.mark.parametrize("num", [10, 1000])
def test_weighted_draws_are_resampled_systematically(num: int) -> None:
    log_weights = np.random.default_rng(0).normal(size=(1, num)) * 2.0
    tree = weighted(log_weights).to_arviz()
    chosen = np.asarray(tree["posterior"]["x"]).astype(int)
    assert chosen.shape == (1, num)
    weights = np.exp(log_weights[0] - log_weights.max())
    expected = num * weights / weights.sum()
    copies = np.bincount(chosen[0], minlength=num)
    # Systematic resampling rounds the expected number of copies up or down, and does nothing else.
    assert np.all(copies >= np.floor(expected - 1e-6))
    assert np.all(copies <= np.ceil(expected + 1e-6))
    np.testing.assert_array_equal(tree["sample_stats"]["lp"], -chosen.astype(np.float32))
    assert "systematic" in tree.attrs["resampled"]
    np.testing.assert_array_equal(weighted(log_weights).to_arviz()["posterior"]["x"], chosen)


def test_weights_may_have_any_constant_and_leave_the_sites_alone() -> None:
    log_weights = np.array([[*np.log([0.1, 0.7, 0.2]), -np.inf]])
    draws = weighted(log_weights + 5000.0)
    np.testing.assert_array_equal(draws.sites()["x"], draws.position)
    resampled = np.asarray(draws.to_arviz()["posterior"]["x"])
    assert 3 not in resampled
    assert (resampled == 1).sum() in (2, 3)


def test_weighted_chains_keep_their_axes() -> None:
    log_weights = np.zeros((2, 30))
    tree = weighted(log_weights).to_arviz()
    np.testing.assert_array_equal(tree["posterior"]["x"], np.arange(60).reshape(2, 30))


def test_a_data_tree_survives_the_disk(tmp_path: Path) -> None:
    tree = chains().to_arviz()
    tree.attrs["versions"] = json.dumps(tree.attrs["versions"])
    tree["posterior"].attrs["versions"] = tree.attrs["versions"]
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back["posterior"]["scale"], tree["posterior"]["scale"])
        assert back.attrs["sampler"] == "made up"


def test_a_line_says_what_a_run_is() -> None:
    text = repr(chains())
    assert text.startswith("Draws by made up: 4 x 50 (chains), 10 score evaluations per draw")
    assert "product: (2,) float32" in text
    assert "not finite" not in text
    flags = np.zeros((4, 50), bool)
    flags[1, :3] = True
    assert "3 draws are not finite" in repr(made_draws(normal_chains(0, draws=50), stats={"non_finite": flags}))
