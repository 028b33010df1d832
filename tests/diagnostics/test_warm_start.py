"""The divergence of neighbouring levels, against closed forms and quadrature."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import noise_levels

KEY = jax.random.key(0)
MEAN = np.array([2.0, -1.0])
COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])


def normal_renyi2(covariance: np.ndarray, s: float, s_next: float) -> float:
    """The log of the integral of p^2/q, ``|B|^(1/2) / (|A| |M|^(1/2))`` with ``M = 2/A - 1/B``, of laws of one mean."""
    before, after = (covariance + each**2 * np.eye(len(covariance)) for each in (s, s_next))
    rest = 2 * np.linalg.inv(before) - np.linalg.inv(after)
    if np.linalg.eigvalsh(rest)[0] <= 0:
        return np.inf
    logs = [np.linalg.slogdet(matrix)[1] for matrix in (before, after, rest)]
    return float(0.5 * logs[1] - logs[0] - 0.5 * logs[2])


def ratios(path: Any, num_levels: int, grid: Any = "log-snr") -> np.ndarray:
    return np.exp(-noise_levels(path, num_levels - 1, grid).log_snr)


def gaussian_path(process: ss.AbstractNoiseProcess) -> Any:
    return ss.perturb(ss.Gaussian(jnp.asarray(MEAN), jnp.asarray(COVARIANCE)), process)


def as_mixture(num: int) -> Any:
    """The same law with its log density and draws, but not known to be normal."""
    weights, means = np.full(num, 1 / num), np.tile(MEAN, (num, 1))
    return ss.perturb(ss.GaussianMixture(weights, means, np.tile(COVARIANCE, (num, 1, 1))), ss.VP())


@pytest.mark.parametrize("process", [ss.VP(), ss.VE(0.01, 30.0)], ids=["VP", "VE"])
@pytest.mark.parametrize("num_levels", [14, 40])
def test_gaussian_paths_are_in_closed_form(process: ss.AbstractNoiseProcess, num_levels: int) -> None:
    path = gaussian_path(process)
    found, s = ss.warm_start(path, key=KEY, num_levels=num_levels), ratios(path, num_levels)
    expected = np.array([normal_renyi2(COVARIANCE, *pair) for pair in pairwise(s)])
    np.testing.assert_allclose(found.renyi2, expected, rtol=1e-4, atol=1e-7)
    assert found.exact
    assert (found.finite == np.isfinite(expected)).all()
    # Finite exactly where every direction's variance more than halves nowhere: the weights' mean exists below shape 1.
    assert (found.finite == (found.pareto_k < 1)).all()
    assert found.finite.all() == (num_levels == 40)
    np.testing.assert_allclose(found.chi_square, np.expm1(expected), rtol=1e-3, atol=1e-7)
    assert (found.renyi2[found.finite] <= found.bound[found.finite]).all()
    np.testing.assert_allclose(found.noise, s[:-1])
    np.testing.assert_allclose(found.noise_next, s[1:])
    assert (found.t_next < found.t).all()


def test_enough_levels_are_the_fewest_at_which_the_noise_alone_is_finite() -> None:
    path = gaussian_path(ss.VP())
    enough = ss.warm_start(path, key=KEY, num_levels=10).enough_levels
    few, more = (ss.warm_start(path, key=KEY, num_levels=num) for num in (enough - 1, enough))
    assert np.isinf(few.bound).all()
    assert np.isfinite(more.bound).all()
    assert more.finite.all()


@pytest.mark.parametrize("num", [1, 2])
def test_estimates_of_a_normal_law_are_within_their_errors(num: int) -> None:
    path = as_mixture(num)
    found, s = ss.warm_start(path, key=KEY, num_levels=45), ratios(path, 45)
    expected = np.array([normal_renyi2(COVARIANCE, *pair) for pair in pairwise(s)])
    assert not found.exact
    assert found.finite.all()
    z = (found.renyi2 - expected) / found.renyi2_se
    assert np.abs(z).max() < 5
    assert found.renyi2_se.max() < 0.2 * expected.max()


def test_infinite_divergences_are_not_estimated() -> None:
    path = as_mixture(1)
    found, s = ss.warm_start(path, key=KEY, num_levels=12), ratios(path, 12)
    expected = np.array([normal_renyi2(COVARIANCE, *pair) for pair in pairwise(s)])
    assert np.isinf(expected).sum() > 2
    assert not found.finite[np.isinf(expected)].any()
    assert np.isnan(found.renyi2[~found.finite]).all()
    assert (found.pareto_k[np.isinf(expected)] > 0.7).all()
    assert found.finite[expected < 0.1].all()


def test_a_mixture_agrees_with_quadrature() -> None:
    weights, means, sds = np.array([0.3, 0.7]), np.array([-3.0, 2.0]), np.array([0.5, 0.3])
    mixture = ss.GaussianMixture(weights, means[:, None], sds[:, None] ** 2)
    path = ss.perturb(mixture, ss.VE(0.01, 30.0))
    found, s = ss.warm_start(path, key=KEY, num_levels=45), ratios(path, 45)
    assert found.finite.all()
    expected = []
    for here, there in pairwise(s):
        y = np.linspace(-1, 1, 200_001) * (8 + 12 * here)
        logs = []
        for each in (here, there):
            variance = sds**2 + each**2
            parts = np.log(weights / np.sqrt(2 * np.pi * variance)) - (y[:, None] - means) ** 2 / (2 * variance)
            logs.append(np.logaddexp(*parts.T))
        expected.append(np.log(np.sum(np.exp(2 * logs[0] - logs[1])) * (y[1] - y[0])))
    assert np.abs((found.renyi2 - expected) / found.renyi2_se).max() < 5


def energy(y: Array, s: Array) -> Array:
    """Of standard normal data, with a constant that is wrong at every level."""
    return -0.5 * jnp.sum(y**2) / (1 + s**2) + 3 * s


def energy_path() -> ss.PerturbedEnergy:
    return ss.PerturbedEnergy(
        energy, ss.VP(), structure=jnp.zeros(2), log_snr_range=(-3.0, 3.0), location=jnp.array([5.0, 0.0])
    )


def test_energies_need_no_constants() -> None:
    data = np.random.default_rng(3).normal(size=(3000, 2)) + np.array([5.0, 0.0])
    found = ss.warm_start(energy_path(), key=KEY, num_levels=30, data=data)
    s = ratios(energy_path(), 30)
    expected = np.array([normal_renyi2(np.eye(2), *pair) for pair in pairwise(s)])
    assert found.finite.all()
    assert np.abs((found.renyi2 - expected) / found.renyi2_se).max() < 5


def test_times_of_your_own_and_trees() -> None:
    density = ss.Gaussian({"a": jnp.zeros(2), "b": jnp.asarray(1.0)}, {"a": jnp.ones(2), "b": jnp.asarray(0.5)})
    times = (0.5, 0.45, 0.4)
    found = ss.warm_start(ss.perturb(density, ss.VP()), key=KEY, grid=times)
    np.testing.assert_allclose(found.t, times[:-1], rtol=1e-5)
    s = np.append(found.noise, found.noise_next[-1])
    expected = [normal_renyi2(np.diag([1.0, 1.0, 0.5]), *pair) for pair in pairwise(s)]
    np.testing.assert_allclose(found.renyi2, expected, rtol=1e-4)


def test_what_is_printed() -> None:
    fine, coarse = (ss.warm_start(gaussian_path(ss.VP()), key=KEY, num_levels=num) for num in (60, 12))
    assert "60 levels, in closed form" in str(fine)
    assert "chi-square of" in str(fine)
    assert "finer ladder" not in str(fine)
    assert f"Use a finer ladder: {coarse.enough_levels} levels" in str(coarse)
    assert "it is infinite" in str(coarse)
    assert "may be infinite" in str(ss.warm_start(as_mixture(1), key=KEY, num_levels=12))
    assert len(fine.table) == 59
    assert set(fine.table) >= {"t", "t_next", "noise", "renyi2", "renyi2_se", "pareto_k", "finite"}


def no_density() -> Any:
    return ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2))


def tempered() -> Any:
    return ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 4.0), ss.Gaussian(jnp.zeros(2), 1.0))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("make", "settings", "error", "message"),
    [
        (no_density, {}, TypeError, r"`path` must be a noised path.*got PerturbedScore.*PerturbedEnergy.*\"energy\""),
        (lambda: ss.Gaussian(jnp.zeros(2), 1.0), {}, TypeError, "`path` must be a noised path.*got Gaussian"),
        (tempered, {}, ValueError, "`path`: a TemperedPath needs draws at every level"),
        (energy_path, {}, ValueError, "`data`: a PerturbedEnergy has no draws of its own"),
        (energy_path, {"data": np.zeros((9, 2))}, ValueError, "`data` needs one leading axis of at least 50"),
        (lambda: as_mixture(1), {"data": np.zeros((90, 2))}, ValueError, "`data`: this path has exact draws"),
        (energy_path, {"num_levels": 1}, ValueError, "`num_levels` must be at least 2, got 1"),
        (energy_path, {"num_points": 5}, ValueError, "`num_points` must be at least 50, got 5"),
    ],
)
def test_wrong_input_is_refused(make: Any, settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ss.warm_start(make(), key=KEY, **settings)
