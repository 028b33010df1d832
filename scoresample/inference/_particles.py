"""Running particles along a path, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference._progress import chunk_length, progress_bar
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractParticleSampler, AbstractPathSampler, ParticleInfo
from scoresample.scores import Position


@eqx.filter_jit
def _start(path: AbstractScorePath, plan: Any, key: Array, num_particles: int) -> Position:
    return path.sample_reference(key, num_particles, plan.t_start)


@eqx.filter_jit
def _run(
    path: AbstractScorePath, sampler: AbstractParticleSampler[Any], plan: Any, key: Array, num_particles: int
) -> tuple[Position, Array | None, ParticleInfo]:
    """A whole run, compiled as one."""
    key_start, key_run = jax.random.split(key)
    particles, log_weights, info = sampler.run(path, _start(path, plan, key_start, num_particles), plan, key=key_run)
    return _to_positions(path, particles), log_weights, info


@eqx.filter_jit
def _init(
    path: AbstractScorePath, sampler: AbstractPathSampler[Any], particles: Position, plan: Any, key: Array
) -> Any:
    return sampler.init(path, particles, plan, key=key)


@eqx.filter_jit
def _advance(
    path: AbstractScorePath, sampler: AbstractPathSampler[Any], state: Any, steps: Any, first: Array, key: Array
) -> tuple[Any, dict[str, Array]]:
    return sampler.advance(path, state, steps, first, key=key)


@eqx.filter_jit
def _final(path: AbstractScorePath, sampler: AbstractPathSampler[Any], state: Any, plan: Any) -> Position:
    return _to_positions(path, sampler.final(path, state, plan))


def _to_positions(path: AbstractScorePath, particles: Position) -> Position:
    return jax.vmap(lambda p, z: p.frame.to_position(z), in_axes=(path.condition_axes(), 0))(path, particles)


def _run_in_chunks(
    path: AbstractScorePath, sampler: AbstractPathSampler[Any], plan: Any, key: Array, num_particles: int, bar: Any
) -> tuple[Position, Array | None, ParticleInfo]:
    """The same run in chunks of one compiled length, so that a bar can move."""
    key_start, key_run = jax.random.split(key)
    key_init, key_steps = jax.random.split(key_run)
    state = _init(path, sampler, _start(path, plan, key_start, num_particles), plan, key_init)
    num_steps = _num_steps(plan)
    length = chunk_length(num_steps, must_divide=True)
    chunks = []
    for first in range(0, num_steps, length):
        steps = jax.tree.map(lambda x, first=first: x[first : first + length], plan.steps)
        state, stats = _advance(path, sampler, state, steps, jnp.asarray(first), key_steps)
        chunks.append(jax.tree.map(np.asarray, stats))
        jax.block_until_ready(state)
        bar.update(length)
    stats = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    return _final(path, sampler, state, plan), None, sampler.info(plan, stats)


def _num_steps(plan: Any) -> int:
    return jax.tree.leaves(plan.steps)[0].shape[0]


def _slice_conditions(path: AbstractScorePath, chosen: np.ndarray) -> AbstractScorePath:
    """The path with the conditions of some particles only."""
    axes = path.condition_axes()
    if axes is None:
        return path
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(lambda x: x[chosen], part),
        axes,
        path,
        is_leaf=lambda leaf: leaf is None,
    )


def run_particles(
    path: AbstractScorePath,
    sampler: AbstractParticleSampler[Any],
    plan: Any,
    *,
    key: Array,
    num_particles: int,
    batch_size: int | None,
    show: bool,
) -> tuple[Position, Array | None, float, dict[str, np.ndarray]]:
    """Draw particles from the path's reference and run them to the target.

    Particles are cut into equal blocks of `batch_size` (the last is filled up and the filling dropped), unless they
    interact; keys are folded from the key and the block, so draws depend on the key and the block size only.

    Returns:
        Positions with a leading axis, their log weights or None, the score evaluations per particle (mean over blocks),
        and the sampler's statistics with a leading block axis.
    """
    size = num_particles if batch_size is None or sampler.interacting else min(batch_size, num_particles)
    num_blocks = -(-num_particles // size)
    in_chunks = show and isinstance(sampler, AbstractPathSampler)
    results = []
    with progress_bar(num_blocks * (_num_steps(plan) if in_chunks else 1), type(sampler).__name__, show=show) as bar:
        for block in range(num_blocks):
            chosen = np.minimum(np.arange(block * size, (block + 1) * size), num_particles - 1)
            part, key_block = _slice_conditions(path, chosen), jax.random.fold_in(key, block)
            if in_chunks and isinstance(sampler, AbstractPathSampler):
                result = _run_in_chunks(part, sampler, plan, key_block, size, bar)
            else:
                result = _run(part, sampler, plan, key_block, size)
                bar.update()
            results.append(jax.tree.map(np.asarray, result))
    positions = jax.tree.map(lambda *x: np.concatenate(x)[:num_particles], *[r[0] for r in results])
    weights = None
    if results[0][1] is not None:
        weights = jnp.concatenate([r[1] for r in results])[:num_particles]
    stats = jax.tree.map(lambda *x: np.stack(x), *[r[2].stats for r in results])
    return positions, weights, float(np.mean([r[2].nfe for r in results])), stats
