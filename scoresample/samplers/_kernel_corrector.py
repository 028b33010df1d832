"""A chain sampler as the corrector at the levels of a path."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths import AbstractDensityPath, AbstractScorePath, as_time
from scoresample.samplers._base import AbstractSampler, scaled
from scoresample.samplers._corrector import AbstractCorrector, LevelStep
from scoresample.scores import AbstractDensityScore, AbstractScore, Constrain, Position, Structure


class KernelCorrector(AbstractCorrector):
    """Steps of a chain sampler, such as BlackJAX's HMC or MALA, on `path.at(t)`.

    The kernel moves in the coordinates ``u = x / sqrt(h)``, h = c/L, in which the level has unit curvature where c is
    1: its own step size holds at every level. What it leaves invariant there, it leaves invariant here.

    Attributes:
        sampler: the sampler, with its step size.
    """

    evaluations_per_step: ClassVar[int] = 0
    evaluations_per_level: ClassVar[int] = 0
    most_relative_step: ClassVar[float] = float("inf")

    sampler: AbstractSampler

    def relative_step(self, dimension: int, otherwise: float) -> float:
        """1: the kernel's own step size is all there is."""
        del dimension, otherwise
        return 1.0

    def check(self, path: AbstractScorePath) -> None:
        """A sampler that accepts or rejects needs the density of every level."""
        name = type(self.sampler).__name__
        if self.sampler.needs_density and not isinstance(path, AbstractDensityPath):
            raise TypeError(
                f"`corrector`: {name} accepts or rejects its moves, so it needs the log density of every level, but "
                f'{type(path).__name__} has scores only. Use corrector="metropolis", which accepts from the score '
                'alone, or learn an energy: fit_score(draws, parametrisation="energy").'
            )
        if path.condition_axes() is not None:
            raise ValueError(
                f"`corrector`: {name} cannot move particles that have conditions of their own. Use "
                'corrector="langevin" or "metropolis".'
            )

    def correct(
        self,
        path: AbstractScorePath,
        particles: Position,
        t: Array,
        step: LevelStep,
        *,
        num_steps: int | Array,
        key: Array,
    ) -> tuple[Position, dict[str, Array]]:
        """The steps; what they cost is found on the way."""
        unit = jnp.sqrt(step.size)
        level = _DensityLevel(path, t, unit) if isinstance(path, AbstractDensityPath) else _Level(path, t, unit)
        num_particles = jax.tree.leaves(particles)[0].shape[0]
        key_init, key_steps = jax.random.split(key)
        states, sampler, facts = self.sampler.warmup(level, scaled(1 / unit, particles), 0, key=key_init)

        def body(index: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            states, evaluations = carry
            keys = jax.random.split(jax.random.fold_in(key_steps, index), num_particles)
            # The sampler's numbers may be plain ones, such as BlackJAX's parameters: only arrays have a particle axis.
            step = eqx.filter_vmap(lambda own, state, key: own.step(level, state, key=key))
            states, stats = step(sampler, states, keys)
            return states, evaluations + stats["n_steps"].astype(evaluations.dtype)

        evaluations = jnp.broadcast_to(jnp.asarray(facts["num_evaluations"]).astype(int), (num_particles,))
        states, evaluations = jax.lax.fori_loop(0, num_steps, body, (states, evaluations))
        moved = jax.tree.map(lambda u, x: u.astype(x.dtype), states.position, particles)
        return scaled(unit, moved), {"num_evaluations": jnp.mean(evaluations.astype(float))}


class _Level(AbstractScore):
    """The score of a level in the coordinates ``u = z / unit``."""

    path: AbstractScorePath
    t: Array
    unit: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, path: AbstractScorePath, t: Array, unit: Array) -> None:
        """See level t of a path in these units."""
        self.path, self.t, self.unit = path, t, unit
        self.structure, self.constrain, self.init_position = path.structure, path.constrain, None

    def __call__(self, position: Position) -> Position:
        """The score there."""
        z = scaled(self.unit, position)
        return scaled(self.unit, self.path.standard_score(z, as_time(self.t, z)))


class _DensityLevel(AbstractDensityScore):
    """The density of a level in the coordinates ``u = z / unit``, up to a constant."""

    path: AbstractDensityPath
    t: Array
    unit: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, path: AbstractDensityPath, t: Array, unit: Array) -> None:
        """See level t of a path in these units."""
        self.path, self.t, self.unit = path, t, unit
        self.structure, self.constrain, self.init_position = path.structure, path.constrain, None

    def logdensity(self, position: Position) -> Array:
        """The log density there."""
        z = scaled(self.unit, position)
        return self.path.standard_logdensity(z, as_time(self.t, z))

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density and the score there."""
        z = scaled(self.unit, position)
        t = as_time(self.t, z)
        return self.path.standard_logdensity(z, t), scaled(self.unit, self.path.standard_score(z, t))
