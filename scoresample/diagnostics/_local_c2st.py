"""The local classifier two-sample test: whether a posterior is right at one observation."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from scoresample.checks import Check
from scoresample.diagnostics._fractional_ranks import checked_weights
from scoresample.diagnostics._simulation_based_calibration import CALIBRATION_REMEDY

_STREAM = 230603580
"""Beside the seed, so that swaps are independent of the simulations."""
_UNITS_PER_DIMENSION = 10
_PASSES = 60
_LEARNING_RATE = 5e-3
_PENALTY = 0.1
"""Weight decay. Of settings with early stopping and other decays (600 simulations in one dimension, a posterior off by
1.4 standard deviations where x < 0), this found every wrong observation, and its null was widest at right ones: they
are near enough to wrong ones for a smooth network to be a little off there too."""


@dataclass(frozen=True, eq=False)
class LocalC2ST:
    """What `local_c2st` found, for each observation.

    Attributes:
        statistics: mean of ``(p - 1/2)^2`` over the posterior's draws, p the classifier's probability that a draw comes
            from the posterior under test; shape (observations,). Zero for a right posterior and a perfect classifier.
        null: the same by classifiers trained on swapped labels, shape (permutations, observations).
        p_values: share of the null that is at least as large, the statistic itself counted in, shape (observations,).
        probabilities: the classifier's, for every draw, shape (observations, draws): above a half where the posterior
            has too much mass, below where it has too little.
        level: the probability that a posterior that is right everywhere fails any of the checks.
        checks: one for each observation: its p-value against `level` divided by the number of observations.
    """

    statistics: np.ndarray
    null: np.ndarray
    p_values: np.ndarray
    probabilities: np.ndarray
    level: float
    checks: list[Check]

    def __str__(self) -> str:
        """A line for each observation."""
        rows = zip(self.statistics, np.quantile(self.null, 0.95, axis=0), self.p_values, strict=True)
        lines = [f"Local C2ST with {len(self.null)} permutations"]
        for index, (value, limit, p_value) in enumerate(rows):
            lines.append(f"  observation {index}: {value:.3g} (95% of the null below {limit:.3g}), p = {p_value:.2g}")
        return "\n".join(lines)


def local_c2st(
    truths: ArrayLike,
    conditions: ArrayLike,
    draws: ArrayLike,
    *,
    observed: ArrayLike,
    observed_draws: ArrayLike,
    log_weights: ArrayLike | None = None,
    num_permutations: int = 40,
    level: float = 0.05,
    seed: int = 0,
) -> LocalC2ST:
    """Test a posterior at single observations, by a classifier that was trained over all of them.

    A network learns to tell pairs (draw, observation) of the posterior under test from pairs (truth, observation) of
    the simulator. At one observation it is then asked about the posterior's draws alone, so no draws of the right
    posterior are needed there: if the posterior is right, it answers a half.

    The null is a permutation test. Both members of a pair share their observation, so under the hypothesis that the
    posterior is right everywhere their labels can be swapped; networks are trained on pairs swapped at random. The
    smallest p-value is ``1 / (num_permutations + 1)``. The hypothesis is that the posterior is right everywhere: a
    smooth network that has learned of an error at other observations may reject at a right one too, with a far
    smaller statistic. Compare the statistics, not the p-values alone.

    The power is that of the network on this many simulations: that nothing is found says little with a few hundred.

    Arguments:
        truths: shape (simulations, dimension).
        conditions: their observations, shape (simulations, features).
        draws: one draw of each simulation's posterior, shape (simulations, dimension).
        observed: the observations to test at, shape (observations, features).
        observed_draws: of the posteriors given these, shape (observations, draws, dimension).
        log_weights: of `observed_draws`, shape (observations, draws), or None where all count alike.
        num_permutations: how many networks make the null; each is trained anew.
        level: the probability that a right posterior fails any check.
        seed: seed of the networks and of the swaps.

    Returns:
        The `LocalC2ST`.

    Raises:
        ValueError: if shapes do not match, a number is not finite, or there are too few permutations for the level.

    Source: Linhart, Gramfort and Rodrigues 2023, arXiv 2306.03580, section 3, the statistic of the single class.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, noise = rng.normal(size=(300, 1)), rng.normal(size=(2, 300, 1))
        >>> found = local_c2st(
        ...     x + noise[0],
        ...     x,
        ...     x + noise[1],
        ...     observed=np.zeros((1, 1)),
        ...     observed_draws=rng.normal(size=(1, 200, 1)),
        ...     num_permutations=19,
        ... )
        >>> found.null.shape, bool(found.p_values[0] >= 0.05)
        ((19, 1), True)
    """
    truths, draws = _matrix("truths", truths), _matrix("draws", draws)
    conditions, observed = _matrix("conditions", conditions), _matrix("observed", observed)
    there = np.asarray(observed_draws, np.float64)
    if truths.shape != draws.shape or len(conditions) != len(truths):
        raise ValueError(
            "`truths`, `draws` and `conditions` must have one row for each simulation, and the first two one "
            f"dimension, but {truths.shape}, {draws.shape} and {conditions.shape} came."
        )
    shapes = (observed.shape[1], there.ndim, there.shape[0], there.shape[-1])
    if shapes != (conditions.shape[1], 3, len(observed), truths.shape[1]) or not np.all(np.isfinite(there)):
        raise ValueError(
            f"`observed` and `observed_draws` must be finite and have the shapes (observations, {conditions.shape[1]}) "
            f"and (observations, draws, {truths.shape[1]}), but {observed.shape} and {there.shape} came."
        )
    limit = level / len(observed)
    if not 1 / (num_permutations + 1) <= limit < 1:
        raise ValueError(
            f"`num_permutations`: {num_permutations} networks cannot give p-values down to {limit:.3g}, the level "
            f"divided by the number of observations. Take at least {int(np.ceil(1 / limit)) - 1}."
        )
    counts = (len(observed), there.shape[1])
    weights = np.full(counts, 1 / counts[1]) if log_weights is None else checked_weights(log_weights, counts)
    standard = _Standardised.of(truths, conditions)
    pairs = standard.rows(np.stack([draws, truths]), conditions)
    asked = standard.rows(there.transpose(1, 0, 2), observed).transpose(1, 0, 2)
    generator = np.random.default_rng((seed, _STREAM))
    probabilities = _probabilities(pairs, asked, seed)
    null = np.empty((num_permutations, len(observed)))
    for index in range(num_permutations):
        swap = generator.random((1, len(truths), 1)) < 0.5
        swapped = np.where(swap, pairs[::-1], pairs)
        null[index] = _statistics(_probabilities(swapped, asked, seed), weights)
    statistics = _statistics(probabilities, weights)
    p_values = (1 + np.sum(null >= statistics, axis=0)) / (num_permutations + 1)
    checks = [
        Check(
            f"local C2ST p-value at observation {index}",
            float(p_value),
            limit,
            bool(p_value > limit),
            "A classifier tells the posterior's draws at this observation from the truths of similar ones.",
            CALIBRATION_REMEDY,
        )
        for index, p_value in enumerate(p_values)
    ]
    return LocalC2ST(statistics, null, p_values, probabilities, float(level), checks)


@dataclass(frozen=True)
class _Standardised:
    """Positions and conditions side by side, in units of their own spreads."""

    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, conditions: np.ndarray) -> "_Standardised":
        both = np.concatenate([positions, conditions], axis=1)
        spread = both.std(axis=0)
        return cls(both.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def rows(self, positions: np.ndarray, conditions: np.ndarray) -> np.ndarray:
        """Shape (groups, n, dimension + features) from (groups, n, dimension) and (n, features)."""
        tiled = np.broadcast_to(conditions, (len(positions), *conditions.shape))
        return (np.concatenate([positions, tiled], axis=2) - self.centre) / self.spread


def _probabilities(pairs: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """The probabilities of class 1, the posterior under test, by a network trained on (posterior, simulator) pairs."""
    columns = pairs.shape[2]
    network = MLPClassifier(
        hidden_layer_sizes=(_UNITS_PER_DIMENSION * columns, _UNITS_PER_DIMENSION * columns),
        alpha=_PENALTY,
        learning_rate_init=_LEARNING_RATE,
        max_iter=_PASSES,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(pairs.reshape(-1, columns), np.repeat([1, 0], pairs.shape[1]))
    return np.asarray(network.predict_proba(asked.reshape(-1, columns)))[:, 1].reshape(asked.shape[:2])


def _statistics(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sum(weights * (probabilities - 0.5) ** 2, axis=1)


def _matrix(name: str, values: ArrayLike) -> np.ndarray:
    matrix = np.asarray(values, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape or not np.all(np.isfinite(matrix)):
        raise ValueError(f"`{name}` must be a finite matrix with one row for each case, but {matrix.shape} came.")
    return matrix
