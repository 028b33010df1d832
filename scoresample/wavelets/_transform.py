"""The orthogonal wavelet transform of periodic fields, in JAX."""

from collections.abc import Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.wavelets._filters import Taps, taps, wavelet_filters


class WaveletTransform(eqx.Module):
    """The orthogonal multilevel wavelet transform of periodic fields on a line or in the plane.

    One level splits a field into a low-pass field of half the size along every axis and its details, the high-pass
    bands; the next level splits the low-pass field (Mallat 1989, IEEE Trans. PAMI 11(7)). All of it together is an
    orthogonal matrix, so that ``log p(field) = log p(coarse) + sum_j log p(details_j | low_j)`` needs no volume term
    (Guth et al. 2022, arXiv 2208.05003, section 3). The coefficients are those of PyWavelets' ``wavedec`` and
    ``wavedec2`` with ``mode="periodization"``. The cost is linear in the number of pixels.

    Attributes:
        shape: of a field: (n,) or (height, width).
        wavelet: PyWavelets' name of it.
        levels: number of times that the field is halved.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> transform = WaveletTransform((16, 16))
        >>> transform.shapes
        ((2, 2), (4, 4), (8, 8))
        >>> field = jax.random.normal(jax.random.key(0), (16, 16))
        >>> [part.shape for part in transform.forward(field)]
        [(2, 2), (3, 2, 2), (3, 4, 4), (3, 8, 8)]
        >>> bool(jnp.allclose(transform.inverse(transform.forward(field)), field, atol=1e-5))
        True
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    wavelet: str = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], wavelet: str = "db2", levels: int | None = None) -> None:
        """Choose a transform.

        Arguments:
            shape: of a field: (n,) or (height, width), every axis divisible by ``2**levels``.
            wavelet: the name of an orthogonal wavelet of PyWavelets: ``"haar"``, ``"db2"``, ``"sym4"``, ``"coif1"`` ...
            levels: how often the field is halved; by default until its shortest axis has two sites.

        Raises:
            ValueError: if the wavelet is not orthogonal, or the shape cannot be halved so often.
        """
        wavelet_filters(wavelet)
        shape = tuple(int(n) for n in shape)
        if len(shape) not in (1, 2) or min(shape) < 2:
            raise ValueError(
                f"`shape` must be (n,) or (height, width), with two sites or more along each axis, got {shape}."
            )
        self.shape, self.wavelet = shape, wavelet
        self.levels = _default_levels(shape) if levels is None else levels
        if self.levels < 1 or any(n % 2**self.levels for n in shape):
            raise ValueError(
                f"`levels` must be 1 or more, and each axis of the field divisible by 2**levels: {self.levels} levels "
                f"do not fit a field of shape {shape}. Take at most {_most_levels(shape)}, or pad the field."
            )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the low-pass fields, coarse to fine; the details that go with each have these too."""
        return tuple(tuple(n // 2**level for n in self.shape) for level in range(self.levels, 0, -1))

    def split(self, field: Array) -> tuple[Array, Array]:
        """One level: a field into its low-pass field and its details.

        Arguments:
            field: ``(..., *space)``, of any even size.

        Returns:
            The low-pass field ``(..., *space/2)`` and the details ``(..., bands, *space/2)``: one band on a line, in
            the plane PyWavelets' horizontal, vertical and diagonal ones, in this order.
        """
        self._check(field, len(self.shape), "field")
        if any(n % 2 for n in field.shape[field.ndim - len(self.shape) :]):
            raise ValueError(f"`field` needs an even size along each axis of space, got shape {field.shape}.")
        return _split(field, len(self.shape), self.wavelet)

    def merge(self, low: Array, details: Array) -> Array:
        """The field with this low-pass field and these details: the inverse of `split`."""
        space = len(self.shape)
        self._check(low, space, "low")
        bands = 2**space - 1
        want = (*low.shape[: low.ndim - space], bands, *low.shape[low.ndim - space :])
        if details.shape != want:
            raise ValueError(f"`details` must have shape {want} to go with `low`, got {details.shape}.")
        return _merge(low, details, space, self.wavelet)

    def forward(self, field: Array) -> tuple[Array, ...]:
        """All levels: ``(coarse, details_J, ..., details_1)``, coarse to fine.

        Arguments:
            field: ``(..., *shape)``.
        """
        self._check(field, len(self.shape), "field")
        if field.shape[field.ndim - len(self.shape) :] != self.shape:
            raise ValueError(f"`field` must have shape (..., *{self.shape}), got {field.shape}.")
        details = []
        for _ in range(self.levels):
            field, bands = self.split(field)
            details.append(bands)
        return (field, *reversed(details))

    def inverse(self, coefficients: Sequence[Array]) -> Array:
        """The field with these coefficients, in the order of `forward`."""
        if len(coefficients) != self.levels + 1:
            raise ValueError(
                f"`coefficients` must be {self.levels + 1} arrays, the coarse field and {self.levels} levels of "
                f"details, got {len(coefficients)}."
            )
        field = coefficients[0]
        if field.shape[field.ndim - len(self.shape) :] != self.shapes[0]:
            raise ValueError(f"`coefficients` must start with an array (..., *{self.shapes[0]}), got {field.shape}.")
        for details in coefficients[1:]:
            field = self.merge(field, details)
        return field

    def _check(self, field: Array, space: int, name: str) -> None:
        if field.ndim < space:
            raise ValueError(f"`{name}` needs {space} axes of space, got shape {field.shape}.")


def _most_levels(shape: tuple[int, ...]) -> int:
    return min((n & -n).bit_length() - 1 for n in shape)


def _default_levels(shape: tuple[int, ...]) -> int:
    """As many as leave two sites along the shortest axis."""
    levels = (min(shape) // 2).bit_length() - 1
    if levels < 1 or min(shape) != 2 ** (levels + 1) or any(n % 2**levels for n in shape):
        raise ValueError(
            f"`shape`: halving {shape} again and again does not lead to two sites along the shortest axis. Say how "
            f"often to halve it, levels=1 to {_most_levels(shape)}, or pad the field to a power of two."
        )
    return levels


@partial(jax.jit, static_argnums=(1, 2))
def _split(field: Array, space: int, wavelet: str) -> tuple[Array, Array]:
    low, high = _split_axis(field, -1, wavelet)
    if space == 1:
        return low, jnp.expand_dims(high, -2)
    low, horizontal = _split_axis(low, -2, wavelet)
    vertical, diagonal = _split_axis(high, -2, wavelet)
    return low, jnp.stack([horizontal, vertical, diagonal], axis=-3)


@partial(jax.jit, static_argnums=(2, 3))
def _merge(low: Array, details: Array, space: int, wavelet: str) -> Array:
    if space == 1:
        return _merge_axis(low, details[..., 0, :], -1, wavelet)
    horizontal, vertical, diagonal = (details[..., band, :, :] for band in range(3))
    low = _merge_axis(low, horizontal, -2, wavelet)
    high = _merge_axis(vertical, diagonal, -2, wavelet)
    return _merge_axis(low, high, -1, wavelet)


def _split_axis(field: Array, axis: int, wavelet: str) -> tuple[Array, Array]:
    """The two bands of a periodic field along one axis."""
    axis += field.ndim
    size = field.shape[axis]
    filters = taps(wavelet, size)
    first, last = _reach(filters)
    phases = [_wrapped(jax.lax.slice_in_dim(field, phase, size, 2, axis=axis), -first, last, axis) for phase in (0, 1)]

    def shifted(offset: int) -> Array:
        start = offset // 2 - first
        return jax.lax.slice_in_dim(phases[offset % 2], start, start + size // 2, axis=axis)

    low, high = (sum((c * shifted(m) for m, c in each[1:]), each[0][1] * shifted(each[0][0])) for each in filters)
    return low, high


def _merge_axis(low: Array, high: Array, axis: int, wavelet: str) -> Array:
    """The inverse of `_split_axis`: its transpose."""
    axis += low.ndim
    half = low.shape[axis]
    filters = taps(wavelet, 2 * half)
    first, last = _reach(filters)
    bands = [_wrapped(band, last, -first, axis) for band in (low, high)]

    def phase(which: int) -> Array:
        parts = []
        for band, each in zip(bands, filters, strict=True):
            for offset, coefficient in each:
                if offset % 2 == which:
                    start = last - offset // 2
                    parts.append(coefficient * jax.lax.slice_in_dim(band, start, start + half, axis=axis))
        return sum(parts[1:], parts[0])

    both = jnp.stack([phase(0), phase(1)], axis=axis + 1)
    return both.reshape(*low.shape[:axis], 2 * half, *low.shape[axis + 1 :])


def _reach(filters: tuple[Taps, Taps]) -> tuple[int, int]:
    """The first and the last decimated site that a filter sees, from its own."""
    sites = [offset // 2 for each in filters for offset, _ in each]
    return min(sites), max(sites)


def _wrapped(field: Array, before: int, after: int, axis: int) -> Array:
    """A periodic field with some of its end before it and some of its start after it."""
    size = field.shape[axis]
    parts = [
        jax.lax.slice_in_dim(field, size - before, size, axis=axis),
        field,
        jax.lax.slice_in_dim(field, 0, after, axis=axis),
    ]
    return jnp.concatenate([part for part in parts if part.shape[axis]], axis=axis)
