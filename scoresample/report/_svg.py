"""Matplotlib figures as inline SVG that follows the page's colours."""

import html
import io
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the page's text colour, light or dark, until the figure is written."""

_DPI = 110
"""Of the parts that are pictures: clouds of points."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without pyplot's global state.

    Arguments:
        width: in inches.
        height: in inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    return figure


def inline_svg(figure: Figure, *, name: str, alt: str) -> str:
    """A figure as an ``<svg>`` element for an HTML page.

    Text stays text in the page's font, ids are prefixed so that several figures can share a page, the ink follows the
    page's text colour, and no address remains in it. The same figure always gives the same text.

    Arguments:
        figure: what was drawn.
        name: prefix of the ids, unique on the page.
        alt: what the figure shows, for those who cannot see it.
    """
    for axes in figure.axes:
        _style(axes)
    for words in figure.texts:
        words.set_color(INK)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=_DPI, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = text.replace(INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)


def plain_text(name: str) -> str:
    r"""A name that Matplotlib will not read as a formula.

    Arguments:
        name: any text.

    Examples:
        >>> print(plain_text("cost in $"))
        cost in \$
    """
    return name.replace("$", r"\$")


def _style(axes: Axes) -> None:
    """Give axes the page's ink, and no more lines than they need."""
    axes.patch.set_alpha(0.0)
    axes.tick_params(colors=INK, labelsize=8)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_alpha(0.4)
        spine.set_visible(side in ("left", "bottom") and spine.get_visible())
