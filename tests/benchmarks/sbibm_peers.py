"""The same tasks with the package `sbi`: its score estimation (NPSE) and its flows (NPE), as they come.

Needs `torch` and `sbi`, which the benchmark does not ask for: `pip install torch` and `pip install --no-deps sbi pyknos
nflows zuko pyro-ppl pyro-api UMNN skorch tensorboard` (with its dependencies, sbi asks for an ArviZ before 1.0).
"""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from tests.benchmarks.sbibm_tasks import TASKS, of_package

PEERS = ("NPSE", "NPE")


def peers_are_here() -> bool:
    """Whether `torch` and `sbi` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "sbi"))


def torch_prior(prior: dist.Distribution) -> Any:
    """A prior of a task as a distribution of torch."""
    torch, utils = importlib.import_module("torch"), importlib.import_module("sbi.utils")
    base: Any = prior
    while isinstance(base, dist.Independent | dist.ExpandedDistribution):
        base = base.base_dist

    def full(name: str) -> Any:
        return torch.tensor(np.broadcast_to(getattr(base, name), prior.event_shape).copy(), dtype=torch.float32)

    if isinstance(base, dist.Uniform):
        return utils.BoxUniform(full("low"), full("high"))
    if isinstance(base, dist.MultivariateNormal):
        covariance = torch.tensor(np.array(base.covariance_matrix), dtype=torch.float32)
        return torch.distributions.MultivariateNormal(full("loc"), covariance)
    if isinstance(base, dist.LogNormal):
        return torch.distributions.Independent(torch.distributions.LogNormal(full("loc"), full("scale")), 1)
    if isinstance(base, dist.Normal):
        return torch.distributions.Independent(torch.distributions.Normal(full("loc"), full("scale")), 1)
    raise TypeError(f"There is no such prior in torch's: {type(base).__name__}.")


def train_and_draw_peer(
    peer: str, task: str, simulations: int, observations: Sequence[int], folder: Path, num_draws: int
) -> dict[str, Any]:
    """Train a peer with its defaults on simulations of its own key, and keep its draws beside the cell."""
    torch, inference = importlib.import_module("torch"), importlib.import_module("sbi.inference")
    made = TASKS[task]()
    keys = jax.random.split(jax.random.key(1), simulations + 1)
    theta = jnp.asarray(made.prior.sample(keys[0], (simulations,)))
    x = jax.vmap(made.observe)(keys[1:], theta).reshape(simulations, -1)
    torch.manual_seed(1)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as logs:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(logs)
        tracker = importlib.import_module("sbi.utils.tracking").TensorBoardTracker(writer)
        trainer = getattr(inference, peer)(torch_prior(made.prior), show_progress_bars=False, tracker=tracker)
        trainer.append_simulations(*(torch.tensor(np.array(v), dtype=torch.float32) for v in (theta, x)))
        trainer.train()
        posterior = trainer.build_posterior()
    result: dict[str, Any] = {"training": time.process_time() - started, "observations": {}}
    for observation in observations:
        observed = torch.tensor(np.array(of_package(task).get_observation(observation)).ravel(), dtype=torch.float32)
        started = time.process_time()
        draws = posterior.sample((num_draws,), x=observed, show_progress_bars=False).numpy()
        result["observations"][str(observation)] = {"drawing": time.process_time() - started}
        np.savez(folder / f"{peer}_{task}_{observation}.npz", raw=draws)
    return result
