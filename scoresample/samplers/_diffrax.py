"""Reverse-time solves by diffrax: the batch of particles as one state."""

from typing import Any, Literal, NamedTuple, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Levels, score_particles
from scoresample.samplers._base import Plan, scaled
from scoresample.samplers._doors import check_one_of
from scoresample.samplers._finish import finish
from scoresample.samplers._reverse_solver import AbstractReverseSolver, rows
from scoresample.scores import Position

Clock = Literal["log-snr", "process"]
Brownian = Literal["increments", "tree"]

_TREE_DEPTH_FRACTION = 0.1
"""A Brownian tree resolves this fraction of the shortest step."""


class DiffraxStep(NamedTuple):
    """One step's row: its ends on the clock, and the clock's zero, start, end and shortest step."""

    clock: Array
    clock_next: Array
    origin: Array
    first: Array
    last: Array
    shortest: Array


class DiffraxState(NamedTuple):
    """The particles over ``sqrt(alpha^2 + sigma^2)``, diffrax's own state, and the key of the Brownian motion."""

    position: Position
    solver: Any
    key: Array


class DiffraxSolver(AbstractReverseSolver):
    """Fixed steps by a diffrax solver.

    On the clock "log-snr", lambda = log(alpha/sigma), which runs forwards, with N = alpha^2 + sigma^2 and in the
    coordinates v = z / sqrt(N), it is
    ``dv = sigma^2 / sqrt(N) [(1 + eta^2) s(z, t) + z / N] dlambda + eta sqrt(2) sigma / sqrt(N) dW``.
    It has the marginals of the noised data at every level for every eta >= 0, all coefficients stay bounded, and time
    keeps its precision near the data. The clock "process" is the equation as it is written in the process's own time,
    ``dx = [-f x + (1 + eta^2)/2 g^2 s(x, t)] d(-t) + eta g dW``: less stiff where the data are drowned, and less
    accurate near them.

    Attributes:
        solver: any explicit diffrax solver; with noise one for stochastic equations in the Ito sense.
        brownian: "increments" draws fresh noise for every step; "tree" takes it from one Brownian path for each key,
            whatever the steps, which costs two to three times as much and checks its times on the host.
        clock: "log-snr" or "process".

    Examples:
        >>> import diffrax
        >>> import scoresample as ss
        >>> sampler = ss.ReverseSDE(solver=ss.DiffraxSolver(diffrax.ShARK(), brownian="tree"))
    """

    solver: diffrax.AbstractSolver[Any]
    brownian: Brownian = eqx.field(static=True, default="increments")
    clock: Clock = eqx.field(static=True, default="log-snr")

    def __check_init__(self) -> None:
        """Check the settings."""
        check_one_of(get_args(Brownian), brownian=self.brownian)
        check_one_of(get_args(Clock), clock=self.clock)

    def evaluations(self, num_steps: int) -> int:
        """Those of the solver's tableau."""
        per_step, once = evaluations_per_step(self.solver)
        return num_steps * per_step + once

    def coefficients(self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool) -> DiffraxStep:
        """The ends of the steps on the clock."""
        del path, eta, denoise
        origin = levels.log_snr[0] if self.clock == "log-snr" else 0.0
        clock = levels.log_snr - origin if self.clock == "log-snr" else -levels.t
        facts = (origin, clock[0], clock[-1], np.diff(clock).min())
        return DiffraxStep(*rows(clock[:-1], clock[1:], *(np.full(clock.size - 1, fact) for fact in facts)))

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> DiffraxState:
        """The scaled particles and what the solver carries from step to step."""
        first = jax.tree.map(lambda x: x[0], plan.steps)
        position = scaled(1 / _scale(path, self.clock, plan.t_start, particles), particles)
        clock, clock_next = _clock(first, position)
        noise = self._brownian_path(position, first, key, key) if eta > 0 else None
        state = self.solver.init(
            _terms(path, self.clock, position, first, eta, noise), clock, clock_next, position, None
        )
        return DiffraxState(position, state, key)

    def step(
        self, path: AbstractPerturbedScore, state: DiffraxState, row: DiffraxStep, eta: float, *, key: Array
    ) -> tuple[DiffraxState, dict[str, Array]]:
        """One step of diffrax's solver."""
        noise = self._brownian_path(state.position, row, key, state.key) if eta > 0 else None
        terms = _terms(path, self.clock, state.position, row, eta, noise)
        clock, clock_next = _clock(row, state.position)
        position, _, _, solver_state, _ = self.solver.step(
            terms, clock, clock_next, state.position, None, state.solver, made_jump=False
        )
        return DiffraxState(position, solver_state, state.key), {}

    def end(self, path: AbstractPerturbedScore, state: DiffraxState, plan: Plan, *, denoise: bool) -> Position:
        """The denoised particles, or the particles in the scale of the data."""
        particles = scaled(_scale(path, self.clock, plan.t_final, state.position), state.position)
        return finish(path, particles, plan.t_final, denoise=denoise)

    def _brownian_path(
        self, particles: Position, row: DiffraxStep, key_step: Array, key_run: Array
    ) -> diffrax.AbstractBrownianPath[Any]:
        shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), particles)
        levy_area = _levy_area(self.solver)
        if self.brownian == "increments":
            return diffrax.UnsafeBrownianPath(shape=shape, key=key_step, levy_area=levy_area)
        dtype = jnp.result_type(*jax.tree.leaves(particles))
        first, last, shortest = (x.astype(dtype) for x in (row.first, row.last, row.shortest))
        return diffrax.VirtualBrownianTree(
            first, last, _TREE_DEPTH_FRACTION * shortest, shape, key_run, levy_area=levy_area
        )


class AdaptiveDiffraxSolver(AbstractReverseSolver):
    """The probability-flow ODE by a diffrax solver with steps that adapt, by an error shared by the whole batch.

    Attributes:
        solver: a diffrax solver that estimates its error.
        rtol: relative tolerance.
        atol: absolute tolerance, in data standard deviations.
        max_steps: the most steps it may take.
    """

    solver: diffrax.AbstractSolver[Any]
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def evaluations(self, num_steps: int) -> int:
        """None that is known before."""
        del num_steps
        return 0

    def coefficients(self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool) -> DiffraxStep:
        """One row, from the first level to the last."""
        ends = Levels(*(column[[0, -1]] for column in levels))
        return DiffraxSolver(self.solver).coefficients(path, ends, eta, denoise=denoise)

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> DiffraxState:
        """The scaled particles."""
        del eta
        return DiffraxState(scaled(1 / _scale(path, "log-snr", plan.t_start, particles), particles), None, key)

    def step(
        self, path: AbstractPerturbedScore, state: DiffraxState, row: DiffraxStep, eta: float, *, key: Array
    ) -> tuple[DiffraxState, dict[str, Array]]:
        """The whole solve."""
        del key
        clock, clock_next = _clock(row, state.position)
        solution = diffrax.diffeqsolve(
            _terms(path, "log-snr", state.position, row, eta, None),
            self.solver,
            clock,
            clock_next,
            None,
            state.position,
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            saveat=diffrax.SaveAt(t1=True),
            adjoint=diffrax.ForwardMode(),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None
        num_steps = solution.stats["num_steps"]
        per_step, once = evaluations_per_step(self.solver)
        return DiffraxState(jax.tree.map(lambda x: x[-1], solution.ys), None, state.key), {
            "num_evaluations": num_steps * per_step + once,
            "num_solver_steps": num_steps,
            "num_rejected_steps": solution.stats["num_rejected_steps"],
            "solver_failed": solution.result != diffrax.RESULTS.successful,
        }

    def end(self, path: AbstractPerturbedScore, state: DiffraxState, plan: Plan, *, denoise: bool) -> Position:
        """The denoised particles, or the particles in the scale of the data."""
        particles = scaled(_scale(path, "log-snr", plan.t_final, state.position), state.position)
        return finish(path, particles, plan.t_final, denoise=denoise)


def _scale(path: AbstractPerturbedScore, clock: Clock, t: Array, particles: Position) -> Array:
    """Standard coordinates over the coordinates of the solve."""
    t = t.astype(jnp.result_type(*jax.tree.leaves(particles)))
    if clock == "process":
        return jnp.ones_like(t)
    return jnp.sqrt(path.process.alpha(t) ** 2 + path.process.variance(t))


def _clock(row: DiffraxStep, particles: Position) -> tuple[Array, Array]:
    dtype = jnp.result_type(*jax.tree.leaves(particles))
    return row.clock.astype(dtype), row.clock_next.astype(dtype)


def _terms(
    path: AbstractPerturbedScore,
    clock: Clock,
    particles: Position,
    row: DiffraxStep,
    eta: float,
    noise: diffrax.AbstractBrownianPath[Any] | None,
) -> diffrax.AbstractTerm[Any, Any]:
    """The reverse process as diffrax sees it: ``dv = [linear v + pull s(scale v, t)] du + spread dW``."""
    dtype = jnp.result_type(*jax.tree.leaves(particles))
    process = path.process

    def time(u: Any) -> Array:
        u = jnp.asarray(u, dtype)
        return (process.time(row.origin.astype(dtype) + u) if clock == "log-snr" else -u).astype(dtype)

    def drift(u: Any, v: Position, args: Any) -> Position:
        del args
        t = time(u)
        scale = _scale(path, clock, t, particles)
        if clock == "log-snr":
            linear, pull = process.variance(t) / scale**2, (1 + eta**2) * process.variance(t) / scale
        else:
            linear, pull = -process.drift_rate(t), 0.5 * (1 + eta**2) * process.squared_diffusion(t)
        score = score_particles(path, scaled(scale, v), t)
        return jax.tree.map(lambda s, x: linear * x + pull * s, score, v)

    if noise is None:
        return diffrax.ODETerm(drift)

    def diffusion(u: Any, v: Position, args: Any) -> lineax.AbstractLinearOperator:
        del args
        t = time(u)
        if clock == "log-snr":
            spread = eta * jnp.sqrt(2 * process.variance(t)) / _scale(path, clock, t, particles)
        else:
            spread = eta * jnp.sqrt(process.squared_diffusion(t))
        return lineax.DiagonalLinearOperator(jax.tree.map(lambda x: jnp.broadcast_to(spread, x.shape), v))

    return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, noise))


def check_explicit(solver: diffrax.AbstractSolver[Any]) -> None:
    """Raise a ValueError for solvers whose evaluations cannot be counted, such as implicit ones."""
    evaluations_per_step(solver)


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
