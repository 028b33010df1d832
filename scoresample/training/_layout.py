"""Positions as vectors, in a form that programs can be compiled for."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.scores import Position


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a position lie in a vector.

    Attributes:
        tree: the containers.
        shapes: the arrays' shapes, in order.
    """

    tree: Any
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    def position(self, vector: Array) -> Position:
        """The position that a vector stands for."""
        leaves, first = [], 0
        for shape in self.shapes:
            size = math.prod(shape)
            leaves.append(vector[first : first + size].reshape(shape))
            first += size
        return jax.tree.unflatten(self.tree, leaves)


def layout_of(position: Position) -> Layout:
    """The layout of one position."""
    leaves, tree = jax.tree.flatten(position)
    return Layout(tree, tuple(jnp.shape(leaf) for leaf in leaves))


def check_augment(augment: Any, layout: Layout, condition_layout: Layout | None, dtype: Any) -> None:
    """Refuse a function that does not give points (and conditions) of the shapes that it takes.

    Raises:
        ValueError: if the arrays that it gives are not those that it takes.
    """
    layouts = (layout,) if condition_layout is None else (layout, condition_layout)
    taken = tuple(one.position(jnp.zeros(one.size, dtype)) for one in layouts)
    given = jax.eval_shape(augment, jax.random.key(0), *taken)
    expected = taken[0] if condition_layout is None else taken
    if jax.tree.structure(given) != jax.tree.structure(expected):
        what = "a point" if condition_layout is None else "a pair (point, condition)"
        raise ValueError(
            f"`augment` must give {what} as it takes them, got {jax.tree.structure(given)} for "
            f"{jax.tree.structure(expected)}."
        )
    shapes = [tuple(leaf.shape for leaf in jax.tree.leaves(tree)) for tree in (expected, given)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`augment` must keep the shapes of its arguments, got {shapes[1]} for {shapes[0]}.")


class VectorDenoiser(eqx.Module):
    """A denoiser of positions that takes and gives vectors.

    Attributes:
        inner: the denoiser: called it denoises, `score` is the score of noised data, and energies have `logdensity`.
        layout: how positions lie in vectors.
        condition_layout: how conditions lie in vectors, where there are any.
        condition: the condition that holds, or None.
    """

    inner: Any
    layout: Layout = eqx.field(static=True)
    condition_layout: Layout | None = eqx.field(static=True, default=None)
    condition: Any = None

    def given(self, condition: Array | None) -> "VectorDenoiser":
        """The denoiser under one condition, a vector; the same denoiser for None."""
        if condition is None:
            return self
        assert self.condition_layout is not None
        bound = self.condition_layout.position(condition)
        return VectorDenoiser(self.inner, self.layout, self.condition_layout, bound)

    def __call__(self, y: Array, s: Array) -> Array:
        """The denoised point."""
        return ravel_pytree(self.inner(self.layout.position(y), s, *self._told()))[0]

    def score(self, y: Array, s: Array) -> Array:
        """The score of data with noise of standard deviation s."""
        return ravel_pytree(self.inner.score(self.layout.position(y), s, *self._told()))[0]

    def logdensity(self, y: Array, s: Array) -> Array:
        """The log density of noised data, where the denoiser is that of an energy."""
        return self.inner.logdensity(self.layout.position(y), s, *self._told())

    def augmented(self, augment: Any, key: Array, y: Array, condition: Array | None) -> tuple[Array, Array | None]:
        """A point, and the condition that it belongs to, as a function of positions and conditions changes them."""
        if condition is None:
            return ravel_pytree(augment(key, self.layout.position(y)))[0], None
        assert self.condition_layout is not None
        pair = augment(key, self.layout.position(y), self.condition_layout.position(condition))
        point, known = (ravel_pytree(one)[0] for one in pair)
        return point, known

    def _told(self) -> tuple[Any, ...]:
        return () if self.condition is None else (self.condition,)
