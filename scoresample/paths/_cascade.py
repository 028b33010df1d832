"""Laws written as chains of conditional laws, each with a path of its own."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array

from scoresample.paths._base import AbstractDensityPath, AbstractScorePath
from scoresample.paths._empirical import EmpiricalPerturbedScore
from scoresample.paths._energy import PerturbedEnergy
from scoresample.paths._likelihood import ProbabilityFlowDensity
from scoresample.paths._perturbed import AbstractPerturbedScore, ReclockedScore
from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure


class AbstractCascadedPath(eqx.Module):
    """A law as a chain of conditional laws, ``p(x) = p(x_0) prod_k p(x_k | x_0, ..., x_{k-1})``, a path for each.

    [`sample`][scoresample.sample] runs a path sampler on one stage after another. The paths of later stages carry what
    was drawn before as a condition of each particle, so samplers run on them as on any other path.

    Attributes:
        structure: tree of `jax.ShapeDtypeStruct` of one position.
        constrain: position -> named sites.
    """

    structure: AbstractVar[Structure]
    constrain: AbstractVar[Constrain]

    @abc.abstractmethod
    def stage_names(self) -> tuple[str, ...]:
        """A name for every stage, in order."""

    @abc.abstractmethod
    def stage(self, index: int, known: Position | None) -> AbstractScorePath:
        """The path of one stage.

        Arguments:
            index: the number of the stage, from 0.
            known: what the stages before have drawn, of one particle or with a leading particle axis; None for the
                first.
        """

    @abc.abstractmethod
    def joined(self, index: int, known: Position | None, part: Position) -> Position:
        """What is known of one particle after a stage; after the last one, the position."""

    @abc.abstractmethod
    def parts(self, position: Position) -> tuple[tuple[Position | None, Position], ...]:
        """What is known of one position before each stage, and the stage's part: `joined` taken back."""

    @abc.abstractmethod
    def log_volume(self) -> Array | float:
        """The log determinant of position -> parts, a constant: 0 where the parts are orthogonal coordinates."""


class CascadedDensity(AbstractDensityScore):
    """The log density of a cascade: the sum over its stages of the conditional log densities.

    A stage whose path knows its densities gives that at t=0, where there is no noise. A stage of learned scores gives
    the one of its probability flow, as [`ProbabilityFlowDensity`][scoresample.ProbabilityFlowDensity] does, at the end
    of the score's range; so does a learned energy, which is known up to a constant for each condition only: left as it
    is, that constant would be a factor of the law of what is coarser. The score is the derivative of the sum.

    Source: Guth et al. 2022, arXiv 2208.05003, for the scales of wavelets.

    Attributes:
        path: the cascade.
        flows: for each stage the density of its probability flow, or None where the stage's own is taken.
    """

    path: AbstractCascadedPath
    flows: tuple[ProbabilityFlowDensity | None, ...]
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, path: AbstractCascadedPath, **flow: Any) -> None:
        """Take the density of a cascade.

        Arguments:
            path: the cascade.
            **flow: settings of [`ProbabilityFlowDensity`][scoresample.ProbabilityFlowDensity] for stages whose
                densities are not known, such as ``divergence="hutchinson", key=key``.

        Raises:
            TypeError: if `path` is no cascade, a stage has neither densities nor a probability flow, or the
                densities of one after the first are not noised: their constants are not known.
            ValueError: if a setting of the flow is wrong, or a stage is made of points without a bandwidth.
        """
        if not isinstance(path, AbstractCascadedPath):
            raise TypeError(f"`path` must be a cascade, such as a WaveletPath, got {type(path).__name__}.")
        self.path = path
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), path.structure)
        stages = [path.stage(index, known) for index, (known, _) in enumerate(path.parts(zeros))]
        self.flows = tuple(
            _flow(stage, name, flow, first=index == 0)
            for index, (stage, name) in enumerate(zip(stages, path.stage_names(), strict=True))
        )
        self.structure, self.constrain, self.init_position = path.structure, path.constrain, None

    def by_stage(self, position: Position) -> Array:
        """The conditional log density of each stage's part, (stages,)."""
        values = []
        for index, (known, part) in enumerate(self.path.parts(position)):
            stage, flow = self.path.stage(index, known), self.flows[index]
            if flow is not None:
                values.append(eqx.tree_at(lambda f: f.path, flow, stage).logdensity(part))
            else:
                assert isinstance(stage, AbstractDensityPath)
                values.append(stage.logdensity(part, 0.0))
        return jnp.stack(values)

    def logdensity(self, position: Position) -> Array:
        """The log density of one position, a scalar; normalised where the stages' are."""
        value = jnp.sum(self.by_stage(position))
        return value + jnp.asarray(self.path.log_volume()).astype(value.dtype)

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density and its derivative."""
        return jax.value_and_grad(self.logdensity)(position)


def _flow(
    stage: AbstractScorePath, name: str, settings: dict[str, Any], *, first: bool
) -> ProbabilityFlowDensity | None:
    """The density of a stage's probability flow, or None where the stage knows its own, with its constant."""
    if isinstance(stage, AbstractPerturbedScore):
        points = stage.inner if isinstance(stage, ReclockedScore) else stage
        if isinstance(points, EmpiricalPerturbedScore) and not float(points.bandwidth) > 0:
            raise ValueError(
                f"`path`: the stage {name!r} is made of points, which have no density without noise. Smooth them: "
                "perturb(points, process, bandwidth=...)."
            )
        known = isinstance(stage, AbstractDensityPath) and not isinstance(stage, PerturbedEnergy)
        return None if known else ProbabilityFlowDensity(stage, **settings)
    if isinstance(stage, AbstractDensityPath):
        if first:
            return None
        raise TypeError(
            f"`path`: densities of the stage {name!r}, a {type(stage).__name__}, are known up to a constant for each "
            "condition, which would weigh what is coarser. Draw from the cascade; its density is not known."
        )
    raise TypeError(
        f"`path`: the stage {name!r} is a {type(stage).__name__}, which has neither densities nor a probability flow."
    )
