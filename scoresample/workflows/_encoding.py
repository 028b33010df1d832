"""Observations as networks see them."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import Encoded

Observation = Any
"""An array, or a tree of arrays; NaN marks what is missing."""


_LINEAR_TO = 4.0
"""In spreads of the middle."""


class Encoding(eqx.Module):
    """From observations to what networks see: standardised, heavy tails drawn in, gaps filled and marked.

    Attributes:
        structure: tree of `jax.ShapeDtypeStruct` of one observation.
        location: what is subtracted, shaped like the encoded values.
        scale: by what is divided, likewise.
        has_gaps: whether observations with missing numbers were seen in training.
        takes_fewer: of sets: whether parts were left out in training, so that fewer of them are nothing new.
        exchangeable: whether the first axis of an observation holds exchangeable parts.
    """

    structure: Any
    location: Array
    scale: Array
    has_gaps: bool = eqx.field(static=True)
    exchangeable: bool = eqx.field(static=True)
    takes_fewer: bool = eqx.field(static=True, default=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the encoded values of one observation."""
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.structure)]
        if self.exchangeable:
            return shapes[0][0], sum(int(np.prod(shape[1:])) for shape in shapes)
        return (sum(int(np.prod(shape)) for shape in shapes),)

    def batch(self, observation: Observation) -> tuple[Observation, bool]:
        """Observations with a leading axis on every array, and whether there was one alone, without that axis.

        Arguments:
            observation: one; or many with a leading axis, or in a list. In a list, sets may differ in their number of
                parts: they are padded to the longest.
        """
        structures, tree = jax.tree.flatten(self.structure)
        bare = tree == jax.tree.structure(0)
        listed = isinstance(observation, list | tuple) and len(observation) > 0
        if bare and listed:
            parts = [_as_array(one) for one in observation]
            listed = self.exchangeable and all(part.ndim == len(structures[0].shape) for part in parts)
            observation = parts if listed else _as_array(observation)
        elif listed:
            listed = all(jax.tree.structure(one) == tree for one in observation)
        if listed:
            rows = [jax.tree.map(jnp.asarray, one) for one in observation]
            longest = max(jax.tree.leaves(one)[0].shape[0] for one in rows) if self.exchangeable else 0
            padded = [jax.tree.map(lambda x: _padded(x, longest), one) for one in rows]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded), False
        leaves = jax.tree.leaves(observation)
        one = bool(leaves) and np.ndim(leaves[0]) == len(structures[0].shape)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], observation) if one else observation, one

    def __call__(self, observations: Observation) -> Encoded:
        """Observations with a leading axis, encoded.

        Sets of fewer parts than in training are padded where parts were missing there. Others keep their parts, with a
        warning, for the encoder takes any number but has not seen this one.

        Raises:
            ValueError: if shapes do not fit, or numbers are missing that never were in training. Of values that a
                compiled function traces neither is checked: what is missing then makes scores that are NaN.
        """
        rows = self._rows(observations)
        fewer_is_known = self.has_gaps or self.takes_fewer
        if self.exchangeable and rows.shape[1] != self.shape[0]:
            if fewer_is_known and rows.shape[1] < self.shape[0]:
                rows = jax.vmap(lambda x: _padded(x, self.shape[0]))(rows)
            else:
                warnings.warn(
                    f"`observation` has {rows.shape[1]} parts, but in the simulations of the training there were "
                    f"{'at most ' if fewer_is_known else ''}{self.shape[0]}: this posterior is extrapolated. Simulate "
                    "sets of as many parts, and pad those with fewer by NaN.",
                    stacklevel=3,
                )
        present = ~jnp.isnan(rows)
        if not self.has_gaps and not _is_traced(rows) and not bool(self._may_miss(present)):
            raise ValueError(
                f"`observation`: {int((~present).sum())} numbers are NaN, but nothing was missing in the simulations "
                "that this posterior was trained on. Let the simulator leave numbers out (NaN) as often as the data do."
            )
        values = _drawn_in((rows - self.location) / self.scale)
        if not (self.has_gaps or self.exchangeable):
            return Encoded(values)
        if not self.has_gaps:
            # What may not be missing stays NaN, for compiled functions to see.
            left_out = ~present.any(axis=-1, keepdims=True) & jnp.asarray(self.takes_fewer)
            some_are_there = present.any(axis=(1, 2), keepdims=True)
            values = jnp.where(left_out & some_are_there, 0.0, values)
            return Encoded(values, jnp.broadcast_to(~left_out, values.shape).astype(values.dtype))
        return Encoded(jnp.where(present, values, 0.0), present.astype(values.dtype))

    def _may_miss(self, present: Array) -> Array:
        """Without gaps in training: nothing, or where parts were left out, whole parts but not all of a set."""
        if not self.takes_fewer:
            return present.all()
        some, every = present.any(axis=-1), present.all(axis=-1)
        return jnp.all((some == every) & some.any(axis=1, keepdims=True))

    def completed(self, observation: Observation) -> Observation:
        """One observation, with parts of NaN up to the number of the training, where parts were missing there."""
        if not (self.exchangeable and (self.has_gaps or self.takes_fewer)):
            return observation
        many, one = self.batch(observation)
        first = jax.tree.map(lambda x: x[0], many) if one else observation
        return jax.tree.map(lambda x: _padded(jnp.asarray(x), self.shape[0]), first)

    def decode(self, condition: Encoded) -> Observation:
        """One observation from what networks see of it, NaN where it is missing."""
        rows = self.location + self.scale * _let_out(condition.values)
        if condition.present is not None:
            rows = jnp.where(condition.present > 0, rows, jnp.nan)
        leaves, tree = jax.tree.flatten(self.structure)
        keep = 1 if self.exchangeable else 0
        sizes = [int(np.prod(leaf.shape[keep:])) for leaf in leaves]
        parts = jnp.split(rows, np.cumsum(sizes)[:-1], axis=-1)
        number = rows.shape[:keep]
        shaped = [part.reshape(*number, *leaf.shape[keep:]) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(tree, shaped)

    def _rows(self, observations: Observation) -> Array:
        got, want = jax.tree.structure(observations), jax.tree.structure(self.structure)
        if got != want:
            raise ValueError(f"`observation` has the tree {got}, but {want} is needed.")
        parts, numbers, keep = [], set(), 2 if self.exchangeable else 1
        for leaf, one in zip(jax.tree.leaves(observations), jax.tree.leaves(self.structure), strict=True):
            leaf = jnp.asarray(leaf, jnp.asarray(0.0).dtype)
            if leaf.ndim != len(one.shape) + 1 or leaf.shape[keep:] != one.shape[keep - 1 :]:
                wanted = ("parts", *one.shape[1:]) if self.exchangeable else one.shape
                raise ValueError(f"`observation` must have arrays of shape {wanted}, got {leaf.shape[1:]}.")
            if not _is_traced(leaf) and bool(jnp.isinf(leaf).any()):
                raise ValueError("`observation` holds infinite numbers.")
            numbers.add(leaf.shape[:keep])
            parts.append(leaf.reshape(*leaf.shape[:keep], int(np.prod(leaf.shape[keep:]))))
        if len(numbers) > 1 or 0 in next(iter(numbers)):
            raise ValueError(
                f"`observation` must have one number of {'observations and parts' if self.exchangeable else 'rows'}, "
                f"at least 1, shared by all arrays, got {sorted(numbers)}."
            )
        return jnp.concatenate(parts, axis=-1)


def _is_traced(x: Array) -> bool:
    return isinstance(x, jax.core.Tracer)


def _as_array(x: Any) -> Array | np.ndarray:
    """Nested lists may hold what a compiled function traces."""
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x))
    return jnp.asarray(x) if traced or isinstance(x, jax.Array) else np.asarray(x)


def _padded(parts: Array, number: int) -> Array:
    """With parts of NaN at the end."""
    missing = [(0, max(number - parts.shape[0], 0))] + [(0, 0)] * (parts.ndim - 1)
    return jnp.pad(parts.astype(jnp.asarray(0.0).dtype), missing, constant_values=jnp.nan) if missing[0][1] else parts


def _drawn_in(x: Array) -> Array:
    """The identity to a few spreads, and beyond logarithms: what is rare and huge stays of order ten."""
    beyond = jnp.maximum(jnp.abs(x) / _LINEAR_TO, 1)
    return jnp.where(jnp.abs(x) <= _LINEAR_TO, x, jnp.sign(x) * _LINEAR_TO * (1 + jnp.log(beyond)))


def _let_out(x: Array) -> Array:
    """The inverse of `_drawn_in`."""
    outside = jnp.abs(x) > _LINEAR_TO
    exponent = jnp.where(outside, jnp.abs(x) / _LINEAR_TO - 1, 0)
    return jnp.where(outside, jnp.sign(x) * _LINEAR_TO * jnp.exp(exponent), x)


def make_encoding(observations: Observation, structure: Any, *, exchangeable: bool) -> Encoding:
    """The encoding of simulated observations: by their medians and the spread of their middle 68%.

    Raises:
        ValueError: if observations are infinite, hold no parts where they should, or never vary.
    """
    if exchangeable:
        lengths = {leaf.shape[:1] for leaf in jax.tree.leaves(structure)}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                "`exchangeable`: observations need one first axis of parts, shared by all arrays; their shapes are "
                f"{[leaf.shape for leaf in jax.tree.leaves(structure)]}."
            )
    blank = Encoding(structure, jnp.zeros(()), jnp.ones(()), True, exchangeable)
    rows = np.asarray(blank._rows(observations), np.float64)
    has_gaps = bool(np.isnan(rows).any())
    pooled = rows.reshape(-1, rows.shape[-1]) if exchangeable else rows
    # What is missing in all simulations is never looked at.
    pooled = np.where(np.isnan(pooled).all(axis=0), 0.0, pooled)
    low, middle, high = np.nanquantile(pooled, [0.16, 0.5, 0.84], axis=0)
    spread = (high - low) / 2
    # Of counts that are mostly zero the middle has no width.
    scale = np.where(spread > 0, spread, np.nanstd(pooled, axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    dtype = jnp.asarray(0.0).dtype
    return Encoding(structure, jnp.asarray(middle, dtype), jnp.asarray(scale, dtype), has_gaps, exchangeable)
