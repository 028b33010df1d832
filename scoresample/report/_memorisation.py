"""The part of the report on memorisation: are draws copies of the training set."""

from typing import Any

from scoresample.diagnostics import Memorisation
from scoresample.report._table import Column

MEMORISATION_COLUMNS = (
    Column(
        "memorised",
        "memorised",
        "Fraction of the draws that are copies of a training point by the ratio of the distances to the nearest and "
        "the second nearest; below, its standard error, and the same fraction of held-out points.",
        2,
        "± {memorised_se}\nchance {memorised_chance}",
    ),
    Column(
        "nearer",
        "nearer",
        "Probability that a draw is nearer to the training set than a held-out point: .5 for new draws. Below, its "
        "standard error.",
        2,
        "± {nearer_se}",
    ),
)

_NUMBERS = ("fraction", "chance", "excess", "share", "nearer")
"""What has a standard error."""

_FACTS = ("distance_ratio", "limit", "num_training", "num_repeated", "dimension")


def memorisation_cells(found: Memorisation | None) -> dict[str, object]:
    """The cells of one run.

    Arguments:
        found: what `memorisation` found about its draws, if it was asked.
    """
    if found is None:
        return {}
    return {
        "memorised": found.fraction,
        "memorised_se": found.fraction_se,
        "memorised_chance": found.chance,
        "nearer": found.nearer,
        "nearer_se": found.nearer_se,
    }


def memorisation_content(found: Memorisation) -> dict[str, Any]:
    """Memorisation as it goes into JSON: its numbers, each with its standard error, without the single points.

    Arguments:
        found: what `memorisation` found.
    """
    measured = [each for name in _NUMBERS for each in (name, f"{name}_se")]
    numbers = {name: getattr(found, name) for name in (*measured, *_FACTS)}
    return numbers | {"num_draws": found.ratio.size, "num_held_out": found.held_out_ratio.size}
