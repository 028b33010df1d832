"""The health of a score: exact ones pass, broken ones fail where they are broken, losses have their closed forms."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.checks import Check
from scoresample.paths import TrainingRecord
from tests.diagnostics.made_draws import made_draws, normal_chains

KEY = jax.random.key(5)


def two_modes() -> ss.GaussianMixture:
    return ss.GaussianMixture([0.2, 0.8], [[-1.0, -1.0], [1.0, 1.0]], [0.04 * jnp.eye(2)] * 2)


def held_out(num: int = 512) -> Array:
    return two_modes().sample(jax.random.key(9), num)


def turned_and_scaled(z: Array, t: Array, path: ss.AbstractPerturbedScore, matrix: Array) -> Array:
    return matrix @ path.standard_score(z, t)


def network(matrix: np.ndarray, **settings: Any) -> ss.PerturbedScore:
    """The exact score of two modes times a matrix."""
    path = ss.perturb(two_modes(), ss.VP())
    low, high = (float(end) for end in path.log_snr_range)
    return ss.PerturbedScore(
        turned_and_scaled,
        ss.VP(),
        structure=jnp.zeros(2),
        args=(path, jnp.asarray(matrix, jnp.float32)),
        log_snr_range=(low, high),
        **settings,
    )


def outcome(checks: list[Check]) -> dict[str, str]:
    return {check.name.split(" of ")[0]: "passed" if check.passed else check.severity for check in checks}


NOISE = ss.VE(0.01, 30.0)


def normal_score(z: Array, t: Array, variances: Array, factor: Array) -> Array:
    return -factor * z / (variances + NOISE.variance(t))


def gaussian_path(variances: Any, *, factor: float = 1.0) -> ss.PerturbedScore:
    """The score of N(0, v) coordinate by coordinate under VE, times a factor."""
    args = (jnp.asarray(variances, float), jnp.asarray(factor))
    return ss.PerturbedScore(normal_score, NOISE, structure=jnp.zeros(len(variances)), args=args)


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_exact_scores_pass_every_check_down_to_rounding(process: str) -> None:
    path = network(np.eye(2)) if process == "VP" else ss.perturb(two_modes(), ss.VE(0.002, 80.0))
    health = ss.score_health(path, held_out(), key=KEY, sampling=False)
    assert all(check.passed for check in health.checks), str(health)
    assert health.fokker_planck.max() < 2e-5
    assert health.fokker_planck_noise.max() < 2e-5
    assert health.asymmetry.max() < 1e-6
    assert health.fisher_divergence is None
    assert len(health.t) == 8
    assert np.all(np.diff(health.noise) < 0)
    assert health.record is None


def test_double_precision_has_a_lower_floor() -> None:
    with jax.enable_x64(True):
        data = jax.random.normal(jax.random.key(1), (256, 2))
        health = ss.score_health(gaussian_path([1.0, 1.0]), data, key=KEY, levels=[0.6, 0.01, 0.1], sampling=False)
        assert health.fokker_planck.max() < 1e-10
        np.testing.assert_allclose(health.t, [0.6, 0.1, 0.01])


def test_a_standard_normal_raises_no_alarm_where_nothing_changes() -> None:
    """Under a variance-preserving process its score does not depend on time at all."""
    density = ss.Gaussian(jnp.zeros(2), 1.0)
    health = ss.score_health(ss.perturb(density, ss.VP()), density.sample(KEY, 256), key=KEY, sampling=False)
    assert all(check.passed for check in health.checks)
    assert health.fokker_planck.max() < 2e-5


BROKEN = {
    "sign": (-np.eye(2), {"residual": "fail", "asymmetry": "passed"}),
    "scale": (1.4 * np.eye(2), {"residual": "warn", "asymmetry": "passed"}),
    "turned": (np.array([[1.0, 0.3], [-0.3, 1.0]]), {"residual": "passed", "asymmetry": "fail"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_scores_fail_where_they_are_broken(name: str) -> None:
    matrix, expected = BROKEN[name]
    health = ss.score_health(network(matrix), held_out(), key=KEY, sampling=False)
    assert outcome(health.checks) == expected | {"excess": "fail"}, str(health)
    assert ("worse than a constant guess" in str(health)) == (name == "sign")


def test_a_score_that_knows_mean_and_scale_only_is_told_so() -> None:
    mean, variance = two_modes().moments()
    moments = ss.PerturbedScore(normal_score, NOISE, structure=mean, args=(variance, jnp.asarray(1.0)), location=mean)
    health = ss.score_health(moments, held_out(), key=KEY, sampling=False)
    missed = [check for check in health.checks if not check.passed]
    assert len(missed) == 1
    assert "learned nothing but mean and scale" in missed[0].cause
    np.testing.assert_allclose(health.denoising_loss, health.gaussian_loss, rtol=0.05)


def test_ode_and_sde_agree_for_an_exact_score_and_not_for_a_broken_one() -> None:
    exact, broken = (ss.score_health(network(c * np.eye(2)), held_out(), key=KEY) for c in (1.0, 1.6))
    assert exact.ode_sde_gap is not None
    assert exact.ode_sde_gap.value < exact.ode_sde_gap.null_95
    assert exact.checks[-1].passed
    assert not broken.checks[-1].passed
    assert "ODE-SDE gap" in broken.checks[-1].name
    assert "ODE against SDE" in str(exact)


def test_losses_and_divergence_of_gaussians_have_their_closed_forms() -> None:
    """Data N(0, v), the score that of N(0, u): sums of squares of normal variables."""
    v, u, num = np.array([1.0, 0.25]), np.array([2.0, 0.5]), 4000
    data = jax.random.normal(jax.random.key(1), (num, 2)) * jnp.asarray(np.sqrt(v), jnp.float32)
    health = ss.score_health(
        gaussian_path(u), data, key=KEY, exact=gaussian_path(v), num_points=num, levels=[0.3, 0.6, 0.8], sampling=False
    )
    variance = np.asarray(ss.VE(0.01, 30.0).variance(jnp.asarray(health.t)))[:, None]
    loss = np.mean((variance * v + u**2) / (u + variance) ** 2, axis=1)
    assert np.abs((health.denoising_loss - loss) / health.denoising_loss_se).max() < 5
    assert health.fisher_divergence is not None
    assert health.fisher_divergence_se is not None
    divergence = np.mean(variance * (v + variance) * (1 / (u + variance) - 1 / (v + variance)) ** 2, axis=1)
    assert np.abs((health.fisher_divergence - divergence) / health.fisher_divergence_se).max() < 5
    np.testing.assert_allclose(health.gaussian_loss, np.mean(v / (v + variance), axis=1), rtol=0.1)
    np.testing.assert_allclose(health.constant_loss, 1.0, atol=5 * np.sqrt(2 / (2 * num)))
    # The family of N(0, u) is consistent, whatever the data are.
    assert health.fokker_planck.max() < 2e-5


def test_the_residual_of_a_scaled_score_has_its_closed_form() -> None:
    """``c (1 - c) g^2 z / tau^2`` beside a change of ``c g^2 z / tau^2``, with ``g^2 = 2 sigma^2`` for an e-fold."""
    data = jax.random.normal(jax.random.key(2), (512, 2))
    health = ss.score_health(gaussian_path(np.ones(2), factor=1.3), data, key=KEY, sampling=False)
    np.testing.assert_allclose(health.fokker_planck, 0.3, rtol=1e-3)
    variance = np.asarray(ss.VE(0.01, 30.0).variance(jnp.asarray(health.t)))
    expected = 1.3 * 0.3 * 2 * (variance / (1 + variance)) ** 1.5
    np.testing.assert_allclose(health.fokker_planck_noise, expected, rtol=0.1)


def modes_in_many_dimensions(z: Array, t: Array, mean: Array) -> Array:
    """The score of two equal modes at +- mean with variance 1/2, under VE."""
    total = 0.5 + NOISE.variance(t)
    return (jnp.tanh(jnp.sum(z * mean) / total) * mean - z) / total


def test_many_dimensions_take_probes_whose_products_average_to_the_square() -> None:
    """The divergence of this score changes from point to point, so that each estimate of its gradient errs."""
    mean = jnp.full(20, 0.3)
    path = ss.PerturbedScore(modes_in_many_dimensions, NOISE, structure=mean, args=(mean,))
    key_sign, key_noise = jax.random.split(jax.random.key(3))
    signs = jax.random.rademacher(key_sign, (512, 1)).astype(jnp.float32)
    data = signs * mean + jnp.sqrt(0.5) * jax.random.normal(key_noise, (512, 20))
    health = ss.score_health(path, data, key=KEY, sampling=False)
    assert all(check.passed for check in health.checks), str(health)
    assert health.checks[0].value < 0.02
    assert np.any(health.fokker_planck > 1e-4)


def test_trees_frames_and_draws_are_all_the_same_points() -> None:
    location = {"a": jnp.array([3.0, -2.0]), "b": jnp.asarray(7.0)}
    scale = {"a": jnp.array([2.0, 0.1]), "b": jnp.asarray(5.0)}
    path = ss.PerturbedScore(
        lambda z, t: jax.tree.map(lambda x: -x, z), ss.VP(), structure=location, location=location, scale=scale
    )
    z = {"a": normal_chains(0, 2, chains=1, draws=400), "b": normal_chains(1, chains=1, draws=400)}
    position = jax.tree.map(lambda x, m, s: np.asarray(m + s * x), z, location, scale)
    exact = ss.perturb(ss.Gaussian(location, jax.tree.map(jnp.square, scale)), ss.VE(0.01, 30.0))
    flat = ss.score_health(path, jax.tree.map(lambda x: x[0], position), key=KEY, exact=exact, sampling=False)
    draws = ss.score_health(path, made_draws(position, "independent"), key=KEY, exact=exact, sampling=False)
    for health in (flat, draws):
        assert all(check.passed for check in health.checks), str(health)
        assert health.num_points == 400
    np.testing.assert_allclose(flat.denoising_loss, draws.denoising_loss, rtol=1e-3)
    assert flat.fisher_divergence is not None
    assert flat.fisher_divergence.max() < 1e-6
    assert flat.noise[-1] == pytest.approx(0.002, rel=0.1)


def test_an_exact_mixture_is_brought_to_the_frame_of_the_score() -> None:
    """Against the mixture standardised by hand, at fresh points."""
    location, scale = jnp.array([0.6, -0.3]), jnp.array([0.8, 2.0])
    covariances = np.array([[[0.3, 0.2], [0.2, 0.5]], [[1.0, -0.4], [-0.4, 0.3]]])
    density = ss.GaussianMixture([0.2, 0.8], [[-2.0, 0.5], [1.0, -1.0]], covariances)
    by_hand = ss.GaussianMixture([0.2, 0.8], (density.means - location) / scale, covariances / np.outer(scale, scale))
    path = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=location, location=location, scale=scale)
    data = density.sample(jax.random.key(4), 512)
    health = ss.score_health(path, data, key=KEY, exact=ss.perturb(density, NOISE), levels=[0.3], sampling=False)
    level = by_hand.perturbed(ss.VP().alpha(jnp.asarray(0.3)), ss.VP().variance(jnp.asarray(0.3)))
    z = level.sample(jax.random.key(6), 4000)
    squares = np.mean(np.square(np.asarray(-z - jax.vmap(level)(z))), axis=1)
    squares *= float(ss.VP().variance(jnp.asarray(0.3)))
    assert health.fisher_divergence is not None
    assert health.fisher_divergence_se is not None
    error = np.hypot(health.fisher_divergence_se[0], squares.std() / np.sqrt(len(squares)))
    assert abs(health.fisher_divergence[0] - squares.mean()) < 5 * error
    assert squares.mean() > 10 * error
    other = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=location)
    with pytest.raises(ValueError, match="`exact` has another `location` and `scale`"):
        ss.score_health(path, data, key=KEY, exact=other, sampling=False)


@pytest.mark.parametrize("process", [None, ss.VE(1e-3, 50.0)], ids=["its own process", "another process"])
def test_exact_scores_of_points_are_brought_to_the_frame_of_the_score(process: Any) -> None:
    location, scale = jnp.array([0.6, -0.3]), jnp.array([0.8, 2.0])
    path = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=location, location=location, scale=scale)
    data = location + scale * jax.random.normal(jax.random.key(4), (256, 2))
    settings: dict[str, Any] = {"key": KEY, "levels": [0.05, 0.3], "sampling": False}
    exact = ss.perturb(data, ss.VP())
    other = exact if process is None else exact.with_process(process)
    moved = ss.score_health(path, data, exact=other, **settings).fisher_divergence
    by_hand = ss.score_health(
        path, data, exact=ss.perturb(data, ss.VP(), location=location, scale=scale), **settings
    ).fisher_divergence
    assert moved is not None
    assert by_hand is not None
    np.testing.assert_allclose(moved, by_hand, rtol=1e-3)
    assert by_hand.max() > 0.01
    smooth = ss.perturb(data, ss.VP(), bandwidth=0.1)
    with pytest.raises(ValueError, match=r"`exact` has another `location` and `scale`.*without a bandwidth"):
        ss.score_health(path, data, exact=smooth, **settings)
    each = ss.perturb(data, ss.VP(), conditions=np.arange(256)).given(np.arange(256))
    with pytest.raises(ValueError, match="`exact` holds a condition for each particle"):
        ss.score_health(path, data, exact=each, **settings)


def test_copies_of_a_point_are_no_evidence() -> None:
    """A chain that stood still repeats its draws: they must not predict each other."""
    data = np.repeat(np.asarray(held_out(256)), 2, axis=0)
    health = ss.score_health(network(np.eye(2)), data, key=KEY, sampling=False)
    assert all(check.passed for check in health.checks), str(health)


def record() -> TrainingRecord:
    return TrainingRecord(
        train_loss=np.array([1.0, 0.8, 0.7]),
        validation_loss=np.array([0.9, 0.75]),
        validation_epochs=np.array([0, 2]),
        best_epoch=2,
        level_edges=np.array([0.01, 0.1, 1.0]),
        loss_by_level=np.array([0.9, 0.6]),
        num_train=1000,
        num_validation=100,
        num_parameters=5000,
        seconds=1.5,
    )


def test_the_record_of_the_training_comes_along_and_the_table_holds_every_array() -> None:
    trained = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2), record=record())
    health = ss.score_health(trained.with_process(ss.VE(0.002, 80.0)), held_out(), key=KEY, sampling=False)
    assert health.record is trained.record
    assert list(health.table.columns)[:3] == ["t", "noise", "fokker_planck"]
    assert len(health.table) == 8
    text = str(health)
    for words in ("512 held-out draws", "Training: 3 epochs", "Gaussian", "limit"):
        assert words in text


def test_a_retrained_score_compiles_nothing(compilations: Any) -> None:
    data, first = held_out(), gaussian_path([1.0, 2.0])
    second = eqx.tree_at(lambda path: path.args[0], first, jnp.array([1.5, 2.5]))
    ss.score_health(first, data, key=KEY, sampling=False)
    with compilations.none_expected():
        ss.score_health(second, data, key=KEY, sampling=False)


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_arguments_are_named() -> None:
    path, data, wrong = ss.perturb(two_modes(), ss.VP()), np.asarray(held_out(100)), ss.Gaussian(jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match="`score` must be a perturbed score, got Gaussian"):
        ss.score_health(wrong, data, key=KEY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`exact` must be a perturbed score"):
        ss.score_health(path, data, key=KEY, exact=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`data` must be an array"):
        ss.score_health(path, np.array(["a"] * 100), key=KEY)
    with pytest.raises(ValueError, match="at least 50 draws"):
        ss.score_health(path, data[:10], key=KEY)
    with pytest.raises(ValueError, match="`data`"):
        ss.score_health(path, data[:, :1], key=KEY)
    with pytest.raises(ValueError, match="not finite"):
        ss.score_health(path, np.where(np.arange(100)[:, None] == 3, np.nan, data), key=KEY)
    with pytest.raises(ValueError, match="`num_points`"):
        ss.score_health(path, data, key=KEY, num_points=3)
    with pytest.raises(ValueError, match="`levels` must be a list of times"):
        ss.score_health(path, data, key=KEY, levels=[0.0, 0.5])
    with pytest.raises(ValueError, match="`levels`: the score is valid from"):
        ss.score_health(path, data, key=KEY, levels=[1e-9])
