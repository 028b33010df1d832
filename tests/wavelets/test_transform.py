"""The wavelet transform against PyWavelets, as an orthogonal matrix, and at its doors."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from scoresample.wavelets import WaveletTransform, frequency_response

TOLERANCE = {"float32": 1e-6, "float64": 1e-11}
"""Of the largest entry; PyWavelets' symlets are orthogonal to 2e-11."""

CASES: list[tuple[tuple[int, ...], str, int | None]] = [
    ((16,), "haar", None),
    ((24,), "db4", 3),
    ((8,), "db10", 3),
    ((8, 16), "db2", None),
    ((16, 8), "sym3", 3),
    ((12, 20), "coif1", 1),
    ((2, 2), "db2", 1),
]


def field_of(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return 3.0 + jax.random.normal(jax.random.key(seed), shape, dtype=float)


def pywavelets(field: np.ndarray, wavelet: str, levels: int, space: int) -> tuple[np.ndarray, ...]:
    """The coefficients of PyWavelets, with the bands of one level in one array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fields below the length of the filter
        if space == 1:
            coarse, *details = pywt.wavedec(field, wavelet, mode="periodization", level=levels)
            return (coarse, *(np.expand_dims(each, -2) for each in details))
        coarse, *details = pywt.wavedec2(field, wavelet, mode="periodization", level=levels)
    return (coarse, *(np.stack(each, axis=-3) for each in details))


def matrix(transform: WaveletTransform) -> np.ndarray:
    """The transform as a matrix: its action on the unit vectors."""
    size = int(np.prod(transform.shape))
    parts = transform.forward(jnp.eye(size, dtype=float).reshape(size, *transform.shape))
    return np.concatenate([np.asarray(part).reshape(size, -1) for part in parts], axis=1).T


@pytest.mark.parametrize(("shape", "wavelet", "levels"), CASES)
def test_coefficients_are_those_of_pywavelets(
    shape: tuple[int, ...], wavelet: str, levels: int | None, precision: jnp.dtype
) -> None:
    transform = WaveletTransform(shape, wavelet, levels)
    field = field_of((3, *shape))
    with jax.numpy_dtype_promotion("strict"):
        coefficients = eqx.filter_jit(transform.forward)(field)
        back = eqx.filter_jit(transform.inverse)(coefficients)
    wanted = pywavelets(np.asarray(field, np.float64), wavelet, transform.levels, len(shape))
    scale = np.abs(wanted[0]).max()
    for got, want, low in zip(coefficients, wanted, (transform.shapes[0], *transform.shapes), strict=True):
        assert got.dtype == precision
        assert got.shape[got.ndim - len(shape) :] == low
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[precision.name] * scale)
    assert back.dtype == precision
    np.testing.assert_allclose(back, field, rtol=0, atol=2 * TOLERANCE[precision.name] * scale)


@pytest.mark.parametrize(("shape", "wavelet", "levels"), CASES)
def test_transforms_are_orthogonal(shape: tuple[int, ...], wavelet: str, levels: int | None) -> None:
    dense = matrix(WaveletTransform(shape, wavelet, levels))
    np.testing.assert_allclose(dense @ dense.T, np.eye(len(dense)), atol=1e-6)


def test_one_level_splits_a_field_of_any_even_size() -> None:
    transform = WaveletTransform((8, 8))
    field = field_of((2, 3, 10, 6))
    low, details = transform.split(field)
    assert low.shape == (2, 3, 5, 3)
    assert details.shape == (2, 3, 3, 5, 3)
    want = pywavelets(np.asarray(field, np.float64), "db2", 1, 2)
    np.testing.assert_allclose(details, want[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(transform.merge(low, details), field, rtol=0, atol=1e-5)


def test_the_transform_is_differentiable_and_maps_over_fields() -> None:
    """The gradient of half the squared coefficients is the field, since the transform is orthogonal."""
    transform = WaveletTransform((4, 8))
    fields = field_of((3, 4, 8))

    def energy(field: jax.Array) -> jax.Array:
        return sum((0.5 * jnp.sum(part**2) for part in transform.forward(field)), jnp.zeros(()))

    gradients = jax.jit(jax.vmap(jax.grad(energy)))(fields)
    np.testing.assert_allclose(gradients, fields, atol=1e-5)
    for mapped, whole in zip(jax.vmap(transform.forward)(fields), transform.forward(fields), strict=True):
        np.testing.assert_allclose(mapped, whole, atol=1e-5)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym5"])
@pytest.mark.parametrize("size", [2, 6, 16])
def test_frequency_responses_are_the_transform_seen_by_fourier(wavelet: str, size: int) -> None:
    mixing = frequency_response(wavelet, size)
    np.testing.assert_allclose(
        mixing @ mixing.conj().swapaxes(1, 2), np.broadcast_to(np.eye(2), mixing.shape), atol=1e-10
    )
    with jax.enable_x64(True):
        signal = field_of((size,))
        low, details = WaveletTransform((size,), wavelet, 1).split(signal)
    aliases = np.fft.fft(signal, norm="ortho").reshape(2, size // 2).T
    bands = np.fft.fft(np.stack([low, details[0]]), norm="ortho").T
    np.testing.assert_allclose(np.einsum("kba,ka->kb", mixing, aliases), bands, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((28, 28),), r"`shape`: halving \(28, 28\) .*levels=1 to 2, or pad"),
        (((2, 2),), r"`shape`: halving"),
        (((12, 16), "db2", 3), r"`levels` .*Take at most 2"),
        (((16, 16), "db2", 0), r"`levels` must be 1 or more"),
        (((4, 4, 4),), r"`shape` must be \(n,\) or \(height, width\)"),
        (((8, 1),), r"`shape` must be"),
        (((8, 8), "bior2.2"), "`wavelet` must be orthogonal"),
        (((8, 8), "dmey"), "`wavelet` must be orthogonal"),
        (((8, 8), "daubechies"), "`wavelet` must be the name"),
    ],
)
def test_what_is_no_transform_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WaveletTransform(*arguments)


def test_arrays_that_do_not_fit_are_refused() -> None:
    transform = WaveletTransform((8, 8))
    coefficients = transform.forward(jnp.zeros((8, 8)))
    for call, message in (
        (lambda: transform.forward(jnp.zeros((8, 16))), r"`field` must have shape"),
        (lambda: transform.forward(jnp.zeros(8)), r"`field` needs 2 axes of space"),
        (lambda: transform.split(jnp.zeros((6, 3))), r"`field` needs an even size"),
        (lambda: transform.merge(jnp.zeros((4, 4)), jnp.zeros((1, 4, 4))), r"`details` must have shape \(3, 4, 4\)"),
        (lambda: transform.inverse(coefficients[:-1]), r"`coefficients` must be 3 arrays"),
        (lambda: transform.inverse((jnp.zeros((4, 4)), *coefficients[1:])), r"`coefficients` must start with"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_equal_transforms_share_one_trace() -> None:
    traces: list[None] = []

    @eqx.filter_jit
    def forward(transform: WaveletTransform, field: jax.Array) -> tuple[jax.Array, ...]:
        traces.append(None)
        return transform.forward(field)

    for _ in range(2):
        forward(WaveletTransform((8, 8)), jnp.ones((8, 8)))
    assert len(traces) == 1
