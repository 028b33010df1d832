"""What fields are known by: the power on every scale, and the product of two sites a distance apart."""

import numpy as np


def radial_spectrum(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radially averaged power spectrum of periodic fields.

    ``P(k) = mean of |F(k_y, k_x)|^2 / (h w)`` over the modes whose wavenumber rounds to the same integer, with F the
    discrete Fourier transform. Wavenumbers count waves along the longer side. White noise of unit variance has the
    spectrum 1. The corners of the square beyond the Nyquist wavenumber of the axes are included.

    Arguments:
        fields: an array of shape (..., h, w).

    Returns:
        The mean wavenumber of every band, shape (bins,), zero first; and the power in float64, shape (..., bins).

    Raises:
        ValueError: if there are no two axes, or one of them is empty.

    Examples:
        >>> import numpy as np
        >>> wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16) * np.ones((16, 1))
        >>> wavenumbers, power = radial_spectrum(wave)
        >>> int(np.argmax(power)), wavenumbers.shape, power.shape
        (3, (12,), (12,))
    """
    values = _fields(fields)
    height, width = values.shape[-2:]
    longer = max(height, width)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    # A real field has the same power at k and -k: columns that stand for both count twice.
    both = np.full(across.size, 2.0)
    both[0] = 1.0
    if width % 2 == 0:
        both[-1] = 1.0
    counts = np.broadcast_to(both, (height, across.size)).ravel()
    radius = (longer * np.hypot(down, across)).ravel()
    _, band = np.unique(np.round(radius).astype(int), return_inverse=True)
    modes = np.bincount(band, counts)
    squares = np.abs(np.fft.rfft2(values)) ** 2 / (height * width)
    share = np.zeros((counts.size, modes.size))
    share[np.arange(counts.size), band] = counts / modes[band]
    return np.bincount(band, counts * radius) / modes, squares.reshape(*squares.shape[:-2], -1) @ share


def two_point_function(fields: np.ndarray) -> np.ndarray:
    """Mean product of two sites a distance r apart along the axes of periodic fields.

    ``C(r) = mean over sites x and both axes e of phi(x) phi(x + r e)``. The mean of the field is not taken out.

    Arguments:
        fields: an array of shape (..., h, w).

    Returns:
        An array of shape (..., max_r + 1) in float64, for r from 0 to half of the shorter side.

    Raises:
        ValueError: if there are no two axes, or one of them is empty.

    Examples:
        >>> import numpy as np
        >>> stripes = np.tile([1.0, -1.0], (8, 4))
        >>> two_point_function(stripes)  # they change sign along one axis only
        array([1., 0., 1., 0., 1.])
    """
    values = _fields(fields)
    size = min(values.shape[-2:]) // 2 + 1
    along = []
    for axis in (-1, -2):
        length = values.shape[axis]
        squares = np.abs(np.fft.rfft(values, axis=axis)) ** 2
        # The other axis averages over lines, and the transform back gives every distance at once.
        products = np.fft.irfft(np.mean(squares, axis=-2 if axis == -1 else -1), n=length) / length
        along.append(products[..., :size])
    return (along[0] + along[1]) / 2


def _fields(fields: np.ndarray) -> np.ndarray:
    values = np.asarray(fields, dtype=np.float64)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"`fields` must have the shape (..., h, w), but {values.shape} came.")
    return values
