"""Files of scores and of interrupted trainings: the same bits come back, or an error that says why not."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import ResidualConv, UNet
from scoresample.scores import Position
from scoresample.training import _archive, _fit
from tests.training.test_fit import Gain, correlated, gain

FIXTURE = Path(__file__).parent / "score-format-1.safetensors"
SETTINGS: dict[str, Any] = {"num_epochs": 2, "width": 4, "depth": 1, "progress": False}


def fit(data: Any, **settings: Any) -> Any:
    return ss.fit_score(data, key=jax.random.key(0), **(SETTINGS | settings))


def tree_data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"rate": rng.gamma(2.0, size=(60, 2)), "shift": rng.normal(3.0, 0.1, size=60)}


SCORES: dict[str, Any] = {
    "plain": lambda: fit(correlated(60)),
    "a tree with bounds": lambda: fit(tree_data(), support={"rate": (0.0, None)}, parametrisation="noise"),
    "an energy": lambda: fit(correlated(60), parametrisation="energy"),
    "an ensemble under another process": lambda: fit(correlated(60), num_members=2).with_process(ss.VE(0.01, 30.0)),
    "a field": lambda: fit(
        np.random.default_rng(0).normal(size=(60, 4, 4)),
        network=lambda key: UNet((4, 4), width=4, num_levels=1, periodic=True, key=key),
        standardise="arrays",
    ),
    "details of a field": lambda: fit(
        np.random.default_rng(0).normal(size=(60, 3, 4, 4)),
        conditions=np.random.default_rng(1).normal(size=(60, 4, 4)),
        network=lambda key: ResidualConv(2, width=4, blocks=1, channels=3, condition_channels=1, key=key),
        standardise="arrays",
    ).given(np.ones((4, 4))),
    "a conditional score": lambda: fit(
        correlated(60), conditions={"a": np.arange(60) % 7, "b": correlated(60, 1)}
    ).given({"a": 3, "b": np.array([1.0, 2.0])}),
    "a conditional field under another process": lambda: (
        fit(
            np.random.default_rng(0).normal(size=(60, 4, 4)),
            conditions=np.random.default_rng(1).normal(size=(60, 2, 4, 4)),
            network=lambda key: UNet((4, 4), width=4, num_levels=1, condition_shape=(2, 4, 4), key=key),
            standardise="arrays",
            standardise_conditions="none",
        )
        .with_process(ss.VE(0.01, 30.0))
        .given(np.ones((2, 4, 4)))
    ),
}


def value(score: Any) -> Position:
    position = jax.tree.map(lambda leaf: 0.3 * jnp.ones(leaf.shape, leaf.dtype), score.structure)
    return eqx.filter_jit(lambda s, x: s(x, 0.4))(score, position)


@pytest.mark.parametrize("name", list(SCORES))
def test_a_score_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    score = SCORES[name]()
    ss.save_score(score, tmp_path / "score.safetensors")
    again = ss.load_score(tmp_path / "score.safetensors")
    assert type(again) is type(score)
    arrays, others = eqx.partition(score, eqx.is_array)
    arrays_again, others_again = eqx.partition(again, eqx.is_array)
    assert jax.tree.structure(others_again) == jax.tree.structure(others)
    for old, new in zip(jax.tree.leaves(arrays), jax.tree.leaves(arrays_again), strict=True):
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(old, new)
    for old, new in zip(jax.tree.leaves(value(score)), jax.tree.leaves(value(again)), strict=True):
        np.testing.assert_array_equal(old, new)
    inner: Any = getattr(again, "inner", again)
    assert str(inner.record) == str(getattr(score, "inner", score).record)
    assert list(tmp_path.iterdir()) == [tmp_path / "score.safetensors"]


def test_a_conditional_score_comes_back_with_what_it_was_given(tmp_path: Path) -> None:
    score = fit(correlated(60), conditions=correlated(60, 1), parametrisation="energy")
    for given in (score, score.given(correlated(5, 2))):
        ss.save_score(given, tmp_path / "score")
        again: Any = ss.load_score(tmp_path / "score")
        for old, new in zip(jax.tree.leaves(given), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(old, new)
        assert jax.tree.structure(again.condition_axes()) == jax.tree.structure(given.condition_axes())
    one = correlated(1, 3)[0]
    np.testing.assert_array_equal(value(again.given(one)), value(score.given(one)))


def test_files_without_conditions_do_not_speak_of_them(saved: bytes, tmp_path: Path) -> None:
    content, arrays = _archive_of(saved, tmp_path)
    assert '"condition' not in json.dumps(content)
    assert not any("condition" in name for name in arrays)
    ss.save_score(fit(correlated(60)), tmp_path / "mlp")
    assert '"condition' not in json.dumps(_archive.read_archive(tmp_path / "mlp", "score")[0])


def test_a_file_of_the_first_format_still_loads() -> None:
    """Written by release 0.1, from data with bounds; what it must give was written down then."""
    score: Any = ss.load_score(FIXTURE)
    assert isinstance(score.constrain, ss.Support)
    got = value(score)
    for name, expected in EXPECTED.items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)
    assert score.record.num_train == 50
    # Not recorded then.
    assert np.isnan(score.record.smallest_scale)
    assert score.smallest_scale() is None


EXPECTED = {"rate": [-0.5430589914321899, 0.08291540294885635], "shift": 231.0601348876953}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("scores") / "score.safetensors"
    ss.save_score(fit(correlated(60), network=gain()), path)
    return path.read_bytes()


def test_a_flipped_bit_anywhere_is_no_other_score(saved: bytes, tmp_path: Path) -> None:
    """Every byte of the file, one bit each: an error, or (in the header's blanks) the very same score."""
    good = _archive_of(saved, tmp_path)
    refused = 0
    for place in range(len(saved)):
        damaged = bytearray(saved)
        damaged[place] ^= 1 << (place % 8)
        try:
            found = _archive_of(bytes(damaged), tmp_path)
        except ValueError:
            refused += 1
            continue
        assert found[0] == good[0]
        assert found[1].keys() == good[1].keys()
        assert all(np.array_equal(found[1][name], good[1][name]) for name in good[1])
    assert refused > 0.98 * len(saved)


def _archive_of(content: bytes, folder: Path) -> Any:
    path = folder / "file.safetensors"
    path.write_bytes(content)
    return _archive.read_archive(path, "score")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: bytes, share: float, tmp_path: Path) -> None:
    path = tmp_path / "score.safetensors"
    path.write_bytes(saved[: int(share * len(saved))])
    with pytest.raises(ValueError, match="truncated, damaged or no safetensors file"):
        ss.load_score(path)


def _rewritten(saved: bytes, folder: Path, change: Any) -> Path:
    """The file with its content changed, and a checksum that fits."""
    content, arrays = _archive_of(saved, folder)
    change(content, arrays)
    path = folder / "changed.safetensors"
    _archive.write_archive(path, "score", content, arrays)
    return path


def test_files_that_do_not_fit_are_refused(saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = gain()

    def other_shape(content: Any, arrays: Any) -> None:
        arrays["fn.network.weight"] = np.zeros(3, np.float32)

    with pytest.raises(ValueError, match=r"fn.network.weight has shape \(3,\), but \(\) is called for"):
        ss.load_score(_rewritten(saved, tmp_path, other_shape), network=network)

    def other_type(content: Any, arrays: Any) -> None:
        arrays["fn.network.weight"] = np.zeros((), np.int32)

    with pytest.raises(ValueError, match="has the type int32, but float32 is called for"):
        ss.load_score(_rewritten(saved, tmp_path, other_type), network=network)

    def huge(content: Any, arrays: Any) -> None:
        sizes = {"dimension": 2, "width": 4, "depth": 10**9, "outputs": None, "noise_level": "film"}
        content["denoiser"]["network"] = {"class": "ResidualMLP", "settings": sizes}

    with pytest.raises(ValueError, match="depth=1000000000 does not fit its"):
        ss.load_score(_rewritten(saved, tmp_path, huge))
    with pytest.raises(ValueError, match=r"missing \['fn.network.weight'\]"):
        ss.load_score(_rewritten(saved, tmp_path, lambda _, arrays: arrays.pop("fn.network.weight")), network=network)
    with pytest.raises(ValueError, match="does not hold a score that this release knows"):
        ss.load_score(_rewritten(saved, tmp_path, lambda content, _: content.pop("denoiser")), network=network)
    with pytest.raises(ValueError, match="`network` is needed: of the network, a Gain, the file holds"):
        ss.load_score(_rewritten(saved, tmp_path, lambda *_: None))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        ss.load_score(tmp_path / "nothing")
    monkeypatch.setattr(_archive, "FORMAT_VERSION", 2)
    later = _rewritten_later(saved, tmp_path, monkeypatch)
    monkeypatch.setattr(_archive, "FORMAT_VERSION", 1)
    with pytest.raises(ValueError, match="format version 2, but this release reads version 1"):
        ss.load_score(later)


def _rewritten_later(saved: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "later.safetensors"
    _archive.write_archive(path, "score", {}, {"x": np.zeros(1)})
    return path


def test_somebody_elses_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1)}, path, metadata={"about": json.dumps({})})
    with pytest.raises(ValueError, match="was not written by scoresample"):
        ss.load_score(path)


def test_a_network_of_ones_own_comes_back(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "score.safetensors"
    path.write_bytes(saved)
    again: Any = ss.load_score(path, network=Gain(jnp.asarray(7.0)))
    assert float(again.fn.network.weight) == float(fit(correlated(60), network=gain()).fn.network.weight)


def test_functions_are_not_written(tmp_path: Path) -> None:
    def constrain(position: Array) -> dict[str, Array]:
        return {"scale": jnp.exp(position)}

    score = eqx.tree_at(lambda s: s.constrain, fit(correlated(60)), constrain)
    ss.save_score(score, tmp_path / "score")
    with pytest.warns(UserWarning, match="`constrain` is a function"):
        ss.load_score(tmp_path / "score")
    assert ss.load_score(tmp_path / "score", constrain=constrain).constrain is constrain
    mine = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2))
    with pytest.raises(TypeError, match="must be one that fit_score returned"):
        ss.save_score(mine, tmp_path / "mine")


def interrupted_at(epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training be interrupted, as by a person, in the round that holds an epoch."""
    run, calls = _fit.run_round, []

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > epoch:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(_fit, "run_round", stop)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_members": 2, "width": 4, "depth": 1, "weighting": "learned"},
        {"conditions": correlated(200, 1), "width": 4, "depth": 1},
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_bits(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = correlated(200)
    settings = {
        "num_epochs": 8,
        "checkpoint": tmp_path / "run",
        **({} if settings else {"network": gain()}),
        **settings,
    }
    whole = fit(data, **(settings | {"checkpoint": None}))
    with monkeypatch.context() as patched:
        interrupted_at(3, patched)
        with pytest.raises(KeyboardInterrupt):
            fit(data, **settings)
    resumed = fit(data, **settings)
    for a, b in zip(jax.tree.leaves(whole.fn), jax.tree.leaves(resumed.fn), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(whole.record.train_loss, resumed.record.train_loss)
    np.testing.assert_array_equal(whole.record.validation_loss, resumed.record.validation_loss)
    assert len(resumed.record.train_loss) == 8
    with monkeypatch.context() as patched:
        interrupted_at(0, patched)
        again = fit(data, **settings)
    np.testing.assert_array_equal(jax.tree.leaves(again.fn)[0], jax.tree.leaves(whole.fn)[0])


def test_a_training_with_other_conditions_is_another(tmp_path: Path) -> None:
    data, conditions = correlated(60), correlated(60, 1)
    fit(data, conditions=conditions, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="belongs to a training with another key, data"):
        fit(data, conditions=np.roll(conditions, 1, axis=0), checkpoint=tmp_path / "run")


def test_one_training_gives_the_best_weights_and_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both train alike, so a finished file serves both without another step."""
    data = correlated(300)
    settings: dict[str, Any] = {"network": gain(0.0), "learning_rate": 0.5, "num_epochs": 8}
    best, last = (fit(data, keep=keep, **settings) for keep in ("best", "last"))
    assert best.fn.network.weight != last.fn.network.weight
    fit(data, checkpoint=tmp_path / "run", **settings)
    with monkeypatch.context() as patched:
        interrupted_at(0, patched)
        again = fit(data, checkpoint=tmp_path / "run", keep="last", **settings)
    assert again.fn.network.weight == last.fn.network.weight
    assert again.record.best_epoch == last.record.best_epoch


def test_a_stream_resumes_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = correlated(400)

    def batches() -> Any:
        return iter(np.split(data, 20))

    settings: dict[str, Any] = {"num_epochs": 6, "network": gain(), "buffer_size": 100}
    whole = fit(batches, **settings)
    with monkeypatch.context() as patched:
        interrupted_at(3, patched)
        with pytest.raises(KeyboardInterrupt):
            fit(batches, checkpoint=tmp_path / "run", **settings)
    resumed = fit(batches, checkpoint=tmp_path / "run", **settings)
    assert resumed.fn.network.weight == whole.fn.network.weight
    np.testing.assert_array_equal(whole.record.train_loss, resumed.record.train_loss)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"network": gain(), "checkpoint": tmp_path / "run"}
    fit(correlated(60), **settings)
    changes: list[dict[str, Any]] = [
        {"learning_rate": 0.1},
        {"learning_rate": lambda step: 1e-3},
        {"data": correlated(60, 1)},
        {"network": gain(0.9)},
        {"num_epochs": 3},
        {"parametrisation": "velocity"},
        {"validation_fraction": 0.3},
    ]
    for change in changes:
        with pytest.raises(ValueError, match="belongs to a training with another key, data, network or settings"):
            fit(change.get("data", correlated(60)), **(settings | {k: v for k, v in change.items() if k != "data"}))
