"""The pictures of fields: sheets of draws, spectra, two-point functions and means over sites."""

from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.report._comparison import Comparison
from scoresample.report._fields import SHEET, FieldStatistics
from scoresample.report._format import human
from scoresample.report._legend import LINE_STYLES, REFERENCE_COLOUR, colour_of, draw_legend, place_of
from scoresample.report._png import LEVELS, png_uri
from scoresample.report._spectrum_check import POWER_RATIOS, power_ratio
from scoresample.report._statistics import RunStatistics
from scoresample.report._svg import INK, new_figure

_GAP = 0.06
"""Of the side of a field: space between two on a sheet."""

_SHOWN = 0.995
"""Share of the values that lie inside the colour map's range."""

_BELOW_ZERO = 0.05
"""Images may undershoot zero by this share of their range and still count as non-negative."""

_BINS = 40

_NO_COLOUR = 128
"""No multiple of 255 / 63, so no pixel of a picture in three channels has it."""


@dataclass(frozen=True)
class Sheet:
    """Draws of one run side by side.

    Attributes:
        name: name of the run.
        uri: the picture as a data address.
        alt: what it shows, in words.
        how: which draws they are.
        width: pixels of the picture.
        height: pixels of the picture.
    """

    name: str
    uri: str
    alt: str
    how: str
    width: int
    height: int


@dataclass(frozen=True)
class ColourScale:
    """One range of values for the sheets of all runs.

    Attributes:
        low: value of the first colour.
        high: value of the last colour.
        signed: whether zero is in the middle.
        colours: of the map, bytes of shape (LEVELS, 3).
    """

    low: float
    high: float
    signed: bool
    colours: np.ndarray

    @property
    def css(self) -> str:
        """The map as a gradient."""
        stops = self.colours[np.linspace(0, LEVELS - 1, 9).astype(int)]
        return f"linear-gradient(to right, {', '.join('#' + bytes(stop.tolist()).hex() for stop in stops)})"

    @property
    def ends(self) -> tuple[str, str]:
        """The values at both ends, in words."""
        return human(self.low, 2), human(self.high, 2)


def sheets(comparison: Comparison) -> tuple[list[Sheet], ColourScale]:
    """A sheet of draws for every run, all on one colour scale.

    Arguments:
        comparison: what `compare` found, with fields.
    """
    scale = _colour_scale(comparison)
    return [_sheet(name, found, scale) for name, found in comparison.fields.items()], scale


def spectrum_figure(comparison: Comparison) -> Figure:
    """Power spectra with two standard errors, and their ratios to the reference.

    Arguments:
        comparison: what `compare` found, with fields.
    """
    reference = comparison.fields.get(comparison.reference or "")
    figure = new_figure(8.2 if reference else 5.5, 3.2)
    panels = figure.subplots(1, 2 if reference else 1, squeeze=False)[0]
    for name, found in comparison.fields.items():
        # Wavenumber zero has no place on a logarithmic axis, nor has a band without power.
        drawn = (found.wavenumbers > 0) & (found.power > 0)
        low = np.maximum(found.power - 2 * found.power_se, 0.2 * found.power)
        _curve(
            panels[0], comparison, name, found.wavenumbers, found.power, low, found.power + 2 * found.power_se, drawn
        )
        if reference:
            compared = power_ratio(found, reference)
            # The reference's own error stands in the ratio of itself, not in that of the others a second time.
            error = found.power_se / np.maximum(found.power, 1e-300)
            middle = np.where(drawn, compared.ratio, np.nan)
            bounds = middle * np.exp(-2 * error), middle * np.exp(2 * error)
            _curve(panels[1], comparison, name, found.wavenumbers, middle, *bounds, drawn)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("power", fontsize=9)
    for panel in panels:
        panel.set_xscale("log")
        highest = max(float(found.wavenumbers[-1]) for found in comparison.fields.values())
        ticks = [tick * 10**power for power in range(4) for tick in (1, 2, 5) if tick * 10**power <= highest]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("wavenumber (waves along the shorter side)", fontsize=9)
    if reference:
        for limit in (POWER_RATIOS[1], 1 / POWER_RATIOS[1]):
            panels[1].axhline(limit, color=INK, linewidth=0.8, linestyle=":", alpha=0.8)
        reach = [power_ratio(found, reference).ratio[1:] for found in comparison.fields.values()]
        farthest = float(np.clip(np.max(np.abs(np.log(reach))), 0.25, np.log(1e4)))
        panels[1].set_yscale("log")
        panels[1].set_ylim(np.exp(-1.25 * farthest), np.exp(1.25 * farthest))
        if farthest < 1:
            ticks = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.7, 2, 2.5]
            ticks = [tick for tick in ticks if abs(np.log(tick)) < 1.25 * farthest]
            panels[1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            panels[1].set_yticks([], minor=True)
        panels[1].set_ylabel("power over the reference's", fontsize=9)
    draw_legend(figure, comparison, _runs(comparison), dashed=True)
    return figure


def correlation_figure(comparison: Comparison) -> Figure:
    """Two-point functions along the axes, and histograms of the mean over sites.

    Arguments:
        comparison: what `compare` found, with fields.
    """
    figure = new_figure(8.2, 3.0)
    products, means = figure.subplots(1, 2)
    pooled = [found.site_means for found in comparison.fields.values()]
    low, high = (min(float(each.min()) for each in pooled), max(float(each.max()) for each in pooled))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    for name, found in comparison.fields.items():
        distance, value, error = np.arange(len(found.two_point)), found.two_point, 2 * found.two_point_se
        everywhere = np.ones(len(value), bool)
        _curve(products, comparison, name, distance, value, value - error, value + error, everywhere)
        heights = np.histogram(found.site_means, edges, density=True)[0]
        if name == comparison.reference:
            means.stairs(heights, edges, color=REFERENCE_COLOUR, fill=True, alpha=0.45)
        else:
            style = LINE_STYLES[place_of(comparison, name) % len(LINE_STYLES)]
            means.stairs(heights, edges, color=colour_of(comparison, name), linewidth=1.5, linestyle=style)
    products.axhline(0.0, color=INK, linewidth=0.6, alpha=0.4)
    products.set_xlabel("distance in sites", fontsize=9)
    products.set_ylabel("two-point function", fontsize=9)
    means.set_xlabel("mean over all sites", fontsize=9)
    means.set_ylabel("density", fontsize=9)
    means.set_ylim(bottom=0.0)
    draw_legend(figure, comparison, _runs(comparison))
    return figure


def _runs(comparison: Comparison) -> list[RunStatistics]:
    return [comparison.runs[name] for name in comparison.fields]


def _curve(
    panel: Axes,
    comparison: Comparison,
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    drawn: np.ndarray,
) -> None:
    """A line with a band; the reference's is dashed."""
    colour = colour_of(comparison, name)
    own = name == comparison.reference
    style = "--" if own else LINE_STYLES[place_of(comparison, name) % len(LINE_STYLES)]
    panel.fill_between(x[drawn], low[drawn], high[drawn], color=colour, alpha=0.25, linewidth=0)
    panel.plot(x[drawn], y[drawn], color=INK if own else colour, linestyle=style, linewidth=1.1 if own else 1.5)


def _colour_scale(comparison: Comparison) -> ColourScale:
    """The reference's range where there is one, else that of the run in the middle: one wild run hides no other."""
    known = comparison.fields.get(comparison.reference or "")
    values = [found.sheet for found in ([known] if known else comparison.fields.values())]
    outside = (1 - _SHOWN) / 2
    bounds = np.median([np.quantile(value, [outside, 1 - outside]) for value in values], axis=0)
    lowest, highest = float(bounds[0]), float(bounds[1])
    signed = lowest < -_BELOW_ZERO * (highest - lowest)
    if signed:
        reach = max(-lowest, highest)
        lowest, highest = -reach, reach
    elif not highest > lowest:
        lowest, highest = lowest - 0.5, lowest + 0.5
    colours = matplotlib.colormaps["RdBu_r" if signed else "gray"](np.linspace(0, 1, LEVELS))[:, :3]
    return ColourScale(lowest, highest, signed, np.round(255 * colours).astype(np.uint8))


def _sheet(name: str, found: FieldStatistics, scale: ColourScale) -> Sheet:
    number, height, width, channels = found.sheet.shape
    columns = min(SHEET[1], number)
    rows = -(-number // columns)
    gap = max(1, round(_GAP * min(height, width)))
    levels = np.clip((found.sheet - scale.low) / (scale.high - scale.low), 0.0, 1.0)
    step = np.round(levels * (LEVELS - 1)).astype(np.uint8)
    # Gaps are transparent: a colour behind the map's, or one that no pixel takes.
    blank = LEVELS if channels == 1 else _NO_COLOUR
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), blank, np.uint8)
    for place in range(number):
        row, column = divmod(place, columns)
        pixels = step[place] if channels == 1 else np.round(step[place] * (255 / (LEVELS - 1))).astype(np.uint8)
        top, left = row * (height + gap), column * (width + gap)
        canvas[top : top + height, left : left + width] = pixels
    if channels == 1:
        uri = png_uri(canvas[:, :, 0], blank, np.vstack([scale.colours, np.full((1, 3), 128, np.uint8)]))
    else:
        uri = png_uri(canvas, blank)
    low, high = scale.ends
    full = f"{found.shape[0]} by {found.shape[1]}"
    alt = f"Draws of {name}: {found.how}, {full} sites each, in {rows} rows. Colours run from {low} to {high}."
    return Sheet(name, uri, alt, found.how, canvas.shape[1], canvas.shape[0])
