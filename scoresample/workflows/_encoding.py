"""Observations as networks see them."""

from typing import Any

import equinox as eqx
import jax
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
        exchangeable: whether the first axis of an observation holds exchangeable parts.
    """

    structure: Any
    location: Array
    scale: Array
    has_gaps: bool = eqx.field(static=True)
    exchangeable: bool = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the encoded values of one observation."""
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.structure)]
        if self.exchangeable:
            return shapes[0][0], sum(int(np.prod(shape[1:])) for shape in shapes)
        return (sum(int(np.prod(shape)) for shape in shapes),)

    def __call__(self, observations: Observation) -> Encoded:
        """Observations with a leading axis, encoded.

        Raises:
            ValueError: if shapes do not fit, or numbers are missing that never were in training.
        """
        rows = self._rows(observations)
        present = ~jnp.isnan(rows)
        if not self.has_gaps and not bool(present.all()):
            raise ValueError(
                f"`observation`: {int((~present).sum())} numbers are NaN, but nothing was missing in the simulations "
                "that this posterior was trained on. Let the simulator leave numbers out (NaN) as often as the data do."
            )
        values = _drawn_in((rows - self.location) / self.scale)
        filled = jnp.where(present, values, 0.0)
        return Encoded(filled, present.astype(filled.dtype) if self.has_gaps else None)

    def decode(self, condition: Encoded) -> Observation:
        """One observation from what networks see of it, NaN where it is missing."""
        rows = self.location + self.scale * _let_out(condition.values)
        if condition.present is not None:
            rows = jnp.where(condition.present > 0, rows, jnp.nan)
        leaves, tree = jax.tree.flatten(self.structure)
        keep = 1 if self.exchangeable else 0
        sizes = [int(np.prod(leaf.shape[keep:])) for leaf in leaves]
        parts = jnp.split(rows, np.cumsum(sizes)[:-1], axis=-1)
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(tree, shaped)

    def _rows(self, observations: Observation) -> Array:
        got, want = jax.tree.structure(observations), jax.tree.structure(self.structure)
        if got != want:
            raise ValueError(f"`observation` has the tree {got}, but {want} is needed.")
        parts = []
        for leaf, one in zip(jax.tree.leaves(observations), jax.tree.leaves(self.structure), strict=True):
            leaf = jnp.asarray(leaf, jnp.asarray(0.0).dtype)
            if leaf.shape[1:] != one.shape:
                raise ValueError(f"`observation` must have arrays of shape {one.shape}, got {leaf.shape[1:]}.")
            if bool(jnp.isinf(leaf).any()):
                raise ValueError("`observation` holds infinite numbers.")
            keep = 2 if self.exchangeable else 1
            parts.append(leaf.reshape(*leaf.shape[:keep], -1))
        return jnp.concatenate(parts, axis=-1)


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
