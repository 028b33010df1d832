"""Draws of one density as weighted draws of another: importance sampling."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore, Position, check_structure


def reweight(
    draws: Draws,
    target: AbstractDensityScore,
    proposal: AbstractDensityScore,
    *,
    batch_size: int | None = None,
) -> Draws:
    """Draws of a proposal as weighted draws of a target, ``log w = log target(x) - log proposal(x)``.

    Expectations under the weights are those of the target, in the limit of many draws and wherever the proposal covers
    the target. Both densities may lack their constants. Chains that have the proposal's law serve as well as
    independent draws. Weights that the draws already have, as those of tempered SMC, are multiplied.

    A few large weights, a small effective size and a large Pareto k say that the proposal misses part of the target:
    `compare` shows them. Weights cannot tell of regions where no draw is.

    Source: Kong et al. 1994, "Sequential imputations and Bayesian missing data problems", section 4.

    Arguments:
        draws: draws of the proposal, of any kind.
        target: the density to average under.
        proposal: the density that the draws have. For draws by the probability-flow ODE, without a last denoising:
            [`ProbabilityFlowDensity`][scoresample.ProbabilityFlowDensity] of the same score.
        batch_size: evaluate at most this many draws at a time, to bound memory.

    Returns:
        A copy of the draws with new `log_weights`, of largest value 0. A draw where the target has no mass, or where
        its density or the proposal's is nan or otherwise not to be had, gets weight zero (-inf); those that are not to
        be had are marked in ``stats["weight_failed"]`` and counted in ``info["num_failed_weights"]``. The evaluations
        of both densities are not counted in `nfe`. ``info["log_z"]`` is the logarithm of the mean weight: an estimate
        of the log evidence of the target, where the proposal's density is normalised.

    Raises:
        TypeError: if `draws` are no Draws, or a density is a bare score or a path.
        ValueError: if the draws do not fit a density, `batch_size` is wrong, or no draw gets a weight.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> wide, narrow = ss.Gaussian(jnp.zeros(1), 4.0), ss.Gaussian(jnp.ones(1), 1.0)
        >>> draws = ss.exact_draws(wide, key=jax.random.key(0), num_samples=2000)
        >>> weighted = ss.reweight(draws, narrow, wide)
        >>> weights = jax.nn.softmax(weighted.log_weights.ravel())
        >>> abs(float(weights @ weighted.position[0, :, 0]) - 1) < 0.1
        True
    """
    if not isinstance(draws, Draws):
        raise TypeError(
            f"`draws` must be Draws, got {type(draws).__name__}. `sample` returns them; Draws.from_arviz and its "
            "siblings make them of chains from elsewhere."
        )
    for name, density in (("target", target), ("proposal", proposal)):
        _check_density(name, density, draws)
    if batch_size is not None and (not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1):
        raise ValueError(f"`batch_size` must be a whole number of at least 1, or None, got {batch_size!r}.")
    shape = (draws.num_chains, draws.num_draws)
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), draws.position)
    above, below = (_log_densities(density, flat, batch_size).reshape(shape) for density in (target, proposal))
    before = np.zeros(shape) if draws.log_weights is None else np.asarray(draws.log_weights, np.float64)
    log_weights = before
    # A target of -inf has no mass here; a draw where the proposal has none cannot be one of its draws.
    failed = np.isnan(above) | np.isposinf(above) | ~np.isfinite(below) | np.isnan(log_weights)
    failed = failed | np.asarray(draws.stats.get("weight_failed", False))
    log_weights = np.where(failed, -np.inf, log_weights + above - np.where(failed, 0.0, below))
    if not np.isfinite(log_weights.max()):
        raise ValueError(
            f"`draws`: none of the {log_weights.size} draws gets a weight; {int(failed.sum())} densities are not "
            "finite. Check that the target has mass where the draws are, and that the densities can be evaluated there."
        )
    totals = [np.logaddexp.reduce(np.where(failed, -np.inf, x).ravel()) for x in (log_weights, before)]
    log_ratio = float(totals[0] - totals[1])
    return dataclasses.replace(
        draws,
        log_weights=jnp.asarray(log_weights - log_weights.max(), jnp.result_type(float)),
        stats={**draws.stats, "weight_failed": failed},
        info={**draws.info, "num_failed_weights": int(failed.sum()), "log_z": log_ratio},
    )


def _check_density(name: str, density: object, draws: Draws) -> None:
    if not isinstance(density, AbstractDensityScore):
        raise TypeError(
            f"`{name}` must be a score with a log density, got {type(density).__name__}. A noised score has one by "
            "ProbabilityFlowDensity(path), a path with densities by path.at(t), and a bare score that is a gradient by "
            "LineIntegralDensity(score, origin)."
        )
    if density.structure is not None:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), draws.position)
        check_structure(one, density.structure, name=name, what="density's draw")


def _log_densities(density: AbstractDensityScore, flat: Position, batch_size: int | None) -> np.ndarray:
    """The log densities of all draws, in double precision on the host; the last batch is filled up with the first."""
    num = jax.tree.leaves(flat)[0].shape[0]
    size = num if batch_size is None else min(batch_size, num)
    values = []
    for start in range(0, num, size):
        index = np.arange(start, start + size) % num
        values.append(np.asarray(_evaluate(density, jax.tree.map(lambda x, i=index: x[i], flat)), np.float64))
    return np.concatenate(values)[:num]


@eqx.filter_jit
def _evaluate(density: AbstractDensityScore, positions: Position) -> Array:
    return jax.vmap(density.logdensity)(positions)
