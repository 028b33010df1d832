"""The table of one posterior: one row a parameter, a reference beside it."""

import numpy as np
import pandas as pd

from scoresample.diagnostics import normalized_weights
from scoresample.report._comparison import Comparison
from scoresample.report._format import human
from scoresample.report._table import Column

_QUANTILES = (0.05, 0.5, 0.95)


def parameter_columns(comparison: Comparison) -> tuple[Column, ...]:
    """The columns of the table, in order; those of a reference only where there is one.

    Arguments:
        comparison: what `compare` found about the draws, and the reference.
    """
    own = (
        Column("mean", "mean", "Posterior mean; below, its Monte-Carlo standard error.", 3, "± {mcse}"),
        Column("sd", "sd", "Posterior standard deviation."),
        Column("q5", "5%", "Quantile: the parameter is smaller with this probability."),
        Column("q50", "median", "The median."),
        Column("q95", "95%", "Quantile: the parameter is smaller with this probability."),
        Column("ess", "ESS", "Draws that the mean is worth; of weighted draws, Kish's effective size."),
    )
    name = comparison.reference
    if name is None:
        return own
    return (
        *own,
        Column("reference_mean", f"{name} mean", f"The mean by {name}; below, its standard error.", 3,
               "± {reference_mcse}"),
        Column("reference_sd", f"{name} sd", f"The standard deviation by {name}."),
        Column("difference", "difference", f"Of the means, in standard deviations of {name}; below, its Monte-Carlo "
               "standard error.", 2, "± {difference_se}"),
        Column("sd_ratio", "sd ratio", f"The standard deviation over that of {name}."),
        Column("r_hat", f"{name} R-hat", "Do its chains agree? 1 is perfect.", 4),
    )  # fmt: skip


def parameter_table(comparison: Comparison, shown: str) -> pd.DataFrame:
    """The moments and quantiles of every parameter, weights counted.

    Arguments:
        comparison: what `compare` found about the draws, and the reference.
        shown: the name of the draws.

    Returns:
        One row a parameter, with nan for what is not known; no rows where draws are not finite.
    """
    run = comparison.runs[shown]
    if run.moments is None:
        return pd.DataFrame()
    weights = normalized_weights(run.draws)
    moments = run.moments
    rows: dict[str, dict[str, float]] = {}
    for place, name in enumerate(moments.names):
        sd, ess = float(moments.sd[place]), float(moments.ess_mean[place])
        rows[name] = {
            "mean": float(moments.mean[place]),
            "mcse": _error(sd, ess),
            "sd": sd,
            "ess": ess if sd > 0 else np.nan,
        }
        found = np.quantile(run.values[name].ravel(), _QUANTILES, weights=weights, method="inverted_cdf")
        rows[name] |= dict(zip(("q5", "q50", "q95"), map(float, found), strict=True))
    other = None if comparison.reference is None else comparison.runs[comparison.reference]
    if other is not None and other.moments is not None and other.chains is not None:
        theirs = other.moments
        for place, name in enumerate(theirs.names):
            if name not in rows:
                continue
            sd = float(theirs.sd[place])
            rows[name] |= {
                "reference_mean": float(theirs.mean[place]),
                "reference_mcse": _error(sd, float(theirs.ess_mean[place])),
                "reference_sd": sd,
            }
        for place, name in enumerate(other.chains.names):
            if name in rows:
                rows[name]["r_hat"] = float(other.chains.r_hat[place])
        for row in rows.values():
            sd = row.get("reference_sd", 0.0)
            if sd > 0:
                row["difference"] = (row["mean"] - row["reference_mean"]) / sd
                row["difference_se"] = float(np.hypot(row["mcse"], row["reference_mcse"])) / sd
                row["sd_ratio"] = row["sd"] / sd
    names = ["mean", "mcse", "sd", "q5", "q50", "q95", "ess"]
    if comparison.reference is not None:
        names += ["reference_mean", "reference_mcse", "reference_sd", "difference", "difference_se", "sd_ratio"]
        names += ["r_hat"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=names)
    table.index.name = "parameter"
    return table


def parameter_text(table: pd.DataFrame, columns: tuple[Column, ...], most: int) -> list[str]:
    """The table as lines for a terminal.

    Arguments:
        table: what `parameter_table` gave.
        columns: what `parameter_columns` gave.
        most: rows to show.
    """
    cells = [["", *(column.heading for column in columns)]]
    for name, row in table.head(most).to_dict(orient="index").items():
        cells.append([str(name), *(human(float(row[column.name]), column.digits) for column in columns)])
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if len(table) > most:
        lines.append(f"and {len(table) - most} more")
    return lines


def _error(sd: float, ess: float) -> float:
    return sd / float(np.sqrt(ess)) if sd > 0 and ess > 0 else np.nan
