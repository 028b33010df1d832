import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.scores import logdensity_fn

ORIGIN = jnp.array([0.3, -0.4])
POINTS = np.array([[1.5, 2.0], [-1.0, 0.7], [0.3, -0.4]])


def polynomial(x: Array, coefficients: Array) -> Array:
    """A skewed, coupled log density: a polynomial in the first coordinate, highest power first."""
    return jnp.polyval(coefficients, x[0]) + x[0] * x[1] - 0.7 * x[1] ** 2


def gradient(x: Array, coefficients: Array) -> Array:
    return jax.grad(polynomial)(x, coefficients)


def of_degree(degree: int) -> Array:
    return jnp.zeros(9).at[8 - degree].set(-0.125).at[7].add(0.5)


def bare(degree: int) -> ss.Score:
    return ss.Score(gradient, of_degree(degree), structure=jnp.zeros(2))


@eqx.filter_jit
def logdensities(density: ss.AbstractDensityScore, points: Array) -> Array:
    return jax.vmap(density.logdensity)(points)


@pytest.mark.parametrize("num_nodes", [1, 3])
def test_quadrature_is_exact_up_to_twice_its_nodes(num_nodes: int) -> None:
    with jax.enable_x64(True):
        for degree, exact in ((2 * num_nodes, True), (2 * num_nodes + 2, False)):
            density = ss.LineIntegralDensity(bare(degree), ORIGIN.astype(float), num_nodes=num_nodes)
            point = jnp.array([1.5, 2.0])
            expected = polynomial(point, of_degree(degree)) - polynomial(ORIGIN.astype(float), of_degree(degree))
            error = abs(float(logdensities(density, point[None])[0] - expected))
            assert error < 1e-6 if exact else error > 1e-4


def test_differences_are_those_of_the_log_density_whatever_the_origin() -> None:
    with jax.enable_x64(True):
        target = ss.GaussianMixture([0.3, 0.7], [[-0.5, 0.0], [1.0, 0.5]], [[1.0, 0.5], [0.6, 1.0]])
        score = ss.Score(lambda x, target: target(x), target, structure=jnp.zeros(2))
        points = jnp.asarray(POINTS, jnp.float64)
        truth = np.asarray(logdensities(target, points))
        for origin in ([0.0, 0.0], [1.0, -1.0]):
            values = logdensities(ss.LineIntegralDensity(score, jnp.array(origin), num_nodes=24), points)
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
    direction = jnp.array([0.5, -1.0])

    @eqx.filter_jit
    def derivatives(density: ss.LineIntegralDensity, point: Array) -> dict[str, Array]:
        fn = logdensity_fn(density)
        return {
            "value": fn(point) - density.logdensity(point),
            "gradient": jax.grad(fn)(point) - density.score(point),
            "jvp": jax.jvp(fn, (point,), (direction,))[1] - density.score(point) @ direction,
            "hessian": jax.hessian(fn)(point) - jax.jacfwd(density.score)(point),
            "batch": jax.vmap(jax.grad(fn))(jnp.asarray(POINTS)) - jax.vmap(density.score)(jnp.asarray(POINTS)),
            "quadrature": jax.grad(density.logdensity)(point) - density.score(point),
        }

    found = derivatives(ss.LineIntegralDensity(bare(6), ORIGIN, num_nodes=1), jnp.array([1.5, 2.0]))
    assert np.abs(found.pop("quadrature")).max() > 0.1
    for name, error in found.items():
        np.testing.assert_allclose(error, 0, atol=2e-5, err_msg=name)


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
