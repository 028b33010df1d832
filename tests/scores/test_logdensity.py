"""Any score as a log-density function: values, derivatives by position and by parameters, both precisions."""

from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import PreconditionedDenoiser, ResidualMLP

RTOL = {"float32": 2e-4, "float64": 1e-10}


def potential(network: Any, x: Array) -> Array:
    """A scalar network with curvature: what the score below is the gradient of."""
    return jnp.sum(jnp.tanh(network["inner"] @ x) * network["outer"]) - 0.5 * jnp.sum(x**2)


def weights(dtype: Any) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {"inner": jnp.asarray(random.normal(size=(5, 3)), dtype), "outer": jnp.asarray(random.normal(size=5), dtype)}


def bare_network(network: dict[str, Array]) -> ss.Score:
    """The network's gradient alone, as somebody would have learned it."""
    dtype = network["outer"].dtype
    return ss.Score(lambda x, n: jax.grad(potential, argnums=1)(n, x), network, structure=jnp.zeros(3, dtype))


@pytest.mark.parametrize("kind", ["density", "line integral"])
def test_value_gradient_hessian_and_vmap_are_those_of_the_density(kind: str, precision: jnp.dtype) -> None:
    network, rtol = weights(precision), RTOL[precision.name]
    origin, points = jnp.full(3, 0.2, precision), jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), precision)
    if kind == "density":
        score: Any = ss.DensityScore(lambda x, n: potential(n, x), network, structure=origin)
        logdensity, offset = ss.logdensity_fn(score), 0.0
    else:
        logdensity = ss.logdensity_fn(bare_network(network), origin=origin, num_nodes=24)
        offset = potential(network, origin)
    x = points[0]
    value, gradient = jax.value_and_grad(logdensity)(x)
    assert value.dtype == precision
    assert gradient.dtype == precision
    np.testing.assert_allclose(value, potential(network, x) - offset, rtol=rtol)
    np.testing.assert_allclose(gradient, jax.grad(potential, argnums=1)(network, x), rtol=rtol)
    np.testing.assert_allclose(
        jax.hessian(logdensity)(x), jax.hessian(potential, argnums=1)(network, x), rtol=rtol, atol=rtol
    )
    np.testing.assert_allclose(
        jax.vmap(jax.grad(logdensity))(points), jax.vmap(jax.grad(potential, argnums=1), (None, 0))(network, points),
        rtol=rtol, atol=rtol,
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(logdensity)(x), value, rtol=rtol)


@pytest.mark.parametrize("kind", ["density", "line integral"])
def test_derivatives_reach_the_networks_parameters(kind: str, precision: jnp.dtype) -> None:
    network, rtol = weights(precision), RTOL[precision.name]
    origin, x = jnp.full(3, 0.2, precision), jnp.asarray([0.5, -1.0, 0.3], precision)

    def value(network: dict[str, Array]) -> Array:
        if kind == "density":
            return ss.logdensity_fn(ss.DensityScore(lambda x, n: potential(n, x), network, structure=origin))(x)
        return ss.logdensity_fn(bare_network(network), origin=origin, num_nodes=24)(x)

    def truth(network: dict[str, Array]) -> Array:
        return potential(network, x) - (potential(network, origin) if kind == "line integral" else 0.0)

    for got, want in zip(
        jax.tree.leaves(jax.grad(value)(network)), jax.tree.leaves(jax.grad(truth)(network)), strict=True
    ):
        assert got.dtype == precision
        np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), network)
    np.testing.assert_allclose(jax.vmap(value)(batch), jax.vmap(truth)(batch), rtol=rtol, atol=rtol)


def test_a_learned_networks_parameters_can_be_trained_through_it() -> None:
    network = PreconditionedDenoiser(ResidualMLP(2, width=8, depth=1, key=jax.random.key(0)))
    score = ss.PerturbedScore(network, ss.VP(), structure=jnp.zeros(2), prediction="denoised", time="sigma").at(0.1)

    def loss(score: Any) -> Array:
        return ss.logdensity_fn(score, origin=jnp.zeros(2))(jnp.array([0.3, -0.2]))

    gradients = jax.tree.leaves(eqx.filter_grad(loss)(score))
    assert gradients
    assert all(np.isfinite(leaf).all() for leaf in gradients)
    assert any(np.abs(leaf).max() > 0 for leaf in gradients)


def test_blackjax_takes_it_as_it_is() -> None:
    """NUTS on the line integral of a bare score draws the target; its variance is known."""
    covariance = jnp.array([[1.0, 0.8], [0.8, 1.5]])
    bare = ss.Score(lambda x: -jnp.linalg.solve(covariance, x), structure=jnp.zeros(2))
    algorithm: Any = blackjax.nuts(ss.logdensity_fn(bare, origin=jnp.zeros(2)), 0.8, jnp.ones(2))

    def one_chain(key: Array) -> Array:
        state = algorithm.init(jnp.ones(2))
        return jax.lax.scan(
            lambda s, k: ((n := algorithm.step(k, s)[0]), n.position), state, jax.random.split(key, 500)
        )[1]

    draws = jax.jit(jax.vmap(one_chain))(jax.random.split(jax.random.key(0), 16))[:, 50:]
    np.testing.assert_allclose(np.cov(draws.reshape(-1, 2).T), covariance, atol=0.1)


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_a_log_density_is_refused() -> None:
    bare = ss.Score(lambda x: -x, structure=jnp.zeros(2))
    with pytest.raises(ValueError, match=r"`origin`: Score is a bare score.*a position in the bulk"):
        ss.logdensity_fn(bare)
    with pytest.raises(ValueError, match=r"`origin`: Gaussian has a log density of its own"):
        ss.logdensity_fn(ss.Gaussian(jnp.zeros(2), 1.0), origin=jnp.zeros(2))
    with pytest.raises(TypeError, match="`score` must be an AbstractScore, got function"):
        ss.logdensity_fn(lambda x: x)  # pyright: ignore[reportArgumentType]
