"""Draws that are fields or images: which site they are, and what a report says of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scoresample.diagnostics import (
    moment_estimates,
    normalized_weights,
    radial_spectrum,
    systematic_resample,
    two_point_function,
)
from scoresample.inference import Draws
from scoresample.report._format import listed
from scoresample.scores import named_sites

SMALLEST_SIDE = 8
"""Fewer sites along an axis have no scales to tell apart."""

CHANNELS = (1, 3)
"""Numbers of channels of an image: grey, or red, green and blue."""

SHEET = (5, 8)
"""Rows and columns of a sheet of draws."""

SHEET_PIXELS = 2**17
"""Most numbers in a sheet: less than 150 kB on the page, even of noise."""

_BLOCK = 2**22
"""Numbers of the fields that are transformed at once."""


@dataclass(frozen=True)
class FieldStatistics:
    """What the fields of one run show.

    Attributes:
        site: name of the site.
        shape: sites of a field along its two axes, (h, w).
        num_channels: of every field; spectra and products are averaged over them.
        sheet: draws to show, shape (number, h, w, channels); large fields are averaged over blocks of sites.
        how: which draws these are, in words.
        wavenumbers: mean wavenumber of every band, in waves along the shorter side, shape (bands,).
        power: power spectrum, shape (bands,).
        power_se: its Monte-Carlo standard error.
        power_ess: effective number of draws behind it.
        two_point: two-point function along the axes for distances 0, 1, ..., shape (distances,).
        two_point_se: its Monte-Carlo standard error.
        site_means: mean of every field over its sites, one number a draw, unweighted, shape (draws,).
    """

    site: str
    shape: tuple[int, int]
    num_channels: int
    sheet: np.ndarray
    how: str
    wavenumbers: np.ndarray
    power: np.ndarray
    power_se: np.ndarray
    power_ess: np.ndarray
    two_point: np.ndarray
    two_point_se: np.ndarray
    site_means: np.ndarray

    @property
    def content(self) -> dict[str, Any]:
        """The numbers behind the figures, for JSON."""
        names = ("site", "shape", "num_channels", "wavenumbers", "power", "power_se", "two_point", "two_point_se")
        return {name: getattr(self, name) for name in names}


def field_statistics(runs: Mapping[str, Draws], fields: Any) -> dict[str, FieldStatistics]:
    """What the fields of every run show, by its name; empty where draws are no fields or none are wanted.

    Runs with values that are not finite are left out.

    Arguments:
        runs: the runs by name, in the coordinates that they came in.
        fields: what the user wants: None (if the position is one field), a truth value, or the name of a site.
    """
    if not (fields is None or isinstance(fields, (bool, str))):
        raise TypeError(f"`fields` must be True, False, None or the name of a site, but {type(fields).__name__} came.")
    if fields is False:
        return {}
    site, values = _chosen(runs, fields)
    found = {}
    for name, value in values.items():
        images = _channels_first(value)
        if images is not None and np.all(np.isfinite(images)):
            found[name] = _statistics(site, runs[name], images)
    return found


def _chosen(runs: Mapping[str, Draws], fields: bool | str | None) -> tuple[str, dict[str, np.ndarray]]:
    """The site, and its values in every run."""
    leaves = {name: named_sites(draws.position) for name, draws in runs.items()}
    alone = all(len(found) == 1 for found in leaves.values())
    single = {name: np.asarray(next(iter(found.values()))) for name, found in leaves.items()}
    if fields is None and not (alone and _all_fields(list(single.values()))):
        return "", {}
    sites = {name: draws.sites() for name, draws in runs.items()}
    first = next(iter(sites.values()))
    shared = [site for site in first if all(site in found for found in sites.values())]
    fitting = [site for site in shared if _all_fields([np.asarray(found[site]) for found in sites.values()])]
    shapes = {site: list(first[site].shape[2:]) for site in shared}
    wanted = (
        f"Fields have the shape (h, w), (channels, h, w) or (h, w, channels), the same in all runs, with at least "
        f"{SMALLEST_SIDE} by {SMALLEST_SIDE} sites and 1 or 3 channels."
    )
    if isinstance(fields, str):
        if fields not in shared:
            raise ValueError(f"`fields` is {fields!r}, but the sites of all runs are {listed(shared, 20)}. Name one.")
        if fields not in fitting:
            raise ValueError(f"`fields` is {fields!r}, a site of shape {shapes[fields]}. {wanted}")
        chosen = fields
    else:
        moved = [site for site in fitting if all(site in found for found in leaves.values())]
        candidates = moved if len(moved) == 1 else fitting
        if len(candidates) != 1 and alone and _all_fields(list(single.values())):
            return "x", single
        if len(candidates) > 1:
            raise ValueError(
                f"`fields` is True, but several sites are fields: {listed(fitting, 20)}. Name one of them."
            )
        if not candidates:
            raise ValueError(f"`fields` is True, but no site is a field: {shapes}. {wanted} Leave `fields` out.")
        chosen = candidates[0]
    return chosen, {name: np.asarray(found[chosen]) for name, found in sites.items()}


def _all_fields(values: list[np.ndarray]) -> bool:
    return all(_channels_first(value) is not None and value.shape[2:] == values[0].shape[2:] for value in values)


def _channels_first(value: np.ndarray) -> np.ndarray | None:
    """Fields as (chain, draw, channels, h, w), or None if these are none."""
    event = value.shape[2:]
    if not np.issubdtype(value.dtype, np.floating) and not np.issubdtype(value.dtype, np.integer):
        return None
    if len(event) == 2 and min(event) >= SMALLEST_SIDE:
        return value[:, :, None]
    if len(event) == 3 and event[0] in CHANNELS and min(event[1:]) >= SMALLEST_SIDE:
        return value
    if len(event) == 3 and event[2] in CHANNELS and min(event[:2]) >= SMALLEST_SIDE:
        return np.moveaxis(value, -1, 2)
    return None


def _statistics(site: str, draws: Draws, images: np.ndarray) -> FieldStatistics:
    chains, length, channels, height, width = images.shape
    flat = images.reshape(-1, channels, height, width)
    spectra, products = [], []
    frequencies = np.zeros(0)
    size = max(1, _BLOCK // (channels * height * width))
    for start in range(0, len(flat), size):
        block = np.asarray(flat[start : start + size], np.float64)
        frequencies, power = radial_spectrum(block)
        spectra.append(power.mean(axis=1))
        products.append(two_point_function(block).mean(axis=1))
    power, power_se, power_ess = _estimates(draws, np.concatenate(spectra), (chains, length))
    two_point, two_point_se, _ = _estimates(draws, np.concatenate(products), (chains, length))
    means = flat.mean(axis=(1, 2, 3), dtype=np.float64)
    if draws.log_weights is not None:
        means = means[systematic_resample(normalized_weights(draws), len(means))]
    sheet, how = _sheet(draws, flat, (chains, length))
    return FieldStatistics(
        site=site,
        shape=(height, width),
        num_channels=channels,
        sheet=sheet,
        how=how,
        wavenumbers=frequencies * min(height, width) / (2 * np.pi),
        power=power,
        power_se=power_se,
        power_ess=power_ess,
        two_point=two_point,
        two_point_se=two_point_se,
        site_means=means,
    )


def _estimates(draws: Draws, columns: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over the draws with their standard errors and effective sizes."""
    moments = moment_estimates(draws, values={str(k): column.reshape(shape) for k, column in enumerate(columns.T)})
    # A constant has no ESS, and needs none.
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(moments.sd > 0, moments.sd / np.sqrt(moments.ess_mean), 0.0)
    return moments.mean, error, moments.ess_mean


def _sheet(draws: Draws, flat: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, str]:
    """The draws to show, chosen without a look at them; and which they are."""
    (chains, length), (channels, height, width) = shape, flat.shape[1:]
    number = int(np.clip(SHEET_PIXELS // (channels * height * width), 2, SHEET[0] * SHEET[1]))
    number = min(number, len(flat))
    if draws.log_weights is not None:
        chosen = systematic_resample(normalized_weights(draws), number)
        how = f"{number} draws, resampled by their weights"
    elif draws.kind == "independent":
        chosen, how = np.arange(number), f"the first {number} draws"
    elif draws.kind == "chains" and chains > 1:
        each = np.array_split(np.arange(number), min(chains, number))
        places = [chain * length + np.linspace(0, length - 1, len(own)).astype(int) for chain, own in enumerate(each)]
        chosen, how = np.concatenate(places), f"{number} draws at even distances in all {chains} chains, chain by chain"
        if chains > number:
            how = f"one draw of each of the first {number} chains"
    else:
        chosen = np.linspace(0, len(flat) - 1, number).astype(int)
        how = f"{number} draws at even distances"
    return _coarsened(np.moveaxis(flat[chosen].astype(np.float32), 1, -1)), how


def _coarsened(sheet: np.ndarray) -> np.ndarray:
    """Large fields averaged over blocks, so that two of them fit a sheet."""
    number, height, width, channels = sheet.shape
    factor = math.ceil(math.sqrt(number * height * width * channels / SHEET_PIXELS))
    if factor < 2:
        return sheet
    down, across = height // factor, width // factor
    cut = sheet[:, : down * factor, : across * factor]
    return cut.reshape(number, down, factor, across, factor, channels).mean(axis=(2, 4))
