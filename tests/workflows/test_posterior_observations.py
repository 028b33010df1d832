"""What amortised posteriors take for an observation: sets of any length, lists, and what a compiled function traces."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.scores import simulator
from scoresample.workflows._encoding import make_encoding

KEY = jax.random.key(0)
TINY: dict[str, Any] = {"num_simulations": 300, "num_epochs": 3, "width": 16, "depth": 1, "progress": False}
PRIOR = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
POINT = jnp.array([0.3, 0.2])


def full(key: Array, theta: Array) -> Array:
    return theta + 0.5 * jax.random.normal(key, (4, 2))


def gappy(key: Array, theta: Array) -> Array:
    """Between one and four looks; the others are missing."""
    key_noise, key_number = jax.random.split(key)
    there = jnp.arange(4) < jax.random.randint(key_number, (), 1, 5)
    return jnp.where(there[:, None], full(key_noise, theta), jnp.nan)


@cache
def posterior(observe: Any = gappy) -> ss.AmortisedPosterior:
    return ss.fit_posterior(observe, PRIOR, exchangeable=True, coordinates="regression", key=KEY, **TINY)


PARTS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)


def padded(parts: np.ndarray, number: int) -> np.ndarray:
    return np.concatenate([parts, np.full((number - len(parts), 2), np.nan, np.float32)])


def value(observation: Any, observe: Any = gappy) -> np.ndarray:
    return np.asarray(posterior(observe).given(observation)(POINT, 0.5))


def test_a_set_is_the_same_padded_or_not_and_in_any_order() -> None:
    for number in (1, 3):
        parts = PARTS[:number]
        np.testing.assert_array_equal(value(parts), value(padded(parts, 4)))
        np.testing.assert_allclose(value(parts), value(padded(parts, 4)[::-1]), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(value(parts), value(parts.tolist()))
    assert np.abs(value(PARTS[:1]) - value(PARTS[:3])).max() > 0.01


def test_more_parts_than_in_the_training_are_taken_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="has 6 parts, but in the simulations of the training there were at most 4"):
        more = value(PARTS)
    with pytest.warns(UserWarning, match="extrapolated"):
        np.testing.assert_allclose(more, value(padded(PARTS, 9)), rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="extrapolated"):
        np.testing.assert_allclose(more, value(PARTS[::-1]), rtol=1e-4, atol=1e-5)
    # Padding alone is no more parts.
    with pytest.warns(UserWarning, match="extrapolated"):
        np.testing.assert_allclose(value(padded(PARTS[:2], 6)), value(PARTS[:2]), rtol=1e-4, atol=1e-5)


def test_sets_of_one_length_take_others_with_a_warning() -> None:
    assert not posterior(full).encoding.has_gaps
    np.testing.assert_allclose(value(PARTS[:4], full), value(PARTS[3::-1], full), rtol=1e-4, atol=1e-5)
    for number in (2, 6):
        with pytest.warns(
            UserWarning, match=f"has {number} parts, but in the simulations of the training there were 4"
        ):
            found = value(PARTS[:number], full)
        with pytest.warns(UserWarning, match="extrapolated"):
            np.testing.assert_allclose(found, value(PARTS[:number][::-1], full), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="nothing was missing"):
        value(padded(PARTS[:3], 4), full)


def test_lists_of_sets_of_different_lengths() -> None:
    sets = [PARTS[:2], PARTS[:4], PARTS[1:2]]
    for listed in (sets, [one.tolist() for one in sets], tuple(jnp.asarray(one) for one in sets)):
        path = posterior().given(listed)
        scores = jax.vmap(lambda p, x: p(x, 0.5), in_axes=(path.condition_axes(), None))(path, POINT)
        for one, found in zip(sets, scores, strict=True):
            np.testing.assert_allclose(found, value(one), rtol=1e-4, atol=1e-5)


def test_lists_of_trees() -> None:
    structure = {"a": jax.ShapeDtypeStruct((4, 2), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4, 2)), jnp.float32)
    seen = {"a": rows.at[:, 3].set(jnp.nan), "b": rows[:, :, 0].at[:, 3].set(jnp.nan)}
    encoding = make_encoding(seen, structure, exchangeable=True)
    sets = [{"a": PARTS[:n], "b": PARTS[:n, 0]} for n in (1, 3)]
    encoded = encoding(encoding.batch(sets)[0])
    assert encoded.values.shape == (2, 4, 3)
    assert encoded.present is not None
    np.testing.assert_array_equal(encoded.present.sum(axis=(1, 2)), [3, 9])
    back = encoding.decode(jax.tree.map(lambda x: x[0], encoded))
    np.testing.assert_allclose(back["a"], padded(PARTS[:1], 4), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="one number of observations and parts"):
        encoding({"a": PARTS[None, :3], "b": PARTS[None, :2, 0]})
    # A vector of numbers has the length it has.
    vectors = make_encoding(rows[:, 0], jax.ShapeDtypeStruct((2,), jnp.float32), exchangeable=False)
    assert vectors(vectors.batch([PARTS[0], PARTS[1]])[0]).values.shape == (2, 2)
    with pytest.raises(ValueError, match=r"must have arrays of shape \(2,\), got \(3,\)"):
        vectors(jnp.zeros((1, 3)))


def test_the_exact_density_takes_shorter_sets_too() -> None:
    """Of a simulator that leaves parts out: its likelihood is given the parts that are missing as NaN."""
    seen = []

    def log_likelihood(theta: Array, x: Array) -> Array:
        seen.append(x.shape)
        return -2.0 * jnp.nansum((x - theta) ** 2)

    joint = simulator(gappy, PRIOR, log_likelihood=log_likelihood)
    density = ss.AmortisedPosterior(joint, posterior().score, posterior().encoding, False).density(PARTS[:2])
    exact = -2.0 * np.sum((PARTS[:2] - np.asarray(POINT)) ** 2) - 0.5 * np.sum(
        np.asarray(POINT) ** 2 + np.log(2 * np.pi)
    )
    np.testing.assert_allclose(density.logdensity(POINT), exact, rtol=1e-5)
    assert set(seen) == {(4, 2)}


def test_calibration_takes_lists_of_sets() -> None:
    lengths = np.random.default_rng(1).integers(1, 5, 100)

    def simulate(key: Array, num: int) -> tuple[Array, Any]:
        key_prior, key_noise = jax.random.split(key)
        theta = jax.random.normal(key_prior, (num, 2))
        looks = np.asarray(jax.vmap(full)(jax.random.split(key_noise, num), theta))
        return theta, [one[:n] for one, n in zip(looks, lengths, strict=True)]

    settings: dict[str, Any] = {"key": KEY, "num_simulations": 100, "num_draws": 10, "progress": False}
    sampler = ss.ProbabilityFlowODE(num_steps=5)
    found = ss.calibrate(posterior(), simulate, sampler=sampler, **settings)
    assert found.conditions.shape == (100, 16)
    np.testing.assert_array_equal(found.conditions[:, 8::2].sum(axis=1), lengths)


def test_observations_may_be_traced() -> None:
    fitted = posterior()

    def score(x: Any) -> Array:
        return fitted.given(x)(POINT, 0.5)

    sets = np.stack([padded(PARTS[:n], 4) for n in (1, 3)])
    exact = np.stack([value(one) for one in sets])
    np.testing.assert_allclose(jax.jit(score)(sets[0]), exact[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(score)(PARTS[:1]), exact[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(score)(sets), exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda a, b: score([a, b]))(*PARTS[:2]), value(PARTS[:2]), rtol=1e-4, atol=1e-5)
    # Derivatives by the observation.
    slope = jax.grad(lambda x: score(x).sum())(jnp.asarray(PARTS[:2]))
    step = 1e-2 * np.ones_like(PARTS[:2])
    change = (value(PARTS[:2] + step) - value(PARTS[:2] - step)).sum() / 2
    np.testing.assert_allclose(jnp.sum(slope * step), change, rtol=0.02)


def test_what_is_missing_where_nothing_may_be_makes_traced_scores_nan() -> None:
    fitted = posterior(full)
    traced = jax.jit(lambda x: fitted.given(x)(POINT, 0.5))
    np.testing.assert_allclose(traced(PARTS[:4]), value(PARTS[:4], full), rtol=1e-4, atol=1e-5)
    assert np.isnan(traced(padded(PARTS[:3], 4))).all()
    with pytest.raises(ValueError, match="infinite"):
        fitted.given(np.full((4, 2), np.inf))


@cache
def ensemble() -> ss.AmortisedPosterior:
    settings: dict[str, Any] = TINY | {"num_members": 3, "coordinates": "regression", "num_epochs": 5}
    return ss.fit_posterior(lambda key, theta: full(key, theta)[0], PRIOR, key=KEY, **settings)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    score = ensemble().given(PARTS[0])
    fn: Any = score.inner.fn
    told = ensemble().encoding(PARTS[:1])
    t = jnp.asarray(0.5)
    alpha, sigma = score.process.alpha(t), score.process.sigma(t)
    z = score.frame.to_standard(POINT)
    members = [fn.member(k)(z / alpha, sigma / alpha, jax.tree.map(lambda x: x[0], told)) for k in range(3)]
    mean = (alpha * jnp.mean(jnp.stack(members), axis=0) - z) / sigma**2
    np.testing.assert_allclose(score(POINT, 0.5), score.frame.score_to_position(mean), rtol=1e-3, atol=1e-4)
    assert np.std(members, axis=0).min() > 1e-5


def test_an_ensemble_tells_how_far_its_members_are_apart() -> None:
    near = ensemble().disagreement(PARTS[0], jnp.zeros(2))
    far = ensemble().disagreement(40 * PARTS[0], jnp.array([30.0, -30.0]))
    assert 0 < near < far
    with pytest.raises(ValueError, match="num_members=3"):
        posterior().disagreement(PARTS[:1], POINT)


def test_an_ensemble_is_sampled_with_its_density_and_calibrated() -> None:
    fitted = ensemble()
    draws = ss.sample(
        fitted.given(PARTS[0]),
        ss.WithDensity(ss.ProbabilityFlowODE(num_steps=8)),
        key=KEY,
        num_samples=400,
        num_chains=1,
    )
    assert np.isfinite(draws.position).all()
    settings: dict[str, Any] = {"key": KEY, "num_simulations": 100, "num_draws": 10, "progress": False}
    found = ss.calibrate(fitted, sampler=ss.ProbabilityFlowODE(num_steps=5), **settings)
    assert found.draws.shape == (100, 10, 2)
