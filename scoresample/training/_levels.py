"""Which noise levels a training looks at, and how often."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Weighting = Literal["uniform", "edm", "likelihood", "learned"]
"""How much each noise level counts."""

_EDM_MEAN, _EDM_SPREAD = -1.2 - float(np.log(0.5)), 1.2
"""Mean and standard deviation of log sigma, in standard deviations of the data: Karras et al. 2022, table 1, -1.2 where
sigma_data = 0.5."""
_TABLE_SIZE = 1025


def stratified_log_sigma(
    key: Array, num: int, low: float, high: float, dtype: jnp.dtype, weighting: Weighting = "uniform"
) -> Float[Array, " n"]:
    """`num` levels in [low, high], one in each of `num` cells of equal weight, in random order.

    Weights are frequencies: a level that counts twice as much is drawn twice as often, which leaves less noise in the
    gradients than multiplying its loss.
    """
    key_jitter, key_order = jax.random.split(key)
    cells = jax.random.permutation(key_order, num).astype(dtype)
    shares = (cells + jax.random.uniform(key_jitter, (num,), dtype)) / num
    if weighting in ("uniform", "learned"):
        return low + (high - low) * shares
    levels = np.linspace(low, high, _TABLE_SIZE)
    cumulative = np.concatenate([[0.0], np.cumsum(_density(0.5 * (levels[1:] + levels[:-1]), weighting))])
    return jnp.interp(shares, jnp.asarray(cumulative / cumulative[-1], dtype), jnp.asarray(levels, dtype))


def _density(log_sigma: np.ndarray, weighting: Weighting) -> np.ndarray:
    """How much a level counts, for a loss that is one at all levels before anything was learned."""
    if weighting == "edm":
        return np.exp(-0.5 * ((log_sigma - _EDM_MEAN) / _EDM_SPREAD) ** 2)
    # g^2/2 |s - s_hat|^2 dt, the rate of the KL divergence, is |D - D_hat|^2/sigma^2 dlog(sigma).
    return 1 / (1 + np.exp(2 * log_sigma))
