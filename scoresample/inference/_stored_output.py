"""Blocks that go to a store, and come back from it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference._outputs import Carried, ChainOutput, ParticleOutput, Particles, finite_draws
from scoresample.inference._run_store import POSITIONS, POSTERIOR, STATS, Layout, RunStore
from scoresample.inference._stored_draws import LOG_WEIGHTS, StoredDraws, StoredPart
from scoresample.samplers import ParticleInfo
from scoresample.scores import Constrain, Position, named_sites


def layouts(position: Any, stats: dict[str, Any], constrain: Constrain) -> dict[str, dict[str, Layout]]:
    """The arrays of a store, from the shapes of one draw: sites, positions unless they are the sites, statistics."""
    sites = eqx.filter_eval_shape(constrain, position)
    groups = {POSTERIOR: sites, STATS: {**stats, "non_finite": jax.ShapeDtypeStruct((), bool)}}
    if constrain is not named_sites:
        groups[POSITIONS] = named_sites(position)
    return {
        group: {name: Layout(x.shape, np.dtype(x.dtype)) for name, x in arrays.items()}
        for group, arrays in groups.items()
    }


def num_bytes(tree: Any) -> int:
    """What the arrays of a tree, or their shapes, take on disk."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(_plain(tree)))


def _plain(tree: Any) -> Any:
    """A tree of arrays or shapes with random keys as the numbers that they are."""
    return jax.tree.map(lambda x: _key_data(x) if _is_key(x) else x, eqx.filter(tree, _is_array_or_shape))


def _is_array_or_shape(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _key_data(x: Any) -> Any:
    return jax.eval_shape(jax.random.key_data, x) if isinstance(x, jax.ShapeDtypeStruct) else jax.random.key_data(x)


def _packed(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(_plain(tree))]


def _unpacked(leaves: list[np.ndarray], like: Any) -> Any:
    """A tree like another, with arrays from a commit."""
    shapes, rest = eqx.partition(like, _is_array_or_shape)
    flat, structure = jax.tree.flatten(shapes)
    arrays = [
        jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(s)) if _is_key(s) else jnp.asarray(x)
        for x, s in zip(leaves, flat, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, arrays), rest)


@eqx.filter_jit
def _constrained(constrain: Constrain, position: Position) -> dict[str, Array]:
    return jax.vmap(jax.vmap(constrain))(position)


class _Writer:
    """Writes draws with two leading axes, (chain, draw)."""

    def __init__(self, store: RunStore, constrain: Constrain) -> None:
        self.store, self.constrain = store, constrain

    def write(
        self, block: int, start: int, drawn: Position, stats: dict[str, np.ndarray], non_finite: np.ndarray
    ) -> None:
        sites = named_sites(drawn) if self.constrain is named_sites else _constrained(self.constrain, drawn)
        groups = {POSTERIOR: sites, STATS: {**stats, "non_finite": non_finite}}
        if self.constrain is not named_sites:
            groups[POSITIONS] = named_sites(drawn)
        region = self.store.manifest.region(block, start, jax.tree.leaves(drawn)[0].shape[1])
        for group, arrays in groups.items():
            for name, values in arrays.items():
                self.store.write(group, name, region, np.asarray(values))


class StoredChains(ChainOutput):
    """Chains that go to a store."""

    exact_bits = True

    def __init__(self, store: RunStore, constrain: Constrain, structure: Any, like: Carried) -> None:
        """Write to a store; `structure` is that of a position, `like` has the shapes of what a block carries."""
        self.store, self.writer, self.structure, self.like = store, _Writer(store, constrain), structure, like
        self.constrain = constrain

    def chunk(self, num_samples: int, *, show: bool) -> int:
        """As the store has it."""
        return self.store.manifest.chunk

    def done(self, block: int) -> int | None:
        """As its commit has it."""
        return self.store.done(block)

    def carried(self, block: int, like: Carried) -> Carried:
        """As its commit has it."""
        shapes = jax.tree.leaves(_plain(like))
        return _unpacked(self.store.carried(block, shapes), like)

    def begin(self, block: int, carried: Carried) -> None:
        """Commit the warm-up."""
        self.store.commit(block, 0, _packed(carried))

    def write(self, block: int, start: int, drawn: Position, stats: dict[str, np.ndarray], carried: Carried) -> None:
        """Write the chunk, then commit it."""
        self.writer.write(block, start, drawn, stats, ~finite_draws(drawn, 2))
        self.store.commit(block, start + jax.tree.leaves(drawn)[0].shape[1], _packed(carried))

    @property
    def facts(self) -> dict[str, np.ndarray]:
        """Of all chains."""
        manifest = self.store.manifest
        found = [self.carried(block, self.like).facts for block in range(manifest.num_blocks)]
        return jax.tree.map(lambda *x: np.concatenate(x)[: manifest.shape[0]], *found)

    def total(self, name: str) -> float:
        """Over all draws of a statistic."""
        return self._part().total(name)

    def draws(self, **fields: Any) -> StoredDraws:
        """The draws, which stay where they are until somebody looks."""
        return StoredDraws.over(self._part(), **fields)

    def _part(self) -> StoredPart:
        return StoredPart(self.store, None, self.structure, self.constrain)


class StoredParticles(ParticleOutput):
    """Particles that go to a store."""

    exact_bits = True

    def __init__(self, store: RunStore, constrain: Constrain, structure: Any, like: ParticleInfo) -> None:
        """Write to a store; `structure` is that of a position, `like` has the shapes of a block's info."""
        self.store, self.writer, self.structure, self.like = store, _Writer(store, constrain), structure, like
        self.constrain = constrain

    def done(self, block: int) -> bool:
        """As its commit has it."""
        return bool(self.store.done(block))

    def write(self, block: int, particles: Particles, info: ParticleInfo) -> None:
        """Write the block, then commit it."""
        positions, log_weights, stats = jax.tree.map(lambda x: x[None], particles)
        stats = stats if log_weights is None else {**stats, LOG_WEIGHTS: log_weights}
        self.writer.write(block, 0, positions, stats, particles.non_finite()[None])
        self.store.commit(block, self.store.manifest.length_of(block), _packed(info))

    @property
    def infos(self) -> list[ParticleInfo]:
        """As the commits have them."""
        shapes = jax.tree.leaves(_plain(self.like))
        blocks = range(self.store.manifest.num_blocks)
        return [jax.tree.map(np.asarray, _unpacked(self.store.carried(b, shapes), self.like)) for b in blocks]

    @property
    def log_weights(self) -> np.ndarray | None:
        """As they are stored."""
        log_weights = self._part().log_weights()
        return None if log_weights is None else log_weights[0]

    def draws(self, **fields: Any) -> StoredDraws:
        """The draws, which stay where they are until somebody looks."""
        return StoredDraws.over(self._part(), **fields)

    def _part(self) -> StoredPart:
        return StoredPart(self.store, None, self.structure, self.constrain)
