"""Several samplers on one target: which path each of them gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from tests.cases import bare, density, tree_position


def test_tempered_particles_start_from_a_wide_gaussian_and_keep_the_weights_of_modes() -> None:
    target = ss.GaussianMixture([0.3, 0.7], [[-4.0, 0.0], [4.0, 1.0]], [0.5 * jnp.eye(2)] * 2)
    comparison = ss.compare_samplers(target, {"tempered-smc": ss.TemperedSMC()}, key=jax.random.key(0), num_samples=500)
    draws = comparison.runs["tempered-smc"].draws
    assert draws.kind == "interacting"
    assert draws.log_weights is not None
    weights = np.exp(np.asarray(draws.log_weights[0]))
    np.testing.assert_allclose(weights @ (draws.position[0, :, 0] < 0), 0.3, atol=0.08)
    assert "do not use" not in str(comparison).split("\n\n")[1]


def test_a_density_without_known_moments_gets_the_reference_that_pathfinder_finds() -> None:
    from scoresample.workflows._compare_samplers import _tempered

    start = ss.DensityScore(
        density().fn, *density().args, structure=tree_position(), init_position=lambda key: tree_position()
    )
    reference = _tempered(start, jax.random.key(0)).reference
    mean, variance = reference.moments()
    np.testing.assert_allclose(mean["effects"], [1.0, -1.0], atol=0.3)
    np.testing.assert_allclose(variance["effects"], 4.0, rtol=0.5)


def test_a_bare_score_has_no_path_to_temper() -> None:
    with pytest.raises(TypeError, match="tempered-smc need a path"):
        ss.compare_samplers(bare(), {"tempered-smc": ss.TemperedSMC()}, key=jax.random.key(0))
