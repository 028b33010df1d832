"""R-hat and effective sample size of every quantity, honest about what kind of draws they are."""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from scoresample.diagnostics._quantities import Values, coordinates, quantities
from scoresample.diagnostics._weights import kish_ess, normalized_weights, sample_shape
from scoresample.inference import Draws

TAIL_PROBABILITY = 0.05
"""Tail ESS looks at the 5% and 95% quantiles: Vehtari et al. (2021), section 4.3."""


def chain_statistics(draws: Draws, *, values: Values | None = None) -> pd.DataFrame:
    """R-hat, bulk ESS and tail ESS of every quantity.

    Chains get ArviZ's rank-normalised split R-hat and its ESS. Independent draws have no chains that could
    disagree: their R-hat is nan, and their ESS is their number. Interacting particles have no R-hat either, and
    the number of distinct positions is an upper bound on their ESS. Weights multiply any ESS by Kish's ESS over the
    number of draws.

    Arguments:
        draws: any run.
        values: what `quantities(draws)` gave, if it is at hand.

    Returns:
        A table with one row a quantity and the columns ``r_hat``, ``ess_bulk``, ``ess_tail``. Whatever cannot be
        computed (non-finite draws, fewer than four draws, R-hat of a single chain) is nan.

    Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), *Rank-normalization, folding, and localization:
    an improved R-hat for assessing convergence of MCMC*, sections 3 and 4, as implemented by ArviZ.
    """
    values = quantities(draws) if values is None else values
    table = {
        "r_hat": {name: rank_r_hat(value) if draws.kind == "chains" else np.nan for name, value in values.items()},
        "ess_bulk": effective_sizes(draws, values, method="bulk"),
        "ess_tail": effective_sizes(draws, values, method="tail"),
    }
    return pd.DataFrame(table, index=pd.Index(list(values), name="quantity"), dtype=np.float64)


def effective_sizes(draws: Draws, values: Values, *, method: str = "bulk") -> dict[str, float]:
    """How many independent draws would estimate each quantity as well.

    Arguments:
        draws: the run that the quantities belong to.
        values: quantities of that run, each of shape (chain, draw).
        method: ArviZ's name of what is estimated: "bulk", "tail", "mean" or "sd". It matters for chains only.

    Returns:
        One number a quantity, at most the number of draws (negatively correlated draws could count for more, but
        only in the estimate of a mean); nan where a quantity is not finite or too short.
    """
    weights = normalized_weights(draws)
    efficiency = kish_ess(weights) / len(weights)
    if draws.kind == "chains":
        probability = {"prob": TAIL_PROBABILITY} if method == "tail" else {}
        bases = {
            name: min(_quietly(array_stats.ess, value, method=method, **probability), float(value.size))
            for name, value in values.items()
        }
    else:
        base = float(len(weights) if draws.kind == "independent" else distinct_positions(draws))
        bases = {name: base if np.all(np.isfinite(value)) else float("nan") for name, value in values.items()}
    return {name: base * efficiency for name, base in bases.items()}


def rank_r_hat(value: np.ndarray) -> float:
    """ArviZ's rank-normalised split R-hat.

    Arguments:
        value: an array of shape (chain, draw).

    Returns:
        A number near 1 if the chains agree; infinite if every chain is frozen at a place of its own; nan for one
        chain, for fewer than four draws, and where nothing moved at all.

    Source: Vehtari et al. (2021), sections 4.1 and 4.2: the larger of the rank-normalised and the folded split R-hat.

    Examples:
        >>> import numpy as np
        >>> chains = np.random.default_rng(0).normal(size=(4, 500))
        >>> rank_r_hat(chains) < 1.01, rank_r_hat(chains + 3 * np.arange(4)[:, None]) > 1.5
        (True, True)
    """
    return _quietly(array_stats.rhat, value)


def distinct_positions(draws: Draws) -> int:
    """How many different positions a run holds.

    Resampling copies particles, and copies that have not moved since tell nothing new.

    Arguments:
        draws: any run.
    """
    chains, length = sample_shape(draws)
    return len(np.unique(coordinates(draws).reshape(chains * length, -1), axis=0))


def _quietly(statistic: Callable[..., object], value: np.ndarray, **settings: object) -> float:
    """Evaluate without NumPy's warnings: a quantity that is frozen or not finite gives nan or infinity."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(np.asarray(statistic(value, **settings)))
