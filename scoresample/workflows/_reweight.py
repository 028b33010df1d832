"""Draws of one density as weighted draws of another: importance sampling."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.diagnostics import kish_ess, pareto_smoothed
from scoresample.inference import Draws
from scoresample.scores import AbstractDensityScore, Position
from scoresample.workflows._doors import check_at_least, check_draws, check_target


def reweight(
    draws: Draws,
    target: AbstractDensityScore,
    proposal: AbstractDensityScore | None = None,
    *,
    smooth: bool = False,
    batch_size: int | None = None,
) -> Draws:
    """Draws of a proposal as weighted draws of a target, ``log w = log target(x) - log proposal(x)``.

    Expectations under the weights are those of the target, in the limit of many draws and wherever the proposal covers
    the target. Both densities may lack their constants. Chains that have the proposal's law serve as well as
    independent draws. Weights that the draws already have, as those of tempered SMC, are multiplied.

    A few large weights, a small effective size and a large Pareto k say that the proposal misses part of the target:
    `compare` shows them. Weights cannot tell of regions where no draw is.

    Source: Kong et al. 1994, "Sequential imputations and Bayesian missing data problems", section 4; for smoothed
    weights Vehtari et al. 2024, arXiv 1507.02646.

    Arguments:
        draws: draws of the proposal, of any kind.
        target: the density to average under.
        proposal: the density that the draws have; None for draws of [`WithDensity`][scoresample.WithDensity], which
            bring their own. For draws by an adaptive probability-flow ODE, without a last denoising:
            [`ProbabilityFlowDensity`][scoresample.ProbabilityFlowDensity] of the same score.
        smooth: replace the largest weights by the quantiles of a generalised Pareto law fitted to them, by
            [`pareto_smoothed`][scoresample.diagnostics.pareto_smoothed]: less variance for a little bias.
            ``info["log_z"]`` stays that of the raw weights.
        batch_size: evaluate at most this many draws at a time, to bound memory.

    Returns:
        A copy of the draws with new `log_weights`, of largest value 0. A draw where the target has no mass, or where
        its density or the proposal's is nan or otherwise not to be had, gets weight zero (-inf); those that are not to
        be had are marked in ``stats["weight_failed"]`` and counted in ``info["num_failed_weights"]``. The evaluations
        of both densities are not counted in `nfe`. ``info["log_z"]`` is the logarithm of the mean weight, zeros among
        them: an estimate of the log evidence of the target, where the proposal's density is normalised. Where a
        sampler's map folds it is too large, by the mass that several starts share. ``info["log_z_se"]`` is its standard
        error, which means little where ``info["pareto_k"]``, the shape of the tail of the weights, is above 0.7: the
        mean of so few large weights has not settled. That shape is -inf for equal weights and nan for fewer than 30.
        ``info["ess"]`` is Kish's effective size of the new weights, and
        ``info["smoothed"]`` whether they are smoothed.

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
    check_draws(draws)
    if proposal is None and "log_proposal" not in draws.stats:
        raise ValueError(
            "`proposal`: these draws do not bring the density that they have. Sample with "
            "WithDensity(ProbabilityFlowODE(...)), or pass the density as a score, such as "
            "ProbabilityFlowDensity(path)."
        )
    if proposal is None and draws.log_weights is not None:
        raise ValueError(
            "`draws` have weights already, and the density that they bring is that of the draws without them. Give "
            "them as they came, or name the density that they have with their weights as `proposal`."
        )
    for name, density in (("target", target), ("proposal", proposal)):
        if density is not None:
            check_target(name, density, draws)
    if batch_size is not None:
        check_at_least(1, batch_size=batch_size)
    shape = (draws.num_chains, draws.num_draws)
    above = log_densities(target, draws, batch_size)
    if proposal is None:
        below = np.asarray(draws.stats["log_proposal"], np.float64)
    else:
        below = log_densities(proposal, draws, batch_size)
    before = np.zeros(shape) if draws.log_weights is None else np.asarray(draws.log_weights, np.float64)
    # A target of -inf has no mass here; a draw where the proposal has none cannot be one of its draws.
    failed = np.isnan(above) | np.isposinf(above) | ~np.isfinite(below) | np.isnan(before)
    failed = failed | np.asarray(draws.stats.get("weight_failed", False))
    if proposal is None:
        # Where the map of a sampler folds, its density is not the one that it says.
        failed = failed | np.asarray(draws.stats.get("folded", False))
    log_weights = np.where(failed, -np.inf, before + above - np.where(failed, 0.0, below))
    if not np.isfinite(log_weights.max()):
        raise ValueError(
            f"`draws`: none of the {log_weights.size} draws gets a weight; {int(failed.sum())} densities are not "
            "finite. Check that the target has mass where the draws are, and that the densities can be evaluated there."
        )
    log_z, log_z_se = _log_ratio(log_weights.ravel(), np.where(np.isnan(before), -np.inf, before).ravel())
    smoothed, pareto_k = pareto_smoothed(log_weights.ravel())
    if smooth:
        log_weights = smoothed.reshape(shape)
    log_weights = log_weights - log_weights.max()
    facts = {
        "num_failed_weights": int(failed.sum()),
        "log_z": log_z,
        "log_z_se": log_z_se,
        "pareto_k": pareto_k,
        "ess": kish_ess(np.exp(log_weights)),
        "smoothed": smooth,
    }
    return dataclasses.replace(
        draws,
        log_weights=jnp.asarray(log_weights, jnp.result_type(float)),
        stats={**draws.stats, "weight_failed": failed},
        info={**draws.info, **facts},
    )


def _log_ratio(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """``log(sum after / sum before)`` of two sets of weights by their logarithms, and its standard error."""
    log_ratio = np.logaddexp.reduce(after) - np.logaddexp.reduce(before)
    after = after - log_ratio
    largest = max(np.max(after), np.max(before))
    new, old = np.exp(after - largest), np.exp(before - largest)
    return float(log_ratio), float(np.sqrt(np.sum((new - old) ** 2)) / np.sum(old))


def log_densities(density: AbstractDensityScore, draws: Draws, batch_size: int | None = None) -> np.ndarray:
    """The log densities of all draws, in double precision on the host; the last batch is filled up with the first.

    Returns:
        An array of shape (chain, draw).
    """
    flat = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), draws.position)
    num = draws.num_chains * draws.num_draws
    size = num if batch_size is None else min(batch_size, num)
    values = []
    for start in range(0, num, size):
        index = np.arange(start, start + size) % num
        values.append(np.asarray(_evaluate(density, jax.tree.map(lambda x, i=index: x[i], flat)), np.float64))
    return np.concatenate(values)[:num].reshape(draws.num_chains, draws.num_draws)


@eqx.filter_jit
def _evaluate(density: AbstractDensityScore, positions: Position) -> Array:
    return jax.vmap(density.logdensity)(positions)
