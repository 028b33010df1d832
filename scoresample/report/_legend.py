"""Which run has which colour and line."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scoresample.report._comparison import Comparison
from scoresample.report._statistics import RunStatistics
from scoresample.report._svg import INK, plain_text

COLOURS = ("#2f86c9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d")
"""Okabe and Ito's palette for all kinds of colour vision, without its yellow and black (its blue a little lighter, to
show on a dark page); then two more."""

LINE_STYLES = ("-", "--", "-.", ":")
"""Changed with every run too, so that no line is known by its colour alone."""

REFERENCE_COLOUR = "#8a8f98"
"""A grey that shows on white and on black."""


def draw_legend(
    figure: Figure,
    comparison: Comparison,
    runs: Sequence[RunStatistics],
    filled: bool = False,
    dashed: bool = False,
) -> None:
    """Name the runs above a figure.

    Arguments:
        figure: where to draw.
        comparison: what `compare` found.
        runs: the runs in the figure, in order.
        filled: patches for bars, instead of lines.
        dashed: a dashed line for the reference, instead of a shade.
    """
    handles: list[Line2D | Patch] = []
    for run in runs:
        colour, place = colour_of(comparison, run.name), place_of(comparison, run.name)
        if run.name == comparison.reference and dashed:
            line = Line2D([], [], color=INK, linestyle="--", linewidth=1.1, label=plain_text(f"{run.name} (reference)"))
            handles.append(line)
        elif run.name == comparison.reference:
            handles.append(Patch(color=colour, alpha=0.6, label=plain_text(f"{run.name} (reference)")))
        elif filled:
            handles.append(Patch(color=colour, label=plain_text(run.name)))
        else:
            style = LINE_STYLES[place % len(LINE_STYLES)]
            handles.append(Line2D([], [], color=colour, linestyle=style, label=plain_text(run.name)))
    entry = 0.7 + 0.075 * max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / entry)))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)


def place_of(comparison: Comparison, name: str) -> int:
    """The place of a run among those that are not the reference: it decides colour and line."""
    others = [other for other in comparison.runs if other != comparison.reference]
    return others.index(name) if name in others else 0


def colour_of(comparison: Comparison, name: str) -> str:
    """The colour of a run."""
    return REFERENCE_COLOUR if name == comparison.reference else COLOURS[place_of(comparison, name) % len(COLOURS)]
