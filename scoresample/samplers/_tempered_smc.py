"""Sequential Monte Carlo along a tempered path, of BlackJAX's parts: its Hamiltonian kernel, resampling, levels."""

from typing import Any, ClassVar, NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
from blackjax.smc import resampling
from blackjax.smc.ess import ess_solver
from blackjax.smc.solver import dichotomy
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.paths import TemperedPath
from scoresample.samplers._base import AbstractParticleSampler, ParticleInfo
from scoresample.samplers._density import promoted
from scoresample.samplers._doors import check_at_least, check_path, check_share
from scoresample.scores import Position, logdensity_fn

_LEAST_LOG_RATIO = -1e30
"""Stands for minus infinity in log densities: times an increment of 0 it is still a number."""
_GAIN = 2.0
"""Of the step size's logarithm on the acceptance rate's distance from its target, move by move."""


class TemperedSMCPlan(NamedTuple):
    """Where a run starts; its levels are found on the way.

    Attributes:
        t_start: 1, the reference.
    """

    t_start: Array


class _Population(NamedTuple):
    """The particles at a level, weighted towards the next."""

    particles: Position
    log_weights: Array
    inverse_temperature: Array
    step_size: Array
    log_z: Array
    acceptance_rate: Array
    least_move: Array
    num_levels: Array
    key: Array


class TemperedSMC(AbstractParticleSampler[TemperedPath]):
    """Adaptive tempered sequential Monte Carlo: a population carried from the reference to the target.

    Level by level, particles are weighted towards the next level, which is as far as the weights' effective size
    allows, resampled, and moved by Hamiltonian Monte Carlo that leaves that level invariant. Step size and mass matrix
    follow the population. The weighted particles estimate expectations under the target with an error of order
    n^(-1/2), the adaptation's bias included; the mean of the weights' products estimates its normalising constant.

    Modes are found where the reference covers them and keep their weights; that is what NUTS cannot do. Particles
    share ancestors, so they are not independent: `Draws` holds them as interacting, with weights.

    `Draws.info` has ``log_z``, the log of the target's normalising constant (of a NumPyro model: the log evidence),
    ``num_levels``, the last level's ``acceptance_rate``, and ``least_move``: the mean square that the moves of a level
    shift a coordinate by, over twice its variance, for the worst coordinate and level. It is 1 where particles forget
    where they were, and a check warns where it is small. Of a `LineIntegralDensity` the constant is relative to the
    density at its origin.

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
        log_reference, log_ratio = _standard_densities(path)

        def weigh(population: _Population) -> _Population:
            """Weights towards the next level, as far as their effective size allows."""
            ratios = jax.vmap(log_ratio)(population.particles)
            left = 1 - population.inverse_temperature
            step = ess_solver(lambda _: ratios, population.particles, self.target_ess, left, dichotomy)
            step = jnp.clip(step, 0.0, left)
            log_weights = step * ratios
            total = jax.nn.logsumexp(log_weights)
            return population._replace(
                log_weights=(log_weights - total).astype(dtype),
                inverse_temperature=jnp.where(step < left, population.inverse_temperature + step, 1.0).astype(dtype),
                log_z=(population.log_z + total - jnp.log(num)).astype(dtype),
                num_levels=population.num_levels + 1,
            )

        def advance(population: _Population) -> _Population:
            key, key_resample, key_move = jax.random.split(population.key, 3)
            variances = _variances(population)
            chosen = resampling.systematic(key_resample, jnp.exp(population.log_weights), num)
            parents = jax.tree.map(lambda x: x[chosen], population.particles)
            beta = population.inverse_temperature
            moved, step_size, rate = self._moved(
                parents, lambda z: log_reference(z) + beta * log_ratio(z), population.step_size, variances, key_move
            )
            squares = jnp.mean((_flat(moved) - _flat(parents)) ** 2, axis=0)
            return weigh(
                population._replace(
                    particles=moved,
                    step_size=step_size,
                    acceptance_rate=rate,
                    least_move=jnp.minimum(population.least_move, jnp.min(squares / (2 * variances))),
                    key=key,
                )
            )

        zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
        equal = jnp.full((num,), -jnp.log(num), dtype)
        step_size = jnp.asarray(dimension**-0.25, dtype)
        first = _Population(start, equal, zero, step_size, zero, one, one, jnp.zeros((), int), key)
        last = jax.lax.while_loop(
            lambda p: (p.inverse_temperature < 1) & (p.num_levels < self.max_levels), advance, weigh(first)
        )
        moved = jax.tree.map(lambda x, like: x.astype(like.dtype), last.particles, particles)
        per_level = self.num_moves * self.num_integration_steps + 2  # of the moves, their start, and the weights
        stats = {
            "log_z": last.log_z,
            "num_levels": last.num_levels,
            "acceptance_rate": last.acceptance_rate,
            "least_move": last.least_move,
            "solver_failed": jnp.asarray(last.inverse_temperature < 1),
        }
        return moved, last.log_weights, ParticleInfo((last.num_levels - 1) * per_level + 1, stats)

    def _moved(
        self, particles: Position, logdensity: Any, step_size: Array, variances: Array, key: Array
    ) -> tuple[Position, Array, Array]:
        """All particles after `num_moves` transitions of BlackJAX's Hamiltonian kernel.

        Returns:
            The particles, the step size, which follows the acceptance rate of all particles from move to move, and the
            last move's rate.
        """
        kernel = blackjax.hmc.build_kernel()
        num = jax.tree.leaves(particles)[0].shape[0]

        def body(carry: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Array]:
            states, step_size = carry

            def one(state: Any, key: Array) -> tuple[Any, Any]:
                return kernel(key, state, logdensity, step_size, variances, self.num_integration_steps)

            states, info = jax.vmap(one)(states, jax.random.split(key, num))
            rate = jnp.mean(jnp.nan_to_num(info.acceptance_rate)).astype(step_size.dtype)
            return (states, step_size * jnp.exp(_GAIN * (rate - self.target_acceptance_rate))), rate

        states = jax.vmap(lambda particle: blackjax.hmc.init(particle, logdensity))(particles)
        (states, step_size), rates = jax.lax.scan(body, (states, step_size), jax.random.split(key, self.num_moves))
        return states.position, step_size, rates[-1]


def _standard_densities(path: TemperedPath) -> tuple[Any, Any]:
    """The log reference, and the log of target over reference, in standard coordinates."""
    log_reference, log_target = logdensity_fn(path.reference), logdensity_fn(path.target)

    def log_ratio(z: Position) -> Array:
        position = path.frame.to_position(z)
        ratio = log_target(position) - log_reference(position)
        return jnp.maximum(jnp.where(jnp.isnan(ratio), _LEAST_LOG_RATIO, ratio), _LEAST_LOG_RATIO)

    return lambda z: log_reference(path.frame.to_position(z)), log_ratio


def _flat(particles: Position) -> Array:
    return jax.vmap(lambda z: ravel_pytree(z)[0])(particles)


def _variances(population: _Population) -> Array:
    """The weighted variances of the particles' coordinates, kept off zero."""
    flat, weights = _flat(population.particles), jnp.exp(population.log_weights)
    variances = weights @ (flat - weights @ flat) ** 2
    return jnp.maximum(variances, jnp.finfo(flat.dtype).tiny ** 0.5)
