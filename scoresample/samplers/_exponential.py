"""The exponential Adams kernel: the reverse process with its linear part solved exactly, all particles as one state."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks import start_mismatch
from scoresample.paths import AbstractPerturbedScore, Levels, denoise_particles
from scoresample.samplers._base import Plan, add_scaled, scaled
from scoresample.samplers._doors import check_one_of
from scoresample.samplers._reverse_solver import AbstractReverseSolver, over_alpha, rows
from scoresample.scores import Position, random_like

_QUADRATURE_NODES = 24


class ExponentialStep(NamedTuple):
    """One step's row of coefficients.

    Attributes:
        t: the level at which the step evaluates the denoiser.
        alpha: the scale of the signal there.
        keep: factor of the particles.
        spread: standard deviation of the fresh noise.
        predict: weights of the denoised points, newest first: (order,).
        correct: weights with which the step before is done again, the new denoised point first: (order + 1,).
    """

    t: Array
    alpha: Array
    keep: Array
    spread: Array
    predict: Array
    correct: Array


class ExponentialState(NamedTuple):
    """Where the particles stand.

    Attributes:
        position: the particles in the coordinates ``y = z/alpha``.
        base: what the last step kept of the particles before it, and its noise.
        history: denoised points at the levels before, newest first.
    """

    position: Position
    base: Position
    history: tuple[Position, ...]


class ExponentialAdams(AbstractReverseSolver):
    """Exponential Adams steps in the log-SNR clock: one denoiser evaluation a step, whatever the order.

    In the coordinates ``y = z/alpha``, with ``s = sigma/alpha``, ``lambda = -log s``, ``c = 1 + eta^2`` and the
    denoiser D, the reverse process is ``dy = c (D(y, s) - y) dlambda + eta sqrt(2) s dW``. A step of length h keeps its
    linear part and its noise exact, and lets D be the polynomial through the last `order` evaluations:
    ``y' = exp(-c h) y + sum_j b_j D_j + s' sqrt(1 - exp(-2 eta^2 h)) noise``, with
    ``b_j = integral of c exp(-c (lambda' - u)) L_j(u) du`` over the step and L_j the Lagrange basis.

    With `midpoint`, order 2 uses the slope times half the step, ``(1 - exp(-c h)) (D_0 + (D_0 - D_1) h/(2 h_before))``.
    With `corrector`, the step is done again when the next evaluation is there, with that point as one more node: one
    order more at no evaluation. The first steps have fewer points and so a lower order.

    For smooth denoisers the law's error is of order `order` in the step while eta = 0, and one order more with the
    corrector; with noise it is of order 1 for `order` = 1 and 2 above, whatever the corrector (the constant still
    shrinks), and the strong order is 1. For a constant denoiser every step is exact.

    | order | eta | | known as |
    |---|---|---|---|
    | 1 | 0 | | DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12) |
    | 1 | 1 | | DDPM (Ho et al. 2020, arXiv 2006.11239, algorithm 2) |
    | 2 | 0 | midpoint | DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2) |
    | 2 | 1 | midpoint | SDE-DPM-Solver++(2M) (the same, section 5) |
    | 3 | 0 | corrector | UniPC-3 after its warm-up (Zhao et al. 2023, arXiv 2302.04867) |
    | 2, 3 | any | corrector | SA-Solver with eta as its tau (Xue et al. 2023, arXiv 2309.05019) |

    Attributes:
        order: number of denoiser evaluations that a step looks at, 1 to 3.
        midpoint: the midpoint form of order 2.
        corrector: repeat each step with the new evaluation.

    Examples:
        >>> import scoresample as ss
        >>> sampler = ss.ProbabilityFlowODE(num_steps=20, solver=ss.ExponentialAdams(order=3, corrector=True))
    """

    order: int = eqx.field(static=True, default=2)
    midpoint: bool = eqx.field(static=True, default=False)
    corrector: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_one_of((1, 2, 3), order=self.order)
        if self.midpoint and self.order != 2:
            raise ValueError(f"`midpoint` is a form of order 2, but `order` is {self.order}.")

    def evaluations(self, num_steps: int) -> int:
        """One a step."""
        return num_steps

    def coefficients(
        self, path: AbstractPerturbedScore, levels: Levels, eta: float, *, denoise: bool
    ) -> ExponentialStep:
        """The weights b_j, by quadrature."""
        del path
        log_snr, rate = levels.log_snr, 1 + eta**2
        h = np.diff(log_snr)
        predict, correct = np.zeros((h.size, self.order)), np.zeros((h.size, self.order + 1))
        for k in range(h.size):
            known = log_snr[max(k - self.order + 1, 0) : k + 1][::-1]
            if self.midpoint and known.size == 2:
                slope = -np.expm1(-rate * h[k]) * h[k] / (2 * h[k - 1])
                predict[k] = -np.expm1(-rate * h[k]) + slope, -slope
            else:
                predict[k, : known.size] = adams_weights(known, log_snr[k], log_snr[k + 1], rate)
            if self.corrector and k > 0:
                nodes = log_snr[max(k - self.order, 0) : k + 1][::-1]
                correct[k, : nodes.size] = adams_weights(nodes, log_snr[k - 1], log_snr[k], rate)
        spread = np.exp(-log_snr[1:]) * np.sqrt(-np.expm1(-2 * eta**2 * h))
        return kernel_rows(levels, np.exp(-rate * h), spread, predict, correct, denoise=denoise)

    def start(
        self, path: AbstractPerturbedScore, particles: Position, plan: Plan, eta: float, *, key: Array
    ) -> ExponentialState:
        """The particles over alpha, and an empty history."""
        del eta, key
        y = over_alpha(path, particles, plan.t_start)
        nothing = jax.tree.map(jnp.zeros_like, particles)
        return ExponentialState(y, y, (nothing,) * (self.order - 1 + int(self.corrector)))

    def step(
        self, path: AbstractPerturbedScore, state: ExponentialState, row: ExponentialStep, eta: float, *, key: Array
    ) -> tuple[ExponentialState, dict[str, Array]]:
        """Denoise, mend the last step, take the next."""
        return step_kernel(path, state, row, eta, key, corrector=self.corrector)

    def end(self, path: AbstractPerturbedScore, state: ExponentialState, plan: Plan, *, denoise: bool) -> Position:
        """The particles as they are: the last row has denoised them."""
        del path, plan, denoise
        return state.position


def kernel_rows(
    levels: Levels, keep: np.ndarray, spread: np.ndarray, predict: np.ndarray, correct: np.ndarray, *, denoise: bool
) -> ExponentialStep:
    """Rows for all steps, and with `denoise` one more, which keeps nothing but the newest denoised point.

    The last evaluation is then a step like the others, and the score is compiled once.
    """
    if denoise:
        keep, spread = np.append(keep, 0.0), np.append(spread, 0.0)
        predict = np.vstack([predict, np.eye(1, predict.shape[1])])
        correct = np.vstack([correct, np.zeros((1, correct.shape[1]))])
    return ExponentialStep(*rows(levels.t[: keep.size], levels.alpha[: keep.size], keep, spread, predict, correct))


def step_kernel(
    path: AbstractPerturbedScore,
    state: ExponentialState,
    row: ExponentialStep,
    eta: float,
    key: Array,
    *,
    corrector: bool,
) -> tuple[ExponentialState, dict[str, Array]]:
    """One step of all particles, and the mismatch of the start if this is the first.

    The corrector of a step runs at the start of the next, where its new point is known anyway; before the first, `base`
    is the start itself and the weights are 0.
    """
    y = state.position
    t = row.t.astype(jnp.result_type(*jax.tree.leaves(y)))
    z = scaled(row.alpha, y)
    denoised = denoise_particles(path, z, t)
    mismatch = start_mismatch(path, z, denoised, t)
    points = (denoised, *state.history)
    if corrector:
        y = add_scaled(state.base, *zip(row.correct, points, strict=True))
    base = scaled(row.keep, y)
    if eta > 0:
        base = add_scaled(base, (row.spread, random_like(key, y)))
    y = add_scaled(base, *zip(row.predict, points[: row.predict.shape[0]], strict=True))
    return ExponentialState(y, base, points[: len(state.history)]), {"start_mismatch": mismatch}


def adams_weights(nodes: np.ndarray, start: float, stop: float, rate: float) -> np.ndarray:
    """``integral from start to stop of rate exp(-rate (stop - u)) L_j(u) du`` for the Lagrange basis on some nodes.

    Their sum is ``1 - exp(-rate (stop - start))`` to the last digit, so that a constant denoiser is integrated exactly.

    Examples:
        >>> adams_weights(np.array([0.0, -1.0]), 0.0, 1.0, 1e-9) / 1e-9  # the classical Adams-Bashforth weights
        array([ 1.5, -0.5])
    """
    points, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    h = stop - start
    u = start + h * (points + 1) / 2
    density = weights * h / 2 * rate * np.exp(-rate * (stop - u))
    result = np.empty(nodes.size)
    for j in range(1, nodes.size):
        others = np.delete(nodes, j)
        result[j] = density @ np.prod((u[:, None] - others) / (nodes[j] - others), axis=1)
    result[0] = -np.expm1(-rate * h) - result[1:].sum()
    return result
