"""Running chains: warm-up, then steps in chunks, block by block."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from scoresample.inference._outputs import Carried, ChainOutput, of_block
from scoresample.inference._progress import progress_bar
from scoresample.inference._sharding import num_devices, on_devices, placed
from scoresample.samplers import AbstractSampler
from scoresample.scores import AbstractScore, Position


@eqx.filter_jit
def warm_up(
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
def advance(
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


def after_warm_up(
    score: AbstractScore, sampler: AbstractSampler, positions: Position, num_warmup: int, key: Array
) -> Carried:
    """The shapes of what a block carries; `positions` may be shapes too."""
    # The score is closed over: shapes are part of it, which would be taken for arrays.
    return Carried(*eqx.filter_eval_shape(lambda x, k: warm_up(score, sampler, x, num_warmup, k, None), positions, key))


def run_chains(
    score: AbstractScore,
    sampler: AbstractSampler,
    positions: Position,
    *,
    key: Array,
    num_samples: int,
    num_warmup: int,
    size: int,
    mesh: Mesh | None,
    show: bool,
    output: ChainOutput,
) -> None:
    """Run chains from their starts, except for what the output has already.

    Chains are cut into equal blocks of `size` (the last is filled up and the filling dropped); keys are folded from
    the key and the block, so draws depend on the key and the block size only. Positions go to the output in chunks,
    with the statistics of every draw, the facts of the warm-up and all that the block needs to go on.

    On several devices blocks run as one program, with one compilation and draws that are the same up to rounding;
    where the output wants the same bits, each runs as the program of a single device, compiled for each.
    """
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    done = {block: output.done(block) for block in range(-(-num_chains // size))}
    groups = [group for group in _alike(done, num_devices(mesh)) if done[group[0]] != num_samples]
    steps = [num_samples + num_warmup if (at := done[group[0]]) is None else num_samples - at for group in groups]
    length = output.chunk(num_samples, show=show)
    with progress_bar(sum(steps), type(sampler).__name__, show=show) as bar:
        for group in groups:
            if mesh is not None and not output.exact_bits:
                lanes = [_Lane(score, sampler, positions, key, size, group, mesh, None)]
            else:
                devices = [None] if mesh is None else mesh.devices.flat
                lanes = [
                    _Lane(score, sampler, positions, key, size, [block], None, device)
                    for block, device in zip(group, devices, strict=False)
                ]
            far = done[group[0]]
            for lane in lanes:
                lane.begin(num_warmup, far, output)
            if far is None:
                for lane in lanes:
                    lane.hand_on(output)
                bar.update(num_warmup)
            for start in range(far or 0, num_samples, length):
                # All devices are given their work before the first is waited for.
                chunks = [lane.advance(start, length) for lane in lanes]
                for lane, chunk in zip(lanes, chunks, strict=True):
                    lane.write(output, start, num_samples, *chunk)
                bar.update(min(length, num_samples - start))


def _alike(done: dict[int, int | None], at_once: int) -> list[list[int]]:
    """Groups of at most so many blocks that have come equally far."""
    groups: list[list[int]] = []
    for far in dict.fromkeys(done.values()):
        blocks = [block for block, at in done.items() if at == far]
        groups += [blocks[k : k + at_once] for k in range(0, len(blocks), at_once)]
    return groups


class _Lane:
    """A block on a device, or with a mesh one on each of its devices: arrays then have a leading block axis."""

    carried: Carried

    def __init__(
        self,
        score: AbstractScore,
        sampler: AbstractSampler,
        positions: Position,
        key: Array,
        size: int,
        blocks: list[int],
        mesh: Mesh | None,
        device: Any,
    ) -> None:
        self.size, self.blocks, self.mesh, self.device = size, blocks, mesh, device
        self.num_chains = jax.tree.leaves(positions)[0].shape[0]
        # Devices of a mesh without a block of their own repeat the last one.
        blocks = blocks + blocks[-1:] * (num_devices(mesh) - len(blocks))
        chains = [np.minimum(np.arange(b * size, (b + 1) * size), self.num_chains - 1) for b in blocks]
        some = [jax.tree.map(lambda x, c=c: x[c], positions) for c in chains]
        keys = [jax.random.split(jax.random.fold_in(key, block)) for block in blocks]
        starts, keys = (jax.tree.map(lambda *x: jnp.stack(x), *each) if mesh else each[0] for each in (some, keys))
        everything = score, sampler, starts, keys
        self.score, self.sampler, self.positions, keys = self._placed(everything)
        self.key_warmup = keys[0] if mesh is None else keys[:, 0]
        self.keys = _split(keys[1], size) if mesh is None else jax.vmap(lambda k: _split(k[1], size))(keys)

    def _placed(self, tree: Any) -> Any:
        return tree if self.device is None else placed(tree, self.device)

    def _part(self, tree: Any, k: int) -> Any:
        return tree if self.mesh is None else of_block(tree, k)

    def begin(self, num_warmup: int, done: int | None, output: ChainOutput) -> None:
        """The warm-up, or what was carried out of an earlier run."""
        if done is None:
            out = warm_up(self.score, self.sampler, self.positions, num_warmup, self.key_warmup, self.mesh)
            self.carried = Carried(*out)
            return
        first = self._part((self.positions, self.key_warmup), 0)
        like = after_warm_up(self.score, self.sampler, first[0], num_warmup, first[1])
        parts = [output.carried(block, like) for block in self.blocks]
        parts += parts[-1:] * (num_devices(self.mesh) - len(parts))
        self.carried = self._placed(parts[0] if self.mesh is None else _stacked(parts))

    def hand_on(self, output: ChainOutput) -> None:
        """Tell the output of the warm-up."""
        for k, block in enumerate(self.blocks):
            output.begin(block, self._part(self.carried, k))

    def advance(self, start: int, num_steps: int) -> tuple[Position, dict[str, Array]]:
        """So many steps: (step, chain) positions and statistics, which may still be on their way."""
        states, sampler, _ = self.carried
        states, drawn, stats = advance(self.score, sampler, states, self.keys, jnp.asarray(start), num_steps, self.mesh)
        self.carried = self.carried._replace(states=states)
        return drawn, stats

    def write(
        self, output: ChainOutput, start: int, num_samples: int, drawn: Position, stats: dict[str, Array]
    ) -> None:
        """Hand a chunk to the output, without what is beyond the ends."""
        # A kernel may work in another type than that of the positions.
        drawn = jax.tree.map(lambda x, like: np.asarray(x).astype(like.dtype, copy=False), drawn, self.positions)
        found = drawn, jax.tree.map(np.asarray, stats)
        for k, block in enumerate(self.blocks):
            num = min(self.size, self.num_chains - block * self.size)
            chunk = _chain_first(self._part(found, k), num, num_samples - start)
            output.write(block, start, chunk[0], chunk[1], self._part(self.carried, k))


def _split(key: Array, num: int) -> Array:
    return jax.random.split(key, num)


def _chain_first(steps: Any, num_chains: int, num_steps: int) -> Any:
    """From arrays (step, chain), the first chains and steps as arrays (chain, draw)."""
    return jax.tree.map(lambda x: np.swapaxes(x[:num_steps, :num_chains], 0, 1), steps)


def _stacked(parts: list[Carried]) -> Carried:
    return jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *parts)
