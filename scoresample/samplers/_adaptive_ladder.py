"""What a pilot run finds out about a tempered path: equally close levels, and the steps that suit them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc import resampling
from jaxtyping import Array

from scoresample.paths import TemperedPath, as_time
from scoresample.samplers._base import dimension_of
from scoresample.samplers._corrector import AbstractCorrector
from scoresample.samplers._level_step import StepRule, correct_level, evaluations_of_rule
from scoresample.scores import Position

_NUM_PARTICLES = 512
_PILOT_DIVERGENCE = 0.05
"""Renyi-2 divergence between the pilot's own levels: short steps, whose lengths add up."""
_MOST_LEVELS = 1000


def adaptive_ladder(
    path: TemperedPath,
    num_levels: int,
    corrector: AbstractCorrector,
    *,
    rule: StepRule,
    relative: float,
    num_steps: int,
    key: Array,
) -> tuple[np.ndarray, float, int]:
    """Place levels by a pilot run, so that the Renyi-2 divergence of neighbours is the same all along.

    A population of 512 goes from the reference to the target in steps as long as ``log E_k[w^2] - 2 log E_k[w]``,
    ``w = p_{k+1}/p_k``, allows; it is resampled by w and moved at each. For short steps that divergence is the square
    of a length, ``dbeta sqrt(Var_beta log(target/reference))``, and lengths add up: the levels divide the whole length
    into equal parts. In the limit of many levels the divergence in the other direction is the same.

    Arguments:
        path: the path.
        num_levels: number of levels, the target among them.
        corrector: what moves particles at a level.
        rule: where its steps come from.
        relative: their relative size.
        num_steps: their number.
        key: random key.

    Returns:
        Decreasing times, 1 minus the inverse temperatures, of which the last is 0; the square of the length of a step,
        which is the Renyi-2 divergence of neighbours in either direction if it is small; and the score evaluations that
        it took. The ladder does not depend on the particles of the run that follows, whose weights it therefore leaves
        unbiased.

    Raises:
        ValueError: if the target is so far from the reference that the pilot does not arrive.
    """
    key_start, key_moves, key_resample = jax.random.split(key, 3)
    particles = path.sample_reference(key_start, _NUM_PARTICLES)
    betas, lengths, evaluations = [0.0], [0.0], 0.0
    while betas[-1] < 1:
        if len(betas) > _MOST_LEVELS:
            raise ValueError(
                f'`ladder`: the pilot of the "adaptive" ladder was at inverse temperature {betas[-1]:.3g} after '
                f"{_MOST_LEVELS} levels (dimension {dimension_of(path.structure)}). Take a reference closer to the "
                'target, such as pathfinder(score, key=key).gaussian(), or ladder="power".'
            )
        ratios = _usable_log_ratios(path, particles)
        step = _longest_step(ratios, 1 - betas[-1])
        divergence = _renyi_2(step * ratios)
        betas.append(1.0 if step >= 1 - betas[-1] else betas[-1] + step)
        lengths.append(lengths[-1] + np.sqrt(max(divergence, 0.0)))
        particles = _resampled(particles, step * ratios, jax.random.fold_in(key_resample, len(betas)))
        level = jnp.asarray(1 - betas[-1], dtype=float)
        particles, _, found = _moved(
            path, particles, level, corrector, rule, jnp.asarray(relative, dtype=float), num_steps,
            jax.random.fold_in(key_moves, len(betas)),
        )  # fmt: skip
        evaluations += _NUM_PARTICLES * (_cost(corrector, rule, num_steps) + float(found) + 1)
    if lengths[-1] == 0:  # The target is the reference: any levels will do.
        lengths = betas
    at = np.interp(np.arange(1, num_levels + 1) / num_levels * lengths[-1], lengths, betas)
    at[-1] = 1.0
    return 1 - at, float((lengths[-1] / num_levels) ** 2), round(evaluations)


def pilot_curvatures(
    path: TemperedPath,
    times: np.ndarray,
    corrector: AbstractCorrector,
    *,
    rule: StepRule,
    relatives: np.ndarray,
    num_steps: int,
    key: Array,
) -> tuple[np.ndarray, int]:
    """The curvatures ``L = c/h`` that a rule finds along a ladder, on a population that the run does not share.

    Steps that were found from the particles they move would not leave the weights of these particles unbiased.

    Arguments:
        path: the path.
        times: the levels.
        corrector: what moves particles at a level.
        rule: where its steps come from.
        relatives: their relative sizes c, level by level.
        num_steps: their number.
        key: random key.

    Returns:
        One curvature for each level, and the score evaluations that they took.
    """
    key_start, key_moves, key_resample = jax.random.split(key, 3)
    particles = path.sample_reference(key_start, _NUM_PARTICLES)
    curvatures, evaluations, before = [], 0.0, 1.0
    for number, (time, relative) in enumerate(zip(times, relatives, strict=True)):
        if time < before:
            log_weights = (before - time) * _usable_log_ratios(path, particles)
            particles = _resampled(particles, log_weights, jax.random.fold_in(key_resample, number))
        particles, size, found = _moved(
            path, particles, jnp.asarray(time, dtype=float), corrector, rule, jnp.asarray(relative, dtype=float),
            num_steps, jax.random.fold_in(key_moves, number),
        )  # fmt: skip
        curvatures.append(relative / float(size))
        evaluations += _NUM_PARTICLES * (_cost(corrector, rule, num_steps) + float(found) + 1)
        before = time
    return np.array(curvatures), round(evaluations)


def _cost(corrector: AbstractCorrector, rule: StepRule, num_steps: int) -> int:
    """Score evaluations of a particle at one level, as far as they are known."""
    return num_steps * corrector.evaluations_per_step + corrector.evaluations_per_level + evaluations_of_rule(rule)


def _resampled(particles: Position, log_weights: np.ndarray, key: Array) -> Position:
    weights = np.exp(log_weights - log_weights.max())
    rows = resampling.systematic(key, jnp.asarray(weights / weights.sum(), dtype=float), weights.size)
    return jax.tree.map(lambda x: x[rows], particles)


def _usable_log_ratios(path: TemperedPath, particles: Position) -> np.ndarray:
    """``log target - log reference`` of every particle, minus infinity where the target has no mass."""
    ratios = np.asarray(_log_ratios(path, particles), np.float64)
    ratios = np.where(np.isnan(ratios), -np.inf, ratios)
    if not np.isfinite(ratios).any():
        raise ValueError(
            "`ladder`: the target has no mass at any of the pilot's particles. Take a reference that covers the target."
        )
    return ratios


@eqx.filter_jit
def _moved(
    path: TemperedPath,
    particles: Position,
    t: Array,
    corrector: AbstractCorrector,
    rule: StepRule,
    relative: Array,
    num_steps: int,
    key: Array,
) -> tuple[Position, Array, Array]:
    """Particles after the moves of one level, the size of their steps, and evaluations not known beforehand."""
    particles, stats = correct_level(
        path, particles, as_time(t, particles), corrector, rule=rule, relative=relative, num_steps=num_steps, key=key
    )
    return particles, stats["level_step_size"], stats.get("num_evaluations", jnp.zeros(()))


@eqx.filter_jit
def _log_ratios(path: TemperedPath, particles: Position) -> Array:
    """The same, wherever they are."""
    ends = [jax.vmap(path.standard_logdensity, in_axes=(0, None))(particles, jnp.asarray(t)) for t in (0.0, 1.0)]
    return ends[0] - ends[1]


def _renyi_2(log_weights: np.ndarray) -> float:
    """``log E[w^2] - 2 log E[w]`` where the target has mass: minus the logarithm of the effective share."""
    some = log_weights[np.isfinite(log_weights)]
    weights = np.exp(some - some.max())
    return float(np.log(np.mean(weights**2)) - 2 * np.log(np.mean(weights)))


def _longest_step(ratios: np.ndarray, left: float) -> float:
    """The longest step in inverse temperature, up to `left`, with at most the pilot's divergence."""
    if _renyi_2(left * ratios) <= _PILOT_DIVERGENCE:
        return left
    low, high = 0.0, left
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _renyi_2(middle * ratios) <= _PILOT_DIVERGENCE else (low, middle)
    return max(low, np.finfo(float).tiny)
