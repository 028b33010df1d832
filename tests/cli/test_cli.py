"""The command line: what it prints, what it returns, and how it answers mistakes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import scoresample
from scoresample.cli import main
from scoresample.cli._models import BUILT_IN, UnknownModel, load_model
from scoresample.paths import AbstractScorePath
from scoresample.samplers import available_samplers
from scoresample.scores import AbstractDensityScore, GaussianMixture

MODELS = """
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import scoresample as ss

y = jnp.array([0.2, 1.1, 0.4])


def a_score():
    return ss.Gaussian(jnp.array([1.0, -2.0]), 0.5)


def a_path():
    return ss.perturb(a_score(), ss.VP())


def a_model():
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Exponential(rate), obs=y)


def a_posterior():
    return ss.from_numpyro(a_model)


def a_prior():
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))


def needs_data(y, sigma=1.0):
    return ss.Gaussian(y, sigma)


def nothing():
    return 3


def bare():
    return ss.Score(lambda x: -x, structure=jnp.zeros(2))


finished = a_score()
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "my_models.py"
    path.write_text(MODELS, encoding="utf-8")
    return path


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    """Run a wrong command; its message, after checks that there is one line of it and no traceback."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if not line.startswith("...")]
    assert len(lines) == 2
    assert lines[1] == "Run again with --debug for the traceback."
    return lines[0]


def test_help_tells_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in (
        (["--help"], ["compare", "samplers", "examples:", "scoresample compare eight_schools"]),
        (["compare", "--help"], [*BUILT_IN, "path/to/file.py:function", "exit status", "--samplers", "--epochs"]),
        (["samplers", "--help"], ["List the samplers by name."]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(words in out for words in wanted), out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"scoresample {scoresample.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["sample"], ["compare"], ["compare", "mixture", "--num-samples", "many"]])
def test_wrong_words_stop_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: scoresample" in capsys.readouterr().err


def test_samplers_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["samplers"]) == 0
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()}
    assert list(rows) == ["name", *available_samplers()]
    assert "a density" in rows["nuts"]
    assert "any score" in rows["ula"]
    assert "a path from noise to data" in rows["reverse-sde"]


def test_an_unknown_sampler_brings_the_list_of_the_known(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "report"
    message = fails(["compare", "mixture", "--samplers", "nuts,gibbs", "--out", str(out)], capsys)
    assert "there is no sampler 'gibbs'" in message
    assert all(name in message for name in available_samplers())
    message = fails(["compare", "mixture", "--samplers", "nuts,blackjax", "--out", str(out)], capsys)
    assert "Use ss.BlackJAX(algorithm, ...) in Python" in message
    assert "`--samplers` is empty" in fails(["compare", "mixture", "--samplers", " ,", "--out", str(out)], capsys)
    assert not out.exists(), "a wrong command leaves nothing behind"


def test_an_unknown_model_brings_the_list_of_the_known(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    message = fails(["compare", "nine_schools"], capsys)
    assert "there is no model 'nine_schools'" in message
    assert all(name in message for name in BUILT_IN)
    missing = models.parent / "missing.py"
    assert f"there is no file '{missing}'" in fails(["compare", f"{missing}:f"], capsys)
    message = fails(["compare", f"{models}:posterior"], capsys)
    assert f"'{models}' has no function 'posterior'. It has: a_score, a_path, a_model" in message
    assert "needs the arguments y." in fails(["compare", f"{models}:needs_data"], capsys)
    assert "returned int and has no NumPyro sites" in fails(["compare", f"{models}:nothing"], capsys)
    assert "no site is observed" in fails(["compare", f"{models}:a_prior"], capsys)


def test_a_sampler_that_does_not_suit_is_a_mistake_too(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    arguments = ["compare", f"{models}:bare", "--samplers", "reverse-sde", "--out", str(tmp_path / "report")]
    assert "reverse-sde need a path from noise to the target" in fails(arguments, capsys)
    with pytest.raises(TypeError, match="reverse-sde need a path"):
        main([*arguments, "--debug"])


def test_models_come_from_files(models: Path) -> None:
    score = load_model(f"{models}:a_score")
    assert isinstance(score, AbstractDensityScore)
    np.testing.assert_allclose(score(jnp.zeros(2)), [2.0, -4.0], rtol=1e-6)
    assert isinstance(load_model(f"{models}:a_path"), AbstractScorePath)
    assert isinstance(load_model(f"{models}:finished"), AbstractDensityScore)
    for name in ("a_model", "a_posterior"):
        posterior = load_model(f"{models}:{name}")
        assert isinstance(posterior, AbstractDensityScore)
        np.testing.assert_allclose(posterior({"rate": jnp.asarray(0.0)})["rate"], 6.0 - (2.0 + 1.7), rtol=1e-5)
    with pytest.raises(UnknownModel):
        load_model(str(models))


def test_built_in_models_are_what_they_say() -> None:
    schools = load_model("eight_schools")
    assert isinstance(schools, AbstractDensityScore)
    position = {"mu": jnp.asarray(4.0), "tau": jnp.asarray(0.0), "theta_trans": jnp.zeros(8)}
    sites = schools.constrain(position)
    np.testing.assert_allclose(sites["theta"], 4.0)
    np.testing.assert_allclose(sites["tau"], 1.0)
    mixture = load_model("mixture")
    assert isinstance(mixture, GaussianMixture)
    assert mixture.means.shape == (8, 2)


def test_a_run_that_fails_has_a_status_of_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "failing.py"
    path.write_text(
        "import jax.numpy as jnp, scoresample as ss\n"
        "def edge():\n"
        "    return ss.Score(lambda x: jnp.where(x > 0.1, jnp.nan, 1.0), structure=jnp.zeros(1),\n"
        "                    init_position=lambda key: jnp.zeros(1))\n",
        encoding="utf-8",
    )
    arguments = ["compare", f"{path}:edge", "--samplers", "ula", "--out", str(tmp_path / "report")]
    message = fails([*arguments, "--num-samples", "200", "--num-warmup", "0"], capsys, status=1)
    assert message.startswith("scoresample: a run failed: ")
    assert "are not finite" in message


SMALL = ["--num-samples", "30", "--num-chains", "4", "--num-warmup", "30", "--epochs", "2"]


def test_compare_writes_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "here" / "report"
    samplers = "hmc,reverse-sde"
    assert main(["compare", "mixture", "--samplers", samplers, "--out", str(out), "--save-draws", *SMALL]) == 0
    captured = capsys.readouterr()
    names = ["exact draws", *samplers.split(","), "reverse-sde (learned score)"]
    for name in names:
        assert re.search(rf"^{re.escape(name)}( \(reference\))?: ", captured.out, flags=re.MULTILINE), name
    assert f"The report is at {out / 'report.html'}" in captured.out
    assert "... running hmc" in captured.err
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Learned scores" in html
    assert all(name in html for name in names)
    assert "Samplers on mixture" in html
    saved = {path.stem: path for path in (out / "draws").glob("*.nc")}
    assert sorted(saved) == sorted(name.replace(" ", "_") for name in names)
    with xr.open_datatree(saved["reverse-sde"], engine="h5netcdf") as tree:
        assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 120, "x_dim_0": 2}
        assert tree.attrs["sampler"] == "ReverseSDE"
        assert json.loads(tree.attrs["settings"])["num_steps"] == 50


def test_the_seed_decides_the_draws(models: Path, tmp_path: Path) -> None:
    def drawn(folder: str, *more: str) -> np.ndarray:
        out = tmp_path / folder
        arguments = ["compare", f"{models}:a_path", "--samplers", "probability-flow", "--out", str(out)]
        assert main([*arguments, *more, "--save-draws", *SMALL]) == 0
        with xr.open_datatree(out / "draws" / "probability-flow.nc", engine="h5netcdf") as tree:
            return np.asarray(tree["posterior"]["x"])

    one = drawn("one")
    np.testing.assert_array_equal(one, drawn("two"))
    assert not np.array_equal(one, drawn("three", "--seed", "1"))


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scoresample", "compare", "no_such_model"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "there is no model 'no_such_model'" in done.stderr
    assert "Traceback" not in done.stderr
