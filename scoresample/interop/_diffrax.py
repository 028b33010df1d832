"""For solves of one's own with diffrax: the reverse process as terms, and the exponential Adams kernel as a solver."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array

from scoresample.paths import AbstractPerturbedScore, denoise_particles
from scoresample.samplers import ExponentialAdams
from scoresample.scores import Position

_QUADRATURE_NODES = 24


def diffrax_terms(
    path: AbstractPerturbedScore, *, eta: float = 1.0, brownian: diffrax.AbstractPath[Any] | None = None
) -> diffrax.AbstractTerm[Any, Any]:
    """The reverse process as diffrax terms.

    The state is ``y = z/alpha`` in standard coordinates, a tree like one position with a leading particle axis: all
    particles are one state. The clock is ``lambda = log(alpha/sigma)``, which runs forwards from noise to data. With
    ``s = exp(-lambda)`` and the denoiser D, ``dy = (1 + eta^2) (D(y, s) - y) dlambda + eta sqrt(2) s dW`` (Ito).

    For every `eta` >= 0 it carries the law of ``z_0 + s noise`` from level to level; what a solve gets wrong is its
    solver's error, the start's, and the noise that is left at the last level.

    Source: Song et al. 2021, arXiv 2011.13456, eqs. 6 and 13; eta: Zhang and Chen 2023, arXiv 2204.13902, eq. 6.

    Arguments:
        path: a perturbed score. The terms hold its arrays as leaves, so retrained weights never compile again.
        eta: size of the noise: 0 is the probability-flow ODE, 1 the time reversal itself.
        brownian: a Brownian path with the structure of the particles, for `eta` > 0. A `diffrax.UnsafeBrownianPath` is
            the fastest, and needs fixed steps and ``adjoint=diffrax.ForwardMode()``.

    Returns:
        A `diffrax.ODETerm` for `eta` = 0, else a `diffrax.MultiTerm` of it and a `diffrax.ControlTerm`.

    Raises:
        TypeError: if `path` is no perturbed score.
        ValueError: if `eta` is negative or not finite, or `brownian` is missing where there is noise or given where
            there is none.

    Examples:
        >>> import diffrax, jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> from scoresample.interop import diffrax_terms
        >>> from scoresample.paths import noise_levels
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> levels = noise_levels(path, 20)
        >>> particles = path.sample_reference(jax.random.key(0), 100, levels.t[0])
        >>> solution = diffrax.diffeqsolve(
        ...     diffrax_terms(path, eta=0.0),
        ...     diffrax.Heun(),
        ...     t0=levels.log_snr[0],
        ...     t1=levels.log_snr[-1],
        ...     dt0=None,
        ...     y0=particles / levels.alpha[0],
        ...     stepsize_controller=diffrax.StepTo(levels.log_snr),
        ... )
        >>> draws = jax.vmap(path.frame.to_position)(solution.ys[-1])
        >>> draws.shape
        (100, 2)
    """
    if not isinstance(path, AbstractPerturbedScore):
        raise TypeError(
            f"`path` must be a perturbed score, got {type(path).__name__}. Make one with perturb(density, process), "
            "PerturbedScore(network, process) or fit_score(draws)."
        )
    _check_eta(eta)
    drift = diffrax.ODETerm(_Drift(path, eta))
    if eta == 0:
        if brownian is not None:
            raise ValueError("`brownian`: with `eta` = 0 there is no noise. Leave it out, or set `eta`.")
        return drift
    if brownian is None:
        raise ValueError(
            f"`brownian` is needed for the noise of `eta` = {eta}. Pass diffrax.UnsafeBrownianPath(shape, key) with "
            "the shape of the particles, or a diffrax.VirtualBrownianTree, or set `eta` to 0."
        )
    return diffrax.MultiTerm(drift, diffrax.ControlTerm(_Diffusion(eta), brownian))


class _Drift(eqx.Module):
    """``(1 + eta^2) (D(y, s) - y)``."""

    path: AbstractPerturbedScore
    eta: float = eqx.field(static=True)

    def __call__(self, log_snr: Any, y: Position, args: Any) -> Position:
        del args
        process = self.path.process
        t = process.time(_like(y, log_snr)).astype(jnp.result_type(*jax.tree.leaves(y)))
        denoised = denoise_particles(self.path, _sum((process.alpha(t), y)), t)
        rate = 1 + self.eta**2
        return jax.tree.map(lambda d, x: rate * (d - x), denoised, y)


class _Diffusion(eqx.Module):
    """``eta sqrt(2) s``."""

    eta: float = eqx.field(static=True)

    def __call__(self, log_snr: Any, y: Position, args: Any) -> lineax.AbstractLinearOperator:
        del args
        spread = self.eta * 2**0.5 * jnp.exp(-_like(y, log_snr))
        return lineax.DiagonalLinearOperator(jax.tree.map(lambda x: jnp.full_like(x, spread.astype(x.dtype)), y))


class ExponentialAdamsState(NamedTuple):
    """What the solver remembers.

    Attributes:
        base: what the last step kept of the particles before it, and its noise.
        history: denoised points at the levels before, newest first.
        log_snr: those levels, newest first.
        known: how many of them there are so far.
    """

    base: Position
    history: tuple[Position, ...]
    log_snr: Array
    known: Array


class ExponentialAdamsSolver(diffrax.AbstractItoSolver[ExponentialAdamsState]):
    """The steps of [`ExponentialAdams`][scoresample.ExponentialAdams], as a diffrax solver.

    It solves the terms of [`diffrax_terms`][scoresample.interop.diffrax_terms], also inside terms of your own with the
    same linear part ``-(1 + eta^2) y`` and the same diffusion. With ``c = 1 + eta^2``, a step of length h keeps both
    exact, and lets D be the polynomial through the last `order` evaluations:
    ``y' = exp(-c h) y + sum_j b_j D_j + s' sqrt(1 - exp(-2 eta^2 h)) dW/sqrt(h)``. One evaluation a step. On the same
    noise it gives the particles of the built-in samplers to rounding error; those make their coefficients beforehand
    and run faster.

    Steps may have any lengths, but are fixed: there is no estimate of the error. With `eta` = 0 they may also run
    backwards, from data to noise; with noise that has no meaning, and gives NaN.

    It keeps the law of ``z_0 + s noise`` but for an error of order `order` in the step, for smooth denoisers
    (`order` + 1 with the corrector, while eta = 0; noise limits the strong order to 1), and that of the first steps,
    which have fewer points. For one constant denoiser every step is exact.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2 (order 2, midpoint); Zhao et al. 2023, arXiv 2302.04867 and
    Xue et al. 2023, arXiv 2309.05019 (corrector, with eta as the latter's tau).

    Attributes:
        kernel: the settings of the steps.
        eta: size of the noise.

    Examples:
        >>> import diffrax, jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> from scoresample.interop import ExponentialAdamsSolver, diffrax_terms
        >>> from scoresample.paths import noise_levels
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> levels = noise_levels(path, 20)
        >>> @jax.jit
        ... def solve(key):
        ...     key_start, key_noise = jax.random.split(key)
        ...     particles = path.sample_reference(key_start, 100, levels.t[0])
        ...     noise = diffrax.UnsafeBrownianPath(particles.shape, key_noise)
        ...     return diffrax.diffeqsolve(
        ...         diffrax_terms(path, eta=0.5, brownian=noise),
        ...         ExponentialAdamsSolver(order=2, eta=0.5),
        ...         t0=levels.log_snr[0],
        ...         t1=levels.log_snr[-1],
        ...         dt0=None,
        ...         y0=particles / levels.alpha[0],
        ...         stepsize_controller=diffrax.StepTo(levels.log_snr),
        ...         adjoint=diffrax.ForwardMode(),
        ...     )
        >>> draws = jax.vmap(path.frame.to_position)(solve(jax.random.key(0)).ys[-1])
        >>> draws.shape
        (100, 2)
    """

    kernel: ExponentialAdams
    eta: float = eqx.field(static=True)

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = diffrax.LocalLinearInterpolation

    def __init__(self, order: int = 2, *, midpoint: bool = False, corrector: bool = False, eta: float = 1.0) -> None:
        """Choose the steps.

        Arguments:
            order: number of denoiser evaluations that a step looks at, 1 to 3.
            midpoint: the midpoint form of order 2.
            corrector: repeat each step with the new evaluation, at the start of the next.
            eta: size of the noise, the same as that of the terms.

        Raises:
            ValueError: if `order` is not 1, 2 or 3, `midpoint` comes with another order than 2, or `eta` is negative or
                not finite.
        """
        self.kernel = ExponentialAdams(order, midpoint, corrector)
        _check_eta(eta)
        self.eta = eta

    def order(self, terms: Any) -> int:
        """The order for the ODE."""
        del terms
        return self.kernel.order + int(self.kernel.corrector)

    def strong_order(self, terms: Any) -> float:
        """1, whatever the settings: a step sees the noise through its sum alone."""
        del terms
        return 1.0

    def init(self, terms: Any, t0: Any, t1: Any, y0: Position, args: Any) -> ExponentialAdamsState:
        """An empty history."""
        del t1, args
        self._check_terms(terms)
        nothing = jax.tree.map(jnp.zeros_like, y0)
        length = self.kernel.order - 1 + int(self.kernel.corrector)
        levels = jnp.zeros(length, jnp.asarray(t0).dtype)
        return ExponentialAdamsState(nothing, (nothing,) * length, levels, jnp.asarray(0))

    def step(
        self,
        terms: Any,
        t0: Any,
        t1: Any,
        y0: Position,
        args: Any,
        solver_state: ExponentialAdamsState,
        made_jump: Any,
    ) -> tuple[Position, None, dict[str, Position], ExponentialAdamsState, diffrax.RESULTS]:
        """Denoise, mend the last step, take the next."""
        order, rate = self.kernel.order, 1 + self.eta**2
        drift, *noise = terms.terms if isinstance(terms, diffrax.MultiTerm) else (terms,)
        denoised = jax.tree.map(lambda f, x: f / rate + x, drift.vf(t0, y0, args), y0)
        # diffrax hands times over that increase; the terms know which way their clock runs.
        times = jnp.stack([jnp.asarray(t0), jnp.asarray(t1)])
        start, stop = jnp.sign(drift.contr(t0, t1)).astype(times.dtype) * times
        h = stop - start
        known = jnp.where(made_jump, 0, solver_state.known)
        points = (denoised, *solver_state.history)
        levels = jnp.concatenate([start[None], solver_state.log_snr])
        exists = jnp.arange(levels.size) <= known

        y = y0
        if self.kernel.corrector:
            weights = _adams_weights(levels - levels[1], exists, start - levels[1], rate)
            corrected = _sum((1.0, solver_state.base), *zip(weights, points, strict=True))
            y = jax.tree.map(lambda new, old: jnp.where(known > 0, new, old), corrected, y0)
        if self.kernel.midpoint:
            total = -jnp.expm1(-rate * h)
            slope = jnp.where(known > 0, total * h / (2 * jnp.where(known > 0, start - levels[1], 1)), 0)
            weights = jnp.stack([total + slope, -slope])
        else:
            weights = _adams_weights((levels - start)[:order], exists[:order], h, rate)
        base = _sum((jnp.exp(-rate * h), y))
        if noise:
            spread = jnp.exp(-stop) * jnp.sqrt(-jnp.expm1(-2 * self.eta**2 * h)) / jnp.sqrt(h)
            base = _sum((1.0, base), (spread, noise[0].contr(t0, t1)))
        y1 = _sum((1.0, base), *zip(weights, points[:order], strict=True))

        length = len(solver_state.history)
        state = ExponentialAdamsState(base, points[:length], levels[:length], jnp.minimum(known + 1, length))
        return y1, None, {"y0": y0, "y1": y1}, state, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Position, args: Any) -> Any:
        """The terms' vector field."""
        return terms.vf(t0, y0, args)

    def _check_terms(self, terms: Any) -> None:
        came = len(terms.terms) if isinstance(terms, diffrax.MultiTerm) else 1
        if came != (needed := 1 if self.eta == 0 else 2):
            raise ValueError(
                f"`terms`: the solver has `eta` = {self.eta}, so it needs {needed} of them, got {came}. Without noise "
                "there is the drift alone, an ODETerm; with noise a MultiTerm of the drift and the noise."
            )
        parts = jax.tree.leaves(terms, is_leaf=lambda part: isinstance(part, _Drift))
        for eta in (part.eta for part in parts if isinstance(part, _Drift)):
            if eta != self.eta:
                raise ValueError(
                    f"`eta`: the terms were made with {eta}, the solver with {self.eta}. Give the same to both."
                )


def _check_eta(eta: float) -> None:
    if not 0 <= eta < float("inf"):
        raise ValueError(f"`eta` must be at least 0 and finite, got {eta}.")


def _like(y: Position, x: Any) -> Array:
    """A number in the dtype of the particles."""
    return jnp.asarray(x).astype(jnp.result_type(*jax.tree.leaves(y)))


def _sum(*terms: tuple[Array | float, Position]) -> Position:
    """``sum_i c_i y_i`` leaf by leaf, in the dtype of the leaf."""
    scales, trees = zip(*terms, strict=True)

    def add(*leaves: Array) -> Array:
        first, *others = (jnp.asarray(c).astype(x.dtype) * x for c, x in zip(scales, leaves, strict=True))
        return sum(others, start=first)

    return jax.tree.map(add, *trees)


def _adams_weights(nodes: Array, exists: Array, h: Array, rate: float) -> Array:
    """``integral from 0 to h of rate exp(-rate (h - u)) L_j(u) du`` for the Lagrange basis on some nodes.

    Nodes that do not exist have weight 0; all their factors and divisors are 1, so derivatives stay finite too. The sum
    of all weights is ``1 - exp(-rate h)`` to the last digit, so that a constant denoiser is integrated exactly.
    """
    points, weights = (jnp.asarray(x, nodes.dtype) for x in np.polynomial.legendre.leggauss(_QUADRATURE_NODES))
    u = h * (points + 1) / 2
    density = weights * h / 2 * rate * jnp.exp(-rate * h * (1 - points) / 2)
    pairs = exists[:, None] & exists[None, :] & ~np.eye(nodes.size, dtype=bool)
    gaps = jnp.where(pairs, nodes[:, None] - nodes[None, :], 1)
    basis = jnp.prod(jnp.where(pairs, u[:, None, None] - nodes[None, None, :], 1) / gaps, axis=2)
    others = jnp.where(exists, density @ basis, 0)[1:]
    return jnp.concatenate([-jnp.expm1(-rate * h)[None] - others.sum(keepdims=True), others])
