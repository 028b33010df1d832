"""The reverse-time stochastic differential equation."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore
from scoresample.samplers._base import AbstractParticleSampler, ParticleInfo
from scoresample.samplers._diffrax import SolvePlan, check_solver, make_plan, solve
from scoresample.samplers._doors import check_at_least, check_path
from scoresample.scores import Position


class ReverseSDE(AbstractParticleSampler[AbstractPerturbedScore]):
    """The reverse-time SDE of a noise process, from noise to data.

    In time t it is ``dx = [f x - (1 + eta^2)/2 g^2 s(x, t)] dt + eta g dW``, run from t=1 down; it is solved in the
    log-SNR clock by diffrax, with the batch as one state. Every `eta` has the same marginals in the limit of small
    steps; noise forgets errors of the score and of the start that the ODE keeps. The bias is that of the solver (weak
    order 1 for Euler, 2 for ShARK), of the start's Gaussian, and of stopping at the end of the score's range.

    Source: Anderson 1982; Song et al. 2021, arXiv 2011.13456, eq. 6; eta: Zhang and Chen 2023, arXiv 2204.13902, eq. 6.

    Attributes:
        num_steps: number of solver steps, uniform in log-SNR.
        solver: a diffrax solver for Ito equations with additive noise: ``diffrax.ShARK()`` (two evaluations a step),
            ``diffrax.SEA()`` or ``diffrax.Euler()`` (one).
        eta: size of the noise, positive; 1 is the time reversal itself.
        denoise: end with the posterior mean of the clean point.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> ss.sample(path, ss.ReverseSDE(), key=jax.random.key(0), num_samples=25).position.shape
        (1, 100, 2)
    """

    name: ClassVar[str] = "reverse-sde"
    reference: ClassVar[str] = "Song et al. 2021"
    asymptotically_exact: ClassVar[bool] = True
    interacting: ClassVar[bool] = False

    num_steps: int = eqx.field(static=True, default=100)
    solver: diffrax.AbstractSolver[Any] = eqx.field(default_factory=diffrax.ShARK)
    eta: float = eqx.field(static=True, default=1.0)
    denoise: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_steps=self.num_steps)
        check_solver(self.solver)
        if not 0 < self.eta < float("inf"):
            raise ValueError(f"`eta` must be positive, got {self.eta}. Without noise this is ProbabilityFlowODE.")
        if not isinstance(self.solver, diffrax.Euler | diffrax.AbstractSRK):
            raise ValueError(
                f"`solver`: {type(self.solver).__name__} is not for Ito equations. Use diffrax.ShARK(), diffrax.SEA() "
                "or diffrax.Euler()."
            )

    def plan(self, path: AbstractPerturbedScore, *, key: Array) -> SolvePlan:
        """Steps uniform in log-SNR."""
        del key
        check_path(path, AbstractPerturbedScore, self)
        return make_plan(path, self.num_steps)

    def run(
        self, path: AbstractPerturbedScore, particles: Position, plan: SolvePlan, *, key: Array
    ) -> tuple[Position, Array | None, ParticleInfo]:
        """Solve from noise to data."""
        return solve(
            path,
            particles,
            plan,
            key=key,
            solver=self.solver,
            controller=None,
            eta=self.eta,
            denoise=self.denoise,
            max_steps=self.num_steps + 1,
        )
