"""Correctors alone, at one level: which law they leave invariant, and how far off they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.samplers._correctors import LangevinCorrector, MetropolisCorrector
from tests.samplers.affine_laws import MEAN, UNEQUAL, path_of


def tempered(logdensity: Any, dimension: int) -> Any:
    """A path whose level t=0 has the log density."""
    target = ss.DensityScore(logdensity, structure=jnp.zeros(dimension))
    return ss.TemperedPath(ss.Gaussian(jnp.zeros(dimension), 1.0), target)


def quartic(x: Array) -> Array:
    """Skewed, and no product."""
    return -(x[0] ** 4 + x[1] ** 4) / 4 + x[0] * x[1] ** 2 / 4 + x[0] / 2


def quartic_moments() -> tuple[np.ndarray, np.ndarray]:
    """Means and second moments, by quadrature."""
    axis = np.linspace(-4, 4, 801)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    weight = np.exp(-(x**4 + y**4) / 4 + x * y**2 / 4 + x / 2)
    weight /= weight.sum()
    return np.array([(weight * x).sum(), (weight * y).sum()]), np.array([(weight * x**2).sum(), (weight * y**2).sum()])


def ends(corrector: Any, path: Any, start: Array, h: float, seed: int = 0, t: float = 0.0) -> tuple[Array, Any]:
    return jax.jit(lambda z: corrector.correct(path, z, jnp.asarray(t), jnp.asarray(h), key=jax.random.key(seed)))(
        start
    )


def standard_errors(values: Array, expected: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return (values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(len(values)))


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_metropolis_from_the_score_keeps_a_quartic_density(h: float) -> None:
    start = jnp.zeros((20_000, 2))
    found, stats = ends(MetropolisCorrector(num_steps=200), tempered(quartic, 2), start, h)
    means, squares = quartic_moments()
    assert 0.2 < float(stats["acceptance_rate"]) < 0.98
    assert np.abs(standard_errors(found, means)).max() < 5
    assert np.abs(standard_errors(found**2, squares)).max() < 5


def test_metropolis_has_no_bias_where_langevin_has_a_tenth() -> None:
    """At h = 1/(5 L) the variances of ULA on a Gaussian are ``v / (1 - h/(2 v))``."""
    path = path_of("VP", UNEQUAL)
    t = jnp.asarray(0.05)
    variance = np.asarray(path.process.alpha(t) ** 2 * UNEQUAL.diagonal() + path.process.variance(t), np.float64)
    start = path.process.alpha(t) * MEAN + np.sqrt(variance) * jax.random.normal(jax.random.key(1), (40_000, 3))
    h = 0.2 * variance.min()
    plain, _ = ends(LangevinCorrector(num_steps=100), path, start, h, t=float(t))
    assert np.asarray(plain).var(axis=0)[0] / variance[0] > 1.1
    kept, _ = ends(MetropolisCorrector(num_steps=100), path, start, h, t=float(t))
    np.testing.assert_allclose(np.asarray(kept, np.float64).var(axis=0), variance, rtol=5 * np.sqrt(2 / 40_000))


def test_moves_that_are_not_finite_are_rejected() -> None:
    path = tempered(lambda x: jnp.sum(jnp.sqrt(1.0 - x) - 0.5 * x**2), 1)
    found, _ = ends(MetropolisCorrector(num_steps=50), path, jnp.zeros((500, 1)), 0.5)
    assert bool(jnp.all(jnp.isfinite(found)))
    assert float(found.max()) <= 1.0


def test_settings_are_checked() -> None:
    for corrector in (LangevinCorrector, MetropolisCorrector):
        with pytest.raises(ValueError, match="`num_steps` must be"):
            corrector(num_steps=0)
