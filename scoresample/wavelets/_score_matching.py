"""Couplings of local energies by score matching."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.wavelets._lattice_terms import laplacians, lattice_terms, projection_overlaps, slopes
from scoresample.wavelets._transform import WaveletTransform

_BATCH = 256
_CUTOFF = 1e-6
"""Combinations of terms that change less than this, relative to the largest, are left at zero."""

Solve = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
"""Which terms are kept, and what is held of the others -> couplings; None if they cannot be found."""


class Terms(NamedTuple):
    """The terms of an energy: functions of a field minus its mean over its deviation."""

    mean: float
    deviation: float
    of_mean: float | None
    even: bool

    def scaled(self, field: Array) -> Array:
        """In standard deviations of a site."""
        return (field - self.mean) / self.deviation

    def of(self, u: Array) -> Array:
        """Their values for one scaled field."""
        return lattice_terms(u, self.of_mean, even=self.even)

    def count(self, field: Array) -> int:
        """How many there are of a field."""
        return jax.eval_shape(self.of, field).size


class ScoreMatching:
    """``min_c E[|grad c.T|^2 / 2 - c.Laplace T]`` over what is random: a linear system in the couplings c.

    Arguments:
        field: (n, *shape), the finer field.
        step: one level of a transform whose details are random, or None for the whole field.
        terms: of the energy.
    """

    def __init__(self, field: Array, step: WaveletTransform | None, terms: Terms) -> None:
        """Keep what it is about: the sums are made when they are needed."""
        self._field, self._step, self._terms = field, step, terms

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The means of ``grad T . grad T'`` and of ``Laplace T``."""
        field, step, terms = self._field, self._step, self._terms
        overlaps = projection_overlaps(field.shape[1:], step)

        @eqx.filter_jit
        def batch(u: Array, counts: Array) -> tuple[Array, Array]:
            along = jax.vmap(lambda u, count: count * slopes(u, terms.of_mean, even=terms.even))(u, counts)
            if step is not None:
                along = step.split(along)[1]
            rows = jnp.moveaxis(along, 1, 0).reshape(along.shape[1], -1)
            curved = jax.vmap(lambda u: laplacians(u, overlaps, terms.of_mean, even=terms.even))(u)
            return jnp.matmul(rows, rows.T, precision="highest"), jnp.sum(counts[:, None] * curved, axis=0)

        sums = []
        for start in range(0, len(field), _BATCH):
            # The last batch is filled up with fields that do not count, to be one program with the others.
            rows = np.arange(start, start + _BATCH)
            counts = jnp.asarray(rows < len(field), field.dtype)
            found = batch(terms.scaled(field[np.minimum(rows, len(field) - 1)]), counts)
            sums.append([np.asarray(each, np.float64) for each in found])
        products, curvatures = (np.sum(each, axis=0) / len(field) for each in zip(*sums, strict=True))
        return products, curvatures

    def solve(self, kept: np.ndarray, held: np.ndarray) -> np.ndarray:
        """The couplings of the kept terms, none of combinations that change nothing, beside those that are held."""
        products, curvatures = self.moments
        curvatures = curvatures - products @ held
        # The linear term does not change with details.
        diagonal, couplings = np.diag(products), held.copy()
        kept = kept & (diagonal > _CUTOFF**2 * diagonal.max())
        size = np.sqrt(diagonal[kept])
        matrix = products[np.ix_(kept, kept)] / (size[:, None] * size)
        couplings[kept] = np.linalg.lstsq(matrix, curvatures[kept] / size, rcond=_CUTOFF)[0] / size
        return couplings

    def change(self, couplings: np.ndarray, others: np.ndarray) -> float:
        """How far their score is from that of others, relative to it, in root mean square over the fields."""
        products, _ = self.moments
        gap = couplings - others
        return float(np.sqrt(max(gap @ products @ gap, 0.0) / max(others @ products @ others, 1e-300)))
