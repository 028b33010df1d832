"""Means and standard deviations against a reference, each beside its Monte-Carlo standard error."""

import numpy as np
import pandas as pd

from scoresample.diagnostics._chains import effective_sizes
from scoresample.diagnostics._quantities import Values, quantities
from scoresample.diagnostics._weights import normalized_weights
from scoresample.inference import Draws


def moment_estimates(draws: Draws, *, values: Values | None = None) -> pd.DataFrame:
    """Mean, standard deviation and kurtosis of every quantity, and how well they are known.

    Arguments:
        draws: any run; weights are used.
        values: what `quantities(draws)` gave, if it is at hand.

    Returns:
        A table with one row a quantity and the columns ``mean``, ``sd``, ``kurtosis`` (3 for a Gaussian),
        ``ess_mean`` and ``ess_sd``.
    """
    values = quantities(draws) if values is None else values
    weights = normalized_weights(draws)
    rows = {name: _moments(value.ravel(), weights) for name, value in values.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "kurtosis"], dtype=np.float64)
    table.index.name = "quantity"
    table["ess_mean"] = pd.Series(effective_sizes(draws, values, method="mean"))
    table["ess_sd"] = pd.Series(effective_sizes(draws, values, method="sd"))
    return table


def compare_moments(estimates: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Standardised error of the mean and ratio of standard deviations, quantity by quantity.

    With r = sd / sd_ref, and n, m the effective sizes of the two sides::

        mean_error    = |mean - mean_ref| / sd_ref,   se^2 = max(r, 1)^2 / n + 1 / m
        log_sd_ratio  = log r,                        se^2 = (k - 1) / 4 * (1 / n + 1 / m)

    where k is the larger of the two sample kurtoses: a sample that missed a tail does not know how uncertain its
    standard deviation is.

    Arguments:
        estimates: what `moment_estimates` gave for the run.
        reference: what it gave for the reference.

    Returns:
        A table with one row for every quantity in both, and the columns ``mean_error``, ``mean_error_se``,
        ``sd_ratio``, ``log_sd_ratio_se``. Quantities without spread in the reference are nan.

    Source: the standard error of log sd is the delta method on ``var(s^2) = (mu_4 - sigma^4) / n``: Cramer (1946),
    *Mathematical Methods of Statistics*, section 27.4; effective sizes as in Vehtari et al. (2021), section 3.

    Examples:
        >>> import pandas as pd
        >>> columns = ["mean", "sd", "kurtosis", "ess_mean", "ess_sd"]
        >>> run = pd.DataFrame([[0.3, 1.0, 3.0, 400, 400]], index=["mu"], columns=columns)
        >>> truth = pd.DataFrame([[0.0, 1.0, 3.0, 400, 400]], index=["mu"], columns=columns)
        >>> compare_moments(run, truth).round(3).loc["mu"].to_dict()
        {'mean_error': 0.3, 'mean_error_se': 0.071, 'sd_ratio': 1.0, 'log_sd_ratio_se': 0.05}
    """
    names = [name for name in reference.index if name in estimates.index]
    run, truth = estimates.loc[names], reference.loc[names]
    spread = truth["sd"].where(truth["sd"] > 0)
    ratio = run["sd"] / spread
    kurtosis = np.maximum(run["kurtosis"], truth["kurtosis"])
    return pd.DataFrame(
        {
            "mean_error": (run["mean"] - truth["mean"]).abs() / spread,
            "mean_error_se": np.sqrt(np.maximum(ratio, 1.0) ** 2 / run["ess_mean"] + 1 / truth["ess_mean"]),
            "sd_ratio": ratio,
            "log_sd_ratio_se": np.sqrt((kurtosis - 1) / 4 * (1 / run["ess_sd"] + 1 / truth["ess_sd"])),
        }
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
