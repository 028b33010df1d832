"""The probability-flow ordinary differential equation."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore
from scoresample.samplers._base import AbstractParticleSampler, ParticleInfo
from scoresample.samplers._diffrax import SolvePlan, check_solver, make_plan, solve
from scoresample.samplers._doors import check_at_least, check_path, check_positive
from scoresample.scores import Position


class ProbabilityFlowODE(AbstractParticleSampler[AbstractPerturbedScore]):
    """The deterministic flow with the marginals of a noise process, from noise to data.

    In time t it is ``dx/dt = f x - g^2 s(x, t) / 2``, run from t=1 down; it is solved in the log-SNR clock by diffrax,
    with the batch as one state. Draws are a deterministic, invertible function of their start. It needs the fewest
    score evaluations when the score is right, and keeps every error of the score and of the start when it is not. The
    bias is that of the solver, of the start's Gaussian, and of stopping at the end of the score's range.

    With `rtol` steps adapt, by an error estimate shared by the whole batch. A tolerance is a bound on local errors, not
    on the law: above 1e-3, mode weights were seen to drift without a sign.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 13.

    Attributes:
        num_steps: number of solver steps, uniform in log-SNR (fixed steps only).
        solver: a diffrax solver, such as ``diffrax.Heun()`` (two evaluations a step) or ``diffrax.Tsit5()``.
        rtol: relative tolerance of adaptive steps, or None for fixed steps.
        atol: absolute tolerance of adaptive steps, in data standard deviations; `rtol` if None.
        max_steps: the most steps an adaptive solve may take.
        denoise: end with the posterior mean of the clean point.

    Examples:
        >>> import diffrax, jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> adaptive = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-4)
        >>> ss.sample(path, adaptive, key=jax.random.key(0), num_samples=25).position.shape
        (1, 100, 2)
    """

    name: ClassVar[str] = "probability-flow"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=50)
    solver: diffrax.AbstractSolver[Any] = eqx.field(default_factory=diffrax.Heun)
    rtol: float | None = eqx.field(static=True, default=None)
    atol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=4096)
    denoise: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps, max_steps=self.max_steps)
        check_solver(self.solver)
        if isinstance(self.solver, diffrax.AbstractSRK):
            raise ValueError(f"`solver`: {type(self.solver).__name__} is for stochastic equations. Use diffrax.Heun().")
        if self.rtol is None and self.atol is not None:
            raise ValueError("`atol` without `rtol`: give `rtol` too, which turns adaptive steps on.")
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None:
                check_positive(**{name: value})
        if self.rtol is not None and not isinstance(self.solver, diffrax.AbstractAdaptiveSolver):
            raise ValueError(
                f"`rtol`: {type(self.solver).__name__} does not estimate its error, so its steps cannot adapt. Use "
                "diffrax.Tsit5() or diffrax.Heun()."
            )

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> SolvePlan:
        """Steps uniform in log-SNR; adaptive solves use only the ends."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        return make_plan(path, self.num_steps)

    def run(
        self, path: AbstractPerturbedScore, particles: Position, plan: SolvePlan, *, key: Array
    ) -> tuple[Position, Array | None, ParticleInfo]:
        """Solve from noise to data."""
        controller = None
        if self.rtol is not None:
            controller = diffrax.PIDController(rtol=self.rtol, atol=self.rtol if self.atol is None else self.atol)
        return solve(
            path,
            particles,
            plan,
            key=key,
            solver=self.solver,
            controller=controller,
            eta=0.0,
            denoise=self.denoise,
            max_steps=self.max_steps,
        )
