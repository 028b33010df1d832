"""Runs that are killed, disks that fill up, files that rot: what a store keeps.

Run it as `python -m tests.benchmarks.durability [--kills N] [--seconds S] [--draws N] [--quick] [--json FILE]
[--out FOLDER]`.

Runs of chains and along a path are killed (SIGKILL) at random moments between their first call and their end; a fresh
process, in half of the cases with another number of devices, goes on with each. Its draws must equal those of an
uninterrupted run to the last bit. What was computed and not committed at the moment of the kill is what was lost.
The exit status is 1 if a goal fails.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import scoresample as ss
from scoresample.inference._run_store import RunStore
from scoresample.inference._stored_output import StoredChains, StoredParticles
from tests.benchmarks.report import against_goal, keep, table

OVERHEAD_GOAL, MEMORY_GOAL, OPENING_GOAL = 0.03, 300.0, 0.1
KINDS = ("chains", "path")
_FEW = 1000
"""Particles whose run tells what memory the program itself takes."""
BROAD = ss.Gaussian(jnp.linspace(-1.0, 1.0, 16), 1.0)


def run(kind: str, store: Path | None, **settings: Any) -> ss.Draws:
    """A run that takes some seconds: chains in three blocks, or particles in sixteen."""
    common: dict[str, Any] = {"key": jax.random.key(3), "progress": False, "store": store}
    if kind == "chains":
        settings = {"num_chains": 6, "num_samples": 10_000, "num_warmup": 300, "batch_size": 2} | settings
        return ss.sample(funnel(), ss.NUTS(), **settings, **common)
    settings = {"num_chains": 1, "num_samples": 160_000, "batch_size": 10_000} | settings
    return ss.sample(ss.perturb(BROAD, ss.VP()), ss.ReverseSDE(num_steps=60), **settings, **common)


def funnel() -> ss.DensityScore:
    """A target whose trajectories are not all of one length."""
    return ss.DensityScore(_log_funnel, structure=jnp.zeros(4), init_position=_start)


def _log_funnel(x: jax.Array) -> jax.Array:
    return -0.5 * (x[0] / 1.5) ** 2 - 0.5 * jnp.sum(x[1:] ** 2 * jnp.exp(-x[0])) - 1.5 * x[0]


def _start(key: jax.Array) -> jax.Array:
    return 0.1 * jax.random.normal(key, (4,))


def bits(store: Path) -> str:
    """A hash of all draws and statistics in a store."""
    found = hashlib.sha256()
    draws = ss.load(store)
    if not draws.info["complete"]:
        return "incomplete"
    for name, values in [*sorted(draws.position.items()), *sorted(draws.stats.items())]:
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def work(kind: str, store: Path) -> None:
    """What a child does: say when it begins, what it has computed before it is written, and when it is done."""
    patched: Any
    # Bare writes to the descriptor: what was said stays said, whatever happens next.
    for patched in (StoredChains, StoredParticles):
        patched.write = _saying("computed", patched.write, before=True)
    patched = RunStore
    patched.commit = _saying("committed", patched.commit, before=False)
    os.write(1, b"begun\n")
    run(kind, store, sharding=jax.devices() if len(jax.devices()) > 1 else None)
    os.write(1, b"done\n")


def _saying(word: str, method: Any, *, before: bool) -> Any:
    """The same method, which says a word before or after."""

    def said(*args: Any) -> None:
        if before:
            os.write(1, f"{word}\n".encode())
        method(*args)
        if not before:
            os.write(1, f"{word}\n".encode())

    return said


def child(kind: str, store: Path, devices: int) -> subprocess.Popen[str]:
    """A process that draws, with so many devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.benchmarks.durability", "--work", kind, str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "XLA_FLAGS": flags})


def heard(process: subprocess.Popen[str], word: str) -> None:
    """Wait for a word of a child."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise RuntimeError(f"a run ended before it said {word!r}")


def killed(kind: str, after: float, folder: Path, devices: int) -> dict[str, Any]:
    """One run that is killed so many seconds after it has begun, and one that goes on with it."""
    store = folder / "run.zarr"
    first = child(kind, store, 1)
    heard(first, "begun")
    time.sleep(after)
    first.send_signal(signal.SIGKILL)
    said = first.communicate()[0].split()
    second = child(kind, store, devices)
    again = second.communicate()[0].split()
    found = bits(store) if second.returncode == 0 else f"exit status {second.returncode}"
    left = list(folder.glob(".run.zarr.*"))
    shutil.rmtree(folder)
    return {
        "kind": kind, "after": after, "devices": devices, "computed": said.count("computed"), "lost": _lost(said),
        "again": again.count("computed"), "bits": found, "finished": "done" in said, "left": len(left),
    }  # fmt: skip


def _lost(said: list[str]) -> int:
    """Chunks that were computed and not committed: the last word, if it is "computed"."""
    return int(bool(said) and said[-1] == "computed")


def kills(number: int) -> tuple[list[list[str]], bool]:
    """The table of kills."""
    lines, holds, rng = [], True, random.Random(0)
    for index, kind in enumerate(KINDS):
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "run.zarr"
            process = child(kind, whole, 1)
            heard(process, "begun")
            started = time.perf_counter()
            heard(process, "done")
            seconds, expected = time.perf_counter() - started, bits(whole)
            process.communicate()
            chunks = 60 if kind == "chains" else 16
        cases = []
        for case in range(number // 2 + (number % 2 if index else 0)):
            cases.append(killed(kind, rng.uniform(0.0, seconds), Path(tempfile.mkdtemp()), 1 + 2 * (case % 2)))
            print(json.dumps(cases[-1]), flush=True)
        same = sum(case["bits"] == expected for case in cases)
        lost = max(case["lost"] for case in cases)
        amid = sum(0 < case["computed"] < chunks for case in cases)
        ok = same == len(cases) and lost <= 1 and expected != "incomplete"
        holds = holds and ok
        lines.append(
            [kind, str(len(cases)), f"{seconds:.1f}", str(amid), f"{same} of {len(cases)}", str(lost),
             "yes" if ok else "**no**"]
        )  # fmt: skip
    return lines, holds


def overhead(seconds: float) -> tuple[float, float]:
    """A run of chains of about so many seconds, with a store and without, alternating: the ratio less one."""
    num = 20_000

    def timed(store: Path | None, num: int) -> float:
        started = time.perf_counter()
        draws = run("chains", store, num_samples=num, batch_size=6)
        assert draws.num_draws == num
        return time.perf_counter() - started

    def stored(num: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return timed(Path(folder) / "run.zarr", num)

    timed(None, num)
    num = int(num * seconds / timed(None, num))
    # Once each to compile: programs depend on the number of draws.
    stored(num)
    timed(None, num)
    pairs = [(stored(num), timed(None, num)) for _ in range(3)]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs) - 1, pairs[0][1]


def stream(num: int, store: str) -> None:
    """What a child does: draw so many particles into a store and say its largest resident memory, in MiB."""
    draws = run("path", Path(store), num_samples=num, batch_size=None)
    assert draws.num_draws == num
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


def streamed(num: int, folder: Path) -> float:
    """The memory of a child that draws so many."""
    command = [sys.executable, "-m", "tests.benchmarks.durability", "--stream", str(num), str(folder / f"{num}.zarr")]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def opening(store: Path) -> float:
    """Seconds to open a store of which the last block is missing."""
    blocks = sorted((store / "run_state" / "commits" / "c").iterdir(), key=lambda path: int(path.name))
    shutil.rmtree(blocks[-1])
    times = []
    for _ in range(5):
        started = time.perf_counter()
        draws = ss.load(store)
        times.append(time.perf_counter() - started)
        assert not draws.info["complete"]
    started = time.perf_counter()
    xr.open_datatree(store, engine="zarr").close()
    return max(statistics.median(times), time.perf_counter() - started)


def full_disk() -> str:
    """Fill a small disk, read what is there, make room, and go on: what was found."""
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
        if made.returncode:
            return "not run: no right to mount a small disk"
        try:
            store, room = Path(folder) / "run.zarr", shutil.disk_usage
            # As if another program took the room after the door.
            shutil.disk_usage = lambda path: room(path)._replace(free=2**40)
            try:
                run("chains", store)
            except OSError as error:
                message = str(error)
            else:
                return "**the run did not fail**"
            finally:
                shutil.disk_usage = room
            there = ss.load(store)
            sites = there.sites()
            subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True, capture_output=True)
            whole = run("chains", store).sites()
            kept = all(np.array_equal(x, whole[n][: x.shape[0], : x.shape[1]]) for n, x in sites.items())
            unstored = run("chains", None).sites()
            right = all(np.array_equal(x, unstored[name]) for name, x in whole.items())
        finally:
            subprocess.run(["umount", folder], check=True)
    clear = "No space left on device" in message and "same arguments" in message
    if not (kept and right and clear):
        return f"**{message}**"
    return f"clear error, {there.num_chains} x {there.num_draws} draws kept; with room again, the same bits"


def rotten_chunk() -> str:
    """Flip a bit of a chunk, read the rest, do what the error says: what was found."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.zarr"
        expected = run("chains", store).sites()["x"]
        chunk = store / "posterior" / "x" / "c" / "1" / "7" / "0"
        content = bytearray(chunk.read_bytes())
        content[100] ^= 4
        chunk.write_bytes(bytes(content))
        try:
            ss.load(store).sites()
        except OSError as error:
            message = str(error)
        else:
            return "**the damage was not seen**"
        energies = ss.load(store).stats["energy"].shape
        remedy = Path(message.split("delete ")[1].split(" and call")[0])
        remedy.unlink()
        again = run("chains", store).sites()["x"]
    right = str(chunk) in message and energies == expected.shape[:2] and np.array_equal(again, expected)
    return "named by its file; all else is read; drawn again to the same bits" if right else f"**{message}**"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the run whose overhead is measured")
    parser.add_argument("--draws", type=int, default=10_000_000, help="of 16 numbers, that stream to a store")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--stream", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work[0], Path(args.work[1]))
    if args.stream:
        return stream(int(args.stream[0]), args.stream[1])
    if args.quick:
        args.kills, args.seconds, args.draws = 2, 2.0, 300_000
        args.out = args.out or Path(tempfile.mkdtemp())
    lines, holds = kills(args.kills)
    cost, length = overhead(args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        baseline = streamed(_FEW, Path(folder))
        memory = streamed(args.draws, Path(folder)) - baseline
        seconds = opening(Path(folder) / f"{args.draws}.zarr")
    broken = [["a disk that fills up", full_disk()], ["a bit that flips", rotten_chunk()]]
    opened = against_goal(seconds, OPENING_GOAL, f"{seconds:.3f} s")
    rows = [
        ["cost of a store", f"{length:.0f} s of chains", against_goal(cost, OVERHEAD_GOAL, f"{cost:.1%}")],
        [
            "memory of streaming",
            f"{args.draws:,} draws of 16 numbers, {args.draws * 64 / 2**20:,.0f} MiB",
            against_goal(memory, MEMORY_GOAL, f"{memory:.0f} MiB over a run of {_FEW:,} ({baseline:.0f})"),
        ],
        ["opening a partial store", "the same, without its last block", opened],
    ]
    holds = holds and cost <= OVERHEAD_GOAL and memory <= MEMORY_GOAL and seconds <= OPENING_GOAL
    holds = holds and not any("**" in what for _, what in broken)
    header = ["runs", "kills", "seconds of a whole run", "amid the draws", "same bits", "most chunks lost", "holds"]
    keep(
        "durability",
        "Runs that survive",
        f"{args.kills} runs were killed at random moments, and a fresh process, every other time with three devices, "
        "went on with each.",
        table(header, lines),
        "## Accidents",
        table(["accident", "what happened"], broken),
        "## Costs",
        table(["", "of", "measured"], rows),
        out=args.out,
    )
    if args.json:
        Path(args.json).write_text(json.dumps({"kills": lines, "accidents": broken, "costs": rows}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
