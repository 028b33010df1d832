"""The lattice phi^4 model: its score, its symmetries, its free limit, and chains against published values."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base.array import array_stats
from jaxtyping import Array

import scoresample as ss
from scoresample.diagnostics import magnetisation, radial_spectrum
from tests.conftest import Compilations

KAPPA, LAM = 0.31, 0.8


def field(*shape: int, seed: int = 0) -> Array:
    return 0.4 + jax.random.normal(jax.random.key(seed), shape)


def written_out(phi: np.ndarray, kappa: float, lam: float) -> float:
    """The action, site by site and bond by bond."""
    total = 0.0
    for x in np.ndindex(phi.shape):
        for axis in range(phi.ndim):
            y = tuple((c + (a == axis)) % n for a, (c, n) in enumerate(zip(x, phi.shape, strict=True)))
            total -= 2 * kappa * phi[x] * phi[y]
        total += phi[x] ** 2 + lam * (phi[x] ** 2 - 1) ** 2
    return float(total)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 5), (3, 4, 2)])
def test_the_density_is_the_action_written_out_and_the_score_its_gradient(shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        model, phi = ss.LatticePhi4(shape, KAPPA, LAM), field(*shape)
        value, score = model.value_and_score(phi)
        expected = written_out(np.asarray(phi), KAPPA, LAM)
        np.testing.assert_allclose(value, -expected, rtol=1e-12)
        np.testing.assert_allclose(model.action_density(phi), expected / phi.size, rtol=1e-12)
        np.testing.assert_allclose(score, jax.grad(model.logdensity)(phi), rtol=1e-11, atol=1e-12)


def test_in_two_dimensions_it_is_the_energy_of_the_wavelet_papers() -> None:
    """``-beta sum_<xy> phi_x phi_y + sum_x (phi_x^4 - phi_x^2)`` and one per site, with beta = 2 kappa."""
    with jax.enable_x64(True):
        phi = np.asarray(field(6, 4))
        bonds = phi * np.roll(phi, 1, 0) + phi * np.roll(phi, 1, 1)
        energy = np.sum(phi**4 - phi**2 - 0.68 * bonds)
        np.testing.assert_allclose(-ss.LatticePhi4((6, 4), 0.34).logdensity(jnp.asarray(phi)), energy + 24, rtol=1e-12)


@pytest.mark.parametrize("move", ["sign", "down", "right", "transpose"])
def test_symmetries_keep_the_density_and_move_the_score_along(move: str) -> None:
    def moved(x: Array) -> Array:
        match move:
            case "sign":
                return -x
            case "down":
                return jnp.roll(x, 2, 0)
            case "right":
                return jnp.roll(x, 3, 1)
            case _:
                return x.T

    with jax.enable_x64(True):
        model, phi = ss.LatticePhi4((5, 5), KAPPA, LAM), field(5, 5)
        value, score = model.value_and_score(phi)
        again, there = model.value_and_score(moved(phi))
        np.testing.assert_allclose(again, value, rtol=1e-13)
        np.testing.assert_allclose(there, moved(score), rtol=1e-12, atol=1e-13)
        assert np.abs(there - score).max() > 0.1, "a field that the move changes"


def free_spectrum(shape: tuple[int, ...], kappa: float) -> np.ndarray:
    cosines = np.meshgrid(*[np.cos(2 * np.pi * np.fft.fftfreq(n)) for n in shape], indexing="ij")
    return 1 / (2 - 4 * kappa * np.sum(cosines, axis=0))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 5)])
def test_without_the_quartic_term_it_is_normal_with_the_free_spectrum(shape: tuple[int, ...]) -> None:
    """A circulant covariance with that spectrum: the same scores, and log densities that differ by a constant."""
    size, kappa = int(np.prod(shape)), 0.21
    with jax.enable_x64(True):
        covariance = np.zeros((size, size))
        kernel = np.real(np.fft.ifftn(free_spectrum(shape, kappa)))
        for column, x in enumerate(np.ndindex(shape)):
            covariance[:, column] = np.roll(kernel, x, axis=tuple(range(len(shape)))).ravel()
        normal = ss.Gaussian(jnp.zeros(size), jnp.asarray(covariance))
        model = ss.LatticePhi4(shape, kappa, 0.0)
        values = []
        for seed in (0, 1):
            phi = field(*shape, seed=seed)
            value, score = model.value_and_score(phi)
            expected, normal_score = normal.value_and_score(phi.ravel())
            np.testing.assert_allclose(score.ravel(), normal_score, rtol=1e-9, atol=1e-10)
            values.append(value - expected)
        np.testing.assert_allclose(values[0], values[1], rtol=1e-10)


def chains(model: ss.LatticePhi4, step_size: float, steps: int, *, num_samples: int, num_chains: int = 50) -> Any:
    sampler = ss.HMC(num_integration_steps=steps, step_size=step_size)
    run: dict[str, Any] = {"num_chains": num_chains, "num_warmup": 0, "progress": False}
    key_burn, key_run = jax.random.split(jax.random.key(3))
    burnt = ss.sample(model, sampler, key=key_burn, num_samples=30, **run)
    start = jnp.asarray(burnt.position)[:, -1]
    return ss.sample(model, sampler, key=key_run, num_samples=num_samples, initial_position=start, **run)


def z_scores(values: np.ndarray, expected: Any) -> np.ndarray:
    """Of means over chains and draws of (chain, draw, ...), with ArviZ's standard errors."""
    flat = values.reshape(*values.shape[:2], -1)
    mcse: Any = array_stats.mcse
    errors = [float(mcse(flat[..., k], method="mean")) for k in range(flat.shape[-1])]
    return (flat.mean(axis=(0, 1)) - np.ravel(expected)) / np.array(errors)


def test_chains_of_the_free_model_have_the_free_spectrum() -> None:
    model = ss.LatticePhi4((8, 8), 0.21, 0.0)
    fields = np.asarray(chains(model, 0.35, 6, num_samples=150).position)
    wavenumbers, power = radial_spectrum(fields)
    grid = np.sqrt(np.add.outer(*[np.square(2 * np.pi * np.fft.fftfreq(8))] * 2))
    rings = np.rint(grid * 8 / (2 * np.pi))
    expected = [free_spectrum((8, 8), 0.21)[rings == ring].mean() for ring in range(5)]
    np.testing.assert_allclose(wavenumbers, [grid[rings == ring].mean() for ring in range(5)])
    assert np.abs(z_scores(power, expected)).max() < 5
    assert np.abs(z_scores(power, 1.1 * np.array(expected))).max() > 10, "ten per cent would be seen"


def test_chains_keep_the_schwinger_dyson_identity() -> None:
    """``E[phi_x dS/dphi_x] = 1`` at every site: integration by parts."""
    model = ss.LatticePhi4((8, 8), 0.34, 1.0)
    fields = jnp.asarray(chains(model, 0.15, 20, num_samples=100).position)
    product = -np.asarray(fields * jax.vmap(jax.vmap(model))(fields), np.float64)
    z = z_scores(product, np.ones(64))
    assert np.abs(z).max() < 5
    assert abs(z_scores(product.mean(axis=(2, 3)), 1.0)[0]) < 5
    assert abs(z_scores(product.mean(axis=(2, 3)), 1.05)[0]) > 5, "five per cent would be seen"


def test_chains_have_the_published_susceptibility_and_fourth_moment() -> None:
    """The couplings at which <m^4> / <m^2>^2 is 1.1679229, and the susceptibility there over L^(7/4), for lam = .1.

    Source: Kaupuzs and Melnik 2025, Commun. Theor. Phys. 77, 065601, table 1 for L = 8, with beta = 2 kappa.
    """
    model = ss.LatticePhi4((8, 8), 0.6205904 / 2, 0.1)
    m = magnetisation(chains(model, 0.35, 12, num_samples=300, num_chains=60).position)
    square = m**2
    assert abs(z_scores(64 * square / 8**1.75, 1.70513)[0]) < 5
    mean = square.mean()
    ratio = m**4 / mean**2 - 2 * (m**4).mean() * (square - mean) / mean**3  # to first order in the means' errors
    assert abs(z_scores(ratio, 1.1679229)[0]) < 5
    assert abs(z_scores(64 * square / 8**1.75, 1.65)[0]) > 5, "three per cent would be seen"


def test_other_couplings_do_not_compile_again(compilations: Compilations) -> None:
    phi = field(4, 4)
    evaluate = eqx.filter_jit(lambda model, x: model.value_and_score(x))
    evaluate(ss.LatticePhi4((4, 4), 0.3, 1.0), phi)
    model = ss.LatticePhi4((4, 4), 0.2, 0.5)
    with compilations.none_expected():
        other = evaluate(model, phi)[0]
    np.testing.assert_allclose(other, -written_out(np.asarray(phi), 0.2, 0.5), rtol=1e-5)


def test_starts_begin_in_both_phases() -> None:
    model = ss.LatticePhi4((8, 8), 0.36)
    assert model.init_position is not None
    starts = jax.vmap(model.init_position)(jax.random.split(jax.random.key(0), 20))
    assert 4 < int(np.sum(magnetisation(starts) > 0)) < 16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ss.LatticePhi4((), 0.3), "`shape` must be"),
        (lambda: ss.LatticePhi4((1, 4), 0.3), "`shape` must be"),
        (lambda: ss.LatticePhi4((4, 4), float("nan")), "`kappa` must be one finite number"),
        (lambda: ss.LatticePhi4((4, 4), 0.3, jnp.ones(2)), "`lam` must be one finite number"),
        (lambda: ss.LatticePhi4((4, 4), 0.3, -0.1), "`lam` must be positive, or zero with `kappa` within ±0.25"),
        (lambda: ss.LatticePhi4((4, 4), 0.25, 0.0), "`lam` must be positive"),
    ],
)
def test_models_that_are_none_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
