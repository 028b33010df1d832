"""Laws of a field's details given the coarser field, from a local energy of the finer field."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractDensityPath, Frame, make_frame
from scoresample.scores import (
    Constrain,
    Position,
    Structure,
    fourier_modes,
    mode_counts,
    named_sites,
)
from scoresample.wavelets._field_kernels import FieldKernels
from scoresample.wavelets._given import check_coarser_field, own_axis
from scoresample.wavelets._lattice_terms import bounded_part, num_terms, quadratic_spectra, quartic_terms
from scoresample.wavelets._transform import WaveletTransform


class LocalEnergyPath(AbstractDensityPath):
    """The details of one scale given the coarser field, ``p(d | low) ~ exp(-E(merge(low, d)))``, with a local energy E.

    ``E = sum_k c_k term_k(u)``, u the finer field minus its mean over its standard deviation. The terms are products of
    a site with those around it (up to three sites away), quartic ones of a site and its nearest neighbours, and bumps
    of single sites, a flexible potential within some 2.5 standard deviations. All are translation invariant; fields are
    periodic. E is exact for the finest scale of a model with such an action, and of the same form, nearly, for the
    coarser ones. Without a transform this is the law of the coarsest field, which has a potential of its mean too.

    The path is tempered, ``log p_t = t log q - (1 - t) E``: a start for [`ParallelMALA`][scoresample.ParallelMALA],
    which needs t=0 alone, or a ladder for annealed samplers. q is standard normal in standard coordinates; that of the
    coarsest field is a mixture of normal laws around some of the fields it was learned from, where there are any.
    Densities are known up to a constant *for each coarser field*.

    Source: Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181 (conditional energies of a field across wavelet
    scales as quadratic forms and scalar potentials).

    Attributes:
        transform: one level of a wavelet transform, low and details -> finer field; None for the coarsest field.
        couplings: c_k.
        mean: of a site of the finer field.
        deviation: its standard deviation.
        mean_deviation: that of the field's mean over `deviation`; None where details are given the coarser field.
        even: whether fields x and -x have the same energy, by construction.
        low: the coarser field, with a leading axis where each particle has its own; None before it is given.
        start: the law q of the coarsest field, in standard coordinates; None for the standard normal one.
        symbol: the spectrum of the quadratic couplings, made from them once: other couplings take another path.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> fields = ss.GaussianField(ss.power_law_spectrum((4, 4), 2.0)).sample(jax.random.key(0), 500)
        >>> path = ss.fit_wavelet_energies(fields, levels=1)
        >>> low, details = path.transform.split(fields[0])
        >>> path.stages[1].given(low)(details, 0.0).shape
        (3, 2, 2)
    """

    transform: WaveletTransform | None
    couplings: Array
    mean: Array
    deviation: Array
    mean_deviation: Array | None
    even: bool = eqx.field(static=True)
    low: Array | None
    start: FieldKernels | None
    symbol: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(
        self,
        couplings: Array,
        structure: Structure,
        transform: WaveletTransform | None,
        *,
        mean: float,
        deviation: float,
        scale: Position,
        even: bool,
        mean_deviation: float | None = None,
        start: FieldKernels | None = None,
    ) -> None:
        """Make the law from its couplings; [`fit_wavelet_energies`][scoresample.fit_wavelet_energies] finds them.

        Arguments:
            couplings: one of each term.
            structure: of the details, or of the coarsest field.
            transform: one level that leads to the finer field, or None for the coarsest field.
            mean: of a site of the finer field.
            deviation: its standard deviation.
            scale: of the details, by which they are divided.
            even: whether the energy is that of -x too; if so, the mean must be 0.
            mean_deviation: of the mean of the coarsest field, over `deviation`; only without a transform.
            start: the law that the coarsest field starts from, in standard coordinates; None for a standard normal one.

        Raises:
            ValueError: if the number of couplings does not fit, an even energy has a mean, or `mean_deviation` is given
                with a transform, or missing without.
        """
        shape = structure.shape if transform is None else transform.shape
        quadratic, quartic = num_terms(len(shape))
        deviation_of_mean = 1.0 if transform is None else None
        wanted = quadratic + quartic + bounded_part(jnp.zeros(shape), deviation_of_mean, even=even).size
        if couplings.shape != (wanted,):
            raise ValueError(f"`couplings` must be {wanted} numbers, one of each term, got shape {couplings.shape}.")
        if even and mean != 0:
            raise ValueError(f"`mean` must be 0 for an even energy, got {mean}.")
        dtype = structure.dtype
        self.transform, self.even, self.low = transform, even, None
        self.couplings = couplings.astype(dtype)
        if (mean_deviation is None) != (transform is not None):
            raise ValueError(
                f"`mean_deviation` belongs to the coarsest field, without `transform`; got {mean_deviation}."
            )
        self.mean_deviation = None if mean_deviation is None else jnp.asarray(mean_deviation, dtype)
        self.mean, self.deviation = jnp.asarray(mean, dtype), jnp.asarray(deviation, dtype)
        if start is not None and (transform is not None or start.centres.shape[1:] != shape):
            raise ValueError(
                f"`start` belongs to the coarsest field, without `transform`, of shape {shape}, got fields of shape "
                f"{start.centres.shape[1:]}."
            )
        self.start = start
        half = quadratic_spectra(shape)[..., : shape[-1] // 2 + 1]
        self.symbol = jnp.asarray(np.tensordot(np.asarray(couplings[:quadratic], np.float64), half, 1), dtype)
        self.structure, self.constrain = structure, named_sites
        self.frame = make_frame(mean if transform is None else None, scale, structure)

    def given(self, low: Array) -> "LocalEnergyPath":
        """The law of the details given the coarser field.

        Arguments:
            low: the coarser field, in its own units; or many, with a leading axis: one for each particle of a run.

        Raises:
            ValueError: if the shape does not fit, or this is the law of the coarsest field.
        """
        if self.transform is None:
            raise ValueError("this is the law of the coarsest field, which is given nothing.")
        check_coarser_field(low, self.structure.shape[1:])
        return eqx.tree_at(lambda s: s.low, self, low.astype(self.structure.dtype), is_leaf=lambda leaf: leaf is None)

    def energy(self, field: Array) -> Array:
        """E of one finer field, a scalar."""
        dtype = field.dtype
        couplings, symbol = self.couplings.astype(dtype), self.symbol.astype(dtype)
        u = (field - self.mean.astype(dtype)) / self.deviation.astype(dtype)
        quadratic, quartic = num_terms(u.ndim)
        # XLA would compute the bumps again at every neighbour: each part is a program of its own, three times as fast.
        first, second, third = (jax.lax.optimization_barrier(u) for _ in range(3))
        modes = fourier_modes(first, u.ndim)
        counts = jnp.asarray(mode_counts(u.shape), dtype)
        whole = 0.5 * jnp.sum(counts * symbol * (modes.real**2 + modes.imag**2))
        whole += jnp.dot(couplings[quadratic : quadratic + quartic], quartic_terms(second))
        of_mean = None if self.mean_deviation is None else self.mean_deviation.astype(dtype)
        return whole + jnp.dot(couplings[quadratic + quartic :], bounded_part(third, of_mean, even=self.even))

    def standard_logdensity(self, z: Array, t: Array) -> Array:
        """``t log q - (1 - t) E`` at one point, up to a constant for each level and coarser field."""
        field = self.frame.to_position(z)
        if self.transform is not None:
            if self.low is None:
                raise ValueError("these details have no law without the coarser field: call path.given(low).")
            field = self.transform.merge(self.low.astype(z.dtype), field)
        time = jnp.asarray(t).astype(z.dtype)
        volume = self.frame.log_volume(self.structure).astype(z.dtype)
        reference = -0.5 * jnp.sum(z**2) if self.start is None else self.start.logdensity(z)
        return time * reference + (1 - time) * (volume - self.energy(field))

    def standard_score(self, z: Array, t: Array) -> Array:
        """Its derivative."""
        return jax.grad(self.standard_logdensity)(z, t)

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Array:
        """Draws of q, whatever t."""
        del t
        if self.start is not None:
            return self.start.sample(key, num_particles)
        return jax.random.normal(key, (num_particles, *self.structure.shape), self.structure.dtype)

    def lipschitz(self, t: Array) -> None:
        """None: samplers estimate it."""
        del t

    def condition_axes(self) -> Any:
        """None, or a tree that marks the coarser field where every particle has its own."""
        return own_axis(self, lambda s: s.low, len(self.structure.shape) - 1)
