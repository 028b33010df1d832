"""Predictor-corrector sampling."""

import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractPerturbedScore,
    Grid,
    Levels,
    as_delta,
    check_delta,
    check_grid,
    denoise_particles,
    noise_levels,
    refined_grid,
)
from scoresample.samplers._base import AbstractPathSampler, Plan, add_scaled, dimension_of, scaled
from scoresample.samplers._corrector_names import CorrectorChoice, resolve_corrector
from scoresample.samplers._doors import check_at_least, check_one_of, check_path
from scoresample.samplers._finish import finish
from scoresample.samplers._frozen_score import ExponentialIntegrator
from scoresample.samplers._level_step import (
    StepRule,
    check_counts,
    check_relative_steps,
    check_step_rule,
    correct_level,
    evaluations_of_rule,
    for_each_level,
    repeated,
)
from scoresample.scores import Position, random_like

Predictor = Literal["ddpm", "exponential-integrator"]
"""What a predictor freezes over a step: the denoiser, or the score."""

_LANGEVIN_STEP = 0.2
"""Of unadjusted correctors, relative to 1/L: its bias, a tenth in the stiffest directions, shrinks with the noise."""


class PredictorStep(NamedTuple):
    """One step from level t to the next: the coefficients of the predictor, made in float64, and the corrector's.

    ``z_next = keep * z + pull * D(z, t) + spread * noise``.
    """

    t: Array
    t_next: Array
    keep: Array
    pull: Array
    spread: Array
    corrector_step_size: Array
    corrector_steps: Array


class PredictorState(NamedTuple):
    """The particles, in standard coordinates."""

    position: Position


class PredictorCorrector(AbstractPathSampler[AbstractPerturbedScore]):
    """A reverse-time step to the next noise level, then moves at that level that leave its law invariant, or nearly.

    Predictor, by default exact for a denoiser D frozen over the step (ancestral sampling, DDPM, for `eta` = 1; DDIM for
    0), in the coordinates y = z/alpha with s = sigma/alpha, h the step in log-SNR and c = 1 + eta^2:
    ``y' = exp(-c h) y + (1 - exp(-c h)) D + s' sqrt(1 - exp(-2 eta^2 h)) noise``. Or the exponential integrator of the
    convergence papers, exact for a frozen score: [`ExponentialIntegrator`][scoresample.ExponentialIntegrator].
    Corrector, `corrector_steps` times with step ``h_t = corrector_step_size / L_t``, by default with
    ``1/L_t = sigma_t^2``; one of

    * ``"langevin"``: ``x <- x + h_t s(x, t) + sqrt(2 h_t) noise``, with a bias of order h_t;
    * ``"metropolis"``: the same as a proposal, accepted or rejected from the score alone (two evaluations a step). The
      bias is gone where log p_t is a polynomial of degree four or less along a move, and tiny elsewhere;
    * ``"underdamped"``: Langevin dynamics with velocities, fresh at every level: several steps move further;
    * a chain sampler with its step size, such as ``HMC(step_size=0.5)``, ``MALA(step_size=0.5)`` or any kernel by
      ``BlackJAX(...)``, on ``path.at(t)`` for paths with a density. It moves in coordinates in which ``1/L_t`` is 1.

    With `denoise`, the last move is ``E[x_0 | x_t]``; without it, the draws have the law of the data with noise of
    variance `delta` added, in standard coordinates (early stopping: Benton et al. 2024, arXiv 2308.03686). Keep its
    root below a tenth of the data's smallest scale.

    The law tends to the target's as steps are added and the corrector's step shrinks; the corrector repairs errors
    that the predictor carries from level to level. On Gaussians it is an affine recursion, held exactly in the tests.

    Source: Song et al. 2021, arXiv 2011.13456, algorithms 2-3 (predictor: Ho et al. 2020, arXiv 2006.11239); analysed
    in Lee, Lu and Tan 2022, arXiv 2206.06227. Metropolis from the score: arXiv 2605.09654. Underdamped: Chen et al.
    2023, arXiv 2305.11798.

    Attributes:
        num_steps: number of predictor steps.
        corrector_steps: corrector steps after each, one number or one for each predictor step.
        corrector_step_size: step relative to ``1/L_t``, one number or one for each predictor step; below 2 unless
            moves are accepted or rejected. If None, 0.2, for ``"metropolis"`` d^(-1/3) in d dimensions.
        eta: noise of the predictor, from 0 (deterministic) to 1 (the reverse SDE).
        grid: "log-snr", "karras", "exponential", "uniform", or decreasing times of your own (`num_steps` is then not
            used).
        denoise: end with the posterior mean of the clean point.
        corrector: the corrector.
        predictor: "ddpm" (the denoiser is frozen over a step) or "exponential-integrator" (the score is).
        step_rule: where ``L_t`` comes from. "noise": ``1/sigma_t^2``. "jacobian": power iteration on the score's
            Jacobian at 32 of the particles. "snr": instead of it ``h_t = 2 (corrector_step_size |noise| / |s|)^2``, the
            signal-to-noise rule of Song et al.; keep the relative step near 0.16. Or a function t -> L.
        delta: variance of the noise at which sampling stops, (sigma/alpha)^2 in the path's standard coordinates, also
            where the draws are denoised after it; None for the end of the score's range. Under ``OU(T)``,
            ``exp(2 d) - 1`` is stopping at its time d. Not beside times of your own.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> draws = ss.sample(path, ss.PredictorCorrector(), key=jax.random.key(0), num_samples=25)
        >>> draws.nfe
        201.0
        >>> exact = ss.PredictorCorrector(num_steps=20, corrector="metropolis", corrector_steps=2)
        >>> draws = ss.sample(path, exact, key=jax.random.key(0), num_samples=25)
        >>> draws.info["acceptance_rate"].shape
        (1, 20)
    """

    name: ClassVar[str] = "predictor-corrector"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=100)
    corrector_steps: int | tuple[int, ...] = eqx.field(static=True, default=1)
    corrector_step_size: float | tuple[float, ...] | None = eqx.field(static=True, default=None)
    eta: float = eqx.field(static=True, default=1.0)
    grid: Grid = "log-snr"
    denoise: bool = eqx.field(static=True, default=True)
    corrector: CorrectorChoice = "langevin"
    step_rule: StepRule = "noise"
    predictor: Predictor = eqx.field(static=True, default="ddpm")
    delta: float | None = eqx.field(static=True, default=None, converter=as_delta)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps)
        check_counts("corrector_steps", self.corrector_steps)
        check_delta(self.delta, check_grid(self.grid))
        check_step_rule(self.step_rule)
        check_one_of(get_args(Predictor), predictor=self.predictor)
        most = resolve_corrector(self.corrector).most_relative_step
        check_relative_steps("corrector_step_size", self.corrector_step_size, most)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"`eta` must lie between 0 and 1, got {self.eta}.")

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> Plan:
        """Levels, and the predictor's coefficients for them."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        corrector = resolve_corrector(self.corrector)
        corrector.check(path)
        levels = noise_levels(path, self.num_steps, self.grid, self.delta)
        keep, pull, spread = self._predictor(path, levels)
        num_steps = spread.size
        relative = self.corrector_step_size
        if relative is None:
            relative = corrector.relative_step(dimension_of(path.structure), _LANGEVIN_STEP)
        counts = jnp.asarray(for_each_level("corrector_steps", self.corrector_steps, num_steps), dtype=int)
        columns = (
            levels.t[:-1],
            levels.t[1:],
            levels.alpha[1:] / levels.alpha[:-1] * keep,
            levels.alpha[1:] * pull,
            levels.alpha[1:] * spread,
            for_each_level("corrector_step_size", relative, num_steps),
        )
        steps = PredictorStep(*(jnp.asarray(column, dtype=float) for column in columns), corrector_steps=counts)
        once = 1 + corrector.evaluations_per_level + evaluations_of_rule(self.step_rule)
        nfe = num_steps * once + int(counts.sum()) * corrector.evaluations_per_step + int(self.denoise)
        return Plan(steps.t[0], steps.t_next[-1], steps, nfe)

    def _predictor(self, path: AbstractPerturbedScore, levels: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coefficients of ``y' = keep y + pull D + spread noise`` in the coordinates ``y = z/alpha``."""
        if self.predictor == "exponential-integrator":
            return ExponentialIntegrator().keep_pull_spread(path, levels, self.eta)
        h = np.diff(levels.log_snr)
        decay = (1 + self.eta**2) * h
        spread = np.exp(-levels.log_snr[1:]) * np.sqrt(-np.expm1(-2 * self.eta**2 * h))
        return np.exp(-decay), -np.expm1(-decay), spread

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
        particles, stats = correct_level(
            path, particles, t_next, resolve_corrector(self.corrector), rule=self.step_rule,
            relative=plan_step.corrector_step_size,
            num_steps=self.corrector_steps if isinstance(self.corrector_steps, int) else plan_step.corrector_steps,
            key=key_corrector,
        )  # fmt: skip
        return PredictorState(particles), stats

    def final(self, path: AbstractPerturbedScore, state: PredictorState, plan: Plan) -> tuple[Position, None]:
        """The denoised particles, or the particles in the scale of the data."""
        return finish(path, state.position, plan.t_final, denoise=self.denoise), None

    def refined(self, factor: int) -> "PredictorCorrector":
        """The same sampler with `factor` times as many steps."""
        return dataclasses.replace(
            self,
            num_steps=factor * self.num_steps,
            grid=refined_grid(self.grid, factor),
            corrector_steps=repeated(self.corrector_steps, factor),
            corrector_step_size=repeated(self.corrector_step_size, factor),
        )
