"""Sums and powers of scores against the densities that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from scoresample.scores import (
    AbstractDensityScore,
    DensityScore,
    Gaussian,
    Score,
    SumDensityScore,
    SumScore,
    TemperedDensityScore,
    TemperedScore,
    add_scores,
    temper,
)

POINT = jnp.array([0.7, -1.2])


def log_gamma(u: Array, shape: Array) -> Array:
    return jnp.sum(shape * u - jnp.exp(u))


def skewed(shape: float = 2.0) -> DensityScore:
    return DensityScore(log_gamma, jnp.asarray(shape), structure=POINT)


def bare() -> Score:
    return Score(lambda x: -(x**3), structure=POINT)


def test_a_product_of_gaussians_is_the_gaussian_of_added_precisions() -> None:
    a = Gaussian(jnp.array([1.0, 0.0]), jnp.array([0.5, 2.0]))
    b = Gaussian(jnp.array([-1.0, 3.0]), jnp.array([1.0, 4.0]))
    precision = 1 / np.array([0.5, 2.0]) + 1 / np.array([1.0, 4.0])
    mean = (np.array([1.0, 0.0]) / np.array([0.5, 2.0]) + np.array([-1.0, 3.0]) / np.array([1.0, 4.0])) / precision
    product = Gaussian(mean, 1 / precision)
    total = a + b
    np.testing.assert_allclose(total(POINT), product(POINT), rtol=1e-5)
    assert isinstance(total, AbstractDensityScore)
    differences = [total.logdensity(x) - product.logdensity(x) for x in (POINT, -2 * POINT, jnp.zeros(2))]
    np.testing.assert_allclose(differences, differences[0], rtol=1e-4)


def test_a_sum_has_a_density_only_if_every_part_has() -> None:
    assert isinstance(skewed() + Gaussian(jnp.zeros(2), 1.0), SumDensityScore)
    for total in (skewed() + bare(), bare() + skewed(), bare() + bare()):
        assert isinstance(total, SumScore)
        assert not isinstance(total, AbstractDensityScore)
    assert isinstance(0.5 * skewed(), TemperedDensityScore)
    assert isinstance(0.5 * bare(), TemperedScore)
    assert isinstance(0.5 * (bare() + skewed()), TemperedScore)


def test_sums_are_sums_and_flat() -> None:
    total = add_scores(bare(), skewed(), bare()) + Gaussian(jnp.ones(2), 3.0)
    assert isinstance(total, SumScore)
    assert len(total.parts) == 4
    want = -2 * POINT**3 + (2.0 - jnp.exp(POINT)) - (POINT - 1) / 3
    np.testing.assert_allclose(total(POINT), want, rtol=1e-5)
    both = skewed(2.0) + skewed(5.0)
    assert isinstance(both, AbstractDensityScore)
    values = both.value_and_score(POINT)
    np.testing.assert_allclose(values[0], log_gamma(POINT, jnp.asarray(7.0)) - jnp.sum(jnp.exp(POINT)), rtol=1e-5)
    np.testing.assert_allclose(values[1], 7.0 - 2 * jnp.exp(POINT), rtol=1e-5)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0, jnp.asarray(0.25)])
def test_tempering_scales_the_log_density_and_the_score(beta: float | Array) -> None:
    for score in (temper(skewed(), beta), beta * skewed(), skewed() * beta):
        assert isinstance(score, TemperedDensityScore)
        np.testing.assert_allclose(score.logdensity(POINT), beta * log_gamma(POINT, jnp.asarray(2.0)), rtol=1e-6)
        np.testing.assert_allclose(score(POINT), beta * (2.0 - jnp.exp(POINT)), rtol=1e-6)
    np.testing.assert_allclose((beta * bare())(POINT), -beta * POINT**3, rtol=1e-6)


def test_the_power_can_be_traced() -> None:
    slope = jax.grad(lambda beta: temper(skewed(), beta)(POINT)[0])(0.7)
    np.testing.assert_allclose(slope, 2.0 - jnp.exp(POINT[0]), rtol=1e-6)
    inside = jax.jit(lambda x: temper(skewed(), 0.5)(x))(POINT)
    np.testing.assert_allclose(inside, 0.5 * skewed()(POINT), rtol=1e-6)


def test_a_combination_takes_over_what_its_parts_know() -> None:
    def named(x: Array) -> dict[str, Array]:
        return {"rate": jnp.exp(x)}

    def start(key: Array) -> Array:
        return jax.random.normal(key, (2,))

    knowing = DensityScore(log_gamma, jnp.asarray(2.0), structure=POINT, constrain=named, init_position=start)
    ignorant = Score(lambda x: -x)
    for score in (ignorant + knowing, knowing + ignorant, 0.5 * knowing, skewed() + knowing):
        assert score.structure == knowing.structure
        assert list(score.constrain(POINT)) == ["rate"]
        assert score.init_position is start
    assert (ignorant + ignorant).structure is None


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_parts_are_refused() -> None:
    with pytest.raises(TypeError, match=r"only scores can be added, got float.*DensityScore"):
        add_scores(skewed(), 2.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"shape \(3,\), but \(2,\)"):
        add_scores(skewed(), Gaussian(jnp.zeros(3), 1.0))
    for beta in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="`inverse_temperature` must be one positive number"):
            temper(skewed(), beta)
    with pytest.raises(ValueError, match="`inverse_temperature` must be one positive number"):
        temper(skewed(), jnp.ones(2))
