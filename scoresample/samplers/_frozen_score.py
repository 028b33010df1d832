"""Solvers of first order that freeze the score over a step: what the convergence papers analyse, and what is common."""

import abc

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, Levels, levels_at
from scoresample.samplers._base import Plan
from scoresample.samplers._exponential import ExponentialState, ExponentialStep, kernel_rows, step_kernel
from scoresample.samplers._reverse_solver import AbstractReverseSolver, over_alpha
from scoresample.scores import Position

_QUADRATURE_NODES = 24


class AbstractFrozenScore(AbstractReverseSolver):
    """A step ``y' = keep y + pull D(y) + spread noise`` in the coordinates ``y = z/alpha``, D the denoiser.

    A frozen score is a frozen denoiser with another weight, since ``score = (D - y) / (alpha s^2)``, s = sigma/alpha:
    the kernel is that of [`ExponentialAdams`][scoresample.ExponentialAdams], the coefficients are not.
    """

    @abc.abstractmethod
    def keep_pull_spread(
        self, path: AbstractPerturbedScore, levels: Levels, eta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three coefficients of every step, in float64."""

    def evaluations(self, num_steps: int) -> int:
        """One a step."""
        return num_steps

    def coefficients(
        self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool
    ) -> ExponentialStep:
        """The coefficients as rows of the kernel."""
        keep, pull, spread = self.keep_pull_spread(path, levels, eta)
        return kernel_rows(levels, keep, spread, pull[:, None], np.zeros((pull.size, 2)), denoise=denoise)

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> ExponentialState:
        """The particles over alpha."""
        del eta, key
        y = over_alpha(path, particles, plan.t_start)
        return ExponentialState(y, y, ())

    def step(
        self, path: AbstractPerturbedScore, state: ExponentialState, row: ExponentialStep, eta: float, *, key: Array
    ) -> tuple[ExponentialState, dict[str, Array]]:
        """One step."""
        return step_kernel(path, state, row, eta, key, corrector=False)

    def end(self, path: AbstractPerturbedScore, state: ExponentialState, plan: Plan, *, denoise: bool) -> Position:
        """The particles as they are: the last row has denoised them."""
        del path, plan, denoise
        return state.position


class ExponentialIntegrator(AbstractFrozenScore):
    """The exponential integrator of the convergence papers: linear part and noise exact, the score frozen over a step.

    From the level of ``s = sigma/alpha`` to that of s', in the coordinates ``y = z/alpha``:
    ``y' = y + (1 + eta^2)/2 grad log p_t(z) * integral of alpha d(s^2) + eta sqrt(s^2 - s'^2) noise``. For the
    Ornstein-Uhlenbeck process it is ``x' = e^h x + (1 + eta^2)(e^h - 1) score + noise`` (Chen et al. 2023, arXiv
    2209.11215, section 2; Benton et al. 2024, arXiv 2308.03686, eq. 5). It depends on the process, unlike
    [`ExponentialAdams`][scoresample.ExponentialAdams], and needs many more steps: it is here to check the papers'
    bounds. The law's error is of order 1 in the step.

    Examples:
        >>> import scoresample as ss
        >>> sampler = ss.ReverseSDE(num_steps=500, solver=ss.ExponentialIntegrator(), grid="exponential")
    """

    def keep_pull_spread(
        self, path: AbstractPerturbedScore, levels: Levels, eta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By quadrature of ``alpha d(s^2) = 2 alpha s^2 dlambda``."""
        log_snr = levels.log_snr
        variance, h = np.exp(-2 * log_snr), np.diff(log_snr)
        nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
        inner = log_snr[:-1, None] + h[:, None] * (nodes + 1) / 2
        alpha = levels_at(path, inner.reshape(-1)).alpha.reshape(inner.shape)
        integral = h * ((alpha * np.exp(-2 * inner)) @ weights)
        pull = 0.5 * (1 + eta**2) * integral / (levels.alpha[:-1] * variance[:-1])
        return 1 - pull, pull, eta * np.sqrt(variance[:-1] - variance[1:])


class EulerMaruyama(AbstractFrozenScore):
    """Euler-Maruyama in the process's own time: what most code does, to compare with.

    ``x' = x - [f x - (1 + eta^2)/2 g^2 score] h + eta g sqrt(h) noise`` with drift f, diffusion g and step h at time t.
    It needs hundreds to thousands of steps where the other solvers need tens. The law's error is of order 1.

    Source: Song et al. 2021, arXiv 2011.13456, section 4.1 and appendix D.

    Examples:
        >>> import scoresample as ss
        >>> sampler = ss.ReverseSDE(num_steps=1000, solver="euler-maruyama", grid="uniform")
    """

    def keep_pull_spread(
        self, path: AbstractPerturbedScore, levels: Levels, eta: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """With drift and diffusion in float64."""
        with jax.enable_x64(True):
            t = jnp.asarray(levels.t[:-1], jnp.float64)
            drift = np.asarray(jax.vmap(path.process.drift_rate)(t))
            squared_diffusion = np.asarray(jax.vmap(path.process.squared_diffusion)(t))
        h, alpha, alpha_next = -np.diff(levels.t), levels.alpha[:-1], levels.alpha[1:]
        pull = 0.5 * (1 + eta**2) * squared_diffusion * h / (alpha * np.exp(-2 * levels.log_snr[:-1]))
        return (
            ((1 - drift * h) * alpha - pull) / alpha_next,
            pull / alpha_next,
            eta * np.sqrt(squared_diffusion * h) / alpha_next,
        )
