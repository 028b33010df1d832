"""The reported number of score evaluations is the number of calls."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import scoresample as ss

SAMPLERS: dict[str, Any] = {
    "PredictorCorrector": ss.PredictorCorrector(num_steps=3, corrector_steps=2, denoise=False),
    "ReverseSDE, a solver with unused stages": ss.ReverseSDE(num_steps=3, solver=diffrax.GeneralShARK()),
    "ProbabilityFlowODE, first stage the last one": ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-2),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_score_evaluations_are_counted(name: str) -> None:
    calls: list[float] = []

    def counted(z: Array, t: Array) -> Array:
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return -2 * z

    path = ss.PerturbedScore(counted, ss.VP(), structure=jnp.zeros(2))
    draws = ss.sample(path, SAMPLERS[name], key=jax.random.key(0), num_samples=1, num_chains=1)
    jax.effects_barrier()
    spent = len(calls) - 1  # the check of the start looks once, at draws of its own
    assert draws.nfe == spent
    assert draws.info["num_evaluations"] == spent
