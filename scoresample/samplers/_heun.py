"""Heun's method for the probability-flow ODE, with fresh noise before a step where a solver wants it."""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Levels, denoise_particles, levels_at
from scoresample.samplers._base import Plan, add_scaled, scaled
from scoresample.samplers._finish import finish
from scoresample.samplers._reverse_solver import AbstractReverseSolver, over_alpha, rows
from scoresample.scores import Position, random_like


class HeunStep(NamedTuple):
    """One step's row: levels and scales after the noise and at the end, and the step in s relative to s."""

    t: Array
    alpha: Array
    t_next: Array
    alpha_next: Array
    churn_sd: Array
    pull: Array
    pull_next: Array


class HeunState(NamedTuple):
    """The particles in the coordinates ``y = z/alpha``."""

    position: Position


class HeunLadder(NamedTuple):
    """Where every step begins and ends, in s = sigma/alpha, as float64 NumPy arrays of one length.

    Attributes:
        raised: the level from which the step goes down, after its noise.
        after: the level at its end.
        noise: standard deviation of the noise before it.
    """

    raised: np.ndarray
    after: np.ndarray
    noise: np.ndarray


class AbstractHeun(AbstractReverseSolver):
    """Steps of Heun's method for ``dy/ds = (y - D(y, s))/s``, s = sigma/alpha, D the denoiser: two evaluations each.

    ``y <- y + noise``, ``e = y + (s' - s) d`` with ``d = (y - D(y, s))/s``, and ``y' = y + (s' - s) (d + d')/2`` with
    ``d' = (e - D(e, s'))/s'``.
    """

    @abc.abstractmethod
    def ladder(self, path: AbstractPerturbedScore, levels: Levels) -> HeunLadder:
        """The steps of a run over a ladder of levels."""

    @abc.abstractmethod
    def is_noisy(self) -> bool:
        """Whether there is noise before any step."""

    def coefficients(self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool) -> HeunStep:
        """The steps with their times and scales."""
        del eta, denoise
        raised, after, noise = self.ladder(path, levels)
        start, end = levels_at(path, -np.log(raised)), levels_at(path, -np.log(after))
        step = after - raised
        return HeunStep(*rows(start.t, start.alpha, end.t, end.alpha, noise, step / raised, step / after))

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> HeunState:
        """The particles over alpha."""
        del eta, key
        return HeunState(over_alpha(path, particles, plan.t_start))

    def step(
        self, path: AbstractPerturbedScore, state: HeunState, row: HeunStep, eta: float, *, key: Array
    ) -> tuple[HeunState, dict[str, Array]]:
        """Noise, an Euler step, and the trapezoid with the slope at its end."""
        del eta
        y = state.position
        dtype = jnp.result_type(*jax.tree.leaves(y))
        if self.is_noisy():
            y = add_scaled(y, (row.churn_sd, random_like(key, y)))
        one = jnp.ones((), dtype)
        denoised = denoise_particles(path, scaled(row.alpha, y), row.t.astype(dtype))
        euler = add_scaled(scaled(one + row.pull, y), (-row.pull, denoised))
        again = denoise_particles(path, scaled(row.alpha_next, euler), row.t_next.astype(dtype))
        # y + step/2 [(y - D)/s + (y' - D')/s'], with pull = step/s and pull_next = step/s'.
        return HeunState(
            add_scaled(
                scaled(one + 0.5 * row.pull, y),
                (-0.5 * row.pull, denoised),
                (0.5 * row.pull_next, euler),
                (-0.5 * row.pull_next, again),
            )
        ), {}

    def end(self, path: AbstractPerturbedScore, state: HeunState, plan: Plan, *, denoise: bool) -> Position:
        """The denoised particles, or the particles as they are."""
        if not denoise:
            return state.position
        t = plan.t_final.astype(jnp.result_type(*jax.tree.leaves(state.position)))
        return finish(path, scaled(path.process.alpha(t), state.position), t, denoise=True)
