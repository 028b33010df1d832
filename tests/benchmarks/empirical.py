"""The exact score of many noised points: its time against a plain matrix product, and its memory.

Run it as `python -m tests.benchmarks.empirical [--quick] [--out FOLDER]`.

The score of 100,000 points in 64 dimensions at 1,000 positions, on a fresh level of noise each time, beside the one
product ``positions @ points.T``, in turns; ratios of medians. The points are normal, or lie on a circle (in 64
coordinates, of which two vary): there many of them are near at little noise.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss
from scoresample.paths import score_particles
from tests.benchmarks.report import against_goal, keep, table

POINTS, SIZE, POSITIONS = 100_000, 64, 1000
GOAL, MEMORY_GOAL = 2.0, 0.5
LEVELS = (10.0, 1.0, 0.1, 0.03, 0.01, 1e-3, 1e-4)


def seconds(call: Callable[[], Any]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def made(name: str) -> np.ndarray:
    """Points in 64 dimensions."""
    rng = np.random.default_rng(0)
    if name == "normal":
        return rng.normal(size=(POINTS, SIZE)).astype(np.float32)
    points, angle = np.zeros((POINTS, SIZE), np.float32), rng.uniform(0, 2 * np.pi, POINTS)
    points[:, 0], points[:, 1] = np.cos(angle), np.sin(angle)
    return points


def main() -> int:
    """Measure, print the table and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats; nothing is kept without --out")
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    options = parser.parse_args()
    repeats = 3 if options.quick else 15
    score, product = eqx.filter_jit(score_particles), jax.jit(lambda a, b: a @ b.T)
    lines, passed = [], True
    for name in ("normal", "circle"):
        points = made(name)
        started = time.perf_counter()
        path = ss.perturb(points, ss.VE(sigma_min=1e-5, sigma_max=50.0))
        making = time.perf_counter() - started
        other, rng = jnp.asarray(points), np.random.default_rng(1)
        for level in LEVELS:
            t = path.process.time(-jnp.log(jnp.asarray(level)))
            z = jnp.asarray(points[:POSITIONS] + level * rng.normal(size=(POSITIONS, SIZE)), jnp.float32)
            calls = {"score": lambda z=z, t=t: score(path, z, t), "product": lambda z=z: product(z, other)}
            for call in calls.values():
                seconds(call)
            taken = {what: [] for what in calls}
            for _ in range(repeats):
                for what, call in calls.items():
                    taken[what].append(seconds(call))
            ours, plain = (float(np.median(taken[what])) for what in ("score", "product"))
            passed &= ours / plain <= GOAL
            lines.append(
                [name, f"{level:g}", f"{1e3 * ours:.0f} ms", f"{1e3 * plain:.0f} ms",
                 against_goal(ours / plain, GOAL, f"{ours / plain:.2f}")]
            )  # fmt: skip
    traced = jax.jit(lambda z, t: score_particles(path, z, t))
    program = traced.lower(jnp.zeros((POSITIONS, SIZE), jnp.float32), jnp.asarray(0.5)).compile()
    beside = program.memory_analysis().temp_size_in_bytes / (4 * POSITIONS * POINTS)
    passed &= beside <= MEMORY_GOAL
    parts = [
        f"The exact score of {POINTS:,} points in {SIZE} dimensions at {POSITIONS:,} positions, beside one product "
        f"`positions @ points.T`, in turns; medians of {repeats}. Goal: at most {GOAL:g} times as long. The points lie "
        f"anywhere (normal) or on a circle, where many are near each other; making the path took {making:.1f} s.",
        table(["points", "noise", "score", "product", "ratio"], lines),
        f"Buffers of the score's program: {100 * beside:.0f}% of the product's result, "
        f"{4 * POSITIONS * POINTS / 2**20:.0f} MiB (goal: {100 * MEMORY_GOAL:.0f}%).",
    ]
    if options.quick and options.out is None:
        print("\n\n".join(parts))
    else:
        keep("empirical", "The exact score of many points", *parts, out=options.out)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
