"""Chains that do not cross between regions whose shares are known from weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.cluster.vq import kmeans2

from scoresample.checks import Check
from scoresample.diagnostics import kish_ess, normalized_weights, pareto_smoothed
from scoresample.inference import Draws
from scoresample.samplers import chain_memory

_NUMBERS = (2, 4, 8, 16)
"""Of regions, from few to many: with more of them chains have less to forget, and more shares have to be known."""
_LEAST_ESS, _LEAST_SHARE = 1000.0, 0.1
"""Of the effective size, in all and in the number of draws: fewer leave the shares of regions to a few draws."""
_MOST_MEMORY = 0.2
"""Within regions; what the check of chains that cross everywhere asks for."""
_MOST_WRONG = 0.05
"""Total variation that wrong shares may leave."""
_FEWEST_CHAINS = 50
"""In a region, so that its mean and scale are its own and not those of the chains that are looked at."""


class _Memory(NamedTuple):
    """How many regions were looked at, what chains remember within them, and how wrong their shares may be."""

    number: int
    bound: float
    wrong: float


def regional_checks(
    draws: Draws, ancestors: np.ndarray, starts: np.ndarray, snapshots: tuple[np.ndarray, ...], key: Array
) -> list[Check] | None:
    """Two checks in the place of that of the chains' memory, where both are passed; None where they are not.

    Let ``c`` be the region of a start. If the law of a chain's end depends on its start through c alone, chains from
    the shares ``a_c`` end with the law ``sum_c a_c P_c``, and the target, which the moves leave invariant, is
    ``sum_c p_c P_c`` with its own shares ``p_c``. The two differ by at most ``sum_c |a_c - p_c| / 2`` in total
    variation, whether chains cross between regions or not, and however regions are cut. So chains need to forget only
    where in their region they were; what they were resampled by has to know the shares. It knows them up to

    * the spread of self-normalised weights, ``sum w_i^2 (1_c(x_i) - a_c)^2`` (weights of sum 1) for each share, whose
      root times sqrt(2/pi) is the mean error;
    * what is beyond the largest weight. Under the tail of a Pareto law of shape k, n draws leave out about
      ``max w/(1 - k)`` of the mass: the expectation of what the weight at the exceedance 1/n or a larger one carries.
      It is infinite from k = 1 on.

    Regions are found by k-means among the starts. Memory is that of `chain_memory` with the mean and scale of every
    region taken out, of coordinates and of their squares. A region without draws is no part of this, as anywhere.

    Arguments:
        draws: the weighted draws that chains started from.
        ancestors: which draw each chain started from, (n,).
        starts: where in coordinates of unit covariance, (n, d).
        snapshots: where the chains were at three later times, each (n, d).
        key: random key.
    """
    if draws.kind != "independent" or draws.log_weights is None:
        return None
    weights = normalized_weights(draws)
    tail = pareto_smoothed(np.asarray(draws.log_weights, np.float64).ravel())
    ess = kish_ess(weights)
    if not (tail.pareto_k < 1 and ess >= _LEAST_ESS and ess >= _LEAST_SHARE * len(weights)):
        return None
    beyond = float(weights.max()) / (1 - max(tail.pareto_k, 0.0))
    found = None
    for number in _NUMBERS:
        labels = kmeans2(starts, number, minit="++", rng=np.random.default_rng(number), missing="warn")[1]
        counts = np.bincount(labels, minlength=number)
        wrong = beyond + 0.5 * float(np.sum(np.sqrt(2 / np.pi) * _errors_of_shares(weights[ancestors], labels, number)))
        if counts.min() < _FEWEST_CHAINS or wrong > _MOST_WRONG:
            break
        bound = float(_bound(tuple(_within(x, labels, number) for x in snapshots), key))
        found = _Memory(number, bound, wrong)
        if bound <= _MOST_MEMORY:
            return _checks(found)
    return None


def _errors_of_shares(weights: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Standard errors of the weighted shares; the chains, resampled by the weights, make up one factor of them."""
    inside = labels[:, None] == np.arange(number)
    return np.sqrt(np.mean(weights[:, None] * (inside - inside.mean(axis=0)) ** 2, axis=0))


def _within(points: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Coordinates and their squares, with the mean and the scale of each region taken out."""
    rows = _standardised(np.asarray(points, np.float64), labels, number)
    return np.concatenate([rows, _standardised(rows**2, labels, number)], axis=1)


def _standardised(rows: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=number)[:, None]
    inside = (labels == np.arange(number)[:, None]).astype(np.float64)
    centred = rows - ((inside @ rows) / counts)[labels]
    scale = np.sqrt(inside @ centred**2 / counts)
    return centred / np.where(scale > 0, scale, 1.0)[labels]


_bound: Callable[..., Any] = eqx.filter_jit(
    lambda snapshots, key: chain_memory(jax.tree.map(jnp.asarray, snapshots), same_law=True, key=key).bound
)


def _checks(found: _Memory) -> list[Check]:
    return [
        Check(
            f"memory of the short chains within {found.number} regions",
            found.bound,
            _MOST_MEMORY,
            True,
            "Chains remember where in their region they were.",
            "Raise `num_steps`.",
        ),
        Check(
            f"error of the shares of {found.number} regions",
            found.wrong,
            _MOST_WRONG,
            True,
            "Chains do not cross between regions, and the weights do not know their shares.",
            "Draw more.",
        ),
    ]
