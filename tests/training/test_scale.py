"""The smallest scale of data, where it is known; and how it gets from the training to the report."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.training._scale import smallest_scale


def modes(narrow: float, distance: float, share: float, dimension: int, seed: int, number: int = 2000) -> np.ndarray:
    """A mode of standard deviation `narrow` in a share of the points, and one of .5 at some distance."""
    generator = np.random.default_rng(seed)
    chosen = generator.random(number) < share
    normal = generator.normal(size=(number, dimension))
    return np.where(chosen[:, None], narrow * normal, distance + 0.5 * normal)


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_direction_along_no_axis_is_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    axes = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    points = generator.normal(size=(2000, 5)) * np.sqrt(np.geomspace(1e-2, 1, 5)) @ axes.T
    assert points.std(axis=0).min() > 0.2
    assert smallest_scale(points) == pytest.approx(0.1, rel=0.1)
    assert smallest_scale(100 * points - 7) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("dimension", [2, 5, 10])
@pytest.mark.parametrize(("distance", "share"), [(1.0, 0.5), (0.0, 0.5), (-0.7, 0.1)])
def test_a_narrow_mode_is_found_beside_and_inside_a_wide_one(dimension: int, distance: float, share: float) -> None:
    for seed in range(3):
        found = smallest_scale(modes(0.05, distance, share, dimension, seed))
        assert 0.025 < found < 0.1, (seed, found)


def test_directions_without_thickness_have_no_scale() -> None:
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, 2 * np.pi, size=2000)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ np.linalg.qr(generator.normal(size=(5, 5)))[0][:2]
    for points in (circle, (circle / circle.std(axis=0)).astype(np.float32)):
        assert 0.01 < smallest_scale(points) < 1.5
    line = np.outer(generator.normal(size=500), [1.0, 2.0, 2.0])
    assert smallest_scale(line + 5.0) == pytest.approx(3.0, rel=0.15)


def test_copies_of_points_are_no_scale() -> None:
    """As of weighted draws that were resampled."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(300, 3))[generator.integers(0, 300, size=3000)]
    assert smallest_scale(points) == pytest.approx(1.0, rel=0.2)


def test_too_few_points_tell_nothing() -> None:
    generator = np.random.default_rng(0)
    assert np.isnan(smallest_scale(generator.normal(size=(50, 6))))
    assert np.isnan(smallest_scale(np.zeros((100, 2))))
    assert smallest_scale(generator.normal(size=(50, 1))) == pytest.approx(1.0, rel=0.3)


@pytest.fixture(scope="module")
def narrow() -> Any:
    """A score of data of which one direction has a tenth of the coordinates' standard deviation, hardly trained."""
    generator = np.random.default_rng(0)
    data = generator.normal(size=(1000, 2)) @ np.array([[1.0, 1.0], [0.1, -0.1]]) * np.array([3.0, 50.0])
    return ss.fit_score(data, key=jax.random.key(0), num_epochs=1, width=8, depth=1, progress=False)


def test_training_records_it_and_the_score_knows_it(narrow: Any, tmp_path: Path) -> None:
    """Of standardised data with correlation r the narrow direction has variance 1 - r."""
    truth = np.sqrt(1 - 0.99 / 1.01)
    assert narrow.record.smallest_scale == pytest.approx(truth, rel=0.1)
    assert float(narrow.smallest_scale()) == pytest.approx(truth, rel=0.1)
    assert float(narrow.with_process(ss.VE()).smallest_scale()) == float(narrow.smallest_scale())
    ss.save_score(narrow, tmp_path / "score.safetensors")
    assert ss.load_score(tmp_path / "score.safetensors").smallest_scale() == narrow.smallest_scale()


def test_what_is_not_known_is_none() -> None:
    network = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2))
    assert network.smallest_scale() is None
    energy = ss.PerturbedEnergy(lambda y, s: -0.5 * jnp.sum(y**2) / (1 + s**2), ss.VP(), structure=jnp.zeros(2))
    assert energy.smallest_scale() is None
    density = ss.GaussianMixture([0.5, 0.5], jnp.array([[-1.0], [1.0]]), jnp.array([[[0.04]], [[1.0]]]))
    assert float(ss.perturb(density, ss.VP()).smallest_scale()) == pytest.approx(0.2)


def test_a_learned_score_that_ends_too_early_is_seen(narrow: Any) -> None:
    def stops(score: Any, **settings: Any) -> Any:
        draws = ss.sample(score, ss.ReverseSDE(num_steps=5, **settings), key=jax.random.key(0), num_samples=50)
        return {check.name: check for check in ss.compare({"run": draws}).verdicts["run"].checks}[NAME]

    assert stops(narrow).passed
    assert stops(narrow).value == pytest.approx(0.005 / narrow.record.smallest_scale, rel=1e-4)
    assert stops(narrow, delta=0.03**2).severity == "warn"
    assert "delta" in stops(narrow, delta=0.3**2).remedy


NAME = "noise left where sampling stopped, over the data's smallest scale"
