"""The contract of the solvers that `ReverseSDE` and `ProbabilityFlowODE` step with."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Grid, Levels, noise_levels
from scoresample.samplers._base import Plan, scaled
from scoresample.scores import Position


class AbstractReverseSolver(eqx.Module):
    """One formula for a step of the reverse process, from a noise level to the next.

    A solver holds settings only. Its coefficients are made on the host in float64; the particles are one batch, in
    coordinates of the solver's own choice.
    """

    @abc.abstractmethod
    def evaluations(self, num_steps: int) -> int:
        """Score evaluations of a run over a ladder of so many steps, the last denoising not counted.

        A solver whose steps adapt reports its own at run time instead, and 0 here.
        """

    @abc.abstractmethod
    def coefficients(self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool) -> Any:
        """What each step needs to know: a named tuple of arrays with a leading step axis.

        With `denoise`, the draws are the posterior means of the clean points at the last level.
        """

    @abc.abstractmethod
    def start(self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array) -> Any:
        """The state at the start, from particles in standard coordinates: a named tuple with `position`."""

    @abc.abstractmethod
    def step(
        self, path: AbstractPerturbedScore, state: Any, row: Any, eta: float, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One step of all particles, and statistics of it by name (scalars)."""

    @abc.abstractmethod
    def end(self, path: AbstractPerturbedScore, state: Any, plan: Plan, *, denoise: bool) -> Position:
        """The draws, in standard coordinates and in the scale of the data."""


def reverse_plan(
    solver: AbstractReverseSolver,
    path: AbstractPerturbedScore,
    *,
    num_steps: int,
    grid: Grid,
    delta: float | None,
    eta: float,
    denoise: bool,
) -> Plan:
    """The plan of a run with a solver: levels, coefficients, and the number of score evaluations."""
    levels = noise_levels(path, num_steps, grid, delta)
    nfe = solver.evaluations(levels.t.size - 1) + int(denoise)
    t_start, t_final = rows(levels.t[0], levels.t[-1])
    return Plan(t_start, t_final, solver.coefficients(path, levels, eta, denoise=denoise), nfe)


def rows(*columns: np.ndarray | np.floating) -> list[Array]:
    """Columns of coefficients, made in float64, in the default precision of JAX."""
    return [jnp.asarray(column, dtype=float) for column in columns]


def over_alpha(path: AbstractPerturbedScore, particles: Position, t: Array) -> Position:
    """``y = z / alpha(t)``: coordinates in which the signal keeps its scale."""
    return scaled(1 / path.process.alpha(t.astype(jnp.result_type(*jax.tree.leaves(particles)))), particles)
