"""Posterior-predictive checks: observed statistics among those of replicated data."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike
from sklearn.covariance import LedoitWolf

from scoresample.checks import Check
from scoresample.diagnostics._fractional_ranks import checked_names
from scoresample.diagnostics._uniformity import check_level

_REMEDY = (
    "Find out which part of the data the model cannot make, and change the model; if data like these were hardly ever "
    "simulated, the posterior was never trained for them either."
)
_MOST_SHOWN = 12
"""Statistics in a terminal, the most extreme first."""


@dataclass(frozen=True, eq=False)
class PosteriorPredictiveCheck:
    """What a posterior-predictive check found.

    Attributes:
        names: of the statistics.
        observed: the data's own, shape (statistics,).
        replicated: those of data simulated from the posterior's draws, shape (replicates, statistics).
        tail_probabilities: that a replicate lies at least as far out on the data's side, doubled, shape (statistics,).
        distance: Mahalanobis distance of the data from the replicates, squared; all statistics together.
        distances: the same of every replicate, shape (replicates,).
        joint_probability: the share of distances at least as large, the data's own counted in.
        level: the probability that data which are one more replicate fail any of the checks, at most.
        checks: the joint one, then one for each statistic. Half of the level is the joint's, the other half is divided
            by the number of statistics.
    """

    names: tuple[str, ...]
    observed: np.ndarray
    replicated: np.ndarray
    tail_probabilities: np.ndarray
    distance: float
    distances: np.ndarray
    joint_probability: float
    level: float
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        """The joint probability, then the most extreme statistics."""
        shown = np.argsort(self.tail_probabilities, kind="stable")[:_MOST_SHOWN]
        width = max(len(self.names[index]) for index in shown)
        verdict = "the data look like the replicates" if self.passed else "the data do not look like the replicates"
        lines = [
            f"Posterior-predictive check, {len(self.replicated)} replicates: {verdict}",
            f"  all {len(self.names)} statistics together: p = {self.joint_probability:.2g}",
        ]
        for index in shown:
            low, high = np.quantile(self.replicated[:, index], (0.05, 0.95))
            lines.append(
                f"  {self.names[index]:<{width}}  observed {self.observed[index]:.4g}, replicates {low:.4g} to "
                f"{high:.4g} (90%), p = {self.tail_probabilities[index]:.2g}"
            )
        if len(self.names) > _MOST_SHOWN:
            lines.append(f"  and {len(self.names) - _MOST_SHOWN} less extreme ones")
        return "\n".join(lines)


def compare_replicates(
    observed: ArrayLike, replicated: ArrayLike, *, names: Sequence[str] | None = None, level: float = 0.05
) -> PosteriorPredictiveCheck:
    """Where observed statistics lie among those of replicated data: one by one, and all together.

    If the data are one more replicate, each probability is at most a level no more often than the level says. Data that
    the posterior was fitted to are closer to its replicates than that, so the check is cautious: it finds gross
    misfits. It does not test the posterior itself, for which see
    [`simulation_based_calibration`][scoresample.diagnostics.simulation_based_calibration].

    The joint distance uses the shrunken covariance of Ledoit and Wolf of data and replicates together, so it treats
    them alike and stands any number of statistics.

    Arguments:
        observed: shape (statistics,).
        replicated: one row for each draw of the posterior, shape (replicates, statistics).
        names: of the statistics.
        level: the probability that data which are one more replicate fail any check.

    Returns:
        The `PosteriorPredictiveCheck`.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, or `level` is out of range.

    Source: Gelman, Meng and Stern 1996, "Posterior predictive assessment of model fitness via realized discrepancies";
    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".

    Examples:
        >>> import numpy as np
        >>> replicated = np.random.default_rng(0).normal(size=(999, 2))
        >>> compare_replicates(np.array([0.5, -1.0]), replicated).passed
        True
        >>> compare_replicates(np.array([0.5, -9.0]), replicated, names=("mean", "least")).checks[2].passed
        False
    """
    check_level(level)
    observed, replicated = np.asarray(observed, np.float64), np.asarray(replicated, np.float64)
    if observed.ndim != 1 or replicated.ndim != 2 or replicated.shape[1] != len(observed) or 0 in replicated.shape:
        raise ValueError(
            "`observed` and `replicated` must have the shapes (statistics,) and (replicates, statistics), but "
            f"{observed.shape} and {replicated.shape} came."
        )
    for name, values in (("observed", observed), ("replicated", replicated)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"`{name}`: {int(np.sum(~np.isfinite(values)))} statistics are not finite.")
    names, num = checked_names(names, len(observed)), len(replicated)
    above, below = (1 + np.sum(side, axis=0) for side in (replicated >= observed, replicated <= observed))
    tails = np.minimum(1.0, 2 * np.minimum(above, below) / (num + 1))
    distances = _squared_distances(np.vstack([observed, replicated]))
    joint = float(np.mean(distances >= distances[0] * (1 - 1e-9)))
    limits = (level / 2, level / 2 / len(observed))
    if 2 / (num + 1) > limits[1]:
        warnings.warn(
            f"`replicated`: with {num} replicates no single one of {len(observed)} statistics can be told to be off at "
            f"a level of {level:g}; only all together can. Take {replicates_needed(len(observed), level)}, or fewer "
            "statistics.",
            stacklevel=2,
        )
    cause = "Together, the statistics of the data are not like those of data simulated from the posterior's draws."
    checks = [Check("posterior-predictive p-value, joint", joint, limits[0], joint > limits[0], cause, _REMEDY)]
    for index, name in enumerate(names):
        side = "above" if above[index] < below[index] else "below"
        tail = float(tails[index])
        cause = f"The data's {name} of {observed[index]:.4g} lies {side} nearly all replicates."
        checks.append(
            Check(f"posterior-predictive p-value of {name}", tail, limits[1], tail > limits[1], cause, _REMEDY)
        )
    return PosteriorPredictiveCheck(
        names, observed, replicated, tails, float(distances[0]), distances[1:], joint, float(level), checks
    )


def replicates_needed(num_statistics: int, level: float) -> int:
    """The fewest replicates with which each of some statistics can fail its share of a level."""
    return math.ceil(4 * num_statistics / level)


def _squared_distances(rows: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances of rows from their own mean."""
    centred = rows - rows.mean(axis=0)
    spread = centred.std(axis=0)
    centred = centred / np.where(spread > 0, spread, 1.0)
    covariance = LedoitWolf(assume_centered=True).fit(centred)
    return np.asarray(covariance.mahalanobis(centred), np.float64)
