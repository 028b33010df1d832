"""Mode weights on an asymmetric mixture: what a wrong sign, clock or start would spoil first."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss

WEIGHTS = np.array([0.15, 0.35, 0.5])
MEANS = np.array([[-2.0, 1.0], [0.5, -1.5], [2.0, 1.5]])
VARIANCES = np.array([[0.1, 0.3], [0.3, 0.1], [0.15, 0.4]])
WIDE = 8 * VARIANCES
"""Tempering is slow between separated modes: those of the tempered target overlap."""
NUM_DRAWS = 4_000

SAMPLERS: dict[str, tuple[str, Any]] = {
    "AnnealedLangevin": ("VP", ss.AnnealedLangevin(num_levels=400, step_size=0.3)),
    "AnnealedLangevin, tempered": ("tempered", ss.AnnealedLangevin(steps_per_level=20, step_size=0.15)),
    "PredictorCorrector": ("VE", ss.PredictorCorrector(num_steps=60, eta=0.5)),
    "ReverseSDE": ("VE", ss.ReverseSDE(num_steps=40)),
    "ProbabilityFlowODE": ("VP", ss.ProbabilityFlowODE(num_steps=25)),
}


def path_to(kind: str) -> Any:
    if kind == "tempered":
        return ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 16.0), ss.GaussianMixture(WEIGHTS, MEANS, WIDE))
    return ss.perturb(ss.GaussianMixture(WEIGHTS, MEANS, VARIANCES), ss.VP() if kind == "VP" else ss.VE(0.002, 30.0))


def log_parts(x: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Weight times density of every component, in logarithms."""
    distance = np.sum((x[:, None] - MEANS) ** 2 / variances, axis=-1)
    return np.log(WEIGHTS / (2 * np.pi)) - 0.5 * distance - 0.5 * np.sum(np.log(variances), axis=-1)


def frequencies(x: np.ndarray, variances: np.ndarray, density: np.ndarray | None = None) -> np.ndarray:
    """How often each component is the most probable one."""
    counts = np.bincount(np.argmax(log_parts(x, variances), axis=1), weights=density, minlength=3)
    return counts / counts.sum()


def expected_frequencies(variances: np.ndarray) -> np.ndarray:
    """The same under the mixture itself, by quadrature on a grid."""
    axis = np.linspace(-12, 12, 401)
    x = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return frequencies(x, variances, np.exp(log_parts(x, variances)).sum(axis=1))


@pytest.mark.parametrize("name", SAMPLERS)
def test_mode_weights(name: str) -> None:
    kind, sampler = SAMPLERS[name]
    draws = ss.sample(path_to(kind), sampler, key=jax.random.key(8), num_samples=NUM_DRAWS // 4)
    variances = WIDE if kind == "tempered" else VARIANCES
    expected = expected_frequencies(variances)
    found = frequencies(np.asarray(draws.position[0], np.float64), variances)
    errors = (found - expected) / np.sqrt(expected * (1 - expected) / NUM_DRAWS)
    assert np.abs(errors).max() < 4, (found, expected)


def test_expected_frequencies_of_separated_modes_are_the_weights() -> None:
    np.testing.assert_allclose(expected_frequencies(VARIANCES), WEIGHTS, atol=5e-3)
