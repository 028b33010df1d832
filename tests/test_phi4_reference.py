"""The long HMC run on the phi^4 model: interrupted runs, signs, and errors of what is not a plain mean."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import scoresample as ss
from examples.papers.phi4_reference import Setting, estimates, hmc_reference, with_error

ROOT = Path(__file__).parent.parent
SMALL = Setting(4, 0.3, 3, num_burn_in=5, num_blocks=3, block_length=8, thinning=4)


def test_interrupted_runs_go_on_to_the_same_fields(tmp_path: Path) -> None:
    target, key = ss.LatticePhi4((4, 4), 0.34), jax.random.key(0)
    whole = hmc_reference(target, key, setting=SMALL, cache=tmp_path)
    assert whole.fields.shape == (4 * 3 * 8 // 4, 4, 4)
    (folder,) = tmp_path.iterdir()
    (folder / "block0003.npz").unlink()
    kept = (folder / "block0002.npz").stat().st_mtime_ns
    again = hmc_reference(target, key, setting=SMALL, cache=tmp_path)
    np.testing.assert_array_equal(again.fields, whole.fields)
    np.testing.assert_array_equal(again.series["m"], whole.series["m"])
    assert (folder / "block0002.npz").stat().st_mtime_ns == kept
    assert sorted(path.name for path in folder.iterdir()) == ["block0001.npz", "block0002.npz", "block0003.npz",
                                                              "burn-in.npz"]  # fmt: skip
    hmc_reference(ss.LatticePhi4((4, 4), 0.35), key, setting=SMALL, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "another target has a folder of its own"
    signs = np.sign(whole.fields.mean(axis=(1, 2)) / whole.series["m"][:, 3::4].ravel())
    assert 2 < np.sum(signs > 0) < 22
    np.testing.assert_allclose(whole.fields.mean(axis=(1, 2)), signs * whole.series["m"][:, 3::4].ravel(), atol=1e-6)


def test_errors_are_those_of_independent_normal_values() -> None:
    """Known in closed form, and as scattered as many repetitions are."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        m = rng.normal(size=(4, 500))
        series = {"|m|": np.abs(m), "m^2": m**2, "m^4": m**4}
        series |= {name: m for name in ("phi^2", "action per site", "phi dS/dphi")}
        found.append(estimates(series, 64, 10))
    expected = {
        "susceptibility": (64.0, 64 * np.sqrt(2 / 2000)),
        "connected susceptibility": (64 * (1 - 2 / np.pi), None),
        "<m^4>/<m^2>^2": (3.0, np.sqrt(24 / 2000)),
        "Binder cumulant": (0.0, np.sqrt(24 / 2000) / 3),
    }
    for name, (value, error) in expected.items():
        values = np.array([each[name].value for each in found])
        errors = np.array([each[name].standard_error for each in found])
        assert abs(values.mean() - value) < 5 * values.std() / np.sqrt(200) + 0.02 * values.std() * np.sqrt(200 / 2000)
        assert 0.75 < np.median(errors) / values.std() < 1.2, name
        if error is not None:
            assert values.std() == pytest.approx(error, rel=0.25)
        steps = np.median([each[name].steps for each in found])
        assert steps == pytest.approx(1, rel=0.15)
        assert found[0][name].evaluations == pytest.approx(10 * found[0][name].steps)


@pytest.mark.parametrize(("value", "error", "text"), [(0.60123, 0.0023, "0.6012(23)"), (178.4, 3.2, "178.4(32)")])
def test_numbers_are_written_with_their_errors(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_blocks_hold_whole_numbers_of_fields() -> None:
    with pytest.raises(ValueError, match="`block_length` must be a multiple of `thinning`"):
        Setting(block_length=7, thinning=2)


@pytest.mark.slow
def test_the_quick_run_meets_its_goals(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.papers.phi4_reference", "--quick", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
