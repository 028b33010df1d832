"""Observables of fields against sums written out and laws known in closed form."""

from typing import Any

import numpy as np
import pytest

from scoresample.diagnostics import (
    binder_cumulant,
    magnetisation,
    radial_spectrum,
    susceptibility,
    two_point_function,
)

RNG = np.random.default_rng(0)


def correlated(shape: tuple[int, ...], num: int, kappa: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Normal fields with the spectrum 1 / (2 - 4 kappa sum cos w), and that spectrum."""
    cosines = np.meshgrid(*[np.cos(2 * np.pi * np.fft.fftfreq(n)) for n in shape], indexing="ij")
    spectrum = 1 / (2 - 4 * kappa * np.sum(cosines, axis=0))
    axes = tuple(range(1, len(shape) + 1))
    noise = np.fft.fftn(RNG.normal(size=(num, *shape)), axes=axes)
    return np.fft.ifftn(noise * np.sqrt(spectrum), axes=axes).real, spectrum


@pytest.mark.parametrize("shape", [(7,), (4, 6), (5, 5), (3, 4, 5)])
def test_the_two_point_function_is_the_sum_over_sites_and_axes(shape: tuple[int, ...]) -> None:
    fields = RNG.normal(size=(2, 3, *shape))
    axes = tuple(range(2, 2 + len(shape)))
    expected = [
        np.mean([np.mean(fields * np.roll(fields, -r, axis), axis=axes) for axis in axes], axis=0)
        for r in range(min(shape) // 2 + 1)
    ]
    found = two_point_function(fields, field_axes=len(shape))
    np.testing.assert_allclose(found, np.stack(expected, axis=-1), rtol=1e-12, atol=1e-13)


def test_the_two_point_function_and_the_spectrum_belong_together() -> None:
    """The mean of all powers is the mean square, and the power at zero is the sum over all products."""
    field = RNG.normal(size=9) + 0.5
    wavenumbers, power = radial_spectrum(field, field_axes=1)
    np.testing.assert_allclose(wavenumbers, 2 * np.pi * np.arange(5) / 9)
    products = two_point_function(field, field_axes=1)
    np.testing.assert_allclose((power[0] + 2 * power[1:].sum()) / 9, products[0])
    np.testing.assert_allclose(products[0] + 2 * products[1:].sum(), power[0])
    np.testing.assert_allclose(susceptibility(magnetisation(field, field_axes=1), 9), power[0])


@pytest.mark.parametrize("shape", [(6, 6), (4, 8), (3, 4, 4), (9,)])
def test_normal_fields_have_the_spectrum_that_they_were_made_with(shape: tuple[int, ...]) -> None:
    fields, spectrum = correlated(shape, 4000)
    size = np.sqrt(np.sum(np.square(np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n) for n in shape], indexing="ij")), 0))
    rings = np.floor(size * min(shape) / (2 * np.pi) + 0.5 + 1e-9)  # half-way goes outwards
    wavenumbers, power = radial_spectrum(fields, field_axes=len(shape))
    number = min(shape) // 2 + 1
    assert wavenumbers.shape == (number,)
    assert power.shape == (4000, number)
    expected = np.array([spectrum[rings == ring].mean() for ring in range(number)])
    np.testing.assert_allclose(wavenumbers, [size[rings == ring].mean() for ring in range(number)], atol=1e-14)
    error = power.std(axis=0) / np.sqrt(4000)
    assert np.abs((power.mean(axis=0) - expected) / error).max() < 5
    assert np.abs((power.mean(axis=0) - 1.1 * expected) / error).max() > 5, "ten per cent would be seen"
    assert wavenumbers[0] == 0
    np.testing.assert_allclose(power[:, 0], np.sum(fields, axis=tuple(range(1, 1 + len(shape)))) ** 2 / np.prod(shape))


def test_the_first_ring_is_the_frequency_zero_alone() -> None:
    fields = RNG.normal(size=(2, 3, 12))
    wavenumbers, power = radial_spectrum(fields)
    np.testing.assert_allclose(power[:, 0], fields.sum(axis=(1, 2)) ** 2 / 36)
    assert wavenumbers[0] == 0


def test_magnetisation_keeps_the_leading_axes() -> None:
    fields = RNG.normal(size=(2, 5, 3, 4))
    np.testing.assert_allclose(magnetisation(fields), fields.mean(axis=(2, 3)))
    np.testing.assert_allclose(magnetisation(fields, field_axes=4), fields.mean())


def test_susceptibility_and_binder_cumulant_of_normal_and_two_valued_magnetisations() -> None:
    normal, signs = 0.3 * RNG.normal(size=(2, 50_000)), 0.3 * RNG.choice([-1.0, 1.0], size=1000)
    # 1 - E m^4 / (3 (E m^2)^2) has the asymptotic variance 24/9 per draw: with u = z^2, var(u^2 - 6 u) / 9 = 24 / 9
    assert np.abs(binder_cumulant(normal, axis=1)).max() < 5 * np.sqrt(24 / 9 / 50_000)
    assert np.abs(susceptibility(normal, 100, axis=1) - 9).max() < 5 * 9 * np.sqrt(2 / 50_000)
    np.testing.assert_allclose(susceptibility(normal, 100, connected=True), 9 * (1 - 2 / np.pi), rtol=0.03)
    np.testing.assert_allclose(binder_cumulant(signs), 2 / 3)
    np.testing.assert_allclose(susceptibility(signs, 100), 9)
    np.testing.assert_allclose(susceptibility(signs, 100, connected=True), 0, atol=1e-12)


@pytest.mark.parametrize("function", [magnetisation, two_point_function, radial_spectrum])
@pytest.mark.parametrize("field_axes", [0, 3])
def test_fields_need_their_axes(function: Any, field_axes: int) -> None:
    with pytest.raises(ValueError, match="`field_axes` must be the number of lattice axes, 1 to 2 for fields of shape"):
        function(np.ones((4, 4)), field_axes=field_axes)
