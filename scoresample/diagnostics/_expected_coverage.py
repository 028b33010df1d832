"""Expected coverage: how often regions of a posterior hold the truth, against their credibility."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import ArrayLike

from scoresample.checks import Check
from scoresample.diagnostics._fractional_ranks import checked_names, fractional_ranks
from scoresample.diagnostics._simulation_based_calibration import CALIBRATION_REMEDY
from scoresample.diagnostics._uniformity import EcdfBand, ecdf_band, uniformity_p_value

_SHOWN = (0.5, 0.8, 0.9, 0.95)
_AREA_DEVIATION = 1 / np.sqrt(12)
"""Standard deviation of one truth's part of the area, for a calibrated posterior."""
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True, eq=False)
class ExpectedCoverage:
    """What `interval_coverage` or `highest_density_coverage` found.

    Attributes:
        regions: "central intervals" or "highest-density regions".
        names: of the quantities, or ``("joint",)`` of a joint density.
        credibilities: of the smallest region that holds each truth, shape (simulations, quantities): uniform on (0, 1)
            for a calibrated posterior. Their empirical distribution function is the expected coverage.
        p_values: of the hypothesis that they are, shape (quantities,).
        band: where the expected coverage of a calibrated posterior stays: that of all quantities and credibilities
            together with probability 1 - `level` at least.
        areas: between expected coverage and diagonal, shape (quantities,): positive where regions hold the truth more
            often than they say (too wide a posterior), negative where they are overconfident.
        words: what is wrong with each, "calibrated" where nothing was found.
        level: the probability that a calibrated posterior fails any of the checks.
        checks: one for each quantity: its p-value against `level` divided by the number of quantities (Bonferroni).
    """

    regions: str
    names: tuple[str, ...]
    credibilities: np.ndarray
    p_values: np.ndarray
    band: EcdfBand
    areas: np.ndarray
    words: tuple[str, ...]
    level: float
    checks: list[Check]

    def coverage(self, credibility: float) -> np.ndarray:
        """The share of truths that the regions of a credibility hold, shape (quantities,)."""
        return np.mean(self.credibilities <= credibility, axis=0)

    @property
    def table(self) -> pd.DataFrame:
        """Coverage by credibility, a row each, with the standard error that a calibrated posterior has."""
        rows = {
            f"{share:.0%}": [*self.coverage(share), np.sqrt(share * (1 - share) / len(self.credibilities))]
            for share in _SHOWN
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=[*self.names, "standard error"])

    def __str__(self) -> str:
        """A line for each quantity."""
        width, num = max(len(name) for name in self.names), len(self.credibilities)
        lines = [f"Expected coverage of {self.regions}: {num} simulations"]
        for index, name in enumerate(self.names):
            held = ", ".join(f"{share:.0%}: {self.coverage(share)[index]:.1%}" for share in _SHOWN)
            lines.append(f"  {name:<{width}}  {held}, {self.words[index]}")
        return "\n".join(lines)


def interval_coverage(
    truths: ArrayLike,
    draws: ArrayLike,
    *,
    log_weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> ExpectedCoverage:
    """Expected coverage of the central intervals of each quantity.

    The central interval of credibility c leaves out as many draws above as below. It holds a truth of rank r if
    ``|2 r - 1| <= c``, so the coverage is that of the ranks of `simulation_based_calibration`, folded at the middle: it
    sees wrong widths better and shifts worse. What SBC cannot see (a posterior that returns the prior, wrong
    correlations) it cannot see either.

    Arguments:
        truths: shape (simulations, quantities).
        draws: shape (simulations, draws, quantities), independent given the observation.
        log_weights: shape (simulations, draws), or None where all draws count alike.
        names: of the quantities.
        level: the probability that a calibrated posterior fails any check.
        seed: seed of the numbers that break ties.

    Returns:
        The `ExpectedCoverage`.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, or `level` is out of range.

    Source: Hermans et al. 2022, arXiv 2110.06581, section 2, with intervals for highest-density regions; bands of
    Säilynoja, Bürkner and Vehtari 2022, arXiv 2103.10522.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> truths, draws = rng.normal(size=(500, 1)), 2 * rng.normal(size=(500, 100, 1))
        >>> found = interval_coverage(truths, draws)
        >>> found.words, bool(found.coverage(0.5)[0] > 0.7)
        (('over-dispersed (too wide)',), True)
    """
    ranks = fractional_ranks(truths, draws, log_weights=log_weights, seed=seed)
    return _expected_coverage("central intervals", np.abs(2 * ranks - 1), names, level)


def highest_density_coverage(
    truth_logdensities: ArrayLike,
    draw_logdensities: ArrayLike,
    *,
    log_weights: ArrayLike | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> ExpectedCoverage:
    """Expected coverage of the highest-density regions of the joint posterior.

    The region of credibility c holds the share c of draws with the highest densities under the posterior that is
    tested. Densities may lack constants that depend on the observation alone. For a posterior that returns the prior,
    the coverage is right too.

    Arguments:
        truth_logdensities: of each truth under its posterior, shape (simulations,).
        draw_logdensities: of the draws under theirs, shape (simulations, draws).
        log_weights: shape (simulations, draws), or None where all draws count alike.
        level: the probability that a calibrated posterior fails the check.
        seed: seed of the numbers that break ties.

    Returns:
        The `ExpectedCoverage`, of one quantity.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, or `level` is out of range.

    Source: Hermans et al. 2022, arXiv 2110.06581, section 2; Deistler et al. 2022, arXiv 2210.04815, for the estimate
    from draws.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> truths, draws = rng.normal(size=(500, 2)), rng.normal(size=(500, 100, 2))
        >>> highest_density_coverage(-np.sum(truths**2, -1), -np.sum(draws**2, -1)).words
        ('calibrated',)
    """
    truths, draws = np.asarray(truth_logdensities), np.asarray(draw_logdensities)
    if truths.ndim != 1 or draws.ndim != 2 or len(truths) != len(draws):
        raise ValueError(
            "`truth_logdensities` and `draw_logdensities` must have the shapes (simulations,) and (simulations, "
            f"draws), but {truths.shape} and {draws.shape} came."
        )
    ranks = fractional_ranks(-truths[:, None], -draws[:, :, None], log_weights=log_weights, seed=seed)
    return _expected_coverage("highest-density regions", ranks, ("joint",), level)


def _expected_coverage(
    regions: str, credibilities: np.ndarray, names: Sequence[str] | None, level: float
) -> ExpectedCoverage:
    num, number = credibilities.shape
    names = checked_names(names, number)
    band = ecdf_band(num, level / number)
    p_values = np.array([uniformity_p_value(column) for column in credibilities.T])
    areas = 0.5 - credibilities.mean(axis=0)
    words, checks = [], []
    for name, p_value, area in zip(names, p_values, areas, strict=True):
        passed = bool(p_value > level / number)
        word = "calibrated" if passed else _word(area / _AREA_DEVIATION * np.sqrt(num))
        words.append(word)
        what = f"The posterior of {name}" if regions == "central intervals" else "The joint posterior"
        checks.append(
            Check(
                f"coverage p-value of {name} ({regions})",
                float(p_value),
                level / number,
                passed,
                f"{what} is {word}: its {regions} hold the truth "
                f"{'more' if area > 0 else 'less'} often than they say, by {abs(area):.1%} on average.",
                CALIBRATION_REMEDY,
            )
        )
    return ExpectedCoverage(regions, names, credibilities, p_values, band, areas, tuple(words), float(level), checks)


def _word(standard_errors: float) -> str:
    if abs(standard_errors) < _STANDARD_ERRORS:
        return "of another shape than the truths"
    return "over-dispersed (too wide)" if standard_errors > 0 else "under-dispersed (too narrow) or shifted"
