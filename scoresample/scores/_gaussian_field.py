"""Stationary periodic Gaussian fields, with their score by the fast Fourier transform."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from scoresample.scores._base import Constrain, Structure, named_sites, random_like
from scoresample.scores._exact import AbstractExactDensity
from scoresample.scores._fourier import field_of_modes, fourier_modes, half_grid, mode_counts, scale_modes


class GaussianField(AbstractExactDensity):
    """A stationary Gaussian field on a periodic line or plane: N(mean, C) with C diagonal in Fourier space.

    The spectrum is the set of eigenvalues of the covariance on numpy's grid of frequencies,
    ``spectrum = fftn(covariance of site 0 with every site)``, so that the score ``-C^-1 (x - mean)``, the normalised
    log density and exact draws each cost a fast Fourier transform and back.

    Attributes:
        spectrum: eigenvalues of the covariance, an array like a field.
        mean: of every site, a scalar.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> white = GaussianField(4.0 * jnp.ones((8, 8)), mean=1.0)
        >>> round(float(white(3.0 * jnp.ones((8, 8)))[0, 0]), 4)
        -0.5
        >>> GaussianField(power_law_spectrum((8, 8), 2.0)).sample(jax.random.key(0), 5).shape
        (5, 8, 8)
    """

    spectrum: Array
    mean: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Array] | None

    def __init__(self, spectrum: ArrayLike, mean: ArrayLike = 0.0) -> None:
        """Make a field from its spectrum.

        Arguments:
            spectrum: (n,) or (height, width) eigenvalues of the covariance, on the grid of `numpy.fft.fftfreq`: real,
                positive, and the same at w and -w. Such as `power_law_spectrum`.
            mean: of every site, a number.

        Raises:
            TypeError: if the spectrum is traced.
            ValueError: if it is no spectrum, or the mean no finite number.
        """
        if isinstance(spectrum, jax.core.Tracer):
            raise TypeError(
                "`spectrum` must be concrete, but it is traced. Make the field outside jit, and pass it in."
            )
        values = _checked_spectrum(spectrum)
        dtype = spectrum.dtype if isinstance(spectrum, jax.Array) and spectrum.dtype.kind == "f" else float
        self.spectrum = jnp.asarray(values, dtype=dtype)
        self.mean = jnp.asarray(mean, dtype=self.spectrum.dtype)
        if self.mean.ndim != 0 or not bool(jnp.isfinite(self.mean)):
            raise ValueError(f"`mean` must be one finite number, that of every site, got {mean}.")
        self.structure = jax.ShapeDtypeStruct(self.spectrum.shape, self.spectrum.dtype)
        self.constrain = named_sites
        self.init_position = _FieldStart(self.spectrum, self.mean)

    def logdensity(self, position: Array) -> Array:
        """The normalised log density, a scalar."""
        return self.value_and_score(position)[0]

    def value_and_score(self, position: Array) -> tuple[Array, Array]:
        """The normalised log density and the score."""
        spectrum = half_grid(self.spectrum)
        modes = fourier_modes(position - self.mean, position.ndim)
        terms = (modes.real**2 + modes.imag**2) / spectrum + jnp.log(2 * jnp.pi * spectrum)
        # Each mode of the half grid stands for itself and for its mirror image, which has the same terms.
        value = -0.5 * jnp.sum(jnp.asarray(mode_counts(position.shape), terms.dtype) * terms)
        return value, -field_of_modes(scale_modes(modes, 1 / spectrum), position.shape)

    def sample(self, key: Array, num_samples: int) -> Array:
        """Independent draws, an array (num_samples, *shape)."""
        return _coloured(random_like(key, self.structure, num_samples), self.spectrum) + self.mean

    def perturbed(self, alpha: Array, variance: Array) -> "GaussianField":
        """The field of mean ``alpha mean`` and spectrum ``alpha^2 spectrum + variance``."""
        return eqx.tree_at(
            lambda g: (g.mean, g.spectrum), self, (alpha * self.mean, alpha**2 * self.spectrum + variance)
        )

    def moments(self) -> tuple[Array, Array]:
        """The mean and the variance of every site: the variance is the spectrum's average."""
        return jnp.broadcast_to(self.mean, self.spectrum.shape), jnp.full_like(self.spectrum, jnp.mean(self.spectrum))

    def smallest_scale(self) -> Array:
        """The root of the spectrum's smallest value."""
        return jnp.sqrt(jnp.min(self.spectrum))


class _FieldStart(eqx.Module):
    """A start for a chain: a draw of the field with twice its standard deviation in every direction."""

    spectrum: Array
    mean: Array

    def __call__(self, key: Array) -> Array:
        return self.mean + 2 * _coloured(random_like(key, self.spectrum), self.spectrum)


def power_law_spectrum(
    shape: tuple[int, ...], exponent: float, *, infrared: float | None = None, variance: float = 1.0
) -> Array:
    """The spectrum ``c / (xi^eta + |w|^eta)`` of a stationary periodic field, with ``|w|^2 = 4 sum_j sin^2(w_j/2)``.

    With an exponent of 2 this is the massive free field on a lattice, with mass xi. The condition number is
    ``1 + (|w|_max/xi)^eta``: with the xi of the default it grows as ``L^eta``.

    Arguments:
        shape: of a field, (n,) or (height, width).
        exponent: eta, not negative.
        infrared: xi, where the law flattens; by default pi/L, with L the longest axis.
        variance: of a site: the average of the spectrum, which sets c.

    Returns:
        The spectrum on the grid of `numpy.fft.fftfreq`, an array of `shape`.

    Raises:
        ValueError: if a number is out of range.

    Examples:
        >>> spectrum = power_law_spectrum((32, 32), 2.0)
        >>> round(float(spectrum.max() / spectrum.min())), round(float(spectrum.mean()), 3)
        (831, 1.0)
    """
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise ValueError(f"`shape` must be (n,) or (height, width), got {shape}.")
    infrared = np.pi / max(shape) if infrared is None else infrared
    for name, value, fits in (
        ("exponent", exponent, exponent >= 0),
        ("infrared", infrared, infrared > 0),
        ("variance", variance, variance > 0),
    ):
        if not (np.isfinite(value) and fits):
            raise ValueError(
                f"`{name}` must be finite and {'not negative' if name == 'exponent' else 'positive'}, got {value}."
            )
    axes = np.meshgrid(*(2 * np.sin(np.pi * np.fft.fftfreq(n)) for n in shape), indexing="ij")
    frequency = np.sqrt(sum(axis**2 for axis in axes))
    spectrum = 1 / (infrared**exponent + frequency**exponent)
    return jnp.asarray(variance * spectrum / spectrum.mean(), dtype=float)


def _checked_spectrum(spectrum: ArrayLike) -> np.ndarray:
    """A spectrum in double precision, made exactly even."""
    values = np.asarray(spectrum)
    if values.ndim not in (1, 2) or values.size == 0 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"`spectrum` must be a real array (n,) or (height, width), got shape {values.shape} of {values.dtype}."
        )
    values = values.astype(np.float64)
    if not (np.isfinite(values).all() and np.all(values > 0)):
        raise ValueError(
            "`spectrum` must be finite and positive: its values are the eigenvalues of the covariance. The smallest is "
            f"{np.min(values)}."
        )
    mirrored = np.roll(np.flip(values), 1, axis=tuple(range(values.ndim)))
    if not np.allclose(values, mirrored, rtol=1e-5, atol=0):
        raise ValueError(
            "`spectrum` must be the same at w and -w, as that of every real field is. Lay it out as numpy.fft.fftfreq "
            "does, with the frequency 0 first."
        )
    return 0.5 * (values + mirrored)


def _coloured(noise: Array, spectrum: Array) -> Array:
    """White noise made a field with this spectrum."""
    modes = fourier_modes(noise, spectrum.ndim)
    return field_of_modes(scale_modes(modes, jnp.sqrt(half_grid(spectrum))), spectrum.shape)
