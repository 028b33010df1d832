"""How much memory many draws take beyond the draws themselves.

Run it as `python -m tests.benchmarks.memory [--draws N] [--out FOLDER]`.

One batch is drawn again and again first, until that no longer raises the process's peak memory: the program is then
compiled, and every worker thread that XLA may hand a batch to has the buffers of one (18 MiB each, which the allocator
keeps). Then come all draws, batch by batch. The growth of the peak is held against the size of the draws.
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
_QUIET_RUNS = 30
"""The peak is steady once so many runs of one batch in a row left it where it was."""
_MOST_RUNS = 300


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
    before, quiet, runs = peak_bytes(), 0, 0
    while quiet < _QUIET_RUNS and runs < _MOST_RUNS:
        ss.sample(path, sampler, key=key, num_samples=options.batch, num_chains=1, batch_size=options.batch)
        gc.collect()
        before, quiet, runs = peak_bytes(), quiet + 1 if peak_bytes() == before else 0, runs + 1
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
        f"times the draws, over the peak of runs of one batch ({runs} of them, until it was steady).",
        table(["draws", "batch", "size of the draws", "growth of peak memory", "ratio", "time"], [line]),
        out=options.out,
    )


if __name__ == "__main__":
    main()
