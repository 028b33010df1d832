"""The figure of memorisation: ratios and distances of draws beside those of held-out points."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scoresample.diagnostics import Memorisation
from scoresample.report._svg import INK, new_figure, plain_text

_BINS = 30
"""Of the ratio, over (0, 1); the limit need not be an edge."""

_SMALLEST = 1e-4
"""Distances below this multiple of the held-out points' median are drawn at the left edge."""


def memorisation_figure(found: Memorisation, name: str, colour: str) -> Figure:
    """Histograms of d1/d2 with the limit, and the distribution functions of d1.

    Arguments:
        found: what `memorisation` found.
        name: name of the run.
        colour: its colour.
    """
    figure = new_figure(8.2, 3.0)
    ratios, distances = figure.subplots(1, 2)
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    ratios.hist(found.ratio, edges, weights=_equal(found.ratio), color=colour, alpha=0.55, linewidth=0)
    held_out = np.histogram(found.held_out_ratio, edges, weights=_equal(found.held_out_ratio))[0]
    ratios.stairs(held_out, edges, color=INK, linewidth=1.2)
    ratios.axvline(found.limit, color=INK, linestyle="--", linewidth=1)
    ratios.set_xlim(0.0, 1.0)
    ratios.set_xlabel("d1 / d2", fontsize=9)
    ratios.set_ylabel("fraction", fontsize=9)
    smallest = _SMALLEST * float(np.median(found.held_out_distance))
    largest = float(max(found.distance.max(), found.held_out_distance.max()))
    for values, ink, width in ((found.held_out_distance, INK, 1.2), (found.distance, colour, 1.8)):
        ordered = np.concatenate([np.sort(np.maximum(values, smallest)), [largest]])
        heights = np.append(np.arange(values.size) + 1, values.size) / values.size
        distances.step(ordered, heights, where="post", color=ink, linewidth=width)
    distances.set_xscale("log")
    distances.set_ylim(0.0, 1.02)
    distances.set_xlabel("d1, distance to the nearest training point", fontsize=9)
    distances.set_ylabel("fraction below", fontsize=9)
    handles = [
        Patch(color=colour, label=plain_text(f"{name}: draws")),
        Line2D([], [], color=INK, label="held-out points"),
        Line2D([], [], color=INK, linestyle="--", label=f"limit {found.limit:.2g}"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _equal(values: np.ndarray) -> np.ndarray:
    return np.full(values.size, 1.0 / values.size)
