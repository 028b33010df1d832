"""Annealed importance sampling: weights that make up for everything, and levels that are equally close."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss

REFERENCE = np.array([9.0, 4.0])
VARIANCES = np.array([0.5, 0.1])
MEAN = np.array([1.0, -0.5])
LOG_Z = -1.7


def unnormalised(x: Array, mean: Array, variances: Array) -> Array:
    """A normal density times exp(LOG_Z)."""
    return LOG_Z - 0.5 * jnp.sum((x - mean) ** 2 / variances + jnp.log(2 * jnp.pi * variances))


def path(scale: Any = None) -> ss.TemperedPath:
    target = ss.DensityScore(unnormalised, jnp.asarray(MEAN), jnp.asarray(VARIANCES), structure=jnp.zeros(2))
    return ss.TemperedPath(ss.Gaussian(jnp.zeros(2), jnp.asarray(REFERENCE)), target, scale=scale)


def draws_of(sampler: ss.AnnealedLangevin, seed: int = 0, **settings: Any) -> ss.Draws:
    return ss.sample(path(**settings), sampler, key=jax.random.key(seed), num_samples=2_000)


COARSE = {
    "langevin, steps far too large": ss.AnnealedLangevin(30, 2, step_size=1.2, weights=True),
    "one step": ss.AnnealedLangevin(40, 1, step_size=0.4, weights=True),
    "HMC": ss.AnnealedLangevin(
        12, 1, corrector=ss.HMC(step_size=0.7, num_integration_steps=3), weights=True, ladder="power"
    ),
}


@pytest.mark.parametrize("name", COARSE)
def test_weights_make_up_for_the_bias_of_the_steps_and_of_the_ladder(name: str) -> None:
    draws = draws_of(COARSE[name], scale=jnp.array([1.0, 0.5]))
    assert draws.log_weights is not None
    x = np.asarray(draws.position[0], np.float64)
    log_weights = np.asarray(draws.log_weights[0], np.float64)
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    for values, expected in ((x, MEAN), ((x - MEAN) ** 2, VARIANCES)):
        found = weights @ values
        error = np.sqrt(weights**2 @ (values - found) ** 2)
        assert np.abs((found - expected) / error).max() < 5, name
    assert abs(draws.info["log_z"] - LOG_Z) < 5 * draws.info["log_z_se"]
    assert draws.info["log_z_se"] < 0.1


@pytest.mark.parametrize("ladder", ["power", "adaptive"])
def test_weights_of_small_batches_are_unbiased(ladder: Any) -> None:
    """Steps found from the particles that they move would take 13% off the constant: fourteen standard errors."""
    target = ss.DensityScore(lambda x: -jnp.sum(x**4) / 4, structure=jnp.zeros(1))
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(1), 1.0), target)
    sampler = ss.AnnealedLangevin(3, 3, step_size=0.3, weights=True, ladder=ladder)
    draws = ss.sample(tempered, sampler, key=jax.random.key(0), num_samples=1_000, batch_size=2)
    assert draws.info["log_z_se"] < 0.015
    assert abs(draws.info["log_z"] - 0.94145) < 4 * draws.info["log_z_se"]


def test_targets_of_smaller_support_get_weights_of_zero() -> None:
    target = ss.DensityScore(lambda x: jnp.sum(jnp.where(x > 0, -x, -jnp.inf)), structure=jnp.zeros(1))
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(1), 4.0), target, lipschitz=1.0)
    sampler = ss.AnnealedLangevin(20, 3, weights=True, corrector=ss.MALA(step_size=0.3))
    draws = ss.sample(tempered, sampler, key=jax.random.key(0), num_samples=2_000)
    assert draws.log_weights is not None
    assert 0.4 < np.mean(np.isneginf(draws.log_weights)) < 0.6
    assert abs(draws.info["log_z"]) < 5 * draws.info["log_z_se"] < 0.1


def test_ladders_may_begin_at_the_reference_itself() -> None:
    target = ss.DensityScore(lambda x: jnp.sum(jnp.where(x > 0, -x, -jnp.inf)), structure=jnp.zeros(1))
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(1), 4.0), target)
    sampler = ss.AnnealedLangevin(3, 2, weights=True, ladder=(1.0, 0.5, 0.0), corrector=ss.MALA(step_size=0.3))
    plan = sampler.plan(tempered, key=jax.random.key(0))
    assert bool(jnp.all(jnp.isfinite(plan.steps.curvature)))


def test_without_weights_the_same_draws_are_biased() -> None:
    x = np.asarray(draws_of(ss.AnnealedLangevin(30, 2, step_size=1.2)).position[0])
    assert x.var(axis=0)[1] > 1.5 * VARIANCES[1]


def test_evaluations_of_weights_are_counted() -> None:
    sampler = ss.AnnealedLangevin(6, 3, weights=True, ladder="power")
    draws = draws_of(sampler)
    assert draws.nfe == 6 * (3 + 2) + 1
    estimated = draws.info["num_evaluations"] - 8_000 * draws.nfe
    assert estimated == 512 * 6 * 4
    adaptive = draws_of(ss.AnnealedLangevin(6, 3))
    pilot = adaptive.info["num_evaluations"] - 8_000 * adaptive.nfe
    assert pilot > 0
    assert pilot % (512 * 4) == 0


def test_adaptive_levels_are_geometric_between_normal_densities() -> None:
    """One variance: the divergence of neighbours is that of their precisions' ratio, so ratios are equal."""
    target = ss.Gaussian(jnp.zeros(4), 0.01)
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(4), 1.0), target)
    sampler = ss.AnnealedLangevin(num_levels=12, steps_per_level=20, step_size=0.2)
    plan = sampler.plan(tempered, key=jax.random.key(1))
    t = np.asarray(plan.steps.t, np.float64)
    assert t[-1] == 0
    precisions = np.concatenate([[1.0], t + (1 - t) * 100.0])
    steps = np.diff(np.log(precisions))
    np.testing.assert_allclose(steps, np.log(100) / 12, rtol=0.25)
    # A length of sqrt(d/2) for one e-fold of the precision.
    np.testing.assert_allclose(plan.steps.divergence, 4 / 2 * (np.log(100) / 12) ** 2, rtol=0.1)


def test_adaptive_levels_lead_to_a_shifted_target_more_evenly_than_a_power_ladder() -> None:
    tempered = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 1.0), ss.Gaussian(jnp.full(2, 4.0), 1.0))
    settings: dict[str, Any] = {"num_levels": 30, "steps_per_level": 10, "weights": True}
    effective = []
    for ladder in ("adaptive", "power"):
        draws = ss.sample(
            tempered, ss.AnnealedLangevin(**settings, ladder=ladder), key=jax.random.key(0), num_samples=500
        )
        assert draws.log_weights is not None
        weights = np.exp(np.asarray(draws.log_weights) - np.max(draws.log_weights))
        effective.append(weights.sum() ** 2 / (weights**2).sum())
    assert effective[0] > 1.5 * effective[1], effective


def test_times_of_your_own() -> None:
    plan = ss.AnnealedLangevin(3, 2, ladder=[0.5, 0.2, 0.0]).plan(path(), key=jax.random.key(0))
    np.testing.assert_allclose(plan.steps.t, [0.5, 0.2, 0.0])
    finer = ss.AnnealedLangevin(3, 2, ladder=[0.5, 0.2, 0.0]).refined(2)
    assert finer.plan(path(), key=jax.random.key(0)).steps.t.shape == (6,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ladder": "karras"}, '"karras" is for noised paths'),
        ({"ladder": [0.5, 0.1]}, "has 2 times for num_levels=3"),
        ({"ladder": [0.5, 0.2, 0.1]}, "the last level must be the target"),
        ({"ladder": "geometric"}, r"`ladder` must be one of \['adaptive', 'power'"),
        ({"corrector": "metropolis", "weights": True}, 'Use corrector="langevin"'),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str, unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=message):
        ss.AnnealedLangevin(3, 2, **settings).plan(path(), key=jax.random.key(0))


def test_weights_need_densities_at_all_levels() -> None:
    noised = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    with pytest.raises(ValueError, match=r"`weights` need a TemperedPath.*reweight"):
        ss.sample(noised, ss.AnnealedLangevin(weights=True), key=jax.random.key(0))
    with pytest.raises(ValueError, match='"adaptive" is for tempered paths'):
        ss.sample(noised, ss.AnnealedLangevin(ladder="adaptive"), key=jax.random.key(0))


def test_a_reference_too_far_away_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoresample.samplers._adaptive_ladder._MOST_LEVELS", 2)
    with pytest.raises(ValueError, match=r'pilot of the "adaptive" ladder was at inverse temperature'):
        ss.AnnealedLangevin(3, 2).plan(path(), key=jax.random.key(0))
