"""Local terms of energies of periodic fields: products of neighbours, and potentials of single sites."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.wavelets._filters import band_blocks
from scoresample.wavelets._transform import WaveletTransform

_MARGIN = 1e-6
"""Relative: what rounding to single precision may take from a lower bound."""
Lag = tuple[int, ...]
_LAGS: dict[int, tuple[Lag, ...]] = {
    1: ((1,), (2,), (3,)),
    2: (
        (1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (2, -1), (1, 2), (1, -2), (2, 2), (2, -2), (3, 0),
        (0, 3),
    ),
}  # fmt: skip
"""One of each pair of opposite lags."""
_CENTRES, _WIDTH = (0.0, 0.75, 1.5), 0.5
"""Of bumps, in standard deviations of a site."""


def quadratic_terms(u: Array) -> Array:
    """``sum u^2 / 2``, and ``sum u_x u_(x+l)`` for each lag l."""
    axes = tuple(range(u.ndim))
    lagged = [jnp.sum(u * jnp.roll(u, lag, axes)) for lag in _LAGS[u.ndim]]
    return jnp.stack([0.5 * jnp.sum(u**2), *lagged])


def quartic_terms(u: Array) -> Array:
    """``sum u^4 / 4``, and for each nearest neighbour v ``sum u^2 v^2`` and ``sum u^3 v + u v^3``."""
    found = [0.25 * jnp.sum(u**4)]
    for axis in range(u.ndim):
        v = jnp.roll(u, 1, axis)
        found += [jnp.sum(u**2 * v**2), jnp.sum(u * v * (u**2 + v**2))]
    return jnp.stack(found)


def bounded_terms(u: Array, *, even: bool) -> Array:
    """Bumps of single sites; with `even`, the sum of each and its mirror image."""
    found = []
    for centre in _CENTRES:
        sides = [jnp.sum(jnp.exp(-0.5 * ((u - c) / _WIDTH) ** 2)) for c in sorted({centre, -centre})]
        found += [sum(sides[1:], sides[0])] if even else sides
    return jnp.stack(found)


def bounded_part(u: Array, deviation: Array | float | None, *, even: bool) -> Array:
    """The bounded terms; where the deviation of the field's mean is given, bumps of the mean; then the linear one.

    The linear one is left out with `even`.
    """
    parts = [bounded_terms(u, even=even)]
    if deviation is not None:
        parts.append(bounded_terms(jnp.mean(u)[None] / deviation, even=even))
    return jnp.concatenate(parts if even else [*parts, jnp.sum(u)[None]])


def lattice_terms(u: Array, deviation: Array | float | None, *, even: bool) -> Array:
    """All terms of a field: quadratic, quartic, and the others (`bounded_part`)."""
    return jnp.concatenate([quadratic_terms(u), quartic_terms(u), bounded_part(u, deviation, even=even)])


def slopes(u: Array, deviation: Array | float | None, *, even: bool) -> Array:
    """The derivatives of all terms (`lattice_terms`) with respect to every site, (terms, *shape)."""
    axes = tuple(range(u.ndim))
    found = [u, *(jnp.roll(u, lag, axes) + jnp.roll(u, [-n for n in lag], axes) for lag in _LAGS[u.ndim]), u**3]
    for axis in axes:
        v, w = jnp.roll(u, 1, axis), jnp.roll(u, -1, axis)
        found.append(2 * u * (v**2 + w**2))
        found.append(v * (3 * u**2 + v**2) + w * (3 * u**2 + w**2))
    found += _bumps(u, 1, even=even)
    if deviation is not None:
        of_mean = _bumps(jnp.mean(u) / deviation, 1, even=even)
        found += [jnp.full_like(u, 1 / u.size) * bump / deviation for bump in of_mean]
    return jnp.stack(found if even else [*found, jnp.ones_like(u)])


def laplacians(u: Array, overlaps: dict[Lag, Array], deviation: Array | float | None, *, even: bool) -> Array:
    """``tr(P H)`` of every term, H its matrix of second derivatives and P the projection onto what may change.

    Arguments:
        u: a field.
        overlaps: P_(x, x-l) at every site x by lag (`projection_overlaps`).
        deviation: as for `lattice_terms`.
        even: as for `lattice_terms`.
    """
    axes = tuple(range(u.ndim))
    own = overlaps[(0,) * u.ndim]
    found = [jnp.sum(own), *(2 * jnp.sum(overlaps[lag]) for lag in _LAGS[u.ndim]), 3 * jnp.sum(own * u**2)]
    for axis in axes:
        v, own_v = jnp.roll(u, 1, axis), jnp.roll(own, 1, axis)
        both = overlaps[tuple(int(k == axis) for k in axes)]
        found.append(jnp.sum(2 * own * v**2 + 2 * own_v * u**2 + 8 * both * u * v))
        found.append(6 * jnp.sum(u * v * (own + own_v) + both * (u**2 + v**2)))
    found += [jnp.sum(own * bump) for bump in _bumps(u, 2, even=even)]
    if deviation is not None:
        # The mean is a component of every field that may change: that of the coarsest one.
        found += [bump / (u.size * deviation**2) for bump in _bumps(jnp.mean(u) / deviation, 2, even=even)]
    return jnp.stack(found if even else [*found, jnp.zeros((), u.dtype)])


def _bumps(u: Array, order: int, *, even: bool) -> list[Array]:
    """The first or second derivatives of the bumps at every site, in the order of `bounded_terms`."""

    def one(centre: float) -> Array:
        y = (u - centre) / _WIDTH
        value = jnp.exp(-0.5 * y**2)
        return -y * value / _WIDTH if order == 1 else (y**2 - 1) * value / _WIDTH**2

    found = []
    for centre in _CENTRES:
        sides = [one(c) for c in sorted({centre, -centre})]
        found += [sum(sides[1:], sides[0])] if even else sides
    return found


def projection_overlaps(shape: tuple[int, ...], step: WaveletTransform | None) -> dict[Lag, Array]:
    """P_(x, x-l) for `laplacians`: P projects fields onto their details, or without a transform is the identity."""
    # The projection is the same two sites on.
    period = 1 if step is None else 2
    classes = list(np.ndindex(*(period for _ in shape)))
    kernels = np.zeros((len(classes), *shape))
    for kernel, site in zip(kernels, classes, strict=True):
        kernel[site] = 1.0
    if step is not None:
        low, details = step.split(jnp.asarray(kernels, float))
        kernels = np.asarray(step.merge(jnp.zeros_like(low), details))
    found = {}
    for lag in ((0,) * len(shape), *_LAGS[len(shape)]):
        others = [tuple((x - n) % size for x, n, size in zip(site, lag, shape, strict=True)) for site in classes]
        cell = np.array([kernel[other] for kernel, other in zip(kernels, others, strict=True)])
        found[lag] = jnp.asarray(np.tile(cell.reshape((period,) * len(shape)), [n // period for n in shape]), float)
    return found


def num_terms(space: int) -> tuple[int, int]:
    """How many quadratic and quartic terms there are for fields with so many axes."""
    return 1 + len(_LAGS[space]), 1 + 2 * space


def quadratic_spectra(shape: tuple[int, ...]) -> np.ndarray:
    """The spectra k of the forms of the quadratic terms, ``term(u) = 1/2 u . (k u)``, (terms, *shape)."""
    grids = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in shape), indexing="ij")
    waves = [2 * np.cos(sum(n * grid for n, grid in zip(lag, grids, strict=True))) for lag in _LAGS[len(shape)]]
    return np.stack([np.ones(shape), *waves])


def has_lower_bound(couplings: np.ndarray, shape: tuple[int, ...], step: WaveletTransform | None) -> bool:
    """Whether the terms that grow surely do so upwards: the quartic ones, or without those the quadratic ones.

    Along all fields, or, with one level of a transform, those without a coarser field: what is given does not grow. Of
    quartic terms it is asked along all fields.
    """
    if not np.isfinite(couplings).all():
        return False
    quadratic, quartic = num_terms(len(shape))
    highest = couplings[quadratic : quadratic + quartic]
    if not np.any(highest):
        return bool(_least_curvature(couplings[:quadratic], shape, step) > 0)
    needed = sum(2 * _share_of(b, c) for b, c in highest[1:].reshape(-1, 2))
    return bool(needed < (1 - _MARGIN) * highest[0] / 4)


def _share_of(product: float, mixed: float) -> float:
    """The least a for which ``a (u^4 + v^4) + b u^2 v^2 + c u v (u^2 + v^2)`` is nowhere negative; not below zero.

    Every site has two neighbours along an axis, so it gives this to each of two bonds. Over ``u^2 v^2`` the form is
    ``a (s^2 - 2) + b + c s`` with ``s = u/v + v/u``, whose size is 2 at least.
    """
    b, c = float(product), float(mixed)
    turns = [2.0, -2.0]
    if c and b**2 >= 2 * c**2:
        turns += [(-b + sign * np.sqrt(b**2 - 2 * c**2)) / c for sign in (1, -1)]
    return max(0.0, *(-(b + c * s) / (s**2 - 2) for s in turns if abs(s) >= 2))


def _least_curvature(couplings: np.ndarray, shape: tuple[int, ...], step: WaveletTransform | None) -> float:
    """The smallest eigenvalue of the quadratic terms' form, along all fields or along details, less a margin."""
    spectrum = np.tensordot(couplings, quadratic_spectra(shape), 1)
    if step is not None:
        spectrum = np.linalg.eigvalsh(band_blocks(spectrum, step.wavelet)[..., 1:, 1:])
    return float(spectrum.min() - _MARGIN * np.abs(spectrum).max())
