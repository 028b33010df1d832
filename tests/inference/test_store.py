"""Runs in a store: the same draws, whatever happens between their chunks."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import arviz
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import scoresample as ss
from scoresample.inference import _stored_output
from scoresample.inference._digest import digest
from scoresample.inference._run_store import RunStore
from scoresample.scores import power_law_spectrum
from scoresample.wavelets import perturb_wavelets

KEY = jax.random.key(0)
NARROW, WIDE = dist.Normal(0.0, 1.0), dist.Normal(0.0, 2.0)


def model() -> None:
    """A site on a half-line, one in the plane, and a deterministic one."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.deterministic("double", 2 * scale)
    with numpyro.plate("two", 2):
        numpyro.sample("effects", dist.Normal(0.0, scale))


def posterior() -> ss.DensityScore:
    return ss.from_numpyro(model, allow_prior=True)


CHAINS: dict[str, Any] = {"num_chains": 5, "num_samples": 45, "num_warmup": 30, "batch_size": 2, "progress": False}
PARTICLES: dict[str, Any] = {"num_chains": 1, "num_samples": 50, "batch_size": 16, "progress": False}


def chains(store: Path | None = None, **settings: Any) -> ss.Draws:
    return ss.sample(posterior(), ss.NUTS(), key=KEY, store=store, **{**CHAINS, **settings})


def mixture() -> ss.GaussianMixture:
    return ss.GaussianMixture(jnp.array([0.3, 0.7]), jnp.array([[-1.0, 0.0], [2.0, 1.0]]), jnp.array([0.3, 0.5]))


def particles(store: Path | None = None, sampler: Any = None, **settings: Any) -> ss.Draws:
    path = ss.perturb(mixture(), ss.VP())
    sampler = ss.ReverseSDE(num_steps=6) if sampler is None else sampler
    return ss.sample(path, sampler, key=KEY, store=store, **{**PARTICLES, **settings})


def same(one: ss.Draws, other: ss.Draws) -> None:
    """To the bit: positions, statistics, weights and facts."""
    for field in ("position", "stats", "log_weights", "nfe", "kind"):
        jax.tree.map(np.testing.assert_array_equal, getattr(one, field), getattr(other, field))
    for name in ("num_evaluations", "num_warmup"):
        assert one.info[name] == other.info[name]


class Stopped(Exception):
    """Stands for a kill."""


def stop_after(monkeypatch: pytest.MonkeyPatch, commits: int, *, before_commit: bool = False) -> None:
    """Raise after so many commits, or when arrays of the next task have been written and its commit has not."""
    real, seen = RunStore.commit, []

    def commit(self: RunStore, block: int, done: int, leaves: Any) -> None:
        if before_commit and len(seen) == commits:
            raise Stopped
        real(self, block, done, leaves)
        seen.append(block)
        if len(seen) == commits and not before_commit:
            raise Stopped

    monkeypatch.setattr(RunStore, "commit", commit)


@pytest.mark.parametrize("run", [chains, particles])
def test_a_store_changes_no_bit(run: Any, tmp_path: Path) -> None:
    stored = run(tmp_path / "run.zarr")
    same(run(), stored)
    same(run(), run(tmp_path / "run.zarr"))


@pytest.mark.parametrize("before_commit", [False, True])
@pytest.mark.parametrize(("run", "commits"), [(chains, 1), (chains, 9), (chains, 20), (chains, 30), (particles, 2)])
def test_a_run_goes_on_to_the_same_bits(
    run: Any, commits: int, before_commit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        stop_after(patch, commits, before_commit=before_commit)
        with pytest.raises(Stopped):
            run(store)
    commits_again = []
    real = RunStore.commit
    monkeypatch.setattr(RunStore, "commit", lambda *a: (commits_again.append(a[1]), real(*a))[1])
    same(run(), run(store))
    total = 3 * (1 + 15) if run is chains else 4
    assert len(commits_again) == total - commits


@pytest.mark.parametrize(
    "sampler",
    [
        ss.WithDensity(ss.ProbabilityFlowODE(num_steps=4, solver="dpm-solver++2m")),
        ss.ParallelMALA(num_steps=10),
    ],
)
def test_statistics_of_particles_are_stored(sampler: Any, tmp_path: Path) -> None:
    same(particles(sampler=sampler), particles(tmp_path / "run.zarr", sampler))
    particles(tmp_path / "run.zarr", sampler)


def test_interacting_particles_are_one_block(tmp_path: Path) -> None:
    path = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 2.0), mixture())
    settings: dict[str, Any] = {"key": KEY, "num_chains": 1, "num_samples": 64, "progress": False}
    sampler = ss.TemperedSMC()
    stored = ss.sample(path, sampler, store=tmp_path / "run.zarr", **settings)
    same(ss.sample(path, sampler, **settings), stored)
    assert stored.kind == "interacting"
    same(ss.load(tmp_path / "run.zarr", path), stored)


def test_load_reads_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, whole = tmp_path / "run.zarr", chains()
    with monkeypatch.context() as patch:
        stop_after(patch, 16 + 8)  # the first block, and 7 of 15 chunks of the second
        with pytest.raises(Stopped):
            chains(store)
    draws = ss.load(store)
    assert (draws.num_chains, draws.num_draws, draws.info["complete"]) == (2, 45, False)
    sites = whole.sites()
    assert sorted(draws.sites()) == sorted(sites)
    for name, values in draws.sites().items():
        np.testing.assert_array_equal(values, sites[name][:2])
    np.testing.assert_array_equal(draws.stats["energy"], whole.stats["energy"][:2])
    assert draws.to_arviz()["posterior"].sizes["draw"] == 45
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Stopped):
            chains(store)
    assert ss.load(store).position["scale"].shape == (4, 39)
    target = posterior()
    positions = ss.load(store, target).position
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:4, :39]), positions, whole.position)


def test_arviz_reads_a_store(tmp_path: Path) -> None:
    draws = chains(tmp_path / "run.zarr")
    tree = xr.open_datatree(tmp_path / "run.zarr", engine="zarr")
    assert {"posterior", "sample_stats", "unconstrained_posterior"} <= set(tree.children)
    np.testing.assert_array_equal(tree["posterior"]["effects"], draws.sites()["effects"])
    assert tree["posterior"]["effects"].dims == ("chain", "draw", "effects_dim_0")
    assert arviz.summary(tree, var_names=["scale"], round_to="none").loc["scale", "r_hat"] > 0


def test_what_was_not_drawn_is_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 4)
    with pytest.raises(Stopped):
        chains(tmp_path / "run.zarr")
    tree = xr.open_datatree(tmp_path / "run.zarr", engine="zarr")
    missing = tree["sample_stats"]["non_finite"].to_numpy()
    np.testing.assert_array_equal(np.isnan(tree["posterior"]["double"]), missing)
    assert missing.sum() == 5 * 45 - 2 * 9


def test_draws_are_read_when_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = RunStore.read
    monkeypatch.setattr(RunStore, "read", lambda *a: (read.append(a[2]), real(*a))[1])
    draws = particles(tmp_path / "run.zarr")
    assert set(read) == {"non_finite"}
    assert draws.position.shape == (1, 50, 2)
    assert read.count("x") == 1
    assert draws.position is draws.position


def test_copies_of_stored_draws_hold_their_numbers(tmp_path: Path) -> None:
    draws, path = particles(tmp_path / "run.zarr"), ss.perturb(mixture(), ss.VP())
    halved = dataclasses.replace(draws, position=draws.position[:, :25], stats={"non_finite": np.zeros((1, 25), bool)})
    assert (halved.num_chains, halved.num_draws) == (1, 25)
    assert not halved.non_finite.any()
    again = pickle.loads(pickle.dumps(ss.load(tmp_path / "run.zarr", path)))
    np.testing.assert_array_equal(again.position, draws.position)
    checks = ss.compare({"stored": draws, "loaded": again}, reference="stored").verdicts["loaded"].failures
    assert [check.name for check in checks if check.severity == "fail"] == ["number of independent draws"]


def test_another_run_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    chains(store)
    content = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for settings, named in [
        ({"num_samples": 46}, "num_samples"),
        ({"num_warmup": 31}, "num_warmup"),
        ({"batch_size": 3}, "batch_size"),
        ({"initial_position": {"scale": 0.1, "effects": jnp.zeros(2)}}, "starts"),
    ]:
        with pytest.raises(ValueError, match=f"holds another run. It differs in: {named}"):
            chains(store, **settings)
    with pytest.raises(ValueError, match=r"settings of the sampler \("):
        ss.sample(posterior(), ss.NUTS(0.95), key=KEY, store=store, **CHAINS)
    with pytest.raises(ValueError, match=r"differs in: key .*starts"):
        ss.sample(posterior(), ss.NUTS(), key=jax.random.key(1), store=store, **CHAINS)
    with pytest.raises(ValueError, match="another run"):
        particles(store)
    assert content == {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_the_block_size_is_kept_in_the_run(tmp_path: Path) -> None:
    draws = chains(tmp_path / "run.zarr")
    same(draws, chains(tmp_path / "run.zarr", batch_size=None))


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scoresample.inference import _durable

    chains(tmp_path / "run.zarr")
    monkeypatch.setattr(_durable, "versions", lambda: '{"jax": "0.0.1"}')
    with pytest.raises(ValueError, match=r"differs in: versions \(.*0\.0\.1"):
        chains(tmp_path / "run.zarr")


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    for place in (tmp_path, tmp_path / "notes"):
        with pytest.raises(ValueError, match="is no run of scoresample"):
            chains(place)
        with pytest.raises(ValueError, match="is no run of scoresample"):
            ss.load(place)
    xr.DataTree.from_dict({"a": xr.Dataset({"b": 1.0})}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(ValueError, match="is no run of scoresample"):
        chains(tmp_path / "other.zarr")
    assert (tmp_path / "notes").read_text() == "mine"


@pytest.mark.usefixtures("unchecked_types")
def test_a_store_is_a_path() -> None:
    with pytest.raises(TypeError, match="`store` must be a path"):
        chains(3)  # pyright: ignore[reportArgumentType]


def test_a_run_without_draws_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, 1)
    with pytest.raises(Stopped):
        chains(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match="no draws yet"):
        ss.load(tmp_path / "run.zarr")


def test_load_wants_what_was_sampled(tmp_path: Path) -> None:
    chains(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"`target` has positions \['x'\], the run has \['effects', 'scale'\]"):
        ss.load(tmp_path / "run.zarr", mixture())


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_chunk_is_found_and_drawn_again(damage: str, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    draws = chains(store)
    expected = draws.position["effects"].copy()
    chunk = store / "unconstrained_posterior" / "effects" / "c" / "1" / "2" / "0"
    if damage == "missing":
        chunk.unlink()
    else:
        content = bytearray(chunk.read_bytes())
        content[5] ^= 1
        chunk.write_bytes(bytes(content))
    with pytest.raises(OSError, match=rf"{chunk} is .*delete (\S+) and call") as caught:
        _ = ss.load(store, posterior()).position
    assert ss.load(store).stats["energy"].shape == (5, 45)
    remedy = str(caught.value).split("delete ")[1].split(" and call")[0]
    os.remove(remedy)
    np.testing.assert_array_equal(chains(store).position["effects"], expected)


def test_a_damaged_commit_is_found(tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    chains(store)
    commit = store / "run_state" / "commits" / "c" / "2" / "0"
    commit.write_bytes(commit.read_bytes()[:-9])
    with pytest.raises(OSError, match="is damaged"):
        chains(store)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real, left = tmp_path / "run.zarr", os.replace, [60]

    def replace(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(Path, "replace", lambda self, other: replace(self, other))
        with pytest.raises(OSError, match=r"No space left on device.*are intact.*same arguments to go on") as caught:
            chains(store)
    assert caught.value.errno == 28
    assert ss.load(store).num_draws >= 3
    same(chains(), chains(store))


def test_too_little_room_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"MiB free\. Make room"):
        chains(tmp_path / "run.zarr")
    assert not list(tmp_path.iterdir())


def test_cascades_have_no_store(tmp_path: Path) -> None:
    path = perturb_wavelets(ss.GaussianField(power_law_spectrum((4, 4), 2.0), 0.5), ss.VP())
    with pytest.raises(ValueError, match="cascades are drawn stage by stage"):
        ss.sample(path, ss.ReverseSDE(), key=KEY, store=tmp_path / "run.zarr")


def test_names_with_slashes(tmp_path: Path) -> None:
    def scoped() -> None:
        numpyro.sample("a/b", dist.Normal(0.0, 1.0))

    draws = ss.sample(
        ss.from_numpyro(scoped, allow_prior=True), ss.NUTS(), key=KEY, store=tmp_path / "run.zarr", **CHAINS
    )
    again = ss.load(tmp_path / "run.zarr")
    assert list(again.position) == ["a/b"]
    np.testing.assert_array_equal(again.position["a/b"], draws.position["a/b"])


def test_a_digest_sees_numbers_settings_and_code() -> None:
    def shifted(by: float) -> Any:
        return ss.DensityScore(lambda x: -jnp.sum((x - by) ** 2))

    assert digest(shifted(1.0)) == digest(shifted(1.0))
    found = [
        shifted(1.0),
        shifted(2.0),
        ss.DensityScore(lambda x: -jnp.sum((x + 1.0) ** 2)),
        ss.DensityScore(lambda x: jax.vmap(lambda y: -((y - 3.0) ** 2))(x).sum()),
        ss.DensityScore(lambda x: jax.vmap(lambda y: -((y - 4.0) ** 2))(x).sum()),
        ss.DensityScore(lambda x, law=NARROW: law.log_prob(x).sum()),
        ss.DensityScore(lambda x, law=WIDE: law.log_prob(x).sum()),
        ss.NUTS(),
        ss.NUTS(0.9),
        jnp.zeros(2),
        jnp.zeros(3),
        np.zeros(2, np.float32),
    ]
    assert len({digest(thing) for thing in found}) == len(found) - 1  # arrays count alike on the host and off it


WIDTH = 1.0


def of_this_module(x: jax.Array) -> jax.Array:
    """A function that takes a number, and by another function, from its module."""
    return -0.5 * jnp.sum(x**2) / width()


def width() -> float:
    return WIDTH**2


def test_a_digest_sees_what_functions_take_from_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(of_this_module)
    monkeypatch.setattr(sys.modules[__name__], "WIDTH", 2.0)
    assert digest(of_this_module) != before


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "import scoresample as ss, jax.numpy as jnp\n"
        "from scoresample.inference._digest import digest\n"
        "from tests.inference.test_store import mixture, posterior\n"
        "print(digest(posterior()), digest(ss.perturb(mixture(), ss.VP())), digest(ss.NUTS()))\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.split()[0] == digest(posterior())


ON_THREE_DEVICES = """
import sys
import jax
from pathlib import Path
from tests.inference.test_store import Stopped, chains, particles, same
from scoresample.inference._run_store import RunStore

assert jax.device_count() == 3
for run in (chains, particles):
    store, real, seen = Path(sys.argv[1]) / f"{run.__name__}.zarr", RunStore.commit, []

    def commit(self, block, done, leaves):
        real(self, block, done, leaves)
        seen.append(block)
        if len(seen) == 3:
            raise Stopped

    RunStore.commit = commit
    try:
        run(store, sharding=jax.devices()[:2])
    except Stopped:
        pass
    RunStore.commit = real
    assert seen[:2] == [0, 1]
    same(run(), run(store, sharding=jax.devices()))
"""


def test_bits_do_not_depend_on_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    command = [sys.executable, "-c", ON_THREE_DEVICES, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.delenv("XLA_FLAGS")
    same(chains(), chains(tmp_path / "chains.zarr"))


def test_a_store_is_written_before_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write, commit = RunStore.write, RunStore.commit
    monkeypatch.setattr(RunStore, "write", lambda *a: (order.append("write"), write(*a))[1])
    monkeypatch.setattr(RunStore, "commit", lambda *a: (order.append("commit"), commit(*a))[1])
    particles(tmp_path / "run.zarr")
    assert order == ["write", "write", "commit"] * 4
    assert _stored_output.num_bytes(jax.random.key(0)) == 8
