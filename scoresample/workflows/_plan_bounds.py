"""Bounds on what a sampler's draws are off by, before anything is known of the data but their variances.

Everything here is in the coordinates ``y = z/alpha``, with noise levels ``s = sigma/alpha``: the same for all
processes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

TRIAL_STEPS = 512
"""At which bounds are compared before the steps are known."""
_FINE = 4001
"""Nodes of the quadrature behind the adapted grid."""


def largest_mmse(variances: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """``sum_i v_i s^2/(v_i + s^2)``, the error of the best linear denoiser: an upper bound on that of the best one."""
    (v, counts), s2 = np.unique(variances, return_counts=True), np.asarray(noise) ** 2
    return sum((n * x * s2 / (x + s2) for x, n in zip(v, counts, strict=True)), np.zeros(s2.shape))


def start_bound(variances: np.ndarray, noise: float) -> float:
    """Of KL(data noised to level s || normal law with their moments): ``sum_i log(1 + v_i/s^2)/2``.

    By convexity in the clean point: the mean of KL(N(x_0, s^2) || N(m, v + s^2)) over the data.
    """
    return float(np.sum(np.log1p(variances / noise**2)) / 2)


def discretisation_bound(variances: np.ndarray, noise: np.ndarray) -> float:
    """Of the path KL of the sampler that freezes the exact denoiser over each step, for any data with these variances.

    Exactly, it is ``sum_k integral e^(2 lambda) [m(s_k) - m(s)] dlambda``, m the mean squared error of the best
    denoiser, lambda = -log s: denoisers are a martingale in reverse time, so E|D_t - D_k|^2 = m_k - m_t. With
    ``w_k = (1/s_{k+1}^2 - 1/s_k^2)/2`` and m decreasing along the ladder that is at most
    ``sum_k w_k (m_k - m_{k+1})``; replacing w_k by its running maximum and m by
    [`largest_mmse`][scoresample.workflows.largest_mmse] gives the bound, by summation by parts.
    """
    increasing = np.maximum.accumulate(step_weights(noise))
    cap = largest_mmse(variances, noise[:-1])
    return float(increasing[0] * cap[0] + np.sum(np.diff(increasing) * cap[1:]))


def score_bound(score_error: float, dimension: int, noise: np.ndarray) -> float:
    """``d e sum_k (s_k^2/s_{k+1}^2 - 1)/2``, e the score's squared error in units of the noise, ``s^2 E|ds|^2/d``."""
    return float(score_error * dimension * np.sum(step_weights(noise) * noise[:-1] ** 2))


def least_score_bound(score_error: float, dimension: int, start: float, end: float) -> float:
    """What `score_bound` tends to as steps are added between two levels: ``d e log(s_0/s_N)``."""
    return float(score_error * dimension * np.log(start / end))


def step_weights(noise: np.ndarray) -> np.ndarray:
    """``w_k``, the integral of ``e^(2 lambda) dlambda`` over each step."""
    return np.diff(1 / np.asarray(noise) ** 2) / 2


def adapted_noise(variances: np.ndarray, start: float, end: float, num_steps: int) -> np.ndarray:
    """The ladder on which the discretisation bound is least, asymptotically.

    The path KL is the error of a left Riemann sum of m in the variable ``1/(2 s^2)``, so the best spacing is uniform in
    ``integral sqrt(-dm/dlambda) e^lambda dlambda``; for `largest_mmse`, ``sqrt(2 sum_i (v_i/(v_i + s^2))^2)``: uniform
    in log s near the data, longer and longer steps where they are drowned.
    """
    log_noise = np.linspace(np.log(start), np.log(end), _FINE)
    s2 = np.exp(2 * log_noise)[None]
    v, counts = (column[:, None] for column in np.unique(variances, return_counts=True))
    density = np.sqrt(2 * np.sum(counts * (v / (v + s2)) ** 2, axis=0))
    length = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * -np.diff(log_noise))])
    inner = np.interp(np.linspace(0, length[-1], num_steps + 1), length, log_noise)
    return np.exp(np.concatenate([log_noise[:1], inner[1:-1], log_noise[-1:]]))


def fewest_steps(bound: Callable[[int], float], most: float, limit: int) -> int | None:
    """A number of steps whose bound is at most `most`, within half a percent of the least, or None beyond `limit`.

    Bounds fall like 1/N: the first guess takes that literally.
    """
    if most <= 0:
        return None
    guess = max(int(TRIAL_STEPS * bound(TRIAL_STEPS) / most), 1)
    if guess > 1.5 * limit:
        return None
    low, high = 0, min(guess, limit)
    while bound(high) > most:
        if high == limit:
            return None
        low, high = high, min(int(1.3 * high) + 1, limit)
    low = max(low, int(high / 1.6))
    while low > 0 and bound(low) <= most:
        low, high = int(low / 1.6), low
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle) <= most else (middle, high)
    return high


class LangevinPlan(NamedTuple):
    """Annealed Langevin in the worst case.

    Attributes:
        noise: the levels, decreasing.
        steps: Langevin steps at each.
        step_size: of each, relative to ``1/L``, L the curvature that was given.
    """

    noise: np.ndarray
    steps: np.ndarray
    step_size: np.ndarray


_WARM = 1.0
"""Nats that a level may be off by before the next one starts, and Renyi-2 divergence of neighbours."""


def langevin_plan(
    variances: np.ndarray,
    log_sobolev: float,
    error: float,
    start: float,
    end: float,
    curvature: Callable[[np.ndarray], np.ndarray],
) -> LangevinPlan:
    """Levels and steps at which annealed Langevin ends within `error` nats, KL(law of the draws || noised data).

    At a level with log-Sobolev constant ``C + s^2`` (Chafai 2004, arXiv math/0211103) and curvature L, a bound on the
    Hessian of the log density on both sides, Langevin steps ``h <= 1/(4 C L^2)`` bring KL to at most
    ``exp(-n h/C) KL_0 + 8 h d L^2 C`` (Vempala and Wibisono 2019, arXiv 1903.08568, theorem 1). Levels are as far apart
    as keeps their Renyi-2 divergence, at most ``-d/2 log(1 - (r - 1)^2)`` for a ratio r of variances, within one nat;
    then the next starts from ``KL_0 <= 2 KL + R_2``, the weak triangle inequality. All but the last are left at one
    nat. The start, a normal law with the data's moments, is off by at most ``sum_i [2 u_i - log(1 + u_i)]/2``,
    ``u = v/s^2``, by convexity.
    """
    dimension = variances.size
    ratio = 1 + np.sqrt(-np.expm1(-2 * _WARM / dimension))
    num = max(int(np.ceil(2 * np.log(start / end) / np.log(ratio))), 1)
    noise = np.geomspace(start, end, num + 1)[1:]
    left = np.full(num, _WARM)
    left[-1] = min(error, _WARM)
    before = np.full(num, _WARM)
    share = variances / start**2
    before[0] = np.sum(2 * share - np.log1p(share)) / 2
    constant, lipschitz = log_sobolev + noise**2, curvature(noise)
    step = np.minimum(1 / (4 * constant * lipschitz**2), left / (16 * dimension * lipschitz**2 * constant))
    steps = np.ceil(np.maximum(np.log(2 * (2 * before + _WARM) / left), 0.0) * constant / step)
    return LangevinPlan(noise, np.maximum(steps, 1.0), step * lipschitz)
