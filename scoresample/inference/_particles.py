"""Running particles along a path, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._outputs import ParticleOutput, Particles
from scoresample.inference._progress import chunk_length, progress_bar
from scoresample.inference._sharding import num_devices, on_devices, placed
from scoresample.paths import AbstractScorePath, num_conditions, of_particles
from scoresample.samplers import PER_PARTICLE, AbstractParticleSampler, AbstractPathSampler, ParticleInfo
from scoresample.scores import Position


@eqx.filter_jit
def _start(path: AbstractScorePath, plan: Any, key: Array, num_particles: int) -> Position:
    return path.sample_reference(key, num_particles, plan.t_start)


def _run_block(
    path: AbstractScorePath, sampler: AbstractParticleSampler[Any], plan: Any, key: Array, num_particles: int
) -> tuple[Position, Array | None, ParticleInfo]:
    """A whole run."""
    key_start, key_run = jax.random.split(key)
    particles, log_weights, info = sampler.run(path, _start(path, plan, key_start, num_particles), plan, key=key_run)
    return _to_positions(path, particles), log_weights, info


run_block = eqx.filter_jit(_run_block)


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
def _final(
    path: AbstractScorePath, sampler: AbstractPathSampler[Any], state: Any, plan: Any
) -> tuple[Position, Array | None]:
    particles, log_weights = sampler.final(path, state, plan)
    return _to_positions(path, particles), log_weights


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
    stats = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *chunks)
    return *_final(path, sampler, state, plan), sampler.info(plan, stats)


def _num_steps(plan: Any) -> int:
    return jax.tree.leaves(plan.steps)[0].shape[0]


@eqx.filter_jit
def _run_on_devices(
    paths: tuple[AbstractScorePath, AbstractScorePath],
    sampler: AbstractParticleSampler[Any],
    plan: Any,
    keys: Array,
    num_particles: int,
    mesh: Mesh,
) -> tuple[Position, Array | None, ParticleInfo]:
    """A whole run of one block on every device; `paths` are what all blocks share, and each block's conditions."""
    shared, conditions = paths

    def one(everything: Any, block: Any) -> tuple[Position, Array | None, ParticleInfo]:
        path, sampler, plan = everything
        own, key = block
        return _run_block(eqx.combine(own, path), sampler, plan, key, num_particles)

    return on_devices(one, mesh, (shared, sampler, plan), (conditions, keys))


def _split_conditions(path: AbstractScorePath) -> tuple[AbstractScorePath, AbstractScorePath]:
    """A path without its conditions, and its conditions alone, with None in the place of the others."""
    axes = path.condition_axes()
    if axes is None:
        return path, jax.tree.map(lambda _: None, path)
    chosen = jax.tree.map(
        lambda axis, part: jax.tree.map(lambda _: axis is not None, part), axes, path, is_leaf=lambda leaf: leaf is None
    )
    conditions, shared = eqx.partition(path, chosen)
    return shared, conditions


def check_number(path: AbstractScorePath, num_particles: int) -> None:
    """Raise unless a path has as many conditions as there are particles, or the same for all."""
    number = num_conditions(path)
    if number is not None and number != num_particles:
        raise ValueError(
            f"`target` holds conditions for {number} particles, but {num_particles} are asked for. Give each its own, "
            "num_samples * num_chains of them, or one for all."
        )


def split_outcome(positions: Position, log_weights: Any, info: ParticleInfo) -> tuple[Particles, ParticleInfo]:
    """What a run tells of each particle, and of the block as a whole."""
    stats = {name: value for name, value in info.stats.items() if name in PER_PARTICLE}
    rest = {name: value for name, value in info.stats.items() if name not in PER_PARTICLE}
    return Particles(positions, log_weights, stats), info._replace(stats=rest)


def run_particles(
    path: AbstractScorePath,
    sampler: AbstractParticleSampler[Any],
    plan: Any,
    *,
    key: Array,
    num_particles: int,
    size: int,
    mesh: Mesh | None,
    show: bool,
    output: ParticleOutput,
    label: str = "",
) -> None:
    """Draw particles from the path's reference and run them to the target, except for what the output has already.

    Particles are cut into equal blocks of `size` (the last is filled up and the filling dropped), unless they
    interact; keys are folded from the key and the block, so draws depend on the key and the block size only. Every
    block goes to the output as soon as it is there.

    On several devices blocks run as one program, with one compilation and draws that are the same up to rounding;
    where the output wants the same bits, each runs as the program of a single device, compiled for each.
    """
    check_number(path, num_particles)
    mesh = None if sampler.interacting else mesh
    at_once = num_devices(mesh)
    left = [block for block in range(-(-num_particles // size)) if not output.done(block)]
    in_chunks = show and mesh is None and isinstance(sampler, AbstractPathSampler) and not output.exact_bits
    total = len(left) * (_num_steps(plan) if in_chunks else 1)
    with progress_bar(total, f"{type(sampler).__name__} {label}".rstrip(), show=show) as bar:
        for first in range(0, len(left), at_once):
            group = left[first : first + at_once]
            parts = [of_particles(path, _particles_of(block, size, num_particles)) for block in group]
            keys = [jax.random.fold_in(key, block) for block in group]
            if in_chunks and isinstance(sampler, AbstractPathSampler):
                outcomes = [_run_in_chunks(parts[0], sampler, plan, keys[0], size, bar)]
            elif mesh is None:
                outcomes = [run_block(parts[0], sampler, plan, keys[0], size)]
            elif output.exact_bits:
                # All devices are given their work before the first is waited for.
                devices = zip(parts, keys, mesh.devices.flat, strict=False)
                work = [placed((part, sampler, plan, k), device) for part, k, device in devices]
                outcomes = [run_block(part, sampler, plan, k, size) for part, sampler, plan, k in work]
            else:
                # Devices without a block of their own repeat the last one.
                parts += parts[-1:] * (at_once - len(group))
                keys += keys[-1:] * (at_once - len(group))
                shared, conditions = zip(*(_split_conditions(part) for part in parts), strict=True)
                stacked = jax.tree.map(lambda *x: jnp.stack(x), *conditions)
                result = _run_on_devices((shared[0], stacked), sampler, plan, jnp.stack(keys), size, mesh)
                outcomes = [jax.tree.map(lambda x, k=k: x[k], result) for k in range(len(group))]
            for block, outcome in zip(group, outcomes, strict=True):
                particles, info = split_outcome(*jax.tree.map(np.asarray, outcome))
                num = min(size, num_particles - block * size)
                output.write(block, jax.tree.map(lambda x, n=num: x[:n], particles), info)
            if not in_chunks:
                bar.update(len(group))


def _particles_of(block: int, size: int, num_particles: int) -> np.ndarray:
    return np.minimum(np.arange(block * size, (block + 1) * size), num_particles - 1)
