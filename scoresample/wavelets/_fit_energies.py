"""Local energies of fields across wavelet scales, by score matching in closed form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.wavelets._lattice_terms import (
    has_lower_bound,
    laplacians,
    lattice_terms,
    num_terms,
    projection_overlaps,
    slopes,
)
from scoresample.wavelets._local_energy import LocalEnergyPath
from scoresample.wavelets._path import WaveletPath
from scoresample.wavelets._transform import WaveletTransform

_BATCH = 256
_CUTOFF = 1e-6
"""Combinations of terms that change less than this, relative to the largest, are left at zero."""
_FEWEST = 100
_MOST_FOR_LIKELIHOOD = 16
"""So many sites of a coarsest field, or fewer, are learned by maximum likelihood."""
_PROPOSALS, _INFLATION, _FEWEST_EFFECTIVE = 50_000, 1.5, 500
_NEWTON_STEPS, _RIDGE, _TOLERANCE = 100, 1e-5, 1e-4


def fit_wavelet_energies(
    fields: Any, *, wavelet: str = "haar", levels: int | None = None, even: bool = False, seed: int = 0
) -> WaveletPath:
    """Learn the law of stationary periodic fields across scales as local energies: in closed form, without a network.

    The law of the coarsest field, and that of the details of each scale given the coarser field, is ``exp(-E)`` with an
    energy linear in its couplings ([`LocalEnergyPath`][scoresample.LocalEnergyPath]). Score matching (Hyvarinen 2005)
    over what is random at that scale, ``min_c E[|grad c.T|^2 / 2 - c.Laplace T]``, is then a linear system, and no
    normalising constant is needed. (A coarsest field of 16 sites or fewer is learned by maximum likelihood: its modes
    have shares that score matching hardly sees.) Where the law has such an energy the couplings are consistent: their
    error falls with the root of the number of fields times sites. Draw with
    [`ParallelMALA`][scoresample.ParallelMALA], which leaves the law of each energy invariant.

    For lattice models and textures, which are the same everywhere. Not for images of objects: use
    [`fit_wavelet`][scoresample.fit_wavelet].

    Arguments:
        fields: an array (n, height, width) or (n, length).
        wavelet: the name of an orthogonal wavelet of PyWavelets.
        levels: how often fields are halved; by default until the shortest axis has two sites.
        even: whether x and -x have the same law: then odd terms are left out, and the mean is 0.
        seed: of the importance sampling of the coarsest field's constant.

    Returns:
        The path; ``path.stages[k].couplings`` are those of a stage.

    Raises:
        TypeError: if `fields` is no array of real numbers.
        ValueError: if there are fewer than a hundred fields, a number is not finite, or the energy of a scale has no
            lower bound.

    Source: Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> fields = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0)).sample(jax.random.key(0), 500)
        >>> ss.fit_wavelet_energies(fields, levels=1, even=True).stage_names()
        ('coarsest field 2 x 2', 'details 2 x 2')
    """
    values = _checked(fields)
    transform = WaveletTransform(values.shape[1:], wavelet, levels)
    stages: list[LocalEnergyPath] = []
    field = jnp.asarray(values)
    for _ in range(transform.levels):
        step = WaveletTransform(field.shape[1:], wavelet, 1)
        low, details = step.split(field)
        stages.append(_fitted(field, details, step, even=even, seed=seed))
        field = low
    stages.append(_fitted(field, field, None, even=even, seed=seed))
    return WaveletPath(transform, stages[::-1])


def _checked(fields: Any) -> np.ndarray:
    values = np.asarray(fields)
    if values.dtype.kind not in "iuf" or values.ndim not in (2, 3):
        raise TypeError(
            f"`fields` must be real numbers (n, height, width) or (n, length), got {values.dtype} of shape "
            f"{values.shape}."
        )
    if len(values) < _FEWEST:
        raise ValueError(f"`fields`: at least {_FEWEST} fields are needed, got {len(values)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"`fields`: {int((~np.isfinite(values)).sum())} values are not finite. Drop those fields.")
    return values.astype(np.asarray(jnp.asarray(0.0)).dtype)


class _Terms(NamedTuple):
    """The terms of an energy: functions of a field minus its mean over its deviation."""

    mean: float
    deviation: float
    of_mean: float | None
    even: bool

    def scaled(self, field: Array) -> Array:
        """In standard deviations of a site."""
        return (field - self.mean) / self.deviation

    def of(self, field: Array) -> Array:
        """Their values for one field."""
        return lattice_terms(self.scaled(field), self.of_mean, even=self.even)


def _fitted(field: Array, part: Array, step: WaveletTransform | None, *, even: bool, seed: int) -> LocalEnergyPath:
    """The energy of one stage."""
    space = field.shape[1:]
    mean = 0.0 if even else float(jnp.mean(field))
    deviation = float(jnp.sqrt(jnp.mean((field - mean) ** 2)))
    axes = (0, *range(2 - int(step is None), part.ndim))
    deviations = jnp.sqrt(jnp.mean((part - (mean if step is None else 0.0)) ** 2, axis=axes, keepdims=True))[0]
    if not (deviation > 0 and bool(jnp.all(deviations > 0))):
        raise ValueError("`fields`: a band does not vary. Take fewer `levels`, or drop that axis.")
    of_mean = None
    if step is None:
        of_mean = float(jnp.std(jnp.mean(part, axis=tuple(range(1, part.ndim))))) / deviation

    terms = _Terms(mean, deviation, of_mean, even)
    if step is None and np.prod(space) <= _MOST_FOR_LIKELIHOOD:
        solved = _likeliest(part, terms, seed)
    else:
        solved = _best_scores(field, step, terms)
    quadratic, quartic = num_terms(len(space))
    everything = np.ones(jax.eval_shape(terms.of, field[0]).size, bool)
    alone, without, normal = everything.copy(), everything.copy(), everything.copy()
    alone[quadratic + 1 : quadratic + quartic] = False
    without[quadratic : quadratic + quartic] = False
    normal[quadratic : None if even else -1] = False
    for kept in (everything, alone, without, normal):
        couplings = solved(kept)
        if couplings is not None and has_lower_bound(couplings, space, step):
            return LocalEnergyPath(
                jnp.asarray(couplings, field.dtype), jax.ShapeDtypeStruct(part.shape[1:], part.dtype), step,
                mean=mean, deviation=deviation, scale=jnp.broadcast_to(deviations, part.shape[1:]), even=even,
                mean_deviation=of_mean,
            )  # fmt: skip
    raise ValueError(
        f"`fields`: no energy with a lower bound was found for a field of {' x '.join(map(str, space))} sites. More "
        "fields may help, or `fit_wavelet`."
    )


Solve = Callable[[np.ndarray], np.ndarray | None]
"""Which terms are kept -> couplings, zero for the others; None if there are none."""


def _best_scores(field: Array, step: WaveletTransform | None, terms: _Terms) -> Solve:
    """Score matching: the means of ``grad T . grad T'`` and of ``Laplace T`` of all terms T, along what is random."""
    overlaps = projection_overlaps(field.shape[1:], step)

    @eqx.filter_jit
    def batch(u: Array, counts: Array) -> tuple[Array, Array]:
        along = jax.vmap(lambda u, count: count * slopes(u, terms.of_mean, even=terms.even))(u, counts)
        if step is not None:
            along = step.split(along)[1]
        rows = jnp.moveaxis(along, 1, 0).reshape(along.shape[1], -1)
        curved = jax.vmap(lambda u: laplacians(u, overlaps, terms.of_mean, even=terms.even))(u)
        return jnp.matmul(rows, rows.T, precision="highest"), counts @ curved

    sums = []
    for start in range(0, len(field), _BATCH):
        # The last batch is filled up with fields that do not count, to be one program with the others.
        rows = np.arange(start, start + _BATCH)
        counts = jnp.asarray(rows < len(field), field.dtype)
        found = batch(terms.scaled(field[np.minimum(rows, len(field) - 1)]), counts)
        sums.append([np.asarray(each, np.float64) for each in found])
    products, curvatures = (np.sum(each, axis=0) / len(field) for each in zip(*sums, strict=True))

    def solve(kept: np.ndarray) -> np.ndarray:
        # The linear term does not change with details.
        diagonal, couplings = np.diag(products), np.zeros(len(curvatures))
        kept = kept & (diagonal > _CUTOFF**2 * diagonal.max())
        size = np.sqrt(diagonal[kept])
        matrix = products[np.ix_(kept, kept)] / (size[:, None] * size)
        couplings[kept] = np.linalg.lstsq(matrix, curvatures[kept] / size, rcond=_CUTOFF)[0] / size
        return couplings

    return solve


def _likeliest(part: Array, terms: _Terms, seed: int) -> Solve:
    """Maximum likelihood by Newton's method; the constant by importance sampling from a normal law that is wider.

    Score matching hardly sees what share a mode has. This does, and in so few dimensions the constant is no obstacle.
    """
    flat = np.asarray(part, np.float64).reshape(len(part), -1)
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(_INFLATION * np.cov(flat, rowvar=False) + 1e-12 * np.eye(flat.shape[1]))
    normal = rng.normal(size=(_PROPOSALS, flat.shape[1]))
    proposals = jnp.asarray(flat.mean(axis=0) + normal @ root.T, part.dtype).reshape(-1, *part.shape[1:])
    values = np.asarray(eqx.filter_jit(jax.vmap(terms.of))(jnp.concatenate([part, proposals])), np.float64)
    observed, drawn = values[: len(part)].mean(axis=0), values[len(part) :]
    size = np.maximum(drawn.std(axis=0), 1e-12)
    drawn, log_proposal = (drawn - observed) / size, -0.5 * np.sum(normal**2, axis=1)

    def solve(kept: np.ndarray) -> np.ndarray | None:
        values, found = drawn[:, kept], np.zeros(int(kept.sum()))
        # The start is a normal law: the first term is half the sum of squares.
        found[0] = size[0]

        def loss(c: np.ndarray) -> tuple[float, np.ndarray]:
            logits = -values @ c - log_proposal
            shifted = np.exp(logits - logits.max())
            ridge = 0.5 * _RIDGE * float(c @ c)
            return float(np.log(shifted.sum()) + logits.max()) + ridge, shifted / shifted.sum()

        for _ in range(_NEWTON_STEPS):
            value, weights = loss(found)
            mean = weights @ values
            curvature = (values * weights[:, None]).T @ values - np.outer(mean, mean) + _RIDGE * np.eye(len(found))
            move, length = np.linalg.solve(curvature, mean - _RIDGE * found), 1.0
            while loss(found + length * move)[0] > value and length > 1e-6:
                length /= 2
            found = found + length * move
            if np.max(np.abs(mean)) < _TOLERANCE:
                break
        weights = loss(found)[1]
        if np.max(np.abs(weights @ values)) > 1e-2 or 1 / np.sum(weights**2) < _FEWEST_EFFECTIVE:
            return None
        couplings = np.zeros(len(kept))
        couplings[kept] = found / size[kept]
        return couplings

    return solve
