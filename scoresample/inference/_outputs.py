"""Where the draws of blocks go: arrays in memory, or a store on disk."""

import abc
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scoresample.inference._draws import Draws
from scoresample.inference._progress import chunk_length
from scoresample.samplers import AbstractSampler, ParticleInfo
from scoresample.scores import Position


class Carried(NamedTuple):
    """What a block of chains goes on with.

    Attributes:
        states: the states of its chains.
        sampler: the sampler as the warm-up has tuned it.
        facts: what the warm-up tells, by name, with a leading chain axis.
    """

    states: Any
    sampler: AbstractSampler
    facts: dict[str, Any]


def of_block(tree: Any, k: int) -> Any:
    """The part of one block of a tree whose arrays have a leading block axis."""
    return jax.tree.map(lambda x: x[k] if isinstance(x, jax.Array | np.ndarray) else x, tree)


def finite_draws(position: Position, num_axes: int) -> np.ndarray:
    """Whether all numbers of a draw are finite; draws have so many leading axes."""
    found = [np.isfinite(x).reshape(*x.shape[:num_axes], -1).all(axis=-1) for x in jax.tree.leaves(position)]
    return np.all(found, axis=0)


class ChainOutput(abc.ABC):
    """Takes chains block by block and chunk by chunk.

    Attributes:
        exact_bits: whether draws must not depend on the devices, not even by rounding.
    """

    exact_bits: ClassVar[bool] = False

    @abc.abstractmethod
    def chunk(self, num_samples: int, *, show: bool) -> int:
        """Draws of one chunk, all of which have this length or run past the end."""

    @abc.abstractmethod
    def done(self, block: int) -> int | None:
        """Draws of a block that are there already; None before its warm-up."""

    @abc.abstractmethod
    def carried(self, block: int, like: Carried) -> Carried:
        """What a block that has begun goes on with; `like` has its shapes."""

    @abc.abstractmethod
    def begin(self, block: int, carried: Carried) -> None:
        """Take a block after its warm-up."""

    @abc.abstractmethod
    def write(self, block: int, start: int, drawn: Position, stats: dict[str, np.ndarray], carried: Carried) -> None:
        """Take draws (chain, draw) from draw `start` on, without those beyond the ends, and what goes on after them."""

    @property
    @abc.abstractmethod
    def facts(self) -> dict[str, np.ndarray]:
        """What the warm-up told of all chains, by name."""

    @abc.abstractmethod
    def total(self, name: str) -> float:
        """The sum of a statistic over all draws."""

    @abc.abstractmethod
    def draws(self, **fields: Any) -> Draws:
        """All draws, with these further fields."""


class ChainBuffer(ChainOutput):
    """Chains in preallocated arrays on the host."""

    def __init__(self, num_chains: int, num_samples: int, block_size: int) -> None:
        """Make room for so many chains; arrays are made when their types are known."""
        self.shape, self.block_size = (num_chains, num_samples), block_size
        self.arrays: Any = None
        self.kept_facts: dict[str, np.ndarray] = {}

    def chunk(self, num_samples: int, *, show: bool) -> int:
        """A twentieth where a bar is to move."""
        return chunk_length(num_samples) if show else num_samples

    def done(self, block: int) -> int | None:
        """Nothing: memory is always new."""
        return None

    def carried(self, block: int, like: Carried) -> Carried:
        """Never asked for."""
        raise NotImplementedError

    def begin(self, block: int, carried: Carried) -> None:
        """Keep the facts."""
        first, facts = block * self.block_size, jax.tree.map(np.asarray, carried.facts)
        if not self.kept_facts:
            self.kept_facts = jax.tree.map(lambda x: np.empty((self.shape[0], *x.shape[1:]), x.dtype), facts)
        for name, values in facts.items():
            room = self.kept_facts[name][first : first + self.block_size]
            room[...] = values[: len(room)]

    def write(self, block: int, start: int, drawn: Position, stats: dict[str, np.ndarray], carried: Carried) -> None:
        """Copy them to their place."""
        if self.arrays is None:
            self.arrays = jax.tree.map(lambda x: np.empty((*self.shape, *x.shape[2:]), x.dtype), (drawn, stats))
        first = block * self.block_size
        for room, values in zip(jax.tree.leaves(self.arrays), jax.tree.leaves((drawn, stats)), strict=True):
            room[first : first + values.shape[0], start : start + values.shape[1]] = values

    @property
    def facts(self) -> dict[str, np.ndarray]:
        """As the blocks told them."""
        return self.kept_facts

    def total(self, name: str) -> float:
        """Of the array."""
        return float(self.arrays[1][name].sum(dtype=float))

    def draws(self, **fields: Any) -> Draws:
        """The arrays as they are."""
        position, stats = self.arrays
        return Draws(
            position=position,
            log_weights=None,
            stats={**stats, "non_finite": ~finite_draws(position, 2)},
            **fields,
        )


class Particles(NamedTuple):
    """Particles of a block, or all, with a leading axis.

    Attributes:
        positions: a tree.
        log_weights: one for each, or None.
        stats: what the sampler tells of each, by name.
    """

    positions: Position
    log_weights: Any
    stats: dict[str, Any]

    def non_finite(self) -> np.ndarray:
        """Which have a number that is not finite, or no weight."""
        lost = ~finite_draws(self.positions, 1)
        return lost if self.log_weights is None else lost | np.isnan(self.log_weights)


class ParticleOutput(abc.ABC):
    """Takes particles block by block.

    Attributes:
        exact_bits: whether draws must not depend on the devices, not even by rounding.
    """

    exact_bits: ClassVar[bool] = False

    @abc.abstractmethod
    def done(self, block: int) -> bool:
        """Whether a block is there already."""

    @abc.abstractmethod
    def write(self, block: int, particles: Particles, info: ParticleInfo) -> None:
        """Take a block, without particles beyond the end, and what the sampler tells of it as a whole."""

    @property
    @abc.abstractmethod
    def infos(self) -> list[ParticleInfo]:
        """What the sampler told of every block."""

    @property
    @abc.abstractmethod
    def log_weights(self) -> np.ndarray | None:
        """Of all particles."""

    @abc.abstractmethod
    def draws(self, **fields: Any) -> Draws:
        """All particles as draws, with these further fields."""


class ParticleBuffer(ParticleOutput):
    """Particles in preallocated arrays on the host."""

    def __init__(self, num_particles: int, block_size: int) -> None:
        """Make room for so many particles; arrays are made when their types are known."""
        self.num, self.block_size = num_particles, block_size
        self.arrays: Any = None
        self.kept_infos: dict[int, ParticleInfo] = {}

    def done(self, block: int) -> bool:
        """Whether the block has been written."""
        return block in self.kept_infos

    def write(self, block: int, particles: Particles, info: ParticleInfo) -> None:
        """Copy them to their place."""
        if self.arrays is None:
            self.arrays = jax.tree.map(lambda x: np.empty((self.num, *x.shape[1:]), x.dtype), particles)
        first = block * self.block_size
        for room, values in zip(jax.tree.leaves(self.arrays), jax.tree.leaves(particles), strict=True):
            room[first : first + values.shape[0]] = values
        self.kept_infos[block] = info

    @property
    def infos(self) -> list[ParticleInfo]:
        """As they came."""
        return list(self.kept_infos.values())

    @property
    def log_weights(self) -> np.ndarray | None:
        """As they came."""
        return self.arrays.log_weights

    def draws(self, **fields: Any) -> Draws:
        """The arrays as a single chain."""
        positions, log_weights, stats = jax.tree.map(lambda x: x[None], self.arrays)
        return Draws(
            position=positions,
            log_weights=None if log_weights is None else jnp.asarray(log_weights),
            stats={"non_finite": self.arrays.non_finite()[None], **stats},
            **fields,
        )
