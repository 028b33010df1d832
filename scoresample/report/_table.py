"""The table of a comparison: one row a run, one column a statistic."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd

from scoresample.report._format import NOTHING, human
from scoresample.report._statistics import Deviation, RunStatistics

NO_BREAK = "\u00a0"
"""A space where no line may end."""


@dataclass(frozen=True)
class Column:
    """How a column of the table is shown.

    Attributes:
        name: the column of the table.
        heading: what people read above it.
        meaning: one sentence on what it is.
        digits: significant digits to show.
        below: what stands below the number in small type, one line or two; braces are replaced by other columns of the
            table. It is left out where one of them is missing.
    """

    name: str
    heading: str
    meaning: str
    digits: int = 3
    below: str = ""


COLUMNS = (
    Column("kind", "kind", "Chains, independent draws, or particles that interact."),
    Column("draws", "draws", "Number of draws over all chains.", 6, "{chains} chains"),
    Column("nfe", "NFE", "Score evaluations per draw, warm-up not counted."),
    Column("evaluations", "evaluations", "Score evaluations of the whole run, warm-up included.", 6),
    Column(
        "seconds", "seconds", "Wall clock of the whole run, compilation included.", 3, "{compile_seconds} compiling"
    ),
    Column("r_hat", "R-hat", "Worst rank-normalised split R-hat; chains only.", 4, "{r_hat_of}"),
    Column("ess_bulk", "bulk ESS", "Smallest bulk effective sample size.", 3, "{ess_bulk_of}"),
    Column("ess_tail", "tail ESS", "Smallest tail effective sample size.", 3, "{ess_tail_of}"),
    Column("ess_per_second", "ESS/s", "Smallest bulk ESS over seconds without compilation."),
    Column(
        "mean_error",
        "mean error",
        "Largest |mean - mean_ref| / sd_ref, with its Monte-Carlo standard error.",
        2,
        "± {mean_error_se}\n{mean_error_of}",
    ),
    Column("sd_ratio", "sd ratio", "The ratio sd / sd_ref that is farthest from 1.", 3, "{sd_ratio_of}"),
    Column(
        "sliced_w2",
        "sliced W2",
        "Sliced Wasserstein-2 distance to the reference, in its standard deviations; below, the median and the 95% "
        "quantile of the same distance between halves of the reference.",
        2,
        "null {sliced_w2_null_median}\n95% {sliced_w2_null_95}",
    ),
    Column(
        "energy",
        "energy",
        "Energy distance to the reference, standardised by it; below, the same for halves of the reference.",
        2,
        "null {energy_null_median}\n95% {energy_null_95}",
    ),
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
        names = run.chains.names
        row |= _extreme("r_hat", names, run.chains.r_hat, run.chains.r_hat)
        row |= _extreme("ess_bulk", names, run.chains.ess_bulk, -run.chains.ess_bulk)
        row |= _extreme("ess_tail", names, run.chains.ess_tail, -run.chains.ess_tail)
        if run.draws.kind != "chains":  # then the ESS is that of the sample, not of one quantity
            row |= {"ess_bulk_of": None, "ess_tail_of": None}
        running = float(run.draws.seconds) - (0.0 if np.isnan(compiling) else compiling)
        row["ess_per_second"] = float(np.min(run.chains.ess_bulk)) / running if running > 0 else np.nan
    if deviation is not None:
        moments = deviation.moments
        row |= _extreme("mean_error", moments.names, moments.mean_error, moments.mean_error)
        row |= _extreme("mean_error_se", moments.names, moments.mean_error_se, moments.mean_error)
        with np.errstate(divide="ignore"):
            row |= _extreme("sd_ratio", moments.names, moments.sd_ratio, np.abs(np.log(moments.sd_ratio)))
        for name, distance in (("sliced_w2", deviation.sliced_wasserstein), ("energy", deviation.energy)):
            row |= {
                name: distance.value,
                f"{name}_null_median": distance.null_median,
                f"{name}_null_95": distance.null_95,
            }
    return row


def build_table(rows: dict[str, dict[str, object]], further: tuple[Column, ...] = ()) -> pd.DataFrame:
    """All rows as one table, with every column of `COLUMNS` and those shown below them.

    Arguments:
        rows: what `table_row` gave, by name of the run.
        further: columns to add.
    """
    names: list[str] = []
    for column in (*COLUMNS, *further):
        names += [column.name, *_fields(column)]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=names)
    table.index.name = "run"
    return table


def shown_columns(table: pd.DataFrame, further: tuple[Column, ...] = ()) -> list[Column]:
    """The columns that hold anything at all.

    Arguments:
        table: what `build_table` gave.
        further: columns that may have been added.
    """
    rows = table.to_dict(orient="index").values()
    known = [column for column in (*COLUMNS, *further) if column.name in table]
    return [column for column in known if any(_written(row[column.name], 3) != NOTHING for row in rows)]


def shown(table: pd.DataFrame, run: str, column: Column) -> tuple[str, str]:
    """A cell as people write it, and what stands below it.

    Arguments:
        table: what `build_table` gave.
        run: name of the row.
        column: the column.
    """
    return cell(table.to_dict(orient="index")[run], column)


def cell(row: Mapping[Any, Any], column: Column) -> tuple[str, str]:
    """A cell of one row as people write it, and what stands below it.

    Arguments:
        row: the row, by name of the column.
        column: the column.
    """
    value = _written(row[column.name], column.digits)
    below = {name: _written(row[name], 2) for name in _fields(column)}
    if value == NOTHING or NOTHING in below.values() or below == {"chains": "1"}:
        return value, ""
    return value, column.below.replace(" ", NO_BREAK).format(**below)


def _fields(column: Column) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(column.below) if name]


def _written(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    return NOTHING if value is None else human(float(value), digits)


def _extreme(name: str, quantities: tuple[str, ...], column: np.ndarray, weight: np.ndarray) -> dict[str, object]:
    """The entry of a column where the weight is largest, and the quantity that it belongs to."""
    if np.all(np.isnan(weight)):
        return {name: np.nan, f"{name}_of": None}
    place = int(np.nanargmax(weight))
    return {name: float(column[place]), f"{name}_of": quantities[place]}
