"""On a normal target every path sampler is an affine recursion: its exact law, in NumPy's float64.

Nothing here calls the package's numerics. Formulas are the published ones, written in the log-SNR lambda: with
``s = exp(-lambda)``, VP has ``alpha^2 = 1/(1 + s^2)`` and VE ``alpha = 1``; ``sigma = alpha s``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import scoresample as ss

MEAN = np.array([1.5, -2.0, 0.5])
CORRELATED = np.array([[1.5, 0.6, -0.3], [0.6, 0.8, 0.2], [-0.3, 0.2, 0.5]])
UNEQUAL = np.diag([0.25, 1.0, 2.25])
COVARIANCES = {"correlated": CORRELATED, "unequal": UNEQUAL}
IDENTITY = np.eye(3)

VP_INTEGRAL = 10.05
"""The integral of beta over [0, 1] at the default rates: (0.1 + 20)/2."""
VE_SIGMA_MAX = 10.0
PROCESSES: dict[str, Callable[[], ss.AbstractNoiseProcess]] = {"VP": ss.VP, "VE": lambda: ss.VE(0.002, VE_SIGMA_MAX)}


class Affine(NamedTuple):
    """``x -> matrix x + shift + noise``, the noise of covariance `covariance`.

    `response` is what the noise becomes where every standard normal vector of the recursion is one and the same.
    """

    matrix: np.ndarray
    shift: np.ndarray
    covariance: np.ndarray
    response: np.ndarray

    def then(self, after: "Affine") -> "Affine":
        return Affine(
            after.matrix @ self.matrix,
            after.matrix @ self.shift + after.shift,
            after.matrix @ self.covariance @ after.matrix.T + after.covariance,
            after.matrix @ self.response + after.response,
        )

    def law(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the image of a law."""
        return self.matrix @ mean + self.shift, self.matrix @ covariance @ self.matrix.T + self.covariance


def affine(matrix: np.ndarray, shift: np.ndarray, spread: float = 0.0) -> Affine:
    return Affine(matrix, shift, spread**2 * IDENTITY, spread * IDENTITY)


def compose(*maps: Affine) -> Affine:
    total = affine(IDENTITY, np.zeros(3))
    for each in maps:
        total = total.then(each)
    return total


def scales(process: str, log_snr: float | np.ndarray) -> tuple[Any, Any]:
    """Alpha and sigma at given log-SNR."""
    ratio = np.exp(-np.asarray(log_snr))
    alpha = 1 / np.sqrt(1 + ratio**2) if process == "VP" else np.ones_like(ratio)
    return alpha, alpha * ratio


def grid(process: str, covariance: np.ndarray, num_steps: int, delta: float | None = None) -> np.ndarray:
    """Uniform in log-SNR, from twenty data scales or the process's t=1 to 3% of the smallest scale, or to `delta`."""
    noisiest = -0.5 * np.log(np.expm1(VP_INTEGRAL)) if process == "VP" else -np.log(VE_SIGMA_MAX)
    start = max(noisiest, -np.log(20 * np.sqrt(covariance.diagonal().max())))
    last = 0.03 * np.sqrt(np.linalg.eigvalsh(covariance)[0]) if delta is None else np.sqrt(delta)
    return np.linspace(start, -np.log(last), num_steps + 1)


def start_law(process: str, covariance: np.ndarray, log_snr: float) -> tuple[np.ndarray, np.ndarray]:
    """The normal law with the mean and the coordinates' variances of the noised data."""
    alpha, sigma = scales(process, log_snr)
    return alpha * MEAN, np.diag(alpha**2 * covariance.diagonal() + sigma**2)


def noised_target(process: str, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The target with the noise of the last level, in the scale of the data: what a sampler without `denoise` seeks."""
    ratio = np.exp(-grid(process, covariance, 1)[-1])
    return MEAN, covariance + ratio**2 * IDENTITY


class Linear(NamedTuple):
    """``x -> matrix x + shift``."""

    matrix: np.ndarray
    shift: np.ndarray


def score(process: str, covariance: np.ndarray, log_snr: float) -> Linear:
    """The score of N(alpha m, alpha^2 C + sigma^2)."""
    alpha, sigma = scales(process, log_snr)
    precision = np.linalg.inv(alpha**2 * covariance + sigma**2 * IDENTITY)
    return Linear(-precision, precision @ (alpha * MEAN))


def posterior_mean(process: str, covariance: np.ndarray, log_snr: float) -> Linear:
    """E[x_0 | x_t] by conditioning jointly normal variables: ``m + alpha C (alpha^2 C + sigma^2)^-1 (x - alpha m)``."""
    alpha, sigma = scales(process, log_snr)
    gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * IDENTITY)
    return Linear(gain, MEAN - alpha * gain @ MEAN)


def last_move(process: str, covariance: np.ndarray, log_snr: float, *, denoise: bool) -> Affine:
    """The posterior mean, or the particle in the scale of the data."""
    if denoise:
        return affine(*posterior_mean(process, covariance, log_snr))
    return affine(IDENTITY / scales(process, log_snr)[0], np.zeros(3))


def ends_of(sampler: Any, process: str, covariance: np.ndarray, particles: np.ndarray) -> np.ndarray:
    """Where the sampler takes particles, in float64; always with the same noise."""
    with jax.enable_x64(True):
        path = path_of(process, covariance)
        plan = sampler.plan(path, key=jax.random.key(0))
        ends = run(path, sampler, plan, jnp.asarray(particles), jax.random.key(1))
        assert ends.dtype == jnp.float64
    return np.asarray(ends)


def langevin(score: Linear, step_size: float) -> Affine:
    """``x + h s(x) + sqrt(2 h) z``."""
    return affine(IDENTITY + step_size * score.matrix, step_size * score.shift, float(np.sqrt(2 * step_size)))


def path_of(process: str, covariance: np.ndarray) -> Any:
    return ss.perturb(ss.Gaussian(MEAN, covariance), PROCESSES[process]())


@eqx.filter_jit
def run(path: Any, sampler: Any, plan: Any, particles: Array, key: Array) -> Array:
    return sampler.run(path, particles, plan, key=key)[0]


def some_particles(num: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, 3)) * 5 + 1


def normal_particles(mean: np.ndarray, covariance: np.ndarray, num: int) -> np.ndarray:
    return np.random.default_rng(7).multivariate_normal(mean, covariance, size=num)


def z_scores(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """How many standard errors independent normal draws are from a mean and a covariance (all of its entries)."""
    num = len(draws)
    variances = covariance.diagonal()
    z_mean = (draws.mean(0) - mean) / np.sqrt(variances / num)
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / num)
    z_covariance = (np.cov(draws.T) - covariance) / error
    return np.concatenate([z_mean, z_covariance[np.triu_indices(len(mean))]])


def assert_normal_law(
    draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray, *, unlike: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """Draws have this law within Monte-Carlo error, and would be seen not to have the law `unlike`."""
    draws = np.asarray(draws, np.float64).reshape(-1, len(mean))
    found = np.abs(z_scores(draws, mean, covariance)).max()
    assert found < 5, f"{found:.1f} standard errors from the exact law"
    if unlike is not None:
        power = np.abs(z_scores(draws, *unlike)).max()
        assert power > 10, f"only {power:.1f} standard errors from the target: the settings are too fine to tell"


def kl(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> float:
    """KL(N(mean, covariance) || N(other_mean, other_covariance))."""
    ratio = np.linalg.solve(other_covariance, covariance)
    offset = mean - other_mean
    quadratic = offset @ np.linalg.solve(other_covariance, offset)
    return float(0.5 * (np.trace(ratio) - len(mean) - np.linalg.slogdet(ratio)[1] + quadratic))
