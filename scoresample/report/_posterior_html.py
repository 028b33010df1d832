"""The report of one posterior as one HTML page that loads nothing from anywhere."""

from typing import Any

from scoresample.report._html import drawn, environment, settings_of
from scoresample.report._parameters import parameter_columns, parameter_table
from scoresample.report._plots import MAX_MARGINALS, MAX_PAIRED, marginals_figure, pairs_figure
from scoresample.report._posterior_figures import MOST_STATISTICS, replicates_figure, weights_figure
from scoresample.report._posterior_page import PosteriorPage
from scoresample.report._scores import training_figure
from scoresample.report._table import cell
from scoresample.report._verdict import form_verdict

MAX_PARAMETERS = 200
"""A table with more rows shows the first of them."""


def render_posterior(page: PosteriorPage) -> str:
    """Write the report of one posterior as HTML.

    Arguments:
        page: its content.

    Returns:
        A page in one piece: styles and figures are inside it.
    """
    table = parameter_table(page.comparison, page.shown)
    columns = () if table.empty else parameter_columns(page.comparison)
    rows = table.head(MAX_PARAMETERS).to_dict(orient="index")
    comparison = page.comparison
    return (
        environment()
        .get_template("posterior.html")
        .render(
            page=page,
            columns=columns,
            rows={name: [cell(row, column) for column in columns] for name, row in rows.items()},
            left_out=max(len(table) - MAX_PARAMETERS, 0),
            reference=None if comparison.reference is None else comparison.verdicts[comparison.reference],
            fit=None if page.predictive is None else form_verdict(page.predictive.checks),
            figures=_posterior_figures(page),
            weights=_weights(page),
            calibrated=_calibrated(page),
            replicated=_replicated(page),
            training=_training(page),
            details={name: settings_of(run) for name, run in comparison.runs.items()},
        )
    )


def _posterior_figures(page: PosteriorPage) -> list[dict[str, Any]]:
    reference = page.comparison.reference
    shading = f" Of {reference}, shaded." if reference else ""
    contours = f" Shaded regions hold 50% and 90% of the draws of {reference}." if reference else ""
    found = [
        (
            "marginals",
            "Marginal densities",
            f"Densities of the first parameters, at most {MAX_MARGINALS}.{shading}",
            marginals_figure(page.comparison),
        ),
        ("pairs", "Pairs", f"The first {MAX_PAIRED} parameters in pairs.{contours}", pairs_figure(page.comparison)),
    ]
    return [
        drawn(name, heading, f"{heading}: {page.shown}.", caption, figure)
        for name, heading, caption, figure in found
        if figure is not None
    ]


def _weights(page: PosteriorPage) -> list[dict[str, Any]]:
    if page.certificate is None:
        return []
    caption = (
        "Left: weights of the draws over their mean; of perfect draws all stand at the dashed line. Right: how much of "
        "the weight the heaviest draws hold; of perfect draws the line is straight."
    )
    figure = weights_figure(page.certificate.log_weights)
    return [drawn("weights", "Weights", "Weights of the draws as they came.", caption, figure)]


def _calibrated(page: PosteriorPage) -> list[dict[str, Any]]:
    if page.calibration is None:
        return []
    caption = (
        "Distribution functions of ranks and credibilities less those of a calibrated posterior, which stay in the "
        "grey. Above it, at small ranks: truths lie lower than the posteriors say."
    )
    return [drawn("calibration", "Ranks and coverage", "Calibration.", caption, page.calibration.figure)]


def _replicated(page: PosteriorPage) -> list[dict[str, Any]]:
    if page.predictive is None:
        return []
    caption = (
        f"Left: the most extreme statistics, at most {MOST_STATISTICS}; arrows lie farther out, orange ones are beyond "
        "chance. Right: distances of replicates from all of them, and that of the data."
    )
    figure = replicates_figure(page.predictive)
    return [drawn("replicates", "Data among replicates", "Posterior-predictive check.", caption, figure)]


def _training(page: PosteriorPage) -> list[dict[str, Any]]:
    if page.record is None:
        return []
    caption = "Left: the loss in training and on held-out simulations. Right: the latter in bands of noise levels."
    return [drawn("training", "Loss", "Training of the posterior.", caption, training_figure(page.record))]
