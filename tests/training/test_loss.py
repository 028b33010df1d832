"""The training losses against what they are for: their minimiser is the posterior mean of the clean point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from scoresample.training import denoising_loss, implicit_loss
from scoresample.training._levels import Weighting, stratified_log_sigma

SHAPE = 3.0


def target(clean: Array, clean_score: Array | None, noise: Array, sigma: Array) -> Array:
    """What the denoiser is regressed on: the loss is a weighted mean square, and its slope at zero tells."""

    def slope(output: Array) -> Array:
        return denoising_loss(lambda y, s: output, clean, clean_score, noise, sigma)

    weight = (1 + sigma**2) / sigma**2
    return -jax.grad(slope)(jnp.zeros_like(clean)) * clean.size / (2 * weight)


def test_the_target_is_the_clean_point() -> None:
    clean, noise = jnp.array([0.4, -1.0]), jnp.array([2.0, 0.3])
    np.testing.assert_allclose(target(clean, None, noise, jnp.asarray(0.7)), clean, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_a_network_that_knows_nothing_has_loss_one(sigma: float) -> None:
    """With D = y / (1 + s^2), what a preconditioned network of zeros gives on data of unit variance."""
    keys = jax.random.split(jax.random.key(0))
    clean, noise = (jax.random.normal(key, (20_000, 1)) for key in keys)
    losses = jax.vmap(
        lambda z, e: denoising_loss(lambda y, s: y / (1 + s**2), z, None, e, jnp.asarray(sigma, jnp.float32))
    )(clean, noise)
    assert abs(float(losses.mean()) - 1) < 5 * float(losses.std()) / np.sqrt(20_000)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_score_of_the_clean_density_does_not_move_the_minimiser(sigma: float) -> None:
    """On a skewed density: both targets have the same mean given the noised point, by quadrature over the clean one."""
    z = np.linspace(-12.0, 4.0, 4001)
    density = stats.loggamma.pdf(z, SHAPE)
    score = SHAPE - np.exp(z)

    def both(z: Array, g: Array, e: Array) -> tuple[Array, Array]:
        return target(z, None, e, jnp.asarray(sigma)), target(z, g, e, jnp.asarray(sigma))

    with jax.enable_x64(True):
        evaluate = jax.jit(jax.vmap(both))
        for y in (-1.0, 1.0, 2.5):
            noise = (y - z) / sigma
            weights = density * stats.norm.pdf(noise)
            columns = (jnp.asarray(x)[:, None] for x in (z, score, noise))
            plain, with_score = (np.asarray(t)[:, 0] for t in evaluate(*columns))
            means = [(weights * t).sum() / weights.sum() for t in (plain, with_score)]
            np.testing.assert_allclose(means[0], means[1], rtol=1e-6, atol=1e-8)
            assert np.ptp(with_score - plain) > 0.1, "the two targets are not the same thing"


def test_on_standard_normal_data_the_score_leaves_nothing_to_learn() -> None:
    clean, noise = jnp.array([0.4, -1.0]), jnp.array([2.0, 0.3])
    for sigma in (0.05, 1.0, 20.0):
        s = jnp.asarray(sigma)
        np.testing.assert_allclose(target(clean, -clean, noise, s), (clean + s * noise) / (1 + s**2), atol=1e-4)


def test_levels_are_stratified() -> None:
    levels = np.asarray(stratified_log_sigma(jax.random.key(0), 500, -5.0, 3.0, jnp.dtype("float32")))
    cells = np.floor((np.sort(levels) + 5.0) / 8.0 * 500)
    assert np.abs(cells - np.arange(500)).max() <= 1, "one in each cell, up to the rounding of float32"
    assert np.mean(cells == np.arange(500)) > 0.98
    assert not np.all(np.diff(levels) > 0), "in random order"


def crooked(y: Array, s: Array) -> Array:
    """A denoiser that is nobody's, and whose Jacobian is not symmetric."""
    return jnp.tanh(0.7 * y) + 0.3 * jnp.roll(y, 1) / (1 + s)


@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_implicit_loss_has_the_expectation_of_the_denoising_loss(sigma: float, probed: bool) -> None:
    """Point by point over the clean ones: the noise enters both, but only one of them looks at it."""
    keys = jax.random.split(jax.random.key(1), 3)
    num = 40_000
    clean = jnp.exp(0.5 * jax.random.normal(keys[0], (num, 3)))
    noise = jax.random.normal(keys[1], (num, 3))
    probes = jax.random.rademacher(keys[2], (num, 3), clean.dtype)
    s = jnp.asarray(sigma)

    @jax.jit
    @jax.vmap
    def difference(z: Array, e: Array, v: Array) -> Array:
        other = implicit_loss(crooked, z + s * e, s, v if probed else None)
        return other - denoising_loss(crooked, z, None, e, s)

    found = np.asarray(difference(clean, noise, probes), np.float64)
    assert found.std() > 0.3, "the two are not the same, point by point"
    assert abs(found.mean()) < 5 * found.std() / np.sqrt(num)


@pytest.mark.parametrize("weighting", ["edm", "likelihood"])
def test_weightings_are_frequencies_of_levels(weighting: Weighting) -> None:
    low, high = -5.0, 3.0
    levels = np.asarray(stratified_log_sigma(jax.random.key(0), 5000, low, high, jnp.dtype("float32"), weighting))
    grid = np.linspace(low, high, 4001)
    density = np.exp(-0.5 * ((grid + 1.2 - np.log(2)) / 1.2) ** 2) if weighting == "edm" else 1 / (1 + np.exp(2 * grid))
    cumulative = np.cumsum(density) / density.sum()
    for level in (-4.0, -1.5, 0.0, 1.0):
        assert np.mean(levels < level) == pytest.approx(np.interp(level, grid, cumulative), abs=2e-3)
