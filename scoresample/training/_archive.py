"""Arrays and settings in one file that holds data only, and tells when it was damaged."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

FORMAT_VERSION = 1
"""Counted up when files are written that older releases cannot read."""

_ENTRY = "scoresample"


def write_archive(path: str | os.PathLike[str], kind: str, content: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write arrays and JSON to one safetensors file, which replaces what was there only once it is complete.

    Arguments:
        path: the file.
        kind: what it holds.
        content: anything that JSON can hold.
        arrays: arrays by name.
    """
    path = Path(path)
    arrays = {name: np.array(value, order="C") for name, value in arrays.items()}
    header = {"version": FORMAT_VERSION, "kind": kind, "content": content}
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    metadata = {_ENTRY: text, "checksum": _checksum(text, arrays)}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        safetensors.numpy.save_file(arrays, unfinished, metadata=metadata)
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_archive(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_archive` wrote. No code is run.

    Arguments:
        path: the file.
        kind: what it must hold.

    Returns:
        The content and the arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, is truncated or damaged, or was written by a later release.
    """
    where = f"`path`: {os.fspath(path)}"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{where} is not a file.")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{where} is truncated, damaged or no safetensors file ({error}).") from error
    text = metadata.get(_ENTRY)
    if text is None:
        raise ValueError(f"{where} was not written by scoresample: its header has no entry {_ENTRY!r}.")
    try:
        header = json.loads(text)
        version, found, content = header["version"], header["kind"], header["content"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: its header cannot be read ({error}).") from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{where} has format version {version}, but this release reads version {FORMAT_VERSION}. Install a release "
            "that knows it."
        )
    if metadata.get("checksum") != _checksum(text, arrays):
        raise ValueError(f"{where} is damaged: its checksum does not fit its content. Take another copy.")
    if found != kind:
        raise ValueError(f"{where} holds a {found}, not a {kind}.")
    return content, arrays


def _checksum(text: str, arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the settings and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
