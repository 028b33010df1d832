"""The part of the report on learned scores: their training, and their health by noise level."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.diagnostics import ScoreHealth
from scoresample.paths import TrainingRecord
from scoresample.report._format import human
from scoresample.report._legend import COLOURS, LINE_STYLES, REFERENCE_COLOUR
from scoresample.report._svg import INK, new_figure

_FLOOR = 1e-8
"""Shares below this, of exact scores, are drawn here: the axes are logarithmic."""


@dataclass(frozen=True)
class LevelColumn:
    """How a column of a score's table is shown.

    Attributes:
        name: the column of the table.
        heading: what people read above it.
        meaning: one sentence on what it is.
        error: the column of its standard error, or "".
    """

    name: str
    heading: str
    meaning: str
    error: str = ""


LEVEL_COLUMNS = (
    LevelColumn("noise", "noise", "The noise level: sigma/alpha in standard deviations of the data."),
    LevelColumn(
        "fokker_planck",
        "residual",
        "How far the scores of neighbouring levels are from those of one density: the residual of the score "
        "Fokker-Planck equation over the rate at which the score changes. At little noise the true score hardly "
        "changes, and every network comes near 1 or above.",
    ),
    LevelColumn(
        "fokker_planck_noise",
        "in noise units",
        "The same residual times sigma, for one e-fold of noise: by how much the predicted noise contradicts itself.",
    ),
    LevelColumn("asymmetry", "asymmetry", "Share of the score's Jacobian that no density can have."),
    LevelColumn(
        "denoising_loss",
        "loss",
        "Mean square error of the noise that the score predicts at held-out draws; below, its standard error.",
        "denoising_loss_se",
    ),
    LevelColumn("constant_loss", "constant", "The same of the best constant guess."),
    LevelColumn("gaussian_loss", "Gaussian", "The same of the normal law with the data's means and variances."),
    LevelColumn("empirical_loss", "draws", "The same of the other held-out draws, noised: no training at all."),
    LevelColumn(
        "fisher_divergence",
        "Fisher",
        "Mean square distance to the exact score, times sigma squared, for each coordinate; below, its standard error.",
        "fisher_divergence_se",
    ),
)
"""The columns that are shown, in order."""


def level_columns(health: ScoreHealth) -> list[LevelColumn]:
    """The columns that were computed.

    Arguments:
        health: what was found about a score.
    """
    return [column for column in LEVEL_COLUMNS if column.name in health.table]


def level_rows(health: ScoreHealth) -> list[list[tuple[str, str]]]:
    """The cells of every level, each with what stands below it.

    Arguments:
        health: what was found about a score.
    """
    columns = level_columns(health)
    return [
        [
            (human(float(row[column.name]), 3), f"± {human(float(row[column.error]), 2)}" if column.error else "")
            for column in columns
        ]
        for row in health.table.to_dict(orient="records")
    ]


def health_figure(health: ScoreHealth) -> Figure:
    """Residual, asymmetry and losses by noise level.

    Arguments:
        health: what was found about a score.
    """
    figure = new_figure(9.8, 3.1)
    panels = figure.subplots(1, 3)
    _lines(
        panels[0],
        health.noise,
        {"relative": health.fokker_planck, "in noise units": health.fokker_planck_noise},
        "Fokker-Planck residual",
    )
    _lines(panels[1], health.noise, {"asymmetry": health.asymmetry}, "Asymmetry of the Jacobian")
    _losses(panels[2], health)
    for panel in (panels[0], panels[2]):
        panel.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def training_figure(record: TrainingRecord) -> Figure:
    """Losses by epoch, and the held-out loss by noise level.

    Arguments:
        record: the history of a training run.
    """
    figure = new_figure(9.8, 2.7)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
    epochs = np.arange(1, len(record.train_loss) + 1)
    left.plot(epochs, record.train_loss, color=COLOURS[0], linewidth=1.0, alpha=0.8, label="training")
    left.plot(
        record.validation_epochs + 1,
        record.validation_loss,
        color=COLOURS[1],
        linewidth=1.6,
        linestyle=LINE_STYLES[1],
        label="held out",
    )
    left.plot(record.best_epoch + 1, record.best_loss, "o", color=COLOURS[1], markersize=5, label="kept")
    left.set_xlabel("epoch", fontsize=9)
    left.set_title("Loss", fontsize=9)
    left.legend(frameon=False, fontsize=8, labelcolor=INK)
    right.stairs(record.loss_by_level, record.level_edges, baseline=None, color=COLOURS[1], linewidth=1.6)
    right.set_xscale("log")
    right.set_ylim(bottom=0.0)
    right.set_xlabel("noise level (data standard deviations)", fontsize=9)
    right.set_title("Held-out loss of the kept weights", fontsize=9)
    return figure


def _lines(panel: Axes, noise: np.ndarray, values: dict[str, np.ndarray], title: str) -> None:
    """Positive values against the noise level, on logarithmic axes."""
    for place, (name, value) in enumerate(values.items()):
        finite = np.where(np.isfinite(value), np.maximum(value, _FLOOR), np.nan)
        style = LINE_STYLES[place % len(LINE_STYLES)]
        panel.plot(noise, finite, style, marker="o", markersize=3, color=COLOURS[place], linewidth=1.5, label=name)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("noise level (data standard deviations)", fontsize=9)
    panel.set_title(title, fontsize=9)


def _losses(panel: Axes, health: ScoreHealth) -> None:
    """Losses over that of a Gaussian; those of a constant and of the draws leave the panel at one end."""
    losses = {"score": health.denoising_loss, "draws": health.empirical_loss, "constant": health.constant_loss}
    for place, (name, loss) in enumerate(losses.items()):
        colour = REFERENCE_COLOUR if name == "constant" else COLOURS[place]
        style = LINE_STYLES[place % len(LINE_STYLES)]
        ratio = loss / health.gaussian_loss
        panel.plot(health.noise, ratio, style, marker="o", markersize=3, color=colour, linewidth=1.5, label=name)
    panel.axhline(1.0, color=INK, linewidth=0.7, alpha=0.7, label="Gaussian")
    panel.set_xscale("log")
    score = health.denoising_loss / health.gaussian_loss
    panel.set_ylim(0.0, float(np.clip(1.2 * np.max(score), 1.4, 3.0)) if np.isfinite(score).all() else 3.0)
    panel.set_xlabel("noise level (data standard deviations)", fontsize=9)
    panel.set_title("Denoising loss over a Gaussian's", fontsize=9)
