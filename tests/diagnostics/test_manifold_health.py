"""A score and its manifold: closed forms on planes and circles, and signs of memory where there is a sample behind."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.special import i0e, i1e

import scoresample as ss
from scoresample.diagnostics._data_dimension import data_dimension, sample_spacing
from scoresample.diagnostics._finite_energy import energy_against_exact, energy_from_loss
from scoresample.diagnostics._manifold_measures import intrinsic_dimensions, noised_spectra
from scoresample.diagnostics._manifold_plateau import break_level, spectrum_dimension
from scoresample.paths import levels_at
from tests.diagnostics.manifold_scores import (
    PROCESS,
    circle,
    circle_draws,
    cube,
    cube_draws,
    normal,
    sphere,
    sphere_draws,
)

KEY = jax.random.key(5)
SIZE, FLAT = 12, 3
PLANE = np.where(np.arange(SIZE) < FLAT, 1.0, 0.0)
"""Variances of a normal law on a plane of three dimensions in twelve."""


def plane_draws(number: int = 3000, variances: Any = PLANE) -> Array:
    return jax.random.normal(jax.random.key(9), (number, len(variances))) * jnp.sqrt(jnp.asarray(variances, float))


def shares(health: ss.ManifoldHealth, variances: np.ndarray = PLANE) -> np.ndarray:
    """``v/(v + s^2)``, shape (levels, dimension)."""
    return variances / (variances + health.noise[:, None] ** 2)


def outcome(health: ss.ManifoldHealth) -> list[str]:
    return [check.name.split(",")[0] for check in health.checks if not check.passed]


def failed(health: ss.ManifoldHealth) -> list[str]:
    return [check.name.split(",")[0] for check in health.checks if not check.passed and check.severity == "fail"]


@cache
def plane_health() -> ss.ManifoldHealth:
    return ss.manifold_health(normal(PLANE), plane_draws(), key=KEY, training=plane_draws(400), dimension=3.0)


def test_blow_up_and_intrinsic_dimension_of_a_plane_have_their_closed_forms() -> None:
    health = plane_health()
    share = shares(health)
    blow_up = np.sum(1 - share, axis=1)
    assert np.abs((health.blow_up - blow_up) / health.blow_up_se).max() < 5
    assert health.blow_up_se.max() < 0.15
    # Of |z_0|^2 the mean is v, so that the square adds u (1 - u) to the trace's u.
    flipd = np.sum(share * (2 - share), axis=1)
    assert health.flipd_training is not None
    assert health.flipd_training_se is not None
    assert np.abs((health.flipd - flipd) / health.flipd_se).max() < 5
    assert np.abs((health.flipd_training - flipd) / health.flipd_training_se).max() < 5
    assert health.flipd[-1] == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose([health.dimensions[name].value for name in ("FLIPD", "spectrum")], 3.0, atol=1e-3)
    assert abs(health.dimensions["blow-up"].value - 3) < 5 * health.dimensions["blow-up"].se
    assert abs(health.dimensions["draws"].value - 3) < 0.4
    assert np.isnan(health.break_noise)
    assert outcome(health) == []


def test_the_spread_of_the_noise_length_is_taken_out() -> None:
    """Of the variance 2 (D - k)/n of the blow-up, the share k/D stays."""
    health = plane_health()
    assert health.blow_up_se[-1] == pytest.approx(np.sqrt(2 * 9 * 0.25 / health.num_points), rel=0.15)


def test_intrinsic_dimension_point_by_point_in_both_precisions(precision: jnp.dtype) -> None:
    score, points = normal(PLANE), jnp.asarray(plane_draws(20), precision)
    ladder = levels_at(score, np.array([-1.0, 0.5, 3.0]))
    found = intrinsic_dimensions(score, points, ladder, KEY)
    share = PLANE / (PLANE + np.exp(-2 * ladder.log_snr)[:, None])
    squares = np.where(PLANE > 0, np.asarray(points, np.float64) ** 2, 0.0)
    expected = np.sum(share, axis=1)[:, None] + (share * (1 - share)) @ squares.T
    np.testing.assert_allclose(found, expected, rtol=1e-10 if precision == jnp.float64 else 2e-4)


def test_at_noised_points_the_mean_is_the_number_of_coordinates() -> None:
    """Stein's identity: FLIPD says something at clean points only."""
    score = circle()
    ladder = levels_at(score, np.array([-np.log(0.3)]))
    clean = circle_draws(KEY, 4000)
    noised = clean + 0.3 * jax.random.normal(jax.random.key(1), clean.shape)
    found = intrinsic_dimensions(score, noised, ladder, KEY)[0]
    assert abs(found.mean() - 20) < 5 * found.std() / np.sqrt(4000)
    assert found.std() / np.sqrt(4000) < 0.2


def test_the_circle_has_its_closed_form_with_exact_traces_and_with_probes() -> None:
    """``2 a (1 - I_1(a)/I_0(a))`` with a = 1/s^2: 1.01 at noise 0.2."""
    noise = np.array([1.0, 0.2, 0.1])
    for size, tolerance in ((20, 2e-3), (70, 0.0)):
        score = circle(size)
        found = intrinsic_dimensions(score, circle_draws(KEY, 256, size), levels_at(score, -np.log(noise)), KEY)
        error = found.std(axis=1) / 16
        assert np.all(error > 0) or tolerance > 0
        expected = 2 / noise**2 * (1 - i1e(1 / noise**2) / i0e(1 / noise**2))
        assert np.all(np.abs(found.mean(axis=1) - expected) < 5 * error + tolerance + 1e-4)


def test_the_span_of_the_scores_is_the_normal_space() -> None:
    score, points = normal(PLANE), plane_draws(8)
    values = noised_spectra(score, points, float(levels_at(score, np.array([4.0])).t[0]), KEY)
    assert values.shape == (8, SIZE)
    # 48 scores: the nine normal values lie around 1, within sqrt(9/48) of it; the others shrink with the noise.
    assert np.all((values[:, :9] > 0.4) & (values[:, :9] < 1.7))
    assert values[:, 9:].max() < 0.1


@pytest.mark.parametrize(
    ("values", "dimension"),
    [
        ([1.4, 1.2, 0.8, 0.6, 0.01], 1.0),
        ([1.4, 1.2, 0.02, 0.01, 0.0], 3.0),
        ([0.1, 0.001, 0.001, 0.001, 0.001], 5.0),
        ([1.5, 1.2, 0.9, 0.7, 0.5], 0.0),
        ([1.4, 0.9, 0.6, 0.4, 0.25], np.nan),
        ([0.0, 0.0], 2.0),
    ],
)
def test_the_dimension_of_a_spectrum(values: list[float], dimension: float) -> None:
    np.testing.assert_equal(spectrum_dimension(np.array(values)), dimension)


def test_a_relative_error_has_an_infinite_integral_and_its_closed_form() -> None:
    """``sigma^2 E|b s|^2`` is ``b^2 (D - k)`` for each e-fold at little noise, and below it at much."""
    health = ss.manifold_health(normal(PLANE, factor=1.6), plane_draws(), key=KEY, exact=normal(PLANE))
    energy = health.energy
    rate = 0.36 * np.sum(1 - shares(health), axis=1)
    assert np.abs((energy.rate - rate) / energy.rate_se).max() < 5
    assert energy.verdict == "infinite"
    assert abs(energy.slope) < 0.01
    total = float(np.sum(-np.diff(np.log(health.noise)) * (rate[1:] + rate[:-1]) / 2))
    assert abs(energy.total - total) < 5 * energy.total_se
    assert energy.total_se < 0.05 * total
    assert failed(health) == ["finite-energy integral"]
    # No draw leaves the plane for it: the error moves a denoised point by a multiple of the noise.
    moved = float(health.noise[-1] * np.sqrt(energy.rate[-1]))
    text = health.paragraphs()["Finite energy"]
    assert f"moves a denoised point by {moved:.2g}" in text
    assert "leave" not in text


def test_a_bounded_error_has_a_finite_integral_whose_integrand_falls_with_slope_two() -> None:
    health = ss.manifold_health(normal(PLANE, shift=0.5), plane_draws(), key=KEY, exact=normal(PLANE))
    variance = np.asarray(PROCESS.variance(jnp.asarray(health.t)))
    np.testing.assert_allclose(health.energy.rate, 0.25 * SIZE * variance, rtol=1e-3)
    assert health.energy.verdict == "finite"
    assert health.energy.slope == pytest.approx(2.0, abs=0.01)
    assert "finite-energy integral" not in outcome(health)
    none = ss.manifold_health(normal(PLANE), plane_draws(), key=KEY, exact=normal(PLANE)).energy
    assert (none.verdict, none.seen) == ("finite", False)
    np.testing.assert_allclose(none.rate, 0.0, atol=1e-8)


def test_without_the_exact_score_the_loss_less_the_dimension_stands_for_it() -> None:
    wrong = ss.manifold_health(normal(PLANE, factor=1.6), plane_draws(), key=KEY, dimension=3).energy
    assert wrong.verdict == "infinite"
    assert wrong.source == "dimension"
    assert np.isnan(wrong.rate[:-4]).all()
    assert abs(wrong.rate[-1] - 0.36 * 9) < 5 * wrong.rate_se[-1]
    assert wrong.rate_se[-1] < 0.1
    right = plane_health()
    assert right.energy.verdict == "cannot tell"
    assert not right.energy.seen
    assert abs(right.energy.rate[-1]) < 5 * right.energy.rate_se[-1]
    assert "no error of the score is visible" in right.paragraphs()["Finite energy"]


def test_directions_that_the_draws_do_not_show_are_no_error() -> None:
    """Eight directions of a hundredth: their neighbours lie in fewer dimensions, the exact score knows better."""
    variances = np.where(np.arange(SIZE) < 4, 1.0, 1e-4)
    health = ss.manifold_health(normal(variances, log_snr_range=(-5.0, 7.5)), plane_draws(variances=variances), key=KEY)
    assert health.dimensions["draws"].value < 6
    assert health.energy.rate[-1] > 3 * health.energy.rate_se[-1]
    assert health.energy.verdict == "cannot tell"
    assert "thinner than the distances" in str(health)
    assert outcome(health) == []


def test_verdicts_of_integrands() -> None:
    noise, chance = np.geomspace(1.0, 1e-3, 8), np.random.default_rng(0).gamma(8.0, size=400) / 8
    for power, verdict in (
        (2.0, "finite"),
        (1.0, "finite"),
        (0.0, "infinite"),
        (-1.0, "infinite"),
        (0.4, "cannot tell"),
    ):
        found = energy_against_exact(noise[:, None] ** power * chance, noise, 4)
        assert found.verdict == verdict, power
        assert found.slope == pytest.approx(power)
    # An error that shows at the last level alone, and grew from nothing.
    late = 3.0 + np.where(np.arange(8) == 7, 1.0, 0.0)[:, None] * chance
    found = energy_from_loss(late, 9 - late, noise, 12, 3.0, 0.05, source="dimension")
    assert (found.verdict, found.seen) == ("infinite", True)
    # Two levels tell nothing; what is not a number tells enough.
    assert energy_against_exact(np.ones((2, 50)), noise[-2:], 4).verdict == "cannot tell"
    assert energy_against_exact(np.full((4, 50), np.nan), noise[-4:], 4).verdict == "infinite"


def test_the_score_of_a_sample_is_told_from_the_true_one() -> None:
    sample, held_out = circle_draws(jax.random.key(3), 100, SIZE), circle_draws(jax.random.key(4), 2500, SIZE)
    health = ss.manifold_health(ss.perturb(sample, PROCESS), held_out, key=KEY, training=sample)
    assert health.flipd_training is not None
    assert health.flipd_training[-1] < 0.3
    assert health.flipd[-1] > 5
    assert "FLIPD at training against held-out points over the dimension" in failed(health)
    assert health.dimensions["spectrum"].value == 1
    assert health.spacing == pytest.approx(np.pi / 100, rel=0.5)
    assert health.spacing / 4 < health.break_noise < 4 * health.spacing
    assert health.spectrum_noise > health.break_noise
    assert abs(health.dimensions["FLIPD"].value - 1) < 0.2
    # Nearest points are at distance d, so FLIPD grows like (d/s)^2 there.
    growth = np.log(health.flipd[-1] / health.flipd[-2]) / np.log(health.noise[-2] / health.noise[-1])
    assert 1.5 < growth < 2.5
    assert "breaks" in health.paragraphs()["Intrinsic dimension"]
    true = ss.manifold_health(circle(SIZE), held_out, key=KEY, training=sample)
    assert outcome(true) == []
    assert np.isnan(true.break_noise)


HEALTHY: dict[str, Any] = {
    "correlated": ss.Gaussian(jnp.zeros(2), jnp.array([[1.0, 0.95], [0.95, 1.0]])),
    "modes": ss.GaussianMixture([0.2, 0.8], [[-1.0, -1.0], [1.0, 1.0]], [0.04 * jnp.eye(2)] * 2),
}


@pytest.mark.parametrize("name", [*HEALTHY, "circle", "sphere", "cube"])
def test_exact_scores_pass_every_check(name: str) -> None:
    if name in HEALTHY:
        score, data, dimension = ss.perturb(HEALTHY[name], ss.VP()), HEALTHY[name].sample(jax.random.key(3), 2500), 2.0
    elif name == "circle":
        score, data, dimension = circle(), circle_draws(jax.random.key(3), 2500), 1.0
    elif name == "sphere":
        score, data, dimension = sphere(), sphere_draws(jax.random.key(3), 2500, 2), 2.0
    else:
        score, data, dimension = cube(), cube_draws(jax.random.key(3), 2500), 3.0
    health = ss.manifold_health(score, data, key=KEY, training=data[:300])
    assert outcome(health) == [], str(health)
    assert health.dimensions["FLIPD"].value == pytest.approx(dimension, abs=0.05)
    assert health.dimensions["spectrum"].value == dimension


def test_sampling_that_stops_early_is_told_so() -> None:
    variances = np.where(np.arange(SIZE) < 4, 1.0, 0.0025)
    blurred = ss.manifold_health(
        normal(variances, log_snr_range=(-5.0, 3.5)), plane_draws(variances=variances), key=KEY
    )
    stop = float(np.exp(-3.5))
    known = sum(8 * 0.0025 / (0.0025 + (factor * stop) ** 2) * sign for factor, sign in ((1, 1), (2, -1)))
    known += sum(4 / (1 + (factor * stop) ** 2) * sign for factor, sign in ((1, 1), (2, -1)))
    assert abs(blurred.stopping_drop - known) < 5 * blurred.stopping_drop_se
    assert "directions still coming into sight between twice the last noise and the last" in outcome(blurred)
    sharp = ss.manifold_health(normal(variances, log_snr_range=(-5.0, 5.4)), plane_draws(variances=variances), key=KEY)
    assert outcome(sharp) == []


def test_a_break_is_no_finer_plateau_and_no_constant_error() -> None:
    noise, points = np.geomspace(1.0, 0.01, 5), np.ones(50)

    def found(flipd: list[float], known: list[float], training: list[float] | None = None) -> float:
        at_training = None if training is None else np.outer(training, points)
        return break_level(noise, np.outer(flipd, points), at_training, 20 - np.outer(known, points), 20)

    assert np.isnan(found([1, 2, 2, 9, 12], [0.8, 1.9, 2, 6, 10]))
    assert np.isnan(found([1, 2, 2.1, 2.1, 2.1], [-4, -3, -1, -0.5, -0.5]))
    assert found([1, 2, 2, 9, 60], [0.8, 1.9, 2, 0, -40]) == noise[3]
    assert found([1, 2, 2, 3, 4], [0.8, 1.9, 2, 2, 2], [1, 2, 2, 1, 0]) == noise[3]
    assert np.isnan(found([1, 2, 9, 2, 2], [0.8, 1.9, 0, 2, 2]))
    assert found([1, 2, 2, 2, np.nan], [1, 2, 2, 2, 2]) == noise[4]


def test_draws_show_their_spacing_and_their_dimension() -> None:
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2)
    assert sample_spacing(np.concatenate([grid, grid, grid])) == 1.0
    assert np.isnan(sample_spacing(np.zeros((4, 2))))
    for draws, dimension in (
        (circle_draws(KEY, 2000), 1),
        (sphere_draws(KEY, 2000, 5), 5),
        (jax.random.normal(KEY, (2000, 10)), 10),
    ):
        found = data_dimension(np.asarray(draws, np.float64))
        assert abs(found.value - dimension) < 3 * found.se + 0.05
        assert found.se < 0.15 * dimension
    assert np.isnan(data_dimension(np.zeros((100, 2))).value)


def test_few_draws_are_told_so_and_the_text_has_every_measure() -> None:
    few = ss.manifold_health(normal(PLANE), plane_draws(500), key=KEY, levels=[0.3, 0.01, 0.001, 0.0001])
    assert not few.enough_points
    assert plane_health().enough_points
    text = str(few)
    assert "2,000 draws" in text
    assert "2,000 draws" not in str(plane_health())
    for heading in ("Blow-up", "Intrinsic dimension", "Normal space", "Finite energy", "Where sampling stops"):
        assert f"{heading}: " in text
    assert "D - blow-up" in text
    assert list(few.table.columns) == list(plane_health().table.drop(columns=["flipd_training", "flipd_training_se"]))
    assert len(few.table) == 4


def test_the_same_key_gives_the_same_numbers_also_in_double_precision_and_another_frame() -> None:
    again = ss.manifold_health(normal(PLANE), plane_draws(), key=KEY, training=plane_draws(400), dimension=3.0)
    np.testing.assert_array_equal(again.table.to_numpy(), plane_health().table.to_numpy())
    moved = ss.manifold_health(
        normal(PLANE, location=2.0, scale=4.0), 4 * plane_draws() + 2, key=KEY, training=4 * plane_draws(400) + 2
    )
    np.testing.assert_allclose(moved.blow_up, again.blow_up, rtol=1e-3)
    np.testing.assert_allclose(moved.flipd, again.flipd, rtol=1e-2)
    assert moved.spacing == pytest.approx(again.spacing, rel=1e-4)
    with jax.enable_x64(True):
        draws = jax.random.normal(KEY, (300, SIZE)) * jnp.asarray(np.sqrt(PLANE))
        double = ss.manifold_health(normal(PLANE), draws, key=KEY, exact=normal(PLANE), levels=[0.1, 1e-3, 1e-6])
        assert np.abs(double.energy.rate).max() == 0
        assert double.flipd[-1] == pytest.approx(3.0, abs=1e-4)


def test_positions_may_be_trees() -> None:
    draws = plane_draws(600)
    score = ss.PerturbedScore(
        lambda z, t: jax.tree.map(lambda x, v: -x / (PROCESS.alpha(t) ** 2 * v + PROCESS.variance(t)), z, VARIANCES),
        PROCESS,
        structure=VARIANCES,
    )
    data = {"a": draws[:, :2].reshape(-1, 1, 2), "b": draws[:, 2:]}
    health = ss.manifold_health(score, data, key=KEY, levels=[0.1, 1e-4])
    assert health.size == SIZE
    assert health.flipd[-1] == pytest.approx(3.0, abs=0.01)
    assert health.dimensions["spectrum"].value == 3


VARIANCES = {"a": jnp.ones((1, 2)), "b": jnp.asarray(PLANE[2:], jnp.float32)}


def test_doors_name_what_came() -> None:
    score, data = normal(PLANE), plane_draws(100)
    with pytest.raises(ValueError, match="`dimension` must be between 0 and the 12 coordinates, got 13"):
        ss.manifold_health(score, data, key=KEY, dimension=13)
    with pytest.raises(ValueError, match="`training` needs one leading axis of at least 2"):
        ss.manifold_health(score, data, key=KEY, training=data[:1])
    with pytest.raises(ValueError, match="`training`: some values are not finite"):
        ss.manifold_health(score, data, key=KEY, training=data.at[3, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="`data` needs one leading axis of at least 50"):
        ss.manifold_health(score, data[:20], key=KEY)
    with pytest.raises(ValueError, match="`num_points` must be at least 50, got 20"):
        ss.manifold_health(score, data, key=KEY, num_points=20)
    with pytest.raises(ValueError, match="`levels` must be a list of times"):
        ss.manifold_health(score, data, key=KEY, levels=[0.0, 0.5])
    with pytest.raises(ValueError, match="location"):
        ss.manifold_health(score, data, key=KEY, exact=normal(PLANE, scale=2.0))


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_perturbed_score_is_refused() -> None:
    wrong: Any = ss.Gaussian(jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match="`score` must be a perturbed score, got Gaussian"):
        ss.manifold_health(wrong, plane_draws(100), key=KEY)


def test_a_score_that_is_not_finite_at_the_end_fails() -> None:
    path = ss.PerturbedScore(lambda z, t: jnp.where(t < 1e-3, jnp.nan, -z), ss.VP(), structure=jnp.zeros(3))
    data = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    health = ss.manifold_health(path, data, key=jax.random.key(0), dimension=3)
    assert np.isnan(health.energy.rate[-1])
    (check,) = [check for check in health.checks if "finite-energy" in check.name]
    assert (check.passed, check.severity) == (False, "fail")
    assert np.isfinite(health.energy.total)
