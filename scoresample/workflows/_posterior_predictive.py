"""Posterior-predictive checks of draws: simulate from them, and compare with what was observed."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from scoresample.diagnostics import (
    PosteriorPredictiveCheck,
    compare_replicates,
    normalized_weights,
    replicates_needed,
    systematic_resample,
)
from scoresample.inference import Draws, check_count, check_key
from scoresample.scores import Position, named_sites

_FEWEST_REPLICATES, _REPLICATES, _MOST_REPLICATES = 50, 1000, 20_000


def posterior_predictive_check(
    draws: Draws,
    simulator: Callable[[Array, Position], PyTree],
    observed: PyTree,
    *,
    key: Array,
    statistics: Callable[[PyTree], Mapping[str, Array]] | None = None,
    num_replicates: int | None = None,
    level: float = 0.05,
) -> PosteriorPredictiveCheck:
    """Simulate data from draws of a posterior, and compare them with what was observed.

    Draws are taken evenly from all, or resampled by their weights where they have some, one for each replicate. The
    data were used for the posterior, so the check is cautious: it finds what the model cannot make at all.

    Arguments:
        draws: of the posterior given `observed`.
        simulator: (key, position) -> one observation, in JAX. Positions are those of the draws, in the space the
            sampler moved in; ``draws.constrain(position)`` names their sites.
        observed: one observation, a tree of arrays like the simulator's.
        key: random key.
        statistics: observation -> named scalars or arrays to compare; by default every number of the observation.
        num_replicates: how many data sets to simulate, at least 50; from fewer draws some are used again. By default
            1,000, or as many (up to 20,000) as it takes for every statistic to be able to fail its share of the level.
        level: the probability that data which are one more replicate fail any check.

    Returns:
        The [`PosteriorPredictiveCheck`][scoresample.PosteriorPredictiveCheck].

    Raises:
        TypeError: if `draws` are no Draws, or `statistics` returns no dictionary.
        ValueError: if the observation's shapes are not those of the simulator, or a statistic is not finite.

    Source: Gelman, Meng and Stern 1996, "Posterior predictive assessment of model fitness via realized discrepancies".

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> draws = ss.exact_draws(ss.Gaussian(jnp.zeros(1), 0.1), key=jax.random.key(0))
        >>> def simulator(key, theta):
        ...     return theta + jax.random.normal(key, (20,))
        >>> def spread(x):
        ...     return {"mean": x.mean(), "standard deviation": x.std()}
        >>> observed = 3 * jax.random.normal(jax.random.key(1), (20,))
        >>> found = ss.posterior_predictive_check(draws, simulator, observed, key=jax.random.key(2), statistics=spread)
        >>> [check.passed for check in found.checks]
        [False, True, False]
    """
    if not isinstance(draws, Draws):
        raise TypeError(f"`draws` must be Draws, got {type(draws).__name__}. `sample` returns them.")
    show = named_sites if statistics is None else statistics
    shown = len(_rows(show, jax.tree.map(lambda x: jnp.asarray(x)[None], observed))[0])
    if num_replicates is None:
        num_replicates = min(max(_REPLICATES, replicates_needed(shown, level)), _MOST_REPLICATES)
    num = check_count("num_replicates", num_replicates, _FEWEST_REPLICATES, "Fewer cannot give small probabilities.")
    key = check_key(key)
    chosen = systematic_resample(normalized_weights(draws), num, seed=int(jax.random.bits(key)))
    positions = jax.tree.map(lambda x: jnp.asarray(np.asarray(x).reshape(-1, *x.shape[2:])[chosen]), draws.position)
    replicated = _simulate(simulator, jax.random.split(key, num), positions)
    one = jax.tree.map(np.shape, observed)
    simulated = jax.tree.map(lambda x: x.shape[1:], replicated)
    if one != simulated:
        raise ValueError(f"`observed` has the shapes {one}, but `simulator` makes {simulated}. Pass one observation.")
    names, rows = _rows(show, replicated)
    _, observed_row = _rows(show, jax.tree.map(lambda x: jnp.asarray(x)[None], observed))
    return compare_replicates(observed_row[0], rows, names=names, level=level)


@eqx.filter_jit
def _simulate(simulator: Callable[[Array, Position], PyTree], keys: Array, positions: Position) -> PyTree:
    return jax.vmap(simulator)(keys, positions)


@eqx.filter_jit
def _evaluate(show: Callable[[PyTree], Any], observations: PyTree) -> Any:
    return jax.vmap(show)(observations)


def _rows(show: Callable[[PyTree], Any], observations: PyTree) -> tuple[list[str], np.ndarray]:
    """Names, and values of shape (observations, statistics)."""
    found = _evaluate(show, observations)
    if not isinstance(found, Mapping) or not found:
        raise TypeError(f"`statistics` must return a dictionary of named scalars, got {type(found).__name__}.")
    names, columns = [], []
    for name, value in found.items():
        for index in np.ndindex(value.shape[1:]):
            names.append(name + (f"[{', '.join(map(str, index))}]" if index else ""))
            columns.append(np.asarray(value[(slice(None), *index)], np.float64))
    return names, np.stack(columns, axis=1)
