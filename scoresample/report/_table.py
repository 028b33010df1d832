"""The table of a comparison: one row a run, one column a statistic."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from scoresample.report._format import NOTHING, human
from scoresample.report._statistics import Deviation, RunStatistics


@dataclass(frozen=True)
class Column:
    """How a column of the table is shown.

    Attributes:
        name: the column of the table.
        heading: what people read above it.
        meaning: one sentence on what it is.
        digits: significant digits to show.
        of: a column that says which quantity the number belongs to, if there is one.
    """

    name: str
    heading: str
    meaning: str
    digits: int = 3
    of: str | None = None


COLUMNS = (
    Column("kind", "kind", "Chains, independent draws, or particles that interact."),
    Column("chains", "chains", "Number of chains; independent draws are kept as one."),
    Column("draws", "draws", "Number of draws over all chains.", 6),
    Column("nfe", "NFE", "Score evaluations per draw."),
    Column("evaluations", "evaluations", "Score evaluations of the whole run, warm-up included.", 6),
    Column("seconds", "seconds", "Wall clock of the whole run, compilation included."),
    Column("compile_seconds", "compiling", "Seconds of these spent in compilation."),
    Column("r_hat", "R-hat", "Worst rank-normalised split R-hat; chains only.", 4, "r_hat_of"),
    Column("ess_bulk", "bulk ESS", "Smallest bulk effective sample size.", 3, "ess_bulk_of"),
    Column("ess_tail", "tail ESS", "Smallest tail effective sample size.", 3, "ess_tail_of"),
    Column("ess_per_second", "ESS per second", "Smallest bulk ESS over seconds without compilation."),
    Column("mean_error", "mean error", "Largest |mean - mean_ref| / sd_ref.", 2, "mean_error_of"),
    Column("mean_error_se", "its error", "Monte-Carlo standard error of that mean error.", 2),
    Column("sd_ratio", "sd ratio", "The ratio sd / sd_ref that is farthest from 1.", 3, "sd_ratio_of"),
    Column("sliced_w2", "sliced W2", "Sliced Wasserstein-2 distance to the reference, in its standard deviations.", 2),
    Column("sliced_w2_null_median", "null median", "Median sliced W2 between halves of the reference.", 2),
    Column("sliced_w2_null_95", "null 95%", "95% quantile of sliced W2 between halves of the reference.", 2),
    Column("energy", "energy", "Energy distance to the reference, standardised by it.", 2),
    Column("energy_null_median", "null median", "Median energy distance between halves of the reference.", 2),
    Column("energy_null_95", "null 95%", "95% quantile of the energy distance between halves of the reference.", 2),
)
"""The columns that are shown, in order."""


def table_row(run: RunStatistics, deviation: Deviation | None) -> dict[str, object]:
    """One row of the table.

    Arguments:
        run: statistics of the run.
        deviation: what it shows against the reference, if there is one.
    """
    chains, length = run.shape
    info, draws = run.draws.info, chains * length
    compiling = float(info.get("compile_seconds", np.nan))
    row: dict[str, object] = {
        "kind": run.draws.kind,
        "chains": chains,
        "draws": draws,
        "nfe": float(run.draws.nfe),
        "evaluations": float(info.get("num_evaluations", run.draws.nfe * draws)),
        "seconds": float(run.draws.seconds),
        "compile_seconds": compiling,
    }
    if run.chains is not None:
        row |= _extreme("r_hat", run.chains["r_hat"], largest=True)
        row |= _extreme("ess_bulk", run.chains["ess_bulk"], largest=False)
        row |= _extreme("ess_tail", run.chains["ess_tail"], largest=False)
        if run.draws.kind != "chains":  # then the ESS is that of the sample, not of one quantity
            row |= {"ess_bulk_of": None, "ess_tail_of": None}
        running = float(run.draws.seconds) - (0.0 if np.isnan(compiling) else compiling)
        row["ess_per_second"] = float(run.chains["ess_bulk"].min()) / running if running > 0 else np.nan
    if deviation is not None:
        moments = deviation.moments
        row |= _extreme("mean_error", moments["mean_error"], largest=True)
        row["mean_error_se"] = moments["mean_error_se"].get(row["mean_error_of"], np.nan)
        with np.errstate(divide="ignore"):
            row |= _extreme("sd_ratio", np.log(moments["sd_ratio"]).abs(), largest=True)
        row["sd_ratio"] = moments["sd_ratio"].get(row["sd_ratio_of"], np.nan)
        for name, distance in (("sliced_w2", deviation.sliced_wasserstein), ("energy", deviation.energy)):
            row |= {
                name: distance.value,
                f"{name}_null_median": distance.null_median,
                f"{name}_null_95": distance.null_95,
            }
    return row


def build_table(rows: dict[str, dict[str, object]]) -> pd.DataFrame:
    """All rows as one table, with every column of `COLUMNS` and those that name the quantities.

    Arguments:
        rows: what `table_row` gave, by name of the run.
    """
    names = [name for column in COLUMNS for name in (column.name, column.of) if name is not None]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=names)
    table.index.name = "run"
    return table


def shown_columns(table: pd.DataFrame) -> list[Column]:
    """The columns that hold anything at all.

    Arguments:
        table: what `build_table` gave.
    """
    return [column for column in COLUMNS if table[column.name].notna().any()]


def shown(table: pd.DataFrame, run: str, column: Column) -> str:
    """A cell as people write it, with the quantity that it belongs to.

    Arguments:
        table: what `build_table` gave.
        run: name of the row.
        column: the column.
    """
    value = table.loc[run, column.name]
    if isinstance(value, str):
        return value
    text = human(float(value), column.digits)
    if column.of is None or text == NOTHING or not isinstance(table.loc[run, column.of], str):
        return text
    return f"{text} ({table.loc[run, column.of]})"


def _extreme(name: str, column: pd.Series, *, largest: bool) -> dict[str, object]:
    known = column.dropna()
    if known.empty:
        return {name: np.nan, f"{name}_of": None}
    quantity = known.idxmax() if largest else known.idxmin()
    return {name: float(known[quantity]), f"{name}_of": str(quantity)}
