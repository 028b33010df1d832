import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.scores import logdensity_fn

ORIGIN = jnp.array([0.3, -0.4])
POINTS = np.array([[1.5, 2.0], [-1.0, 0.7], [0.3, -0.4]])


def polynomial(x: Array, degree: Array) -> Array:
    """A skewed, coupled log density, of degree 2 m along every line for ``degree = 2 m``."""
    return -(x[0] ** degree) / 8 + x[0] * x[1] - 0.7 * x[1] ** 2 + 0.5 * x[0]


def bare(degree: int) -> ss.Score:
    return ss.Score(lambda x: jax.grad(lambda y: polynomial(y, degree))(x), structure=jnp.zeros(2))


@pytest.mark.parametrize("num_nodes", [1, 2, 3])
def test_quadrature_is_exact_up_to_twice_its_nodes(num_nodes: int) -> None:
    with jax.enable_x64(True):
        for degree, exact in ((2 * num_nodes, True), (2 * num_nodes + 2, False)):
            density = ss.LineIntegralDensity(bare(degree), ORIGIN.astype(float), num_nodes=num_nodes)
            point = jnp.array([1.5, 2.0])
            expected = polynomial(point, degree) - polynomial(ORIGIN.astype(float), degree)
            error = abs(float(density.logdensity(point) - expected))
            assert error < 1e-6 if exact else error > 1e-4


def test_differences_are_those_of_the_log_density_whatever_the_origin() -> None:
    with jax.enable_x64(True):
        target = ss.GaussianMixture(
            [0.3, 0.7], [[-0.5, 0.0], [1.0, 0.5]], [[[1.0, 0.3], [0.3, 0.5]], [[0.6, 0], [0, 1]]]
        )
        score = ss.Score(lambda x: target(x), structure=jnp.zeros(2))
        for origin in ([0.0, 0.0], [1.0, -1.0]):
            density = ss.LineIntegralDensity(score, jnp.array(origin), num_nodes=24)
            values = np.array([density.logdensity(jnp.asarray(x)) for x in POINTS])
            truth = np.array([target.logdensity(jnp.asarray(x)) for x in POINTS])
            np.testing.assert_allclose(values - values[0], truth - truth[0], atol=1e-8)


def test_the_density_is_zero_at_the_origin_and_keeps_the_score() -> None:
    density = ss.LineIntegralDensity(bare(4), ORIGIN)
    assert float(density.logdensity(ORIGIN)) == 0
    value, score = density.value_and_score(jnp.array([1.5, 2.0]))
    assert value == density.logdensity(jnp.array([1.5, 2.0]))
    np.testing.assert_array_equal(score, bare(4)(jnp.array([1.5, 2.0])))


def test_trees_are_integrated_leaf_by_leaf() -> None:
    def score(position: dict[str, Array]) -> dict[str, Array]:
        return {"a": -2 * position["a"] + position["b"].sum(), "b": -position["b"] + position["a"]}

    origin = {"a": jnp.asarray(0.5), "b": jnp.array([1.0, -1.0, 0.0])}
    density = ss.LineIntegralDensity(ss.Score(score, structure=origin), origin)

    def logdensity(a: float, b: np.ndarray) -> float:
        return -(a**2) - 0.5 * float(b @ b) + a * float(b.sum())

    position = {"a": jnp.asarray(-1.0), "b": jnp.array([2.0, 0.5, 1.0])}
    expected = logdensity(-1.0, np.array([2.0, 0.5, 1.0])) - logdensity(0.5, np.array([1.0, -1.0, 0.0]))
    assert float(density.logdensity(position)) == pytest.approx(expected, rel=1e-5)


def test_the_function_for_kernels_has_the_score_as_its_gradient() -> None:
    """One node is far from exact here: differentiating the quadrature would not give the score."""
    density = ss.LineIntegralDensity(bare(6), ORIGIN, num_nodes=1)
    fn, point = logdensity_fn(density), jnp.array([1.5, 2.0])
    np.testing.assert_allclose(fn(point), density.logdensity(point), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(fn)(point), bare(6)(point), rtol=1e-6)
    assert np.abs(jax.grad(density.logdensity)(point) - bare(6)(point)).max() > 0.1
    direction = jnp.array([0.5, -1.0])
    np.testing.assert_allclose(jax.jvp(fn, (point,), (direction,))[1], bare(6)(point) @ direction, rtol=1e-5)
    np.testing.assert_allclose(jax.hessian(fn)(point), jax.jacfwd(bare(6))(point), rtol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(fn))(jnp.asarray(POINTS)), jax.vmap(bare(6))(jnp.asarray(POINTS)), rtol=1e-5, atol=1e-6
    )


def test_the_function_for_kernels_can_be_differentiated_in_its_parameters() -> None:
    def value(rate: Array, point: Array) -> Array:
        score = ss.Score(lambda x, rate: -rate * x**3, rate, structure=jnp.zeros(2))
        return logdensity_fn(ss.LineIntegralDensity(score, jnp.zeros(2)))(point)

    point, rate = jnp.array([1.0, -2.0]), jnp.asarray(0.7)
    by_rate, by_point = jax.grad(value, argnums=(0, 1))(rate, point)
    assert float(by_rate) == pytest.approx(-(1.0 + 16.0) / 4, rel=1e-5)
    np.testing.assert_allclose(by_point, -0.7 * point**3, rtol=1e-5)


def test_what_cannot_be_integrated_is_refused() -> None:
    with pytest.raises(TypeError, match="score"):
        ss.LineIntegralDensity(lambda x: -x, ORIGIN)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="origin"):
        ss.LineIntegralDensity(bare(2), jnp.zeros(3))
    with pytest.raises(ValueError, match="num_nodes"):
        ss.LineIntegralDensity(bare(2), ORIGIN, num_nodes=0)
