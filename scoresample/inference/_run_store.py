"""Runs on disk: a preallocated Zarr store that is right at any moment."""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

FORMAT = 1
POSTERIOR, POSITIONS, STATS = "posterior", "unconstrained_posterior", "sample_stats"
_COMMITS = "run_state/commits"
_RUN, _OUTCOME = "scoresample_run", "scoresample_outcome"
_COUNTER = np.dtype(np.int64)


class Layout(NamedTuple):
    """One array of a store.

    Attributes:
        shape: shape of one draw's part.
        dtype: its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def fill(self) -> Any:
        """What stands where nothing was drawn yet: nan, 0 or True (a draw that is not there is not finite)."""
        return {"f": np.nan, "b": True}.get(self.dtype.kind, 0)

    @property
    def num_bytes(self) -> int:
        """Of one draw."""
        return int(np.prod(self.shape, dtype=int)) * self.dtype.itemsize


class Manifest(NamedTuple):
    """What a store says about its run.

    Attributes:
        made_of: all that the draws depend on, in words and hashes by name.
        kind: how draws depend on each other.
        shape: chains and draws in all.
        block_size: chains, or particles, of a block.
        chunk: draws of a chunk; blocks of particles are one chunk.
        positions: names of the arrays of a position.
        attributes: where the draws come from.
        facts: of the run, known from its start.
        note: what the program that made it wrote down for itself.
    """

    made_of: dict[str, Any]
    kind: str
    shape: tuple[int, int]
    block_size: int
    chunk: int
    positions: list[str]
    attributes: dict[str, Any]
    facts: dict[str, Any]
    note: dict[str, Any] | None

    @property
    def num_blocks(self) -> int:
        """Of chains or particles."""
        return -(-self.shape[0 if self.kind == "chains" else 1] // self.block_size)

    def region(self, block: int, start: int, num: int) -> tuple[slice, slice]:
        """The chains and draws of a part of a block."""
        if self.kind != "chains":
            return slice(0, 1), slice(block * self.block_size + start, block * self.block_size + start + num)
        stop = min((block + 1) * self.block_size, self.shape[0])
        return slice(block * self.block_size, stop), slice(start, start + num)

    def length_of(self, block: int) -> int:
        """Draws of a block: of each of its chains, or of all its particles."""
        return self.shape[1] if self.kind == "chains" else min(self.block_size, self.shape[1] - block * self.block_size)


class RunStore:
    """A store of a run, a directory.

    Every array has one Zarr chunk for each task (a block's chunk of draws), which Zarr writes to a new file and then
    moves into place. After all arrays of a task the block's commit is written likewise: how many of its draws are
    there, and all that it needs to go on. So a process that is killed at any moment leaves a store that is right up to
    its commits. Numbers are stored as they are, with a checksum for each chunk.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        """Over an open Zarr group."""
        self.path, self.group = path, group
        self._arrays: dict[str, zarr.Array[Any]] = {}
        stored: Any = group.attrs[_RUN]
        self.manifest = Manifest(**{name: stored[name] for name in Manifest._fields})
        self.manifest = self.manifest._replace(shape=tuple(self.manifest.shape))

    @classmethod
    def create(
        cls, path: Path, manifest: Manifest, groups: Mapping[str, Mapping[str, Layout]], num_bytes: int
    ) -> "RunStore":
        """Make a store whose arrays have all their room, beside its place, and move it there when it is whole.

        Arguments:
            path: the place, where there is nothing yet.
            manifest: what the run is.
            groups: the arrays by group and name.
            num_bytes: size of what a block needs to go on.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        needed = int(np.prod(manifest.shape)) * sum(a.num_bytes for arrays in groups.values() for a in arrays.values())
        needed += manifest.num_blocks * num_bytes
        check_room(path.parent, needed)
        made = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.rmtree(made, ignore_errors=True)
        with writing(path):
            group = zarr.open_group(made, mode="w-", zarr_format=3)
            group.attrs[_RUN] = json.loads(json.dumps({"format": FORMAT, **manifest._asdict()}))
            chains = manifest.kind == "chains"
            chunk = (manifest.block_size, manifest.chunk) if chains else (1, manifest.block_size)
            for group_name, arrays in groups.items():
                inner = group.create_group(group_name)
                for name, array in arrays.items():
                    shapes = (*manifest.shape, *array.shape), (*chunk, *array.shape)
                    axes = ("chain", "draw", *(f"{name}_dim_{k}" for k in range(len(array.shape))))
                    _create(inner, _escaped(name), *shapes, array.dtype, array.fill, axes)
            size = _COUNTER.itemsize + num_bytes
            _create(group, _COMMITS, (manifest.num_blocks, size), (1, size), np.dtype(np.uint8), 0, ("block", "byte"))
            with warnings.catch_warnings():
                # All readers of this layout take it; a reader that does not know it finds the metadata of each array.
                warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
                zarr.consolidate_metadata(made)
            made.rename(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, write: bool = True) -> "RunStore":
        """Open the store at a place.

        Raises:
            ValueError: if there is something else.
        """
        try:
            group = zarr.open_group(path, mode="r+" if write else "r", zarr_format=3)
            stored: Any = group.attrs[_RUN]
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"`store`: {path} is no run of scoresample. Name a new place, or a run of sample(..., store=)."
            ) from error
        if stored["format"] != FORMAT:
            raise ValueError(f"`store`: {path} has format {stored['format']}; this version reads {FORMAT}.")
        return cls(path, group)

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What was told at the end of the run, or None before."""
        # Attributes were read with the group, and another process may have ended the run since.
        attributes: Any = json.loads((self.path / "zarr.json").read_text())["attributes"]
        return attributes.get(_OUTCOME)

    def finish(self, outcome: dict[str, Any]) -> None:
        """Say what is known at the end."""
        with writing(self.path):
            self.group.attrs[_OUTCOME] = outcome

    def names(self, group: str) -> list[str]:
        """The arrays of a group."""
        if group not in self.group:
            return []
        inner = self.group[group]
        assert isinstance(inner, zarr.Group)
        return sorted(unquote(name) for name in inner.array_keys())

    def write(self, group: str, name: str, region: tuple[slice, slice], values: np.ndarray) -> None:
        """Write the part of an array that is a task's: whole chunks."""
        with writing(self.path):
            self._array(f"{group}/{_escaped(name)}")[region] = values

    def commit(self, block: int, done: int, leaves: Sequence[np.ndarray]) -> None:
        """Say that so many draws of a block are there, and what it goes on with."""
        content = [np.array(done + 1, _COUNTER), *leaves]
        packed = np.frombuffer(b"".join(np.ascontiguousarray(x).tobytes() for x in content), np.uint8)
        with writing(self.path):
            self._array(_COMMITS)[block] = packed

    def done(self, block: int) -> int | None:
        """Draws of a block that are there, or None if it has not begun."""
        number = int(self._commit(block)[: _COUNTER.itemsize].view(_COUNTER)[0])
        return number - 1 if number else None

    def all_done(self) -> np.ndarray:
        """Draws of every block that are there."""
        commits = self._array(_COMMITS)
        chosen = np.asarray(commits[:, : _COUNTER.itemsize]).copy().view(_COUNTER)[:, 0]
        return np.maximum(chosen - 1, 0)

    def carried(self, block: int, like: Sequence[Any]) -> list[np.ndarray]:
        """What a block goes on with: arrays of the shapes and types of `like`."""
        content, at, leaves = self._commit(block).tobytes(), _COUNTER.itemsize, []
        for leaf in like:
            num = int(np.prod(leaf.shape, dtype=int))
            leaves.append(np.frombuffer(content, leaf.dtype, num, at).reshape(leaf.shape))
            at += num * np.dtype(leaf.dtype).itemsize
        return leaves

    def read(self, group: str, name: str, region: tuple[slice, slice]) -> np.ndarray:
        """A part of an array that was committed.

        Raises:
            OSError: if a chunk of it is missing or damaged; the message names the file.
        """
        name = f"{group}/{_escaped(name)}"
        array = self._array(name)
        for chunk in self._chunks(array, region):
            if not self._file(name, chunk).exists():
                raise OSError(errno.EIO, self._damaged(name, chunk, "is missing"))
        try:
            return np.asarray(array[region])
        except (ValueError, OSError) as error:
            for chunk in self._chunks(array, region):
                part = tuple(slice(k * n, (k + 1) * n) for k, n in zip(chunk, array.chunks, strict=True))
                try:
                    array[part]
                except (ValueError, OSError):
                    raise OSError(errno.EIO, self._damaged(name, chunk, "is damaged")) from error
            raise

    def _chunks(self, array: zarr.Array[Any], region: tuple[slice, slice]) -> list[tuple[int, ...]]:
        chains, draws = (
            range(part.start // size, -(-part.stop // size))
            for part, size in zip(region, array.chunks[:2], strict=True)
        )
        return [(i, j, *[0] * (array.ndim - 2)) for i in chains for j in draws]

    def _file(self, name: str, chunk: tuple[int, ...]) -> Path:
        return self.path / name / "c" / "/".join(map(str, chunk))

    def _damaged(self, name: str, chunk: tuple[int, ...], what: str) -> str:
        block = chunk[0 if self.manifest.kind == "chains" else 1]
        return (
            f"`store`: {self._file(name, chunk)} {what}. All else is as it was. To draw its block again, to the same "
            f"bits, delete {self.path / _COMMITS / 'c' / str(block) / '0'} and call sample(..., store=) as before."
        )

    def _commit(self, block: int) -> np.ndarray:
        try:
            return np.asarray(self._array(_COMMITS)[block])
        except (ValueError, OSError) as error:
            raise OSError(errno.EIO, self._damaged(_COMMITS, (block, 0), "is damaged")) from error

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            # A chunk that happens to be full of what stands for nothing is written all the same.
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]


def _escaped(name: str) -> str:
    """A name without slashes, which would make groups."""
    return name.replace("%", "%25").replace("/", "%2F")


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Any,
    dimensions: tuple[str, ...],
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill,
        dimension_names=dimensions,
        compressors=(Crc32cCodec(),),
    )


def check_room(folder: Path, needed: int) -> None:
    """Raise an OSError unless a disk has room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"`store`: the draws will take {needed / 2**20:,.0f} MiB, and {folder} has {free / 2**20:,.0f} MiB free. "
            "Make room, or draw fewer.",
        )


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Tell what stands and how to go on if writing fails."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"`store`: writing to {path} failed ({error.strerror or error}). All draws that were committed are intact. "
            "Mend the cause, then call sample(..., store=) with the same arguments to go on.",
        ) from error
