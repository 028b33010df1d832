"""The filters of orthogonal wavelets, read from PyWavelets on the host."""

from functools import cache

import numpy as np
import pywt

Taps = tuple[tuple[int, float], ...]
"""A filter as (offset m, coefficient c): ``output[i] = sum c x[2 i + m]``."""

_TOLERANCE = 1e-9
"""How far the filters of an orthogonal wavelet may be from it: PyWavelets' symlets are known to eleven digits."""


@cache
def wavelet_filters(wavelet: str) -> tuple[Taps, Taps]:
    """The low-pass and the high-pass filter of an orthogonal wavelet, as PyWavelets places them on a periodic field.

    Arguments:
        wavelet: a name of PyWavelets', such as ``"db2"``.

    Raises:
        ValueError: if there is no such wavelet, or it is not orthogonal.
    """
    try:
        filters = pywt.Wavelet(wavelet)  # pyright: ignore[reportAttributeAccessIssue]: made by an extension
    except ValueError as error:
        raise ValueError(
            f"`wavelet` must be the name of a discrete wavelet of PyWavelets, such as 'haar', 'db2' or 'sym4', got "
            f"{wavelet!r}."
        ) from error
    low, high = np.asarray(filters.dec_lo), np.asarray(filters.dec_hi)
    if not filters.orthogonal or _defect(low, high) > _TOLERANCE:
        raise ValueError(f"`wavelet` must be orthogonal, {wavelet!r} is not. Take 'haar', 'db2' ... 'sym4' or 'coif1'.")
    first = len(low) // 2
    low_taps, high_taps = (tuple((first - k, float(c)) for k, c in enumerate(each)) for each in (low, high))
    return low_taps, high_taps


def taps(wavelet: str, size: int) -> tuple[Taps, Taps]:
    """The two filters on a periodic axis of an even size, wrapped round where they are longer than it."""
    low, high = wavelet_filters(wavelet)
    return _folded(low, size), _folded(high, size)


def frequency_response(wavelet: str, size: int) -> np.ndarray:
    """The unitary matrices that mix the aliases of each decimated frequency of a periodic axis.

    With unitary Fourier transforms F the bands of a signal x are ``F(band_b)(k) = sum_a M[k, b, a] F(x)(k + a size/2)``
    for k < size/2: b=0 is the low-pass band, b=1 the high-pass one.

    Returns:
        Complex array of shape (size/2, 2, 2).
    """
    frequency = 2 * np.pi * np.arange(size) / size
    responses = [sum(c * np.exp(1j * m * frequency) for m, c in each) for each in wavelet_filters(wavelet)]
    return np.stack(responses).reshape(2, 2, size // 2).transpose(2, 0, 1) / np.sqrt(2.0)


def band_blocks(spectrum: np.ndarray, wavelet: str) -> np.ndarray:
    """A stationary quadratic form in the low-pass field and the bands, at each frequency of the coarser grid.

    Arguments:
        spectrum: (*shape): its eigenvalues, one for each frequency of the field; of a covariance, the power spectrum.
        wavelet: an orthogonal wavelet.

    Returns:
        Complex array (*shape/2, 1 + bands, 1 + bands) of Hermitian blocks: the low-pass field first.
    """
    shape = spectrum.shape
    mixing = [frequency_response(wavelet, n) for n in shape]
    if len(shape) == 1:
        matrix, aliases = mixing[0], spectrum.reshape(2, -1).T
    else:
        # The first axis of space is the fast digit of bands and aliases: low, horizontal, vertical, diagonal.
        height, width = (n // 2 for n in shape)
        matrix = np.einsum("kba,lcd->klcbda", *mixing).reshape(height, width, 4, 4)
        aliases = spectrum.reshape(2, height, 2, width).transpose(1, 3, 2, 0).reshape(height, width, 4)
    return np.einsum("...ba,...a,...ca->...bc", matrix, aliases, matrix.conj())


def _folded(filter: Taps, size: int) -> Taps:
    """Offsets in (-size/2, size/2]."""
    found: dict[int, float] = {}
    for offset, coefficient in filter:
        folded = size // 2 - (size // 2 - offset) % size
        found[folded] = found.get(folded, 0.0) + coefficient
    return tuple(sorted(found.items()))


def _defect(low: np.ndarray, high: np.ndarray) -> float:
    """The largest entry by which the two filters and their even shifts fail to be orthonormal."""
    even = [np.correlate(a, b, mode="full")[(len(a) - 1) % 2 :: 2] for a, b in ((low, low), (high, high), (low, high))]
    centre = (len(low) - 1) // 2
    even[0][centre] -= 1
    even[1][centre] -= 1
    return float(max(np.abs(each).max() for each in even))
