"""What the reproductions of papers measure with, and, on request, a whole run in its quick setting."""

import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from examples.papers import memorisation

ROOT = Path(__file__).parent.parent


def test_distances_from_the_curved_torus_are_those_along_its_normals() -> None:
    rng = np.random.default_rng(0)
    theta = memorisation.angles(rng, 50)
    tangents = -np.sqrt(2) * np.sin(theta @ memorisation.FREQUENCIES.T + memorisation.PHASES)[:, :, None]
    normal = rng.normal(size=(50, memorisation.DIMENSION))
    for place, tangent in enumerate(tangents * memorisation.FREQUENCIES):
        normal[place] -= tangent @ np.linalg.lstsq(tangent, normal[place])[0]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    clean = memorisation.embedded(theta)
    assert memorisation.distances(clean).max() < 1e-6
    np.testing.assert_allclose(memorisation.distances(clean + 0.1 * normal), 0.1, rtol=1e-3)


def test_the_quadrature_is_the_law() -> None:
    nodes, weights = memorisation.quadrature(16)
    draws = memorisation.points(0, 20_000)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.abs((weights @ nodes - draws.mean(axis=0)) / error).max() < 5
    assert np.abs((nodes.mean(axis=0) - draws.mean(axis=0)) / error).max() > 20, "an even law would do as well"


def test_losses_are_those_of_gaussian_data() -> None:
    """``E|D(x + sigma e) - x|^2 / sigma^2`` is D/(1 + sigma^2) for standard normal data."""
    score = ss.perturb(ss.Gaussian(jnp.zeros(memorisation.DIMENSION), 1.0), ss.VP())
    data = np.random.default_rng(1).normal(size=(memorisation.NUM_HELD_OUT, memorisation.DIMENSION))
    found, error = memorisation.loss(lambda x, sigma: memorisation.denoised(score, x, sigma), data, 0.5)
    assert abs(found - memorisation.DIMENSION / 1.25) < 5 * error < 0.5


@pytest.mark.parametrize(
    ("values", "end"),
    [([1.0, 0.5, 0.0], 10**2.4), ([0.0, 0.0, 0.0], 10.0), ([1.0, 1.0, 1.0], np.inf), ([0.0, 0.5, -0.5], 10**2.2)],
)
def test_signs_end_between_two_sizes(values: list[float], end: float) -> None:
    assert memorisation.transition((10, 100, 1000), values, 0.3) == pytest.approx(end)


@pytest.mark.slow
def test_the_end_of_memorisation_is_found_in_the_quick_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.papers.memorisation", "--quick", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
