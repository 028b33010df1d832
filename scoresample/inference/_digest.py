"""What a run is made of, in words and hashes that another process finds again."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LIBRARIES = (
    "blackjax",
    "builtins",
    "diffrax",
    "equinox",
    "jax",
    "jaxtyping",
    "numpy",
    "numpyro",
    "scipy",
    "scoresample",
)
"""Whose functions count by their names: versions of packages are recorded beside."""


def digest(thing: Any) -> str:
    """A hash of everything that is found in an object: arrays by their bytes, functions by their names and code.

    What a function closes over is looked at as well, and the data and functions that it takes from its own module.
    Objects that are neither trees of arrays nor functions count by their type alone.
    """
    found = hashlib.sha256()
    _feed(found, thing, set())
    return found.hexdigest()[:16]


def _feed(found: Any, thing: Any, seen: set[int]) -> None:
    """Add an object to a hash; `seen` are those above it, which may be among their own parts."""
    if isinstance(thing, bool | int | float | complex | str | bytes | np.dtype | type | None):
        found.update(f"{type(thing).__name__} {thing!r};".encode())
        return
    if isinstance(thing, jax.Array | np.ndarray | np.generic):
        if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
            thing = jax.random.key_data(thing)
        array = np.asarray(thing)
        found.update(f"array {array.dtype}{array.shape}".encode())
        # Arrays of objects hold addresses, which say nothing.
        found.update(array.tobytes() if array.dtype != object else b"objects")
        return
    found.update(type(thing).__qualname__.encode() + b"(")
    if id(thing) in seen:
        return
    for part in _parts(thing):
        _feed(found, part, seen | {id(thing)})
    found.update(b")")


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, Mapping):
        return [part for name in thing for part in (name, thing[name])]
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, set | frozenset):
        return sorted(digest(part) for part in thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        names = [field.name for field in dataclasses.fields(thing)]
        return [part for name in names for part in (name, getattr(thing, name, None))]
    function: Any = getattr(thing, "__wrapped__", getattr(thing, "__func__", thing))
    code = getattr(function, "__code__", None)
    if code is not None and str(function.__module__).partition(".")[0] in _LIBRARIES:
        return [function.__module__, function.__qualname__, _closed(function), getattr(thing, "__self__", None)]
    if code is not None:
        parts = [function.__defaults__, _closed(function), _globals(function), getattr(thing, "__self__", None)]
        return [function.__qualname__, *_code(code), *parts]
    # Other trees, such as NumPyro's distributions.
    leaves = jax.tree.leaves(thing)
    return [] if len(leaves) == 1 and leaves[0] is thing else leaves


def _closed(function: Any) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or () if _is_set(cell)]


def _code(code: CodeType) -> list[Any]:
    """What a program does: its instructions, names and constants, and those of the functions inside."""
    constants = [_code(part) if isinstance(part, CodeType) else part for part in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _names(code: CodeType) -> set[str]:
    inside = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inside)


def _globals(function: Any) -> list[Any]:
    """The numbers and arrays that a function takes from its module, and its module's own functions."""
    found = []
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        value = function.__globals__[name]
        own = getattr(value, "__module__", None) == function.__module__ and hasattr(value, "__code__")
        if own or isinstance(value, bool | int | float | complex | str | list | tuple | dict | jax.Array | np.ndarray):
            found += [name, value]
    return found


def _is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
