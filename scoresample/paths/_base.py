"""The path contract: ``(x, t) -> grad log p_t(x)`` from a reference (t=1) to the target (t=0)."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array

from scoresample.paths._frame import Frame
from scoresample.scores import AbstractDensityScore, AbstractScore, Constrain, Position, Structure


class AbstractScorePath(eqx.Module):
    """A family of scores ``grad log p_t``, t in [0, 1], from the target at t=0 to a reference one can draw from at t=1.

    A path is written in its *standard coordinates* z, and `frame` maps them to positions. Samplers move particles in
    standard coordinates; calling the path takes and returns positions.

    Attributes:
        structure: tree of `jax.ShapeDtypeStruct` of one position.
        frame: standard coordinates -> positions.
        constrain: position -> named sites.
    """

    structure: AbstractVar[Structure]
    frame: AbstractVar[Frame]
    constrain: AbstractVar[Constrain]

    @abc.abstractmethod
    def standard_score(self, z: Position, t: Array) -> Position:
        """The score of p_t in standard coordinates at one point z: a tree like z."""

    @abc.abstractmethod
    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        """Draws near p_t for large t, in standard coordinates, with a leading particle axis."""

    @abc.abstractmethod
    def lipschitz(self, t: Array) -> Array | None:
        """A Lipschitz constant of the standard score at level t, or None where samplers must estimate it."""

    @abc.abstractmethod
    def condition_axes(self) -> Any:
        """A prefix of this module's tree: 0 for leaves with a leading particle axis, None for shared ones."""

    def __call__(self, position: Position, t: Array | float) -> Position:
        """The score of p_t at one position: a tree like the position."""
        t = as_time(t, position)
        return self.frame.score_to_position(self.standard_score(self.frame.to_standard(position), t))

    def at(self, t: Array | float) -> AbstractScore:
        """The score of p_t as an ordinary score, with a density where the path has one."""
        if isinstance(self, AbstractDensityPath):
            return FrozenDensityScore(self, t)
        return FrozenScore(self, t)


class AbstractDensityPath(AbstractScorePath):
    """A path that also knows every log density, up to a constant for each t."""

    @abc.abstractmethod
    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """The log density of p_t in standard coordinates at one point: a scalar."""

    def logdensity(self, position: Position, t: Array | float) -> Array:
        """The log density of p_t at one position, up to a constant: a scalar."""
        value = self.standard_logdensity(self.frame.to_standard(position), as_time(t, position))
        return value - self.frame.log_volume(self.structure).astype(value.dtype)


class FrozenScore(AbstractScore):
    """One level of a path as a score; made by `path.at(t)`.

    Attributes:
        path: the path.
        t: the level, a scalar array.
    """

    path: AbstractScorePath
    t: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, path: AbstractScorePath, t: Array | float) -> None:
        """Freeze a path at level t."""
        self.path, self.t = path, jnp.asarray(t, dtype=float)
        self.structure, self.constrain = path.structure, path.constrain
        self.init_position = PathStart(path, self.t)

    def __call__(self, position: Position) -> Position:
        """``path(position, t)``."""
        return self.path(position, self.t)


class FrozenDensityScore(AbstractDensityScore):
    """One level of a path with densities as a density score; made by `path.at(t)`.

    Attributes:
        path: the path.
        t: the level, a scalar array.
    """

    path: AbstractDensityPath
    t: Array
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, path: AbstractDensityPath, t: Array | float) -> None:
        """Freeze a path at level t."""
        self.path, self.t = path, jnp.asarray(t, dtype=float)
        self.structure, self.constrain = path.structure, path.constrain
        self.init_position = PathStart(path, self.t)

    def logdensity(self, position: Position) -> Array:
        """``path.logdensity(position, t)``, a scalar."""
        return self.path.logdensity(position, self.t)

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density and the path's own score."""
        return self.logdensity(position), self.path(position, self.t)


class PathStart(eqx.Module):
    """A start for a chain at one level of a path: one draw of the path's reference for that level, as a position."""

    path: AbstractScorePath
    t: Array

    def __call__(self, key: Array) -> Position:
        """One position drawn from the reference."""
        particles = self.path.sample_reference(key, 1, self.t)
        return self.path.frame.to_position(jax.tree.map(lambda x: x[0], particles))


def as_time(t: Array | float, position: Position) -> Array:
    """The time as a scalar of the position's floating dtype."""
    return jnp.asarray(t).astype(jnp.result_type(*jax.tree.leaves(position)))


def score_particles(path: AbstractScorePath, particles: Position, t: Array) -> Position:
    """The standard scores of all particles at level t.

    Every path sampler evaluates scores only through this function (and its twin for denoisers), which also maps over
    conditions where the path carries one for each particle.

    Arguments:
        path: the path.
        particles: points in standard coordinates, with one leading axis.
        t: the level, a scalar shared by all.

    Returns:
        The standard scores, a tree like `particles`.
    """
    return jax.vmap(lambda p, z: p.standard_score(z, t), in_axes=(path.condition_axes(), 0))(path, particles)


def with_conditions_of[Path: AbstractScorePath](path: Path, chosen: np.ndarray) -> Path:
    """The path with the conditions of some particles only; a path without conditions of particles as it is.

    Arguments:
        path: the path.
        chosen: the particles' numbers.
    """
    axes = path.condition_axes()
    if axes is None:
        return path
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(lambda x: x[chosen], part),
        axes,
        path,
        is_leaf=lambda leaf: leaf is None,
    )


def num_conditions(path: AbstractScorePath) -> int | None:
    """How many particles have a condition of their own, or None where none has."""
    axes = path.condition_axes()
    if axes is None:
        return None
    lengths = jax.tree.map(
        lambda axis, part: [] if axis is None else [x.shape[0] for x in jax.tree.leaves(part)],
        axes,
        path,
        is_leaf=lambda leaf: leaf is None,
    )
    return jax.tree.leaves(lengths)[0]
