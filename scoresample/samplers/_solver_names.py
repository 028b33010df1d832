"""The solvers of the reverse process by their published names."""

from typing import Any, NamedTuple

import diffrax

from scoresample.samplers._diffrax import DiffraxSolver, check_explicit
from scoresample.samplers._exponential import ExponentialAdams
from scoresample.samplers._frozen_score import EulerMaruyama, ExponentialIntegrator
from scoresample.samplers._karras_heun import KarrasHeun
from scoresample.samplers._restart import Restart
from scoresample.samplers._reverse_solver import AbstractReverseSolver

SolverChoice = str | AbstractReverseSolver | diffrax.AbstractSolver[Any]
"""A published name, a solver of ours, or any explicit diffrax solver."""


class NamedSolver(NamedTuple):
    """A solver as published, with the eta it is published for."""

    solver: AbstractReverseSolver
    eta: float


SOLVERS = {
    "ddim": NamedSolver(ExponentialAdams(order=1), 0.0),
    "ddpm": NamedSolver(ExponentialAdams(order=1), 1.0),
    "dpm-solver++2m": NamedSolver(ExponentialAdams(order=2, midpoint=True), 0.0),
    "sde-dpm-solver++2m": NamedSolver(ExponentialAdams(order=2, midpoint=True), 1.0),
    "unipc-3": NamedSolver(ExponentialAdams(order=3, corrector=True), 0.0),
    "sa-solver": NamedSolver(ExponentialAdams(order=2, corrector=True), 1.0),
    "exponential-integrator": NamedSolver(ExponentialIntegrator(), 1.0),
    "euler-maruyama": NamedSolver(EulerMaruyama(), 1.0),
    "karras-heun": NamedSolver(KarrasHeun(), 0.0),
    "restart": NamedSolver(Restart(), 1.0),
}


def resolve_solver(solver: SolverChoice, *, noisy: bool) -> NamedSolver:
    """The solver that a choice stands for.

    Arguments:
        solver: what the user gave.
        noisy: whether it is for the stochastic equation.

    Returns:
        The solver, and the eta that it is meant for: 1 for unnamed ones when `noisy`, else 0.

    Raises:
        ValueError: if there is no such name, or the solver is for the other kind of equation.
        TypeError: if it is no solver.
    """
    other = "ProbabilityFlowODE" if noisy else "ReverseSDE"
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(f"`solver`: there is no '{solver}'. Names: {', '.join(_names(noisy=noisy))}.")
        found = SOLVERS[solver]
        if (found.eta > 0) != noisy:
            raise ValueError(
                f"`solver`: '{solver}' {'has no noise' if noisy else 'is stochastic'}, so it is for {other}. Names "
                f"here: {', '.join(_names(noisy=noisy))}."
            )
        return found
    if isinstance(solver, KarrasHeun) and (solver.churn > 0) != noisy:
        raise ValueError(
            "`solver`: the noise of KarrasHeun is its churn: ReverseSDE needs KarrasHeun(churn=...), "
            "ProbabilityFlowODE KarrasHeun()."
        )
    if isinstance(solver, Restart) and not noisy:
        raise ValueError("`solver`: Restart adds fresh noise, so it is for ReverseSDE. Without noise use KarrasHeun().")
    if isinstance(solver, AbstractReverseSolver):
        return NamedSolver(solver, float(noisy))
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(
            f"`solver` must be one of the names {', '.join(_names(noisy=noisy))}, a solver of scoresample's, or a "
            f"diffrax solver such as diffrax.{'ShARK' if noisy else 'Heun'}(), got {solver!r}."
        )
    check_explicit(solver)
    if noisy and not isinstance(solver, diffrax.Euler | diffrax.AbstractSRK):
        raise ValueError(
            f"`solver`: {type(solver).__name__} is not for Ito equations. Use diffrax.ShARK(), diffrax.SEA() or "
            "diffrax.Euler()."
        )
    if not noisy and isinstance(solver, diffrax.AbstractSRK):
        raise ValueError(f"`solver`: {type(solver).__name__} is for stochastic equations. Use diffrax.Heun().")
    return NamedSolver(DiffraxSolver(solver), float(noisy))


def refined_solver(solver: SolverChoice, factor: int) -> SolverChoice:
    """The solver for a ladder with `factor` times as many steps: one that takes steps of its own takes more of them."""
    named = SOLVERS[solver].solver if isinstance(solver, str) else solver
    return named.refined(factor) if isinstance(named, Restart) else solver


def _names(*, noisy: bool) -> list[str]:
    return [name for name, found in SOLVERS.items() if (found.eta > 0) == noisy]
