"""Mode weights: which fraction of the draws lies nearest to each mode, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from scoresample.diagnostics._chains import effective_sizes
from scoresample.diagnostics._distances import pairwise_distances
from scoresample.diagnostics._quantities import coordinates
from scoresample.diagnostics._weights import normalized_weights
from scoresample.inference import Draws


@dataclass(frozen=True)
class ModeWeights:
    """Fractions of draws by nearest mode.

    Attributes:
        fractions: weight found on each mode, shape (modes,); they sum to one.
        ess: effective size behind each fraction, shape (modes,).
    """

    fractions: np.ndarray
    ess: np.ndarray

    @property
    def standard_errors(self) -> np.ndarray:
        """Monte-Carlo standard errors, shape (modes,).

        Half a draw is added to each side, so that an empty mode has an error too.
        """
        shrunk = (self.fractions * self.ess + 0.5) / (self.ess + 1)
        return np.sqrt(shrunk * (1 - shrunk) / self.ess)

    def z_scores(self, expected: "np.ndarray | ModeWeights") -> np.ndarray:
        """How many standard errors each fraction is from what it should be.

        Arguments:
            expected: the true weights, shape (modes,), or the mode weights of a reference.

        Returns:
            ``(p - q) / se`` of shape (modes,), with the standard error under the hypothesis that they are equal:
            ``q (1 - q) / n`` for true weights, ``r (1 - r) (1 / n + 1 / m)`` with the pooled fraction r for a
            reference. A mode that neither side has visited has the z-score 0.

        Source: score test of one and of two proportions: Agresti (2013), *Categorical Data Analysis*, sections 1.4
        and 3.1.
        """
        if isinstance(expected, ModeWeights):
            target = expected.fractions
            pooled = (self.ess * self.fractions + expected.ess * target) / (self.ess + expected.ess)
            variance = pooled * (1 - pooled) * (1 / self.ess + 1 / expected.ess)
        else:
            target = np.asarray(expected, dtype=np.float64)
            variance = target * (1 - target) / self.ess
        difference = self.fractions - target
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(difference == 0, 0.0, difference / np.sqrt(variance))


def mode_weights(
    positions: np.ndarray, centres: np.ndarray, *, weights: np.ndarray | None = None, ess: float | int | None = None
) -> ModeWeights:
    """Fraction of positions whose nearest centre, in Euclidean distance, is each of the centres.

    Arguments:
        positions: draws of shape (n, dimension).
        centres: one point in each mode, shape (modes, dimension).
        weights: importance weights of shape (n,), equal if None.
        ess: effective number of draws, for the standard errors; n if None.

    Returns:
        The `ModeWeights`.

    Raises:
        ValueError: if the shapes do not fit.

    Examples:
        >>> import numpy as np
        >>> found = mode_weights(np.array([[-1.0], [1.1], [0.9], [1.0]]), np.array([[-1.0], [1.0]]))
        >>> found.fractions
        array([0.25, 0.75])
        >>> found.z_scores(np.array([0.5, 0.5]))
        array([-1.,  1.])
    """
    nearest = nearest_mode(positions, centres)
    weights = np.ones(len(nearest)) if weights is None else np.asarray(weights, dtype=np.float64)
    fractions = np.bincount(nearest, weights=weights, minlength=len(centres)) / np.sum(weights)
    return ModeWeights(fractions, np.full(len(centres), float(len(nearest) if ess is None else ess)))


def draws_mode_weights(draws: Draws, centres: np.ndarray) -> ModeWeights:
    """Mode weights of a run: its own weights, and for each mode the ESS of being in it.

    Arguments:
        draws: any run with finite positions.
        centres: one position in each mode, shape (modes, dimension), in the order of `coordinates`.

    Returns:
        The `ModeWeights`. Chains that rarely change modes have a small ESS and a wide error, however many draws
        they hold; chains that share one mode and never leave it cannot know, and count in full.
    """
    flat = coordinates(draws)
    nearest = nearest_mode(flat.reshape(-1, flat.shape[-1]), centres).reshape(flat.shape[:2])
    visits = {str(index): (nearest == index).astype(np.float64) for index in range(len(centres))}
    ess = np.array(list(effective_sizes(draws, visits, method="mean").values()))
    fractions = np.bincount(nearest.ravel(), weights=normalized_weights(draws), minlength=len(centres))
    return ModeWeights(fractions, ess)


def total_variation(fractions: np.ndarray, expected: np.ndarray) -> float:
    """Half the sum of absolute differences: the weight that would have to move to another mode."""
    return float(0.5 * np.sum(np.abs(np.asarray(fractions) - np.asarray(expected))))


def nearest_mode(positions: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Index of the nearest centre, shape (n,)."""
    positions, centres = np.asarray(positions, dtype=np.float64), np.asarray(centres, dtype=np.float64)
    if centres.ndim != 2 or positions.ndim != 2 or centres.shape[1] != positions.shape[1] or len(centres) == 0:
        raise ValueError(
            "`positions` and `centres` must have the shapes (n, dimension) and (modes, dimension), but "
            f"{positions.shape} and {centres.shape} came."
        )
    origin = centres.mean(axis=0)
    return np.argmin(pairwise_distances(positions - origin, centres - origin), axis=1)
