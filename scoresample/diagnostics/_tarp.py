"""Tests of accuracy with random points: expected coverage of balls around references, for the joint posterior."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike
from scipy.linalg import solve_triangular
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import RidgeCV

from scoresample.checks import Check
from scoresample.diagnostics._fractional_ranks import checked_simulations, fractional_ranks
from scoresample.diagnostics._simulation_based_calibration import CALIBRATION_REMEDY
from scoresample.diagnostics._uniformity import EcdfBand, ecdf_band, uniformity_p_value

_STREAM = 230203026
"""Beside the seed: references that share their random numbers with the truths would be no references."""
_PLACING_SHARE = 5
"""One simulation in so many only places references."""
_FEWEST_SIMULATIONS = 20
_PENALTIES = np.geomspace(1e-3, 1e4, 8)
"""Of the ridge regression; cross-validation chooses."""
_ERRORS_PER_DIMENSION = 5
"""Fewer do not tell a covariance, and variances are taken."""
_LEAST_SCATTER = 0.05
"""Of the truths' own spread: a regression on many features may reproduce the truths that it has seen."""
_AREA_DEVIATION = np.sqrt(5 / 12 - 25 / 64)
"""Standard deviation of max(u, 1/2) for u uniform on (0, 1)."""
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True, eq=False)
class TARP:
    """What `tarp` found.

    Attributes:
        credibilities: share of the draws nearer to the reference than the truth, shape (tested,): uniform on (0, 1)
            for a calibrated posterior. Their empirical distribution function is the expected coverage.
        references: the points, in the coordinates of the positions, shape (tested, dimension).
        p_value: of the hypothesis that the credibilities are uniform.
        area: between expected coverage and diagonal for credibilities above a half: positive for too wide a posterior,
            negative for too narrow a one; zero on average for a calibrated posterior.
        area_se: its standard error for a calibrated posterior.
        band: where the expected coverage of a calibrated posterior stays with probability 1 - `level`.
        words: what is wrong, "calibrated" where nothing was found.
        level: the probability that a calibrated posterior fails the check.
        on_observations: whether the references depend on the observations.
        checks: one, the p-value against `level`.
    """

    credibilities: np.ndarray
    references: np.ndarray
    p_value: float
    area: float
    area_se: float
    band: EcdfBand
    words: str
    level: float
    on_observations: bool
    checks: list[Check]

    def coverage(self, credibility: float) -> float:
        """The share of truths in the balls that hold this share of the draws."""
        return float(np.mean(self.credibilities <= credibility))

    def __str__(self) -> str:
        """The test in a line, and what it cannot see."""
        line = (
            f"TARP, joint law: {len(self.credibilities)} simulations, p = {self.p_value:.2g}, area {self.area:+.3f} "
            f"(standard error {self.area_se:.3f}): {self.words}"
        )
        blind = "\n  References ignore the observations: a posterior that returns the prior passes."
        return line if self.on_observations else line + blind


def tarp(
    truths: ArrayLike,
    draws: ArrayLike,
    *,
    conditions: ArrayLike | None = None,
    references: ArrayLike | None = None,
    log_weights: ArrayLike | None = None,
    level: float = 0.05,
    seed: int = 0,
) -> TARP:
    """Test the joint posterior by the distances of truths and draws to random reference points.

    For each simulation, the ball around a reference that reaches to the truth holds a share of the posterior's draws.
    For the right posterior that share is uniform on (0, 1), wherever references are put, as long as they depend on
    nothing but the observation and chance. It is a joint test: it sees wrong correlations between coordinates with
    right marginals.

    **References must depend on the observations to see everything.** A posterior that returns the prior, whatever is
    observed, passes with references that do not: truths and draws then come from one law. With `conditions`, a
    reference is a ridge regression of the truths on the conditions and their squares, plus noise like the regression's
    errors, so that it lies near the posterior's mean. Draws of the prior are then too far from it, and the test sees
    them, unless no linear function of these features tells of the position.

    Distances are Mahalanobis distances in the covariance of these errors, in which draws without the right correlations
    lie too far out. In many dimensions, with too few simulations for a covariance, it is that of the variances alone,
    and the test says less of correlations.

    The first fifth of the simulations only places references and measures errors, and is not tested: the null is exact.
    With `references` of your own all are tested; coordinates are then scaled by the references' own spread.

    Arguments:
        truths: shape (simulations, dimension).
        draws: shape (simulations, draws, dimension), independent given the observation.
        conditions: observations, shape (simulations, features), for references that depend on them.
        references: points of your own, shape (simulations, dimension), in place of that. They may depend on the
            observations and on chance, never on truths or draws.
        log_weights: shape (simulations, draws), or None where all draws count alike.
        level: the probability that a calibrated posterior fails the check.
        seed: seed of the references and of the numbers that break ties.

    Returns:
        The `TARP`.

    Raises:
        ValueError: if the shapes do not match, a number is not finite, there are fewer than 20 simulations, or `level`
            is out of range.

    Source: Lemos, Coogan, Hezaveh and Perreault-Levasseur 2023, arXiv 2302.03026, section 3, with the null of
    Säilynoja, Bürkner and Vehtari 2022, arXiv 2103.10522.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> theta = rng.normal(size=(500, 2))
        >>> observed = theta + 0.3 * rng.normal(size=(500, 2))
        >>> prior = rng.normal(size=(500, 100, 2))
        >>> tarp(theta, prior).words, tarp(theta, prior, conditions=observed).words
        ('calibrated', 'over-dispersed (too wide) or wrong in its correlations')
    """
    truths, draws = checked_simulations(truths, draws)
    num = len(truths)
    if num < _FEWEST_SIMULATIONS:
        raise ValueError(f"`truths`: {num} simulations are too few to place and test; {_FEWEST_SIMULATIONS} will do.")
    if conditions is not None and references is not None:
        raise ValueError("`conditions` place references: pass them, or `references` of your own, not both.")
    generator = np.random.default_rng((seed, _STREAM))
    if references is not None:
        points = _matrix("references", references, num, truths.shape[1])
        first, scale = 0, points.std(axis=0)
        root = np.diag(np.where(scale > 0, scale, 1.0))
    else:
        first = num // _PLACING_SHARE
        centre, root = _centres(truths[:first], conditions, num)
        points = centre + generator.normal(size=truths.shape) @ root.T
    tested = slice(first, num)
    to_truth = _distances(truths[tested] - points[tested], root)
    to_draws = np.stack(
        [_distances(some - point, root) for some, point in zip(draws[tested], points[tested], strict=True)]
    )
    weights = None if log_weights is None else np.asarray(log_weights)[tested]
    shares = fractional_ranks(to_truth[:, None], to_draws[:, :, None], log_weights=weights, seed=seed)[:, 0]
    p_value, band = uniformity_p_value(shares), ecdf_band(len(shares), level)
    area, error = 0.625 - float(np.mean(np.maximum(shares, 0.5))), float(_AREA_DEVIATION / np.sqrt(len(shares)))
    passed = p_value > level
    words = "calibrated" if passed else _words(area / error)
    check = Check(
        "TARP p-value, joint law",
        p_value,
        level,
        passed,
        f"The joint posterior is {words}: balls around the references that hold 90% of its draws hold "
        f"{np.mean(shares <= 0.9):.1%} of the truths.",
        CALIBRATION_REMEDY,
    )
    on_observations = conditions is not None or references is not None
    return TARP(shares, points[tested], p_value, area, error, band, words, float(level), on_observations, [check])


def _words(standard_errors: float) -> str:
    if abs(standard_errors) < _STANDARD_ERRORS:
        return "wrong in shape, place or correlations"
    if standard_errors > 0:
        return "over-dispersed (too wide) or wrong in its correlations"
    return "under-dispersed (too narrow) or shifted"


def _matrix(name: str, values: ArrayLike, num: int, columns: int | None = None) -> np.ndarray:
    matrix = np.asarray(values, np.float64)
    fits = matrix.ndim == 2 and len(matrix) == num and columns in (None, matrix.shape[1]) and matrix.size > 0
    if not fits or not np.all(np.isfinite(matrix)):
        wanted = "features" if columns is None else columns
        raise ValueError(
            f"`{name}` must be finite and have the shape ({num}, {wanted}), one row for each simulation, but "
            f"{matrix.shape} came."
        )
    return matrix


def _centres(truths: np.ndarray, conditions: ArrayLike | None, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Where references gather, shape (num, dimension), and a root of the covariance of their scatter."""
    truths = np.asarray(truths, np.float64)
    if conditions is None:
        centre = np.broadcast_to(truths.mean(axis=0), (num, truths.shape[1]))
        return centre, _root(truths - truths.mean(axis=0), truths.std(axis=0))
    matrix = _matrix("conditions", conditions, num)
    fitted = matrix[: len(truths)]
    spread = fitted.std(axis=0)
    # Beyond where the regression saw conditions, their squares run away.
    standard = np.clip((matrix - fitted.mean(axis=0)) / np.where(spread > 0, spread, 1.0), -4.0, 4.0)
    features = np.concatenate([standard, standard**2], axis=1)
    regression = RidgeCV(alphas=_PENALTIES).fit(features[: len(truths)], truths)
    centres = regression.predict(features).reshape(num, -1)
    return centres, _root(truths - centres[: len(truths)], truths.std(axis=0))


def _root(errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """A triangular root of the covariance of errors, of their variances alone where there are too few for more."""
    least = np.where(spread > 0, _LEAST_SCATTER * spread, 1.0)
    scale = np.maximum(errors.std(axis=0), least)
    if errors.shape[1] > len(errors) // _ERRORS_PER_DIMENSION:
        return np.diag(scale)
    return scale[:, None] * np.linalg.cholesky(LedoitWolf(assume_centered=True).fit(errors / scale).covariance_)


def _distances(differences: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Mahalanobis distances, shape (n,)."""
    if differences.shape[1] > 1 and np.any(np.tril(root, -1)):
        return np.linalg.norm(solve_triangular(root, differences.T, lower=True), axis=0)
    return np.linalg.norm(differences / np.diag(root), axis=1)
