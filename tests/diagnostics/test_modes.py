import numpy as np
import pytest

from scoresample.diagnostics import ModeWeights, draws_mode_weights, mode_weights, total_variation
from tests.diagnostics.made_draws import made_draws, normal_chains

CENTRES = np.array([[-5.0, 0.0], [5.0, 0.0], [0.0, 8.0]])
TRUE = np.array([0.2, 0.3, 0.5])


def mixture(seed: int, num: int, weights: np.ndarray = TRUE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return CENTRES[generator.choice(3, p=weights, size=num)] + 0.5 * generator.normal(size=(num, 2))


def test_z_scores_against_true_weights_are_standard_normal() -> None:
    scores = np.array([mode_weights(mixture(seed, 500), CENTRES).z_scores(TRUE) for seed in range(400)])
    assert abs(np.mean(scores**2) - 1) < 5 * np.sqrt(2 / 800)
    np.testing.assert_array_less(np.abs(scores.mean(axis=0)), 5 / np.sqrt(400))


def test_z_scores_against_a_reference_are_standard_normal() -> None:
    scores = [
        mode_weights(mixture(seed, 500), CENTRES).z_scores(mode_weights(mixture(seed + 1000, 800), CENTRES))
        for seed in range(400)
    ]
    assert abs(np.mean(np.square(scores)) - 1) < 5 * np.sqrt(2 / 800)


def test_weights_and_standard_errors() -> None:
    found = mode_weights(np.array([[-5.0, 0], [5, 0]]), CENTRES, weights=np.array([1.0, 3.0]), ess=100)
    np.testing.assert_allclose(found.fractions, [0.25, 0.75, 0.0])
    np.testing.assert_allclose(found.standard_errors[:2], np.sqrt(0.25 * 0.75 / 100), rtol=0.02)
    assert found.standard_errors[2] > 0
    assert found.z_scores(np.array([0.25, 0.75, 0.0])).tolist() == [0.0, 0.0, 0.0]
    assert found.z_scores(np.array([0.25, 0.5, 0.25]))[2] == pytest.approx(-0.25 / np.sqrt(0.25 * 0.75 / 100))


def test_chains_stuck_in_different_modes_do_not_pretend_to_know() -> None:
    stuck = CENTRES[[0, 1, 2, 2]][:, None] + 0.5 * normal_chains(0, 2)
    found = draws_mode_weights(made_draws(stuck.astype(np.float32)), CENTRES)
    np.testing.assert_allclose(found.fractions, [0.25, 0.25, 0.5])
    assert np.all(found.ess < 10)
    independent = draws_mode_weights(made_draws(mixture(0, 4000)[None].astype(np.float32), "independent"), CENTRES)
    assert np.all(independent.ess == 4000)


def test_total_variation() -> None:
    assert total_variation(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])) == 0.5


def test_a_mode_nobody_visited_has_no_score() -> None:
    one, other = (ModeWeights(np.array([1.0, 0.0]), np.array([10.0, 10.0])) for _ in range(2))
    assert one.z_scores(other).tolist() == [0.0, 0.0]


def test_misshapen_centres_are_refused() -> None:
    with pytest.raises(ValueError, match="centres"):
        mode_weights(np.zeros((3, 2)), np.zeros((2, 3)))
