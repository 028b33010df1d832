"""Observables of fields on periodic lattices, for draws with any leading axes.

Everything here takes fields as arrays ``(..., H, W)`` (or with another number of lattice axes, `field_axes`) and works
in double precision on the host. What is returned for each field keeps the leading axes, so that chains of it go to
ArviZ for standard errors as they are.
"""

import numpy as np
from jaxtyping import Array

_TIE = 1e-9
"""Half-way between two rings is in the outer one, whatever the rounding."""


def _fields(fields: Array | np.ndarray, field_axes: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The fields in double precision, and the numbers of their lattice axes counted from the back."""
    values = np.asarray(fields, np.float64)
    if not 1 <= field_axes <= values.ndim:
        raise ValueError(
            f"`field_axes` must be the number of lattice axes, 1 to {values.ndim} for fields of shape {values.shape}, "
            f"got {field_axes}."
        )
    return values, tuple(range(-field_axes, 0))


def magnetisation(fields: Array | np.ndarray, *, field_axes: int = 2) -> np.ndarray:
    """The mean of each field over the sites of its lattice.

    Arguments:
        fields: (..., H, W), or with another number of lattice axes.
        field_axes: how many axes at the end are those of the lattice.

    Returns:
        An array of the leading axes.

    Raises:
        ValueError: if there are fewer axes than `field_axes`.

    Examples:
        >>> import numpy as np
        >>> magnetisation(np.stack([np.ones((4, 4)), np.eye(4)])).tolist()
        [1.0, 0.25]
    """
    values, axes = _fields(fields, field_axes)
    return np.asarray(values.mean(axis=axes))


def susceptibility(
    magnetisations: Array | np.ndarray, num_sites: int, *, connected: bool = False, axis: int | None = None
) -> np.ndarray:
    """The magnetic susceptibility, ``V <m^2>``, of the magnetisations of fields on V sites.

    It is the spectrum at frequency zero, and the sum over all sites of the two-point function. The connected one,
    ``V (<m^2> - <|m|>^2)``, is also of use where the symmetry m -> -m is broken.

    Arguments:
        magnetisations: what `magnetisation` returned.
        num_sites: V.
        connected: subtract the square of the mean of |m|.
        axis: the axis to average over; all if None.

    Returns:
        A number, or an array of the other axes.

    Examples:
        >>> import numpy as np
        >>> m = np.array([0.5, -0.5])
        >>> float(susceptibility(m, 100)), float(susceptibility(m, 100, connected=True))
        (25.0, 0.0)
    """
    m = np.asarray(magnetisations, np.float64)
    square = np.mean(m**2, axis=axis)
    return np.asarray(num_sites * (square - np.mean(np.abs(m), axis=axis) ** 2 if connected else square))


def binder_cumulant(magnetisations: Array | np.ndarray, *, axis: int | None = None) -> np.ndarray:
    """Binder's cumulant of the magnetisation, ``1 - <m^4> / (3 <m^2>^2)``.

    It is 0 for normal magnetisations, as on large lattices in the symmetric phase, and 2/3 where m has two values of
    opposite sign, deep in the broken phase. At the transition of the Ising class on large square lattices it is .6107.

    Source: Binder 1981, Z. Phys. B 43, 119.

    Arguments:
        magnetisations: what `magnetisation` returned.
        axis: the axis to average over; all if None.

    Returns:
        A number, or an array of the other axes.

    Examples:
        >>> import numpy as np
        >>> round(float(binder_cumulant(np.array([0.5, -0.5]))), 4)
        0.6667
    """
    m = np.asarray(magnetisations, np.float64)
    return np.asarray(1 - np.mean(m**4, axis=axis) / (3 * np.mean(m**2, axis=axis) ** 2))


def two_point_function(fields: Array | np.ndarray, *, field_axes: int = 2) -> np.ndarray:
    """The products ``phi_x phi_(x+r)`` at distance r along the axes, averaged over all sites x and over the axes.

    Nothing is subtracted. The mean over many fields is the two-point function of a law that translations leave as it
    is. Computed by the fast Fourier transform along each axis.

    Arguments:
        fields: (..., H, W), or with another number of lattice axes.
        field_axes: how many axes at the end are those of the lattice.

    Returns:
        (..., R + 1) for r = 0 to R, half the shortest axis.

    Raises:
        ValueError: if there are fewer axes than `field_axes`.

    Examples:
        >>> import numpy as np
        >>> wave = np.cos(np.pi * np.arange(4))[:, None] * np.ones(4)
        >>> two_point_function(wave).round(12).tolist()  # along the wave 1, -1, 1; across it 1, 1, 1
        [1.0, 0.0, 1.0]
    """
    values, axes = _fields(fields, field_axes)
    furthest = min(values.shape[-field_axes:]) // 2
    total = np.zeros((*values.shape[: values.ndim - field_axes], furthest + 1))
    for axis in axes:
        along = np.moveaxis(values, axis, -1)
        length = along.shape[-1]
        power = np.abs(np.fft.rfft(along, axis=-1)) ** 2
        power = power.mean(axis=tuple(range(-field_axes, -1))) if field_axes > 1 else power
        total += np.fft.irfft(power, n=length, axis=-1)[..., : furthest + 1] / length
    return total / field_axes


def radial_spectrum(fields: Array | np.ndarray, *, field_axes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The power spectrum of each field, ``|F_w|^2 / sites``, averaged over rings of wavenumbers |w|.

    F is the discrete Fourier transform, so that the power of independent numbers of variance one is one at every
    frequency. Rings are as wide as two neighbouring frequencies of the shortest axis lie apart, and centred on its
    frequencies; the first is the frequency zero alone, the last at the highest frequency of that axis. What lies
    beyond, in the corners, is left out.

    Arguments:
        fields: (..., H, W), or with another number of lattice axes.
        field_axes: how many axes at the end are those of the lattice.

    Returns:
        The mean wavenumber of each ring, in radians per site, shape (rings,), and the power, (..., rings).

    Raises:
        ValueError: if there are fewer axes than `field_axes`.

    Examples:
        >>> import numpy as np
        >>> wavenumbers, power = radial_spectrum(np.random.default_rng(0).normal(size=(500, 8, 8)))
        >>> wavenumbers.shape, power.shape, bool(abs(power.mean(axis=0) - 1).max() < 0.2)
        ((5,), (500, 5), True)
    """
    values, axes = _fields(fields, field_axes)
    shape = values.shape[-field_axes:]
    frequencies = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(length) for length in shape], indexing="ij")
    size = np.sqrt(np.sum(np.square(frequencies), axis=0)).ravel()
    ring = np.floor(size * min(shape) / (2 * np.pi) + 0.5 + _TIE).astype(int)
    ring = np.where(size > 0, np.maximum(ring, 1), 0)
    inside = ring <= min(shape) // 2
    order = np.argsort(ring[inside], kind="stable")
    chosen = np.flatnonzero(inside)[order]
    starts = np.searchsorted(ring[chosen], np.arange(min(shape) // 2 + 1))
    power = np.abs(np.fft.fftn(values, axes=axes)) ** 2 / np.prod(shape)
    power = power.reshape(*values.shape[: values.ndim - field_axes], -1)
    counts = np.diff([*starts, len(chosen)])
    return (
        np.add.reduceat(size[chosen], starts) / counts,
        np.add.reduceat(power[..., chosen], starts, axis=-1) / counts,
    )
