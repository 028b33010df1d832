"""Annealed Langevin dynamics."""

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import (
    AbstractPerturbedScore,
    AbstractScorePath,
    check_concrete,
    estimate_lipschitz,
    noise_levels,
    score_particles,
)
from scoresample.samplers._base import AbstractPathSampler, Plan, add_scaled, scaled
from scoresample.samplers._doors import check_at_least, check_path, check_positive
from scoresample.samplers._finish import finish
from scoresample.scores import Position, random_like

_TEMPERED_POWER = 3.0
"""Inverse temperatures of a tempered path are ``(k/n)^3``: densest where the reference changes fastest."""
_STEP_ON_NOISED_PATHS = 0.7
"""Large, since the last move denoises: the ladder then forgets more of the levels before."""
_STEP_ON_OTHER_PATHS = 0.2
"""Small, since the bias of the last level's steps stays in the draws."""


class LangevinLevel(NamedTuple):
    """What one level needs: its time, and the factor that takes particles there from the level before."""

    t: Array
    rescale: Array


class LangevinState(NamedTuple):
    """The particles, in standard coordinates."""

    position: Position


class AnnealedLangevin(AbstractPathSampler[AbstractScorePath]):
    """Langevin steps at every level of a path, from noise to data: each level starts warm from the last.

    At level t, with step ``h_t = step_size / L_t`` (L_t the Lipschitz constant of the score there, ``1/sigma_t^2`` for
    noised data, estimated from the particles for tempered paths):
    ``x <- x + h_t s(x, t) + sqrt(2 h_t) z``, `steps_per_level` times. Between levels of a noised path, particles are
    rescaled by the ratio of the alphas. With `denoise`, the last move is ``E[x_0 | x_t]``.

    On a tempered path with separated modes the weights are those of the level at which particles last crossed: watch
    them as levels are added. A step size estimated from particles is shared by a batch.

    No level is left invariant exactly: each carries the bias of unadjusted Langevin, of order `step_size`, and what
    the finite ladder has not forgotten of the level before. On noised paths steps shrink with the noise, and more
    levels remove both; on tempered paths the last level keeps the bias of its step unless `step_size` shrinks too. On
    Gaussians the law is an affine recursion, which the tests hold exactly: with the default settings the draws of a
    noised path are 1.6% too wide.

    Source: Song and Ermon 2019, arXiv 1907.05600, algorithm 1; analysed in Lee, Lu and Tan 2022, arXiv 2206.06227.

    Attributes:
        num_levels: number of levels of the ladder.
        steps_per_level: Langevin steps at each.
        step_size: step relative to ``1/L_t``; must be below 2 to be stable. If None, 0.7 on noised paths, whose last
            move removes most of the bias of large steps, and 0.2 on others.
        denoise: end with the posterior mean of the clean point (noised paths only).

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
    steps_per_level: int = eqx.field(static=True, default=5)
    step_size: float | None = eqx.field(static=True, default=None)
    denoise: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_levels=self.num_levels, steps_per_level=self.steps_per_level)
        if self.step_size is None:
            return
        check_positive(step_size=self.step_size)
        if self.step_size >= 2:
            raise ValueError(f"`step_size` is in units of 1/L and Langevin diverges from 2 on, got {self.step_size}.")

    def plan(self, path: AbstractScorePath, *, key: Array) -> Plan:
        """Levels uniform in log-SNR on noised paths; inverse temperatures ``(k/n)^3`` on others."""
        del key
        check_path(path, AbstractScorePath, self)
        nfe = self.num_levels * self.steps_per_level
        if isinstance(path, AbstractPerturbedScore):
            levels = noise_levels(path, max(self.num_levels - 1, 1))
            t, alpha = levels.t[-self.num_levels :], levels.alpha[-self.num_levels :]
            rescale = np.concatenate([[1.0], alpha[1:] / alpha[:-1]])
            nfe += int(self.denoise)
        else:
            check_concrete(path)
            t = 1 - (np.arange(1, self.num_levels + 1) / self.num_levels) ** _TEMPERED_POWER
            rescale = np.ones_like(t)
        steps = LangevinLevel(jnp.asarray(t, dtype=float), jnp.asarray(rescale, dtype=float))
        return Plan(steps.t[0], steps.t[-1], steps, nfe)

    def init(self, path: AbstractScorePath, particles: Position, plan: Plan, *, key: Array) -> LangevinState:
        """The particles as they come."""
        del path, plan, key
        return LangevinState(particles)

    def step(
        self, path: AbstractScorePath, state: LangevinState, plan_step: LangevinLevel, *, key: Array
    ) -> tuple[LangevinState, dict[str, Array]]:
        """All Langevin steps of one level."""
        key_lipschitz, key_noise = jax.random.split(key)
        particles = scaled(plan_step.rescale, state.position)
        t = plan_step.t.astype(jnp.result_type(*jax.tree.leaves(particles)))
        lipschitz = path.lipschitz(t)
        if lipschitz is None:
            lipschitz = estimate_lipschitz(path, particles, t, key=key_lipschitz)
        h = self._relative_step(path) / lipschitz

        def body(index: Array, particles: Position) -> Position:
            noise = random_like(jax.random.fold_in(key_noise, index), particles)
            return add_scaled(particles, (h, score_particles(path, particles, t)), (jnp.sqrt(2 * h), noise))

        particles = jax.lax.fori_loop(0, self.steps_per_level, body, particles)
        return LangevinState(particles), {"level_step_size": h}

    def _relative_step(self, path: AbstractScorePath) -> float:
        if self.step_size is not None:
            return self.step_size
        return _STEP_ON_NOISED_PATHS if isinstance(path, AbstractPerturbedScore) else _STEP_ON_OTHER_PATHS

    def final(self, path: AbstractScorePath, state: LangevinState, plan: Plan) -> Position:
        """The denoised particles, or the particles in the scale of the data."""
        if not isinstance(path, AbstractPerturbedScore):
            return state.position
        return finish(path, state.position, plan.t_final, denoise=self.denoise)

    def refined(self, factor: int) -> "AnnealedLangevin":
        """The same sampler with `factor` times as many levels."""
        return dataclasses.replace(self, num_levels=factor * self.num_levels)
