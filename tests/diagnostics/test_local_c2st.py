"""The local classifier test: theta ~ N(0, 1), x = theta + N(0, 1), with posteriors that are wrong for x < 0 only."""

import functools

import numpy as np
import pytest

from scoresample.diagnostics import LocalC2ST, local_c2st

OBSERVED = np.array([[-1.2], [1.2]])


@functools.cache
def outcome(seed: int, shift: float, weights: tuple[int, ...] | None = None) -> LocalC2ST:
    rng = np.random.default_rng(seed)
    truths = rng.normal(size=(400, 1))
    x = truths + rng.normal(size=(400, 1))

    def posterior(x: np.ndarray) -> np.ndarray:
        return x / 2 + shift * (x < 0) + np.sqrt(0.5) * rng.normal(size=x.shape)

    there = posterior(np.broadcast_to(OBSERVED[:, None], (2, 200, 1)))
    log_weights = None if weights is None else np.where(np.arange(200) == np.array(weights)[:, None], 0.0, -1e3)
    return local_c2st(
        truths, x, posterior(x), observed=OBSERVED, observed_draws=there, log_weights=log_weights, num_permutations=19,
        level=0.1,
    )  # fmt: skip


def test_a_posterior_is_rejected_where_it_is_wrong() -> None:
    found = outcome(0, 1.0)
    assert [check.passed for check in found.checks] == [False, True]
    assert found.p_values[0] == 1 / 20
    assert found.statistics[0] > 10 * found.statistics[1]
    # Draws are too high: the classifier knows the highest for draws of the posterior under test.
    assert found.probabilities[0].mean() > 0.6
    assert found.null.shape == (19, 2)
    assert "observation 1" in str(found)


def test_the_exact_posterior_is_not_rejected() -> None:
    found = outcome(0, 0.0)
    assert [check.passed for check in found.checks] == [True, True]


def test_weights_of_the_draws_count() -> None:
    """All weight on the draw that tells least."""
    plain = outcome(0, 1.0)
    least = np.argmin(np.abs(plain.probabilities - 0.5), axis=1)
    weighted = outcome(0, 1.0, weights=tuple(least.tolist()))
    expected = (plain.probabilities[np.arange(2), least] - 0.5) ** 2
    np.testing.assert_allclose(weighted.statistics, expected, atol=1e-9)


def test_what_cannot_be_used_is_named() -> None:
    column, there = np.zeros((10, 1)), np.zeros((2, 5, 1))
    with pytest.raises(ValueError, match=r"`num_permutations`: 30 networks .*Take at least 39"):
        local_c2st(column, column, column, observed=OBSERVED, observed_draws=there, num_permutations=30)
    with pytest.raises(ValueError, match=r"`truths`, `draws` and `conditions` must have one row"):
        local_c2st(column, column[:9], column, observed=OBSERVED, observed_draws=there)
    with pytest.raises(ValueError, match=r"`observed` and `observed_draws` must be finite"):
        local_c2st(column, column, column, observed=OBSERVED, observed_draws=there[:1])
    with pytest.raises(ValueError, match="`draws` must be a finite matrix"):
        local_c2st(column, column, column * np.nan, observed=OBSERVED, observed_draws=there)
