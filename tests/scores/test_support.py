"""Bounded supports: the bijection, its Jacobian, and scores that are carried through it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from scoresample.scores import Support, as_support

LOW = np.array([0.0, -np.inf, 2.0, -np.inf])
HIGH = np.array([1.0, np.inf, np.inf, -3.0])
U = np.array([0.7, -1.2, 0.4, 1.1])


def support() -> Support:
    return Support(jnp.asarray(LOW), jnp.asarray(HIGH))


def test_there_and_back() -> None:
    x = support().to_bounded(jnp.asarray(U))
    assert np.all((x > LOW) & (x < HIGH))
    np.testing.assert_allclose(x[1:3], [-1.2, 2 + np.exp(0.4)], rtol=1e-5)
    np.testing.assert_allclose(x[3], -3 - np.exp(1.1), rtol=1e-5)
    np.testing.assert_allclose(support().to_unbounded(x), U, rtol=1e-4)


def test_the_jacobian_is_that_of_the_map() -> None:
    with jax.enable_x64(True):
        bijection = Support(jnp.asarray(LOW), jnp.asarray(HIGH))
        jacobian = jax.jacfwd(bijection.to_bounded)(jnp.asarray(U))
        assert float(bijection.log_jacobian(jnp.asarray(U))) == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-12)


def test_a_beta_law_in_unbounded_coordinates() -> None:
    """Log density and score of a beta variable on (0, 1), seen through the logit."""
    with jax.enable_x64(True):
        bijection = as_support((0.0, 1.0), jnp.zeros(1, jnp.float64))
        law: Any = stats.beta(2.5, 1.5)
        u = jnp.linspace(-3, 3, 7)[:, None]
        x = jax.vmap(bijection.to_bounded)(u)
        values = law.logpdf(np.asarray(x))[:, 0] + np.asarray(jax.vmap(bijection.log_jacobian)(u))
        step = 1e-5
        ends = [np.asarray(jax.vmap(bijection.to_bounded)(u + d)) for d in (step, -step)]
        logs = [
            law.logpdf(e)[:, 0] + np.asarray(jax.vmap(bijection.log_jacobian)(u + d))
            for e, d in zip(ends, (step, -step), strict=True)
        ]
        slopes = (logs[0] - logs[1]) / (2 * step)
        score = 1.5 / x - 0.5 / (1 - x)
        moved = jax.vmap(bijection.score_to_unbounded)(u, score)
        np.testing.assert_allclose(moved[:, 0], slopes, atol=1e-7)
        assert np.exp(values).max() < 1.0


@pytest.mark.parametrize("bounds", [(0.0, None), (None, 2.0), (-4.0, 2.0), (None, None)])
def test_the_score_of_every_kind_of_bound(bounds: tuple[float | None, float | None]) -> None:
    """A normal law cut to its bounds, differentiated through the bijection."""
    with jax.enable_x64(True):
        bijection = as_support(bounds, jnp.zeros(1, jnp.float64))

        def logdensity(u: jax.Array) -> jax.Array:
            return -0.5 * jnp.sum(bijection.to_bounded(u) ** 2) + bijection.log_jacobian(u)

        for value in (-1.0, 0.3):
            u = jnp.array([value])
            x = bijection.to_bounded(u)
            np.testing.assert_allclose(bijection.score_to_unbounded(u, -x), jax.grad(logdensity)(u), rtol=1e-12)


def test_far_out_nothing_overflows() -> None:
    u = jnp.array([60.0, 200.0, -150.0, -150.0])
    assert np.isfinite(support().to_bounded(u)).all()
    assert np.isfinite(float(support().log_jacobian(u)))
    assert np.isfinite(jax.grad(support().log_jacobian)(u)).all()


def test_bounds_by_name() -> None:
    position = {"rate": jnp.ones(2), "shift": jnp.zeros(())}
    bijection = as_support({"rate": (0.0, None)}, position)
    sites = bijection({"rate": jnp.zeros(2), "shift": jnp.asarray(-4.0)})
    np.testing.assert_allclose(sites["rate"], 1.0)
    assert float(sites["shift"]) == -4.0


def test_wrong_bounds_are_named() -> None:
    with pytest.raises(ValueError, match=r"bounds for \['rte'\], but positions hold \['rate'\]"):
        as_support({"rte": (0, 1)}, {"rate": jnp.ones(2)})
    with pytest.raises(ValueError, match="lower bounds must lie below"):
        as_support((1.0, 0.0), jnp.zeros(2))
    with pytest.raises(ValueError, match="do not fit coordinates of shape"):
        as_support((np.zeros(3), np.ones(3)), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"must be a pair \(low, high\)"):
        as_support({"rate": 3.0}, {"rate": jnp.ones(2)})
