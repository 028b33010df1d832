"""Do the particles of a population move enough to forget their ancestors."""

from scoresample.checks._check import Check, graded_check

_WARN, _FAIL = 0.3, -1.0
"""Never a failure: where modes are apart no moves cross between them, and the weights can be right all the same."""


def moves_check(least_move: float) -> Check:
    """The check that follows from the least move of a tempered run.

    Arguments:
        least_move: mean square shift of a coordinate by the moves of a level over twice its variance, at its smallest.
    """
    return graded_check(
        "least move of the particles",
        least_move,
        warn=_WARN,
        fail=_FAIL,
        smaller_is_better=False,
        cause="On some level the moves shift particles by a small share of the population's width. Either modes are "
        "apart and keep the weights that they had, or particles stay close to their ancestors and are too narrow.",
        remedy="Raise `num_moves` and `num_integration_steps` until the results no longer change.",
    )
