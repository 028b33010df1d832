"""Exact laws and path divergences of frozen-score and frozen-denoiser sampling, in NumPy's float64.

Nothing here calls the package's numerics. All is in the coordinates ``y = z/alpha`` with ``u = (sigma/alpha)^2``: the
forward process is a Brownian motion with clock u. Variance-preserving processes have ``alpha = (1 + u)^(-1/2)``, the
others ``alpha = 1``.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

_NODES = 32


class Normal(NamedTuple):
    """N(mean, covariance); as a score times a factor."""

    mean: np.ndarray
    covariance: np.ndarray
    factor: float = 1.0


class Law(NamedTuple):
    """The mean and covariance of a sampler's draws."""

    mean: np.ndarray
    covariance: np.ndarray


def signal(u: np.ndarray | float, *, preserving: bool) -> np.ndarray:
    """Alpha."""
    return 1 / np.sqrt(1 + np.asarray(u)) if preserving else np.ones_like(np.asarray(u))


def normal_score(law: Normal, u: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and shift of the score in y."""
    precision = law.factor * np.linalg.inv(law.covariance + u * np.eye(len(law.mean)))
    return -precision, precision @ law.mean


def normal_divergence(mean: np.ndarray, covariance: np.ndarray, other: Law) -> float:
    """KL(N(mean, covariance) || other)."""
    ratio = np.linalg.solve(other.covariance, covariance)
    offset = mean - other.mean
    quadratic = offset @ np.linalg.solve(other.covariance, offset)
    return float(0.5 * (np.trace(ratio) - len(mean) - np.linalg.slogdet(ratio)[1] + quadratic))


def drift(u: float, u_next: float, *, frozen: str, preserving: bool) -> float:
    """The coefficient c of a step ``y' = y + c score + noise``."""
    if frozen == "denoiser":
        return (1 - u_next / u) * u
    return 2 * np.sqrt(1 + u) * (np.sqrt(1 + u) - np.sqrt(1 + u_next)) if preserving else u - u_next


def spread(u: float, u_next: float, *, frozen: str) -> float:
    """The variance of a step's noise."""
    return u_next * (1 - u_next / u) if frozen == "denoiser" else u - u_next


def normal_sampler(score: Normal, start: Law, levels: np.ndarray, *, frozen: str, preserving: bool) -> Law:
    """The law of the draws: an affine recursion."""
    mean, covariance = start
    for u, u_next in pairwise(levels):
        matrix, shift = normal_score(score, u)
        c = drift(u, u_next, frozen=frozen, preserving=preserving)
        step = np.eye(len(mean)) + c * matrix
        mean = step @ mean + c * shift
        covariance = step @ covariance @ step.T + spread(u, u_next, frozen=frozen) * np.eye(len(mean))
    return Law(mean, covariance)


def normal_path_divergence(
    truth: Normal, score: Normal, start: Law, levels: np.ndarray, *, frozen: str, preserving: bool
) -> float:
    """The start's divergence, and the steps' integrals by quadrature in the log-SNR."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    identity = np.eye(len(truth.mean))
    total = normal_divergence(truth.mean, truth.covariance + levels[0] * identity, start)
    for u, u_next in pairwise(levels):
        matrix_k, shift_k = normal_score(score, u)
        h = 0.5 * np.log(u / u_next)
        for x, w in zip(nodes, weights, strict=True):
            v = u * np.exp(-h * (x + 1))
            matrix, shift = normal_score(truth, v)
            if frozen == "denoiser":  # D = y + u score, and exp(2 lambda) = 1/u
                here, offset, unit = identity + v * matrix, v * shift - u * shift_k, 1 / v
                there = identity + u * matrix_k
            else:
                ratio = float(signal(v, preserving=preserving) / signal(u, preserving=preserving))
                here, offset, unit, there = matrix, shift - ratio * shift_k, v, ratio * matrix_k
            gap = here - there
            mean = gap @ truth.mean + offset
            square = mean @ mean + np.trace(gap @ (truth.covariance + v * identity) @ gap.T)
            total += 0.5 * h * w * unit * (square + (u - v) * np.sum(there**2))
    return total


class Mixture(NamedTuple):
    """A mixture of normal laws on the line."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def noised(self, y: np.ndarray, u: float) -> tuple[np.ndarray, np.ndarray]:
        """Density and score of the law with N(0, u) added."""
        total = self.variances + u
        away = y[:, None] - self.means
        parts = self.weights * np.exp(-0.5 * away**2 / total) / np.sqrt(2 * np.pi * total)
        density = parts.sum(axis=1)
        return density, -(parts * away / total).sum(axis=1) / np.maximum(density, 1e-300)

    def moments(self) -> tuple[float, float]:
        mean = self.weights @ self.means
        return float(mean), float(self.weights @ (self.variances + self.means**2) - mean**2)


def line(mixture: Mixture, u: float, size: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Points that are dense near the data and reach into the noise, with the weights of the trapezoid rule."""
    mean, variance = mixture.moments()
    width, reach = 3 * np.sqrt(variance), 8 * np.sqrt(variance + u)
    s = np.linspace(-1, 1, size) * np.arcsinh(reach / width)
    return mean + width * np.sinh(s), width * np.cosh(s) * (s[1] - s[0])


def mixture_divergence(truth: Mixture, score: Mixture, levels: np.ndarray, *, frozen: str) -> float:
    """KL of the noised truth from the draws, whose density goes by normal transitions; alpha is constant."""
    y, dy = line(truth, levels[0])
    mean, variance = score.moments()
    density = _normal(y - mean, variance + levels[0])
    for u, u_next in pairwise(levels):
        values = score.noised(y, u)[1]
        c = drift(u, u_next, frozen=frozen, preserving=False)
        kernel = _normal(y[:, None] - (y + c * values)[None], spread(u, u_next, frozen=frozen))
        density = kernel @ (density * dy)
    assert abs(density @ dy - 1) < 1e-3
    target = truth.noised(y, levels[-1])[0]
    return float(np.sum(dy * target * np.log(np.maximum(target, 1e-300) / np.maximum(density, 1e-300))))


def mixture_path_divergence(truth: Mixture, levels: np.ndarray, *, frozen: str) -> float:
    """With the exact score and alpha constant: ``E|D_t - D_k|^2 = mmse_k - mmse_t``, and so for scores in y."""
    y, dy = line(truth, levels[0], 6001)

    def fisher(u: float) -> float:
        density, score = truth.noised(y, u)
        return float(np.sum(dy * density * score**2))

    mean, variance = truth.moments()
    density = truth.noised(y, levels[0])[0]
    total = float(np.sum(dy * density * np.log(np.maximum(density, 1e-300) / _normal(y - mean, variance + levels[0]))))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    for u, u_next in pairwise(levels):
        h = 0.5 * np.log(u / u_next)
        for x, w in zip(nodes, weights, strict=True):
            v = u * np.exp(-h * (x + 1))
            if frozen == "denoiser":  # mmse = u - u^2 fisher
                gap = (u - u**2 * fisher(u) - v + v**2 * fisher(v)) / v
            else:
                gap = v * (fisher(v) - fisher(u))
            total += 0.5 * h * w * gap
    return total


def _normal(away: np.ndarray, variance: float) -> np.ndarray:
    return np.exp(-0.5 * away**2 / variance) / np.sqrt(2 * np.pi * variance)
