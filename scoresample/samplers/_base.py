"""The sampler contracts: chains on a score, and particles along a path."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractScorePath
from scoresample.scores import AbstractScore, Position, Structure


class AbstractSampler(eqx.Module):
    """A Markov chain on a score: an initial state, one step, and a warm-up that tunes the sampler.

    The score is an argument, never part of the sampler: retrained networks share one compilation. States and infos are
    named tuples; every state has a `position`.

    Attributes:
        name: the sampler's name on the command line and in tables.
        reference: the paper behind it.
        asymptotically_exact: whether its invariant law is the target itself.
        needs_density: whether it accepts or rejects, and so needs `AbstractDensityScore`.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    asymptotically_exact: ClassVar[bool]
    needs_density: ClassVar[bool]

    @abc.abstractmethod
    def warmup(
        self, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
    ) -> tuple[Any, "AbstractSampler", dict[str, Array]]:
        """Bring all chains to the bulk of the density and tune the sampler.

        Arguments:
            score: the score to sample.
            positions: starts, with a leading chain axis.
            num_warmup: number of steps; 0 only initialises.
            key: random key.

        Returns:
            The chains' states, a sampler whose array leaves have a leading chain axis, and facts by name, among them
            ``"num_evaluations"``, the score evaluations spent by each chain.
        """

    @abc.abstractmethod
    def init(self, score: AbstractScore, position: Position, *, key: Array) -> Any:
        """The state of one chain at a position."""

    @abc.abstractmethod
    def step(self, score: AbstractScore, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One step of one chain: the new state, and statistics by ArviZ's names.

        Among them is ``"n_steps"``, the score evaluations of this step.
        """


def for_each_chain[Sampler: AbstractSampler](sampler: Sampler, num_chains: int) -> Sampler:
    """The sampler with a leading chain axis on every array: what a warm-up that tunes nothing returns."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)) if eqx.is_array(leaf) else leaf, sampler
    )


def with_parameters[Sampler: AbstractSampler](sampler: Sampler, **parameters: Any) -> Sampler:
    """The sampler with other values of some array parameters, whether they were given before or not."""
    return eqx.tree_at(
        lambda s: [getattr(s, name) for name in parameters],
        sampler,
        list(parameters.values()),
        is_leaf=lambda leaf: leaf is None,
    )


def burn_in(
    sampler: AbstractSampler, score: AbstractScore, positions: Position, num_warmup: int, *, key: Array
) -> tuple[Any, Array]:
    """`num_warmup` steps of every chain, of which nothing is kept.

    Returns:
        The chains' states, and the score evaluations of each chain's steps.
    """
    num_chains = jax.tree.leaves(positions)[0].shape[0]

    def one_chain(position: Position, key: Array) -> tuple[Any, Array]:
        key_init, key_steps = jax.random.split(key)

        def body(state: Any, key: Array) -> tuple[Any, Array]:
            state, stats = sampler.step(score, state, key=key)
            return state, stats["n_steps"]

        state = sampler.init(score, position, key=key_init)
        state, evaluations = jax.lax.scan(body, state, jax.random.split(key_steps, num_warmup))
        return state, jnp.sum(evaluations)

    return jax.vmap(one_chain)(positions, jax.random.split(key, num_chains))


class ParticleInfo(NamedTuple):
    """What a particle sampler reports.

    Attributes:
        nfe: score evaluations for each particle, an integer.
        stats: further arrays by name: one entry a particle, or one for the whole run.
    """

    nfe: Array
    stats: dict[str, Array]


class AbstractParticleSampler[Path: AbstractScorePath](eqx.Module):
    """A sampler that moves particles along a path, all together, from its reference to its target.

    Particles live in the path's standard coordinates and have one leading axis.

    Attributes:
        name: the sampler's name on the command line and in tables.
        reference: the paper behind it.
        asymptotically_exact: whether the law of the draws tends to the target as steps are added, for an exact path.
        interacting: whether particles see each other; a batch of them is then never split.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    asymptotically_exact: ClassVar[bool]
    interacting: ClassVar[bool]

    @abc.abstractmethod
    def plan(self, path: Path, *, key: Array) -> Any:
        """The levels and step sizes of a run, made on the host from concrete values.

        Returns:
            A named tuple with at least `t_start`, where the reference is drawn.
        """

    @abc.abstractmethod
    def run(
        self, path: Path, particles: Position, plan: Any, *, key: Array
    ) -> tuple[Position, Array | None, ParticleInfo]:
        """Move particles from the reference to the target.

        Returns:
            The particles, their log weights (None when equal), and the run's info.
        """


class Plan(NamedTuple):
    """A fixed sequence of steps.

    Attributes:
        t_start: the level at which the reference is drawn, a scalar.
        t_final: the level at which the last step ends, a scalar.
        steps: a named tuple of arrays with a leading step axis: what each step needs to know.
        nfe: score evaluations of the whole run for each particle, as far as they are known beforehand. A step whose
            evaluations are found on the way reports them as the statistic ``"num_evaluations"``.
        pilot_evaluations: score evaluations that making the plan took, of no particle of the run.
    """

    t_start: Array
    t_final: Array
    steps: Any
    nfe: int
    pilot_evaluations: np.ndarray = np.zeros((), int)


class AbstractPathSampler[Path: AbstractScorePath](AbstractParticleSampler[Path]):
    """A particle sampler on a fixed grid: `run` scans `step` over the plan."""

    @abc.abstractmethod
    def init(self, path: Path, particles: Position, plan: Plan, *, key: Array) -> Any:
        """The state at the start: a named tuple with `position`, the particles."""

    @abc.abstractmethod
    def step(self, path: Path, state: Any, plan_step: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        """One step of all particles, and statistics of it by name (scalars)."""

    @abc.abstractmethod
    def final(self, path: Path, state: Any, plan: Plan) -> tuple[Position, Array | None]:
        """The particles to return, from the last state, and their log weights, None where all count alike.

        Weights are not normalised: their mean estimates the target's normalising constant.
        """

    @abc.abstractmethod
    def refined(self, factor: int) -> "AbstractPathSampler[Path]":
        """The same sampler with `factor` times as many steps: what `discretisation_error` compares with."""

    def run(
        self, path: Path, particles: Position, plan: Plan, *, key: Array
    ) -> tuple[Position, Array | None, ParticleInfo]:
        """Scan `step` over the plan's steps."""
        key_init, key_steps = jax.random.split(key)
        state = self.init(path, particles, plan, key=key_init)
        state, stats = self.advance(path, state, plan.steps, 0, key=key_steps)
        return *self.final(path, state, plan), self.info(plan, stats)

    def info(self, plan: Plan, stats: dict[str, Array]) -> ParticleInfo:
        """What to report, from the statistics of all steps."""
        stats = dict(stats)
        found = stats.pop("num_evaluations", jnp.zeros((), int)).sum()
        if "start_mismatch" in stats:
            stats["start_mismatch"] = stats["start_mismatch"][0]
        stats |= {name: stats[name][-1] for name in OF_WHOLE_CHAINS if name in stats}
        return ParticleInfo(jnp.asarray(plan.nfe) + found, stats)

    def advance(
        self, path: Path, state: Any, steps: Any, first: Array | int, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """Scan `step` over some of a plan's steps, of which the first is number `first`.

        The key of a step is folded from `key` and its number, so a run in chunks gives the draws of a run at once.
        """
        num_steps = jax.tree.leaves(steps)[0].shape[0]

        def body(state: Any, inputs: Any) -> tuple[Any, dict[str, Array]]:
            key, plan_step = inputs
            return self.step(path, state, plan_step, key=key)

        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jnp.arange(num_steps))
        return jax.lax.scan(body, state, (keys, steps))


OF_WHOLE_CHAINS = ("frozen_acceptance_rate", "stuck_share", "autocorrelation", "autocorrelation_bound")
"""Statistics that the last step reports for all steps before it."""


def dimension_of(structure: Structure) -> int:
    """How many numbers a position has."""
    return sum(leaf.size for leaf in jax.tree.leaves(structure))


def add_scaled(x: Position, *terms: tuple[Array | float, Position]) -> Position:
    """``x + sum_i c_i y_i`` leaf by leaf, in the dtype of x."""
    for scale, y in terms:
        x = jax.tree.map(lambda a, b, c=scale: a + jnp.asarray(c).astype(a.dtype) * b, x, y)
    return x


def inner_products(x: Position, y: Position) -> Array:
    """The inner product of every particle's two vectors."""
    products = jax.tree.map(lambda a, b: jnp.sum((a * b).reshape(a.shape[0], -1), axis=1), x, y)
    return jax.tree.reduce(jnp.add, products)


def scaled(scale: Array | float, x: Position) -> Position:
    """``c x`` leaf by leaf, in the dtype of x."""
    return jax.tree.map(lambda a: jnp.asarray(scale).astype(a.dtype) * a, x)
