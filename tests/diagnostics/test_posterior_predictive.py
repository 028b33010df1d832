"""Observed statistics among replicated ones."""

import numpy as np
import pytest

from scoresample.diagnostics import compare_replicates


def test_one_more_replicate_fails_as_often_as_the_level_says() -> None:
    rng, level = np.random.default_rng(0), 0.2
    replicates = rng.normal(size=(1000, 100, 3)) @ np.linalg.cholesky(np.eye(3) + 0.5)
    found = [compare_replicates(rows[0], rows[1:], level=level) for rows in replicates]
    joint = np.array([one.joint_probability for one in found])
    for limit in (0.1, 0.5):
        assert abs(np.mean(joint <= limit) - limit) < 5 * np.sqrt(limit * (1 - limit) / 1000)
    failed = np.mean([not one.passed for one in found])
    assert 0.05 < failed < level + 5 * np.sqrt(level * (1 - level) / 1000)


def test_a_statistic_far_out_is_named_with_its_side() -> None:
    replicated = np.random.default_rng(0).normal(size=(999, 2))
    found = compare_replicates(np.array([0.0, 6.0]), replicated, names=("mean", "largest"))
    assert [check.passed for check in found.checks] == [False, True, False]
    assert found.tail_probabilities[1] == pytest.approx(2 / 1000)
    assert found.joint_probability == pytest.approx(1 / 1000)
    assert "largest of 6 lies above" in str(found.checks[2])
    assert str(found).splitlines()[2].strip().startswith("largest")
    below = compare_replicates(np.array([0.0, -6.0]), replicated, names=("mean", "largest"))
    assert "largest of -6 lies below" in str(below.checks[2])


def test_correlations_matter_to_the_joint_distance_alone() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(size=(999, 1))
    replicated = common + 0.1 * rng.normal(size=(999, 2))
    found = compare_replicates(np.array([1.0, -1.0]), replicated)
    assert [check.passed for check in found.checks] == [False, True, True]


def test_more_statistics_than_replicates_and_constant_ones() -> None:
    rows = np.random.default_rng(0).normal(size=(61, 200))
    rows[:, 3] = 7.0
    with pytest.warns(UserWarning, match="no single one of 200 statistics can be told.*Take 16000"):
        found = compare_replicates(rows[0], rows[1:])
    assert found.passed
    assert found.tail_probabilities[3] == 1.0
    assert "188 less extreme" in str(found)


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have the shapes .*\(3,\) and \(9, 2\)"):
        compare_replicates(np.zeros(3), np.zeros((9, 2)))
    with pytest.raises(ValueError, match="`replicated`: 18 statistics are not finite"):
        compare_replicates(np.zeros(2), np.full((9, 2), np.inf))
