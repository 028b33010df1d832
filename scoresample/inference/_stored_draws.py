"""Draws that stay in a store until somebody looks at them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scoresample.inference._draws import Draws, Kind
from scoresample.inference._run_store import POSITIONS, POSTERIOR, STATS, RunStore
from scoresample.paths import AbstractScorePath
from scoresample.scores import AbstractScore, Constrain, Position, named_sites

LOG_WEIGHTS = "log_weights"
_ROWS = 2**16
"""Draws that are looked at together where all are counted."""


class StoredPart:
    """Chains and draws of a store, all of which have been committed.

    Attributes:
        region: which they are.
    """

    def __init__(
        self, store: RunStore, region: tuple[slice, slice] | None, structure: Any, constrain: Constrain
    ) -> None:
        """A region, all by default; without a `structure` of positions, they are the sites by name."""
        manifest = store.manifest
        self.store, self.structure, self.constrain = store, structure, constrain
        self.region = (slice(0, manifest.shape[0]), slice(0, manifest.shape[1])) if region is None else region

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of chains and draws."""
        chains, draws = self.region
        return chains.stop - chains.start, draws.stop - draws.start

    def last(self, num: int) -> "StoredPart":
        """The last draws of all chains."""
        chains, draws = self.region
        region = chains, slice(max(draws.stop - num, draws.start), draws.stop)
        return StoredPart(self.store, region, self.structure, self.constrain)

    def position(self) -> Position:
        """The positions."""
        if self.structure is None:
            return {name: self._read(POSTERIOR, name) for name in self.store.names(POSTERIOR)}
        group = POSTERIOR if self.constrain is named_sites else POSITIONS
        leaves = [self._read(group, name) for name in named_sites(self.structure)]
        return jax.tree.unflatten(jax.tree.structure(self.structure), leaves)

    def stat(self, name: str) -> np.ndarray:
        """One of the statistics."""
        return self._read(STATS, name)

    def stats(self) -> dict[str, np.ndarray]:
        """All statistics, but for the weights."""
        return {name: self.stat(name) for name in self.store.names(STATS) if name != LOG_WEIGHTS}

    def log_weights(self) -> np.ndarray | None:
        """The log weights, where the draws have any."""
        return self.stat(LOG_WEIGHTS) if LOG_WEIGHTS in self.store.names(STATS) else None

    def _read(self, group: str, name: str) -> np.ndarray:
        return self.store.read(group, name, self.region)

    def total(self, name: str) -> float:
        """Of a statistic over all draws, without holding all of it at once."""
        chains, draws = self.region
        parts = [slice(k, min(k + _ROWS, draws.stop)) for k in range(draws.start, draws.stop, _ROWS)]
        return float(sum(self.store.read(STATS, name, (chains, part)).sum(dtype=float) for part in parts))


class StoredDraws(Draws):
    """Draws like any other, whose numbers are read from their store when they are first asked for.

    A copy with other fields (`dataclasses.replace`) holds its numbers in memory, and has no `part`.
    """

    part: StoredPart

    @classmethod
    def over(cls, part: StoredPart, **facts: Any) -> "StoredDraws":
        """Draws of a part of a store, with all other fields given."""
        new = object.__new__(cls)
        for name, value in {"part": part, "constrain": part.constrain, **facts}.items():
            object.__setattr__(new, name, value)
        return new

    @cached_property
    def position(self) -> Position:
        """The positions."""
        return self.part.position()

    @cached_property
    def stats(self) -> dict[str, np.ndarray]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The statistics."""
        return self.part.stats()

    @cached_property
    def log_weights(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The log weights, or None."""
        return self.part.log_weights()

    @property
    def non_finite(self) -> np.ndarray:
        """Which draws are not finite."""
        return self.part.stat("non_finite") if self._is_stored else super().non_finite

    @property
    def num_chains(self) -> int:
        """Length of the chain axis."""
        return self.part.shape[0] if self._is_stored else super().num_chains

    @property
    def num_draws(self) -> int:
        """Length of the draw axis."""
        return self.part.shape[1] if self._is_stored else super().num_draws

    @property
    def _is_stored(self) -> bool:
        return "part" in self.__dict__


def load(store: str | Path, target: AbstractScore | AbstractScorePath | None = None) -> Draws:
    """The draws of a store that are there, also while a run goes on.

    Of chains, all have the same number of draws: those that make up the most draws together, from the first chain on.
    Numbers are read when they are first asked for. Nothing in a store is run.

    Arguments:
        store: the place of a run of ``sample(..., store=)``.
        target: what was sampled. With it positions are those in which the samplers moved, as `sample` returned them;
            without it they are the sites by name, like those of [`Draws.from_arviz`][scoresample.Draws.from_arviz].

    Returns:
        The draws; ``info["complete"]`` says whether they are all.

    Raises:
        ValueError: if there is no run, or no draw yet, or positions do not fit the target.
        OSError: when draws are read, if a part of the store is damaged; the message names the file.

    Examples:
        >>> import jax, jax.numpy as jnp, tempfile
        >>> import scoresample as ss
        >>> place = tempfile.mkdtemp() + "/run.zarr"
        >>> density = ss.Gaussian(jnp.zeros(2), 1.0)
        >>> draws = ss.sample(density, ss.NUTS(), key=jax.random.key(0), num_samples=20, num_warmup=50, store=place)
        >>> again = ss.load(place, density)
        >>> again.info["complete"], bool((again.position == draws.position).all())
        (True, True)
    """
    opened = RunStore.open(Path(store), write=False)
    manifest, done = opened.manifest, opened.all_done()
    structure, constrain = None, named_sites
    if target is not None:
        structure, constrain = target.structure, target.constrain
        names = list(named_sites(structure))
        if names != manifest.positions:
            raise ValueError(
                f"`target` has positions {names}, the run has {manifest.positions}. Pass what was sampled."
            )
    region = _largest(opened, done)
    if not region[1].stop:
        raise ValueError(f"`store`: {store} has no draws yet. Wait for its first chunk.")
    complete = all(int(n) == manifest.length_of(b) for b, n in enumerate(done))
    outcome = opened.outcome or {}
    return StoredDraws.over(
        StoredPart(opened, region, structure, constrain),
        kind=_kind(manifest.kind),
        info={"complete": complete, **manifest.facts, **outcome.get("info", {}), "checks": []},
        nfe=outcome.get("nfe", float("nan")),
        seconds=outcome.get("seconds", float("nan")),
        attributes=dict(manifest.attributes),
    )


def _kind(kind: Any) -> Kind:
    return kind


def _largest(store: RunStore, done: np.ndarray) -> tuple[slice, slice]:
    """The most draws that are there in all of some chains, or of some particles, from the first on."""
    manifest = store.manifest
    if manifest.kind != "chains":
        missing = np.flatnonzero(done == 0)
        blocks = int(missing[0]) if missing.size else manifest.num_blocks
        return slice(0, 1), slice(0, min(blocks * manifest.block_size, manifest.shape[1]))
    least = np.minimum.accumulate(done)
    chains = np.minimum((np.arange(len(done)) + 1) * manifest.block_size, manifest.shape[0])
    best = int(np.argmax(least * chains))
    return slice(0, int(chains[best])), slice(0, int(least[best]))
