"""How much memory many draws take beyond the draws themselves.

Run it as `python -m tests.benchmarks.memory [--draws N] [--out FOLDER]`.

One batch is drawn a few times first, so that the program is compiled and its buffers are there; then all draws, batch
by batch. The growth of the process's peak memory is held against the size of the draws.
"""

import argparse
import gc
import resource
from pathlib import Path

import jax
import numpy as np

import scoresample as ss
from tests.benchmarks.overhead import network
from tests.benchmarks.report import against_goal, keep, table

GOAL = 1.3
_WARM_UPS = 3
"""Runs of one batch before the measurement, so that the allocator has reached its steady state."""


def peak_bytes() -> int:
    """The process's peak resident memory, which Linux gives in KiB."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    options = parser.parse_args()
    path, sampler, key = network(), ss.ReverseSDE(num_steps=19), jax.random.key(0)
    for _ in range(_WARM_UPS):
        ss.sample(path, sampler, key=key, num_samples=options.batch, num_chains=1, batch_size=options.batch)
    gc.collect()
    before = peak_bytes()
    draws = ss.sample(path, sampler, key=key, num_samples=options.draws, num_chains=1, batch_size=options.batch)
    growth, size = peak_bytes() - before, np.asarray(draws.position).nbytes
    ratio = growth / size
    line = [
        f"{options.draws:,}",
        f"{options.batch:,}",
        f"{size / 2**20:.0f} MiB",
        f"{growth / 2**20:.0f} MiB",
        against_goal(ratio, GOAL, f"{ratio:.2f}"),
        f"{draws.seconds:.1f} s",
    ]
    keep(
        "memory",
        "Memory of many draws",
        f"A network of width 128 and depth 3 in 16 dimensions, 20 evaluations a draw. Goal: growth of at most {GOAL} "
        "times the draws.",
        table(["draws", "batch", "size of the draws", "growth of peak memory", "ratio", "time"], [line]),
        out=options.out,
    )


if __name__ == "__main__":
    main()
