"""The part of the report on what scores know of the manifold that their data lie on."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.diagnostics import ManifoldHealth
from scoresample.report._legend import COLOURS, LINE_STYLES, REFERENCE_COLOUR
from scoresample.report._svg import INK, new_figure

_WIDTH, _HEIGHT = 6.6, 2.9
_MEASURES = {
    "Blow-up": ("Blow-up", "Where sampling stops"),
    "Intrinsic dimension": ("Intrinsic dimension",),
    "Normal space": ("Normal space",),
    "Finite energy": ("Finite energy",),
}
"""Figures, and the paragraphs that stand below each."""


def manifold_figures(health: ManifoldHealth) -> list[tuple[str, str, Figure | None]]:
    """Heading, words and figure of each measure; a measure that was not taken has no figure.

    Arguments:
        health: what was found about a score.
    """
    paragraphs = health.paragraphs()
    drawn = (_blow_up(health), _dimension(health), _spectrum(health), _energy(health))
    return [
        (heading, " ".join(paragraphs[name] for name in names), figure)
        for (heading, names), figure in zip(_MEASURES.items(), drawn, strict=True)
    ]


def _blow_up(health: ManifoldHealth) -> Figure:
    """The blow-up with the value that the dimension on the plateau asks for."""
    figure, panel = _panel("noise level (sigma/alpha, standard coordinates)", "sigma² E|s|²")
    _with_errors(panel, health.noise, health.blow_up, health.blow_up_se, 0, "held-out points")
    dimension = health.dimensions["FLIPD"].value
    if np.isfinite(dimension):
        label = f"D - k with FLIPD's k = {dimension:.2f}"
        panel.axhline(health.size - dimension, color=INK, linewidth=0.8, alpha=0.7, label=label)
    _log_noise(panel, health)
    if np.nanmax(health.blow_up) > 3 * health.size:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0.0)
    _legend(panel)
    return figure


def _dimension(health: ManifoldHealth) -> Figure:
    """FLIPD at held-out and training points."""
    figure, panel = _panel("noise level (sigma/alpha, standard coordinates)", "FLIPD")
    _with_errors(panel, health.noise, health.flipd, health.flipd_se, 0, "held-out points")
    values = health.flipd
    if health.flipd_training is not None and health.flipd_training_se is not None:
        _with_errors(panel, health.noise, health.flipd_training, health.flipd_training_se, 1, "training points")
        values = np.concatenate([values, health.flipd_training])
    panel.plot(
        health.noise[health.plateau], health.flipd[health.plateau], "D", color=INK, markersize=5, label="plateau"
    )
    known = health.dimensions.get("given")
    if known is not None:
        panel.axhline(known.value, color=INK, linewidth=0.8, alpha=0.7, label="given dimension")
    _log_noise(panel, health)
    if np.nanmin(values) > 0:
        panel.set_yscale("log")
    else:
        panel.set_yscale("symlog", linthresh=0.1)
    _legend(panel)
    return figure


def _spectrum(health: ManifoldHealth) -> Figure | None:
    """Singular values of the scores, the normal directions apart from the others."""
    if health.spectrum is None or not np.isfinite(health.spectrum).all():
        return None
    figure, panel = _panel("singular value", "over the largest")
    places = np.arange(1, health.size + 1)
    dimension = health.dimensions["spectrum"].value
    normal = places <= (health.size - dimension if np.isfinite(dimension) else health.size)
    marks = ((normal, "o", 0, "normal directions"), (~normal, "s", 1, "directions of the manifold"))
    for chosen, mark, colour, label in marks:
        if chosen.any():
            panel.plot(places[chosen], health.spectrum[chosen], mark, markersize=4, color=COLOURS[colour], label=label)
    panel.set_yscale("log")
    _legend(panel)
    return figure


def _energy(health: ManifoldHealth) -> Figure:
    """The integrand of the finite-energy integral, beside what a bounded error would make of it."""
    energy = health.energy
    figure, panel = _panel("noise level (sigma/alpha, standard coordinates)", "nats for each e-fold of noise")
    shown = np.isfinite(energy.rate) & (energy.rate > 0)
    if shown.any():
        _with_errors(panel, health.noise[shown], energy.rate[shown], energy.rate_se[shown], 0, "error of the score")
        first = np.flatnonzero(shown)[max(0, int(np.sum(shown)) - 4)]
        tail = health.noise[first:]
        bounded = energy.rate[first] * (tail / tail[0]) ** 2
        panel.plot(tail, bounded, LINE_STYLES[3], color=INK, linewidth=1.0, alpha=0.7, label="a bounded error")
        panel.set_yscale("log")
        lowest = min(np.min(energy.rate[shown]), np.min(bounded)) if energy.source == "exact" else 1e-3
        panel.set_ylim(bottom=max(float(lowest) / 3, 1e-12))
    else:
        panel.text(0.5, 0.5, "no error above zero at any level", transform=panel.transAxes, ha="center", color=INK)
    _log_noise(panel, health)
    _legend(panel)
    return figure


def _panel(across: str, title: str) -> tuple[Figure, Axes]:
    figure = new_figure(_WIDTH, _HEIGHT)
    panel = figure.subplots()
    panel.set_xlabel(across, fontsize=9)
    panel.set_title(title, fontsize=9)
    return figure, panel


def _with_errors(
    panel: Axes, noise: np.ndarray, values: np.ndarray, errors: np.ndarray, place: int, label: str
) -> None:
    """A line by noise level with two standard errors."""
    finite = np.isfinite(values)
    panel.errorbar(
        noise[finite],
        values[finite],
        yerr=2 * errors[finite],
        fmt=LINE_STYLES[place],
        marker="o",
        markersize=3.5,
        color=COLOURS[place],
        linewidth=1.5,
        elinewidth=1.0,
        capsize=2,
        label=label,
    )


def _log_noise(panel: Axes, health: ManifoldHealth) -> None:
    """A logarithmic axis of noise with the spacing of the points, and the break."""
    panel.set_xscale("log")
    low, high = 0.8 * float(health.noise[-1]), 1.25 * float(health.noise[0])
    panel.set_xlim(low, high)
    whose = "training" if health.num_training else "held-out"
    if low < health.spacing < high:
        label = f"spacing of the {whose} points"
        panel.axvline(health.spacing, color=REFERENCE_COLOUR, linewidth=1.2, linestyle="--", label=label)
    if np.isfinite(health.break_noise):
        panel.axvline(health.break_noise, color=COLOURS[1], linewidth=1.2, linestyle=":", label="break")


def _legend(panel: Axes) -> None:
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1.01, 0.5))
