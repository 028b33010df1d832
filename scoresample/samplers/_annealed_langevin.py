"""Annealed Langevin dynamics."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractPerturbedScore,
    AbstractScorePath,
    TemperedPath,
    as_delta,
    as_time,
    check_concrete,
)
from scoresample.samplers._adaptive_ladder import pilot_curvatures
from scoresample.samplers._annealing_weights import updated_weights, weighted_langevin
from scoresample.samplers._base import AbstractPathSampler, Plan, dimension_of, scaled
from scoresample.samplers._corrector import AbstractCorrector, LangevinCorrector
from scoresample.samplers._corrector_names import CorrectorChoice, resolve_corrector
from scoresample.samplers._doors import check_at_least, check_noise_to_stop_at, check_path
from scoresample.samplers._finish import finish
from scoresample.samplers._kernel_corrector import KernelCorrector
from scoresample.samplers._ladders import (
    LadderChoice,
    check_ladder,
    noised_ladder,
    refined_ladder,
    tempered_ladder,
)
from scoresample.samplers._level_step import (
    StepRule,
    check_counts,
    check_relative_steps,
    check_step_rule,
    correct_level,
    estimates_steps,
    evaluations_of_rule,
    for_each_level,
    level_step,
    repeated,
)
from scoresample.samplers._mala_move import level_densities
from scoresample.scores import Position

_STEP_ON_NOISED_PATHS = 0.7
"""Large, since the last move denoises: the ladder then forgets more of the levels before."""
_STEP_ON_OTHER_PATHS = 0.2
"""Small, since the bias of the last level's steps stays in the draws."""


class LangevinLevel(NamedTuple):
    """What one level needs: its time, the factor that takes particles there from the level before, and its moves."""

    t: Array
    rescale: Array
    num_steps: Array
    step_size: Array
    divergence: Array
    curvature: Array


class LangevinState(NamedTuple):
    """The particles, in standard coordinates.

    Attributes:
        position: the particles.
        log_weights: of each, or None.
        log_density: under the level that they last moved at, where there are weights.
    """

    position: Position
    log_weights: Array | None
    log_density: Array | None


class AnnealedLangevin(AbstractPathSampler[AbstractScorePath]):
    """Langevin steps at every level of a path, from noise to data: each level starts warm from the last.

    At level t, with step ``h_t = step_size / L_t`` (L_t the Lipschitz constant of the score there, ``1/sigma_t^2`` for
    noised data, estimated from the particles for tempered paths):
    ``x <- x + h_t s(x, t) + sqrt(2 h_t) z``, `steps_per_level` times, or the moves of another `corrector`. Between
    levels of a noised path, particles are rescaled by the ratio of the alphas. With `denoise`, the last move is
    ``E[x_0 | x_t]``; without it, the draws of a noised path have, up to the bias of the steps, the law of the data with
    noise of variance `delta` added, in standard coordinates (early stopping: Benton et al. 2024, arXiv 2308.03686).
    Keep its root below a tenth of the data's smallest scale.

    On a tempered path the levels are placed by a pilot run such that neighbours are equally close:
    ``Draws.info["warm_start_divergence"]`` is their Renyi-2 divergence, to be kept well below 1 by more levels.
    `weights` makes it annealed importance sampling: particles carry weights that correct for everything, the finite
    ladder and the bias of the steps. For moves that leave their level invariant the weight is the product of
    ``p_{k+1}/p_k`` at the points where levels change; for Langevin steps it is that times the Metropolis ratios of all
    steps, which makes the weighted draws right at any step size (sizes that have to be estimated are then found on a
    second pilot run, not on the particles that they move). `Draws.info` then has ``log_z``, the log of the target's
    normalising constant (of a NumPyro model: the log evidence), with its standard error.

    On a tempered path with separated modes the fractions of draws without weights are those of the level at which
    particles last crossed: watch them as levels are added. A step size estimated from particles is shared by a batch.

    Without weights no level is left invariant exactly: each carries the bias of unadjusted Langevin, of order
    `step_size`, and what the finite ladder has not forgotten of the level before. On noised paths steps shrink with the
    noise, and more levels remove both; on tempered paths the last level keeps the bias of its step unless `step_size`
    shrinks too. On Gaussians the law is an affine recursion, which the tests hold exactly: with the default settings
    the draws of a noised path are 1.6% too wide. Where modes are far apart, its long steps leave their shares off by
    several hundredths: take `step_size` 0.2 with 20 steps a level, or ``"metropolis"``.

    Source: Song and Ermon 2019, arXiv 1907.05600, algorithm 1; analysed in Lee, Lu and Tan 2022, arXiv 2206.06227.
    Weights: Neal 2001, Statistics and Computing 11(2); of unadjusted steps: Heng et al. 2020, arXiv 1708.08396, section
    4.1, and Thin et al. 2021, arXiv 2106.15921.

    Attributes:
        num_levels: number of levels of the ladder.
        steps_per_level: steps at each, one number or one for each level.
        step_size: step relative to ``1/L_t``, one number or one for each level; below 2 unless moves are accepted or
            rejected. If None, 0.7 on noised paths, whose last move removes most of the bias of large steps, and 0.2 on
            others; for ``"metropolis"`` d^(-1/3) in d dimensions.
        denoise: end with the posterior mean of the clean point (noised paths only).
        corrector: "langevin", "metropolis", "underdamped", or a chain sampler with its step size: see
            [`PredictorCorrector`][scoresample.PredictorCorrector].
        step_rule: where ``L_t`` comes from: see there.
        ladder: how levels are placed. On noised paths a grid's name, by default "log-snr"; on tempered ones "adaptive"
            (the default; its pilot's evaluations are counted in ``num_evaluations``, not in ``nfe``) or "power", the
            inverse temperatures ``(k/n)^3``. Or decreasing times of your own, as many as levels, which on tempered
            paths end at 0.
        weights: weigh the particles (tempered paths; Langevin steps, or a sampler that accepts or rejects: of
            `BlackJAX` one that does).
        delta: variance of the noise at which sampling stops, (sigma/alpha)^2 in the path's standard coordinates, also
            where the draws are denoised after it; None for the end of the score's range. Under ``OU(T)``,
            ``exp(2 d) - 1`` is stopping at its time d. Noised paths only, and not beside times of your
            own.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> ss.sample(path, ss.AnnealedLangevin(), key=jax.random.key(0), num_samples=25).position.shape
        (1, 100, 2)
    """

    name: ClassVar[str] = "annealed-langevin"
    reference: ClassVar[str] = "Song and Ermon 2019"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_levels: int = eqx.field(static=True, default=100)
    steps_per_level: int | tuple[int, ...] = eqx.field(static=True, default=5)
    step_size: float | tuple[float, ...] | None = eqx.field(static=True, default=None)
    denoise: bool = eqx.field(static=True, default=True)
    corrector: CorrectorChoice = "langevin"
    step_rule: StepRule = "noise"
    ladder: LadderChoice = None
    weights: bool = eqx.field(static=True, default=False)
    delta: float | None = eqx.field(static=True, default=None, converter=as_delta)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_levels=self.num_levels)
        check_counts("steps_per_level", self.steps_per_level)
        check_step_rule(self.step_rule)
        corrector = resolve_corrector(self.corrector)
        check_relative_steps("step_size", self.step_size, corrector.most_relative_step)
        check_ladder(self.ladder, self.delta)
        if self.weights and not (isinstance(corrector, LangevinCorrector) or _leaves_invariant(corrector)):
            raise ValueError(
                f"`weights`: what {self.corrector!r} leaves invariant is not known exactly, so its particles have no "
                'weights. Use corrector="langevin", whose weights correct its bias, or a sampler that accepts or '
                "rejects by the density, such as HMC(step_size=0.5)."
            )

    def plan(self, path: AbstractScorePath, *, key: Array) -> Plan:
        """Levels uniform in log-SNR on noised paths, by a pilot run on tempered ones."""
        check_path(path, AbstractScorePath, self)
        check_concrete(path)
        corrector = resolve_corrector(self.corrector)
        corrector.check(path)
        if self.weights and not isinstance(path, TemperedPath):
            raise ValueError(
                f"`weights` need a TemperedPath, whose levels all have densities, but the target is a "
                f"{type(path).__name__}. reweight(draws, density) weighs draws of a learned score."
            )
        check_noise_to_stop_at(path, self.delta)
        noised = isinstance(path, AbstractPerturbedScore)
        relative = self.step_size
        if relative is None:
            otherwise = _STEP_ON_NOISED_PATHS if noised else _STEP_ON_OTHER_PATHS
            relative = corrector.relative_step(dimension_of(path.structure), otherwise)
        counts = for_each_level("steps_per_level", self.steps_per_level, self.num_levels)
        relatives = for_each_level("step_size", relative, self.num_levels)
        if isinstance(path, AbstractPerturbedScore):
            ladder = noised_ladder(path, self.ladder, self.num_levels, self.delta)
        else:
            ladder = tempered_ladder(
                path, self.ladder, self.num_levels, corrector, rule=self.step_rule,
                relative=float(np.mean(relatives)), num_steps=int(np.max(counts)), key=key,
            )  # fmt: skip
        if self.weights and isinstance(path, TemperedPath) and estimates_steps(path, self.step_rule):
            curvature, evaluations = pilot_curvatures(
                path, ladder.t, corrector, rule=self.step_rule, relatives=relatives, num_steps=int(np.max(counts)),
                key=jax.random.fold_in(key, 1),
            )  # fmt: skip
            ladder = ladder._replace(curvature=curvature, evaluations=ladder.evaluations + evaluations)
        steps = LangevinLevel(
            t=jnp.asarray(ladder.t, dtype=float),
            rescale=jnp.asarray(ladder.rescale, dtype=float),
            num_steps=jnp.asarray(counts, dtype=int),
            step_size=jnp.asarray(relatives, dtype=float),
            divergence=jnp.full(self.num_levels, ladder.divergence, dtype=float),
            curvature=jnp.asarray(np.broadcast_to(ladder.curvature, ladder.t.shape), dtype=float),
        )
        once = corrector.evaluations_per_level
        once += 2 if self.weights else evaluations_of_rule(self.step_rule)
        nfe = self.num_levels * once + int(counts.sum()) * corrector.evaluations_per_step
        nfe += int(self.denoise and noised) + int(self.weights)
        return Plan(steps.t[0], steps.t[-1], steps, nfe, np.asarray(ladder.evaluations))

    def init(self, path: AbstractScorePath, particles: Position, plan: Plan, *, key: Array) -> LangevinState:
        """The particles as they come."""
        del plan, key
        if not self.weights:
            return LangevinState(particles, None, None)
        densities = level_densities(path, particles, jnp.ones(()))
        return LangevinState(particles, jnp.zeros_like(densities), densities)

    def step(
        self, path: AbstractScorePath, state: LangevinState, plan_step: LangevinLevel, *, key: Array
    ) -> tuple[LangevinState, dict[str, Array]]:
        """All moves of one level."""
        particles = scaled(plan_step.rescale, state.position)
        t = as_time(plan_step.t, particles)
        corrector = resolve_corrector(self.corrector)
        count = self.steps_per_level if isinstance(self.steps_per_level, int) else plan_step.num_steps
        rule: StepRule = self.step_rule
        if self.weights and estimates_steps(path, self.step_rule):
            rule = lambda _: plan_step.curvature  # noqa: E731
        settings: dict[str, Any] = {"rule": rule, "relative": plan_step.step_size, "key": key}
        if state.log_weights is None or state.log_density is None:
            particles, stats = correct_level(path, particles, t, corrector, num_steps=count, **settings)
            state = LangevinState(particles, None, None)
        elif isinstance(corrector, LangevinCorrector):
            size = level_step(path, particles, t, **settings).size
            particles, gained = weighted_langevin(
                path, particles, t, size, num_steps=count, key=jax.random.fold_in(key, 1)
            )
            density = level_densities(path, particles, t)
            log_weights = updated_weights(state.log_weights, gained, density, state.log_density)
            state = LangevinState(particles, log_weights, density)
            stats = {"level_step_size": size}
        else:
            density = level_densities(path, particles, t)
            log_weights = updated_weights(state.log_weights, jnp.zeros_like(density), density, state.log_density)
            particles, stats = correct_level(path, particles, t, corrector, num_steps=count, **settings)
            state = LangevinState(particles, log_weights, level_densities(path, particles, t))
        return state, stats | {"warm_start_divergence": plan_step.divergence}

    def final(self, path: AbstractScorePath, state: LangevinState, plan: Plan) -> tuple[Position, Array | None]:
        """The denoised particles, or the particles in the scale of the data, and their weights."""
        if not isinstance(path, AbstractPerturbedScore):
            return state.position, state.log_weights
        return finish(path, state.position, plan.t_final, denoise=self.denoise), None

    def refined(self, factor: int) -> "AnnealedLangevin":
        """The same sampler with `factor` times as many levels."""
        return dataclasses.replace(
            self,
            num_levels=factor * self.num_levels,
            ladder=refined_ladder(self.ladder, self.num_levels, factor),
            steps_per_level=repeated(self.steps_per_level, factor),
            step_size=repeated(self.step_size, factor),
        )


def _leaves_invariant(corrector: AbstractCorrector) -> bool:
    """Whether it is a sampler that accepts or rejects by the density of a level."""
    return isinstance(corrector, KernelCorrector) and corrector.sampler.needs_density
