"""The clouds and curves of the report: marginal densities and pairs."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from arviz_stats.base.array import array_stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.diagnostics import normalized_weights, systematic_resample
from scoresample.report._comparison import Comparison
from scoresample.report._legend import COLOURS, LINE_STYLES, REFERENCE_COLOUR, draw_legend, place_of
from scoresample.report._statistics import RunStatistics
from scoresample.report._svg import new_figure, plain_text

MAX_MARGINALS = 12
"""Most panels of densities."""

MAX_PAIRED = 4
"""Most quantities in the pairs."""

MAX_DRAWS = 4000
"""Most draws behind a density."""

MAX_POINTS = 400
"""Most points of one run in a panel."""


def marginals_figure(comparison: Comparison) -> Figure | None:
    """Densities of the first quantities, the reference shaded.

    Arguments:
        comparison: what `compare` found.

    Returns:
        The figure, or None if no run is finite.
    """
    runs = _finite_runs(comparison)
    if not runs:
        return None
    names = _common_quantities(runs)[:MAX_MARGINALS]
    columns = min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(3.1 * columns, 2.1 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        samples = [_resampled(run, run.values[name]) for run in runs]
        low, high = _window(samples)
        for run, sample in zip(runs, samples, strict=True):
            _density(panel, sample, low, high, run.name == comparison.reference, place_of(comparison, run.name))
        panel.set_xlim(low, high)
        panel.set_ylim(bottom=0.0)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.set_title(plain_text(name), fontsize=9)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    draw_legend(figure, comparison, runs)
    return figure


def pairs_figure(comparison: Comparison) -> Figure | None:
    """Points of every run for each pair of the first quantities, over contours of the reference.

    Arguments:
        comparison: what `compare` found.

    Returns:
        The figure, or None if there is only one quantity.
    """
    runs = _finite_runs(comparison)
    names = _common_quantities(runs)[:MAX_PAIRED] if runs else []
    if len(names) < 2:
        return None
    count = len(names) - 1
    figure = new_figure(*((5.5, 4.4) if count == 1 else (2.5 * count + 0.5, 2.3 * count + 0.5)))
    panels = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    samples = {run.name: np.stack([_resampled(run, run.values[name]) for name in names]) for run in runs}
    windows = [_window([sample[index] for sample in samples.values()]) for index in range(len(names))]
    for row in range(count):
        for column in range(count):
            panel = panels[row, column]
            if column > row:
                panel.set_axis_off()
                continue
            for run in runs:
                x, y = samples[run.name][column], samples[run.name][row + 1]
                if run.name == comparison.reference:
                    _contours(panel, x, y, windows[column], windows[row + 1])
                else:
                    _points(panel, x, y, len(runs), place_of(comparison, run.name))
            panel.set_xlim(*windows[column])
            panel.set_ylim(*windows[row + 1])
            if row == count - 1:
                panel.set_xlabel(plain_text(names[column]), fontsize=9)
            if column == 0:
                panel.set_ylabel(plain_text(names[row + 1]), fontsize=9)
    draw_legend(figure, comparison, runs)
    return figure


def _finite_runs(comparison: Comparison) -> list[RunStatistics]:
    """The reference first, so that it lies behind the others."""
    runs = [run for run in comparison.runs.values() if run.non_finite == 0]
    return sorted(runs, key=lambda run: run.name != comparison.reference)


def _common_quantities(runs: Sequence[RunStatistics]) -> list[str]:
    return [name for name in runs[0].values if all(name in run.values for run in runs)]


def _resampled(run: RunStatistics, value: np.ndarray) -> np.ndarray:
    number = min(MAX_DRAWS, value.size)
    return value.ravel()[systematic_resample(normalized_weights(run.draws), number)]


def _window(samples: Sequence[np.ndarray]) -> tuple[float, float]:
    """An interval that shows the bulk of every sample."""
    bounds = np.array([np.quantile(sample, (0.005, 0.995)) for sample in samples])
    low, high = float(bounds[:, 0].min()), float(bounds[:, 1].max())
    margin = 0.08 * (high - low) or 0.5 * abs(low) or 0.5
    return low - margin, high + margin


def _density(panel: Axes, sample: np.ndarray, low: float, high: float, shaded: bool, place: int) -> None:
    colour, style = COLOURS[place % len(COLOURS)], LINE_STYLES[place % len(LINE_STYLES)]
    inside = sample[(sample >= low) & (sample <= high)]
    if len(np.unique(inside)) < 10:
        panel.axvline(float(np.median(sample)), color=REFERENCE_COLOUR if shaded else colour, linestyle=style)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grid, density, _ = array_stats.kde(inside, grid_len=200)
    if shaded:
        panel.fill_between(grid, density, color=REFERENCE_COLOUR, alpha=0.45, linewidth=0)
    else:
        panel.plot(grid, density, color=colour, linestyle=style, linewidth=1.5)


def _points(panel: Axes, x: np.ndarray, y: np.ndarray, runs: int, place: int) -> None:
    chosen = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS if runs > 1 else 4 * MAX_POINTS)).astype(int)
    panel.scatter(
        x[chosen], y[chosen], s=4, color=COLOURS[place % len(COLOURS)], alpha=0.6, linewidths=0, rasterized=True
    )


def _contours(
    panel: Axes, x: np.ndarray, y: np.ndarray, x_window: tuple[float, float], y_window: tuple[float, float]
) -> None:
    """Regions that hold 50% and 90% of the draws, from a smoothed histogram."""
    bins = 48
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=bins, range=(x_window, y_window))
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.2) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        counts = np.apply_along_axis(lambda row: np.convolve(row, kernel, mode="same"), axis, counts)
    ordered = np.sort(counts, axis=None)[::-1]
    held = np.cumsum(ordered) / max(np.sum(ordered), 1e-300)
    levels = [float(ordered[min(np.searchsorted(held, share), len(held) - 1)]) for share in (0.9, 0.5)]
    levels = sorted({*levels, float(ordered[0])})
    if len(levels) < 2 or levels[0] <= 0:
        panel.scatter(x[::10], y[::10], s=4, color=REFERENCE_COLOUR, alpha=0.4, linewidths=0, rasterized=True)
        return
    middles = [(edges[1:] + edges[:-1]) / 2 for edges in (x_edges, y_edges)]
    for level in levels[:-1]:
        panel.contourf(*middles, counts.T, levels=[level, levels[-1]], colors=[REFERENCE_COLOUR], alpha=0.3)
