"""What BlackJAX's samplers share: the density they need, and positions in a precision they accept."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.samplers._base import AbstractSampler, for_each_chain, with_parameters
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


def count_steps(_state: Any, info: Any, _adaptation: Any) -> Array:
    """What to keep of each step of a warm-up of BlackJAX's: its score evaluations."""
    return jnp.asarray(info.num_integration_steps)


def untuned[Sampler: AbstractSampler](sampler: Sampler, positions: Position) -> Sampler:
    """The sampler with the step size and the mass matrix that the user gave, the identity if none, for each chain."""
    given: Any = sampler
    leaves = jax.tree.leaves(positions)
    num_chains, dimension = leaves[0].shape[0], sum(leaf[0].size for leaf in leaves)
    mass = jnp.ones(dimension) if given.inverse_mass_matrix is None else jnp.asarray(given.inverse_mass_matrix)
    step_size = jnp.asarray(given.step_size, leaves[0].dtype)
    return for_each_chain(with_parameters(sampler, step_size=step_size, inverse_mass_matrix=mass), num_chains)
