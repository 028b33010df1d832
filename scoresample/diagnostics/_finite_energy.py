"""The integral that decides whether draws keep the support of the data, and what can be said of it from a few levels.

The reverse SDE with the noise of the forward process, ``dz = (f z - g^2 s) dt + g dW`` backwards, has another drift
with the score s_hat than with the true s: they differ by ``g^2 (s_hat - s)``. By Girsanov's theorem the divergence of
the two laws of paths is ``1/2 int g^2 E_{q_t}|s_hat - s|^2 dt``, with q_t the law of the noised data. If it is finite
down to t = 0, the data have no mass where the draws have none: the draws reach the whole support. That they also stay
on it takes the other direction, which an error that is bounded everywhere gives (Pidstrigach 2022, arXiv 2206.01018);
an integral over the law of the data alone does not see what the score does off the data. With another noise eta > 0 the
divergence is ``(1 + eta^2)^2/(4 eta^2)`` times as large, so the verdict is the same; for eta = 0 (the probability-flow
ODE) it says nothing. An infinite integral means no guarantee: an error like 1/sigma moves the denoised point by a
multiple of the noise, which vanishes; only one like 1/sigma^2 or worse moves it by a distance that stays.

The integral is one over noise levels: in the coordinates ``y = z/alpha`` the process only adds noise, ``g^2 dt =
alpha^2 d(s^2)`` with ``s = sigma/alpha``, and ``d(s^2) = 2 s^2 d(log s)``. So

    KL of the paths = int sigma^2 E_{q_t}|s_hat - s|^2 d(log s):

the mean square error of the predicted noise, summed over coordinates, is the integrand in nats for each e-fold of s. An
error of the score that stays bounded makes it fall like sigma^2, and the integral converges; an error like 1/sigma
keeps it constant, and the integral grows by as much with every e-fold.

Without the true score, ``E|sigma s_hat + e|^2 = E|sigma s + e|^2 + sigma^2 E|s_hat - s|^2``, since ``E[e | z] = -sigma
s``: the denoising loss is the integrand and what no score can do better than. The same gives ``E|sigma s + e|^2 = D -
sigma^2 E|s|^2``, which near a k-dimensional manifold tends to ``D - (D - k) = k``. So the loss less k is the integrand
where s is far below the scales of the data.
"""

import dataclasses
from typing import Literal

import numpy as np

EnergyVerdict = Literal["finite", "infinite", "cannot tell"]
EnergySource = Literal["exact", "dimension", "neighbours"]

_TAIL = 4
"""The last levels, from which the slope is taken."""
_STANDARD_ERRORS = 3.0
_NEGLIGIBLE = 1e-5
"""Nats for each e-fold and coordinate that count as none: single precision leaves up to 1e-8 at noise 0.002."""
_CONVERGES, _DIVERGES = 0.5, 0.25
"""Slopes in log s from which, and below which, an integrand ends: 2 for a bounded error, 0 for one like 1/sigma. Any
slope above 0 would do in the limit, but a few levels are not the limit."""


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteEnergy:
    """Whether the integral of the score's error over log noise converges at the data's end.

    Attributes:
        verdict: "finite", "infinite" or "cannot tell".
        rate: the integrand by level, nats for each e-fold of sigma/alpha; nan where it is not known.
        rate_se: its standard error, with that of the dimension where that was needed.
        slope: of log rate in log(sigma/alpha) over the last levels; nan where the rate is not above its error
            at each of them.
        slope_se: its standard error.
        total: the integral over the levels where the rate is known, by trapezoids, in nats.
        total_se: its standard error.
        seen: whether the rate at the last level is above its error, three times over.
        source: "exact" against the true score, "dimension" from the loss and a given dimension, "neighbours" from the
            loss and the dimension that the draws show.
        dimension: what was taken from the loss; nan with the true score.
        dimension_se: its standard error.
    """

    verdict: EnergyVerdict
    rate: np.ndarray
    rate_se: np.ndarray
    slope: float
    slope_se: float
    total: float
    total_se: float
    seen: bool
    source: EnergySource
    dimension: float = float("nan")
    dimension_se: float = 0.0


def energy_against_exact(error: np.ndarray, noise: np.ndarray, size: int) -> FiniteEnergy:
    """The integral from the squared distances to the true score.

    Arguments:
        error: ``sigma^2 |s_hat - s|^2``, shape (levels, points).
        noise: sigma/alpha of the levels, decreasing.
        size: D, the number of coordinates.
    """
    return _judged(error, noise, np.zeros(len(noise)), 0.0, size, "exact", float("nan"), seen=True)


def energy_from_loss(
    loss: np.ndarray,
    score: np.ndarray,
    noise: np.ndarray,
    size: int,
    dimension: float,
    dimension_se: float,
    *,
    source: EnergySource,
) -> FiniteEnergy:
    """The integral from the held-out denoising loss, at the last levels only.

    Draws show no directions that are thinner than the distance of neighbours. So where the dimension is their own
    estimate, an excess of the loss counts only if the score contradicts itself as well: ``E|sigma s + e|^2 = D -
    sigma^2 E|s|^2`` holds for the true score, of whatever dimension.

    Arguments:
        loss: ``|sigma s_hat + e|^2``, shape (levels, points).
        score: ``sigma^2 |s_hat|^2``, likewise.
        noise: sigma/alpha of the levels, decreasing.
        size: D, the number of coordinates.
        dimension: k.
        dimension_se: its standard error.
        source: "dimension" or "neighbours".
    """
    contradiction = loss + score - size
    chance = np.std(contradiction[-1]) / np.sqrt(loss.shape[1])
    contradicts = bool(np.abs(np.mean(contradiction[-1])) > _STANDARD_ERRORS * chance)
    offset = np.where(_is_last(noise), dimension, np.nan)
    seen = contradicts or source == "dimension"
    return _judged(loss, noise, offset, dimension_se, size, source, dimension, seen=seen)


def _is_last(noise: np.ndarray) -> np.ndarray:
    return np.arange(len(noise)) >= len(noise) - _TAIL


def _judged(
    values: np.ndarray,
    noise: np.ndarray,
    offset: np.ndarray,
    offset_se: float,
    size: int,
    source: EnergySource,
    dimension: float,
    *,
    seen: bool,
) -> FiniteEnergy:
    """The rate, its slope and the verdict; `seen` may be denied beforehand."""
    number = values.shape[1]
    rate = np.mean(values, axis=1) - offset
    rate_se = np.hypot(np.std(values, axis=1) / np.sqrt(number), offset_se)
    weights = _trapezoids(np.log(noise), np.isfinite(rate))
    total = float(np.sum(weights * np.where(weights > 0, rate, 0.0)))
    spread = np.std(weights @ np.where(weights[:, None] > 0, values, 0.0))
    total_se = float(np.hypot(spread / np.sqrt(number), np.sum(weights) * offset_se))
    tail = _is_last(noise)
    negligible = bool(np.all(np.abs(rate[tail]) + _STANDARD_ERRORS * rate_se[tail] <= _NEGLIGIBLE * size))
    above = rate > _STANDARD_ERRORS * rate_se
    seen = seen and not negligible and bool(above[-1])
    slope = slope_se = float("nan")
    verdict: EnergyVerdict = "finite" if negligible else "cannot tell"
    if not np.isfinite(values).all():
        verdict = "infinite"
    elif seen and tail.sum() >= _TAIL - 1 and above[tail].all():
        slope, slope_se = _slope(values[tail], rate[tail], np.log(noise[tail]), offset_se)
        if slope - _STANDARD_ERRORS * slope_se > _CONVERGES:
            verdict = "finite"
        elif slope + _STANDARD_ERRORS * slope_se < _DIVERGES:
            verdict = "infinite"
    elif seen and tail.sum() >= _TAIL - 1 and _grows(values[tail]):
        verdict = "infinite"
    return FiniteEnergy(
        verdict, rate, rate_se, slope, slope_se, total, total_se, seen, source, dimension, float(offset_se)
    )


def _grows(values: np.ndarray) -> bool:
    """Whether the last level has more than the first, beyond chance; the noise at a point is the same at all levels."""
    growth = values[-1] - values[0]
    return bool(np.mean(growth) > _STANDARD_ERRORS * np.std(growth) / np.sqrt(len(growth)))


def _slope(values: np.ndarray, rate: np.ndarray, log_noise: np.ndarray, offset_se: float) -> tuple[float, float]:
    """The least-squares slope of the logarithm, and its standard error by first differences in the points."""
    centred = log_noise - np.mean(log_noise)
    weights = centred / np.sum(centred**2)
    chance = np.std((weights / rate) @ values) / np.sqrt(values.shape[1])
    return float(weights @ np.log(rate)), float(np.hypot(chance, np.sum(weights / rate) * offset_se))


def _trapezoids(log_noise: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The weight of each level in the integral over log noise, zero where the integrand is not known."""
    weights = np.zeros(len(log_noise))
    places = np.flatnonzero(known)
    if len(places) > 1:
        steps = -np.diff(log_noise[places]) / 2
        weights[places[:-1]] += steps
        weights[places[1:]] += steps
    return weights
