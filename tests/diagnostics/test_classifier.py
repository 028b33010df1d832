import numpy as np
import pytest
from scipy.stats import norm

from scoresample.diagnostics import _classifier, c2st, c2st_to_reference
from scoresample.diagnostics._null import random_halves

Size = tuple[int, int]


def normal(seed: int, size: Size) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_accuracy_between_shifted_normals_is_that_of_the_best_classifier(shift: float) -> None:
    # Between N(0, 1) and N(delta, 1) no classifier is right more often than Phi(delta / 2).
    reference, draws = normal(0, (1500, 1)), normal(1, (1500, 1)) + shift
    best = norm.cdf(shift / 2)
    error = np.sqrt(best * (1 - best) / 3000)
    assert -0.01 - 5 * error < c2st(reference, draws) - best < 5 * error


def test_the_accuracy_does_not_mind_units() -> None:
    # Scales that are powers of two leave no rounding, after which training would part.
    reference, draws = normal(0, (60, 1)), normal(1, (60, 1)) + 0.5
    assert c2st(1024.0 * reference, 1024.0 * draws) == c2st(reference, draws)


def test_the_seed_decides() -> None:
    reference, draws = normal(0, (60, 1)), normal(1, (60, 1))
    found = [c2st(reference, draws, seed=seed) for seed in (1, 2, 1)]
    assert found[0] == found[2]
    assert found[0] != found[1]


def test_a_coordinate_without_spread_is_only_centred() -> None:
    constant = np.full((60, 1), 7.0)
    reference, draws = (np.concatenate((normal(seed, (60, 1)), constant), axis=1) for seed in (0, 1))
    assert abs(c2st(reference, draws) - 0.5) < 5 * np.sqrt(0.25 / 120)


def test_training_that_was_stopped_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_classifier, "MAX_ITERATIONS", 2)
    assert 0.0 < c2st(normal(0, (50, 1)), normal(1, (50, 1))) < 1.0


def test_the_null_is_the_accuracy_between_halves() -> None:
    reference = normal(0, (120, 1))
    distance = c2st_to_reference(normal(1, (500, 1)), reference, seed=3, num_splits=2)
    assert distance.size == 60
    standard = (reference - reference.mean(axis=0)) / reference.std(axis=0)
    pool = standard[np.random.default_rng(3).permutation(120)]
    halves = [c2st(pool[half], pool[~half], seed=3) for half in random_halves(120, 3, 2)]
    assert np.allclose(distance.null, halves)


def test_a_shift_stands_out_and_an_exact_sample_does_not() -> None:
    reference, draws = normal(0, (600, 1)), normal(1, (600, 1))
    error = np.sqrt(0.25 / 600)
    exact = c2st_to_reference(draws, reference, num_splits=3)
    assert exact.size == 300
    assert exact.null.shape == (3,)
    assert abs(exact.value - 0.5) < 5 * error
    assert np.all(np.abs(exact.null - 0.5) < 5 * error)
    shifted = c2st_to_reference(draws + 1.0, reference, num_splits=1)
    assert abs(shifted.value - norm.cdf(0.5)) < 5 * error


@pytest.mark.parametrize(
    ("reference", "draws", "word"),
    [
        (np.zeros(9), np.zeros((9, 1)), "`reference`"),
        (np.zeros((9, 1)), np.zeros((9, 2)), "dimension"),
        (np.zeros((4, 1)), np.zeros((9, 1)), "at least 5"),
        (np.zeros((9, 1)), np.array([[0.0]] * 8 + [[np.nan]]), "`draws` .* finite"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(reference: np.ndarray, draws: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        c2st(reference, draws)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 and 10"):
        c2st_to_reference(np.zeros((9, 1)), np.zeros((9, 1)))
    with pytest.raises(ValueError, match="`num_splits`"):
        c2st_to_reference(np.zeros((9, 1)), np.zeros((20, 1)), num_splits=0)
