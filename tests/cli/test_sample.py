"""`scoresample sample` and `scoresample resume`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scoresample as ss
from scoresample.cli import main
from scoresample.inference._run_store import RunStore

FEW = ["--num-samples", "60", "--num-warmup", "40", "--num-chains", "2"]

MODEL = """
import jax.numpy as jnp
import scoresample as ss


def target():
    return ss.Gaussian(jnp.array([1.0, -2.0]), 0.5)
"""


class Stopped(Exception):
    """Stands for a kill."""


def stop(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    real, seen = RunStore.commit, []

    def commit(self: RunStore, *args: Any) -> None:
        real(self, *args)
        seen.append(args[0])
        if len(seen) == after:
            raise Stopped

    monkeypatch.setattr(RunStore, "commit", commit)


def test_a_run_is_begun_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, store = tmp_path / "whole.zarr", tmp_path / "run.zarr"
    assert main(["sample", "eight_schools", "--store", str(whole), *FEW]) == 0
    assert "nuts" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        stop(patch, 5)
        with pytest.raises(Stopped):
            main(["sample", "eight_schools", "--store", str(store), *FEW])
    assert not ss.load(store).info["complete"]
    assert main(["resume", str(store), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    for name, values in ss.load(whole).position.items():
        np.testing.assert_array_equal(ss.load(store).position[name], values)


def test_path_samplers_run_on_closed_forms(tmp_path: Path) -> None:
    store = str(tmp_path / "run.zarr")
    assert main(["sample", "mixture", "--sampler", "reverse-sde", "--store", store, *FEW]) == 0
    assert main(["resume", store]) == 0
    assert ss.load(store).kind == "independent"


def test_a_model_file_runs_only_if_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, model = str(tmp_path / "run.zarr"), f"{tmp_path / 'mine.py'}:target"
    (tmp_path / "mine.py").write_text(MODEL)
    assert main(["sample", model, "--store", store, *FEW]) == 0
    (tmp_path / "mine.py").write_text(MODEL + "\nraise SystemError('it ran')\n")
    assert main(["resume", store]) == 2
    assert f"--model {model}" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text(MODEL)
    assert main(["resume", store, "--model", model]) == 0
    (tmp_path / "mine.py").write_text(MODEL.replace("0.5", "0.7"))
    assert main(["resume", store, "--model", model]) == 2
    assert "numbers and functions of the target" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "eight_schools", "--sampler", "reverse-sde"], "follows a path from noise to data"),
        (["sample", "eight_schools", "--sampler", "nuts,hmc"], "takes one name"),
        (["sample", "eight_schools", "--sampler", "nutz"], "there is no sampler 'nutz'"),
        (["sample", "nine_schools"], "there is no model 'nine_schools'"),
        (["resume", "nowhere.zarr"], "is no run of scoresample"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_run_of_python_is_resumed_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import jax
    import jax.numpy as jnp

    target = ss.Gaussian(jnp.zeros(2), 1.0)
    settings: dict[str, Any] = {"num_samples": 20, "num_warmup": 20, "num_chains": 2}
    ss.sample(target, ss.NUTS(), key=jax.random.key(0), store=tmp_path / "run.zarr", **settings)
    assert main(["resume", str(tmp_path / "run.zarr")]) == 2
    assert "sample(..., store=)" in capsys.readouterr().err
