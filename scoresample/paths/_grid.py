"""Grids: the levels at which a path is evaluated, from noise to data, made on the host in float64."""

from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from scoresample.paths._perturbed import AbstractPerturbedScore, start_log_snr
from scoresample.paths._process import AbstractNoiseProcess

GridName = Literal["log-snr", "karras", "exponential", "uniform"]
Grid = GridName | np.ndarray | jax.Array | tuple[float, ...] | list[float]
"""How levels are placed: a name, or times."""

_KARRAS_RHO = 7.0
"""Karras et al. 2022, table 1."""
_RANGE_TOLERANCE = 1e-4
"""Times in single precision may step over the end of a range by this much log-SNR."""


class Levels(NamedTuple):
    """A decreasing ladder of noise levels, as float64 NumPy arrays of one length.

    Attributes:
        t: times, from near 1 to near 0.
        log_snr: log(alpha/sigma), increasing.
        alpha: scales of the signal.
        sigma: standard deviations of the noise.
    """

    t: np.ndarray
    log_snr: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


def noise_levels(
    path: AbstractPerturbedScore, num_steps: int, grid: Grid = "log-snr", delta: float | None = None
) -> Levels:
    """A ladder of levels from the start of sampling to where it stops: `delta`, or the end of the score's range.

    The start is the noisiest valid level, but not beyond sigma/alpha = 20 data standard deviations: a start from the
    Gaussian with the data's own moments has no visible error there. In between, with s = sigma/alpha:

    - ``"log-snr"``: uniform in log(alpha/sigma);
    - ``"karras"``: uniform in ``s^(1/7)``, with longer steps at much noise (Karras et al. 2022, arXiv 2206.00364, eq.
      5);
    - ``"exponential"``: steps ``kappa min(1, T)`` in the Ornstein-Uhlenbeck time ``T = log(1 + s^2)/2``: uniform where
      the data are drowned, shrinking geometrically near them (Benton et al. 2024, arXiv 2308.03686, section 3);
    - ``"uniform"``: uniform in the process's own time;
    - an array of times: those times, decreasing; `num_steps` is then not used.

    Arguments:
        path: a perturbed score, concrete (not traced).
        num_steps: number of steps, so `num_steps` + 1 levels.
        grid: a name, or times.
        delta: variance of the noise at which sampling stops, (sigma/alpha)^2 in the path's standard coordinates: early
            stopping (Benton et al. 2024, theorem 1). ``exp(2 d) - 1`` is the Ornstein-Uhlenbeck time d. If None, the
            end of the score's range.

    Returns:
        The ladder of levels.

    Raises:
        TypeError: if the path is traced.
        ValueError: if `num_steps` < 1, the range is empty, times do not decrease or leave the range, or `delta` leaves
            it, leaves no level after the start, or is given beside times.
    """
    check_concrete(path)
    delta = check_delta(as_delta(delta), grid)
    if not isinstance(grid, str):
        return _levels_at_times(path, np.asarray(grid, np.float64))
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    start, end = start_log_snr(path), float(np.asarray(path.log_snr_range)[1])
    if not start < end:
        raise ValueError(
            f"the score is valid up to log-SNR {end:.3g}, but sampling would start at {start:.3g}: no noise level is "
            "left. Widen `log_snr_range`, or rescale the data (`location`, `scale`)."
        )
    if delta is not None:
        end = _stop_log_snr(delta, start, end)
    fractions = np.linspace(0.0, 1.0, num_steps + 1)
    check_grid(grid)
    match grid:
        case "log-snr":
            inner = (start + fractions * (end - start))[1:-1]
        case "karras":
            inner = -np.log(karras_ratios(float(np.exp(-start)), float(np.exp(-end)), num_steps)[1:-1])
        case "exponential":
            inner = exponential_log_snr(start, end, num_steps)[1:-1]
        case "uniform":
            t = levels_at(path, np.array([start, end])).t
            inner = _log_snr_at(path, t[0] + fractions[1:-1] * (t[1] - t[0]))
    return levels_at(path, np.concatenate([[start], inner, [end]]))


def karras_ratios(first: float, last: float, num_steps: int) -> np.ndarray:
    """Values of s = sigma/alpha uniform in ``s^(1/7)``, both ends exactly (Karras et al. 2022, eq. 5)."""
    roots = np.linspace(first ** (1 / _KARRAS_RHO), last ** (1 / _KARRAS_RHO), num_steps + 1)
    return np.concatenate([[first], roots[1:-1] ** _KARRAS_RHO, [last]])


def check_grid(grid: Grid) -> Grid:
    """A grid as it came, checked: a known name, or decreasing times in [0, 1].

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(grid, str):
        if grid not in get_args(GridName):
            raise ValueError(
                f"`grid` must be one of {list(get_args(GridName))} or an array of decreasing times, got {grid!r}."
            )
        return grid
    times = np.asarray(grid, np.float64)
    if times.ndim != 1 or times.size < 2 or not np.all(np.diff(times) < 0) or times[0] > 1 or times[-1] < 0:
        raise ValueError(
            "`grid`: times must be at least two numbers in [0, 1] that decrease, from noise (1) to data (0), got "
            f"{np.array2string(times, threshold=6)}."
        )
    return grid


def as_delta(delta: Any) -> Any:
    """A single number of any kind, such as ``path.spacing**2``, as a Python float; anything else as it came."""
    return float(delta) if isinstance(delta, np.number | np.ndarray | jax.Array) and np.ndim(delta) == 0 else delta


def check_delta(delta: float | None, grid: object, *, name: str = "grid") -> float | None:
    """Where to stop as it came, checked: None, or a variance beside levels that are placed by a name.

    Arguments:
        delta: variance of the noise at which sampling stops.
        grid: what places the levels.
        name: the name of that argument.

    Raises:
        ValueError: if `delta` is no positive finite number, or stands beside times, which say where to stop themselves.
    """
    if delta is None:
        return None
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < float("inf"):
        raise ValueError(
            f"`delta` is the variance of the noise at which sampling stops, (sigma/alpha)^2: positive and finite, or "
            f"None for the end of the score's range, got {delta}."
        )
    if grid is not None and not isinstance(grid, str):
        raise ValueError(
            f"`delta` and times of your own in `{name}`: the times say themselves where sampling stops. Leave `delta` "
            f"out, or name a {name}."
        )
    return delta


def _stop_log_snr(delta: float, start: float, end: float) -> float:
    """The log-SNR of a variance of the noise, which must lie between the start and the end of the score's range."""
    stop = -0.5 * float(np.log(delta))
    if not start + _RANGE_TOLERANCE < stop <= end + _RANGE_TOLERANCE:
        least, most = np.exp(-2 * np.array([end, start]))
        why = "the score is not valid at so little noise" if stop > end else "nothing is left after the start"
        raise ValueError(
            f"`delta`: {why}. It is the variance of the noise, (sigma/alpha)^2 in standard coordinates, at which "
            f"sampling stops: here at least {least:.6g}, the end of the score's range, and below {most:.6g}, where "
            f"sampling starts; got {delta:.6g}."
        )
    return min(stop, end)


def refined_grid(grid: Grid, factor: int) -> Grid:
    """A grid with `factor` steps in the place of each: a name stays, times get others between them."""
    if isinstance(grid, str):
        return grid
    times = np.asarray(grid, np.float64)
    places = np.linspace(0, times.size - 1, factor * (times.size - 1) + 1)
    return np.interp(places, np.arange(times.size), times)


def _levels_at_times(path: AbstractPerturbedScore, times: np.ndarray) -> Levels:
    check_grid(times)
    log_snr = _log_snr_at(path, times)
    low, high = (float(end) for end in path.log_snr_range)
    if log_snr[0] < low - _RANGE_TOLERANCE or log_snr[-1] > high + _RANGE_TOLERANCE:
        first, last = (float(t) for t in levels_at(path, np.array([low, high])).t)
        raise ValueError(
            f"`grid`: the score is valid from t={first:.6g} to t={last:.6g}, but the times go from {times[0]:.6g} to "
            f"{times[-1]:.6g}."
        )
    return levels_at(path, np.clip(log_snr, low, high))


def _log_snr_at(path: AbstractPerturbedScore, times: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(_log_snr(path.process, jnp.asarray(times, jnp.float64)))


@eqx.filter_jit
def _log_snr(process: AbstractNoiseProcess, times: jax.Array) -> jax.Array:
    return jax.vmap(process.log_snr)(times)


def _ou_time(log_snr: np.ndarray) -> np.ndarray:
    """``log(1 + s^2)/2`` with ``s = exp(-log_snr)``."""
    return 0.5 * np.logaddexp(0.0, -2 * log_snr)


def _from_ou_time(times: np.ndarray) -> np.ndarray:
    return -0.5 * np.log(np.expm1(2 * times))


def exponential_log_snr(start: float, end: float, num_steps: int) -> np.ndarray:
    """The exponential grid between two values of log-SNR: steps ``kappa min(1, T)`` in Ornstein-Uhlenbeck time T."""
    first, last = (float(time) for time in _ou_time(np.array([start, end])))
    times = _exponential_times(first, last, num_steps)
    return np.concatenate([[start], _from_ou_time(times[1:-1]), [end]])


def _exponential_times(start: float, end: float, num_steps: int) -> np.ndarray:
    """Times ``t_{k+1} = t_k - kappa min(1, t_k)``, with the kappa that leads from start to end."""

    def times(kappa: float) -> np.ndarray:
        before = int(np.ceil((start - 1) / kappa)) if start > 1 else 0
        here = start - kappa * before
        steps = np.arange(num_steps + 1)
        after = here * max(1 - kappa, 0.0) ** np.maximum(steps - before, 0) if here > 0 else np.full(steps.size, here)
        return np.where(steps <= before, start - kappa * steps, after)

    low, high = 0.0, 1.0 if start < 1 else start
    for _ in range(100):
        kappa = 0.5 * (low + high)
        low, high = (kappa, high) if times(kappa)[-1] > end else (low, kappa)
    return times(high)


def levels_at(path: AbstractPerturbedScore, log_snr: np.ndarray) -> Levels:
    """The levels at given values of log(alpha/sigma), computed in float64."""
    log_snr = np.asarray(log_snr, np.float64)
    with jax.enable_x64(True):
        t, log_alpha = (np.asarray(x) for x in _clock(path.process, jnp.asarray(log_snr, jnp.float64)))
    alpha = np.exp(log_alpha)
    return Levels(t, log_snr, alpha, alpha * np.exp(-log_snr))


@eqx.filter_jit
def _clock(process: AbstractNoiseProcess, log_snr: jax.Array) -> tuple[jax.Array, jax.Array]:
    t = process.time(log_snr)
    return t, jax.vmap(process.log_alpha)(t)


def check_concrete(path: object) -> None:
    """Raise unless a path holds concrete values.

    Raises:
        TypeError: if an array of the path is traced.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(path)):
        raise TypeError(
            "plans are made from concrete values, but this path is traced (inside jit, grad or vmap). Make the plan "
            "outside with `sampler.plan(path, key=key)` and pass it as `sample(..., plan=plan)`."
        )
