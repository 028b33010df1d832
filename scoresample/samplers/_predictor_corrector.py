"""Predictor-corrector sampling."""

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractPerturbedScore,
    Grid,
    check_grid,
    denoise_particles,
    noise_levels,
    refined_grid,
    score_particles,
)
from scoresample.samplers._base import AbstractPathSampler, Plan, add_scaled, scaled
from scoresample.samplers._doors import check_at_least, check_path, check_positive
from scoresample.samplers._finish import finish
from scoresample.scores import Position, random_like


class PredictorStep(NamedTuple):
    """One step from level t to the next: the coefficients of the predictor, made in float64.

    ``z_next = keep * z + pull * D(z, t) + spread * noise``.
    """

    t: Array
    t_next: Array
    keep: Array
    pull: Array
    spread: Array


class PredictorState(NamedTuple):
    """The particles, in standard coordinates."""

    position: Position


class PredictorCorrector(AbstractPathSampler[AbstractPerturbedScore]):
    """A reverse-time step to the next noise level, then Langevin steps at that level.

    Predictor, exact for a denoiser D frozen over the step (ancestral sampling, DDPM, for `eta` = 1; DDIM for 0), in
    the coordinates y = z/alpha with s = sigma/alpha, h the step in log-SNR and c = 1 + eta^2:
    ``y' = exp(-c h) y + (1 - exp(-c h)) D + s' sqrt(1 - exp(-2 eta^2 h)) noise``.
    Corrector, `corrector_steps` times with step ``h_t = corrector_step_size sigma_t^2``:
    ``x <- x + h_t s(x, t) + sqrt(2 h_t) noise``. With `denoise`, the last move is ``E[x_0 | x_t]``.

    The law tends to the target's as steps are added and the corrector's step shrinks; the corrector repairs errors
    that the predictor carries from level to level. On Gaussians it is an affine recursion, held exactly in the tests.

    Source: Song et al. 2021, arXiv 2011.13456, algorithms 2-3 (predictor: Ho et al. 2020, arXiv 2006.11239); analysed
    in Lee, Lu and Tan 2022, arXiv 2206.06227.

    Attributes:
        num_steps: number of predictor steps.
        corrector_steps: Langevin steps after each.
        corrector_step_size: step relative to ``1/L_t = sigma_t^2``; must be below 2 to be stable.
        eta: noise of the predictor, from 0 (deterministic) to 1 (the reverse SDE).
        grid: "log-snr", "karras", "exponential", "uniform", or decreasing times of your own (`num_steps` is then not
            used).
        denoise: end with the posterior mean of the clean point.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> draws = ss.sample(path, ss.PredictorCorrector(), key=jax.random.key(0), num_samples=25)
        >>> draws.nfe
        201.0
    """

    name: ClassVar[str] = "predictor-corrector"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=100)
    corrector_steps: int = eqx.field(static=True, default=1)
    corrector_step_size: float = eqx.field(static=True, default=0.2)
    eta: float = eqx.field(static=True, default=1.0)
    grid: Grid = "log-snr"
    denoise: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps, corrector_steps=self.corrector_steps)
        check_grid(self.grid)
        check_positive(corrector_step_size=self.corrector_step_size)
        if self.corrector_step_size >= 2:
            raise ValueError(
                f"`corrector_step_size` is in units of 1/L and Langevin diverges from 2 on, got "
                f"{self.corrector_step_size}."
            )
        if not 0 <= self.eta <= 1:
            raise ValueError(f"`eta` must lie between 0 and 1, got {self.eta}.")

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> Plan:
        """Levels, and the predictor's coefficients for them."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        levels = noise_levels(path, self.num_steps, self.grid)
        h = np.diff(levels.log_snr)
        decay = (1 + self.eta**2) * h
        columns = (
            levels.t[:-1],
            levels.t[1:],
            levels.alpha[1:] / levels.alpha[:-1] * np.exp(-decay),
            -levels.alpha[1:] * np.expm1(-decay),
            levels.sigma[1:] * np.sqrt(-np.expm1(-2 * self.eta**2 * h)),
        )
        steps = PredictorStep(*(jnp.asarray(column, dtype=float) for column in columns))
        nfe = h.size * (1 + self.corrector_steps) + int(self.denoise)
        return Plan(steps.t[0], steps.t_next[-1], steps, nfe)

    def init(self, path: AbstractPerturbedScore, particles: Position, plan: Plan, *, key: Array) -> PredictorState:
        """The particles as they come."""
        del path, plan, key
        return PredictorState(particles)

    def step(
        self, path: AbstractPerturbedScore, state: PredictorState, plan_step: PredictorStep, *, key: Array
    ) -> tuple[PredictorState, dict[str, Array]]:
        """One predictor step and the corrector steps at the new level."""
        dtype = jnp.result_type(*jax.tree.leaves(state.position))
        t, t_next = plan_step.t.astype(dtype), plan_step.t_next.astype(dtype)
        key_predictor, key_corrector = jax.random.split(key)
        particles = add_scaled(
            scaled(plan_step.keep, state.position), (plan_step.pull, denoise_particles(path, state.position, t))
        )
        if self.eta > 0:
            particles = add_scaled(particles, (plan_step.spread, random_like(key_predictor, particles)))
        h = self.corrector_step_size / path.lipschitz(t_next)

        def correct(index: Array, particles: Position) -> Position:
            noise = random_like(jax.random.fold_in(key_corrector, index), particles)
            return add_scaled(particles, (h, score_particles(path, particles, t_next)), (jnp.sqrt(2 * h), noise))

        return PredictorState(jax.lax.fori_loop(0, self.corrector_steps, correct, particles)), {}

    def final(self, path: AbstractPerturbedScore, state: PredictorState, plan: Plan) -> Position:
        """The denoised particles, or the particles in the scale of the data."""
        return finish(path, state.position, plan.t_final, denoise=self.denoise)

    def refined(self, factor: int) -> "PredictorCorrector":
        """The same sampler with `factor` times as many steps."""
        steps, grid = factor * self.num_steps, refined_grid(self.grid, factor)
        return dataclasses.replace(self, num_steps=steps, grid=grid)
