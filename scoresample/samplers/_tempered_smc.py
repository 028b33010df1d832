"""Sequential Monte Carlo along a tempered path: BlackJAX's adaptive tempering with its Hamiltonian kernel."""

from typing import Any, ClassVar, NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.smc import adaptive_tempered, resampling
from blackjax.smc.tempered import TemperedSMCState
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.paths import TemperedPath
from scoresample.samplers._base import AbstractParticleSampler, ParticleInfo
from scoresample.samplers._density import promoted
from scoresample.samplers._doors import check_at_least, check_path, check_share
from scoresample.scores import Position, logdensity_fn

_LEAST_LOG_RATIO = -1e30
"""Stands for minus infinity in log densities: times an increment of 0 it is still a number."""
_GAIN = 1.0
"""Of the step size's logarithm on the acceptance rate's distance from its target, level by level."""


class TemperedSMCPlan(NamedTuple):
    """Where a run starts; its levels are found on the way.

    Attributes:
        t_start: 1, the reference.
    """

    t_start: Array


class _Progress(NamedTuple):
    smc: TemperedSMCState
    step_size: Array
    log_z: Array
    acceptance_rate: Array
    num_levels: Array
    key: Array


class TemperedSMC(AbstractParticleSampler[TemperedPath]):
    """Adaptive tempered sequential Monte Carlo: a population carried from the reference to the target.

    Level by level, particles are resampled, moved by Hamiltonian Monte Carlo that leaves the level invariant, and
    weighted towards the next level, which is as far as the weights' effective size allows. Step size and mass matrix
    follow the population. The weighted particles estimate expectations under the target with an error of order
    n^(-1/2), the adaptation's bias included; the mean of the weights' products estimates its normalising constant.

    Modes are found where the reference covers them and keep their weights; that is what NUTS cannot do. Particles
    share ancestors, so they are not independent: `Draws` holds them as interacting, with weights.

    `Draws.info` has ``log_z``, the log of the target's normalising constant (of a NumPyro model: the log evidence),
    ``num_levels`` and the last level's ``acceptance_rate``.

    Source: Del Moral, Doucet and Jasra 2006, JRSS B 68(3), section 3; adaptive levels: Jasra et al. 2011, Scand. J.
    Statist. 38(1).

    Attributes:
        num_moves: Hamiltonian transitions of every particle on each level.
        num_integration_steps: leapfrog steps of each.
        target_ess: effective share of the particles that the next level may leave.
        target_acceptance_rate: what the step size is steered to.
        max_levels: give up after so many levels.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 9.0), ss.Gaussian(jnp.ones(2), 0.5))
        >>> draws = ss.sample(path, TemperedSMC(), key=jax.random.key(0), num_samples=500)
        >>> draws.log_weights.shape
        (1, 2000)
    """

    name: ClassVar[str] = "tempered-smc"
    reference: ClassVar[str] = "Del Moral et al. 2006"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = True

    num_moves: int = eqx.field(static=True, default=5)
    num_integration_steps: int = eqx.field(static=True, default=5)
    target_ess: float = eqx.field(static=True, default=0.5)
    target_acceptance_rate: float = eqx.field(static=True, default=0.8)
    max_levels: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(
            1,
            num_moves=self.num_moves,
            num_integration_steps=self.num_integration_steps,
            max_levels=self.max_levels,
        )
        check_share(target_ess=self.target_ess, target_acceptance_rate=self.target_acceptance_rate)

    def plan(self, path: TemperedPath, *, key: Array) -> TemperedSMCPlan:
        """The start: the path's reference."""
        del key
        check_path(path, TemperedPath, self)
        return TemperedSMCPlan(jnp.ones(()))

    def run(
        self, path: TemperedPath, particles: Position, plan: TemperedSMCPlan, *, key: Array
    ) -> tuple[Position, Array | None, ParticleInfo]:
        """Carry the particles from level to level until the target is reached."""
        del plan
        start = promoted(particles)
        num, dtype = jax.tree.leaves(start)[0].shape[0], jnp.result_type(*jax.tree.leaves(start))
        dimension = ravel_pytree(start)[0].size // num
        kernel = self._level(path)

        def body(progress: _Progress) -> _Progress:
            key, key_level = jax.random.split(progress.key)
            smc, info = kernel(
                key_level,
                progress.smc,
                self.num_moves,
                {"step_size": progress.step_size[None], "inverse_mass_matrix": _variances(progress.smc)[None]},
            )
            rate = jnp.mean(jnp.nan_to_num(info.update_info.acceptance_rate)).astype(dtype)
            step_size = progress.step_size * jnp.exp(_GAIN * (rate - self.target_acceptance_rate))
            log_z = progress.log_z + info.log_likelihood_increment
            return _Progress(
                jax.tree.map(lambda new, old: new.astype(old.dtype), smc, progress.smc),
                step_size.astype(dtype),
                log_z.astype(dtype),
                rate,
                progress.num_levels + 1,
                key,
            )

        zero = jnp.zeros((), dtype)
        first = TemperedSMCState(start, jnp.full((num,), 1 / num, dtype), zero)
        progress = jax.lax.while_loop(
            lambda p: (p.smc.tempering_param < 1) & (p.num_levels < self.max_levels),
            body,
            _Progress(first, jnp.asarray(dimension**-0.25, dtype), zero, zero, jnp.zeros((), int), key),
        )
        moved = jax.tree.map(lambda x, like: x.astype(like.dtype), progress.smc.particles, particles)
        evaluations = progress.num_levels * (self.num_moves * self.num_integration_steps + 3)
        stats = {
            "log_z": progress.log_z,
            "num_levels": progress.num_levels,
            "acceptance_rate": progress.acceptance_rate,
            "solver_failed": jnp.asarray(progress.smc.tempering_param < 1),
        }
        return moved, jnp.log(progress.smc.weights), ParticleInfo(evaluations, stats)

    def _level(self, path: TemperedPath) -> Any:
        """BlackJAX's kernel from one level to the next, in standard coordinates."""
        log_reference, log_target = logdensity_fn(path.reference), logdensity_fn(path.target)

        def log_prior(z: Position) -> Array:
            return log_reference(path.frame.to_position(z))

        def log_ratio(z: Position) -> Array:
            position = path.frame.to_position(z)
            ratio = log_target(position) - log_reference(position)
            return jnp.maximum(jnp.where(jnp.isnan(ratio), _LEAST_LOG_RATIO, ratio), _LEAST_LOG_RATIO)

        hamiltonian = blackjax.hmc.build_kernel()

        def move(key: Array, state: Any, logdensity: Any, *, step_size: Array, inverse_mass_matrix: Array) -> Any:
            return hamiltonian(key, state, logdensity, step_size, inverse_mass_matrix, self.num_integration_steps)

        return adaptive_tempered.build_kernel(
            log_prior, log_ratio, move, blackjax.hmc.init, resampling.systematic, self.target_ess
        )


def _variances(state: TemperedSMCState) -> Array:
    """The weighted variances of the particles' coordinates, kept off zero."""
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(state.particles)
    mean = state.weights @ flat
    variances = state.weights @ (flat - mean) ** 2
    return jnp.maximum(variances, jnp.finfo(flat.dtype).tiny ** 0.5)
