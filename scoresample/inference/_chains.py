"""Running chains: warm-up, then steps in chunks, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._progress import chunk_length, progress_bar
from scoresample.inference._sharding import num_devices, on_devices
from scoresample.samplers import AbstractSampler
from scoresample.scores import AbstractScore, Position


@eqx.filter_jit
def _warm_up(
    score: AbstractScore,
    sampler: AbstractSampler,
    positions: Position,
    num_warmup: int,
    key: Array,
    mesh: Mesh | None,
) -> tuple[Any, AbstractSampler, dict[str, Array]]:
    """The warm-up of one block of chains, or of one on every device."""
    if mesh is None:
        return sampler.warmup(score, positions, num_warmup, key=key)

    def one(everything: Any, block: Any) -> tuple[Any, AbstractSampler, dict[str, Array]]:
        score, sampler = everything
        positions, key = block
        return sampler.warmup(score, positions, num_warmup, key=key)

    return on_devices(one, mesh, (score, sampler), (positions, key))


@eqx.filter_jit
def _advance(
    score: AbstractScore,
    sampler: AbstractSampler,
    states: Any,
    keys: Array,
    start: Array,
    num_steps: int,
    mesh: Mesh | None,
) -> tuple[Any, Position, dict[str, Array]]:
    """`num_steps` steps of one block of chains, or of one on every device."""
    if mesh is None:
        return _advance_block(score, sampler, states, keys, start, num_steps)
    arrays, static = eqx.partition(sampler, eqx.is_array)

    def one(everything: Any, block: Any) -> tuple[Any, Position, dict[str, Array]]:
        score, start = everything
        arrays, states, keys = block
        return _advance_block(score, eqx.combine(arrays, static), states, keys, start, num_steps)

    return on_devices(one, mesh, (score, start), (arrays, states, keys))


def _advance_block(
    score: AbstractScore, sampler: AbstractSampler, states: Any, keys: Array, start: Array, num_steps: int
) -> tuple[Any, Position, dict[str, Array]]:
    """`num_steps` steps of all chains: the states, and (step, chain) positions and statistics."""

    def one(sampler: AbstractSampler, state: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        return sampler.step(score, state, key=key)

    all_chains = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), 0, 0))

    def body(states: Any, keys: Array) -> tuple[Any, tuple[Position, dict[str, Array]]]:
        states, stats = all_chains(sampler, states, keys)
        return states, (states.position, stats)

    # Keys of all steps at once: one by one inside the loop they would cost more than a cheap step.
    folded = jax.vmap(lambda index: jax.vmap(lambda key: jax.random.fold_in(key, index))(keys))
    states, (positions, stats) = jax.lax.scan(body, states, folded(start + jnp.arange(num_steps)))
    return states, positions, stats


def run_chains(
    score: AbstractScore,
    sampler: AbstractSampler,
    positions: Position,
    *,
    key: Array,
    num_samples: int,
    num_warmup: int,
    batch_size: int | None,
    mesh: Mesh | None,
    show: bool,
) -> tuple[Position, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run chains from their starts.

    Chains are cut into equal blocks of `batch_size` (the last is filled up and the filling dropped); keys are folded
    from the key and the block, so draws depend on the key and the block size only.

    Returns:
        (chain, draw) positions, (chain, draw) statistics, and (chain,) facts of the warm-up.
    """
    num_chains, at_once = jax.tree.leaves(positions)[0].shape[0], num_devices(mesh)
    size = min(-(-num_chains // at_once) if batch_size is None else batch_size, num_chains)
    num_blocks = -(-num_chains // size)
    results = []
    label = type(sampler).__name__
    with progress_bar(-(-num_blocks // at_once) * (num_warmup + num_samples), label, show=show) as bar:
        for first in range(0, num_blocks, at_once):
            blocks = [min(first + k, num_blocks - 1) for k in range(at_once)]
            chains = [np.minimum(np.arange(b * size, (b + 1) * size), num_chains - 1) for b in blocks]
            some = [jax.tree.map(lambda x, c=c: x[c], positions) for c in chains]
            keys = [jax.random.fold_in(key, block) for block in blocks]
            if mesh is None:
                results.append(_run_block(score, sampler, some[0], keys[0], num_samples, num_warmup, show, bar, mesh))
                continue
            stacked = jax.tree.map(lambda *x: jnp.stack(x), *some)
            joined = _run_block(score, sampler, stacked, jnp.stack(keys), num_samples, num_warmup, show, bar, mesh)
            results.extend(jax.tree.map(lambda x, k=k: x[k], joined) for k in range(len(set(blocks))))

    def join(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[:num_chains]

    return jax.tree.map(join, *results)


def _run_block(
    score: AbstractScore,
    sampler: AbstractSampler,
    positions: Position,
    key: Array,
    num_samples: int,
    num_warmup: int,
    show: bool,
    bar: Any,
    mesh: Mesh | None,
) -> tuple[Position, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Warm-up and steps of a block, or of one on every device; arrays then have a leading block axis."""
    block_axes = 0 if mesh is None else 1
    num_chains = jax.tree.leaves(positions)[0].shape[block_axes]

    def split(key: Array) -> tuple[Array, Array]:
        key_warmup, key_steps = jax.random.split(key)
        return key_warmup, jax.random.split(key_steps, num_chains)

    key_warmup, keys = split(key) if mesh is None else jax.vmap(split)(key)
    states, tuned, facts = _warm_up(score, sampler, positions, num_warmup, key_warmup, mesh)
    facts = jax.tree.map(np.asarray, facts)
    bar.update(num_warmup)
    length = chunk_length(num_samples) if show else num_samples
    chunks = []
    for start in range(0, num_samples, length):
        states, drawn, stats = _advance(score, tuned, states, keys, jnp.asarray(start), length, mesh)
        chunks.append(jax.tree.map(np.asarray, (drawn, stats)))
        bar.update(min(length, num_samples - start))

    def join(*parts: np.ndarray) -> np.ndarray:
        steps = np.concatenate(parts, axis=block_axes)
        kept = steps[:num_samples] if mesh is None else steps[:, :num_samples]
        return np.swapaxes(kept, block_axes, block_axes + 1)

    drawn, stats = jax.tree.map(join, *chunks)
    drawn = jax.tree.map(lambda x, start: x.astype(start.dtype), drawn, positions)  # a kernel may work in another
    return drawn, stats, facts
