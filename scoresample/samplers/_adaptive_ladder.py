"""A ladder of inverse temperatures on which every level is an equally warm start for the next."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import TemperedPath, as_time
from scoresample.samplers._base import dimension_of
from scoresample.samplers._corrector import AbstractCorrector
from scoresample.samplers._level_step import StepRule, correct_level, evaluations_of_rule
from scoresample.scores import Position

_NUM_PARTICLES = 512
_PILOT_DIVERGENCE = 0.5
"""Renyi-2 divergence between the pilot's own levels: an effective share of exp(-1/2) = 61% of its particles."""
_MOST_LEVELS = 1000
_LEAST_LOG_RATIO = -1e30
"""Stands for minus infinity in log densities."""


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
    into equal parts.

    Arguments:
        path: the path.
        num_levels: number of levels, the target among them.
        corrector: what moves particles at a level.
        rule: where its steps come from.
        relative: their relative size.
        num_steps: their number.
        key: random key.

    Returns:
        Decreasing times, 1 minus the inverse temperatures, of which the last is 0; the Renyi-2 divergence of
        neighbours, ``log E_k[(p_{k+1}/p_k)^2]``; and the score evaluations that it took. The ladder does not depend on
        the particles of the run that follows, whose weights it therefore leaves unbiased.

    Raises:
        ValueError: if the target is so far from the reference that the pilot does not arrive.
    """
    key_start, key_moves = jax.random.split(key)
    particles = path.sample_reference(key_start, _NUM_PARTICLES)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    betas, lengths, evaluations = [0.0], [0.0], 0.0
    while betas[-1] < 1:
        if len(betas) > _MOST_LEVELS:
            raise ValueError(
                f'`ladder`: the pilot of the "adaptive" ladder was at inverse temperature {betas[-1]:.3g} after '
                f"{_MOST_LEVELS} levels (dimension {dimension_of(path.structure)}). Take a reference closer to the "
                'target, such as pathfinder(score, key=key).gaussian(), or ladder="power".'
            )
        ratios = np.asarray(_log_ratios(path, particles), np.float64)
        ratios = np.where(np.isnan(ratios), _LEAST_LOG_RATIO, np.maximum(ratios, _LEAST_LOG_RATIO))
        step = _longest_step(ratios, 1 - betas[-1])
        divergence = _renyi_2(step * ratios)
        betas.append(1.0 if step >= 1 - betas[-1] else betas[-1] + step)
        lengths.append(lengths[-1] + np.sqrt(max(divergence, 0.0)))
        weights = np.exp(step * (ratios - ratios.max()))
        parents = generator.choice(_NUM_PARTICLES, size=_NUM_PARTICLES, p=weights / weights.sum())
        particles = jax.tree.map(lambda x, rows=parents: x[rows], particles)
        level = jnp.asarray(1 - betas[-1], dtype=float)
        particles, found = _moved(
            path, particles, level, corrector, rule, jnp.asarray(relative, dtype=float), num_steps,
            jax.random.fold_in(key_moves, len(betas)),
        )  # fmt: skip
        known = num_steps * corrector.evaluations_per_step + corrector.evaluations_per_level
        evaluations += _NUM_PARTICLES * (known + float(found) + evaluations_of_rule(rule) + 1)
    if lengths[-1] == 0:  # The target is the reference: any levels will do.
        lengths = betas
    at = np.interp(np.arange(1, num_levels + 1) / num_levels * lengths[-1], lengths, betas)
    at[-1] = 1.0
    return 1 - at, float((lengths[-1] / num_levels) ** 2), round(evaluations)


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
) -> tuple[Position, Array]:
    """Particles after the moves of one level, and the score evaluations of each that were not known beforehand."""
    particles, stats = correct_level(
        path, particles, as_time(t, particles), corrector, rule=rule, relative=relative,
        num_steps=num_steps, key=key,
    )  # fmt: skip
    return particles, stats.get("num_evaluations", jnp.zeros(()))


@eqx.filter_jit
def _log_ratios(path: TemperedPath, particles: Position) -> Array:
    """``log target - log reference`` of every particle."""
    ends = [jax.vmap(path.standard_logdensity, in_axes=(0, None))(particles, jnp.asarray(t)) for t in (0.0, 1.0)]
    return ends[0] - ends[1]


def _renyi_2(log_weights: np.ndarray) -> float:
    """``log E[w^2] - 2 log E[w]``: minus the logarithm of the effective share."""
    weights = np.exp(log_weights - log_weights.max())
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
