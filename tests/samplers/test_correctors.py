"""Correctors alone, at one level: which law they leave invariant, and how far off they are."""

from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.samplers._corrector import LangevinCorrector, LevelStep
from scoresample.samplers._corrector_names import resolve_corrector
from scoresample.samplers._kernel_corrector import KernelCorrector
from scoresample.samplers._metropolis_corrector import MetropolisCorrector
from scoresample.samplers._underdamped_corrector import UnderdampedCorrector
from tests.samplers.affine_laws import CORRELATED, MEAN, UNEQUAL, assert_normal_law, path_of, score


def tempered(logdensity: Any, dimension: int) -> Any:
    """A path whose level t=0 has the log density."""
    target = ss.DensityScore(logdensity, structure=jnp.zeros(dimension))
    return ss.TemperedPath(ss.Gaussian(jnp.zeros(dimension), 1.0), target)


def quartic(x: Array) -> Array:
    """Skewed, and no product."""
    return -(x[0] ** 4 + x[1] ** 4) / 4 + x[0] * x[1] ** 2 / 4 + x[0] / 2


def quartic_moments() -> tuple[np.ndarray, np.ndarray]:
    """Means and second moments, by quadrature."""
    axis = np.linspace(-4, 4, 801)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    weight = np.exp(-(x**4 + y**4) / 4 + x * y**2 / 4 + x / 2)
    weight /= weight.sum()
    return np.array([(weight * x).sum(), (weight * y).sum()]), np.array([(weight * x**2).sum(), (weight * y**2).sum()])


def ends(
    corrector: Any, path: Any, start: Any, h: float, *, num_steps: int, t: float = 0.0, relative: float = 1.0
) -> tuple[Array, Any]:
    """Where the corrector takes particles with steps h."""

    def run(particles: Array) -> tuple[Array, Any]:
        step = LevelStep(jnp.asarray(h, particles.dtype), jnp.asarray(relative, particles.dtype))
        return corrector.correct(path, particles, jnp.asarray(t), step, num_steps=num_steps, key=jax.random.key(0))

    return jax.jit(run)(start)


def standard_errors(draws: Array, expected: np.ndarray) -> np.ndarray:
    values = np.asarray(draws, np.float64)
    return (values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(len(values)))


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_metropolis_from_the_score_keeps_a_quartic_density(h: float) -> None:
    start = jnp.zeros((20_000, 2))
    found, stats = ends(MetropolisCorrector(), tempered(quartic, 2), start, h, num_steps=200)
    means, squares = quartic_moments()
    assert 0.2 < float(stats["acceptance_rate"]) < 0.98
    assert np.abs(standard_errors(found, means)).max() < 5
    assert np.abs(standard_errors(found**2, squares)).max() < 5


def test_metropolis_has_no_bias_where_langevin_has_a_tenth() -> None:
    """At h = 1/(5 L) the variances of ULA on a Gaussian are ``v / (1 - h/(2 v))``."""
    path = path_of("VP", UNEQUAL)
    t = jnp.asarray(0.05)
    variance = np.asarray(path.process.alpha(t) ** 2 * UNEQUAL.diagonal() + path.process.variance(t), np.float64)
    start = path.process.alpha(t) * MEAN + np.sqrt(variance) * jax.random.normal(jax.random.key(1), (40_000, 3))
    h = 0.2 * variance.min()
    plain, _ = ends(LangevinCorrector(), path, start, h, num_steps=100, t=float(t))
    assert np.asarray(plain).var(axis=0)[0] / variance[0] > 1.1
    kept, _ = ends(MetropolisCorrector(), path, start, h, num_steps=100, t=float(t))
    np.testing.assert_allclose(np.asarray(kept, np.float64).var(axis=0), variance, rtol=5 * np.sqrt(2 / 40_000))


def test_moves_that_are_not_finite_are_rejected() -> None:
    path = tempered(lambda x: jnp.sum(jnp.sqrt(1.0 - x) - 0.5 * x**2), 1)
    found, _ = ends(MetropolisCorrector(), path, jnp.zeros((500, 1)), 0.5, num_steps=50)
    assert bool(jnp.all(jnp.isfinite(found)))
    assert float(found.max()) <= 1.0


def underdamped_law(
    matrix: np.ndarray, shift: np.ndarray, mean: np.ndarray, covariance: np.ndarray, *, h: float, c: float, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """The law of positions after `num` steps from fresh velocities, where the score is ``matrix x + shift``.

    The noise covariances are integrals of the exact solution's kernel, by quadrature.
    """
    time, friction, eye = np.sqrt(2 * h), 2 * np.sqrt(c / h), np.eye(3)
    u, weights = np.polynomial.legendre.leggauss(40)
    u, weights = time * (u + 1) / 2, time * weights / 2
    to_v, to_x = np.exp(-friction * u), (1 - np.exp(-friction * u)) / friction
    noise = (
        2
        * friction
        * np.array([[weights @ to_x**2, weights @ (to_x * to_v)], [weights @ (to_x * to_v), weights @ to_v**2]])
    )
    kept = np.exp(-friction * time)
    reach = (1 - kept) / friction
    drift = np.block([[eye + (time - reach) / friction * matrix, reach * eye], [reach * matrix, kept * eye]])
    offset = np.concatenate([(time - reach) / friction * shift, reach * shift])
    law_mean, law = np.concatenate([mean, np.zeros(3)]), np.block([[covariance, 0 * eye], [0 * eye, eye]])
    for _ in range(num):
        law_mean, law = drift @ law_mean + offset, drift @ law @ drift.T + np.kron(noise, eye)
    return law_mean[:3], law[:3, :3]


@pytest.mark.parametrize(("num_steps", "c"), [(1, 0.5), (6, 1.2)])
def test_underdamped_steps_have_the_law_of_the_exact_integrator(num_steps: int, c: float) -> None:
    path, log_snr = path_of("VP", CORRELATED), 0.4
    t = float(path.process.time(jnp.asarray(log_snr)))
    linear = score("VP", CORRELATED, log_snr)
    h = c / -np.linalg.eigvalsh(linear.matrix)[0]
    mean, covariance = np.array([2.0, 0.0, -1.0]), np.diag([0.2, 0.5, 0.1])
    noise = np.random.default_rng(1).normal(size=(40_000, 3))
    start = mean + noise * np.sqrt(covariance.diagonal())
    found, _ = ends(UnderdampedCorrector(), path, jnp.asarray(start, float), h, num_steps=num_steps, t=t, relative=c)
    law = underdamped_law(*linear, mean, covariance, h=h, c=c, num=num_steps)
    assert_normal_law(np.asarray(found), *law, unlike=(mean, covariance))


def test_many_underdamped_steps_come_close_to_the_level() -> None:
    """At a small step the stationary law is the level's; the velocities cover more ground than plain Langevin."""
    linear = score("VP", UNEQUAL, 0.4)
    precision = -linear.matrix
    target = np.linalg.solve(precision, linear.shift), np.linalg.inv(precision)
    h = 0.02 / np.linalg.eigvalsh(precision)[-1]
    far = np.array([5.0, 5.0, 5.0]), 0.1 * np.eye(3)
    mean, _ = underdamped_law(*linear, *far, h=h, c=0.02, num=300)
    plain = np.eye(3) + h * linear.matrix
    assert (
        np.abs(mean - target[0]).max() < 0.2 * np.abs(np.linalg.matrix_power(plain, 300) @ (far[0] - target[0])).max()
    )
    long = underdamped_law(*linear, *far, h=h, c=0.02, num=20_000)
    np.testing.assert_allclose(long[0], target[0], atol=1e-6)
    np.testing.assert_allclose(long[1], target[1], rtol=0.06, atol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [
        ss.HMC(step_size=0.6, num_integration_steps=3),
        ss.MALA(step_size=0.3),
        ss.BlackJAX(blackjax.mala, step_size=0.3),  # a plain number, not an array
    ],
    ids=type,
)
def test_kernels_keep_the_law_of_a_level_whatever_its_scale(sampler: Any) -> None:
    path, log_snr = path_of("VE", CORRELATED), 3.0
    t = float(path.process.time(jnp.asarray(log_snr)))
    linear = score("VE", CORRELATED, log_snr)
    law = np.linalg.solve(-linear.matrix, linear.shift), np.linalg.inv(-linear.matrix)
    start = np.random.default_rng(2).multivariate_normal(*law, size=20_000)
    found, stats = ends(KernelCorrector(sampler), path, jnp.asarray(start, float), 0.1, num_steps=4, t=t)
    assert_normal_law(np.asarray(found), *law, unlike=None)
    assert np.abs(np.asarray(found) - start).mean() > 0.1
    per_step = 3 if isinstance(sampler, ss.HMC) else 1
    assert float(stats["num_evaluations"]) == pytest.approx(1 + 4 * per_step)


def test_names_stand_for_correctors(unchecked_types: None) -> None:
    found = [type(resolve_corrector(name)) for name in ("langevin", "metropolis", "underdamped")]
    assert found == [LangevinCorrector, MetropolisCorrector, UnderdampedCorrector]
    assert isinstance(resolve_corrector(ss.ULA(0.1)), KernelCorrector)
    with pytest.raises(ValueError, match=r"`corrector` must be one of.*'metropolis'.*got 'mala'"):
        resolve_corrector("mala")  # pyright: ignore[reportArgumentType]


def bare_path() -> ss.PerturbedScore:
    return ss.PerturbedScore(lambda x, t: -x, ss.VP(), structure=jnp.zeros(2))


def run(path: Any, sampler: Any, num_samples: int = 20) -> ss.Draws:
    return ss.sample(path, sampler, key=jax.random.key(0), num_chains=1, num_samples=num_samples)


def test_a_kernel_that_needs_a_density_is_refused_on_a_bare_score() -> None:
    for sampler in (ss.PredictorCorrector, ss.AnnealedLangevin):
        with pytest.raises(TypeError, match=r'HMC accepts or rejects.*corrector="metropolis"'):
            run(bare_path(), sampler(corrector=ss.HMC(step_size=0.5)))
    assert run(bare_path(), ss.PredictorCorrector(num_steps=3, corrector=ss.ULA(0.2))).nfe == 3 * 3 + 1


def test_a_kernel_without_a_step_size_is_refused() -> None:
    with pytest.raises(ValueError, match="HMC has no `step_size`"):
        run(path_of("VP", UNEQUAL), ss.PredictorCorrector(num_steps=3, corrector=ss.HMC()))


@pytest.mark.parametrize(
    ("corrector", "nfe"), [("langevin", 5 + 12), ("metropolis", 5 + 5 + 24), ("underdamped", 5 + 12)]
)
def test_evaluations_are_counted_for_steps_that_differ_by_level(corrector: Any, nfe: int) -> None:
    sampler = ss.PredictorCorrector(
        num_steps=5, corrector_steps=(1, 2, 3, 4, 2), corrector_step_size=(0.1, 0.1, 0.2, 0.2, 0.3),
        corrector=corrector, denoise=False,
    )  # fmt: skip
    draws = run(path_of("VP", UNEQUAL), sampler)
    assert draws.nfe == nfe
    ratio = draws.info["level_step_size"][0] / np.array(sampler.corrector_step_size)
    assert (np.diff(ratio) < 0).all()
    assert sampler.refined(2).corrector_steps == (1, 1, 2, 2, 3, 3, 4, 4, 2, 2)


def test_equal_numbers_for_every_level_give_the_draws_of_one_number() -> None:
    path = path_of("VP", UNEQUAL)
    one = run(path, ss.PredictorCorrector(num_steps=3, corrector_steps=2, corrector_step_size=0.3))
    many = run(path, ss.PredictorCorrector(num_steps=3, corrector_steps=(2,) * 3, corrector_step_size=(0.3,) * 3))
    np.testing.assert_allclose(one.position, many.position, rtol=1e-6)
    annealed = [
        run(path, ss.AnnealedLangevin(3, steps, step_size=size)) for steps, size in ((2, 0.3), ((2,) * 3, (0.3,) * 3))
    ]
    np.testing.assert_allclose(annealed[0].position, annealed[1].position, rtol=1e-6)


def test_step_rules() -> None:
    """On a Gaussian: the noise's curvature, the true one (smaller), and the norms' ratio."""
    path = path_of("VP", UNEQUAL)
    counts: dict[str, Any] = {"num_steps": 6, "corrector_step_size": 0.2}
    steps = {
        rule: run(path, ss.PredictorCorrector(**counts, step_rule=rule), 500).info["level_step_size"][0]
        for rule in ("noise", "jacobian", "snr")
    }
    plan = ss.PredictorCorrector(**counts).plan(path, key=jax.random.key(0))
    t = np.asarray(plan.steps.t_next, np.float64)
    variance = np.array([float(path.process.variance(jnp.asarray(x))) for x in t])
    smallest = np.array([float(path.process.alpha(jnp.asarray(x))) ** 2 for x in t]) * 0.25 + variance
    np.testing.assert_allclose(steps["noise"], 0.2 * variance, rtol=1e-4)
    np.testing.assert_allclose(steps["jacobian"], 0.2 * smallest, rtol=0.02)
    assert (steps["snr"] / variance > 0.06).all()
    named = run(path, ss.PredictorCorrector(**counts, step_rule=path.process.variance)).info["level_step_size"][0]
    np.testing.assert_allclose(named, 0.2 / variance, rtol=1e-4)
    assert run(path, ss.PredictorCorrector(**counts, step_rule="snr")).nfe == 6 * 3 + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corrector_steps": (1, 0)}, "`corrector_steps` must be a whole number of at least 1"),
        ({"corrector_step_size": (0.1, 2.5)}, "`corrector_step_size` is in units of 1/L and Langevin diverges from 2"),
        ({"step_rule": "curvature"}, r"`step_rule` must be one of.*'jacobian'"),
        ({"corrector": "hmc"}, "`corrector` must be one of"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str, unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=message):
        ss.PredictorCorrector(**settings)


def test_large_steps_are_for_moves_that_can_be_rejected() -> None:
    assert ss.PredictorCorrector(corrector="metropolis", corrector_step_size=3.0).corrector_step_size == 3.0
    with pytest.raises(ValueError, match="has 2 entries for 5 levels"):
        run(path_of("VP", UNEQUAL), ss.PredictorCorrector(num_steps=5, corrector_steps=(1, 2)))
