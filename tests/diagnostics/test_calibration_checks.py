"""Ranks, coverage and TARP on normal posteriors that are right, or wrong in one way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scoresample.diagnostics import (
    fractional_ranks,
    highest_density_coverage,
    interval_coverage,
    simulation_based_calibration,
    tarp,
    uniformity_p_value,
)

CORRELATED = np.array([[1.0, 0.7], [0.7, 1.0]])
SIMULATIONS, DRAWS = 500, 60


def simulated(
    seed: int, change: Callable[[np.ndarray], np.ndarray] = lambda z: z, num: int = SIMULATIONS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truths m + e with e of CORRELATED covariance, draws m + change(e'), and the posterior's mean m."""
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(CORRELATED)
    means = 2 * rng.normal(size=(num, 2))
    truths = means + rng.normal(size=(num, 2)) @ root.T
    draws = means[:, None] + change(rng.normal(size=(num, DRAWS, 2)) @ root.T)
    return truths, draws, means


def uncorrelated(z: np.ndarray) -> np.ndarray:
    """The same marginals, each with other draws."""
    return np.stack([z[..., 0], np.roll(z[..., 1], 1, axis=1)], axis=-1)


WRONG: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "wide": (lambda z: 1.4 * z, "over-dispersed"),
    "narrow": (lambda z: 0.7 * z, "under-dispersed"),
    "high": (lambda z: z + 0.5, "shifted up"),
    "low": (lambda z: z - 0.5, "shifted down"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_sbc_says_what_is_wrong(name: str) -> None:
    change, words = WRONG[name]
    found = simulation_based_calibration(*simulated(0, change)[:2])
    assert [word.split(" (")[0] for word in found.words] == [words] * 2
    assert [check.passed for check in found.checks] == [False, False]
    assert words in str(found)
    assert all(words in str(check) for check in found.checks)


def test_sbc_names_both_faults_of_one_quantity_and_no_others() -> None:
    found = simulation_based_calibration(*simulated(0, lambda z: 0.5 * z + np.array([0.5, 0.0]))[:2], names=("a", "b"))
    assert found.words == ("under-dispersed (too narrow) and shifted up", "under-dispersed (too narrow)")
    far = simulation_based_calibration(*simulated(0, lambda z: z + 4.0)[:2])
    assert set(far.words) == {"shifted up"}


def test_coverage_says_what_is_wrong() -> None:
    """The words and signs, and the coverage of normal intervals that are 1.4 times too wide: 1 - 2 Phi(-1.4 z)."""
    found = interval_coverage(*simulated(0, WRONG["wide"][0])[:2])
    assert set(found.words) == {"over-dispersed (too wide)"}
    assert np.all(found.areas > 0)
    np.testing.assert_allclose(found.coverage(0.5), 0.655, atol=5 * np.sqrt(0.655 * 0.345 / SIMULATIONS))
    assert found.table.shape == (4, 3)
    narrow = interval_coverage(*simulated(0, WRONG["narrow"][0])[:2])
    assert set(narrow.words) == {"under-dispersed (too narrow) or shifted"}
    assert "50%: 3" in str(narrow)


def log_density(points: np.ndarray, means: np.ndarray, scale: float) -> np.ndarray:
    z = points - means
    return -0.5 / scale**2 * np.sum(z @ np.linalg.inv(CORRELATED) * z, axis=-1)


@pytest.mark.parametrize(("scale", "words"), [(1.0, "calibrated"), (1.4, "over"), (0.7, "under")])
def test_highest_density_regions(scale: float, words: str) -> None:
    truths, draws, means = simulated(3, lambda z: scale * z)
    found = highest_density_coverage(log_density(truths, means, scale), log_density(draws, means[:, None], scale))
    assert found.words[0].startswith(words)


@pytest.mark.parametrize(
    ("name", "words", "sign"), [("wide", "over-dispersed", 1), ("narrow", "under-dispersed", -1), ("high", "place", 0)]
)
def test_tarp_sees_wrong_widths_and_places(name: str, words: str, sign: int) -> None:
    truths, draws, means = simulated(0, lambda z: WRONG[name][0](WRONG[name][0](z)))
    found = tarp(truths, draws, conditions=means)
    assert words in found.words
    assert sign * found.area >= 0
    assert not found.checks[0].passed


def test_wrong_correlations_are_seen_by_joint_tests_alone() -> None:
    truths, draws, means = simulated(0, uncorrelated)
    assert set(simulation_based_calibration(truths, draws).words) == {"calibrated"}
    assert set(interval_coverage(truths, draws).words) == {"calibrated"}
    assert "correlations" in tarp(truths, draws, conditions=means).words
    sums = simulation_based_calibration(truths.sum(axis=1, keepdims=True), draws.sum(axis=2, keepdims=True))
    assert sums.words == ("under-dispersed (too narrow)",)


def test_a_posterior_that_returns_the_prior_is_seen_with_conditions_alone() -> None:
    rng = np.random.default_rng(0)
    truths, _, means = simulated(0)
    draws = (
        2 * rng.normal(size=(SIMULATIONS, DRAWS, 2))
        + rng.normal(size=(SIMULATIONS, DRAWS, 2)) @ np.linalg.cholesky(CORRELATED).T
    )
    assert set(simulation_based_calibration(truths, draws).words) == {"calibrated"}
    blind = tarp(truths, draws)
    assert blind.words == "calibrated"
    assert "a posterior that returns the prior passes" in str(blind)
    seeing = tarp(truths, draws, conditions=means)
    assert seeing.words.startswith("over-dispersed")
    assert "a posterior that returns the prior passes" not in str(seeing)
    own = tarp(truths, draws, references=means + rng.normal(size=means.shape))
    assert own.words.startswith("over-dispersed")
    assert len(own.credibilities) == SIMULATIONS


def p_values(seed: int) -> list[float]:
    truths, draws, means = simulated(seed, num=100)
    sbc = simulation_based_calibration(truths, draws, seed=seed)
    coverage = interval_coverage(truths, draws, seed=seed)
    densities = highest_density_coverage(
        log_density(truths, means, 1.0), log_density(draws, means[:, None], 1.0), seed=seed
    )
    joint = [tarp(truths, draws, conditions=conditions, seed=seed).p_value for conditions in (None, means)]
    return [*sbc.p_values, *coverage.p_values, *densities.p_values, *joint]


def test_right_posteriors_fail_as_often_as_the_level_says() -> None:
    found = np.array([p_values(seed) for seed in range(100)])
    for level in (0.05, 0.3):
        error = np.sqrt(level * (1 - level) / len(found))
        assert found.shape == (100, 7)
        assert np.all(np.mean(found <= level, axis=0) < level + 5 * error)
        assert np.all(np.mean(found <= level, axis=0) > 0.6 * level - 4 * error)


def test_ranks_break_ties_at_random_and_are_uniform_for_atoms() -> None:
    rng = np.random.default_rng(0)
    truths, draws = rng.integers(0, 3, (2000, 1)), rng.integers(0, 3, (2000, 9, 1))
    ranks = fractional_ranks(truths, draws)[:, 0]
    assert uniformity_p_value(ranks) > 1e-3
    assert len(np.unique(ranks)) == 2000
    below = np.sum(draws[:, :, 0] < truths, axis=1)
    equal = np.sum(draws[:, :, 0] == truths, axis=1)
    assert np.all((below / 10 <= ranks) & (ranks <= (below + equal + 1) / 10))


def test_weighted_draws_count_by_their_weights() -> None:
    """Draws of a law twice as wide, weighted to the right one: uniform with the weights, a hump without them."""
    rng = np.random.default_rng(0)
    truths, draws = rng.normal(size=(1000, 1)), 2 * rng.normal(size=(1000, 300, 1))
    log_weights = (-0.5 * draws**2 + 0.125 * draws**2)[:, :, 0] + 100.0 * rng.normal(size=(1000, 1))
    weighted = simulation_based_calibration(truths, draws, log_weights=log_weights)
    assert weighted.words == ("calibrated",)
    assert simulation_based_calibration(truths, draws).words == ("over-dispersed (too wide)",)
    equal = np.full((1000, 300), -7.0)
    np.testing.assert_allclose(
        fractional_ranks(truths, draws, log_weights=equal), fractional_ranks(truths, draws), atol=1e-12
    )


def test_references_share_no_random_numbers_with_a_user_of_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    truths = rng.normal(size=(500, 2))
    assert tarp(truths, rng.normal(size=(500, 100, 2)), seed=0).p_value > 0.01


def test_tarp_in_more_dimensions_than_simulations() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(200, 100))
    truths, draws = means + rng.normal(size=(200, 100)), means[:, None] + 1.2 * rng.normal(size=(200, 50, 100))
    assert tarp(truths, draws, conditions=means).words.startswith("over-dispersed")
    assert tarp(truths, (draws - means[:, None]) / 1.2 + means[:, None], conditions=means).words == "calibrated"


def shaped(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.random.default_rng(0).normal(size=shape) for shape in shapes]


DOORS: dict[str, tuple[Callable[[], Any], str]] = {
    "shapes": (lambda: fractional_ranks(*shaped((5, 2), (5, 9, 3))), r"have the shapes .*\(5, 2\) and \(5, 9, 3\)"),
    "draws without an axis": (lambda: fractional_ranks(*shaped((5, 2), (5, 2))), "must have the shapes"),
    "nan": (lambda: fractional_ranks(np.full((5, 1), np.nan), np.zeros((5, 9, 1))), "`truths`: 5 of 5 numbers"),
    "weights": (
        lambda: fractional_ranks(*shaped((5, 1), (5, 9, 1)), log_weights=np.zeros((5, 8))),
        r"`log_weights` must have the shape .*\(5, 9\), but \(5, 8\)",
    ),
    "no weight": (
        lambda: fractional_ranks(*shaped((5, 1), (5, 9, 1)), log_weights=np.full((5, 9), -np.inf)),
        "no draw of a simulation has any weight",
    ),
    "names": (
        lambda: simulation_based_calibration(*shaped((5, 1), (5, 9, 1)), names=("a", "b")), "`names` must be 1 names",
    ),
    "level": (
        lambda: simulation_based_calibration(*shaped((5, 1), (5, 9, 1)), level=0.0), "`level` must be between 0 and 1",
    ),
    "few": (lambda: tarp(*shaped((19, 1), (19, 9, 1))), "19 simulations are too few"),
    "two kinds of references": (
        lambda: tarp(*shaped((30, 1), (30, 9, 1)), conditions=np.ones((30, 1)), references=np.ones((30, 1))),
        "not both",
    ),
    "references": (
        lambda: tarp(*shaped((30, 2), (30, 9, 2)), references=np.ones((30, 1))), r"`references` must .*\(30, 2\)",
    ),
    "conditions": (
        lambda: tarp(*shaped((30, 2), (30, 9, 2)), conditions=np.ones((29, 1))), "`conditions` must be finite",
    ),
    "densities": (lambda: highest_density_coverage(*shaped((5,), (4, 9))), "`truth_logdensities` and"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DOORS))
def test_what_cannot_be_used_is_named(name: str) -> None:
    call, message = DOORS[name]
    with pytest.raises(ValueError, match=message):
        call()
