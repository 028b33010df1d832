"""Posteriors from simulators, beside the reference draws of the benchmark of simulation-based inference.

Run it as `python -m tests.benchmarks.sbibm [--simulations N] [--tasks A,B] [--observations 1,2,3,4,5] [--quick]
[--peers] [--cache FOLDER] [--json FILE] [--out FOLDER]`. It needs the extra `bench` (the package `sbibm-jax`).

Every task is trained twice with the default settings: from simulations alone, and with the gradient of the likelihood
("informed"). C2ST is that of the benchmark: 10,000 draws against 10,000 reference draws, on inputs scaled by the
reference. Corrected draws are those that the certificate says to use, by weights or by moves that leave the exact
posterior invariant. Cells are kept in the cache as they are made, so an interrupted run goes on. Nothing is chosen by
the references. The exit status is 1 if a goal fails.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss
from scoresample.diagnostics import c2st
from tests.benchmarks.report import cached, keep, table
from tests.benchmarks.sbibm_tasks import TASKS

GOALS = {
    "two_moons": 0.53,
    "gaussian_mixture": 0.53,
    "gaussian_linear": 0.515,
    "gaussian_linear_uniform": 0.53,
    "bernoulli_glm": 0.62,
    "slcp": 0.70,
    "sir": 0.62,
}
INFORMED_GOALS = {"bernoulli_glm": 0.56, "slcp": 0.65}
CORRECTED_GOAL = 0.52
TRAINING_GOAL, DRAWING_GOAL = 180.0, 1.5
NUM_DRAWS = 10_000
CORRECTED_OBSERVATIONS = (1, 2)
USABLE = ("use", "use weighted", "use polished")


def reference(task: str, observation: int) -> tuple[np.ndarray, np.ndarray]:
    """The observation and the reference draws."""
    from sbibm_jax.tasks import get_task

    package: Any = get_task(task)
    return np.asarray(package.get_observation(observation)).reshape(TASKS[task]().shape), np.asarray(
        package.get_reference_posterior_samples(observation)
    )


def parameters(draws: ss.Draws) -> np.ndarray:
    """Draws as a matrix of parameters."""
    flat = jnp.asarray(draws.position).reshape(-1, draws.position.shape[-1])
    return np.asarray(jax.vmap(draws.constrain)(flat)["theta"])


def trained(task: str, num_simulations: int, *, informed: bool) -> tuple[ss.AmortisedPosterior, float]:
    """A posterior with the default settings, and the seconds of all cores that it took."""
    made = TASKS[task]()
    started = time.process_time()
    posterior = ss.fit_posterior(
        made.simulator(),
        key=jax.random.key(1),
        num_simulations=num_simulations,
        exchangeable=made.exchangeable,
        informed=informed,
        progress=False,
    )
    return posterior, time.process_time() - started


def run_task(task: str, folder: Path, args: argparse.Namespace, *, informed: bool) -> dict[str, Any]:
    """Train, draw under all observations, certify under some, and keep the draws."""
    posterior, seconds = trained(task, args.simulations, informed=informed)
    result: dict[str, Any] = {"training": seconds, "best_epoch": posterior.record.best_epoch, "observations": {}}
    for observation in args.observations:
        x, _ = reference(task, observation)
        path = posterior.given(x)
        key = jax.random.key(100 + observation)
        timed = []
        for _ in range(2):  # The first run compiles.
            started = time.process_time()
            draws = ss.sample(path, key=key, num_samples=args.draws, num_chains=1, progress=False)
            timed.append(time.process_time() - started)
        cell: dict[str, Any] = {"drawing": timed[-1], "nfe": draws.nfe}
        arrays = {"raw": parameters(draws)}
        if observation in CORRECTED_OBSERVATIONS:
            certificate = ss.certify(
                ss.sample(
                    path, ss.ProbabilityFlowODE(density=True), key=key, num_samples=args.draws, num_chains=1,
                    progress=False,
                ),
                posterior.density(x),
                key=key,
            )  # fmt: skip
            cell |= {"verdict": certificate.verdict, "pareto_k": certificate.pareto_k, "ess": certificate.ess}
            arrays["corrected"] = parameters(certificate.draws)
        np.savez(folder / f"{name_of(task, informed)}_{observation}.npz", **arrays)
        result["observations"][str(observation)] = cell
    return result


def name_of(task: str, informed: bool) -> str:
    """What a cell is called."""
    return f"{task}_{'informed' if informed else 'free'}"
