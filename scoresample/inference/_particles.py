"""Running particles along a path, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference._progress import progress_bar
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractParticleSampler
from scoresample.scores import Position


@eqx.filter_jit
def _run_block(
    path: AbstractScorePath, sampler: AbstractParticleSampler[Any], plan: Any, key: Array, num_particles: int
) -> tuple[Position, Array | None, Array, dict[str, Array]]:
    key_start, key_run = jax.random.split(key)
    particles = path.sample_reference(key_start, num_particles, plan.t_start)
    particles, log_weights, info = sampler.run(path, particles, plan, key=key_run)
    axes = path.condition_axes()
    positions = jax.vmap(lambda p, z: p.frame.to_position(z), in_axes=(axes, 0))(path, particles)
    return positions, log_weights, info.nfe, info.stats


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
    results = []
    with progress_bar(num_blocks, type(sampler).__name__, show=show) as bar:
        for block in range(num_blocks):
            chosen = np.minimum(np.arange(block * size, (block + 1) * size), num_particles - 1)
            result = _run_block(_slice_conditions(path, chosen), sampler, plan, jax.random.fold_in(key, block), size)
            results.append(jax.tree.map(np.asarray, result))
            bar.update()
    positions = jax.tree.map(lambda *x: jnp.concatenate(x)[:num_particles], *[r[0] for r in results])
    weights = None
    if results[0][1] is not None:
        weights = jnp.concatenate([r[1] for r in results])[:num_particles]
    stats = jax.tree.map(lambda *x: np.stack(x), *[r[3] for r in results])
    return positions, weights, float(np.mean([r[2] for r in results])), stats
