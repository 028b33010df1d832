"""The reverse-time stochastic differential equation."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Grid, as_delta, check_delta, check_grid, refined_grid
from scoresample.samplers._base import AbstractPathSampler, Plan
from scoresample.samplers._doors import check_at_least, check_path
from scoresample.samplers._heun import AbstractHeun
from scoresample.samplers._reverse_solver import AbstractReverseSolver, reverse_plan
from scoresample.samplers._solver_names import SolverChoice, refined_solver, resolve_solver
from scoresample.scores import Position


class ReverseSDE(AbstractPathSampler[AbstractPerturbedScore]):
    """The reverse-time SDE of a noise process, from noise to data.

    In time t it is ``dx = [f x - (1 + eta^2)/2 g^2 s(x, t)] dt + eta g dW``, run from t=1 down; it is solved in the
    log-SNR clock. Every `eta` has the same marginals in the limit of small steps; noise forgets errors of the score and
    of the start that the ODE keeps, and asks for more steps. The bias is that of the solver (weak order 1 for "ddpm", 2
    for the others), of the start's Gaussian, and of stopping early: without `denoise` the draws have the law of the
    data with noise of variance `delta` added, in standard coordinates (Benton et al. 2024, arXiv 2308.03686). Keep its
    root below a tenth of the data's smallest scale.

    Source: Anderson 1982; Song et al. 2021, arXiv 2011.13456, eq. 6; eta: Zhang and Chen 2023, arXiv 2204.13902, eq. 6.

    Attributes:
        num_steps: number of solver steps.
        solver: "sde-dpm-solver++2m", "ddpm", "sa-solver", "restart", "exponential-integrator", "euler-maruyama"; or
            [`ExponentialAdams`][scoresample.ExponentialAdams], [`KarrasHeun`][scoresample.KarrasHeun] or
            [`Restart`][scoresample.Restart] with settings of your own; or a diffrax solver for Ito equations with
            additive noise, such as ``diffrax.ShARK()``, also inside a [`DiffraxSolver`][scoresample.DiffraxSolver].
        eta: size of the noise, positive; 1 is the time reversal itself. None stands for the solver's own, 1.
        grid: "log-snr", "karras", "exponential", "uniform", or decreasing times of your own (`num_steps` is then not
            used).
        denoise: end with the posterior mean of the clean point.
        delta: variance of the noise at which sampling stops, (sigma/alpha)^2 in the path's standard coordinates, also
            where the draws are denoised after it; None for the end of the score's range. Under ``OU(T)``,
            ``exp(2 d) - 1`` is stopping at its time d. Not beside times of your own.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> draws = ss.sample(path, ss.ReverseSDE(num_steps=20), key=jax.random.key(0), num_samples=25)
        >>> draws.position.shape, draws.nfe
        ((1, 100, 2), 21.0)
    """

    name: ClassVar[str] = "reverse-sde"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=50)
    solver: SolverChoice = "sde-dpm-solver++2m"
    eta: float | None = eqx.field(static=True, default=None)
    grid: Grid = "log-snr"
    denoise: bool = eqx.field(static=True, default=True)
    delta: float | None = eqx.field(static=True, default=None, converter=as_delta)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps)
        check_delta(self.delta, check_grid(self.grid))
        if self.eta is not None and not 0 < self.eta < float("inf"):
            raise ValueError(f"`eta` must be positive, got {self.eta}. Without noise this is ProbabilityFlowODE.")
        solver, _ = resolve_solver(self.solver, noisy=True)
        if self.eta is not None and isinstance(solver, AbstractHeun):
            raise ValueError(
                f"`eta`: {type(solver).__name__} brings its own noise (churn in KarrasHeun, the way up in Restart). "
                "Set it there and leave `eta` out."
            )

    def _resolved(self) -> tuple[AbstractReverseSolver, float]:
        solver, eta = resolve_solver(self.solver, noisy=True)
        return solver, eta if self.eta is None else self.eta

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> Plan:
        """Levels, and the solver's coefficients for them."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        solver, eta = self._resolved()
        return reverse_plan(
            solver, path, num_steps=self.num_steps, grid=self.grid, delta=self.delta, eta=eta, denoise=self.denoise
        )

    def init(self, path: AbstractPerturbedScore, particles: Position, plan: Plan, *, key: Array) -> Any:
        """The solver's state at the start."""
        solver, eta = self._resolved()
        return solver.start(path, particles, plan, eta, key=key)

    def step(
        self, path: AbstractPerturbedScore, state: Any, plan_step: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One step of the solver."""
        solver, eta = self._resolved()
        return solver.step(path, state, plan_step, eta, key=key)

    def final(self, path: AbstractPerturbedScore, state: Any, plan: Plan) -> tuple[Position, None]:
        """The denoised particles, or the particles in the scale of the data."""
        return self._resolved()[0].end(path, state, plan, denoise=self.denoise), None

    def refined(self, factor: int) -> "ReverseSDE":
        """The same sampler with `factor` times as many steps."""
        steps, grid = factor * self.num_steps, refined_grid(self.grid, factor)
        return dataclasses.replace(self, num_steps=steps, grid=grid, solver=refined_solver(self.solver, factor))
