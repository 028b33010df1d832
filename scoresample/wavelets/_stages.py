"""The exact noised paths of all scales of a Gaussian field."""

import jax.numpy as jnp

from scoresample.paths import AbstractNoiseProcess, PerturbedDensity, make_frame
from scoresample.scores import GaussianField
from scoresample.wavelets._conditional_gaussian import ConditionalGaussianField, low_pass_field
from scoresample.wavelets._transform import WaveletTransform


def wavelet_stages(
    field: GaussianField, process: AbstractNoiseProcess, transform: WaveletTransform
) -> tuple[PerturbedDensity | ConditionalGaussianField, ...]:
    """A stationary Gaussian field as the noised paths of its scales, ``p(coarse) prod_j p(details_j | low_j)``.

    Every one is normalised: its standard coordinates have a variance of one.

    Arguments:
        field: the field.
        process: the noise process, the same at all scales.
        transform: of fields of this shape.

    Returns:
        The path of the coarsest low-pass field, and those of the details, coarse to fine; each of these waits for its
        condition, ``stage.given(low)``.

    Raises:
        ValueError: if the transform is one of fields of another shape.

    Examples:
        >>> from scoresample.paths import VP
        >>> from scoresample.scores import power_law_spectrum
        >>> field = GaussianField(power_law_spectrum((16, 16), 2.0))
        >>> stages = wavelet_stages(field, VP(), WaveletTransform((16, 16)))
        >>> [stage.structure.shape for stage in stages]
        [(2, 2), (3, 2, 2), (3, 4, 4), (3, 8, 8)]
    """
    if field.spectrum.shape != transform.shape:
        raise ValueError(
            f"`transform` is one of fields of shape {transform.shape}, but `field` has shape {field.spectrum.shape}. "
            f"Make it WaveletTransform({field.spectrum.shape})."
        )
    details = []
    for _ in range(transform.levels):
        details.append(ConditionalGaussianField(field, process, wavelet=transform.wavelet))
        field = low_pass_field(field, transform.wavelet)
    return (_coarse_stage(field, process), *reversed(details))


def _coarse_stage(field: GaussianField, process: AbstractNoiseProcess) -> PerturbedDensity:
    variance = jnp.mean(field.spectrum)
    mean, scale = (float(value) for value in (field.mean, jnp.sqrt(variance)))
    return PerturbedDensity(GaussianField(field.spectrum / variance), process, make_frame(mean, scale, field.structure))
