"""R-hat and effective sample size of every quantity, honest about what kind of draws they are."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats

from scoresample.diagnostics._quantities import Values, coordinates, quantities
from scoresample.diagnostics._weights import kish_ess, normalized_weights, sample_shape
from scoresample.inference import Draws

TAIL_PROBABILITY = 0.05
"""Tail ESS looks at the 5% and 95% quantiles: Vehtari et al. (2021), section 4.3."""


_FROZEN = 1e6
"""An R-hat beyond this is the round-off of chains without any variance of their own."""


@dataclass(frozen=True)
class ChainStatistics:
    """How well every quantity of a run is known.

    Attributes:
        names: the quantities.
        r_hat: rank-normalised split R-hat of each, shape (quantities,).
        ess_bulk: bulk ESS of each, shape (quantities,).
        ess_tail: tail ESS of each, shape (quantities,).
    """

    names: tuple[str, ...]
    r_hat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray


def chain_statistics(draws: Draws, *, values: Values | None = None) -> ChainStatistics:
    """R-hat, bulk ESS and tail ESS of every quantity.

    Chains get ArviZ's rank-normalised split R-hat and its ESS. Independent draws have no chains that could
    disagree: their R-hat is nan, and their ESS is their number. Interacting particles have no R-hat either, and
    the number of distinct positions is an upper bound on their ESS. Weights multiply any ESS by Kish's ESS over the
    number of draws.

    Arguments:
        draws: any run.
        values: what `quantities(draws)` gave, if it is at hand.

    Returns:
        The `ChainStatistics`. Whatever cannot be computed (non-finite draws, fewer than four draws, R-hat of a single
        chain) is nan.

    Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), *Rank-normalization, folding, and localization:
    an improved R-hat for assessing convergence of MCMC*, sections 3 and 4, as implemented by ArviZ.

    Examples:
        >>> import jax
        >>> import scoresample as ss
        >>> target = ss.Gaussian(jax.numpy.zeros(2), jax.numpy.eye(2))
        >>> start = jax.numpy.zeros(2)
        >>> draws = ss.sample(target, ss.ULA(step_size=0.5), key=jax.random.key(0), initial_position=start)
        >>> found = chain_statistics(draws)
        >>> found.names, bool(found.r_hat.max() < 1.05)
        (('x[0]', 'x[1]'), True)
    """
    values = quantities(draws) if values is None else values
    r_hat = [rank_r_hat(value) if draws.kind == "chains" else np.nan for value in values.values()]
    return ChainStatistics(
        names=tuple(values),
        r_hat=np.array(r_hat),
        ess_bulk=np.array(list(effective_sizes(draws, values, method="bulk").values())),
        ess_tail=np.array(list(effective_sizes(draws, values, method="tail").values())),
    )


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
    efficiency = 1.0 if draws.log_weights is None else kish_ess(weights) / len(weights)
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
    r_hat = _quietly(array_stats.rhat, value)
    return float("inf") if r_hat > _FROZEN else r_hat


def distinct_positions(draws: Draws) -> int:
    """How many different positions a run holds.

    Resampling copies particles, and copies that have not moved since tell nothing new.

    Arguments:
        draws: any run.
    """
    chains, length = sample_shape(draws)
    return len(np.unique(coordinates(draws).reshape(chains * length, -1), axis=0))


def _quietly(statistic: Callable[..., object], value: np.ndarray, **settings: object) -> float:
    """Evaluate without NumPy's warnings: a quantity that is frozen or not finite gives nan or infinity.

    In double precision: the ranks of ten million draws have none of their own in single, and ESS would be nan.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return float(np.asarray(statistic(np.asarray(value, np.float64), **settings)))
