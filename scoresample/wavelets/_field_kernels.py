"""Normal laws around some fields: where chains of the coarsest field start."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.spatial import KDTree

from scoresample.scores import field_of_modes, fourier_modes, scale_modes

_CENTRES = 256
_LEAST_POWER = 1e-4
"""Of a kernel at any frequency, relative to that of the fields."""


class FieldKernels(eqx.Module):
    """An equal mixture of stationary normal laws around fields, as wide as neighbouring fields are apart.

    Attributes:
        centres: (kernels, *shape).
        whitened: (kernels, sites), in coordinates in which a kernel is standard normal.
        spectrum: the power of a kernel on the half grid of frequencies.
    """

    centres: Array
    whitened: Array
    spectrum: Array

    def sample(self, key: Array, num: int) -> Array:
        """Draws, (num, *shape)."""
        key_centre, key_noise = jax.random.split(key)
        chosen = self.centres[jax.random.randint(key_centre, (num,), 0, len(self.centres))]
        shape = chosen.shape[1:]
        modes = fourier_modes(jax.random.normal(key_noise, chosen.shape, chosen.dtype), len(shape))
        return chosen + field_of_modes(scale_modes(modes, jnp.sqrt(self.spectrum)), shape)

    def logdensity(self, z: Array) -> Array:
        """The log density of one field, up to a constant."""
        apart = _whitened(z[None], self.spectrum.astype(z.dtype)) - self.whitened.astype(z.dtype)
        return jax.nn.logsumexp(-0.5 * jnp.sum(apart**2, axis=1))


def _whitened(fields: Array, spectrum: Array) -> Array:
    shape = fields.shape[1:]
    modes = scale_modes(fourier_modes(fields, len(shape)), 1 / jnp.sqrt(spectrum))
    return field_of_modes(modes, shape).reshape(len(fields), -1)


def field_kernels(fields: Array, *, even: bool, seed: int) -> FieldKernels:
    """Kernels around some of the fields; with `even`, around their mirror images too.

    Arguments:
        fields: (n, *shape).
        even: whether x and -x have the same law.
        seed: of the choice.
    """
    chosen = np.random.default_rng(seed).permutation(len(fields))[:_CENTRES]
    centres = np.asarray(fields)[chosen]
    rows = centres.reshape(len(centres), -1)
    apart = (rows - rows[neighbours(rows)]).reshape(centres.shape)
    space = centres.ndim - 1
    power, own = (jnp.mean(jnp.abs(fourier_modes(jnp.asarray(x), space)) ** 2, axis=0) for x in (apart, centres))
    floor = _LEAST_POWER * jnp.maximum(own, _LEAST_POWER * jnp.max(own))
    both = jnp.asarray(np.concatenate([centres, -centres]) if even else centres)
    spectrum = jnp.maximum(power, floor)
    return FieldKernels(both, _whitened(both, spectrum), spectrum)


def neighbours(rows: np.ndarray) -> np.ndarray:
    """The number of the nearest other row, for each."""
    return np.asarray(KDTree(rows).query(rows, k=2)[1])[:, 1]
