"""Is a score a gradient: closed forms on linear scores, units, and the checks that a run adds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from tests.cases import bare, bare_tree, gaussian, tree_position

TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])


def rotated(amount: float) -> ss.Score:
    """The score of N((1, -2), covariance) with a rotation around the mean added."""

    def score(x: Array, amount: Array, base: ss.Gaussian) -> Array:
        return base(x) + amount * TURN @ (x - base.mean)

    return ss.Score(score, jnp.asarray(amount), gaussian(), structure=jnp.zeros(2))


def test_asymmetry_of_a_linear_score_is_the_share_of_its_antisymmetric_part() -> None:
    matrix = jnp.array([[-2.0, 0.7, 0.1], [-0.3, -1.0, 0.5], [0.4, 0.2, -0.5]])
    positions = jnp.array(np.random.default_rng(0).choice([-1.0, 1.0], (4000, 3)), jnp.float32)
    scale = positions.std(axis=0)  # close to one: products are taken in these units
    standard = scale[:, None] * matrix * scale
    want = jnp.linalg.norm(standard - standard.T) / (2 * jnp.linalg.norm(standard))
    got = ss.asymmetry(ss.Score(lambda x: matrix @ x, structure=jnp.zeros(3)), positions)
    np.testing.assert_allclose(got, want, rtol=0.03)


def test_asymmetry_does_not_depend_on_units() -> None:
    units = jnp.array([100.0, 0.01])
    positions = jax.random.normal(jax.random.key(0), (50, 2))
    turning = rotated(0.5)
    rescaled = ss.Score(lambda y: turning(y / units) / units, structure=jnp.zeros(2))
    np.testing.assert_allclose(ss.asymmetry(turning, positions), ss.asymmetry(rescaled, units * positions), rtol=1e-4)


@pytest.mark.parametrize("score", [bare(), gaussian()], ids=["bare", "Gaussian"])
def test_gradients_are_symmetric(score: Any) -> None:
    assert ss.asymmetry(score, jax.random.normal(jax.random.key(0), (20, 2))) < 1e-6


def test_trees_and_single_positions_have_an_asymmetry() -> None:
    positions = jax.tree.map(lambda x: x[None], tree_position())
    assert ss.asymmetry(bare_tree(), positions) < 1e-6
    with pytest.raises(ValueError, match="common leading axis"):
        ss.asymmetry(bare_tree(), tree_position())


def test_a_loop_around_a_rotation_is_twice_its_area() -> None:
    corners = jnp.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]])
    np.testing.assert_allclose(ss.loop_integral(rotated(0.5), corners), 0.5 * 2 * 6.0, rtol=1e-4)
    np.testing.assert_allclose(ss.loop_integral(rotated(0.5), corners[::-1]), -0.5 * 2 * 6.0, rtol=1e-4)
    np.testing.assert_allclose(ss.loop_integral(bare(), corners), 0.0, atol=1e-4)
    with pytest.raises(ValueError, match="at least 3 corners"):
        ss.loop_integral(bare(), corners[:2])


@pytest.mark.parametrize(("amount", "severity"), [(0.0, None), (0.1, "warn"), (1.0, "fail")])
def test_a_run_on_a_line_integral_says_whether_there_is_a_density(amount: float, severity: str | None) -> None:
    target = ss.LineIntegralDensity(rotated(amount), jnp.array([1.0, -2.0]))
    draws = ss.sample(
        target, ss.MALA(step_size=0.3), key=jax.random.key(0), num_samples=200, num_warmup=0,
        initial_position=jnp.array([1.0, -2.0]),
    )  # fmt: skip
    found = {check.name: check for check in draws.info["checks"]}
    assert set(found) == {"asymmetry of the score", "loop integral of the score"}
    check = found["asymmetry of the score"]
    assert check.passed == (severity is None)
    assert severity is None or check.severity == severity
    if amount == 0.0:
        assert found["loop integral of the score"].value < 1e-4


def test_a_quadrature_that_is_too_coarse_shows_in_the_loops() -> None:
    """From one mode to the other two nodes miss the valley between them, though the score is a gradient."""
    modes = ss.GaussianMixture([0.5, 0.5], [[-2.5, 0.0], [2.5, 0.0]], [jnp.eye(2)] * 2)
    score = ss.Score(modes.__call__, structure=jnp.zeros(2))
    starts = jnp.array([[-2.5, 0.1], [2.5, 0.1], [-2.5, -0.1], [2.5, -0.1]])
    settings: dict[str, Any] = {"num_samples": 20, "num_warmup": 0, "initial_position": starts}
    coarse = ss.LineIntegralDensity(score, jnp.array([1.0, 3.0]), num_nodes=2)
    draws = ss.sample(coarse, ss.MALA(step_size=0.01), key=jax.random.key(0), **settings)
    found = {check.name: check for check in draws.info["checks"]}
    assert found["asymmetry of the score"].passed
    assert not found["loop integral of the score"].passed
    assert float(coarse.quadrature_error(jnp.array([-2.5, 0.0]))) > 0.5
    fine = ss.LineIntegralDensity(score, jnp.array([1.0, 3.0]), num_nodes=32)
    assert float(fine.quadrature_error(jnp.array([-2.5, 0.0]))) < 0.01


def test_samplers_without_a_density_add_no_such_check() -> None:
    draws = ss.sample(
        ss.LineIntegralDensity(rotated(1.0), jnp.zeros(2)), ss.ULA(0.1), key=jax.random.key(0), num_samples=5,
        num_warmup=0, initial_position=jnp.zeros(2),
    )  # fmt: skip
    assert draws.info["checks"] == []
