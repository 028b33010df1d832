"""``scoresample posterior``: data in files, simulators by name, reports, and answers to mistakes."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from scoresample.cli import main
from scoresample.cli._models import UnknownModel
from scoresample.cli._observations import as_observations, read_arrays
from scoresample.cli._simulators import BUILT_IN_SIMULATORS, load_simulator
from scoresample.scores import AbstractSimulator

MODELS = """
import jax, jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import scoresample as ss


def model():
    theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(theta, 0.5).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(theta, 0.5))


def observe(key, theta):
    return theta + 0.5 * jax.random.normal(key, (2,))


bare = ss.simulator(observe, dist.Normal(0.0, 1.0))


def with_data():
    return bare, jnp.array([0.3, -0.2])


def alone():
    return bare


def known():
    def model():
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(theta, 0.5).expand([2]).to_event(1))

    return ss.simulator(model, observed="x")


def of_tuples():
    return ss.simulator(lambda key, theta: (theta, theta), dist.Normal(0.0, 1.0))


def nothing():
    return 3


def needs(y):
    return bare
"""

SMALL = ["--simulations", "200", "--epochs", "1", "--num-samples", "100", "--calibrate", "0"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "simulators.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["posterior", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_all_formats_hold_the_same_arrays(tmp_path: Path) -> None:
    x, y = np.array([[0.5, np.nan], [1.0, 2.0]]), np.array([3.0, 4.0])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    (tmp_path / "a.csv").write_text("x[1], x[0], y\n,0.5,3\n2,1.0,4\n", encoding="utf-8")
    (tmp_path / "a.json").write_text('{"x": [[0.5, null], [1, 2]], "y": [3, 4]}', encoding="utf-8")
    for ending in ("npz", "csv", "json"):
        found = read_arrays(tmp_path / f"a.{ending}")
        assert isinstance(found, dict)
        assert set(found) == {"x", "y"}
        np.testing.assert_array_equal(found["x"], x)
        np.testing.assert_array_equal(found["y"], y)
        assert found["x"].dtype == np.float64
    np.save(tmp_path / "a.npy", x.astype(np.float32))
    (tmp_path / "b.json").write_text("[[0.5, null], [1, 2]]", encoding="utf-8")
    for name in ("a.npy", "b.json"):
        found = read_arrays(tmp_path / name)
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1 2", r"ends in '\.txt'.*\.npz, \.npy, \.csv or \.json"),
        ("a.json", '{"x": ["one"]}', "cannot be read as arrays of numbers"),
        ("a.json", "{}", "holds no arrays"),
        ("a.json", '{"x": [[1, 2], [3]]}', "cannot be read as arrays of numbers"),
        ("a.csv", "x\none\n", "cannot be read as arrays of numbers"),
        ("a.csv", "x[0],x[2]\n1,2\n", r"columns \[0, 2\], not \[0, 1\]"),
        ("a.csv", "", "cannot be read as arrays of numbers"),
        ("a.npz", "no archive", "cannot be read as arrays of numbers"),
    ],
)
def test_files_that_hold_no_numbers_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as raised:
        read_arrays(tmp_path / name)
    assert name in str(raised.value)
    with pytest.raises(ValueError, match="there is no file"):
        read_arrays(tmp_path / "missing.npz")


def test_shapes_tell_one_observation_from_many(models: Path) -> None:
    bare = load_simulator(f"{models}:bare", ())[0]
    one, many = np.zeros(2), np.arange(6.0).reshape(3, 2)
    (found,) = as_observations(one, bare, "f")
    np.testing.assert_array_equal(found, one)
    found = as_observations(many, bare, "f")
    assert len(found) == 3
    np.testing.assert_array_equal(found[2], [4.0, 5.0])
    assert len(as_observations({"any": many}, bare, "f")) == 3
    found = as_observations({"a": many[:, 0], "b": many[:, 1]}, bare, "f")  # the columns of a table
    np.testing.assert_array_equal(found[1], many[1])
    with pytest.raises(ValueError, match=r"x in 'f' has the shape \(3,\). One observation has the shape \(2,\)"):
        as_observations(np.zeros(3), bare, "f")

    joint = load_simulator(f"{models}:model", ("y", "x"))[0]
    (found,) = as_observations({"y": np.array(1.0), "x": one}, joint, "f")
    assert set(found) == {"x", "y"}
    assert found["y"] == 1.0
    assert len(as_observations({"x": many, "y": np.zeros(3)}, joint, "f")) == 3
    with pytest.raises(ValueError, match=r"'f' has 'x', 'z', but .*'x'.* are wanted"):
        as_observations({"x": one, "z": one}, joint, "f")
    with pytest.raises(ValueError, match=r"'f' holds one array, but .*'x'"):
        as_observations(one, joint, "f")
    with pytest.raises(ValueError, match="do not have the same number of observations"):
        as_observations({"x": many, "y": np.zeros(2)}, joint, "f")

    known = load_simulator(f"{models}:known", ())[0]
    assert len(as_observations({"x": one}, known, "f")) == 1
    with pytest.raises(ValueError, match="'f' has 'z', but 'x' are wanted"):
        as_observations({"z": one}, known, "f")
    with pytest.raises(ValueError, match="this simulator's observations are a tuple"):
        as_observations(one, load_simulator(f"{models}:of_tuples", ())[0], "f")


def test_simulators_come_from_files(models: Path) -> None:
    for name in ("bare", "alone", "known"):
        made, own = load_simulator(f"{models}:{name}", ())
        assert isinstance(made, AbstractSimulator)
        assert own is None
    made, own = load_simulator(f"{models}:with_data", ())
    np.testing.assert_allclose(own, [0.3, -0.2])
    made, _ = load_simulator(f"{models}:model", ("x", "y"))
    assert made.dimension == 1
    assert set(made.observation) == {"x", "y"}
    for name, message in {
        "nothing": "returned int and has no NumPyro sites",
        "needs": "needs the arguments y",
        "model": "nothing says which of its sites are observed",
        "missing": "has no function 'missing'",
    }.items():
        with pytest.raises(UnknownModel, match=message):
            load_simulator(f"{models}:{name}", ())
    with pytest.raises(UnknownModel, match=r"there is no model 'three_moons'.*two_moons"):
        load_simulator("three_moons", ())


def test_built_in_simulators_are_what_they_say() -> None:
    found = {name: build() for name, build in BUILT_IN_SIMULATORS.items()}
    for made, own in found.values():
        assert np.shape(own) == jax.tree.leaves(made.observation)[0].shape
    centred, schools = found["eight_schools_centred"][0], found["eight_schools"][0]
    u = jax.random.normal(jax.random.key(0), (10,))
    # Both forms are the same model in these coordinates, and those of the sites differ only by their order.
    assert centred.dimension == schools.dimension == 10
    assert not found["two_moons"][0].has_likelihood()
    x = found["eight_schools"][1]
    np.testing.assert_allclose(
        centred.posterior_density(x).logdensity(u), schools.posterior_density(x).logdensity(u), rtol=1e-5
    )


def test_two_moons_are_two_crescents() -> None:
    made = BUILT_IN_SIMULATORS["two_moons"]()[0]
    theta, x = made.simulate(jax.random.key(0), 2000)
    named = np.asarray(jax.vmap(made.constrain)(theta)["theta"])
    assert np.abs(named).max() < 1
    total, difference = named[:, 0] + named[:, 1], named[:, 1] - named[:, 0]
    crescent = np.asarray(x) - np.stack([0.25 - np.abs(total) / np.sqrt(2), difference / np.sqrt(2)], axis=1)
    radius = np.linalg.norm(crescent, axis=1)
    assert crescent[:, 0].min() > -1e-6
    assert abs(radius.mean() - 0.1) < 5 * 0.01 / np.sqrt(2000)
    np.testing.assert_allclose(radius.std(), 0.01, rtol=5 / np.sqrt(2 * 2000))


def test_it_writes_a_report(capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path) -> None:
    out, data = tmp_path / "here" / "report", tmp_path / "data.json"
    data.write_text(json.dumps({"x": [2.5, -2.0]}), encoding="utf-8")
    arguments = [f"{models}:known", "--observed", str(data), "--out", str(out), *SMALL]
    assert main(["posterior", *arguments]) == 0
    captured = capsys.readouterr()
    assert "... simulating and training" in captured.err
    assert "... running NUTS on the exact density" in captured.err
    assert "calibrating" not in captured.err
    assert f"The report is at {out / 'report.html'}" in captured.out
    assert re.search(r"^theta +-?\d", captured.out, flags=re.MULTILINE)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "✓ Use</span>" not in html.split("NUTS beside it")[0], "one epoch and 100 draws are no ground for trust"
    assert f"--observed {data}" in html
    assert "--seed 0" in html
    with xr.open_datatree(out / "draws" / "posterior.nc", engine="h5netcdf") as tree:
        assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 100}
        assert tree.attrs["verdict"] != "use"
    with xr.open_datatree(out / "draws" / "nuts.nc", engine="h5netcdf") as tree:
        assert dict(tree["posterior"].sizes) == {"chain": 4, "draw": 25}


def test_several_observations_get_a_report_each(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "data.npy", np.linspace(-1, 1, 24).reshape(12, 2))
    arguments = [f"{models}:bare", "--observed", str(tmp_path / "data.npy"), "--out", str(tmp_path / "out"), *SMALL]
    message = fails(arguments, capsys)
    assert "holds 12 observations" in message
    assert "--rows 0,1,2" in message
    assert "from 0 to 11" in fails([*arguments, "--rows", "1,12"], capsys)
    assert "from 0 to 11" in fails([*arguments, "--rows", "one"], capsys)
    assert not (tmp_path / "out").exists(), "a wrong command leaves nothing behind"
    assert main(["posterior", *arguments, "--rows", "1,7", "--calibrate", "100"]) == 0
    told = capsys.readouterr().err
    assert told.count("training") == told.count("calibrating") == 1
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert folders == ["observation-1", "observation-7"]
    html = (tmp_path / "out" / "observation-7" / "report.html").read_text(encoding="utf-8")
    assert "observation 7" in html
    assert "100 simulated observations" in html
    assert "Certificate" not in html
    assert not (tmp_path / "out" / "observation-7" / "draws" / "nuts.nc").exists()


def test_the_seed_decides_the_draws(models: Path, tmp_path: Path) -> None:
    def drawn(folder: str, *more: str) -> np.ndarray:
        out = tmp_path / folder
        assert main(["posterior", f"{models}:with_data", "--out", str(out), *more, *SMALL]) == 0
        with xr.open_datatree(out / "draws" / "posterior.nc", engine="h5netcdf") as tree:
            return np.asarray(tree["posterior"]["theta"])

    one = drawn("one")
    np.testing.assert_array_equal(one, drawn("two"))
    assert not np.array_equal(one, drawn("three", "--seed", "1"))


def test_mistakes_are_answered_before_the_training(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        return fails([*arguments, "--out", str(tmp_path / "out")], capsys)

    np.save(tmp_path / "gaps.npy", np.array([0.1, np.nan]))
    bare = f"{models}:bare"
    assert "`--observed` is needed" in refused(bare)
    assert "there is no model 'nine_schools'" in refused("nine_schools")
    assert "1 numbers of" in refused(bare, "--observed", str(tmp_path / "gaps.npy"))
    assert "there is no file" in refused(bare, "--observed", str(tmp_path / "none.npy"))
    assert "`--fresh`" in refused("two_moons", "--fresh", "--simulations", "500")
    assert "`--calibrate` must be at least 100" in refused("two_moons", "--calibrate", "10")
    assert "`--num-samples` must be at least 100" in refused("two_moons", "--num-samples", "10")
    assert "`--informed` needs the density" in refused("two_moons", "--informed")
    assert not (tmp_path / "out").exists()
    debug: Any = ["posterior", "nine_schools", "--debug"]
    with pytest.raises(UnknownModel):
        main(debug)


def test_missing_numbers_are_fine_where_the_simulator_leaves_some_out(tmp_path: Path) -> None:
    path = tmp_path / "gaps.py"
    path.write_text(
        "import jax, jax.numpy as jnp, numpyro.distributions as dist, scoresample as ss\n"
        "def observe(key, theta):\n"
        "    x = theta + jax.random.normal(key, (3,))\n"
        "    return jnp.where(jax.random.uniform(key, (3,)) < 0.2, jnp.nan, x)\n"
        "sim = ss.simulator(observe, dist.Normal(0.0, 1.0))\n",
        encoding="utf-8",
    )
    (tmp_path / "data.csv").write_text("a,b,c\n0.1,,0.3\n", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["posterior", f"{path}:sim", "--observed", str(tmp_path / "data.csv"), "--out", str(out), *SMALL]) == 0
    assert (out / "report.html").exists()
    (one,) = as_observations(read_arrays(tmp_path / "data.csv"), load_simulator(f"{path}:sim", ())[0], "data")
    np.testing.assert_array_equal(one, [0.1, np.nan, 0.3])
