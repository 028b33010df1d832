"""What a learned score is conditioned on: shapes, standardisation and, once given, the value."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from scoresample.paths._frame import Frame, make_frame
from scoresample.scores import Position, Structure, structure_of

Condition = PyTree
"""A tree of arrays: what a score is conditioned on."""


class Conditioning(eqx.Module):
    """The conditions of a conditional score.

    Attributes:
        structure: tree of `jax.ShapeDtypeStruct` of one condition.
        frame: the standardisation of conditions.
        value: the standardised condition, one for all particles or with a leading axis one for each; None before one
            was given.
    """

    structure: Structure
    frame: Frame
    value: Condition

    def __init__(self, condition: Condition, location: Condition = None, scale: Condition = None) -> None:
        """Describe conditions.

        Arguments:
            condition: one condition, or its tree of `jax.ShapeDtypeStruct`.
            location: what is subtracted from conditions, a tree like one, a number, or None.
            scale: what they are divided by, likewise.

        Raises:
            ValueError: if there is no array, or the standardisation does not fit.
        """
        self.structure = jax.tree.map(_floating, structure_of(condition))
        if not jax.tree.leaves(self.structure):
            raise ValueError("`condition` must hold at least one array.")
        self.frame = make_frame(location, scale, self.structure, prefix="condition_")
        self.value = None

    def given(self, condition: Condition) -> "Conditioning":
        """The same with another condition, or one for each particle.

        Raises:
            TypeError: if it holds anything but real numbers.
            ValueError: if its tree or a shape does not fit, or a number is not finite.
        """
        if jax.tree.structure(self.structure) == jax.tree.structure(0) and isinstance(condition, list | tuple):
            condition = np.asarray(condition)
        got, want = jax.tree.structure(condition), jax.tree.structure(self.structure)
        if got != want:
            raise ValueError(f"`condition` has the tree {got}, but {want} is needed. Pass the same containers.")
        leaves, structures = jax.tree.leaves(condition), jax.tree.leaves(self.structure)
        shapes, one = [np.shape(leaf) for leaf in leaves], [leaf.shape for leaf in structures]
        numbers = {shape[0] for shape in shapes if shape}
        many = all(shapes) and [shape[1:] for shape in shapes] == one and len(numbers) == 1 and 0 not in numbers
        if shapes != one and not many:
            raise ValueError(
                f"`condition` must have {_shapes(one)} for all particles, or "
                f"{_shapes([('particles', *shape) for shape in one])} with one for each, got {_shapes(shapes)}."
            )
        if not all(_is_real(leaf) for leaf in leaves):
            raise TypeError(
                f"`condition` must hold real numbers, got {[np.result_type(leaf).name for leaf in leaves]}."
            )
        value = _standard(condition, self.frame)
        return eqx.tree_at(lambda c: c.value, self, value, is_leaf=lambda leaf: leaf is None)

    def argument(self, z: Position) -> Condition:
        """The standardised condition, for a function that is evaluated at one position z, in its floating dtype.

        Raises:
            ValueError: if none was given, or there is one for each particle.
        """
        if self.value is None:
            raise ValueError(
                "this score is conditional: call .given(condition) with one condition for all particles, or one for "
                f"each along a leading axis, before it is evaluated or sampled. A condition has {_described(self)}."
            )
        if self.particles is not None:
            raise ValueError(
                "this score holds a condition for each particle, but it is evaluated at one position. Call "
                ".given(condition) with one condition, or evaluate all particles at once with score_particles."
            )
        dtype = jnp.result_type(*jax.tree.leaves(z))
        return jax.tree.map(lambda x: x.astype(dtype), self.value)

    @property
    def particles(self) -> int | None:
        """The number of particles that have a condition of their own, or None."""
        if self.value is None:
            return None
        first, one = jax.tree.leaves(self.value)[0], jax.tree.leaves(self.structure)[0]
        return first.shape[0] if first.ndim > len(one.shape) else None


@runtime_checkable
class ConditionalPath(Protocol):
    """A path that can be conditioned."""

    def given(self, condition: Any) -> Any:
        """The path under a condition, or under one for each particle."""
        ...


def make_conditioning(condition: Condition, location: Condition, scale: Condition) -> Conditioning | None:
    """What a score is conditioned on, or None without a condition.

    Raises:
        ValueError: if a standardisation comes alone, or does not fit.
    """
    if condition is not None:
        return Conditioning(condition, location, scale)
    for name, value in (("condition_location", location), ("condition_scale", scale)):
        if value is not None:
            raise ValueError(f"`{name}` standardises conditions, but there is no `condition`. Name its shape.")
    return None


def given_condition(conditioning: Conditioning | None, z: Position) -> tuple[Condition, ...]:
    """What a function takes for a condition at one position z: the condition, or nothing where there are none."""
    return () if conditioning is None else (conditioning.argument(z),)


def given(path: Any, condition: Condition) -> Any:
    """A path with a field `conditioning` under a condition.

    Raises:
        TypeError: if the condition holds anything but real numbers.
        ValueError: if the path was made without conditions, or this one does not fit.
    """
    if path.conditioning is None:
        raise ValueError(
            "`condition`: this score was made without conditions. Train it with fit_score(data, conditions=...), or "
            "name the shape of a condition: condition=."
        )
    return eqx.tree_at(lambda p: p.conditioning, path, path.conditioning.given(condition))


def conditioning_axes(path: Any) -> Any:
    """The `condition_axes` of a path with a field `conditioning`."""
    if path.conditioning is None or path.conditioning.particles is None:
        return None
    everything = jax.tree.map(lambda _: None, path)
    marks = jax.tree.map(lambda _: 0, path.conditioning.value)
    return eqx.tree_at(lambda p: p.conditioning.value, everything, marks, is_leaf=lambda leaf: leaf is None)


def _standard(condition: Condition, frame: Frame) -> Condition:
    """Standardised: concrete conditions in double precision on the host, where they may be far from zero."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((condition, frame))):
        return frame.to_standard(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), condition))
    values = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), condition)
    count = sum(int((~np.isfinite(leaf)).sum()) for leaf in jax.tree.leaves(values))
    if count:
        raise ValueError(f"`condition`: {count} of its numbers are not finite. Leave them out.")
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), frame)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), exact.to_standard(values))


def _floating(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        raise TypeError(f"`condition` must hold real numbers, got {leaf.dtype}.")
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf if floating else jax.ShapeDtypeStruct(leaf.shape, jnp.asarray(0.0).dtype)


def _is_real(leaf: Any) -> bool:
    dtype = leaf.dtype if isinstance(leaf, jax.Array | np.ndarray) else np.asarray(leaf).dtype
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _shapes(shapes: list[tuple[Any, ...]]) -> str:
    return f"shape {shapes[0]}" if len(shapes) == 1 else f"shapes {shapes}"


def _described(conditioning: Conditioning) -> str:
    return _shapes([leaf.shape for leaf in jax.tree.leaves(conditioning.structure)])


def condition_like(conditioning: Conditioning | None, dtype: Any) -> tuple[Condition, ...]:
    """Shapes of what functions take for a condition: one tree, or nothing where there are no conditions."""
    if conditioning is None:
        return ()
    return (jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), conditioning.structure),)
