"""Observed data in files."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from scoresample.scores import AbstractSimulator

Arrays = Mapping[str, np.ndarray] | np.ndarray
"""Arrays by name, or one without a name."""

_ENTRY = re.compile(r"(?P<name>.+)\[(?P<place>\d+)\]")
"""A column of a table that is an entry of an array."""
_FORMATS = ".npz, .npy, .csv or .json"


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file.

    ``.npz`` and ``.json`` hold arrays by name, or one; ``.npy`` holds one. A ``.csv`` has a first line of names, and
    columns ``x[0]``, ``x[1]``, ... are one array. NaN, null and empty cells are missing numbers.

    Arguments:
        path: the file.

    Raises:
        ValueError: if there is no such file, its ending is unknown, or it holds no numbers.
    """
    if not path.is_file():
        raise ValueError(f"`--observed`: there is no file '{path}'.")
    if path.suffix not in (".npz", ".npy", ".csv", ".json"):
        raise ValueError(f"`--observed`: '{path}' ends in '{path.suffix}'. It must be a file {_FORMATS}.")
    try:
        return _read(path)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise ValueError(f"`--observed`: '{path}' cannot be read as arrays of numbers: {error}") from error


def _read(path: Path) -> Arrays:
    if path.suffix == ".npy":
        return _floats(np.load(path))
    if path.suffix == ".npz":
        with np.load(path) as content:
            return _checked({name: _floats(content[name]) for name in content.files})
    if path.suffix == ".csv":
        return _checked(_columns(pd.read_csv(path, skipinitialspace=True)))
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        return _checked({str(name): _floats(value) for name, value in content.items()})
    return _floats(content)


def _floats(value: Any) -> np.ndarray:
    """Numbers as they are; null is a number that is missing."""
    array = np.asarray(value)
    if array.dtype == object:
        array = np.asarray(value, dtype=np.float64)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise ValueError(f"{array.dtype} is not a type of real numbers.")
    return array.astype(np.float64)


def _columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    entries: dict[str, dict[int, np.ndarray]] = {}
    found: dict[str, np.ndarray] = {}
    for label in table.columns:
        values = _floats(table[label].to_numpy())
        match = _ENTRY.fullmatch(str(label).strip())
        if match is None:
            found[str(label).strip()] = values
        else:
            entries.setdefault(match["name"], {})[int(match["place"])] = values
    for name, parts in entries.items():
        if sorted(parts) != list(range(len(parts))):
            raise ValueError(f"of {name} it has the columns {sorted(parts)}, not {list(range(len(parts)))}.")
        found[name] = np.stack([parts[place] for place in range(len(parts))], axis=-1)
    return found


def _checked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not arrays:
        raise ValueError("it holds no arrays.")
    return arrays


def names_of(arrays: Arrays | None) -> tuple[str, ...]:
    """The names of arrays that have some."""
    return tuple(arrays) if isinstance(arrays, Mapping) else ()


def as_observations(arrays: Arrays, simulator: AbstractSimulator, source: str) -> list[Any]:
    """The observations in arrays: one where shapes are the simulator's, many where there is a leading axis.

    Arguments:
        arrays: what was read.
        simulator: what says how an observation looks.
        source: where they are from, for messages.

    Raises:
        ValueError: if names or shapes do not fit.
    """
    wanted = simulator.observation
    if isinstance(wanted, Mapping):
        wanted_by_name = dict(wanted)
    elif len(jax.tree.leaves(wanted)) == 1 and jax.tree.structure(wanted) == jax.tree.structure(0):
        wanted_by_name = {simulator.observed_name or "x": wanted}
    else:
        raise ValueError(
            f"`--observed`: files hold one array, or arrays by name, but this simulator's observations are a "
            f"{type(wanted).__name__}. Let it return a dictionary, or use scoresample.analyse_posterior in Python."
        )
    if any(not hasattr(leaf, "shape") for leaf in wanted_by_name.values()):
        raise ValueError("`--observed`: files hold arrays by name, but this simulator's names hold more than arrays.")
    bare = not isinstance(wanted, Mapping)
    given = _by_name(arrays, wanted_by_name, source, bare, named=simulator.observed_name is not None)
    numbers = {_number(name, value, wanted_by_name[name].shape, source) for name, value in given.items()}
    if len(numbers) != 1:
        raise ValueError(
            f"`--observed`: in '{source}' arrays do not have the same number of observations: "
            f"{_shapes(given)} came, of one observation they are {_shapes(wanted_by_name)}."
        )
    number = numbers.pop()
    rows = [given] if number is None else [{n: v[k] for n, v in given.items()} for k in range(number)]
    return [next(iter(row.values())) for row in rows] if bare else rows


def _by_name(
    arrays: Arrays, wanted: Mapping[str, Any], source: str, bare: bool, *, named: bool
) -> dict[str, np.ndarray]:
    """The arrays that are wanted, in that order."""
    if not isinstance(arrays, Mapping):
        if len(wanted) > 1:
            raise ValueError(f"`--observed`: '{source}' holds one array, but {_listed(wanted)} are wanted, by name.")
        return {next(iter(wanted)): arrays}
    if bare and not named and len(arrays) == 1:
        return {next(iter(wanted)): next(iter(arrays.values()))}
    if bare and not named and len({value.shape for value in arrays.values()}) == 1:
        # A table of plain columns: what stands in a line is one observation.
        return {next(iter(wanted)): np.stack(list(arrays.values()), axis=-1)}
    if set(arrays) != set(wanted):
        raise ValueError(f"`--observed`: '{source}' has {_listed(arrays)}, but {_listed(wanted)} are wanted.")
    return {name: arrays[name] for name in wanted}


def _number(name: str, value: np.ndarray, shape: tuple[int, ...], source: str) -> int | None:
    """How many observations an array holds: None for one without a leading axis."""
    if value.shape == shape:
        return None
    if value.shape[1:] == shape and value.ndim == len(shape) + 1 and len(value):
        return len(value)
    raise ValueError(
        f"`--observed`: {name} in '{source}' has the shape {value.shape}. One observation has the shape {shape}, and "
        f"many have one axis before it."
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _shapes(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items())
