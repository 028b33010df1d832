"""Draws moved on by chains that leave the target invariant: what is left of their errors, taken away."""

import dataclasses
import time
from typing import Literal, get_args

from jaxtyping import Array

from scoresample.inference import Draws
from scoresample.samplers import MALA, NUTS
from scoresample.scores import AbstractDensityScore
from scoresample.workflows._doors import check_at_least, check_draws, check_target
from scoresample.workflows._independence import independence_chains
from scoresample.workflows._moves import moved

PolishMethod = Literal["mala", "independence", "nuts"]
"""How draws are moved."""

_MOST_DOUBLINGS = 6
"""Of a trajectory of NUTS: the slowest of all draws holds up the others, so 63 steps at most."""


def polish(
    draws: Draws,
    target: AbstractDensityScore,
    *,
    key: Array,
    method: PolishMethod = "mala",
    num_steps: int = 20,
    num_warmup: int = 60,
    step_size: float | None = None,
    dense_mass_matrix: bool | None = None,
    batch_size: int | None = None,
) -> Draws:
    """Move draws by a few steps of Markov chains that leave the target invariant, one chain from each draw.

    Weighted draws are first resampled by their weights (systematic resampling, as many as there were). The chains then
    run side by side, in coordinates in which the draws have covariance 1, with one step size:

    * ``"mala"``: the Metropolis-adjusted Langevin algorithm, tuned to accept 57% of the moves;
    * ``"nuts"``: short chains of the no-U-turn sampler with trajectories of at most 63 steps, tuned to 80%: many times
      the evaluations of a move of MALA, for targets that are much narrower in some directions than draws show;
    * ``"independence"``: Metropolis-Hastings over the draws as they came, the next draw being the next proposal. It
      takes draws with their own density (``WithDensity(ProbabilityFlowODE(...))``), one evaluation a draw and no step
      size. The draws are cut into four chains in their order, of which the first `num_steps` states are left out.

    Every move leaves the target invariant exactly, but for what the shared step size and coordinates know of the draws
    themselves, which is of order 1/n. What remains is the error of the start, as far as it is not forgotten: after too
    few moves draws are still those that came. The independence chains forget at the rate ``1 - 1/max w``, w the weight
    over its mean, wherever draws are; the others move locally, so modes keep the shares that they had until chains
    cross. **Modes without draws stay missed** by all of them. ``info["checks"]`` hold the chains' memory over two
    fifths of the moves and their acceptance against limits.

    Where independent draws were resampled by weights of an effective size of at least 1,000 and a tenth of their
    number, the weights have put the shares of regions right. Chains that do not forget where they were are then held
    against less: that they forget it within 2, 4, 8 or 16 regions, and that the shares of these are known to a total
    variation of 0.05, what lies beyond the largest weight included. Both checks stand in the place of that of the
    chains' memory where they are passed.

    Copies of a draw count as one until they have moved apart. ``info["num_distinct"]`` says how many different draws
    there are, ``info["num_ancestors"]`` from how many they come; a test for two samples that takes copies for
    independent draws finds differences where there are none.

    Source: Roberts and Tweedie 1996, Bernoulli 2(4), for MALA; Tierney 1994, Annals of Statistics 22(4), section 2.3.3,
    and Mengersen and Tweedie 1996, Annals of Statistics 24(1), theorem 2.1, for independence chains; Gilks and Berzuini
    2001, JRSS B 63(1), for moves after resampling.

    Arguments:
        draws: draws near the target, of any kind, weighted or not.
        target: the density to leave invariant.
        key: random key.
        method: ``"mala"``, ``"independence"`` or ``"nuts"``.
        num_steps: moves of every chain, at least 2; for independence chains those that are left out.
        num_warmup: moves that tune the step size, in up to 128 chains that are thrown away. Not used where there is a
            `step_size`.
        step_size: the step size in units of the draws' own covariance, or None to tune it.
        dense_mass_matrix: use the correlations of the draws, not only their variances; by default where there are ten
            distinct draws for each coordinate.
        batch_size: move at most this many draws at a time, to bound memory.

    Returns:
        Draws without weights. Draws that came independent and without weights stay so; resampled ones are
        ``"interacting"``, (1, n), so that copies do not count; chains stay chains; independence chains become
        ``"chains"``. In `info`: ``acceptance_rate``; ``step_size``; ``autocorrelation`` and its lower confidence bound
        ``autocorrelation_bound``, over two fifths of the moves in the direction where it is largest;
        ``start_end_correlation``, the largest correlation of a coordinate with itself at the start;
        ``stuck_share``, chains that accepted less than a twentieth; ``num_distinct``, ``num_ancestors``, ``checks``,
        and the log evidence where the draws brought it. `nfe` counts all evaluations of the target, over the number of
        draws.

    Raises:
        TypeError: if `draws` are no Draws, or the target has no density.
        ValueError: if the draws do not fit the target, lie where it has no density, or bring none of their own for
            ``method="independence"``; or a setting is wrong.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> target, wide = ss.Gaussian(jnp.ones(2), 1.0), ss.Gaussian(jnp.zeros(2), 2.0)
        >>> draws = ss.exact_draws(wide, key=jax.random.key(0), num_samples=1000)
        >>> polished = ss.polish(draws, target, key=jax.random.key(1))
        >>> abs(float(polished.position.mean()) - 1) < 0.15, polished.kind
        (True, 'independent')
    """
    started = time.perf_counter()
    _check_settings(method, num_steps, num_warmup, step_size, batch_size)
    check_draws(draws)
    check_target("target", target, draws)
    if method == "independence":
        polished = independence_chains(draws, target, key=key, num_steps=num_steps, batch_size=batch_size)
    else:
        polished = moved(
            draws,
            target,
            key,
            MALA(step_size=step_size) if method == "mala" else NUTS(max_num_doublings=_MOST_DOUBLINGS),
            num_steps,
            num_warmup,
            step_size,
            dense_mass_matrix,
            batch_size,
        )
    attributes = {
        **draws.attributes,
        "sampler": f"{draws.attributes.get('sampler', 'draws')}, polished ({method})",
        "asymptotically_exact": 1,
        "target": type(target).__name__,
    }
    seconds = draws.seconds + time.perf_counter() - started
    return dataclasses.replace(polished, attributes=attributes, seconds=seconds)


def _check_settings(
    method: object, num_steps: object, num_warmup: object, step_size: float | None, batch_size: object
) -> None:
    if method not in get_args(PolishMethod):
        raise ValueError(f"`method` must be one of {list(get_args(PolishMethod))}, got {method!r}.")
    check_at_least(2, num_steps=num_steps)
    check_at_least(1, num_warmup=num_warmup)
    if batch_size is not None:
        check_at_least(1, batch_size=batch_size)
    if step_size is not None and not 0 < step_size < float("inf"):
        raise ValueError(f"`step_size` must be positive and finite, or None, got {step_size!r}.")
