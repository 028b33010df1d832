"""Real periodic fields as their Fourier modes, on the half grid of frequencies that `numpy.fft.rfftn` keeps."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def fourier_modes(field: Array, space: int) -> Array:
    """The unitary Fourier transform of real fields over their last `space` axes."""
    return jnp.fft.rfftn(field, axes=tuple(range(-space, 0)), norm="ortho")


def field_of_modes(modes: Array, shape: tuple[int, ...]) -> Array:
    """The real fields of a shape with these modes: the inverse of `fourier_modes`."""
    return jnp.fft.irfftn(modes, s=shape, axes=tuple(range(-len(shape), 0)), norm="ortho")


def scale_modes(modes: Array, factor: Array) -> Array:
    """Modes times a real factor."""
    return jax.lax.complex(modes.real * factor, modes.imag * factor)


def half_grid(spectrum: Array) -> Array:
    """The part of an even function of the frequency that belongs to the modes."""
    return spectrum[..., : spectrum.shape[-1] // 2 + 1]


def mode_counts(shape: tuple[int, ...]) -> np.ndarray:
    """For how many modes of a real field each column of the half grid stands: itself, and most for a mirror image."""
    counts = np.full(shape[-1] // 2 + 1, 2.0)
    counts[0] = 1.0
    if shape[-1] % 2 == 0:
        counts[-1] = 1.0
    return counts
