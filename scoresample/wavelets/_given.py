"""Paths of details that wait for the coarser field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array


def check_coarser_field(low: Array, space: tuple[int, ...]) -> None:
    """Refuse what is no coarser field of this shape, nor one for each particle of a run."""
    if low.shape != space and low.shape[1:] != space:
        raise ValueError(
            f"`low` must be the coarser field, of shape {space}, or {('particles', *space)}, got {low.shape}."
        )


def own_axis(path: Any, leaf: Callable[[Any], Array | None], ndim: int) -> Any:
    """None, or a tree like the path that marks a leaf of so many axes where every particle has its own."""
    value = leaf(path)
    if value is None or value.ndim == ndim:
        return None
    return eqx.tree_at(leaf, jax.tree.map(lambda _: None, path), 0, is_leaf=lambda x: x is None)
