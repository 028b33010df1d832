"""Any sampler as a BlackJAX algorithm."""

from collections import namedtuple
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from blackjax.base import SamplingAlgorithm
from jaxtyping import Array

from scoresample.interop._stepping import as_position, one_of, path_draws, ready, score_for, warm_up
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractParticleSampler, AbstractSampler
from scoresample.scores import AbstractScore, Position


def as_blackjax(
    sampler: AbstractSampler | AbstractParticleSampler[Any],
    target: AbstractScore | AbstractScorePath,
    *,
    plan: Any = None,
    key: Array | None = None,
) -> SamplingAlgorithm:
    """A sampler on a target as a BlackJAX algorithm, for BlackJAX's loops or your own.

    ``init(position, rng_key=None)`` gives a state with a `position`, ``step(rng_key, state)`` the next state and a
    named tuple of statistics by ArviZ's names, among them `n_steps`, the score evaluations. Both are pure functions for
    one chain: `jax.jit` and `jax.vmap` them.

    A chain sampler takes its own steps, which leave invariant what the sampler leaves invariant; given a path, it runs
    on the path's last level. A step of a path sampler is a whole run of one particle, from the reference to the target:
    its draws are independent, and `init` only holds the position. They are drawn at once, and faster, by
    `scoresample.sample`.

    Arguments:
        sampler: any sampler whose particles do not see each other. Nothing is tuned here: give `step_size` and what
            else there is, or take the sampler from [`tuned`][scoresample.interop.tuned].
        target: a score, or a path from noise to it.
        plan: the levels of a path sampler, from ``sampler.plan(path, key=key)``; made here if None.
        key: random key of that plan; a fixed one if None.

    Returns:
        A `blackjax.base.SamplingAlgorithm`. Without a key `init` uses a fixed one, which only samplers with a momentum
        look at.

    Raises:
        TypeError: if the target does not suit the sampler.
        ValueError: if the sampler must be tuned first, its particles see each other or have weights, or a chain sampler
            comes with a plan.

    Examples:
        >>> import blackjax, jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> from scoresample.interop import as_blackjax
        >>> algorithm = as_blackjax(ss.ULA(0.1), ss.Gaussian(jnp.zeros(2), 1.0))
        >>> state, (states, info) = blackjax.util.run_inference_algorithm(
        ...     jax.random.key(0), algorithm, 50, initial_position=jnp.ones(2)
        ... )
        >>> states.position.shape, info.n_steps.shape
        ((50, 2), (50,))
    """
    stepper: Any
    match sampler:
        case AbstractSampler():
            if plan is not None:
                raise ValueError(f"`plan` is for path samplers; {type(sampler).__name__} runs chains.")
            on: Any = score_for(sampler, target)
            stepper = sampler if on.structure is None else ready(sampler, on, _zeros(on.structure))
        case AbstractParticleSampler():
            on, stepper = target, path_draws(sampler, target, plan, key)
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(  # pyright: ignore[reportUnreachable]
                f"`sampler` must be an instance of a sampler, such as NUTS() or ReverseSDE(), got {sampler!r}."
            )
    # A target that does not know its structure tells it with its first position.
    late = isinstance(sampler, AbstractSampler) and on.structure is None
    name = type(sampler).__name__

    def init(position: Any, rng_key: Array | None = None) -> Any:
        position = as_position(position, on.structure, "position")
        chain = ready(stepper, on, position) if late else stepper
        return chain.init(on, position, key=jax.random.key(0) if rng_key is None else rng_key)

    def step(rng_key: Array, state: Any) -> tuple[Any, Any]:
        chain = ready(stepper, on, state.position) if late else stepper
        state, stats = chain.step(on, state, key=rng_key)
        return state, _info_type(name, tuple(stats))(**stats)

    return SamplingAlgorithm(init, step)


def tuned(
    sampler: AbstractSampler,
    target: AbstractScore | AbstractScorePath,
    *,
    key: Array,
    num_warmup: int = 1000,
    num_chains: int = 1,
    initial_position: Position | None = None,
) -> tuple[AbstractSampler, Position]:
    """A sampler with the parameters that its own warm-up finds, and where a chain of it ends.

    Start the chain that you keep at that position. Run the warm-up from several starts, with several keys, to see
    whether they agree.

    Arguments:
        sampler: a chain sampler, such as ``NUTS()``.
        target: a score, or a path from noise to it.
        key: random key.
        num_warmup: warm-up steps.
        num_chains: chains that are tuned at once, of which the first is returned. Only samplers that tune all chains
            together need more than one: `DynamicHMC`.
        initial_position: where to start, for all chains. Needed only where the target does not know.

    Returns:
        The sampler with every parameter given, as [`as_blackjax`][scoresample.interop.as_blackjax] needs it, and a
        position.

    Raises:
        TypeError: if the sampler is a path sampler, or the target does not suit the sampler.
        ValueError: if there is no start, or it does not fit the target.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> from scoresample.interop import as_blackjax, tuned
        >>> density = ss.Gaussian(jnp.zeros(2), 1.0)
        >>> mala, position = tuned(ss.MALA(), density, key=jax.random.key(0), num_warmup=100)
        >>> mala.step_size.shape, position.shape
        ((), (2,))
        >>> algorithm = as_blackjax(mala, density)
    """
    if not isinstance(sampler, AbstractSampler):
        raise TypeError(f"`sampler`: only chain samplers are tuned, and {type(sampler).__name__} is none.")
    score = score_for(sampler, target)
    key_start, key_run = jax.random.split(key)
    if initial_position is not None:
        start = as_position(initial_position, score.structure, "initial_position")
        starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_chains, *x.shape)), start)
    elif score.init_position is not None:
        starts = jax.vmap(score.init_position)(jax.random.split(key_start, num_chains))
        start = one_of(starts)
    else:
        raise ValueError("`initial_position`: this target does not know where to start. Give one position.")
    states, sampler = warm_up(score, sampler, starts, num_warmup, key_run)
    return one_of(sampler), jax.tree.map(lambda x, like: x.astype(like.dtype), one_of(states).position, start)


def _zeros(structure: Any) -> Position:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), structure)


@cache
def _info_type(sampler: str, names: tuple[str, ...]) -> Any:
    """One class for each set of statistics, so that infos of several runs are trees of one kind."""
    return namedtuple(f"{sampler}Info", names)
