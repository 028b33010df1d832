"""Running chains: warm-up, then steps in chunks, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference._progress import chunk_length, progress_bar
from scoresample.samplers import AbstractSampler
from scoresample.scores import AbstractScore, Position


@eqx.filter_jit
def _warm_up(
    score: AbstractScore, sampler: AbstractSampler, positions: Position, num_warmup: int, key: Array
) -> tuple[Any, AbstractSampler, dict[str, Array]]:
    return sampler.warmup(score, positions, num_warmup, key=key)


@eqx.filter_jit
def _advance(
    score: AbstractScore, sampler: AbstractSampler, states: Any, keys: Array, start: Array, num_steps: int
) -> tuple[Any, Position, dict[str, Array]]:
    """`num_steps` steps of all chains: the states, and (step, chain) positions and statistics."""

    def one(sampler: AbstractSampler, state: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        return sampler.step(score, state, key=key)

    all_chains = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), 0, 0))

    def body(states: Any, index: Array) -> tuple[Any, tuple[Position, dict[str, Array]]]:
        states, stats = all_chains(sampler, states, jax.vmap(lambda key: jax.random.fold_in(key, index))(keys))
        return states, (states.position, stats)

    states, (positions, stats) = jax.lax.scan(body, states, start + jnp.arange(num_steps))
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
    show: bool,
) -> tuple[Position, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run chains from their starts.

    Chains are cut into equal blocks of `batch_size` (the last is filled up and the filling dropped); keys are folded
    from the key and the block, so draws depend on the key and the block size only.

    Returns:
        (chain, draw) positions, (chain, draw) statistics, and (chain,) facts of the warm-up.
    """
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    size = num_chains if batch_size is None else min(batch_size, num_chains)
    results = []
    num_blocks = -(-num_chains // size)
    label = type(sampler).__name__
    with progress_bar(num_blocks * (num_warmup + num_samples), label, show=show) as bar:
        for block in range(num_blocks):
            chains = np.minimum(np.arange(block * size, (block + 1) * size), num_chains - 1)
            some = jax.tree.map(lambda x, chains=chains: x[chains], positions)
            results.append(
                _run_block(score, sampler, some, jax.random.fold_in(key, block), num_samples, num_warmup, show, bar)
            )

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
) -> tuple[Position, dict[str, np.ndarray], dict[str, np.ndarray]]:
    key_warmup, key_steps = jax.random.split(key)
    states, tuned, facts = _warm_up(score, sampler, positions, num_warmup, key_warmup)
    facts = jax.tree.map(np.asarray, facts)
    bar.update(num_warmup)
    keys = jax.random.split(key_steps, jax.tree.leaves(positions)[0].shape[0])
    length = chunk_length(num_samples) if show else num_samples
    chunks = []
    for start in range(0, num_samples, length):
        states, drawn, stats = _advance(score, tuned, states, keys, jnp.asarray(start), length)
        chunks.append(jax.tree.map(np.asarray, (drawn, stats)))
        bar.update(min(length, num_samples - start))

    def join(*parts: np.ndarray) -> np.ndarray:
        return np.swapaxes(np.concatenate(parts)[:num_samples], 0, 1)

    drawn, stats = jax.tree.map(join, *chunks)
    drawn = jax.tree.map(lambda x, start: x.astype(start.dtype), drawn, positions)  # a kernel may work in another
    return drawn, stats, facts
