"""Heun steps with churn."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Levels, denoise_particles, levels_at
from scoresample.samplers._base import Plan, add_scaled, scaled
from scoresample.samplers._finish import finish
from scoresample.samplers._reverse_solver import AbstractReverseSolver, over_alpha, rows
from scoresample.scores import Position, random_like

_MOST_CHURN = np.sqrt(2) - 1
"""Karras et al. 2022, algorithm 2: no step more than doubles the variance of the noise."""


class HeunStep(NamedTuple):
    """One step's row: levels and scales after the churn and at the end, and the step in s relative to s."""

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


class KarrasHeun(AbstractReverseSolver):
    """Heun's method for ``dy/ds = (y - D(y, s))/s``, s = sigma/alpha, after adding a little noise ("churn").

    Each step raises the noise level from s to ``s (1 + gamma)``, ``gamma = min(churn/num_steps, sqrt(2) - 1)``, with
    fresh noise, and goes down from there to the next level by Heun's method: two evaluations a step. Without churn it
    is a solver of the probability-flow ODE, of order 2 in the step; with it a stochastic sampler whose churn forgets
    errors of the steps before (its bias tends to 0 with the steps, for an exact score).

    Source: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2. It was made for the grid ``"karras"``.

    Attributes:
        churn: their S_churn, at least 0.
        churn_range: noise levels s between which there is churn: their (S_tmin, S_tmax).
        inflation: factor of the churn's noise, their S_noise.

    Examples:
        >>> import scoresample as ss
        >>> sampler = ss.ReverseSDE(num_steps=40, solver=ss.KarrasHeun(churn=10.0), grid="karras")
    """

    churn: float = eqx.field(static=True, default=0.0)
    churn_range: tuple[float, float] = eqx.field(static=True, default=(0.0, float("inf")))
    inflation: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.churn < float("inf"):
            raise ValueError(f"`churn` must be at least 0, got {self.churn}.")
        if not 0 <= self.churn_range[0] < self.churn_range[1]:
            raise ValueError(f"`churn_range` must be two increasing noise levels, got {self.churn_range}.")
        if not 0 < self.inflation < float("inf"):
            raise ValueError(f"`inflation` must be positive, got {self.inflation}.")

    def evaluations(self) -> tuple[int, int]:
        """Two a step."""
        return 2, 0

    def coefficients(self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool) -> HeunStep:
        """Levels after the churn; it never leaves the range in which the score is valid."""
        del eta, denoise
        s = np.exp(-levels.log_snr)
        low, high = self.churn_range
        gamma = np.where((low <= s[:-1]) & (s[:-1] <= high), min(self.churn / (s.size - 1), _MOST_CHURN), 0.0)
        raised = np.maximum(np.minimum(s[:-1] * (1 + gamma), np.exp(-float(path.log_snr_range[0]))), s[:-1])
        churned = levels_at(path, -np.log(raised))
        step = s[1:] - raised
        return HeunStep(
            *rows(
                churned.t,
                churned.alpha,
                levels.t[1:],
                levels.alpha[1:],
                self.inflation * np.sqrt(raised**2 - s[:-1] ** 2),
                step / raised,
                step / s[1:],
            )
        )

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> HeunState:
        """The particles over alpha."""
        del eta, key
        return HeunState(over_alpha(path, particles, plan.t_start))

    def step(
        self, path: AbstractPerturbedScore, state: HeunState, row: HeunStep, eta: float, *, key: Array
    ) -> tuple[HeunState, dict[str, Array]]:
        """Churn, an Euler step, and the trapezoid with the slope at its end."""
        del eta
        y = state.position
        dtype = jnp.result_type(*jax.tree.leaves(y))
        if self.churn > 0:
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
