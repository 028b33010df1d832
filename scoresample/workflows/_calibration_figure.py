"""The figure of a calibration: ranks against their bands, coverage, and TARP."""

import math
import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.diagnostics import SBC, TARP, EcdfBand, ExpectedCoverage
from scoresample.report import COLOURS, new_figure, plain_text

_MOST_PANELS = 12
_COLUMNS = 4
_TITLE_WIDTH = 38
"""Characters that fit over a panel."""
_BAND_COLOUR = "#8a8f98"
_FAILED_COLOUR = COLOURS[1]
_PASSED_COLOUR = COLOURS[0]


def calibration_figure(sbc: SBC, coverage: ExpectedCoverage, tarp: TARP) -> Figure:
    """All curves minus the diagonal, where a calibrated posterior stays inside the grey.

    Arguments:
        sbc: the ranks.
        coverage: of central intervals.
        tarp: of the joint law.
    """
    failed = [not check.passed for check in sbc.checks]
    shown = sorted(range(len(sbc.names)), key=lambda index: (not failed[index], index))[:_MOST_PANELS]
    panels = len(shown) + 2
    columns = min(_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = new_figure(3.0 * columns, 2.5 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, index in zip(axes, shown, strict=False):
        _band(panel, sbc.band)
        _curve(panel, sbc.ranks[:, index], failed[index])
        _label(panel, sbc.names[index], sbc.words[index], "rank of the truth")
    panel = axes[len(shown)]
    _band(panel, coverage.band)
    broken = [not check.passed for check in coverage.checks]
    for index in sorted(range(len(broken)), key=lambda index: broken[index]):
        _curve(panel, coverage.credibilities[:, index], broken[index], thin=len(broken) > 1)
    words = f"{sum(broken)} of {len(broken)} leave the band" if any(broken) else "calibrated"
    _label(panel, "coverage of central intervals", words, "credibility")
    panel = axes[len(shown) + 1]
    _band(panel, tarp.band)
    _curve(panel, tarp.credibilities, not tarp.checks[0].passed)
    _label(panel, "TARP, joint law", tarp.words, "credibility")
    for panel in axes[panels:]:
        panel.set_axis_off()
    for panel in axes[:panels:columns]:
        panel.set_ylabel("ECDF minus diagonal", fontsize=8)
    left_out = len(sbc.names) - len(shown)
    if left_out:
        figure.supxlabel(f"{left_out} more quantities are not shown", fontsize=8)
    return figure


def _band(panel: Axes, band: EcdfBand) -> None:
    points = np.concatenate([[0.0], band.points, [1.0]])
    low, high = (np.concatenate([[0.0], side - band.points, [0.0]]) for side in (band.lower, band.upper))
    panel.fill_between(points, low, high, color=_BAND_COLOUR, alpha=0.35, linewidth=0)
    panel.axhline(0.0, color=_BAND_COLOUR, linewidth=0.8)


def _curve(panel: Axes, values: np.ndarray, failed: bool, thin: bool = False) -> None:
    ordered = np.concatenate([[0.0], np.sort(values), [1.0]])
    heights = np.concatenate([[0.0], np.arange(1, len(values) + 1) / len(values), [1.0]])
    colour = _FAILED_COLOUR if failed else _PASSED_COLOUR
    panel.plot(ordered, heights - ordered, color=colour, linewidth=1.0 if thin else 1.5)


def _label(panel: Axes, title: str, words: str, below: str) -> None:
    panel.set_title(f"{plain_text(title)}\n{textwrap.fill(words, _TITLE_WIDTH)}", fontsize=9)
    panel.set_xlabel(below, fontsize=8)
    panel.set_xlim(0, 1)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
