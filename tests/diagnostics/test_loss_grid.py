"""The grid that the denoising loss places, against closed forms on Gaussians."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.optimize import minimize

import scoresample as ss
from scoresample.paths import noise_levels
from tests.diagnostics.made_draws import made_draws

KEY = jax.random.key(0)
UNEQUAL = np.geomspace(1e-4, 1.0, 8)


def path_of(variances: Any, process: ss.AbstractNoiseProcess | None = None) -> Any:
    return ss.perturb(ss.Gaussian(jnp.zeros(len(variances)), jnp.asarray(variances)), process or ss.VP())


def data_of(variances: Any, num: int = 1024) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, len(variances))) * np.sqrt(variances)


def log_snr_of(path: Any, times: np.ndarray) -> np.ndarray:
    return noise_levels(path, 1, times).log_snr


def path_kl(log_snr: np.ndarray, variances: np.ndarray) -> float:
    """The sum over steps of ``integral of (mmse(u_k) - mmse(u)) du``, mmse the sum of ``v/(1 + 2 u v)``."""
    u = np.exp(2 * log_snr) / 2
    mmse = (variances / (1 + 2 * np.multiply.outer(u, variances))).sum(axis=1)
    return float(mmse[:-1] @ np.diff(u) - 0.5 * np.log((1 + 2 * u[-1] * variances) / (1 + 2 * u[0] * variances)).sum())


@pytest.mark.parametrize("process", [ss.VP(), ss.VE(0.01, 50.0)], ids=["VP", "VE"])
def test_levels_of_one_variance_are_uniform_in_closed_form(process: ss.AbstractNoiseProcess) -> None:
    variance, num_steps = 0.5, 12
    path = path_of(np.full(16, variance), process)
    times = ss.loss_adaptive_grid(path, data_of(np.full(16, variance)), key=KEY, num_steps=num_steps, uniform_share=0.0)
    assert times.shape == (num_steps + 1,)
    clock = np.log1p(variance * np.exp(2 * log_snr_of(path, times)))
    ends = noise_levels(path, 1).log_snr
    np.testing.assert_allclose(clock[[0, -1]], np.log1p(variance * np.exp(2 * ends)), rtol=1e-5)
    np.testing.assert_allclose(clock, np.linspace(clock[0], clock[-1], num_steps + 1), atol=0.1 * np.diff(clock).mean())


def test_the_path_kl_is_a_fraction_of_other_grids_and_near_the_least() -> None:
    path, num_steps = path_of(UNEQUAL), 20
    times = ss.loss_adaptive_grid(path, data_of(UNEQUAL), key=KEY, num_steps=num_steps)
    log_snr = log_snr_of(path, times)
    found = path_kl(log_snr, UNEQUAL)
    assert found < 0.65 * path_kl(noise_levels(path, num_steps, "log-snr").log_snr, UNEQUAL)
    assert found < 0.75 * path_kl(noise_levels(path, num_steps, "exponential").log_snr, UNEQUAL)

    def of_steps(logits: np.ndarray) -> float:
        shares = np.cumsum(np.exp(logits - logits.max()))
        inner = log_snr[0] + (log_snr[-1] - log_snr[0]) * shares / shares[-1]
        return float(np.log(path_kl(np.append(log_snr[0], inner), UNEQUAL)))

    least = np.exp(minimize(of_steps, np.log(np.diff(log_snr)), method="L-BFGS-B").fun)
    assert least <= found < 1.03 * least


def draws_kl(log_snr: np.ndarray, variances: np.ndarray) -> float:
    """KL of DDPM's law to the noised target: a product of factors and a sum of noises for every coordinate."""
    s = np.exp(-log_snr)
    variance = variances + s[0] ** 2
    for here, there in pairwise(s):
        keep, gain = (there / here) ** 2, variances / (variances + here**2)
        variance = (keep + (1 - keep) * gain) ** 2 * variance + there**2 * (1 - keep)
    wrong = variance / (variances + s[-1] ** 2)
    return float(0.5 * np.sum(wrong - 1 - np.log(wrong)))


@pytest.mark.parametrize(
    ("variances", "paths", "draws"),
    [(UNEQUAL, (14.2, 9.3), (0.129, 0.178)), (np.append(1.0, np.full(31, 1e-4)), (33.4, 15.8), (0.514, 0.36))],
    ids=["many scales", "near a line"],
)
def test_the_figures_of_the_docstring(
    variances: np.ndarray, paths: tuple[float, float], draws: tuple[float, float]
) -> None:
    path = path_of(variances)
    grids = "log-snr", ss.loss_adaptive_grid(path, data_of(variances), key=KEY, num_steps=40)
    for k, grid in enumerate(grids):
        log_snr = noise_levels(path, 40, grid).log_snr
        assert path_kl(log_snr, variances) == pytest.approx(paths[k], rel=0.02)
        assert draws_kl(log_snr, variances) == pytest.approx(draws[k], rel=0.1)


def test_ddpm_takes_the_times() -> None:
    path = path_of(np.ones(2))
    times = ss.loss_adaptive_grid(path, data_of(np.ones(2), 256), key=KEY, num_steps=10)
    draws = ss.sample(path, ss.ReverseSDE(solver="ddpm", grid=times), key=KEY, num_samples=25)
    assert draws.nfe == 11


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_loss_that_does_not_fall_still_gives_levels(share: float) -> None:
    """A denoiser that knows nothing at little noise, and one whose loss is flat: the uniform share fills the gap."""

    def denoiser(z: Array, s: Array) -> Array:
        return jnp.where(s < 0.3, 0.0, 1.0) * z / (1 + s**2)

    path = ss.PerturbedScore(denoiser, ss.VP(), structure=jnp.zeros(2), prediction="denoised", time="sigma")
    times = ss.loss_adaptive_grid(path, data_of(np.ones(2), 300), key=KEY, num_steps=20, uniform_share=share)
    assert (np.diff(times) < 0).all()
    if share == 1:
        np.testing.assert_allclose(times, np.clip(noise_levels(path, 20).t, 0, 1), rtol=1e-6)
    steps = np.diff(log_snr_of(path, times))
    assert share == 0 or steps.max() <= np.sum(steps) / (share * 20) * (1 + 1e-6)


def test_data_may_be_a_tree_or_draws_in_their_own_units() -> None:
    """A score with a location and a scale sees standard data: its grid is that of a standard normal law."""
    structure = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    location, scale = {"a": jnp.asarray(5.0), "b": jnp.zeros(2)}, {"a": jnp.asarray(0.01), "b": jnp.full(2, 30.0)}
    path = ss.PerturbedScore(
        lambda z, s: jax.tree.map(lambda x: x / (1 + s**2), z),
        ss.VP(),
        structure=structure,
        prediction="denoised",
        time="sigma",
        location=location,
        scale=scale,
    )
    rng = np.random.default_rng(1)
    data = {"a": 5 + 0.01 * rng.normal(size=500), "b": 30 * rng.normal(size=(500, 2))}
    times = ss.loss_adaptive_grid(path, data, key=KEY, num_steps=10)
    clock = np.log1p(np.exp(2 * log_snr_of(path, times)))
    assert np.diff(clock).max() < 1.3 * np.diff(clock).min()
    array = path_of(np.ones(2))
    draws = made_draws(data_of(np.ones(2), 400).reshape(4, 100, 2))
    assert ss.loss_adaptive_grid(array, draws, key=KEY, num_steps=7).shape == (8,)


def not_finite() -> ss.PerturbedScore:
    return ss.PerturbedScore(lambda z, t: z / jnp.where(t < 0.5, 0.0, 1.0), ss.VP(), structure=jnp.zeros(2))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda data: (ss.Gaussian(jnp.zeros(2), 1.0), data, {}),
            TypeError,
            "`score` must be a perturbed score, got G",
        ),
        (lambda data: (path_of(np.ones(2)), "data", {}), TypeError, "`data` must be an array, a tree.*got str"),
        (lambda data: (path_of(np.ones(2)), data[:9], {}), ValueError, "`data` needs one leading axis of at least 50"),
        (lambda data: (path_of(np.ones(3)), data, {}), ValueError, "`data`"),
        (
            lambda data: (path_of(np.ones(2)), data, {"num_steps": 0}),
            ValueError,
            "`num_steps` must be at least 1, got 0",
        ),
        (lambda data: (path_of(np.ones(2)), data, {"num_points": 3}), ValueError, "`num_points` must be at least 50"),
        (
            lambda data: (path_of(np.ones(2)), data, {"uniform_share": 1.5}),
            ValueError,
            "`uniform_share` must be from 0 to 1, got 1.5",
        ),
        (lambda data: (not_finite(), data, {}), ValueError, "`score` is not finite at the data noised to t=0.4"),
    ],
)
def test_wrong_input_is_refused(make: Any, error: type[Exception], message: str) -> None:
    score, data, settings = make(data_of(np.ones(2), 100))
    with pytest.raises(error, match=message):
        ss.loss_adaptive_grid(score, data, key=KEY, **settings)
