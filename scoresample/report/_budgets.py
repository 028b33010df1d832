"""The part of the report on sampling budgets: what is known beforehand of how far draws are from the data."""

import dataclasses
from typing import Any

import numpy as np

from scoresample.diagnostics import SamplingBudget
from scoresample.report._format import human
from scoresample.report._table import Column

BUDGET_COLUMNS = (
    Column(
        "kl_at_most",
        "KL at most",
        "Upper bound in nats on the divergence of the data, noised to the sampler's last level, from the draws before "
        "the sampler's last move; loose by design. Below, its standard error.",
        2,
        "± {kl_at_most_se}",
    ),
    Column(
        "kl_budget",
        "KL, no bound",
        "What is known of the same budget without the exact score: the score's error is at least what went in, so this "
        "bounds nothing. Below, its standard error.",
        2,
        "± {kl_budget_se}",
    ),
)
"""Two columns, so that a number that bounds nothing never stands under a heading that says it does."""


def budget_cells(budget: SamplingBudget | None) -> dict[str, object]:
    """The cells of one run.

    Arguments:
        budget: the run's budget, if there is one.
    """
    if budget is None:
        return {}
    name = "kl_at_most" if budget.is_bound else "kl_budget"
    return {name: budget.total, f"{name}_se": budget.total_se}


def term_rows(budget: SamplingBudget) -> list[tuple[str, str, str]]:
    """Every term with its value and its standard error, as people write them.

    Arguments:
        budget: what `sampling_budget` found.
    """
    rows = zip(budget.terms.index, budget.terms.to_numpy(), strict=True)
    return [(str(name), human(float(value), 3), human(float(error), 2)) for name, (value, error) in rows]


def budget_content(budget: SamplingBudget) -> dict[str, Any]:
    """A budget as it goes into JSON: its numbers, and its steps column by column.

    Arguments:
        budget: what `sampling_budget` found.
    """
    fields = {field.name: getattr(budget, field.name) for field in dataclasses.fields(budget)}
    numbers = {name: value for name, value in fields.items() if isinstance(value, str | bool | int | float)}
    return numbers | {"steps": {str(name): np.asarray(column) for name, column in budget.table.items()}}
