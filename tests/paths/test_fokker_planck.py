"""The Fokker-Planck equations of scores and of log densities, against exact families and closed-form residuals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import PerturbedEnergy, fokker_planck_residual, logdensity_residual, rademacher_like

PROCESSES: dict[str, ss.AbstractNoiseProcess] = {"VP": ss.VP(), "VE": ss.VE(0.01, 30.0)}
TIMES = (0.01, 0.1, 0.6)
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
VARIANCE = 0.5


def skewed() -> ss.GaussianMixture:
    return ss.GaussianMixture([0.2, 0.8], [[-2.0, 0.5], [1.0, -1.0]], [[0.3, 0.5], [1.0, 0.2]])


@eqx.filter_jit
def residuals(path: Any, points: Any, t: Array, probes: Any = None) -> Any:
    return jax.vmap(lambda x: fokker_planck_residual(path, x, t, probes=probes))(points)


def noised(path: Any, clean: Array, t: Array) -> Array:
    noise = jax.random.normal(jax.random.key(7), clean.shape, clean.dtype)
    return path.process.alpha(t) * clean + path.process.sigma(t) * noise


@pytest.mark.parametrize("process", PROCESSES)
def test_exact_scores_of_a_mixture_obey_the_equation(process: str, precision: jnp.dtype) -> None:
    path = ss.perturb(skewed(), PROCESSES[process])
    clean = path.density.sample(jax.random.key(0), 200)
    assert clean.dtype == precision
    for time in TIMES:
        t = jnp.asarray(time, precision)
        residual, term = residuals(path, noised(path, clean, t), t)
        relative = np.sqrt(np.mean(np.square(residual)) / np.mean(np.square(term)))
        assert relative < (2e-5 if precision == jnp.float32 else 1e-10)


def family(kind: str, process: ss.AbstractNoiseProcess) -> ss.PerturbedScore:
    """A score that is wrong in one way about N(0, 0.5 I) in the plane."""

    def total(t: Array) -> Array:
        return process.alpha(t) ** 2 * VARIANCE + process.variance(t)

    def score(z: Array, t: Array) -> Array:
        match kind:
            case "scaled":
                return -1.3 * z / total(t)
            case "turned":
                return -(z + 0.4 * jnp.asarray(TURN, z.dtype) @ z) / total(t)
            case _:
                return -z / total(t**2)

    return ss.PerturbedScore(score, process, structure=jnp.zeros(2))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("kind", ["scaled", "turned", "clock"])
def test_wrong_families_leave_the_residual_of_their_closed_form(kind: str, process: str) -> None:
    """With tau the variance at t, ``tau' = 2 f tau + g^2``."""
    with jax.enable_x64(True):
        noise, t = PROCESSES[process], jnp.asarray(0.3)
        z = jax.random.normal(jax.random.key(1), (5, 2))
        found, _ = residuals(family(kind, noise), z, t)
        f, g2 = float(noise.drift_rate(t)), float(noise.squared_diffusion(t))
        tau = float(noise.alpha(t) ** 2 * VARIANCE + noise.variance(t))
        growth, points = 2 * f * tau + g2, np.asarray(z)
        match kind:
            case "scaled":
                expected = 1.3 * (1 - 1.3) * g2 * points / tau**2
            case "turned":
                expected = 0.4 * points @ TURN.T * growth / tau**2 - 0.4**2 * g2 * points / tau**2
            case _:
                u = t**2
                wrong = float(noise.alpha(u) ** 2 * VARIANCE + noise.variance(u))
                rate = 2 * float(noise.drift_rate(u)) * wrong + float(noise.squared_diffusion(u))
                expected = points / wrong**2 * (2 * 0.3 * rate - g2 - 2 * f * wrong)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert np.abs(expected).max() > 0.1


def test_probes_are_unbiased_and_two_of_them_give_an_unbiased_square() -> None:
    with jax.enable_x64(True):
        path = ss.PerturbedScore(
            lambda z, t: (1 + t) * jnp.stack([z[1] ** 2 * z[0], z[0] ** 2 * z[1] ** 2]), ss.VP(), structure=jnp.zeros(2)
        )
        point, t = jnp.array([0.3, -0.4]), jnp.asarray(0.2)
        exact = np.asarray(fokker_planck_residual(path, point, t)[0])

        def estimate(key: Array) -> Array:
            return fokker_planck_residual(path, point, t, probes=rademacher_like(key, point, 1))[0]

        found = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(2), 8000)))
        error = found.std(axis=0) / np.sqrt(len(found))
        assert error.min() > 0
        assert np.abs((found.mean(axis=0) - exact) / error).max() < 5
        products = np.sum(found[::2] * found[1::2], axis=1)
        standard_error = products.std() / np.sqrt(len(products))
        assert abs(products.mean() - np.sum(exact**2)) < 5 * standard_error
        # The square of one estimate is biased by the variance of the probes.
        assert np.mean(np.sum(found**2, axis=1)) - np.sum(exact**2) > 5 * standard_error


def test_rademacher_probes_are_signs() -> None:
    probes = rademacher_like(jax.random.key(0), {"a": jnp.zeros(3), "b": jnp.zeros(())}, 1000)
    assert {name: leaf.shape for name, leaf in probes.items()} == {"a": (1000, 3), "b": (1000,)}
    assert set(np.unique(probes["a"])) == {-1.0, 1.0}
    assert abs(np.mean(probes["a"])) < 5 / np.sqrt(3000)


def test_positions_may_be_trees_in_any_frame() -> None:
    with jax.enable_x64(True):
        position = {"a": jnp.array([2.0, -1.0]), "b": jnp.asarray(11.0)}
        path = ss.PerturbedScore(
            lambda z, t: jax.tree.map(lambda x: -1.3 * x, z),
            ss.VP(),
            structure=position,
            location={"a": jnp.zeros(2), "b": jnp.asarray(10.0)},
            scale={"a": jnp.full(2, 4.0), "b": jnp.asarray(0.5)},
        )
        residual, term = fokker_planck_residual(path, position, 0.3)
        beta = 0.1 + 19.9 * 0.3
        expected = 1.3 * (1 - 1.3) * beta * np.array([0.5, -0.25, 2.0])
        np.testing.assert_allclose(np.append(residual["a"], residual["b"]), expected, rtol=1e-9)
        assert np.all(np.append(term["a"], term["b"]) == 0)


def log_mixture(y: Array, s: Array, drift: Array) -> Array:
    """The log density of two modes with noise s, plus a constant that depends on the level."""
    variance = 0.1 + s**2
    parts = jnp.stack([jnp.log(w) - 0.5 * jnp.sum((y - m) ** 2) / variance for w, m in ((0.3, -1.0), (0.7, 1.0))])
    return jax.nn.logsumexp(parts) - jnp.log(2 * jnp.pi * variance) + drift * s


@pytest.mark.parametrize("process", PROCESSES)
def test_the_equation_of_log_densities_sees_the_constants_of_the_levels(process: str) -> None:
    with jax.enable_x64(True):
        noise, t, points = PROCESSES[process], jnp.asarray(0.4), jax.random.normal(jax.random.key(3), (6, 2))

        def energy(drift: float) -> PerturbedEnergy:
            return PerturbedEnergy(log_mixture, noise, structure=jnp.zeros(2), args=(jnp.asarray(drift),))

        @eqx.filter_jit
        def both(path: Any) -> tuple[Array, Array]:
            of_density = jax.vmap(lambda x: logdensity_residual(path, x, t)[0])(points)
            return of_density, jax.vmap(lambda x: fokker_planck_residual(path, x, t)[0])(points)

        exact, shifted = both(energy(0.0)), both(energy(0.7))
        rate = float(jax.grad(lambda u: noise.sigma(u) / noise.alpha(u))(t))
        np.testing.assert_allclose(exact[0], 0.0, atol=1e-9)
        np.testing.assert_allclose(shifted[0], 0.7 * rate, rtol=1e-8)
        for _, of_score in (exact, shifted):
            np.testing.assert_allclose(of_score, 0.0, atol=1e-9)


def test_exact_log_densities_obey_their_equation(precision: jnp.dtype) -> None:
    path, t = ss.perturb(skewed(), ss.VP()), jnp.asarray(0.1, precision)
    points = noised(path, path.density.sample(jax.random.key(4), 100), t)
    residual, term = jax.jit(jax.vmap(lambda x: logdensity_residual(path, x, t)))(points)
    relative = np.sqrt(np.mean(np.square(residual)) / np.mean(np.square(term)))
    assert relative < (2e-5 if precision == jnp.float32 else 1e-10)


@pytest.mark.usefixtures("unchecked_types")
def test_what_has_no_equation_is_refused() -> None:
    bare: Any = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 4.0), ss.Gaussian(jnp.zeros(2), 1.0))
    with pytest.raises(TypeError, match="`path` must be a perturbed score"):
        fokker_planck_residual(bare, jnp.zeros(2), 0.5)
    bare_score: Any = family("scaled", ss.VP())
    for path in (bare, bare_score):
        with pytest.raises(TypeError, match="`path` must be a perturbed score with log densities"):
            logdensity_residual(path, jnp.zeros(2), 0.5)
    with pytest.raises(ValueError, match="`position`"):
        fokker_planck_residual(family("scaled", ss.VP()), jnp.zeros(3), 0.5)
