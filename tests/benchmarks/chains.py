"""What our way of running chains costs over BlackJAX's own, and how it compares with NumPyro's.

Run it as `python -m tests.benchmarks.chains [--repeats N] [--out FOLDER]`.

The same BlackJAX kernel with the same step size and mass matrix runs through BlackJAX's `run_inference_algorithm` and
through `scoresample.sample`, in turn in one process; both without warm-up. NumPyro's NUTS, with its own adaptation, is
reported per gradient evaluation.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from blackjax.util import run_inference_algorithm
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumPyroNUTS

import scoresample as ss
from scoresample.inference._progress import compile_seconds
from tests.benchmarks.overhead import median_seconds
from tests.benchmarks.report import against_goal, keep, table

GOAL = 1.05
NUM_SAMPLES, NUM_CHAINS = 10_000, 4


def logistic_regression() -> ss.DensityScore:
    """Twenty coefficients, two hundred outcomes."""
    random = np.random.default_rng(0)
    features = jnp.asarray(random.normal(size=(200, 20)), jnp.float32)
    outcomes = jnp.asarray(random.random(200) < 0.5, jnp.float32)

    def logdensity(beta: Any, features: Any, outcomes: Any) -> Any:
        logits = features @ beta
        return jnp.sum(outcomes * logits - jax.nn.softplus(logits)) - 0.5 * jnp.sum(beta**2)

    return ss.DensityScore(logdensity, features, outcomes, structure=jnp.zeros(20))


def gaussian() -> ss.Gaussian:
    return ss.Gaussian(jnp.zeros(20), jnp.linspace(0.5, 2.0, 20))


TARGETS: dict[str, Callable[[], Any]] = {"Gaussian, d=20": gaussian, "logistic regression, d=20": logistic_regression}


STEP_SIZE = 0.2
KERNELS: dict[str, tuple[Callable[..., Any], Any]] = {
    "NUTS": (
        lambda logdensity, mass: blackjax.nuts(logdensity, STEP_SIZE, mass),
        ss.NUTS(step_size=STEP_SIZE, inverse_mass_matrix=jnp.ones(20)),
    ),
    "HMC, 10 steps": (
        lambda logdensity, mass: blackjax.hmc(logdensity, STEP_SIZE, mass, 10),
        ss.HMC(num_integration_steps=10, step_size=STEP_SIZE, inverse_mass_matrix=jnp.ones(20)),
    ),
}


def through_blackjax(score: Any, make: Callable[..., Any]) -> Callable[[], Any]:
    """All chains by `run_inference_algorithm` keeping positions and lengths, vectorised, compiled as one program."""

    @jax.jit
    def run(keys: Any) -> Any:
        algorithm = make(score.logdensity, jnp.ones(20))

        def one(key: Any) -> Any:
            return run_inference_algorithm(
                rng_key=key,
                inference_algorithm=algorithm,
                num_steps=NUM_SAMPLES,
                initial_position=jnp.zeros(20),
                transform=lambda state, info: (state.position, info.num_integration_steps),
            )[1]

        return jax.vmap(one)(keys)

    keys = jax.random.split(jax.random.key(0), NUM_CHAINS)
    return lambda: jax.tree.map(np.asarray, run(keys))


def through_sample(score: Any, sampler: Any) -> Callable[[], Any]:
    return lambda: (
        ss.sample(
            score,
            sampler,
            key=jax.random.key(0),
            num_samples=NUM_SAMPLES,
            num_chains=NUM_CHAINS,
            num_warmup=0,
            initial_position=jnp.zeros(20),
        ).position
    )


def numpyro_lines() -> list[list[str]]:
    """NUTS with its own adaptation here and in NumPyro: microseconds for each gradient evaluation."""
    lines = []
    for name, make in TARGETS.items():
        score = make()

        def potential(position: Any, score: Any = score) -> Any:
            return -score.logdensity(position)

        kernel = NumPyroNUTS(potential_fn=potential)
        mcmc = MCMC(
            kernel, num_warmup=1_000, num_samples=NUM_SAMPLES, num_chains=NUM_CHAINS, chain_method="vectorized",
            progress_bar=False,
        )  # fmt: skip
        starts = 0.1 * jax.random.normal(jax.random.key(1), (NUM_CHAINS, 20))
        mcmc.run(jax.random.key(0), init_params=starts, extra_fields=("num_steps",))
        started, compiled = time.perf_counter(), compile_seconds()
        mcmc.run(jax.random.key(1), init_params=starts, extra_fields=("num_steps",))
        seconds = time.perf_counter() - started - (compile_seconds() - compiled)
        steps = int(np.sum(mcmc.get_extra_fields()["num_steps"]))
        settings: dict[str, Any] = {"num_samples": NUM_SAMPLES, "num_chains": NUM_CHAINS, "initial_position": starts}
        ss.sample(score, ss.NUTS(), key=jax.random.key(0), **settings)
        draws = ss.sample(score, ss.NUTS(), key=jax.random.key(1), **settings)
        ours = int(draws.stats["n_steps"].sum())
        lines.append(
            [
                name,
                f"{draws.seconds:.2f} s, {ours:,}",
                f"{seconds:.2f} s, {steps:,}",
                f"{draws.seconds / ours / (seconds / steps):.2f}",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    options = parser.parse_args()
    numpyro.set_host_device_count(1)
    lines = []
    for target, make in TARGETS.items():
        score = make()
        for kernel, (algorithm, sampler) in KERNELS.items():
            functions = {
                "blackjax": through_blackjax(score, algorithm),
                "scoresample": through_sample(score, sampler),
            }
            seconds = median_seconds(functions, options.repeats)
            ratio = seconds["scoresample"] / seconds["blackjax"]
            lines.append(
                [
                    target,
                    kernel,
                    f"{seconds['blackjax']:.3f} s",
                    f"{seconds['scoresample']:.3f} s",
                    against_goal(ratio, GOAL, f"{ratio:.3f}"),
                ]
            )
            print(lines[-1], flush=True)
    keep(
        "chains",
        "Overhead over BlackJAX",
        f"{NUM_CHAINS} chains of {NUM_SAMPLES:,} draws of the same kernel with the same settings, no warm-up; medians "
        f"of runs in turn in one process. Goal: a ratio of at most {GOAL}.",
        table(["target", "kernel", "run_inference_algorithm", "sample", "ratio"], lines),
        "Against NumPyro's NUTS, vectorised chains, both with their own adaptation of 1,000 steps: seconds of the "
        "whole run without compilation, and gradient evaluations after the warm-up; the ratio is of seconds per "
        "evaluation.",
        table(["target", "scoresample", "NumPyro", "ratio"], numpyro_lines()),
        out=options.out,
    )


if __name__ == "__main__":
    main()
