"""The ladder of verdicts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import scoresample as ss
from scoresample.inference import exact_draws
from scoresample.workflows._certify import total_variation_by_weights

UNIT = ss.Gaussian(jnp.zeros(2), 1.0)


def gaussian(shift: float, scale: float, dimension: int = 2) -> ss.Gaussian:
    return ss.Gaussian(jnp.zeros(dimension).at[0].set(shift), scale**2)


def certificate(proposal: Any, target: Any = UNIT, num: int = 4000, **settings: Any) -> ss.Certificate:
    draws = exact_draws(proposal, key=jax.random.key(0), num_samples=num)
    return ss.certify(draws, target, proposal, key=jax.random.key(1), **settings)


@pytest.mark.parametrize("shift", [0.05, 0.3, 1.0, 2.0])
def test_the_total_variation_of_a_shift(shift: float) -> None:
    found = certificate(gaussian(shift, 1.0), polish=False)
    expected = 2 * norm.cdf(shift / 2) - 1
    assert abs(found.total_variation - expected) < 5 * found.total_variation_se
    assert found.total_variation_se < 0.02


@pytest.mark.parametrize("scale", [0.7, 1.3, 3.0])
def test_the_total_variation_of_a_scale(scale: float) -> None:
    """In one dimension the densities cross where ``x^2 (1 - 1/scale^2) = 2 log scale``."""
    target = ss.Gaussian(jnp.zeros(1), 1.0)
    found = certificate(gaussian(0.0, scale, 1), target, polish=False)
    crossing = np.sqrt(2 * np.log(scale) / (1 - scale**-2))
    expected = abs(2 * norm.cdf(crossing) - 2 * norm.cdf(crossing / scale))
    assert abs(found.total_variation - expected) < 5 * found.total_variation_se


def test_the_standard_error_is_that_of_repeated_runs() -> None:
    rng = np.random.default_rng(0)
    log_weights = 1.5 * rng.normal(size=(300, 3000))  # of a standard normal law that is shifted by 1.5
    values, errors = np.transpose([total_variation_by_weights(np.exp(row)) for row in log_weights])
    assert abs(np.mean(values) - (2 * norm.cdf(0.75) - 1)) < 0.01
    assert 0.9 < np.mean(errors) / np.std(values) < 1.1


def test_a_perfect_proposal_is_used_as_it_is() -> None:
    found = certificate(UNIT, num=500)
    assert found.verdict == "use"
    assert found.draws.log_weights is None
    assert found.pareto_k == -np.inf
    assert found.total_variation == 0
    assert found.ess_share == 1
    assert all(check.passed for check in found.checks)
    assert "Verdict: use." in str(found)
    assert "mode in which there is no draw" in str(found)


@pytest.mark.parametrize(
    ("shift", "scale", "verdict"),
    [
        (0.05, 1.0, "use"),
        (0.3, 1.0, "use weighted"),
        (0.0, 1.5, "use weighted"),
        (1.6, 1.0, "use polished"),
        (5.0, 1.0, "do not use"),
    ],
)
def test_verdicts(shift: float, scale: float, verdict: str) -> None:
    found = certificate(gaussian(shift, scale))
    assert found.verdict == verdict
    assert (found.draws.log_weights is None) == (verdict in ("use", "use polished"))
    if verdict == "use polished":
        assert 100 < found.ess < 400
        x = np.asarray(found.draws.position[0])
        assert np.abs(x.mean(axis=0)).max() < 5 / np.sqrt(found.ess)
        assert certificate(gaussian(shift, scale), polish=False).verdict == "do not use"


def test_tails_that_are_missed_are_not_used() -> None:
    """Narrow draws: the weights have no variance, k is 1 - scale^2 = 0.91."""
    found = certificate(gaussian(0.0, 0.3, 1), ss.Gaussian(jnp.zeros(1), 1.0), polish=False)
    assert found.pareto_k > 0.7
    assert found.verdict == "do not use"
    assert "Pareto k of the weights" in str(found)


def test_few_draws_are_no_certificate() -> None:
    """The total variation is zero, but too few draws cannot say so."""
    assert certificate(UNIT, num=300).verdict == "use polished"
    assert certificate(UNIT, num=90).verdict == "do not use"


def test_moves_that_do_not_cross_are_not_used() -> None:
    """Modes apart, of which the smaller one has too few draws: chains stay where they are, and are seen to."""
    means = jnp.array([[-6.0, 0.0], [6.0, 0.0]])
    even = ss.GaussianMixture(jnp.array([0.5, 0.5]), means, jnp.ones((2, 2)))
    uneven = ss.GaussianMixture(jnp.array([0.9, 0.1]), means + jnp.array([0.0, 1.4]), jnp.ones((2, 2)))
    found = certificate(uneven, even)
    assert found.ess_share < 0.1
    assert found.ess > 100
    assert found.pareto_k < 1
    assert found.verdict == "do not use"
    assert any(check.name == "memory of the short chains" and not check.passed for check in found.checks)


def modes(shares: list[float], tails: float = 0.0) -> ss.GaussianMixture:
    """Two modes that no chain crosses between, and a share of each that is twice as wide."""
    means, ones = jnp.array([[-8.0, 0.0], [8.0, 0.0]]), jnp.ones((2, 2))
    if not tails:
        return ss.GaussianMixture(jnp.array(shares), means, ones)
    weights = jnp.array([(1 - tails) * share for share in shares] + [tails * share for share in shares])
    return ss.GaussianMixture(weights, jnp.concatenate([means, means]), jnp.concatenate([ones, 4 * ones]))


def test_modes_whose_shares_the_weights_know_may_be_polished() -> None:
    """Tails are missed, so k is too large for the weights; chains mend tails, and weights the shares of the modes."""
    proposal, target = modes([0.7, 0.3]), modes([0.5, 0.5], 0.02)
    found = certificate(proposal, target, num=10_000)
    assert 0.7 < found.pareto_k < 1
    assert found.verdict == "use polished"
    names = [check.name for check in found.checks]
    assert "memory of the short chains within 2 regions" in names
    assert "memory of the short chains" not in names
    x, y = np.asarray(found.draws.position[0], np.float64).T
    assert abs(np.mean(x < 0) - 0.5) < 5 * 0.5 / np.sqrt(found.ess)
    assert abs(np.var(y) - 1.06) < 5 * np.sqrt(2.5 / found.ess)
    assert found.draws.info["autocorrelation_bound"] > 0.9


@pytest.mark.parametrize(
    ("came", "wanted", "k"),
    [([0.9995, 0.0005], [0.97, 0.03], (1.0, 2.0)), ([0.9999, 0.0001], [0.97, 0.03], (0.7, 1.0))],
)
def test_a_mode_of_which_few_draws_tell_is_no_certificate(
    came: list[float], wanted: list[float], k: tuple[float, float]
) -> None:
    """A draw or five tell of a mode of 3%; the effective size is above 1,000 and a tenth all the same."""
    proposal, target = modes(came), modes(wanted, 0.02)
    found = certificate(proposal, target, num=10_000)
    assert found.ess > 1000
    assert found.ess_share > 0.1
    assert k[0] < found.pareto_k < k[1]
    assert found.verdict == "do not use"
    # Smoothing takes the large weights away, and what they tell with them.
    draws = exact_draws(proposal, key=jax.random.key(0), num_samples=10_000)
    smoothed = ss.reweight(draws, target, proposal, smooth=True)
    assert smoothed.info["ess"] > 2000
    assert not ss.polish(smoothed, target, key=jax.random.key(1)).info["checks"][0].passed


def test_draws_of_every_kind_count_for_what_they_are_worth() -> None:
    proposal = gaussian(0.3, 1.0)
    draws = exact_draws(proposal, key=jax.random.key(0), num_samples=2000)
    independent = ss.certify(draws, UNIT, proposal, key=jax.random.key(1))
    copies = np.repeat(np.asarray(draws.position), 5, axis=1)
    stats = {"non_finite": np.zeros((1, 10_000), bool)}
    chains = dataclasses.replace(draws, position=copies.reshape(4, 2500, 2), stats={}, kind="chains")
    particles = dataclasses.replace(draws, position=copies, stats=stats, kind="interacting")
    for found in (ss.certify(other, UNIT, proposal, key=jax.random.key(1)) for other in (chains, particles)):
        assert found.verdict == "use weighted"
        assert found.total_variation == pytest.approx(independent.total_variation, abs=1e-3)
        assert found.ess == pytest.approx(independent.ess, rel=0.25)
        assert found.total_variation_se == pytest.approx(independent.total_variation_se, rel=0.2)
        assert found.log_evidence_se == pytest.approx(independent.log_evidence_se, rel=0.2)


def test_weighted_draws_are_held_against_the_target_with_their_weights() -> None:
    drawn, stood_for = gaussian(0.5, 1.2), gaussian(0.3, 1.0)
    draws = exact_draws(drawn, key=jax.random.key(0), num_samples=4000)
    weighted = ss.reweight(draws, stood_for, drawn)
    found = ss.certify(weighted, UNIT, stood_for, key=jax.random.key(1))
    assert abs(found.total_variation - (2 * norm.cdf(0.15) - 1)) < 5 * found.total_variation_se
    assert found.verdict == "use weighted"
    right = ss.certify(weighted, stood_for, stood_for, key=jax.random.key(1))
    assert right.total_variation == pytest.approx(0, abs=1e-6)


def test_the_log_evidence_of_a_density_without_its_constant() -> None:
    covariance = jnp.array([[1.0, 0.4], [0.4, 0.5]])
    target = ss.DensityScore(lambda x: -0.5 * x @ jnp.linalg.solve(covariance, x), structure=jnp.zeros(2))
    path = ss.perturb(ss.Gaussian(jnp.array([0.3, 0.0]), covariance), ss.VP())
    sampler = ss.WithDensity(ss.ProbabilityFlowODE(6))
    draws = ss.sample(path, sampler, key=jax.random.key(0), num_samples=1000, progress=False)
    found = ss.certify(draws, target, key=jax.random.key(1))
    expected = 0.5 * np.linalg.slogdet(2 * np.pi * np.asarray(covariance, np.float64))[1]
    assert abs(found.log_evidence - expected) < 5 * found.log_evidence_se < 0.1
    assert found.num_folded == 0
    assert found.verdict == "use weighted"


def test_folds_are_failures() -> None:
    draws = exact_draws(UNIT, key=jax.random.key(0), num_samples=1000)
    folded = np.arange(1000)[None] < 30
    stats = {**draws.stats, "log_proposal": np.asarray(jax.vmap(UNIT.logdensity)(jnp.asarray(draws.position[0])))[None]}
    found = ss.certify(dataclasses.replace(draws, stats={**stats, "folded": folded}), UNIT, key=jax.random.key(1))
    assert (found.num_folded, found.num_failed) == (30, 30)
    assert found.verdict == "do not use"
    assert found.total_variation == pytest.approx(0.03)
    assert ss.certify(dataclasses.replace(draws, stats=stats), UNIT, key=jax.random.key(1)).verdict == "use"


@pytest.mark.usefixtures("unchecked_types")
def test_what_does_not_fit_is_refused_at_the_door() -> None:
    draws, key = exact_draws(UNIT, key=jax.random.key(0), num_samples=50), jax.random.key(0)
    with pytest.raises(ValueError, match=r"`proposal`.*WithDensity"):
        ss.certify(draws, UNIT, key=key)
    own = dataclasses.replace(draws, stats={**draws.stats, "log_proposal": np.zeros((1, 50))})
    with pytest.raises(ValueError, match="`draws` have weights already"):
        ss.certify(ss.reweight(own, UNIT), UNIT, key=key)
    with pytest.raises(TypeError, match="`target` must be a score with a log density"):
        ss.certify(draws, ss.Score(lambda x: -x, structure=jnp.zeros(2)), UNIT, key=key)  # pyright: ignore[reportArgumentType]
