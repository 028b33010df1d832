"""What BlackJAX's samplers share: the density they need, and positions in a precision they accept."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler
from scoresample.scores import AbstractDensityScore, AbstractScore, Position


def require_density(sampler: AbstractSampler, score: AbstractScore) -> AbstractDensityScore:
    """The score, if it has the density that a sampler's accept-reject step needs.

    Raises:
        TypeError: if the score is bare; the message names the ways out.
    """
    if not isinstance(score, AbstractDensityScore):
        raise TypeError(
            f"`target`: {type(sampler).__name__} accepts or rejects its moves, so it needs a log density, but "
            f"{type(score).__name__} is a bare score. If the score is a gradient, wrap it: "
            "LineIntegralDensity(score, origin=a position in the bulk). Otherwise use a sampler that needs the score "
            "only: ULA, SGLD, SGHMC, MCLMC, or a path sampler."
        )
    return score


def promoted(position: Position) -> Position:
    """A position in the default precision at least: BlackJAX's kernels fail on float32 positions under x64."""
    default = jnp.zeros(()).dtype
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, default)), position)


_STATISTICS = {
    "acceptance_rate": "acceptance_rate",
    "is_divergent": "diverging",
    "energy": "energy",
    "is_accepted": "accepted",
    "energy_change": "energy_error",
}
"""BlackJAX's names of a transition's facts, and ArviZ's."""


def statistics_of(state: Any, info: Any, evaluations: Array | int) -> dict[str, Array]:
    """A transition's statistics by ArviZ's names: whatever BlackJAX's state and info hold of them."""
    stats = {"n_steps": jnp.asarray(evaluations)}
    if hasattr(state, "logdensity"):
        stats["lp"] = state.logdensity
    for theirs, ours in _STATISTICS.items():
        value = getattr(info, theirs, None)
        if value is not None and jnp.ndim(value) == 0:
            stats[ours] = jnp.asarray(value)
    return stats
