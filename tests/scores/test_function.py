"""Scores from functions: the sign, the data in `args`, and the log density that kernels differentiate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from scoresample.scores import (
    AbstractDensityScore,
    Constrain,
    DensityScore,
    LineIntegralDensity,
    Position,
    Score,
    Structure,
    check_structure,
    logdensity_fn,
    named_sites,
    structure_of,
)
from tests.cases import density, tree_position


def log_gamma(u: Array, shape: Array) -> Array:
    return jnp.sum(shape * u - jnp.exp(u))


def test_the_score_is_the_gradient_with_a_positive_sign() -> None:
    score = DensityScore(log_gamma, jnp.asarray(3.0), structure=jnp.zeros(()))
    # Left of the mode log(3) the density rises, right of it it falls, and faster: the target is skewed.
    np.testing.assert_allclose(score(jnp.asarray(0.0)), 2.0, rtol=1e-6)
    np.testing.assert_allclose(score(jnp.log(3.0)), 0.0, atol=1e-6)
    np.testing.assert_allclose(score(jnp.asarray(2.0)), 3.0 - np.exp(2.0), rtol=1e-6)


def test_positions_are_trees() -> None:
    score = density()
    position = tree_position()
    got = score(position)
    np.testing.assert_allclose(got["effects"], jnp.array([1.0, -1.0]) - position["effects"], rtol=1e-6)
    np.testing.assert_allclose(got["log_scale"], 3.0 - np.exp(0.3), rtol=1e-6)
    value, also = score.value_and_score(position)
    np.testing.assert_allclose(value, score.logdensity(position))
    np.testing.assert_allclose(also["log_scale"], got["log_scale"])


def test_args_are_data_and_not_constants() -> None:
    score = DensityScore(log_gamma, jnp.asarray(3.0), structure=jnp.zeros(2))
    assert [leaf.shape for leaf in jax.tree.leaves(eqx.filter(score, eqx.is_array))] == [()]
    to_data = eqx.filter_grad(lambda s: s.logdensity(jnp.array([0.5, 1.0])))(score)
    np.testing.assert_allclose(to_data.args[0], 1.5, rtol=1e-6)


def test_the_log_density_for_kernels_has_the_score_as_its_derivative() -> None:
    """The rule comes from `value_and_score`: a score that contradicts its log density on purpose shows it."""

    class Contradiction(AbstractDensityScore):
        structure: Structure = None
        constrain: Constrain = named_sites
        init_position: Callable[[Array], Position] | None = None

        def logdensity(self, position: Array) -> Array:
            return jnp.sum(position)

        def value_and_score(self, position: Array) -> tuple[Array, Array]:
            return self.logdensity(position), 7.0 * position

    fn = logdensity_fn(Contradiction())
    x = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(fn(x), 3.0)
    np.testing.assert_allclose(jax.grad(fn)(x), 7.0 * x)
    np.testing.assert_allclose(jax.vmap(jax.grad(fn))(jnp.stack([x, -x])), 7.0 * jnp.stack([x, -x]))
    np.testing.assert_allclose(jax.jvp(fn, (x,), (jnp.array([0.0, 1.0]),))[1], 14.0)
    np.testing.assert_allclose(jax.hessian(fn)(x), 7.0 * np.eye(2))


def test_derivatives_reach_the_data_behind_a_log_density_for_kernels() -> None:
    def at(shape: Array) -> Array:
        return logdensity_fn(DensityScore(log_gamma, shape, structure=jnp.zeros(2)))(jnp.array([0.5, 1.0]))

    np.testing.assert_allclose(jax.grad(at)(jnp.asarray(3.0)), 1.5, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(at))(jnp.asarray(3.0)), 1.5, rtol=1e-6)


def test_a_gradient_through_a_line_integral_is_one_score_evaluation() -> None:
    bare = Score(lambda x: -(x**3), structure=jnp.zeros(2))
    fn = logdensity_fn(LineIntegralDensity(bare, jnp.zeros(2)))
    x = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(fn(x), -(1 + 16) / 4, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(fn)(x), -(x**3), rtol=1e-6)


def test_structures_are_read_and_compared() -> None:
    assert structure_of(1) == jax.ShapeDtypeStruct((), jnp.int32)
    assert structure_of(structure_of(tree_position())) == structure_of(tree_position())
    check_structure(tree_position(), structure_of(tree_position()), name="start")
    with pytest.raises(ValueError, match=r"`start`: \['effects'\] of this position has shape \(3,\), but \(2,\)"):
        check_structure(tree_position() | {"effects": jnp.zeros(3)}, structure_of(tree_position()), name="start")
    with pytest.raises(ValueError, match=r"`start`: this draw has the tree .* is needed"):
        check_structure({"effects": jnp.zeros(2)}, structure_of(tree_position()), name="start", what="draw")


def test_names_follow_the_tree() -> None:
    assert list(named_sites(jnp.zeros(2))) == ["x"]
    assert list(named_sites({"a": jnp.zeros(2), "b": [jnp.zeros(1), jnp.zeros(1)]})) == ["a", "b.0", "b.1"]


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_function_is_refused() -> None:
    for kind in (DensityScore, Score):
        with pytest.raises(TypeError, match="`fn` must be a function of a position, got ndarray"):
            kind(np.zeros(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`score` must be an AbstractScore, got function"):
        logdensity_fn(lambda x: -x)  # pyright: ignore[reportArgumentType]
