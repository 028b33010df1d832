"""The check of mode weights: are modes missing, or weighted wrongly."""

import numpy as np

from scoresample.checks import Check
from scoresample.diagnostics import ModeWeights, total_variation
from scoresample.report._against import BEYOND_CHANCE
from scoresample.report._format import human, listed, percent
from scoresample.report._statistics import RunStatistics

MODE_LIMIT = 0.05
"""Total variation between mode weights without a failure."""

MISSING = 0.1
"""A mode with less than this share of the weight it should have is called missing."""


def mode_check(run: RunStatistics, expected: np.ndarray | ModeWeights, modes: np.ndarray) -> list[Check]:
    """Check the weights of the modes.

    Arguments:
        run: statistics of the run.
        expected: true weights of shape (modes,), or the mode weights of the reference.
        modes: the modes' positions, shape (modes, dimension), to name them by.

    Returns:
        One check of the total variation, which fails beyond `MODE_LIMIT` if chance does not explain it; none if the
        run holds draws that are not finite.
    """
    if run.modes is None:
        return []
    target = expected.fractions if isinstance(expected, ModeWeights) else expected
    distance, scores = total_variation(run.modes.fractions, target), run.modes.z_scores(expected)
    significant = bool(np.max(np.abs(scores)) > BEYOND_CHANCE)
    rounded = np.where(np.abs(modes) < 1e-6 * np.max(np.abs(modes)), 0.0, modes)
    where = [f"({', '.join(human(number) for number in mode)})" if len(mode) <= 3 else "" for mode in rounded]
    words = [
        f"mode {index + 1} {where[index]}".strip() + f" is {_state(found, wanted)}: {percent(found)} of the draws "
        f"instead of {percent(wanted)}"
        for index, (found, wanted) in enumerate(zip(run.modes.fractions, target, strict=True))
        if abs(scores[index]) > BEYOND_CHANCE
    ]
    cause = f"{listed(words)}." if words else "The modes have the weights they should have."
    return [
        Check(
            "mode weights, total variation",
            distance,
            MODE_LIMIT,
            not significant,
            cause[0].upper() + cause[1:],
            "Chains rarely cross between modes: use a path sampler on perturb(...) or on fit_score(...), or tempering."
            if run.draws.kind == "chains"
            else "Start the path at a larger noise level and take more steps; a learned score also needs training "
            "draws from every mode in the right proportion.",
            "fail" if distance > MODE_LIMIT else "warn",
        )
    ]


def _state(found: float, wanted: float) -> str:
    if found < MISSING * wanted:
        return "missing"
    return "under-weighted" if found < wanted else "over-weighted"
