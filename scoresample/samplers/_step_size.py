"""Dual averaging of the step size of a Metropolised sampler, chain by chain."""

from typing import Any

import jax
import jax.numpy as jnp
from blackjax.optimizers.dual_averaging import dual_averaging
from jaxtyping import Array

from scoresample.samplers._base import for_each_chain, with_parameters
from scoresample.samplers._density import promoted
from scoresample.scores import AbstractScore, Position


def tune_step_size(
    sampler: Any, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
) -> tuple[Any, Any, dict[str, Array]]:
    """A warm-up whose steps tune `sampler.step_size` to `sampler.target_acceptance_rate` by dual averaging.

    Nesterov's dual averaging as in Hoffman and Gelman 2014 (arXiv 1111.4246), section 3.2, by BlackJAX. Where no step
    size is given it starts from d^(-1/3), d the dimension.

    Returns:
        States, the sampler with a step size for each chain, and facts.
    """
    positions = promoted(positions)
    leaves = jax.tree.leaves(positions)
    num_chains, dimension = leaves[0].shape[0], sum(leaf[0].size for leaf in leaves)
    start = jnp.asarray(dimension ** (-1 / 3) if sampler.step_size is None else sampler.step_size, leaves[0].dtype)
    begin, update, final = dual_averaging()

    def one_chain(position: Position, key: Array) -> tuple[Any, Array, Array]:
        key_init, key_steps = jax.random.split(key)

        def body(carry: tuple[Any, Any], key: Array) -> tuple[tuple[Any, Any], Array]:
            state, averages = carry
            state, stats = with_parameters(sampler, step_size=jnp.exp(averages.log_x)).step(score, state, key=key)
            accepted = jnp.nan_to_num(stats["acceptance_rate"])
            return (state, update(averages, sampler.target_acceptance_rate - accepted)), stats["n_steps"]

        state = sampler.init(score, position, key=key_init)
        averages = jax.tree.map(lambda x: jnp.asarray(x, start.dtype), begin(start))
        (state, averages), evaluations = jax.lax.scan(body, (state, averages), jax.random.split(key_steps, num_warmup))
        return state, final(averages), 1 + jnp.sum(evaluations, dtype=int)

    states, step_sizes, evaluations = jax.vmap(one_chain)(positions, jax.random.split(key, num_chains))
    if num_warmup == 0:
        step_sizes = jnp.broadcast_to(start, (num_chains,))
    tuned = with_parameters(for_each_chain(with_parameters(sampler, step_size=start), num_chains), step_size=step_sizes)
    return states, tuned, {"num_evaluations": evaluations, "step_size": step_sizes}
