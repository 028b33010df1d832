"""Reverse-time solves by diffrax: the batch of particles as one state, time measured in log-SNR."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, log_snr_grid, score_particles
from scoresample.samplers._base import ParticleInfo, scaled
from scoresample.samplers._finish import finish
from scoresample.scores import Position


class SolvePlan(NamedTuple):
    """What a solve needs.

    Attributes:
        t_start: the level at which the reference is drawn.
        t_final: the level at which the solve ends.
        log_snr_start: log-SNR at the start: the zero of the clock.
        clock: ``log_snr - log_snr_start`` at the ends of the steps, from 0 on; only its ends count if steps adapt.
    """

    t_start: Array
    t_final: Array
    log_snr_start: Array
    clock: Array


def make_plan(path: AbstractPerturbedScore, num_steps: int) -> SolvePlan:
    """Steps uniform in log-SNR."""
    levels = log_snr_grid(path, num_steps)
    return SolvePlan(
        jnp.asarray(levels.t[0], dtype=float),
        jnp.asarray(levels.t[-1], dtype=float),
        jnp.asarray(levels.log_snr[0], dtype=float),
        jnp.asarray(levels.log_snr - levels.log_snr[0], dtype=float),
    )


def solve(
    path: AbstractPerturbedScore,
    particles: Position,
    plan: SolvePlan,
    *,
    key: Array,
    solver: diffrax.AbstractSolver[Any],
    controller: diffrax.AbstractStepSizeController[Any, Any] | None,
    eta: float,
    denoise: bool,
    max_steps: int,
) -> tuple[Position, None, ParticleInfo]:
    """Solve the reverse SDE (eta > 0) or the probability-flow ODE (eta = 0) from noise to data.

    With N = alpha^2 + sigma^2, in the coordinates v = z / sqrt(N) and the clock lambda = log(alpha/sigma), which runs
    forwards,
    ``dv = sigma^2 / sqrt(N) [(1 + eta^2) s(z, t) + z / N] dlambda + eta sqrt(2) sigma / sqrt(N) dW``.
    It has the marginals of the noised data at every level for every eta >= 0, all coefficients stay bounded, and time
    keeps its precision near the data.

    Arguments:
        path: a perturbed score.
        particles: standard coordinates at the start, with a leading axis.
        plan: from `make_plan`.
        key: random key of the Brownian motion.
        solver: any diffrax solver; with `eta` > 0 one for stochastic equations in the Ito sense.
        controller: step size controller (its error estimate is shared by the batch), or None for the plan's steps.
        eta: noise of the reverse process.
        denoise: end with the posterior mean of the clean point.
        max_steps: the most steps an adaptive solve may take.

    Returns:
        The particles, None (equal weights), and the info with the solver's step counts and its success.
    """
    dtype = jnp.result_type(*jax.tree.leaves(particles))
    clock, start = plan.clock.astype(dtype), plan.log_snr_start.astype(dtype)

    def level(u: Any) -> tuple[Array, Array, Array]:
        """The time, the variance of the noise and sqrt(N) at clock u."""
        t = path.process.time(start + jnp.asarray(u, dtype)).astype(dtype)
        variance = path.process.variance(t)
        return t, variance, jnp.sqrt(path.process.alpha(t) ** 2 + variance)

    def drift(u: Any, v: Position, args: Any) -> Position:
        t, variance, root = level(u)
        z = scaled(root, v)
        score = score_particles(path, z, t)
        return jax.tree.map(lambda s, x: (variance / root) * ((1 + eta**2) * s + x / root**2), score, z)

    terms = diffrax.ODETerm(drift)
    if eta > 0:
        structure = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), particles)

        def diffusion(u: Any, v: Position, args: Any) -> lineax.AbstractLinearOperator:
            _, variance, root = level(u)
            return lineax.DiagonalLinearOperator(
                jax.tree.map(lambda x: jnp.broadcast_to(eta * jnp.sqrt(2 * variance) / root, x.shape), v)
            )

        levy_area = _levy_area(solver)
        brownian = diffrax.UnsafeBrownianPath(shape=structure, key=key, levy_area=levy_area)
        terms = diffrax.MultiTerm(terms, diffrax.ControlTerm(diffusion, brownian))

    start_root = level(clock[0])[2]
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        clock[0],
        clock[-1],
        None,
        scaled(1 / start_root, particles),
        stepsize_controller=diffrax.StepTo(ts=clock) if controller is None else controller,
        saveat=diffrax.SaveAt(t1=True),
        adjoint=diffrax.ForwardMode(),
        max_steps=clock.shape[0] if controller is None else max_steps,
        throw=False,
    )
    assert solution.ys is not None
    last = jax.tree.map(lambda x: x[-1], solution.ys)
    t_final, _, root = level(clock[-1])
    num_solver_steps = solution.stats["num_steps"]
    per_step, once = evaluations_per_step(solver)
    info = ParticleInfo(
        num_solver_steps * per_step + once + int(denoise),
        {
            "num_solver_steps": num_solver_steps,
            "num_rejected_steps": solution.stats["num_rejected_steps"],
            "solver_failed": solution.result != diffrax.RESULTS.successful,
        },
    )
    return finish(path, scaled(root, last), t_final, denoise=denoise), None, info


def _levy_area(solver: diffrax.AbstractSolver[Any]) -> type:
    """The cheapest Brownian information that a solver works with."""
    least = getattr(solver, "minimal_levy_area", diffrax.AbstractBrownianIncrement)
    if issubclass(least, diffrax.AbstractSpaceTimeTimeLevyArea):
        return diffrax.SpaceTimeTimeLevyArea
    return (
        diffrax.SpaceTimeLevyArea if issubclass(least, diffrax.AbstractSpaceTimeLevyArea) else diffrax.BrownianIncrement
    )


def evaluations_per_step(solver: diffrax.AbstractSolver[Any]) -> tuple[int, int]:
    """Drift evaluations of one step of a solver, and those spent once at the start.

    Raises:
        ValueError: if the number is not known, as for implicit solvers.
    """
    if isinstance(solver, diffrax.AbstractERK):
        tableau: Any = solver.tableau
        reuses_last = int(bool(tableau.fsal))
        return tableau.num_stages - reuses_last, reuses_last
    if isinstance(solver, diffrax.AbstractSRK):
        unused = solver.tableau.ignore_stage_f
        return len(solver.tableau.b_sol) - (0 if unused is None else int(unused.sum())), 0
    if isinstance(solver, diffrax.Euler):
        return 1, 0
    raise ValueError(
        f"`solver`: {type(solver).__name__} is not an explicit solver. Use diffrax.Euler, Heun, Tsit5 and the like for "
        "the ODE, diffrax.Euler, SEA or ShARK for the SDE."
    )


def check_solver(solver: object) -> None:
    """Raise a TypeError unless `solver` is a diffrax solver.

    Raises:
        TypeError: if it is something else, such as a class instead of an instance.
        ValueError: if it is implicit.
    """
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"`solver` must be a diffrax solver such as diffrax.Heun(), got {solver!r}.")
    evaluations_per_step(solver)
