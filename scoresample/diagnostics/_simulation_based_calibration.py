"""Simulation-based calibration: the ranks of truths among draws of their own posteriors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike
from scipy.special import ndtri

from scoresample.checks import Check
from scoresample.diagnostics._fractional_ranks import checked_names, fractional_ranks
from scoresample.diagnostics._uniformity import EcdfBand, ecdf_band, uniformity_p_value

CALIBRATION_REMEDY = (
    "Train the score longer or on more simulations, take more sampling steps, and check that the simulations tested "
    "here come from the prior that it was trained under."
)
_STANDARD_ERRORS = 3.0
"""From which on a shift or a wrong spread is put into words."""
_MOST_OUTSIDE = 0.05
"""With more truths than this outside of all draws, a small spread of the normal scores says nothing."""


@dataclass(frozen=True, eq=False)
class SBC:
    """What `simulation_based_calibration` found.

    Attributes:
        names: of the quantities.
        ranks: fractional ranks of the truths among the draws, uniform on (0, 1) for a calibrated posterior; shape
            (simulations, quantities).
        p_values: of the hypothesis that they are, shape (quantities,).
        band: where the empirical distribution function of the ranks of a calibrated posterior stays: that of all
            quantities together with probability 1 - `level` at least.
        shifts: how far the truths lie above their posteriors' centres, in posterior standard deviations, shape
            (quantities,): the mean of the ranks' normal scores. Posteriors are too low where it is positive.
        spreads: standard deviation of the normal scores, shape (quantities,): above 1 where posteriors are too
            narrow, below where they are too wide. Truths outside of all draws make it less telling.
        words: what is wrong with each quantity, "calibrated" where nothing was found.
        level: the probability that a calibrated posterior fails any of the checks.
        num_draws: draws of each posterior.
        checks: one for each quantity: its p-value against `level` divided by the number of quantities (Bonferroni).
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    p_values: np.ndarray
    band: EcdfBand
    shifts: np.ndarray
    spreads: np.ndarray
    words: tuple[str, ...]
    level: float
    num_draws: int
    checks: list[Check]

    @property
    def num_simulations(self) -> int:
        """How many truths there are."""
        return len(self.ranks)

    def __str__(self) -> str:
        """A line for each quantity."""
        width = max(len(name) for name in self.names)
        lines = [f"Simulation-based calibration: {self.num_simulations} simulations, {self.num_draws} draws each"]
        for name, p_value, words in zip(self.names, self.p_values, self.words, strict=True):
            lines.append(f"  {name:<{width}}  p = {p_value:<8.2g} {words}")
        return "\n".join(lines)


def simulation_based_calibration(
    truths: ArrayLike,
    draws: ArrayLike,
    *,
    log_weights: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> SBC:
    """Simulation-based calibration: test whether truths rank uniformly among the draws of their posteriors.

    Truths come from the prior, observations from the simulator, and draws from the posterior under test given the
    observation. If the posterior is right, each truth is one more draw from it, and its rank in any quantity is
    uniform. Ranks in the middle (a hump) are those of too wide a posterior, ranks at both ends (a U) of too narrow a
    one, and ranks on one side of a shifted one.

    The reverse does not hold: a posterior that returns the prior, whatever is observed, has uniform ranks in every
    quantity of the position, and so does one with right marginals and wrong correlations, but for quantities that
    involve several coordinates. [`tarp`][scoresample.diagnostics.tarp] with conditions sees both.

    Arguments:
        truths: shape (simulations, quantities).
        draws: shape (simulations, draws, quantities), independent given the observation.
        log_weights: shape (simulations, draws), or None where all draws count alike.
        names: of the quantities.
        level: the probability that a calibrated posterior fails any check.
        seed: seed of the numbers that break ties.

    Returns:
        The `SBC`.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, or `level` is out of range.

    Source: Talts et al. 2018, arXiv 1804.06788; bands and p-values of Säilynoja, Bürkner and Vehtari 2022, arXiv
    2103.10522.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> means = rng.normal(size=(500, 1))
        >>> truths = means + rng.normal(size=(500, 1))
        >>> draws = means[:, None] + 0.5 * rng.normal(size=(500, 100, 1))
        >>> simulation_based_calibration(truths, draws).words
        ('under-dispersed (too narrow)',)
    """
    ranks = fractional_ranks(truths, draws, log_weights=log_weights, seed=seed)
    num, number = ranks.shape
    names = checked_names(names, number)
    band = ecdf_band(num, level / number)
    scores = ndtri(np.clip(ranks, 1e-12, 1 - 1e-12))
    shifts, spreads = scores.mean(axis=0), scores.std(axis=0)
    p_values = np.array([uniformity_p_value(column) for column in ranks.T])
    num_draws = np.shape(draws)[1]
    words, checks = [], []
    for index, (name, p_value) in enumerate(zip(names, p_values, strict=True)):
        passed = bool(p_value > level / number)
        word = "calibrated" if passed else _words(ranks[:, index], shifts[index], spreads[index], num_draws)
        words.append(word)
        checks.append(
            Check(
                f"SBC p-value of {name}",
                float(p_value),
                level / number,
                passed,
                f"The posterior of {name} is {word}: its truths lie {shifts[index]:+.2f} posterior standard deviations "
                f"from its centre, with {spreads[index]:.2f} times the spread of its draws.",
                CALIBRATION_REMEDY,
            )
        )
    return SBC(names, ranks, p_values, band, shifts, spreads, tuple(words), float(level), num_draws, checks)


def _words(ranks: np.ndarray, shift: float, spread: float, num_draws: int) -> str:
    """What is wrong, the clearest first."""
    outside = np.mean((ranks < 1 / (num_draws + 1)) | (ranks > num_draws / (num_draws + 1)))
    errors = {
        "shifted down" if shift > 0 else "shifted up": abs(shift) / spread * np.sqrt(len(ranks)),
        "under-dispersed (too narrow)" if spread > 1 else "over-dispersed (too wide)": abs(spread - 1)
        * np.sqrt(2 * len(ranks))
        * (spread > 1 or outside < _MOST_OUTSIDE),
    }
    found = [word for word in sorted(errors, key=lambda word: -errors[word]) if errors[word] > _STANDARD_ERRORS]
    return " and ".join(found) or "of another shape than the truths"
