"""Interrupted trainings: their state on disk, and what it belongs to."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.training._archive import read_archive, write_archive
from scoresample.training._data import Points
from scoresample.training._epoch import Settings, Training

_KIND = "training"
_SCHEDULE_STEPS = (0, 1, 10, 100, 1000, 10_000)
"""Where two schedules of learning rates are compared."""


class Progress(NamedTuple):
    """How far a training has come.

    Attributes:
        epochs: epochs that are done.
        train: the mean training loss of each.
        held_out: held-out losses.
        held_out_epochs: the epochs after which they were taken, counted from 0.
        seconds: time spent.
    """

    epochs: int
    train: list[float]
    held_out: list[float]
    held_out_epochs: list[int]
    seconds: float

    def extended(self, train: np.ndarray, held_out: float, seconds: float) -> "Progress":
        """After some more epochs."""
        epochs = self.epochs + len(train)
        return Progress(
            epochs,
            [*self.train, *train.tolist()],
            [*self.held_out, held_out],
            [*self.held_out_epochs, epochs - 1],
            seconds,
        )

    @property
    def best_epoch(self) -> int:
        """The epoch with the least held-out loss."""
        return self.held_out_epochs[int(np.argmin(self.held_out))]


def run_fingerprint(key: Array, settings: Settings, first: Points, weights: Any, static: Any, *others: Any) -> str:
    """What tells one training from another: its key, settings, data, network and first weights, and other numbers."""
    digest = hashlib.sha256()
    facts = [[float(value(step)) for step in _SCHEDULE_STEPS] if callable(value) else value for value in settings]
    network = re.sub(r" at 0x[0-9a-f]+", "", repr(jax.tree.structure(static)))
    digest.update(repr((facts, others, network)).encode())
    arrays = [jax.random.key_data(key), *first, *jax.tree.leaves(weights)]
    for array in arrays:
        if array is not None:
            array = np.asarray(array)
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def save_progress(path: str | os.PathLike[str], fingerprint: str, state: Training, done: Progress) -> None:
    """Write the state of a training."""
    arrays = {f"state.{place}": leaf for place, leaf in enumerate(jax.tree.leaves(state))}
    arrays |= {"train": np.array(done.train), "held_out": np.array(done.held_out)}
    content = {
        "fingerprint": fingerprint,
        "epochs": done.epochs,
        "held_out_epochs": done.held_out_epochs,
        "seconds": done.seconds,
    }
    write_archive(path, _KIND, content, arrays)


def load_progress(
    path: str | os.PathLike[str], fingerprint: str, state: Training, done: Progress
) -> tuple[Training, Progress]:
    """The state of a training that was interrupted, or the state as it came where there is no file.

    Raises:
        ValueError: if the file is damaged or belongs to another training.
    """
    if not Path(path).exists():
        return state, done
    content, arrays = read_archive(path, _KIND)
    if content["fingerprint"] != fingerprint:
        raise ValueError(
            f"`checkpoint`: {os.fspath(path)} belongs to a training with another key, data, network or settings. Name "
            "another file, or delete it to start anew."
        )
    leaves, tree = jax.tree.flatten(state)
    loaded = [jnp.asarray(arrays[f"state.{place}"]) for place in range(len(leaves))]
    for old, new in zip(leaves, loaded, strict=True):
        if old.shape != new.shape or old.dtype != new.dtype:
            raise ValueError(f"`checkpoint`: {os.fspath(path)} was written by a release with other states of training.")
    return jax.tree.unflatten(tree, loaded), Progress(
        content["epochs"],
        arrays["train"].tolist(),
        arrays["held_out"].tolist(),
        content["held_out_epochs"],
        content["seconds"],
    )
