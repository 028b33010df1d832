"""Means and standard deviations against a reference, each beside its Monte-Carlo standard error."""

from dataclasses import dataclass

import numpy as np

from scoresample.diagnostics._chains import effective_sizes
from scoresample.diagnostics._quantities import Values, quantities
from scoresample.diagnostics._weights import normalized_weights
from scoresample.inference import Draws


@dataclass(frozen=True)
class MomentEstimates:
    """Moments of every quantity of a run; all arrays have the shape (quantities,).

    Attributes:
        names: the quantities.
        mean: their means.
        sd: their standard deviations.
        kurtosis: fourth standardised moments, 3 for a Gaussian.
        ess_mean: effective number of draws behind each mean.
        ess_sd: effective number of draws behind each standard deviation.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    kurtosis: np.ndarray
    ess_mean: np.ndarray
    ess_sd: np.ndarray


@dataclass(frozen=True)
class MomentErrors:
    """Moments of a run against those of a reference; all arrays have the shape (quantities,).

    Attributes:
        names: the quantities that both have.
        mean_error: ``|mean - mean_ref| / sd_ref``; nan where the reference has no spread, as the rest.
        mean_error_se: its Monte-Carlo standard error.
        sd_ratio: ``sd / sd_ref``.
        log_sd_ratio_se: Monte-Carlo standard error of the logarithm of that ratio.
    """

    names: tuple[str, ...]
    mean_error: np.ndarray
    mean_error_se: np.ndarray
    sd_ratio: np.ndarray
    log_sd_ratio_se: np.ndarray


def moment_estimates(draws: Draws, *, values: Values | None = None) -> MomentEstimates:
    """Mean, standard deviation and kurtosis of every quantity, and how well they are known.

    Arguments:
        draws: any run; weights are used.
        values: what `quantities(draws)` gave, if it is at hand.

    Returns:
        The `MomentEstimates`.
    """
    values = quantities(draws) if values is None else values
    weights = normalized_weights(draws)
    mean, sd, kurtosis = np.array([_moments(value.ravel(), weights) for value in values.values()]).T
    return MomentEstimates(
        names=tuple(values),
        mean=mean,
        sd=sd,
        kurtosis=kurtosis,
        ess_mean=np.array(list(effective_sizes(draws, values, method="mean").values())),
        ess_sd=np.array(list(effective_sizes(draws, values, method="sd").values())),
    )


def compare_moments(run: MomentEstimates, reference: MomentEstimates) -> MomentErrors:
    """Standardised error of the mean and ratio of standard deviations, quantity by quantity.

    With r = sd / sd_ref, and n, m the effective sizes of the two sides::

        mean_error    = |mean - mean_ref| / sd_ref,   se^2 = max(r, 1)^2 / n + 1 / m
        log sd_ratio  = log r,                        se^2 = (k - 1) / 4 * (1 / n + 1 / m)

    where k is the larger of the two sample kurtoses: a sample that missed a tail does not know how uncertain its
    standard deviation is.

    Arguments:
        run: what `moment_estimates` gave for the run.
        reference: what it gave for the reference.

    Returns:
        The `MomentErrors`.

    Source: the standard error of log sd is the delta method on ``var(s^2) = (mu_4 - sigma^4) / n``: Cramer (1946),
    *Mathematical Methods of Statistics*, section 27.4; effective sizes as in Vehtari et al. (2021), section 3.

    Examples:
        >>> import numpy as np
        >>> sizes = np.array([400.0])
        >>> truth = MomentEstimates(("mu",), np.zeros(1), np.ones(1), np.full(1, 3.0), sizes, sizes)
        >>> run = MomentEstimates(("mu",), np.full(1, 0.3), np.ones(1), np.full(1, 3.0), sizes, sizes)
        >>> errors = compare_moments(run, truth)
        >>> errors.mean_error, errors.mean_error_se.round(3), errors.log_sd_ratio_se
        (array([0.3]), array([0.071]), array([0.05]))
    """
    names = [name for name in reference.names if name in run.names]
    i, j = ([side.names.index(name) for name in names] for side in (run, reference))
    spread = np.where(reference.sd[j] > 0, reference.sd[j], np.nan)
    ratio = run.sd[i] / spread
    kurtosis = np.maximum(run.kurtosis[i], reference.kurtosis[j])
    return MomentErrors(
        names=tuple(names),
        mean_error=np.abs(run.mean[i] - reference.mean[j]) / spread,
        mean_error_se=np.sqrt(np.maximum(ratio, 1.0) ** 2 / run.ess_mean[i] + 1 / reference.ess_mean[j]),
        sd_ratio=ratio,
        log_sd_ratio_se=np.sqrt((kurtosis - 1) / 4 * (1 / run.ess_sd[i] + 1 / reference.ess_sd[j])),
    )


def _moments(value: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    if not np.all(np.isfinite(value)):
        return float("nan"), float("nan"), float("nan")
    mean = float(np.sum(weights * value))
    centred = value - mean
    variance = float(np.sum(weights * centred**2))
    if variance == 0.0:
        return mean, 0.0, 1.0
    standardised = centred / np.sqrt(variance)
    return mean, float(np.sqrt(variance)), float(np.sum(weights * standardised**4))
