"""The probability-flow ordinary differential equation."""

import dataclasses
from typing import Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Grid, as_delta, check_delta, check_grid, refined_grid
from scoresample.samplers._base import AbstractPathSampler, Plan
from scoresample.samplers._diffrax import AdaptiveDiffraxSolver
from scoresample.samplers._doors import check_at_least, check_path, check_positive
from scoresample.samplers._reverse_solver import AbstractReverseSolver, reverse_plan
from scoresample.samplers._solver_names import SolverChoice, resolve_solver
from scoresample.scores import Position


class ProbabilityFlowODE(AbstractPathSampler[AbstractPerturbedScore]):
    """The deterministic flow with the marginals of a noise process, from noise to data.

    In time t it is ``dx/dt = f x - g^2 s(x, t) / 2``, run from t=1 down; it is solved in the log-SNR clock. Draws are a
    deterministic function of their start. It needs the fewest score evaluations when the score is right, and keeps
    every error of the score and of the start when it is not. The bias is that of the solver, of the start's Gaussian,
    and of stopping early: without `denoise` the draws have the law of the data with noise of variance `delta` added, in
    standard coordinates (Benton et al. 2024, arXiv 2308.03686). Keep its root below a tenth of the data's smallest
    scale.

    With `rtol` the steps of a diffrax solver adapt, by an error estimate shared by the whole batch. A tolerance is a
    bound on local errors, not on the law: above 1e-3, mode weights were seen to drift without a sign.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 13.

    Attributes:
        num_steps: number of solver steps (fixed steps only).
        solver: "unipc-3", "dpm-solver++2m", "ddim", "karras-heun"; [`ExponentialAdams`][scoresample.ExponentialAdams]
            with settings of your own; or a diffrax solver, such as ``diffrax.Heun()`` (two evaluations a step) or
            ``diffrax.Tsit5()``.
        grid: "log-snr", "karras", "exponential", "uniform", or decreasing times of your own (`num_steps` is then not
            used). Adaptive solves use only its ends.
        rtol: relative tolerance of adaptive steps, or None for fixed steps.
        atol: absolute tolerance of adaptive steps, in data standard deviations; `rtol` if None.
        max_steps: the most steps an adaptive solve may take.
        denoise: end with the posterior mean of the clean point.
        delta: variance of the noise at which sampling stops, (sigma/alpha)^2 in the path's standard coordinates, also
            where the draws are denoised after it; None for the end of the score's range. Under ``OU(T)``,
            ``exp(2 d) - 1`` is stopping at its time d. Not beside times of your own.

    Examples:
        >>> import diffrax, jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> draws = ss.sample(path, ss.ProbabilityFlowODE(), key=jax.random.key(0), num_samples=25)
        >>> draws.position.shape, draws.nfe
        ((1, 100, 2), 31.0)
        >>> adaptive = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-4)
    """

    name: ClassVar[str] = "probability-flow"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=30)
    solver: SolverChoice = "unipc-3"
    grid: Grid = "log-snr"
    rtol: float | None = eqx.field(static=True, default=None)
    atol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=4096)
    denoise: bool = eqx.field(static=True, default=True)
    delta: float | None = eqx.field(static=True, default=None, converter=as_delta)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps, max_steps=self.max_steps)
        check_delta(self.delta, check_grid(self.grid))
        resolve_solver(self.solver, noisy=False)
        if self.rtol is None and self.atol is not None:
            raise ValueError("`atol` without `rtol`: give `rtol` too, which turns adaptive steps on.")
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None:
                check_positive(**{name: value})
        if self.rtol is not None and not isinstance(self.solver, diffrax.AbstractAdaptiveSolver):
            name = self.solver if isinstance(self.solver, str) else type(self.solver).__name__
            raise ValueError(
                f"`rtol`: {name} does not estimate its error, so its steps cannot adapt. Use diffrax.Tsit5() or "
                "diffrax.Heun()."
            )

    def _resolved(self) -> AbstractReverseSolver:
        if self.rtol is None:
            return resolve_solver(self.solver, noisy=False).solver
        assert isinstance(self.solver, diffrax.AbstractSolver)
        return AdaptiveDiffraxSolver(
            self.solver, self.rtol, self.rtol if self.atol is None else self.atol, self.max_steps
        )

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> Plan:
        """Levels, and the solver's coefficients for them."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        return reverse_plan(
            self._resolved(), path, num_steps=self.num_steps, grid=self.grid, delta=self.delta, eta=0.0,
            denoise=self.denoise,
        )  # fmt: skip

    def init(self, path: AbstractPerturbedScore, particles: Position, plan: Plan, *, key: Array) -> Any:
        """The solver's state at the start."""
        return self._resolved().start(path, particles, plan, 0.0, key=key)

    def step(
        self, path: AbstractPerturbedScore, state: Any, plan_step: Any, *, key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """One step of the solver, or the whole solve where steps adapt."""
        return self._resolved().step(path, state, plan_step, 0.0, key=key)

    def final(self, path: AbstractPerturbedScore, state: Any, plan: Plan) -> tuple[Position, None]:
        """The denoised particles, or the particles in the scale of the data."""
        return self._resolved().end(path, state, plan, denoise=self.denoise), None

    def refined(self, factor: int) -> "ProbabilityFlowODE":
        """The same sampler with `factor` times as many steps, or a `factor` times smaller tolerance."""
        if self.rtol is None:
            steps, grid = factor * self.num_steps, refined_grid(self.grid, factor)
            return dataclasses.replace(self, num_steps=steps, grid=grid)
        atol = None if self.atol is None else self.atol / factor
        return dataclasses.replace(self, rtol=self.rtol / factor, atol=atol)
