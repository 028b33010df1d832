"""How the levels of annealed Langevin are placed."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractPerturbedScore,
    AbstractScorePath,
    Grid,
    GridName,
    TemperedPath,
    check_delta,
    check_grid,
    noise_levels,
)
from scoresample.samplers._adaptive_ladder import adaptive_ladder
from scoresample.samplers._corrector import AbstractCorrector
from scoresample.samplers._level_step import StepRule

LadderName = Literal["adaptive", "power"]
LadderChoice = LadderName | Grid | None
"""On tempered paths a `LadderName`, on noised ones a `GridName`; or times; None by the path."""

_TEMPERED_POWER = 3.0
"""Inverse temperatures of the "power" ladder are ``(k/n)^3``: densest where the reference changes fastest."""


class Ladder(NamedTuple):
    """Levels from noise, or the reference, to the target.

    Attributes:
        t: decreasing times.
        rescale: the factors that take particles to each level from the one before.
        divergence: Renyi-2 divergence of neighbours in the limit of short steps, (length/levels)^2; nan where it was
            not measured.
        evaluations: score evaluations that it took to find them.
        curvature: L at each level, where it was found beforehand; else nan.
    """

    t: np.ndarray
    rescale: np.ndarray
    divergence: float = float("nan")
    evaluations: int = 0
    curvature: np.ndarray = np.full((), np.nan)


def check_ladder(ladder: LadderChoice, delta: float | None) -> None:
    """Raise a ValueError unless it is a name that some path knows, or decreasing times without a `delta`."""
    check_delta(delta, ladder, name="ladder")
    names = get_args(LadderName) + get_args(GridName)
    if isinstance(ladder, str) and ladder not in names:
        raise ValueError(f"`ladder` must be one of {list(names)} or decreasing times, got {ladder!r}.")


def noised_ladder(path: AbstractPerturbedScore, ladder: LadderChoice, num_levels: int, delta: float | None) -> Ladder:
    """Levels of noise: a grid by name, or times."""
    if isinstance(ladder, str) and ladder in get_args(LadderName):
        raise ValueError(f'`ladder`: "{ladder}" is for tempered paths. Noised ones: {list(get_args(GridName))}.')
    grid: Any = "log-snr" if ladder is None else ladder
    if np.ndim(grid) == 1 and np.size(grid) < 2:
        raise ValueError("`ladder`: times of your own must be two or more. For one level: num_levels=1, no `ladder`.")
    levels = noise_levels(path, max(num_levels - 1, 1), grid, delta)
    if not isinstance(ladder, str | None):
        _check_number(levels.t.size, num_levels)
    alpha = levels.alpha[-num_levels:]
    return Ladder(levels.t[-num_levels:], np.concatenate([[1.0], alpha[1:] / alpha[:-1]]))


def tempered_ladder(
    path: AbstractScorePath,
    ladder: LadderChoice,
    num_levels: int,
    corrector: AbstractCorrector,
    *,
    rule: StepRule,
    relative: float,
    num_steps: int,
    key: Array,
) -> Ladder:
    """Levels of inverse temperature: by a pilot run with the corrector, a power of the level's number, or times."""
    ones = np.ones(num_levels)
    if ladder is None:
        ladder = "adaptive" if isinstance(path, TemperedPath) else "power"
    if not isinstance(ladder, str):
        t = np.asarray(check_grid(ladder), np.float64)
        _check_number(t.size, num_levels)
        if t[-1] != 0:
            raise ValueError(f"`ladder`: the last level must be the target, t=0, got {t[-1]}.")
        return Ladder(t, ones)
    if ladder == "power":
        return Ladder(1 - (np.arange(1, num_levels + 1) / num_levels) ** _TEMPERED_POWER, ones)
    if ladder != "adaptive":
        raise ValueError(f'`ladder`: "{ladder}" is for noised paths. Tempered ones: "adaptive" or "power".')
    if not isinstance(path, TemperedPath):
        raise ValueError(f'`ladder`: "adaptive" needs a TemperedPath, got {type(path).__name__}.')
    t, divergence, evaluations = adaptive_ladder(
        path, num_levels, corrector, rule=rule, relative=relative, num_steps=num_steps, key=key
    )
    return Ladder(t, ones, divergence, evaluations)


def refined_ladder(ladder: LadderChoice, num_levels: int, factor: int) -> LadderChoice:
    """A ladder of `factor` times as many levels: the name, or times in between."""
    if isinstance(ladder, str | None):
        return ladder
    places = np.linspace(0, num_levels - 1, factor * num_levels)
    return np.interp(places, np.arange(num_levels), np.asarray(ladder, np.float64))


def _check_number(given: int, num_levels: int) -> None:
    if given != num_levels:
        raise ValueError(f"`ladder` has {given} times for num_levels={num_levels}. Give as many.")
