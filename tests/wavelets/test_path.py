"""Fields drawn scale by scale, against the joint law of a Gaussian whose conditional laws are known."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from scoresample.inference import SamplingError, sample
from scoresample.paths import VP, AbstractPerturbedScore, CascadedDensity, PerturbedEnergy, PerturbedScore, perturb
from scoresample.samplers import (
    NUTS,
    AnnealedLangevin,
    ParallelMALA,
    PredictorCorrector,
    ProbabilityFlowODE,
    ReverseSDE,
)
from scoresample.scores import Gaussian
from scoresample.wavelets import WaveletPath, WaveletTransform

SIZE = 8
NUM = 4000


def covariance() -> np.ndarray:
    """Not stationary, so that mixed-up sites show."""
    root = np.random.default_rng(0).normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
    return root @ root.T + 0.3 * np.diag(np.linspace(0.5, 2, SIZE))


def mean() -> np.ndarray:
    return np.linspace(-1, 2, SIZE)


def conditional_score(z: Array, t: Array, low: Array, slope: Array, offset: Array, axes: Array, spread: Array) -> Array:
    """The score of noised details that are normal around ``offset + slope low``."""
    process = VP()
    alpha, variance = process.alpha(t), process.variance(t)
    centre = alpha * (offset + slope @ low)
    return -(axes @ ((axes.T @ (z[0] - centre)) / (alpha**2 * spread + variance)))[None]


def coefficients(transform: WaveletTransform) -> np.ndarray:
    """The transform of every unit field, as rows."""
    rows = jax.vmap(lambda x: jnp.concatenate([jnp.ravel(c) for c in transform.forward(x)]))
    return np.asarray(rows(jnp.eye(transform.shape[0])))


def gaussian_path() -> WaveletPath:
    """The exact path of N(mean, covariance) with two levels of the Haar transform."""
    transform = WaveletTransform((SIZE,), "haar", levels=2)
    matrix = coefficients(transform)
    law, centre = matrix.T @ covariance() @ matrix, matrix.T @ mean()
    stages: list[AbstractPerturbedScore] = [perturb(Gaussian(jnp.asarray(centre[:2]), jnp.asarray(law[:2, :2])), VP())]
    for known in (2, 4):
        # Coefficients are laid out coarse to fine: what is known is the coarser field's own transform.
        rows = slice(known, 2 * known)
        change = coefficients(WaveletTransform((known,), "haar", levels=1)).T if known > 2 else np.eye(known)
        slope = law[rows, :known] @ np.linalg.inv(law[:known, :known])
        spread, axes = np.linalg.eigh(law[rows, rows] - slope @ law[:known, rows])
        offset = centre[rows] - slope @ centre[:known]
        args = tuple(jnp.asarray(x, dtype=float) for x in (slope @ change, offset, axes, spread))
        stages.append(
            PerturbedScore(
                conditional_score, VP(), args=args, structure=jnp.zeros((1, known)), condition=jnp.zeros(known)
            )
        )
    return WaveletPath(transform, stages)


SAMPLERS = [
    ProbabilityFlowODE(num_steps=40),
    ReverseSDE(num_steps=60),
    PredictorCorrector(num_steps=300),
    PredictorCorrector(num_steps=40, step_rule="jacobian", corrector="metropolis"),
    AnnealedLangevin(num_levels=40, steps_per_level=15, corrector="metropolis"),
    ParallelMALA(num_steps=400),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{s.name} {getattr(s, 'step_rule', '')}")
def test_every_path_sampler_draws_the_joint_law(sampler: Any) -> None:
    draws = sample(gaussian_path(), sampler, key=jax.random.key(3), num_samples=NUM, num_chains=1)
    x = np.asarray(draws.position[0], np.float64)
    whitened = np.linalg.solve(np.linalg.cholesky(covariance()), (x - mean()).T)
    assert np.abs(whitened.mean(axis=1)).max() < 5 / np.sqrt(NUM)
    errors = np.cov(whitened) - np.eye(SIZE)
    assert np.abs(errors - np.diag(np.diag(errors))).max() < 5 / np.sqrt(NUM)
    assert np.abs(np.diag(errors)).max() < 5 * np.sqrt(2 / NUM)


def test_what_stages_tell_is_kept() -> None:
    draws = sample(gaussian_path(), ReverseSDE(num_steps=10), key=jax.random.key(0), num_samples=20)
    stages = draws.info["stages"]
    assert [stage["name"] for stage in stages] == ["coarsest field 2", "details 2", "details 4"]
    assert draws.nfe == sum(stage["nfe"] for stage in stages)
    assert draws.info["num_evaluations"] == draws.nfe * 80
    weighted = sum(stage["nfe"] * size for stage, size in zip(stages, (2, 2, 4), strict=True)) / SIZE
    assert draws.info["full_size_nfe"] == pytest.approx(weighted)
    assert {"mismatch of the start, details 4", "mismatch of the start, coarsest field 2"} <= {
        check.name for check in draws.info["checks"]
    }
    assert draws.attributes["target"] == "WaveletPath"
    assert draws.position.shape == (1, 80, SIZE)


def test_draws_depend_on_the_key_and_the_batch_size_alone() -> None:
    settings: dict[str, Any] = {"num_samples": 10, "num_chains": 1, "batch_size": 4}
    first, again = (
        sample(gaussian_path(), ReverseSDE(num_steps=5), key=jax.random.key(1), progress=show, **settings)
        for show in (False, True)
    )
    np.testing.assert_array_equal(first.position, again.position)
    other = sample(gaussian_path(), ReverseSDE(num_steps=5), key=jax.random.key(2), **settings)
    assert not np.allclose(first.position, other.position)


def test_plans_come_one_for_each_stage() -> None:
    path, sampler, key = gaussian_path(), ReverseSDE(num_steps=7), jax.random.key(0)
    stages: list[Any] = [path.stage(0, None), *(path.stage(k, jnp.zeros(2 * k)) for k in (1, 2))]
    plans = [sampler.plan(stages[0], key=key)]
    plans += [ReverseSDE(num_steps=9).plan(stage, key=key) for stage in stages[1:]]
    draws = sample(path, sampler, key=key, num_samples=5, plan=plans)
    assert [stage["nfe"] for stage in draws.info["stages"]] == [8, 10, 10]
    with pytest.raises(ValueError, match="sequence of 3 plans"):
        sample(path, sampler, key=key, plan=plans[:2])
    with pytest.raises(ValueError, match="sequence of 3 plans"):
        sample(path, sampler, key=key, plan=plans[0])


def test_the_log_density_is_the_sum_over_scales() -> None:
    with jax.enable_x64(True):
        density = CascadedDensity(gaussian_path())
        x = jnp.asarray(np.random.default_rng(1).normal(size=SIZE) + mean())
        law: Any = stats.multivariate_normal
        expected = law.logpdf(np.asarray(x), mean(), covariance())
        assert float(jnp.sum(density.by_stage(x))) == pytest.approx(float(density.logdensity(x)), abs=1e-9)
        # The scores of the details end at sigma/alpha = 0.002: their density is that of the details with this noise.
        assert float(density.logdensity(x)) == pytest.approx(float(expected), abs=2e-3)
        value, score = eqx.filter_jit(lambda d, x: d.value_and_score(x))(density, x)
        assert float(value) == pytest.approx(float(density.logdensity(x)), abs=1e-9)
        wanted = -np.linalg.solve(covariance(), np.asarray(x) - mean())
        np.testing.assert_allclose(score, wanted, atol=2e-2 * np.abs(wanted).max())


def energy(y: Array, s: Array, low: Array, coarse: Array) -> Array:
    """Details that are standard normal, up to a constant for each coarser field."""
    return -0.5 * jnp.sum(y**2) / (1 + s**2) + jnp.sum(coarse * low) ** 2


def test_constants_of_learned_energies_are_no_part_of_the_log_density() -> None:
    """They are normalised for each condition, by their probability flow: else they would weigh the coarser fields."""
    with jax.enable_x64(True):
        details = PerturbedEnergy(
            energy, VP(), args=(jnp.array([1.0, -2.0]),), structure=jnp.zeros((1, 2)), condition=jnp.zeros(2)
        )
        path = WaveletPath(
            WaveletTransform((4,), "haar", levels=1), [perturb(Gaussian(jnp.zeros(2), 1.0), VP()), details]
        )
        x = jnp.array([0.3, -1.0, 2.0, 0.7])
        expected = -0.5 * float(x @ x) - 2 * np.log(2 * np.pi)
        assert float(CascadedDensity(path).logdensity(x)) == pytest.approx(expected, abs=1e-3)


def test_points_without_a_bandwidth_have_no_density() -> None:
    path = gaussian_path()
    points = np.random.default_rng(0).normal(size=(50, *path.stages[0].structure.shape))
    for coarsest, wrong in ((perturb(points, VP()), True), (perturb(points, VP(), bandwidth=0.3), False)):
        with_points = WaveletPath(path.transform, [coarsest, *path.stages[1:]])
        if wrong:
            with pytest.raises(ValueError, match="made of points, which have no density without noise"):
                CascadedDensity(with_points)
        else:
            assert np.isfinite(CascadedDensity(with_points).logdensity(jnp.zeros(SIZE)))


def test_a_solver_that_stops_early_on_one_stage_is_told() -> None:
    sampler = ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-6, max_steps=3)
    with pytest.raises(SamplingError, match="stopped before the end"):
        sample(gaussian_path(), sampler, key=jax.random.key(0), num_samples=5)


def test_parts_join_again() -> None:
    path = gaussian_path()
    x = jax.random.normal(jax.random.key(0), (SIZE,))
    known: Any = None
    for index, (before, part) in enumerate(path.parts(x)):
        if known is not None and before is not None:
            np.testing.assert_allclose(before, known, atol=1e-5)
        known = path.joined(index, known, part)
    np.testing.assert_allclose(known, x, atol=1e-5)


def test_lost_particles_are_marked_and_told() -> None:
    path = gaussian_path()
    broken = eqx.tree_at(lambda p: p.stages[1].args[1], path, jnp.full(2, jnp.nan))
    with pytest.raises(SamplingError) as caught:
        sample(broken, ReverseSDE(num_steps=5), key=jax.random.key(0), num_samples=5)
    draws = caught.value.draws
    assert draws.stats["non_finite"].all()
    assert np.isnan(draws.position).all()


def test_chains_are_sent_to_the_density() -> None:
    with pytest.raises(TypeError, match=r"cascade.*CascadedDensity"):
        sample(gaussian_path(), NUTS(), key=jax.random.key(0))


def test_what_does_not_fit_is_refused() -> None:
    path = gaussian_path()
    with pytest.raises(ValueError, match="2 levels take 3 stages"):
        WaveletPath(path.transform, path.stages[:2])
    with pytest.raises(ValueError, match=r"number 2 must have one array of shape \(1, 4\)"):
        WaveletPath(path.transform, [*path.stages[:2], path.stages[1]])
    with pytest.raises(TypeError, match="number 1 must be a path with"):
        WaveletPath(path.transform, [path.stages[0], perturb(Gaussian(jnp.zeros((1, 2)), 1.0), VP()), path.stages[2]])
