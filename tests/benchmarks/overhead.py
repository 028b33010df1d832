"""What a sampler costs beyond its score evaluations.

Run it as `python -m tests.benchmarks.overhead [--repeats N] [--out FOLDER]`.

The floor is one compiled `lax.scan` of as many evaluations of the batch as the sampler makes, and nothing else. Floor
and samplers run in turn in one process, and medians are compared; once with XLA's threads and once without.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss
from scoresample.inference._particles import run_block as compiled_run
from scoresample.nn import PreconditionedDenoiser, ResidualMLP
from scoresample.paths import denoise_particles
from tests.benchmarks.accuracy import make_mixture
from tests.benchmarks.report import against_goal, keep, table

NUM_STEPS = 50
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
SAMPLERS: dict[str, Any] = {
    "reverse SDE, midpoint of order 2": ss.ReverseSDE(NUM_STEPS),
    "probability flow, order 3 with corrector": ss.ProbabilityFlowODE(NUM_STEPS),
    "reverse SDE, diffrax Euler": ss.ReverseSDE(NUM_STEPS, diffrax.Euler()),
    "reverse SDE, diffrax ShARK": ss.ReverseSDE(NUM_STEPS // 2, diffrax.ShARK()),
    "probability flow, diffrax Heun": ss.ProbabilityFlowODE(NUM_STEPS // 2, diffrax.Heun()),
}
FIRST_CALL_GOAL = 1.5
EULER_ON_TREE = ss.ReverseSDE(NUM_STEPS, ss.DiffraxSolver(diffrax.Euler(), brownian="tree"))


def network() -> Any:
    """A network of the usual size in 16 dimensions, untrained: its values do not matter for time."""
    denoiser = PreconditionedDenoiser(ResidualMLP(16, width=128, depth=3, key=jax.random.key(0)))
    return ss.PerturbedScore(
        denoiser, ss.VP(), structure=jnp.zeros(16), prediction="denoised", time="sigma", log_snr_range=(-3.0, 5.0)
    )


def mixture() -> Any:
    return ss.perturb(make_mixture().density(), ss.VP())


PATHS = {"MLP": network, "40 modes": mixture}
GOALS = {"MLP": 1.08, "40 modes": 1.15}
DIFFRAX_GOAL = 1.30


@eqx.filter_jit
def floor(path: Any, particles: Any, times: Any) -> Any:
    """The evaluations alone, each at the outcome of the one before."""
    return jax.lax.scan(lambda x, t: (denoise_particles(path, x, t), None), particles, times)[0]


@eqx.filter_jit
def vmapped_diffrax(path: Any, plan: Any, particles: Any, key: Any) -> Any:
    """One diffrax solve for every particle, as code written for one point does it: Euler on a Brownian tree."""

    def one(x: Any, key: Any) -> Any:
        return EULER_ON_TREE.run(path, jax.tree.map(lambda leaf: leaf[None], x), plan, key=key)[0]

    return jax.vmap(one)(particles, jax.random.split(key, particles.shape[0]))


def median_seconds(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, all run in turn."""
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def measure(repeats: int) -> dict[str, Any]:
    """Ratios to the floor by path, number of particles and sampler, and seconds of first calls."""
    key, results, first = jax.random.key(0), {}, {}
    for name, make in PATHS.items():
        path = make()
        started = time.perf_counter()
        ss.sample(path, SAMPLERS["reverse SDE, midpoint of order 2"], key=key, num_samples=250)
        first[name] = time.perf_counter() - started
        for num in (1_000, 10_000):
            particles = jax.random.normal(key, (num, *path.structure.shape))
            times = jnp.linspace(0.9, 0.1, NUM_STEPS + 1)
            functions: dict[str, Callable[[], Any]] = {
                "floor": lambda path=path, particles=particles, times=times: floor(path, particles, times)
            }
            for label, sampler in SAMPLERS.items():
                plan = sampler.plan(path, key=key)
                functions[label] = lambda path=path, sampler=sampler, plan=plan, num=num: compiled_run(
                    path, sampler, plan, key, num
                )
            functions["sample(), from end to end"] = lambda path=path, num=num: (
                ss.sample(
                    path, SAMPLERS["reverse SDE, midpoint of order 2"], key=key, num_samples=num, num_chains=1
                ).position
            )
            if num == 1_000:
                plan = EULER_ON_TREE.plan(path, key=key)
                functions["diffrax Euler, vmapped over particles, Brownian tree"] = (
                    lambda path=path, plan=plan, particles=particles: vmapped_diffrax(path, plan, particles, key)
                )
            seconds = median_seconds(functions, repeats)
            base = seconds.pop("floor")
            results[f"{name}, N={num:,}"] = {"floor": base, **{label: value / base for label, value in seconds.items()}}
            print(name, num, results[f"{name}, N={num:,}"], file=sys.stderr, flush=True)
    return {"ratios": results, "first": first}


def goal_of(case: str, label: str) -> float | None:
    if "vmapped" in label or "end to end" in label:
        return None
    return DIFFRAX_GOAL if "diffrax" in label else GOALS[case.split(",")[0]]


def report(results: dict[str, dict[str, Any]], out: Path | None) -> None:
    parts = [
        f"Time over that of a bare scan of the same number of score evaluations ({NUM_STEPS} steps, a last denoising "
        "included), medians of runs in turn in one process. Bold where a goal is missed: 1.08 on the MLP (width 128, "
        "depth 3, 16 dimensions), 1.15 on the mixture, 1.30 for diffrax. The row from end to end also makes the plan, "
        "draws the start, brings draws to the host and checks them."
    ]
    for mode, found in results.items():
        cases = list(found["ratios"])
        labels = [label for label in found["ratios"][cases[0]] if label != "floor"]
        lines = [["floor, ms", *(f"{found['ratios'][case]['floor'] * 1e3:.1f}" for case in cases)]]
        for label in labels:
            cells = [found["ratios"][case].get(label) for case in cases]
            lines.append(
                [
                    label,
                    *(
                        "" if value is None else against_goal(value, goal_of(case, label), f"{value:.2f}")
                        for value, case in zip(cells, cases, strict=True)
                    ),
                ]
            )
        first = ", ".join(
            f"{name} {against_goal(seconds, FIRST_CALL_GOAL, f'{seconds:.2f} s')}"
            for name, seconds in found["first"].items()
        )
        parts += [f"## {mode}", table(["sampler", *cases], lines), f"First call of `sample` with compilation: {first}."]
    keep("overhead", "Overhead over score evaluations", *parts, out=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15, help="runs of each sampler")
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    parser.add_argument("--measure", action="store_true", help="measure in this process and print JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.repeats)))
        return
    results = {}
    for mode, flags in {"One thread": ONE_THREAD, "XLA's default": ""}.items():
        command = [sys.executable, "-m", "tests.benchmarks.overhead", "--measure", "--repeats", str(options.repeats)]
        environment = {**os.environ, "XLA_FLAGS": flags}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        results[mode] = json.loads(done.stdout)
    report(results, options.out)


if __name__ == "__main__":
    main()
