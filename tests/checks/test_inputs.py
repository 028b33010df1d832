import jax.numpy as jnp
import numpy as np

from scoresample.checks import check_finite, check_same_structure


def test_finite_counts_and_names_the_arrays() -> None:
    tree = {"mu": jnp.array([0.0, jnp.nan]), "tau": jnp.array(jnp.inf), "theta": jnp.zeros(3)}
    check = check_finite(tree, what="score")
    assert check.value == 2
    assert not check.passed
    assert check.severity == "fail"
    assert "2 of 6" in check.cause
    assert "mu, tau" in check.cause
    assert "theta" not in check.cause


def test_finite_passes_numbers_integers_and_bare_arrays() -> None:
    assert check_finite(1.0).passed
    assert check_finite(np.arange(3)).passed
    assert "(in x)" in check_finite(np.array([np.nan])).cause


def test_same_structure_finds_shapes_and_trees() -> None:
    position = {"a": np.zeros(2), "b": np.zeros((3, 1))}
    assert check_same_structure(position, {"a": np.ones(2), "b": np.ones((3, 1))}).passed
    wrong_shape = check_same_structure(position, {"a": np.ones(2), "b": np.ones(3)})
    assert wrong_shape.value == 1
    assert "(3,)" in wrong_shape.cause
    assert "(in b)" in wrong_shape.cause
    wrong_tree = check_same_structure(position, [np.ones(2), np.ones(3)])
    assert not wrong_tree.passed
    assert "tree" in wrong_tree.cause
