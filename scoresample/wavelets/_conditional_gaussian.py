"""The exact path of one scale's details of a Gaussian field, given the coarser field."""

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractDensityPath,
    AbstractNoiseProcess,
    AbstractPerturbedScore,
    Frame,
    check_process,
    make_frame,
    range_to_scale,
    unit_moments,
)
from scoresample.scores import (
    Constrain,
    GaussianField,
    Position,
    Structure,
    field_of_modes,
    fourier_modes,
    mode_counts,
    named_sites,
    scale_modes,
)
from scoresample.wavelets._filters import band_blocks
from scoresample.wavelets._given import check_coarser_field, own_axis


class ConditionalGaussianField(AbstractPerturbedScore, AbstractDensityPath):
    """The exact noised law of the details of one scale of a stationary Gaussian field, given the coarser field.

    At each frequency of the coarser grid the low-pass field and its bands mix the modes of the field that alias to it,
    two on a line and four in the plane, by a small unitary matrix. Their covariance there is a Hermitian block
    ``[[A, B^*], [B, D]]``, so the details given the low-pass field have the mean ``B A^-1 low`` and the covariance
    ``D - B A^-1 B^*``, whose condition number stays small at every scale where the field's own grows with its size
    (Guth et al. 2022, arXiv 2208.05003, section 3), if the wavelet has vanishing moments enough for the exponent of the
    spectrum: `db2` does for exponents up to 4, with 9. In standard coordinates each band is divided by its
    marginal standard deviation.

    Made for a condition by [`given`][scoresample.ConditionalGaussianField.given]; before that there is no score.

    Attributes:
        process: the noise process.
        eigenvalues: (bands, ...) of the conditional covariance in standard coordinates, on the half grid of
            frequencies that `numpy.fft.rfftn` keeps. Their ratio is the condition number.
        eigenvectors: (bands, eigenvectors, ...) as columns, complex.
        regression: (bands, ...) complex: the modes of the conditional mean, in standard coordinates, for a unit mode of
            the coarser field.
        low_mean: of every site of the coarser field, a scalar.
        conditional_mean: of the details given the coarser field, in standard coordinates, with a leading axis where
            each particle has its own; None before there is a condition.
        log_snr_range: from the process's t=1 to a small fraction of the smallest scale.

    Examples:
        >>> import jax
        >>> from scoresample.paths import VP
        >>> from scoresample.scores import power_law_spectrum
        >>> from scoresample.wavelets import WaveletTransform
        >>> field = GaussianField(power_law_spectrum((8, 8), 2.0))
        >>> low, details = WaveletTransform((8, 8)).split(field.sample(jax.random.key(0), 1)[0])
        >>> path = ConditionalGaussianField(field, VP(), wavelet="db2")
        >>> path.given(low)(details, 0.5).shape
        (3, 4, 4)
        >>> round(float(path.eigenvalues.max() / path.eigenvalues.min()), 1)
        2.9
    """

    process: AbstractNoiseProcess
    eigenvalues: Array
    eigenvectors: Array
    regression: Array
    low_mean: Array
    conditional_mean: Array | None
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(self, field: GaussianField, process: AbstractNoiseProcess, *, wavelet: str = "db2") -> None:
        """Split a field, and noise its details.

        Arguments:
            field: the finer field, with an even number of sites along each axis.
            process: the noise process.
            wavelet: the name of an orthogonal wavelet of PyWavelets.

        Raises:
            TypeError: if `field` is no `GaussianField` or is traced, or `process` no noise process.
            ValueError: if the field has an odd size or the wavelet is not orthogonal.
        """
        check_process(process)
        blocks = band_covariances(field, wavelet)
        bands, low_shape = blocks.shape[-1] - 1, blocks.shape[:-2]
        scale = np.sqrt([np.mean(np.real(blocks[..., band, band])) for band in range(1, bands + 1)])
        regression = blocks[..., 1:, 0] / np.real(blocks[..., :1, 0])
        covariance = blocks[..., 1:, 1:] - regression[..., :, None] * blocks[..., :1, 1:]
        half = (..., slice(low_shape[-1] // 2 + 1), slice(None))
        eigenvalues, eigenvectors = np.linalg.eigh(covariance[*half, slice(None)] / (scale[:, None] * scale))
        dtype = field.spectrum.dtype
        as_complex = jnp.result_type(dtype, jnp.complex64)
        self.process = process
        self.eigenvalues = jnp.asarray(np.moveaxis(eigenvalues, -1, 0), dtype)
        self.eigenvectors = jnp.asarray(np.moveaxis(eigenvectors, (-2, -1), (0, 1)), as_complex)
        self.regression = jnp.asarray(np.moveaxis((regression / scale)[half], -1, 0), as_complex)
        self.low_mean = field.mean * 2 ** (len(low_shape) / 2)
        self.conditional_mean = None
        self.structure = jax.ShapeDtypeStruct((bands, *low_shape), dtype)
        whole = np.broadcast_to(scale.reshape(-1, *(1 for _ in low_shape)), self.structure.shape)
        self.frame = make_frame(None, jnp.asarray(whole, dtype), self.structure)
        self.constrain = named_sites
        self.log_snr_range = range_to_scale(self.smallest_scale(), process)

    def given(self, low: Array) -> "ConditionalGaussianField":
        """The path of the details given the coarser field.

        Arguments:
            low: the low-pass field that the details belong to, in its own units; or many, with a leading axis: one for
                each particle of a run.

        Raises:
            ValueError: if the shape does not fit.
        """
        dtype, space = self.structure.dtype, self.structure.shape[1:]
        check_coarser_field(low, space)
        modes = fourier_modes(low.astype(dtype) - self.low_mean.astype(dtype), len(space))
        mean = field_of_modes(self.regression * jnp.expand_dims(modes, -1 - len(space)), space)
        return eqx.tree_at(lambda s: s.conditional_mean, self, mean, is_leaf=lambda leaf: leaf is None)

    def _residual(self, z: Array, t: Array) -> tuple[Array, Array]:
        """The components of ``z - alpha mean`` along the eigenvectors, and their variances."""
        if self.conditional_mean is None:
            raise ValueError("these details have no law without the coarser field: call path.given(low), and use that.")
        alpha, noise = (value.astype(z.dtype) for value in (self.process.alpha(t), self.process.variance(t)))
        modes = fourier_modes(z - alpha * self.conditional_mean.astype(z.dtype), z.ndim - 1)
        components = jnp.sum(jnp.conj(self.eigenvectors).astype(modes.dtype) * modes[:, None], axis=0)
        return components, alpha**2 * self.eigenvalues.astype(z.dtype) + noise

    def standard_score(self, z: Array, t: Array) -> Array:
        """The score of the noised details."""
        components, variances = self._residual(z, t)
        modes = jnp.sum(self.eigenvectors.astype(components.dtype) * scale_modes(components, 1 / variances), axis=1)
        return -field_of_modes(modes, z.shape[1:])

    def standard_logdensity(self, z: Array, t: Array) -> Array:
        """The normalised log density of the noised details."""
        components, variances = self._residual(z, t)
        terms = (components.real**2 + components.imag**2) / variances + jnp.log(2 * jnp.pi * variances)
        return -0.5 * jnp.sum(jnp.asarray(mode_counts(z.shape), z.dtype) * terms)

    def data_moments(self) -> tuple[Position, Position]:
        """Zero mean and unit variance: those of the bands over all coarser fields."""
        return unit_moments(self.structure)

    def smallest_scale(self) -> Array:
        """The root of the smallest eigenvalue."""
        return jnp.sqrt(jnp.min(self.eigenvalues))

    def condition_axes(self) -> Any:
        """None, or a tree that marks the conditional mean where every particle has its own."""
        return own_axis(self, lambda s: s.conditional_mean, len(self.structure.shape))


def band_covariances(field: GaussianField, wavelet: str) -> np.ndarray:
    """The covariance of the low-pass field and the bands of a field, at each frequency of the coarser grid.

    Returns:
        Complex array (*shape/2, 1 + bands, 1 + bands), in double precision: the low-pass field first.

    Raises:
        TypeError: if the field is none, or traced.
        ValueError: if it has an odd size, or the wavelet is not orthogonal.
    """
    if not isinstance(field, GaussianField):
        raise TypeError(f"`field` must be a GaussianField, got {type(field).__name__}.")
    if isinstance(field.spectrum, jax.core.Tracer):
        raise TypeError("`field` must be concrete, but it is traced. Make the path outside jit, and pass it in.")
    shape = field.spectrum.shape
    if any(n % 2 for n in shape):
        raise ValueError(f"`field` needs an even number of sites along each axis to be split, got shape {shape}.")
    return band_blocks(np.asarray(field.spectrum, np.float64), wavelet)


def low_pass_field(field: GaussianField, wavelet: str) -> GaussianField:
    """The law of the low-pass field of a stationary Gaussian field: another one, of half the size."""
    low = np.real(band_covariances(field, wavelet)[..., 0, 0])
    mean = field.mean * 2 ** (low.ndim / 2)
    return GaussianField(jnp.asarray(low, field.spectrum.dtype), mean)
