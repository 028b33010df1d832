"""What somebody else's loop needs of any sampler: something that starts at a position and takes one step at a time."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.inference import score_for_chains
from scoresample.paths import AbstractScorePath
from scoresample.samplers import AbstractParticleSampler, AbstractSampler, require_density
from scoresample.scores import AbstractScore, Position, check_structure


class PathDrawState(NamedTuple):
    """The state of a path sampler between two draws.

    Attributes:
        position: the last draw, or where the loop was told to start.
    """

    position: Position


class PathDraws(eqx.Module):
    """A path sampler with a chain sampler's `init` and `step`: every step is a new draw that forgets the last.

    Attributes:
        sampler: a path sampler whose particles do not see each other.
        plan: its levels.
    """

    sampler: AbstractParticleSampler[Any]
    plan: Any

    def init(self, path: AbstractScorePath, position: Position, *, key: Array) -> PathDrawState:
        """Hold a position."""
        del path, key
        return PathDrawState(position)

    def step(
        self, path: AbstractScorePath, state: PathDrawState, *, key: Array
    ) -> tuple[PathDrawState, dict[str, Array]]:
        """A draw of the reference, moved to the target; of its statistics, those that are one number."""
        particles, _, info = self._run(path, key)
        position = path.frame.to_position(jax.tree.map(lambda z: z[0], particles))
        position = jax.tree.map(lambda x, old: x.astype(old.dtype), position, state.position)
        stats = {name: jnp.reshape(value, ()) for name, value in info.stats.items() if jnp.size(value) == 1}
        return PathDrawState(position), {"n_steps": jnp.asarray(info.nfe), **stats}

    def _run(self, path: AbstractScorePath, key: Array) -> tuple[Position, Array | None, Any]:
        key_start, key_run = jax.random.split(key)
        particle = path.sample_reference(key_start, 1, self.plan.t_start)
        return self.sampler.run(path, particle, self.plan, key=key_run)

    def gives_weights(self, path: AbstractScorePath) -> bool:
        """Whether its draws come with weights; found without running it."""
        _, log_weights, _ = jax.eval_shape(lambda key: self._run(path, key), jax.random.key(0))
        return log_weights is not None


def path_draws(sampler: AbstractParticleSampler[Any], path: Any, plan: Any, key: Array | None) -> PathDraws:
    """The draws of a path sampler one by one, with the plan made on the host.

    Raises:
        TypeError: if the path does not suit the sampler.
        ValueError: if single draws have no meaning.
    """
    name = type(sampler).__name__
    if sampler.interacting:
        raise ValueError(
            f"`sampler`: the particles of {name} see each other, so it has no single draw. Run all of them with "
            "`scoresample.sample`."
        )
    if plan is None:
        plan = sampler.plan(path, key=jax.random.key(0) if key is None else key)
    if path.condition_axes() is not None:
        raise ValueError(
            "`target`: this path has a condition for each particle, so its draws are no draws of one law. Run them "
            "with `scoresample.sample`."
        )
    draws = PathDraws(sampler, plan)
    if draws.gives_weights(path):
        raise ValueError(
            f"`sampler`: the draws of {name} have weights, which this loop would forget. Run it with "
            "`scoresample.sample`, which keeps them."
        )
    return draws


def score_for(sampler: AbstractSampler, target: Any) -> AbstractScore:
    """The score of a target, with a density where the sampler needs one.

    Raises:
        TypeError: if the target is neither a score nor a path, or has no density where one is needed.
    """
    score = score_for_chains(target)
    return require_density(sampler, score) if sampler.needs_density else score


def as_position(position: Position, structure: Any, name: str) -> Position:
    """A position as arrays of the target's shapes and dtypes.

    Raises:
        ValueError: if its tree or a shape is another.
    """
    if structure is not None:
        check_structure(position, structure, name=name)
        return jax.tree.map(lambda x, leaf: jnp.asarray(x, leaf.dtype), position, structure)
    arrays = jax.tree.map(jnp.asarray, position)
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float), arrays)


@eqx.filter_jit
def warm_up(
    score: AbstractScore, sampler: AbstractSampler, positions: Position, num_warmup: int, key: Array
) -> tuple[Any, AbstractSampler]:
    """The sampler's own warm-up of all chains: their states, and the sampler with a leading chain axis."""
    states, tuned, _ = sampler.warmup(score, positions, num_warmup, key=key)
    return states, tuned


def one_of(tree: Any, chain: int = 0) -> Any:
    """One chain of a tree with a leading chain axis on every array."""
    return jax.tree.map(lambda leaf: leaf[chain] if eqx.is_array(leaf) else leaf, tree)


def ready(sampler: AbstractSampler, score: AbstractScore, position: Position) -> AbstractSampler:
    """The sampler as it runs without a warm-up, every parameter an array.

    Raises:
        ValueError: if a parameter has to be tuned first.
    """
    positions = jax.tree.map(lambda x: jnp.asarray(x)[None], position)
    try:
        # Under jit what nobody asks for is not computed: the score is not evaluated here.
        return one_of(_untuned(score, sampler, positions))
    except ValueError as error:
        if not str(error).startswith("`num_warmup`"):
            raise
        raise ValueError(
            f"`sampler`: {type(sampler).__name__} has parameters that must be tuned first. Let its warm-up do it, "
            "sampler, position = tuned(sampler, target, key=key), or give all of them yourself."
        ) from error


@eqx.filter_jit
def _untuned(score: AbstractScore, sampler: AbstractSampler, positions: Position) -> AbstractSampler:
    return sampler.warmup(score, positions, 0, key=jax.random.key(0))[1]
