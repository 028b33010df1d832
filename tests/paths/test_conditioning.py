"""Conditional scores: what `given` takes, and that every sampler keeps each particle to its own condition."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import denoise_particles, estimate_lipschitz, score_particles

GAIN = np.array([[1.0, -0.6], [0.4, 0.8]])
NOISE = np.array([[0.5, 0.3], [0.3, 0.8]])
LOCATION, SCALE = np.array([2.0, -1.0]), np.array([0.5, 3.0])
"""x | c is normal with mean GAIN c and covariance NOISE in standard coordinates; positions are LOCATION + SCALE x."""
CENTRE, SPREAD = np.array([100.0, -40.0]), np.array([4.0, 0.1])
"""The condition that users see is CENTRE + SPREAD c."""


def denoiser(y: Array, s: Array, condition: Any, gain: Array, noise: Array) -> Array:
    """The posterior mean of x under one condition, by conditioning normal variables."""
    mean = gain @ condition["summary"]
    return mean + noise @ jnp.linalg.solve(noise + s**2 * jnp.eye(2, dtype=y.dtype), y - mean)


def conditional(process: ss.AbstractNoiseProcess | None = None) -> ss.PerturbedScore:
    return ss.PerturbedScore(
        denoiser,
        ss.VE(0.01, 50.0) if process is None else process,
        structure=jnp.zeros(2),
        prediction="denoised",
        time="sigma",
        args=(jnp.asarray(GAIN, dtype=float), jnp.asarray(NOISE, dtype=float)),
        location=jnp.asarray(LOCATION, dtype=float),
        scale=jnp.asarray(SCALE, dtype=float),
        condition={"summary": np.zeros(2)},
        condition_location={"summary": CENTRE},
        condition_scale={"summary": SPREAD},
    )


def conditions(num: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num, 2))


def seen(standard: np.ndarray) -> dict[str, np.ndarray]:
    """Conditions as users bring them."""
    return {"summary": CENTRE + SPREAD * standard}


def whitened(draws: Any, standard: np.ndarray) -> np.ndarray:
    """What draws differ from their own conditional means, of unit covariance where all is right."""
    z = (np.asarray(draws, np.float64) - LOCATION) / SCALE
    return np.linalg.solve(np.linalg.cholesky(NOISE), (z - standard @ GAIN.T).T).T


SAMPLERS: dict[str, Any] = {
    "ReverseSDE": ss.ReverseSDE(num_steps=30),
    "ReverseSDE by diffrax": ss.ReverseSDE(num_steps=60, solver=diffrax.ShARK(), eta=0.5),
    "ReverseSDE with churn": ss.ReverseSDE(num_steps=30, solver=ss.KarrasHeun(churn=3.0), grid="karras"),
    "ReverseSDE with an exponential integrator": ss.ReverseSDE(num_steps=80, solver=ss.ExponentialIntegrator()),
    "ProbabilityFlowODE": ss.ProbabilityFlowODE(num_steps=20),
    "ProbabilityFlowODE with adaptive steps": ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-3),
    "PredictorCorrector": ss.PredictorCorrector(num_steps=30),
    "PredictorCorrector with Metropolis steps": ss.PredictorCorrector(num_steps=20, corrector="metropolis"),
    "AnnealedLangevin": ss.AnnealedLangevin(num_levels=20, steps_per_level=20),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_particle_follows_its_own_law(name: str) -> None:
    """Blocks that do not divide the particles: with another's condition a draw is off by two standard deviations."""
    standard = conditions(600)
    path = conditional().given(seen(standard))
    draws = ss.sample(
        path, SAMPLERS[name], key=jax.random.key(0), num_samples=600, num_chains=1, batch_size=250, progress=False
    )
    residual = whitened(draws.position[0], standard)
    regressors = np.column_stack([np.ones(600), standard])
    slopes = np.linalg.lstsq(regressors, residual, rcond=None)[0]
    # Steps of finite size may cost a few percent of a standard deviation.
    assert np.abs(slopes).max() < 5 / np.sqrt(600)
    covariance = residual.T @ residual / 600
    assert np.abs(covariance - np.eye(2)).max() < 5 * np.sqrt(2 / 600)
    shifted = whitened(draws.position[0], np.roll(standard, 1, axis=0))
    assert np.mean(shifted**2) > 2


def test_particles_together_and_one_by_one() -> None:
    with jax.enable_x64(True):
        path, standard = conditional(ss.VP()), conditions(5)
        z, t = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2))), jnp.asarray(0.4)
        together = path.given(seen(standard))
        for wrapped in (lambda p: p, lambda p: p.with_process(ss.VE(0.01, 30.0))):
            alone = [wrapped(path).given(seen(c)) for c in standard]
            for function, method in ((score_particles, "standard_score"), (denoise_particles, "standard_denoise")):
                want = jnp.stack([getattr(p, method)(x, t) for p, x in zip(alone, z, strict=True)])
                np.testing.assert_allclose(function(wrapped(together), z, t), want, rtol=1e-9)
        mean = standard @ GAIN.T
        alpha, variance = (float(x) for x in (path.process.alpha(t), path.process.variance(t)))
        total = alpha**2 * NOISE + variance * np.eye(2)
        exact = -np.linalg.solve(total, (np.asarray(z) - alpha * mean).T).T
        np.testing.assert_allclose(score_particles(together, z, t), exact, rtol=1e-9)


def test_another_condition_replaces_the_first_and_compiles_nothing_new() -> None:
    path, position = conditional(), jnp.ones(2)
    traces = []

    @eqx.filter_jit
    def evaluate(path: Any, x: Array) -> Array:
        traces.append(1)
        return path(x, 0.3)

    first, second = (path.given(seen(c)) for c in conditions(2))
    again = second.given(seen(conditions(2)[0]))
    values = [evaluate(p, position) for p in (first, second, again)]
    assert len(traces) == 1
    assert not np.allclose(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])
    assert path.conditioning is not None
    assert path.conditioning.value is None
    assert path.given(seen(conditions(3))).given(seen(conditions(1)[0])).condition_axes() is None


def test_conditions_far_from_zero_keep_their_digits() -> None:
    """Conditions are standardised in double precision: in single precision the two were the same."""
    location = 2.0**24
    path = ss.PerturbedScore(
        lambda z, t, c: c - z, ss.VP(), structure=jnp.zeros(()), condition=0.0, condition_location=location
    )
    values = [float(path.given(location + shift)(jnp.asarray(0.0), 0.5)) for shift in (0.25, 1.0)]
    np.testing.assert_allclose(values, [0.25, 1.0])


def test_the_largest_slope_is_found_under_conditions_of_their_own() -> None:
    path = ss.PerturbedScore(lambda z, t, c: -c * z, ss.VP(), structure=jnp.zeros(2), condition=1.0)
    particles = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)), jnp.float32)
    found = estimate_lipschitz(
        path.given(np.linspace(1.0, 3.0, 40)), particles, jnp.asarray(0.5), key=jax.random.key(0)
    )
    # The first 32 particles are looked at.
    np.testing.assert_allclose(found, np.linspace(1.0, 3.0, 40)[31], rtol=1e-4)


def test_conditions_may_be_traced() -> None:
    path, position = conditional(), jnp.ones(2)
    raw = {"summary": jnp.asarray(seen(conditions(1)[0])["summary"], jnp.float32)}
    got = jax.jit(lambda c: path.given(c)(position, 0.3))(raw)
    np.testing.assert_allclose(got, path.given(raw)(position, 0.3), rtol=1e-4)


def plain() -> ss.PerturbedScore:
    return ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2))


DOORS: dict[str, tuple[Any, type[Exception], str]] = {
    "not given": (lambda: conditional()(jnp.ones(2), 0.3), ValueError, r"call .given\(condition\).*shape \(2,\)"),
    "not given, another process": (
        lambda: conditional().with_process(ss.VP())(jnp.ones(2), 0.3), ValueError, r"call .given\(condition\)",
    ),
    "not given, sampled": (
        lambda: ss.sample(conditional(), key=jax.random.key(0), progress=False), ValueError, "score is conditional",
    ),
    "many for one position": (
        lambda: conditional().given(seen(conditions(3)))(jnp.ones(2), 0.3), ValueError, "a condition for each particle",
    ),
    "as many as particles": (
        lambda: ss.sample(
            conditional().given(seen(conditions(3))), ss.ReverseSDE(num_steps=3), key=jax.random.key(0), num_samples=4,
            num_chains=1, progress=False,
        ),
        ValueError, "conditions for 3 particles, but 4 are asked for",
    ),
    "tree": (lambda: conditional().given(np.ones(2)), ValueError, "`condition` has the tree"),
    "shape": (
        lambda: conditional().given({"summary": np.ones(3)}), ValueError,
        r"shape \(2,\) for all particles, or shape \('particles', 2\) with one for each, got shape \(3,\)",
    ),
    "no particles": (lambda: conditional().given({"summary": np.ones((0, 2))}), ValueError, "`condition` must have"),
    "nan": (
        lambda: conditional().given({"summary": np.array([1.0, np.nan])}), ValueError, "1 of its numbers are not",
    ),
    "complex": (lambda: conditional().given({"summary": np.ones(2) * 1j}), TypeError, "real numbers"),
    "words": (lambda: conditional().given({"summary": np.array(["a", "b"])}), TypeError, "real numbers"),
    "unconditional": (lambda: plain().given(np.ones(2)), ValueError, "was made without conditions"),
    "unconditional, another process": (
        lambda: plain().with_process(ss.VE()).given(np.ones(2)), ValueError, "was made without conditions",
    ),
    "exact": (
        lambda: ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP()).with_process(ss.VE()).given(1.0), ValueError,
        "a PerturbedDensity has no conditions",
    ),
    "standardisation alone": (
        lambda: ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2), condition_scale=2.0), ValueError,
        "`condition_scale` standardises conditions",
    ),
    "negative scale": (
        lambda: ss.PerturbedScore(
            lambda z, t, c: -z, ss.VP(), structure=jnp.zeros(2), condition=1.0, condition_scale=-2.0
        ),
        ValueError, "`condition_scale` must be positive",
    ),
    "nothing": (
        lambda: ss.PerturbedScore(lambda z, t, c: -z, ss.VP(), structure=jnp.zeros(2), condition={}), ValueError,
        "at least one array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DOORS))
def test_what_cannot_be_used_is_named(name: str) -> None:
    call, error, message = DOORS[name]
    with pytest.raises(error, match=message):
        call()
