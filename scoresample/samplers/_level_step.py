"""The step size of Langevin moves at one level of a path, and settings that change from level to level."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractScorePath, estimate_lipschitz, score_particles
from scoresample.samplers._base import inner_products
from scoresample.samplers._corrector import AbstractCorrector, LevelStep
from scoresample.samplers._doors import check_at_least, check_positive
from scoresample.scores import Position, random_like

StepRuleName = Literal["noise", "jacobian", "snr"]
StepRule = StepRuleName | Callable[[Array], Array]
"""How step sizes follow the levels: by name, or by a function t -> Lipschitz constant."""


def check_step_rule(rule: StepRule) -> None:
    """Refuse a rule that is neither a name nor a function."""
    if not callable(rule) and rule not in get_args(StepRuleName):
        raise ValueError(
            f"`step_rule` must be one of {list(get_args(StepRuleName))} or a function t -> Lipschitz constant, got "
            f"{rule!r}."
        )


def evaluations_of_rule(rule: StepRule) -> int:
    """Score evaluations of every particle that finding the step of a level takes."""
    return 1 if rule == "snr" else 0


def estimates_steps(path: AbstractScorePath, rule: StepRule) -> bool:
    """Whether a rule finds the steps of this path from the particles."""
    return rule in ("jacobian", "snr") or (rule == "noise" and path.lipschitz(jnp.ones(())) is None)


def level_step(
    path: AbstractScorePath, particles: Position, t: Array, *, rule: StepRule, relative: Array, key: Array
) -> LevelStep:
    """The step h_t of ``x + h s(x, t) + sqrt(2 h) z`` at one level.

    * ``"noise"``: ``h = c / L`` with the path's own Lipschitz constant, ``1/sigma_t^2`` for noised data; where the path
      has none, as below.
    * ``"jacobian"``: ``h = c / L`` with L the largest singular value of the score's Jacobian over some particles.
    * ``"snr"``: ``h = 2 (c mean|z| / mean|s|)^2``, the signal-to-noise rule of Song et al. 2021, arXiv 2011.13456,
      algorithm 4. It does not know the curvature: keep c near .16.
    * a function t -> L: ``h = c / L(t)``.

    Arguments:
        path: the path.
        particles: where it is, in standard coordinates, with a leading axis.
        t: the level.
        rule: the rule.
        relative: c.
        key: random key of what is estimated.

    Returns:
        The step, shared by all particles.
    """
    relative = relative.astype(t.dtype)
    if callable(rule):
        return LevelStep(relative / jnp.asarray(rule(t)).astype(t.dtype), relative)
    if rule == "snr":
        noise, scores = random_like(key, particles), score_particles(path, particles, t)
        norm_noise, norm_score = (jnp.mean(jnp.sqrt(inner_products(x, x))) for x in (noise, scores))
        ratio = norm_noise / jnp.maximum(norm_score, np.finfo(t.dtype).tiny)
        return LevelStep(2 * (relative * ratio) ** 2, relative)
    lipschitz = path.lipschitz(t) if rule == "noise" else None
    if lipschitz is None:
        lipschitz = estimate_lipschitz(path, particles, t, key=key)
    return LevelStep(relative / lipschitz.astype(t.dtype), relative)


def correct_level(
    path: AbstractScorePath,
    particles: Position,
    t: Array,
    corrector: AbstractCorrector,
    *,
    rule: StepRule,
    relative: Array,
    num_steps: int | Array,
    key: Array,
) -> tuple[Position, dict[str, Array]]:
    """All moves of a corrector at one level: the particles, and statistics by name, the step size among them."""
    key_rule, key_moves = jax.random.split(key)
    step = level_step(path, particles, t, rule=rule, relative=relative, key=key_rule)
    particles, stats = corrector.correct(path, particles, t, step, num_steps=num_steps, key=key_moves)
    return particles, {"level_step_size": step.size} | stats


def check_counts(name: str, value: int | tuple[int, ...]) -> None:
    """Raise a ValueError unless a setting is a whole number of at least 1, or one for every level."""
    for each in value if isinstance(value, tuple) else (value,):
        check_at_least(1, **{name: each})


def check_relative_steps(name: str, value: float | tuple[float, ...] | None, most: float) -> None:
    """Raise a ValueError unless a relative step size, or one for every level, is positive and below `most`."""
    check_positive(**{name: value})
    if value is not None and np.max(value) >= most:
        raise ValueError(f"`{name}` is in units of 1/L and Langevin diverges from {most:g} on, got {value}.")


def for_each_level(name: str, value: Any, num_levels: int) -> np.ndarray:
    """A setting as an array with one entry for each level.

    Raises:
        ValueError: if a tuple has another length.
    """
    if isinstance(value, tuple) and len(value) != num_levels:
        raise ValueError(f"`{name}` has {len(value)} entries for {num_levels} levels. Give one number, or as many.")
    return np.broadcast_to(np.asarray(value), (num_levels,))


def repeated[Setting](value: Setting, factor: int) -> Setting:
    """A setting for `factor` times as many levels."""
    return tuple(np.repeat(value, factor).tolist()) if isinstance(value, tuple) else value  # pyright: ignore
