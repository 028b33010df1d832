"""The log density of the law that the probability flow of a perturbed score carries from noise to the data."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.paths._base import PathStart
from scoresample.paths._fokker_planck import rademacher_like
from scoresample.paths._perturbed import AbstractPerturbedScore
from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure, check_structure, line_integral

Divergence = Literal["exact", "hutchinson"]
"""How the divergence of the flow is taken: its trace, or an estimate from random probes."""

_MOST_SCALES = 150.0
"""The flow is followed up to where sigma/alpha is this many data standard deviations."""

_NUM_NODES = 4
"""Of the line integral at the noise end, where the score is all but linear."""

_FIRST_STEP = 0.05
"""In log-SNR."""

_LOOSER = 10.0
"""The solve that the error is judged by has tolerances this many times as large."""

_LEAST_TOLERANCE = 10.0
"""In units of the spacing of floating-point numbers at 1: below it an adaptive solve chases rounding errors."""


class Likelihood(NamedTuple):
    """A log density with its error.

    Attributes:
        value: the log density in nats, nan where the solver failed.
        error: its standard error in nats.
        num_evaluations: points at which the score was evaluated, each with as many Jacobian-vector products as the
            divergence takes: d for the exact one, else one for each probe.
    """

    value: Array
    error: Array
    num_evaluations: Array


class ProbabilityFlowDensity(AbstractDensityScore):
    """The log density of the law that the probability flow of a perturbed score carries from noise to the data.

    With the data's mean m and variances c in standard coordinates, s = sigma/alpha, lambda = -log s and the coordinates
    ``v = (z/alpha - m) / sqrt(c + s^2)``, which have mean 0 and variance 1 at every level, the flow and the log density
    along it are

    ``dv/dlambda = G(v, lambda) = s^2/(c + s^2) (score_v + v)``,  ``d log p/dlambda = -div G``.

    Both are zero for uncorrelated normal data with these moments. They are solved from the data to the noise with
    adaptive steps. The start at the noise end is the score's own density there, by its line integral from its centre,
    with the constant of the normal density of the same curvature. That is right for normal data whatever their
    correlations, means and variances (moments alone would miss the correlations), and for other data up to
    (data scale/s)^3 times their skewness, so the score's range should reach s of ten data standard deviations or more.

    The value is a normalised log density in positions, whatever the score, as far as that start is: that of draws by
    the probability-flow ODE at level t (without a last denoising, and up to the ODE sampler's own start and steps). For
    the exact score it is log p_t. For a learned one it is not the density whose gradient the score is, if there is
    one: the flow adds up the scores of all levels.

    The score is the path's own at level t, one evaluation, and *not* the derivative of the value. NUTS, HMC and MALA
    are exact for the value all the same: a leapfrog step with any deterministic force keeps volume and can be
    reversed, and the value alone decides what is accepted. The further the two are apart, the fewer proposals are.
    The derivative of `logdensity` by `jax.grad` is that of the solve, at several times its cost.

    With ``divergence="hutchinson"`` the trace is the mean of ``<p, J p>`` over random signs p, drawn once from the key
    and kept along the trajectory and between positions. Values are then a deterministic function of the position,
    and so is their error, which is no noise that averages out over a chain: look at it with `evaluate` and draw other
    probes with another key.

    Source: Song et al. 2021, arXiv 2011.13456, section 4.3 and eq. 39; Grathwohl et al. 2019, arXiv 1810.01367.

    Attributes:
        path: the perturbed score.
        t: the level at which the density is evaluated.
        divergence: "exact" takes d Jacobian-vector products for each evaluation of the score, and suits up to some
            fifty dimensions; "hutchinson" takes `num_probes`.
        num_probes: number of probes of the estimated divergence.
        rtol: relative tolerance of the solve.
        atol: absolute tolerance, in nats and in data standard deviations.
        max_steps: the most steps of a solve; where they do not suffice, the value is nan.
        key: key of the probes, or None for the exact divergence.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> from scoresample.paths import VP, perturb
        >>> path = perturb(Gaussian(jnp.ones(2), jnp.array([[1.0, 0.8], [0.8, 1.0]])), VP())
        >>> density = ProbabilityFlowDensity(path)
        >>> position = jnp.array([2.0, 0.0])
        >>> bool(abs(density.logdensity(position) - path.logdensity(position, density.t)) < 1e-3)
        True
    """

    path: AbstractPerturbedScore
    t: Array
    log_snr_start: Array
    key: Array | None
    divergence: Divergence = eqx.field(static=True)
    num_probes: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(
        self,
        path: AbstractPerturbedScore,
        t: Array | float | None = None,
        *,
        divergence: Divergence = "exact",
        num_probes: int = 8,
        key: Array | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        max_steps: int = 1000,
    ) -> None:
        """Take the density of a perturbed score's probability flow.

        Arguments:
            path: any perturbed score, learned or exact.
            t: the level of the density; by default the end of sampling, the highest log-SNR of the score's range. Of
                draws that were stopped at `delta`, ``process.time(-log(delta)/2)``, under a process with alpha = 1 (VE,
                EDM): draws are in the scale of the data, this density is in that of the level.
            divergence: "exact" or "hutchinson".
            num_probes: number of probes for "hutchinson"; at least 2 for an error bar.
            key: random key of the probes, for "hutchinson".
            rtol: relative tolerance of the solve; never less than ten times the rounding error of the dtype.
            atol: absolute tolerance of the solve, likewise.
            max_steps: the most steps of a solve.

        Raises:
            TypeError: if `path` is no perturbed score.
            ValueError: if a setting is wrong, a level lies outside the score's range, "hutchinson" comes without a key,
                or the path has a condition for each particle.
        """
        if not isinstance(path, AbstractPerturbedScore):
            raise TypeError(
                f"`path` must be a perturbed score, got {type(path).__name__}. Make one with fit_score(draws), "
                "PerturbedScore(network, process) or perturb(density, process)."
            )
        if path.condition_axes() is not None:
            raise ValueError(
                f"`path`: {type(path).__name__} has a condition for each particle, but a density is evaluated at one "
                "position. Take the path with one condition for all."
            )
        if divergence not in get_args(Divergence):
            raise ValueError(f"`divergence` must be one of {list(get_args(Divergence))}, got {divergence!r}.")
        if divergence == "hutchinson" and key is None:
            raise ValueError("`key`: the probes of the divergence 'hutchinson' are random. Pass key=jax.random.key(0).")
        for name, count in (("num_probes", num_probes), ("max_steps", max_steps)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {count!r}.")
        for name, tolerance in (("rtol", rtol), ("atol", atol)):
            if not 0 < tolerance < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {tolerance!r}.")
        self.path = path
        self.divergence, self.num_probes = divergence, num_probes
        self.key = key if divergence == "hutchinson" else None
        self.rtol, self.atol, self.max_steps = float(rtol), float(atol), max_steps
        self.log_snr_start = _noise_end(path)
        self.t = jnp.asarray(path.process.time(path.log_snr_range[1]) if t is None else t, dtype=float)
        _check_level(path, self.t, self.log_snr_start)
        self.structure, self.constrain = path.structure, path.constrain
        self.init_position = PathStart(path, self.t)

    def logdensity(self, position: Position) -> Array:
        """The log density of the probability flow at one position: a scalar in nats, nan where the solve failed."""
        probes = self._probes(position, self.key)
        return self._solve(position, probes, jnp.ones((), probes.dtype))[0].mean()

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The log density of the probability flow, and the path's own score (not the derivative of the solve)."""
        return self.logdensity(position), self.path(position, self.t)

    def evaluate(self, position: Position, *, key: Array | None = None) -> Likelihood:
        """The log density at one position with its standard error and its cost.

        The error has two parts, added in squares: how far the solve is from another one with tolerances ten times as
        large, which is mostly the error of the latter and so on the safe side; and, for the divergence "hutchinson",
        the standard error over the probes.

        Arguments:
            position: one position, unbatched.
            key: random key of fresh probes; by default those of `logdensity`.

        Returns:
            Value, error and number of score evaluations, of both solves.

        Raises:
            ValueError: if `position` does not fit, or there is only one probe and so no standard error.
        """
        check_structure(position, self.structure, name="position")
        if self.divergence == "hutchinson" and self.num_probes < 2:
            raise ValueError("`num_probes` is 1, but an error bar needs at least 2 probes.")
        probes = self._probes(position, self.key if key is None else key)
        solves = jnp.array([1.0, _LOOSER], probes.dtype)
        values, costs = jax.lax.map(lambda looseness: self._solve(position, probes, looseness), solves)
        mean, looser = values.mean(axis=-1)
        error = jnp.abs(mean - looser)
        if self.divergence == "hutchinson":
            error = jnp.hypot(error, jnp.std(values[0], ddof=1) / float(np.sqrt(self.num_probes)))
        return Likelihood(mean, error, costs.sum())

    def _probes(self, position: Position, key: Array | None) -> Array:
        """The directions whose products make up the trace: (number, d)."""
        flat, _ = ravel_pytree(position)
        if self.divergence == "exact":
            return jnp.eye(flat.size, dtype=flat.dtype)
        assert key is not None
        return rademacher_like(key, flat, self.num_probes)

    @eqx.filter_jit  # without it every call outside a compiled function would compile the solve again
    def _solve(self, position: Position, probes: Array, looseness: Array) -> tuple[Array, Array]:
        """The log density by each probe, (number,), or (1,) with the exact trace; and the number of evaluations."""
        dtype = probes.dtype
        exact = self.divergence == "exact"
        first = self.log_snr_start.astype(dtype)
        last = self.path.process.log_snr(self.t.astype(dtype))

        def rate(u: Any, state: tuple[Array, Array], args: Any) -> tuple[Array, Array]:
            del args
            v, _ = state
            flow = _Flow(self.path, last - u)
            excess, product = jax.linearize(flow.excess, v)
            traces = jnp.sum(probes * flow.gain * jax.vmap(product)(probes), axis=-1)
            return -flow.gain * excess, -(traces.sum(keepdims=True) if exact else traces)

        flow = _Flow(self.path, last)
        tolerance = _LEAST_TOLERANCE * float(jnp.finfo(dtype).eps)
        solver = diffrax.Tsit5()
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rate),
            solver,
            jnp.zeros((), dtype),
            last - first,
            jnp.asarray(_FIRST_STEP, dtype),
            (flow.from_position(position), jnp.zeros(1 if exact else len(probes), dtype)),
            stepsize_controller=diffrax.PIDController(
                rtol=looseness * max(self.rtol, tolerance), atol=looseness * max(self.atol, tolerance), norm=_largest
            ),
            saveat=diffrax.SaveAt(t1=True),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None
        end, gained = jax.tree.map(lambda x: x[-1], solution.ys)
        values = _log_density_of_noise(_Flow(self.path, first), end, probes, exact=exact) + gained - flow.log_volume()
        succeeded = solution.result == diffrax.RESULTS.successful
        per_step = solver.tableau.num_stages - 1  # the last stage of a step is the first of the next
        cost = 1 + per_step * solution.stats["num_steps"] + _NUM_NODES + 1
        return jnp.where(succeeded, values, jnp.nan), cost


class _Flow:
    """One level of a path in the coordinates ``v = (z/alpha - m) / sqrt(c + s^2)``, as vectors."""

    def __init__(self, path: AbstractPerturbedScore, log_snr: Array) -> None:
        dtype = log_snr.dtype
        self.path = path
        self.t = path.process.time(log_snr).astype(dtype)
        mean, variance = (ravel_pytree(moment)[0].astype(dtype) for moment in path.data_moments())
        alpha, ratio = path.process.alpha(self.t).astype(dtype), jnp.exp(-2 * log_snr)
        self.centre, self.scale = alpha * mean, alpha * jnp.sqrt(variance + ratio)
        self.gain = ratio / (variance + ratio)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), path.structure)
        self.unravel = ravel_pytree(zeros)[1]

    def from_position(self, position: Position) -> Array:
        """V of a position at this level."""
        return (ravel_pytree(self.path.frame.to_standard(position))[0] - self.centre) / self.scale

    def excess(self, v: Array) -> Array:
        """The score in v, beyond that of the standard normal density."""
        score = self.path.standard_score(self.unravel(self.centre + self.scale * v), self.t)
        return self.scale * ravel_pytree(score)[0] + v

    def log_volume(self) -> Array:
        """``log |d position / d v|``."""
        return jnp.sum(jnp.log(self.scale)) + self.path.frame.log_volume(self.path.structure).astype(self.scale.dtype)


def _log_density_of_noise(flow: _Flow, v: Array, probes: Array, *, exact: bool) -> Array:
    """The log density of the noised data, ``log N(centre) + integral <score, dv>``, by each probe.

    The precision is I - E with a small E: ``log det = tr log(I - E)``, of which probes see the first two terms.
    """
    origin = jnp.zeros_like(v)
    centre, product = jax.linearize(flow.excess, origin)  # where the score vanishes, to first order
    products = jax.vmap(product)(probes)
    if exact:
        precision = jnp.eye(v.size, dtype=v.dtype) - 0.5 * (products + products.T)
        log_det = jnp.linalg.slogdet(precision)[1][None]
    else:
        log_det = -jnp.sum(probes * products, axis=-1) - 0.5 * jnp.sum(products**2, axis=-1)
    work = line_integral(flow.excess, centre, v, _NUM_NODES)
    log_peak = 0.5 * (log_det - v.size * float(np.log(2 * np.pi)))
    return log_peak - 0.5 * (jnp.sum(v**2) - jnp.sum(centre**2)) + work


def _largest(errors: tuple[Array, Array]) -> Array:
    """The error of a step: the larger of those of the point and of the log density."""
    point, log_p = errors
    return jax.lax.stop_gradient(jnp.maximum(jnp.sqrt(jnp.mean(point**2)), jnp.max(jnp.abs(log_p))))


def _noise_end(path: AbstractPerturbedScore) -> Array:
    """The noisiest valid log-SNR, but not beyond where the data are drowned."""
    _, variance = path.data_moments()
    largest = jax.tree.reduce(jnp.maximum, jax.tree.map(jnp.max, variance))
    lowest = jnp.maximum(path.process.log_snr(jnp.ones((), float)), path.log_snr_range[0])
    return jnp.maximum(lowest, -jnp.log(_MOST_SCALES * jnp.sqrt(largest)).astype(lowest.dtype))


def _check_level(path: AbstractPerturbedScore, t: Array, log_snr_start: Array) -> None:
    """Raise unless t lies on the clock, between the noise end and the end of the score's range; traced ones pass."""
    if any(isinstance(x, jax.core.Tracer) for x in (t, log_snr_start, path.log_snr_range)):
        return
    start, end = float(log_snr_start), float(path.log_snr_range[1])
    log_snr = float(path.process.log_snr(t)) if t.shape == () and -1e-6 <= t <= 1 else float("nan")
    if not start < log_snr <= end + 1e-3:
        raise ValueError(
            f"`t` must be a level between the noise end (log-SNR {start:.3g}) and the end of the score's range "
            f"({end:.3g}), got {t}. Leave it out for the end of the range, or choose a process that reaches it."
        )
