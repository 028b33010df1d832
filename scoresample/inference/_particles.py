"""Running particles along a path, block by block."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._progress import chunk_length, progress_bar
from scoresample.inference._sharding import num_devices, on_devices
from scoresample.paths import AbstractScorePath, with_conditions_of
from scoresample.samplers import AbstractParticleSampler, AbstractPathSampler, ParticleInfo
from scoresample.scores import Position


class ParticleDraws(NamedTuple):
    """What a run returns, on the host.

    Attributes:
        positions: a tree with a leading particle axis.
        log_weights: one for each particle, or None.
        non_finite: whether a particle has a number that is not finite.
        nfe: score evaluations per particle, the mean over blocks.
        stats: the sampler's statistics, with a leading block axis.
    """

    positions: Position
    log_weights: np.ndarray | None
    non_finite: np.ndarray
    nfe: float
    stats: dict[str, np.ndarray]


class _Buffer:
    """Preallocated arrays on the host, filled block by block."""

    def __init__(self, num_particles: int) -> None:
        self.num = num_particles
        self.arrays: Any = None
        self.non_finite = np.zeros(num_particles, bool)
        self.infos: list[ParticleInfo] = []

    def write(self, start: int, outcome: tuple[Position, Array | None, ParticleInfo]) -> None:
        """Write a block from particle `start` on, dropping what goes beyond the end."""
        arrays, info = outcome[:2], outcome[2]
        if self.arrays is None:
            self.arrays = jax.tree.map(lambda x: np.empty((self.num, *x.shape[1:]), x.dtype), arrays)
        stop = min(start + jax.tree.leaves(arrays)[0].shape[0], self.num)
        for buffer, block in zip(jax.tree.leaves(self.arrays), jax.tree.leaves(arrays), strict=True):
            buffer[start:stop] = np.asarray(block)[: stop - start]
        finite = [
            np.isfinite(x[start:stop]).reshape(stop - start, -1).all(axis=1) for x in jax.tree.leaves(self.arrays[0])
        ]
        self.non_finite[start:stop] = ~np.all(finite, axis=0)
        self.infos.append(jax.tree.map(np.asarray, info))

    def draws(self) -> ParticleDraws:
        """Everything that was written."""
        positions, log_weights = self.arrays
        stats = jax.tree.map(lambda *x: np.stack(x), *[info.stats for info in self.infos])
        nfe = float(np.mean([info.nfe for info in self.infos]))
        return ParticleDraws(positions, log_weights, self.non_finite, nfe, stats)


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


_run = eqx.filter_jit(_run_block)


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


def run_particles(
    path: AbstractScorePath,
    sampler: AbstractParticleSampler[Any],
    plan: Any,
    *,
    key: Array,
    num_particles: int,
    batch_size: int | None,
    mesh: Mesh | None,
    show: bool,
    label: str = "",
) -> ParticleDraws:
    """Draw particles from the path's reference and run them to the target.

    Particles are cut into equal blocks of `batch_size` (the last is filled up and the filling dropped), unless they
    interact; keys are folded from the key and the block, so draws depend on the key and the block size only. Every
    block is written to its place in one buffer on the host as soon as it is there.
    """
    at_once = num_devices(mesh)
    if sampler.interacting:
        size, mesh, at_once = num_particles, None, 1
    else:
        size = min(-(-num_particles // at_once) if batch_size is None else batch_size, num_particles)
    num_blocks = -(-num_particles // size)
    in_chunks = show and mesh is None and isinstance(sampler, AbstractPathSampler)
    buffer = _Buffer(num_particles)
    total = num_blocks * (_num_steps(plan) if in_chunks else 1)
    with progress_bar(total, f"{type(sampler).__name__} {label}".rstrip(), show=show) as bar:
        for first in range(0, num_blocks, at_once):
            blocks = [min(first + k, num_blocks - 1) for k in range(at_once)]
            parts = [with_conditions_of(path, _particles_of(block, size, num_particles)) for block in blocks]
            keys = [jax.random.fold_in(key, block) for block in blocks]
            if mesh is not None:
                shared, conditions = zip(*(_split_conditions(part) for part in parts), strict=True)
                stacked = jax.tree.map(lambda *x: jnp.stack(x), *conditions)
                result = _run_on_devices((shared[0], stacked), sampler, plan, jnp.stack(keys), size, mesh)
                outcomes = [jax.tree.map(lambda x, k=k: x[k], result) for k in range(at_once)]
            elif in_chunks and isinstance(sampler, AbstractPathSampler):
                outcomes = [_run_in_chunks(parts[0], sampler, plan, keys[0], size, bar)]
            else:
                outcomes = [_run(parts[0], sampler, plan, keys[0], size)]
            for block, outcome in dict(zip(blocks, outcomes, strict=True)).items():
                buffer.write(block * size, outcome)
            if not in_chunks:
                bar.update(len(set(blocks)))
    return buffer.draws()


def _particles_of(block: int, size: int, num_particles: int) -> np.ndarray:
    return np.minimum(np.arange(block * size, (block + 1) * size), num_particles - 1)
