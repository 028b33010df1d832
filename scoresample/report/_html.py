"""The report as one HTML page that loads nothing from anywhere."""

import json
import warnings
from typing import Any, cast

import arviz as az
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from scoresample.diagnostics import ScoreHealth
from scoresample.report._bars import modes_figure, ranks_figure
from scoresample.report._budgets import BUDGET_COLUMNS, term_rows
from scoresample.report._comparison import Comparison
from scoresample.report._field_figures import correlation_figure, sheets, spectrum_figure
from scoresample.report._format import human, listed
from scoresample.report._legend import colour_of
from scoresample.report._manifolds import manifold_figures
from scoresample.report._memorisation import MEMORISATION_COLUMNS
from scoresample.report._memorisation_figure import memorisation_figure
from scoresample.report._plots import MAX_MARGINALS, MAX_PAIRED, marginals_figure, pairs_figure
from scoresample.report._scores import health_figure, level_columns, level_rows, training_figure
from scoresample.report._statistics import Deviation, RunStatistics
from scoresample.report._svg import inline_svg
from scoresample.report._table import shown, shown_columns

MAX_SUMMARY_ROWS = 200
"""A summary with more rows shows the worst of them; all are left to `az.summary(draws.to_arviz())`."""

WORST_ROWS = 24
"""How many those are."""

MAX_RANK_PLOTS = 8


def render(comparison: Comparison) -> str:
    """Write a comparison as HTML.

    Arguments:
        comparison: what `compare` found.

    Returns:
        A page in one piece: styles and figures are inside it.
    """
    columns = shown_columns(comparison.table, (*BUDGET_COLUMNS, *MEMORISATION_COLUMNS))
    return (
        environment()
        .get_template("report.html")
        .render(
            comparison=comparison,
            columns=columns,
            cells={name: [shown(comparison.table, name, column) for column in columns] for name in comparison.verdicts},
            figures=_figures(comparison),
            learned=_learned(comparison),
            terms={name: term_rows(budget) for name, budget in comparison.budgets.items()},
            copies=_copies(comparison),
            fields=_fields(comparison),
            summaries={name: _summary(run, comparison.deviations.get(name)) for name, run in comparison.runs.items()},
            settings={name: settings_of(run) for name, run in comparison.runs.items()},
        )
    )


def environment() -> Environment:
    """The templates, as all reports read them."""
    templates = Environment(
        loader=PackageLoader("scoresample.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["human"] = human
    return templates


def _figures(comparison: Comparison) -> list[dict[str, Any]]:
    """Every figure that can be drawn, with its heading, caption and markup."""
    reference, names = comparison.reference, listed(list(comparison.runs), 8)
    shading = f" The reference, {reference}, is shaded." if reference else ""
    figures = []

    def add(name: str, heading: str, caption: str, figure: Any) -> None:
        if figure is not None:
            figures.append(drawn(name, heading, f"{heading}: {names}.", caption, figure))

    add(
        "modes",
        "Mode weights",
        "Share of draws nearest to each mode, with two standard errors."
        + (" Lines mark the true weights." if isinstance(comparison.expected_modes, np.ndarray) else ""),
        modes_figure(comparison),
    )
    add(
        "marginals",
        "Marginal densities",
        f"Densities of the first quantities, at most {MAX_MARGINALS}.{shading}",
        marginals_figure(comparison),
    )
    contours = f" Shaded regions hold 50% and 90% of the draws of {reference}." if reference else ""
    add("pairs", "Pairs", f"Draws in pairs of the first {MAX_PAIRED} quantities.{contours}", pairs_figure(comparison))
    for number, run in enumerate(list(comparison.runs.values())[:MAX_RANK_PLOTS]):
        add(
            f"ranks{number}",
            f"Ranks of the chains of {run.name}",
            "Ranks of each chain among all draws, for the quantities with the largest R-hat. Chains that agree have "
            "level bars along the dashed line.",
            ranks_figure(run),
        )
    return figures


def drawn(name: str, heading: str, subject: str, caption: str, figure: Figure) -> dict[str, Any]:
    """A figure with its heading and caption, as templates show it."""
    svg = inline_svg(figure, name=name, alt=f"{subject} {caption}")
    return {"heading": heading, "caption": caption, "svg": Markup(svg), "width": round(figure.get_figwidth() * 72)}


def _learned(comparison: Comparison) -> list[dict[str, Any]]:
    """What the page says about each score: its verdict, its training, its table and its figures."""
    parts = []
    for number, (name, verdict) in enumerate(comparison.score_verdicts.items()):
        health, manifold = comparison.scores.get(name), comparison.manifolds.get(name)
        figures = [] if health is None else _health_figures(number, name, health)
        words = []
        for place, (heading, text, figure) in enumerate([] if manifold is None else manifold_figures(manifold)):
            if figure is None:
                words.append((heading, text))
            else:
                figures.append(drawn(f"manifold{number}-{place}", heading, f"{heading} of {name}.", text, figure))
        parts.append(
            {
                "name": name,
                "verdict": verdict,
                "health": health,
                "columns": [] if health is None else level_columns(health),
                "rows": [] if health is None else level_rows(health),
                "figures": figures,
                "words": words,
            }
        )
    return parts


def _health_figures(number: int, name: str, health: ScoreHealth) -> list[dict[str, Any]]:
    """The figures of a score's health and of its training."""
    caption = (
        f"At {health.num_points:,} held-out draws, noised. Residual and asymmetry are to be small where the score "
        "lies below the Gaussian on the right; elsewhere there is little to learn. A good score lies nowhere above "
        "the Gaussian or the draws."
    )
    heading = "By noise level"
    figures = [drawn(f"health{number}", heading, f"{name} by noise level.", caption, health_figure(health))]
    if health.record is not None:
        caption = "Left: the loss in training and on held-out points. Right: the latter in bands of noise levels."
        figure = training_figure(health.record)
        figures.append(drawn(f"training{number}", "Training", f"Training of {name}.", caption, figure))
    return figures


def _copies(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """One figure for each run whose draws were held against their training set, by name."""
    caption = (
        "Left: distance to the nearest training point over that to the second nearest; what is left of the line counts "
        "as memorised. Right: fraction of points nearer to the training set than a distance. New draws lie where the "
        "held-out points lie; copies lie to their left."
    )
    heading = "Distances to the training set"
    return {
        name: [
            drawn(
                f"memorisation{number}",
                heading,
                f"{heading}: {name}.",
                caption,
                memorisation_figure(found, name, colour_of(comparison, name)),
            )
        ]
        for number, (name, found) in enumerate(comparison.memorisation.items())
    }


def _fields(comparison: Comparison) -> dict[str, Any] | None:
    """Sheets and figures of draws that are fields, or None where there are none."""
    if not comparison.fields:
        return None
    one, names = next(iter(comparison.fields.values())), listed(list(comparison.fields), 8)
    pictures, scale = sheets(comparison)
    against = (
        "" if comparison.reference not in comparison.fields else f" The reference, {comparison.reference}, is dashed."
    )
    spectra = ("Mean square of the Fourier modes by wavenumber, with two Monte-Carlo standard errors." + against) + (
        " Right: the ratio to it, whose own error is shaded around 1; the dotted lines are the limits of a failure."
        if against
        else ""
    )
    products = (
        "Left: mean product of two sites a distance apart along the axes, with two standard errors. Right: the mean of "
        "every field over its sites."
    ) + (" The reference is dashed on the left, shaded on the right." if against else "")
    figures = [
        drawn("spectrum", "Power spectrum", f"Power spectrum of {names}.", spectra, spectrum_figure(comparison)),
        drawn(
            "correlation",
            "Two-point function and mean",
            f"Fields of {names}.",
            products,
            correlation_figure(comparison),
        ),
    ]
    return {
        "site": one.site,
        "shape": " by ".join(map(str, one.shape)) + (" sites in three channels" if one.num_channels == 3 else " sites"),
        "sheets": pictures,
        "scale": scale,
        "coloured": one.num_channels == 3,
        "figures": figures,
    }


def _summary(run: RunStatistics, deviation: Deviation | None) -> dict[str, Any] | None:
    """ArviZ's summary: everything for chains, and for other draws only what does not assume chains."""
    if run.non_finite:
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        kind = "all" if run.draws.kind == "chains" else "stats"
        table = cast(pd.DataFrame, az.summary(run.draws.to_arviz(), kind=kind, round_to="none"))
    table.index = table.index.map(str)
    kept, how = (table, "") if len(table) <= MAX_SUMMARY_ROWS else _worst_rows(table, deviation)
    return {
        "columns": list(table.columns),
        "rows": {name: [_cell(value) for value in row.values()] for name, row in kept.to_dict(orient="index").items()},
        "total": len(table),
        "how": how,
    }


def _worst_rows(table: pd.DataFrame, deviation: Deviation | None) -> tuple[pd.DataFrame, str]:
    """The rows of a long summary that most deserve a look, and which these are, in words."""
    if "r_hat" in table.columns and "ess_bulk" in table.columns:
        r_hat, ess = (np.asarray(table[name], dtype=np.float64) for name in ("r_hat", "ess_bulk"))
        half = WORST_ROWS // 2
        places = [*np.argsort(-r_hat, kind="stable")[:half], *np.argsort(ess, kind="stable")[:half]]
        kept = table.iloc[[int(place) for place in dict.fromkeys(places)]]
        return kept, "those with the largest R-hat, then those with the smallest bulk ESS"
    if deviation is not None:
        moments, rows = deviation.moments, set(table.index)
        order = np.argsort(-moments.mean_error / moments.mean_error_se, kind="stable")
        names = [moments.names[place] for place in order if moments.names[place] in rows][:WORST_ROWS]
        if names:
            kept = table.loc[names]
            return kept, "those whose means are most standard errors from the reference's, worst first"
    return table.head(WORST_ROWS), "the first"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else human(float(value), 4)


def settings_of(run: RunStatistics) -> dict[str, str]:
    """Attributes of the run, its own settings spelled out."""
    return {name: _readable(value) for name, value in run.draws.attributes.items()}


def _readable(value: Any) -> str:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return value
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
