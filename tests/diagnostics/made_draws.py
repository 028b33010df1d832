"""Runs made of given numbers, to see what the diagnostics and the report make of them."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from scoresample.inference import Draws


def made_draws(
    position: PyTree, kind: Literal["chains", "independent", "interacting"] = "chains", **fields: Any
) -> Draws:
    """A run with the given positions, of shape (chain, draw, *event) in every leaf.

    Arguments:
        position: an array, or a dictionary of arrays.
        kind: what kind of draws they are.
        **fields: other fields of `Draws`, where the defaults do not do.
    """
    defaults: dict[str, Any] = {
        "log_weights": None,
        "stats": {},
        "info": {"num_evaluations": 10_000, "compile_seconds": 0.5},
        "nfe": 10.0,
        "seconds": 2.5,
        "constrain": lambda one: one if isinstance(one, dict) else {"x": one},
        "attributes": {"sampler": "made up", "settings": '{"steps": 10}', "versions": {"numpy": np.__version__}},
    }
    if fields.get("log_weights") is not None:
        fields["log_weights"] = jnp.asarray(fields["log_weights"], jnp.float32)
    return Draws(position=position, kind=kind, **(defaults | fields))


def normal_chains(seed: int, *event: int, chains: int = 4, draws: int = 1000) -> np.ndarray:
    """Independent standard normal numbers as float32, of shape (chains, draws, *event)."""
    return np.random.default_rng(seed).normal(size=(chains, draws, *event)).astype(np.float32)


def autoregressive_chains(seed: int, correlation: float, *, chains: int = 4, draws: int = 2000) -> np.ndarray:
    """Stationary AR(1) chains with standard normal margins, of shape (chains, draws)."""
    noise = np.random.default_rng(seed).normal(size=(chains, draws))
    found = np.empty_like(noise)
    found[:, 0] = noise[:, 0]
    for step in range(1, draws):
        found[:, step] = correlation * found[:, step - 1] + np.sqrt(1 - correlation**2) * noise[:, step]
    return found
