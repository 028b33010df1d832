"""`perturb_wavelets`: a Gaussian field as the exact noised paths of its scales."""

from scoresample.paths import AbstractNoiseProcess
from scoresample.scores import GaussianField
from scoresample.wavelets._path import WaveletPath
from scoresample.wavelets._stages import wavelet_stages
from scoresample.wavelets._transform import WaveletTransform


def perturb_wavelets(
    field: GaussianField, process: AbstractNoiseProcess, *, wavelet: str = "db2", levels: int | None = None
) -> WaveletPath:
    """The exact path of a stationary Gaussian field across the scales of a wavelet transform.

    Each scale's details are noised given the coarser field, with each band normalised; the scores are exact, so that
    sampling errs by its discretisation alone. The same law as that of ``perturb(field, process)``, in steps whose
    number does not grow with the field (Guth et al. 2022, arXiv 2208.05003, section 3).

    Arguments:
        field: the field.
        process: the noise process, the same at all scales.
        wavelet: the name of an orthogonal wavelet of PyWavelets.
        levels: how often the field is halved; by default until its shortest axis has two sites.

    Raises:
        TypeError: if `field` is no `GaussianField` or `process` no noise process.
        ValueError: if the wavelet is not orthogonal, or the field cannot be halved so often.

    Examples:
        >>> import scoresample as ss
        >>> field = ss.GaussianField(ss.power_law_spectrum((8, 8), 2.0))
        >>> ss.perturb_wavelets(field, ss.VP()).stage_names()
        ('coarsest field 2 x 2', 'details 2 x 2', 'details 4 x 4')
    """
    if not isinstance(field, GaussianField):
        raise TypeError(f"`field` must be a GaussianField, got {type(field).__name__}.")
    transform = WaveletTransform(field.spectrum.shape, wavelet, levels)
    return WaveletPath(transform, wavelet_stages(field, process, transform), constrain=field.constrain)
