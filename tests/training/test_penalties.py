"""Penalties: zero for a family of scores that belongs together, not for another, and unbiased with probes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from scoresample.training._layout import VectorDenoiser, layout_of
from scoresample.training._penalties import logdensity_fpe_penalty, score_fpe_penalty

COVARIANCE = jnp.array([[1.0, 0.5, 0.0], [0.5, 2.0, -0.3], [0.0, -0.3, 0.3]])


class Known(eqx.Module):
    """Noised normal data, with a factor on the log density, and a drift: a cubic, and a constant of the level."""

    factor: float = 1.0
    drift: float = 0.0

    def logdensity(self, y: Array, s: Array) -> Array:
        total = COVARIANCE.astype(y.dtype) + s**2 * jnp.eye(3, dtype=y.dtype)
        cubic = 0.05 * (y @ COVARIANCE.astype(y.dtype) @ y) * y.sum()
        normal = -0.5 * (y @ jnp.linalg.solve(total, y) + jnp.linalg.slogdet(total)[1])
        return self.factor * normal + self.drift * (jnp.log(s) + cubic)

    def score(self, y: Array, s: Array) -> Array:
        return jax.grad(self.logdensity)(y, s)


def denoiser(**fields: float) -> VectorDenoiser:
    return VectorDenoiser(Known(**fields), layout_of(jnp.zeros(3)))


Y, U = jnp.array([0.4, -1.0, 2.0]), jnp.asarray(-0.5)


@pytest.mark.parametrize("penalty", [score_fpe_penalty, logdensity_fpe_penalty])
def test_the_law_of_noised_data_is_free(penalty: Any) -> None:
    assert float(penalty(denoiser(), Y, U, jax.random.key(0), 0)) < 1e-9
    assert float(penalty(denoiser(factor=1.2), Y, U, jax.random.key(0), 0)) > 1e-3


class Lifted(eqx.Module):
    """A family whose log densities are off by a constant that depends on the level."""

    inner: Known

    def logdensity(self, y: Array, s: Array) -> Array:
        return self.inner.logdensity(y, s) + jnp.log(s)

    def score(self, y: Array, s: Array) -> Array:
        return self.inner.score(y, s)


def test_a_constant_of_the_level_costs_only_the_log_density() -> None:
    lifted = VectorDenoiser(Lifted(Known()), layout_of(Y))
    assert float(logdensity_fpe_penalty(lifted, Y, U, jax.random.key(0), 0)) == pytest.approx(1 / 3, rel=1e-3)
    assert float(score_fpe_penalty(lifted, Y, U, jax.random.key(0), 0)) < 1e-9


@pytest.mark.parametrize("penalty", [score_fpe_penalty, logdensity_fpe_penalty])
def test_probes_leave_the_square_without_bias(penalty: Any) -> None:
    wrong = denoiser(factor=1.2, drift=1.0)
    exact = float(penalty(wrong, Y, U, jax.random.key(0), 0))
    keys = jax.random.split(jax.random.key(1), 4000)
    found = np.asarray(jax.jit(jax.vmap(lambda key: penalty(wrong, Y, U, key, 1)))(keys), np.float64)
    assert found.std() > 0.1 * exact
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(4000)
