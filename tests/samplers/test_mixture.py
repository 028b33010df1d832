"""Mode weights on an asymmetric mixture: what a wrong sign, clock or start would spoil first."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss

WEIGHTS = np.array([0.15, 0.35, 0.5])
MEANS = np.array([[-2.0, 1.0], [0.5, -1.5], [2.0, 1.5]])
COVARIANCES = np.array([[[0.1, 0.05], [0.05, 0.2]], [[0.3, -0.1], [-0.1, 0.1]], [[0.15, 0.0], [0.0, 0.4]]])
NUM_DRAWS = 4_000

SAMPLERS: dict[str, tuple[str, Any]] = {
    "AnnealedLangevin": ("VP", ss.AnnealedLangevin(num_levels=60, steps_per_level=5, step_size=0.2)),
    "AnnealedLangevin, tempered": ("tempered", ss.AnnealedLangevin(num_levels=60, steps_per_level=10, step_size=0.3)),
    "PredictorCorrector": ("VP", ss.PredictorCorrector(num_steps=60)),
    "PredictorCorrector, eta 0": ("VE", ss.PredictorCorrector(num_steps=60, eta=0.0)),
    "ReverseSDE": ("VE", ss.ReverseSDE(num_steps=40)),
    "ReverseSDE, Euler": ("VP", ss.ReverseSDE(num_steps=150, solver=diffrax.Euler(), eta=0.5)),
    "ProbabilityFlowODE": ("VP", ss.ProbabilityFlowODE(num_steps=25)),
}


def mixture() -> ss.GaussianMixture:
    return ss.GaussianMixture(WEIGHTS, MEANS, COVARIANCES)


def path_to(kind: str) -> Any:
    if kind == "tempered":
        return ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 4.0), mixture())
    return ss.perturb(mixture(), ss.VP() if kind == "VP" else ss.VE(0.002, 30.0))


def mode_of(draws: np.ndarray) -> np.ndarray:
    """The component with the largest posterior probability."""
    offset = draws[:, None] - MEANS
    distance = np.einsum("nkd,kde,nke->nk", offset, np.linalg.inv(COVARIANCES), offset)
    return np.argmax(np.log(WEIGHTS) - 0.5 * distance - 0.5 * np.linalg.slogdet(COVARIANCES)[1], axis=1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_mode_weights(name: str) -> None:
    kind, sampler = SAMPLERS[name]
    draws = ss.sample(path_to(kind), sampler, key=jax.random.key(8), num_samples=NUM_DRAWS // 4)
    found = np.bincount(mode_of(draws.position[0]), minlength=3) / NUM_DRAWS
    errors = (found - WEIGHTS) / np.sqrt(WEIGHTS * (1 - WEIGHTS) / NUM_DRAWS)
    assert np.abs(errors).max() < 4, found
