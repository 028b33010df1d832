"""Estimates of log-Sobolev constants where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from tests.cases import density, tree_position


def test_normal_laws_have_their_largest_variance() -> None:
    covariance = jnp.array([[2.0, 0.9], [0.9, 1.0]])
    law = ss.Gaussian(jnp.zeros(2), covariance)
    bounds = ss.log_sobolev_bounds(law, law.sample(jax.random.key(0), 20_000))
    largest = np.linalg.eigvalsh(covariance)[-1]
    assert bounds.upper == pytest.approx(largest, rel=1e-4)
    assert bounds.lower == pytest.approx(largest, rel=0.05)


def test_strongly_log_concave_laws_lie_between() -> None:
    """``-x^4/4 - x^2/2``: the curvature is at least one, the variance .47."""
    law = ss.DensityScore(lambda x: jnp.sum(-(x**4) / 4 - x**2 / 2), structure=jnp.zeros(1))
    grid = np.linspace(-5, 5, 4001)
    weights = np.exp(-(grid**4) / 4 - grid**2 / 2)
    draws = np.random.default_rng(0).choice(grid, 4000, p=weights / weights.sum())[:, None]
    bounds = ss.log_sobolev_bounds(law, draws)
    assert bounds.lower == pytest.approx(0.4679, rel=0.1)
    assert bounds.lower < bounds.upper <= 1.0


def test_modes_apart_are_not_bounded() -> None:
    law = ss.GaussianMixture(jnp.array([0.5, 0.5]), jnp.array([[-3.0], [3.0]]), jnp.ones((2, 1, 1)))
    draws = np.concatenate([np.asarray(law.sample(jax.random.key(0), 2000)), np.zeros((200, 1))])
    assert ss.log_sobolev_bounds(law, draws).upper == float("inf")


def test_draws_and_trees() -> None:
    draws = ss.sample(density(), ss.NUTS(), key=jax.random.key(0), initial_position=tree_position(), num_samples=200)
    bounds = ss.log_sobolev_bounds(density(), draws)
    assert 0.5 < bounds.lower < 2.0


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (np.zeros((10, 3)), "`draws`"),
        (np.full((10, 2), np.nan), "not finite"),
        (np.zeros((1, 2)), "at least two draws"),
        ([], "at least two draws"),
    ],
)
def test_doors(draws: np.ndarray, message: str) -> None:
    law = ss.Gaussian(jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match=message):
        ss.log_sobolev_bounds(law, draws)


def test_a_path_is_no_score(unchecked_types: None) -> None:
    path = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    with pytest.raises(TypeError, match=r"path\.at\(t\)"):
        ss.log_sobolev_bounds(path, np.zeros((10, 2)))  # pyright: ignore[reportArgumentType]
