"""Conditional means by least squares."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import Encoded, MeanNetwork
from scoresample.training import fit_mean


def noisy_looks(key: Array, num: int, looks: int) -> tuple[Array, Encoded]:
    """A number, and looks at it with much noise."""
    key_theta, key_noise = jax.random.split(key)
    theta = jax.random.normal(key_theta, (num, 1))
    return theta, Encoded(theta + 3 * jax.random.normal(key_noise, (num, looks)))


def fitted(num: int, looks: int) -> tuple[MeanNetwork, float, Array, Array]:
    """The mean, its inflation, the held-out rows and residuals in units of the mixing."""
    theta, x = noisy_looks(jax.random.key(0), num, looks)
    held_out = jnp.arange(num) < num // 5
    network = MeanNetwork(1, (looks,), width=16, key=jax.random.key(1))
    mean, inflation = fit_mean(
        network, theta, x, held_out, key=jax.random.key(2), num_epochs=5, batch_size=64, learning_rate=1e-3
    )
    return mean, inflation, held_out, (theta - jax.vmap(mean)(x))[:, 0] / mean.mixing[0, 0]


def test_residuals_of_a_regression_with_many_numbers_are_as_wide_as_those_of_new_observations() -> None:
    mean, inflation, held_out, residuals = fitted(900, 72)
    within = np.asarray(residuals)[~np.asarray(held_out)]
    theta, x = noisy_looks(jax.random.key(3), 4000, 72)
    new = np.asarray((theta - jax.vmap(mean)(x))[:, 0] / mean.mixing[0, 0])
    assert new.std() / within.std() > 1.08
    # Both ratios have errors of about 1/sqrt(2 n), n = 180 held out and 720 fitted to.
    assert abs(new.std() / (inflation * within.std()) - 1) < 0.08
    assert abs(new.std() - 1) < 0.08


def test_a_mean_of_few_numbers_is_left_alone() -> None:
    mean, inflation, _, residuals = fitted(4000, 3)
    assert inflation == 1
    assert abs(float(residuals.std()) - 1) < 5 / np.sqrt(2 * 4000)
    assert mean.slope.shape == (1, 3)
