"""Planning a run: how many steps a wanted accuracy takes, from proven bounds, before anything is sampled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np
import pandas as pd
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scoresample.paths import AbstractPerturbedScore, check_concrete, exponential_log_snr, levels_at
from scoresample.report import new_figure
from scoresample.samplers import ReverseSDE
from scoresample.workflows._plan_bounds import (
    TRIAL_STEPS,
    LangevinPlan,
    adapted_noise,
    discretisation_bound,
    fewest_steps,
    langevin_plan,
    least_score_bound,
    score_bound,
    start_bound,
)

PlannedGrid = Literal["adapted", "exponential", "log-snr"]
"""Ladders that plans know bounds for."""

_MOST_STEPS = 1_000_000
_START_SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the error, given to the start: the best of them is taken."""
_SMALLEST_SCALE = 0.03
"""Sampling ends, unless told, where the noise is this fraction of the smallest scale: 0.1% of its variance."""
_FIGURE_POINTS = 25
_VARIANCE_TOLERANCE = 1.05
"""Up to which a path's variances may exceed those of a plan: what rounding and a finite sample do."""


@dataclass(frozen=True, repr=False)
class SamplingPlan:
    """A ladder of noise levels, the number of steps, and every term of the bound on what they leave.

    `print` shows it as a table; `sampler` makes the sampler, `figure` shows the steps against the log-Sobolev constant.

    Attributes:
        dimension: number of coordinates.
        variances: of the coordinates, shape (dimension,).
        error: the wanted KL divergence, in nats.
        score_error: squared error of the score in units of the noise, a coordinate.
        grid: how the levels are placed.
        noise: the levels s = sigma/alpha, decreasing, one more than steps.
        start: bound on what the start leaves, in nats.
        discretisation: bound on what the finite steps leave.
        score: what the score's error adds.
        steps_by_grid: steps that other ladders would take for the same error; None beyond a million.
        log_sobolev: the data's log-Sobolev constant, or None.
        lipschitz: the Lipschitz constant of the data's own score, or None.
        langevin: annealed Langevin with proven steps, or None without a log-Sobolev constant.
    """

    dimension: int
    variances: np.ndarray
    error: float
    score_error: float
    grid: PlannedGrid
    noise: np.ndarray
    start: float
    discretisation: float
    score: float
    steps_by_grid: dict[str, int | None]
    log_sobolev: float | None
    lipschitz: float | None
    langevin: LangevinPlan | None

    @property
    def num_steps(self) -> int:
        """Number of steps, and so of score evaluations for each draw."""
        return self.noise.size - 1

    @property
    def total(self) -> float:
        """The bound on KL(data noised to the last level || law of the draws), in nats."""
        return self.start + self.discretisation + self.score

    @property
    def horizon(self) -> float:
        """The Ornstein-Uhlenbeck time T of the first level, ``log(1 + s^2/v)/2`` with v the mean variance."""
        return float(self._times[0])

    @property
    def kappa(self) -> float:
        """The largest step of the ladder relative to min(1, t) at its end, t the Ornstein-Uhlenbeck time.

        Ladders other than "exponential" take long steps at much noise, which this number says little about.
        """
        return float(np.max(-np.diff(self._times) / np.minimum(1.0, self._times[1:])))

    @property
    def _times(self) -> np.ndarray:
        """The levels in Ornstein-Uhlenbeck time, for data scaled to unit variance as the papers have them."""
        return np.log1p(self.noise**2 / self.variances.mean()) / 2

    @property
    def table(self) -> pd.DataFrame:
        """The terms of the bound: one row each."""
        d, horizon, kappa, num = self.dimension, self.horizon, self.kappa, self.num_steps
        order, term = d * np.log(self.noise[-1] ** 2 / self.variances.mean()) ** 2 / num, "d log(delta)^2/N"
        if self.grid == "exponential":
            order, term = kappa**2 * d * num + kappa * d * horizon, "kappa^2 d N + kappa d T"
        rows = {
            "start": (self.start, "sum_i log(1 + v_i/s_0^2)/2", d * np.exp(-2 * horizon), "d exp(-2T)"),
            "discretisation": (self.discretisation, "sum_k w_k (m_k - m_k+1)", order, term),
            "score error": (self.score, "d e sum_k (s_k^2/s_k+1^2 - 1)/2", float("nan"), "eps_score^2"),
            "total": (self.total, "KL, nats", float("nan"), ""),
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["bound", "formula", "paper", "paper's term"])

    def sampler(self, path: AbstractPerturbedScore) -> ReverseSDE:
        """The sampler that the bound holds for: the reverse SDE with a frozen denoiser (DDPM) on these levels.

        It does not denoise at the end: its draws are those of the data noised to the last level.

        Arguments:
            path: a perturbed score whose data have these variances in standard coordinates.

        Raises:
            TypeError: if it is none.
            ValueError: if the levels leave the range in which it is valid, or the dimension is another.
        """
        _check_path(path, "path")
        size = sum(leaf.size for leaf in jax.tree.leaves(path.structure))
        if size != self.dimension:
            raise ValueError(f"`path` has {size} coordinates, but the plan was made for {self.dimension}.")
        wider = np.max(_variances_of(path) / self.variances)
        if wider > _VARIANCE_TOLERANCE:
            raise ValueError(
                f"`path`: its data have up to {wider:.3g} times the variance that the plan was made for. Plan for the "
                "path itself: plan(path, error=...)."
            )
        times = levels_at(path, -np.log(self.noise)).t
        low, high = (float(end) for end in np.asarray(path.log_snr_range))
        if -np.log(self.noise[0]) < low - 1e-4 or -np.log(self.noise[-1]) > high + 1e-4:
            raise ValueError(
                f"`path` is valid for sigma/alpha from {np.exp(-high):.3g} to {np.exp(-low):.3g}, but the plan goes "
                f"from {self.noise[-1]:.3g} to {self.noise[0]:.3g}. Plan for the path itself: plan(path, error=...)."
            )
        return ReverseSDE(solver="ddpm", grid=tuple(float(t) for t in times), denoise=False)

    def figure(self, constants: ArrayLike | list[float] | None = None) -> Figure:
        """Score evaluations a draw against the log-Sobolev constant of the data, by annealed Langevin and reverse SDE.

        Arguments:
            constants: constants to show, by default from the largest variance, which no constant is below, to a
                thousand times the plan's own.
        """
        least = float(self.variances.max())
        own = least if self.log_sobolev is None else self.log_sobolev
        values = np.geomspace(min(least, own), 1000 * own, _FIGURE_POINTS) if constants is None else constants
        values = np.asarray(values, np.float64)
        lines: dict[str, tuple[float | None, str]] = {"annealed Langevin, log-concave data": (None, "C0")}
        if self.lipschitz is not None:
            lines[f"annealed Langevin, score with Lipschitz constant {self.lipschitz:.3g}"] = (self.lipschitz, "C2")
        figure = new_figure(6.4, 4.2)
        axes = figure.subplots()
        for label, (lipschitz, colour) in lines.items():
            steps = [float(self._langevin(value, lipschitz).steps.sum()) for value in values]
            axes.loglog(values, steps, color=colour, label=label)
            if self.log_sobolev is not None:
                here = float(self._langevin(self.log_sobolev, lipschitz).steps.sum())
                _mark(axes, self.log_sobolev, here, colour)
        axes.loglog(values, np.full(values.size, self.num_steps), "--", color="C1", label="reverse SDE, any data")
        if self.log_sobolev is not None:
            _mark(axes, self.log_sobolev, float(self.num_steps), "C1")
        axes.set_xlabel("log-Sobolev constant of the data (squared units)")
        axes.set_ylabel("score evaluations a draw, at most")
        axes.set_title(f"KL at most {self.error:g} nats in {self.dimension} dimensions", fontsize=10)
        axes.grid(color="0.92")
        axes.set_ylim(self.num_steps / 10, axes.get_ylim()[1] * 1e4)  # room for the legend, and for the numbers
        axes.legend(fontsize=8, frameon=False)
        return figure

    def _langevin(self, log_sobolev: float, lipschitz: float | None) -> LangevinPlan:
        return langevin_plan(
            self.variances, log_sobolev, self.error, self.noise[0], self.noise[-1], _curvature(lipschitz)
        )

    def __repr__(self) -> str:
        """As printed."""
        return str(self)

    def __str__(self) -> str:
        """The terms and the ladder, for a terminal."""
        scales = np.sqrt([self.variances.min(), self.variances.max()])
        spread = f"{scales[0]:.3g}" if np.isclose(*scales) else f"{scales[0]:.3g} to {scales[1]:.3g}"
        lines = [
            f"Plan for KL <= {self.error:g} nats, {self.dimension} dimensions of scale {spread}, to noise "
            f"sigma/alpha = {self.noise[-1]:.3g}",
            "",
            f"{'term':<16}{'at most, nats':>14}  {'as':<34}{'the papers, without constants'}",
        ]
        for name, (bound, formula, paper, term) in zip(self.table.index, self.table.to_numpy(), strict=True):
            theirs = f"{term} = {paper:.3g}" if np.isfinite(paper) else str(term)
            lines.append(f"{name:<16}{bound:>14.4g}  {formula:<34}{theirs}".rstrip())
        lines += [
            "",
            f"Ladder: {self.num_steps} steps ({self.grid}) from sigma/alpha = {self.noise[0]:.3g} to "
            f"{self.noise[-1]:.3g}; T = {self.horizon:.3g}.",
            f"Cost: {self.num_steps} score evaluations a draw by the reverse SDE with a frozen denoiser (DDPM).",
            "Other ladders: "
            + ", ".join(f"{name} {'more than a million' if n is None else n}" for name, n in self.steps_by_grid.items())
            + " steps.",
            f"Total variation: at most {np.sqrt(self.total / 2):.3g}. In the worst case over all data with these "
            "variances: solvers of higher order take far fewer steps on smooth data, and are not covered.",
        ]
        if self.langevin is not None:
            lines.append(
                f"Annealed Langevin with log-Sobolev constant {self.log_sobolev:.3g}: {self.langevin.noise.size} "
                f"levels, {self.langevin.steps.sum():.3g} score evaluations a draw in the worst case, relative "
                f"steps down to {self.langevin.step_size.min():.2g}/L (exact scores)."
            )
        return "\n".join(lines)


def plan(
    target: AbstractPerturbedScore | tuple[int, ArrayLike | list[float]],
    *,
    error: float = 0.1,
    delta: float | None = None,
    score_error: float = 0.0,
    log_sobolev: float | None = None,
    lipschitz: float | None = None,
    grid: PlannedGrid = "adapted",
) -> SamplingPlan:
    """The ladder and the number of steps that a wanted accuracy takes, by bounds that hold for any data.

    For the reverse SDE that freezes the denoiser over a step (``solver="ddpm"``), data noised to the last level and the
    law of the draws differ by at most
    ``KL <= sum_i log(1 + v_i/s_0^2)/2 + sum_k w_k (m_k - m_{k+1}) + d e sum_k (s_k^2/s_{k+1}^2 - 1)/2``:
    start, discretisation and score error. Here s = sigma/alpha are the levels, ``w_k = (1/s_{k+1}^2 - 1/s_k^2)/2``, m_k
    the mean squared error of the best denoiser, which is at most ``sum_i v_i s_k^2/(v_i + s_k^2)`` whatever the data,
    and e the score's squared error in units of the noise, a coordinate. By Girsanov's theorem; there is no cross term,
    since the exact denoiser is a martingale in reverse time. Only the variances v of the data enter: no smoothness, no
    log-concavity, no bounded support. On the ladder "adapted", on which this bound is least, N steps leave about
    ``d l (l + 1)/(2 N)``, ``l = log(1 + v/delta)``: nearly linear in d, of the same kind as the bound of Benton et al.
    2024, arXiv 2308.03686, theorem 1, who freeze the score on the ladder "exponential".

    With a log-Sobolev constant the plan has the levels and steps of annealed Langevin on log-concave data too, which
    need it: polynomial, and by orders of magnitude more (Lee, Lu and Tan 2022, arXiv 2206.06227). That bound is on
    KL(law of the draws || noised data), the other direction. Bounds are worst cases. What a run is
    really off by is at most what [`sampling_budget`][scoresample.sampling_budget] measures on data.

    Arguments:
        target: a perturbed score, whose data's variances (1 in standard coordinates where a network was not told them)
            and range of levels are used; or (dimension, scale), scale one standard deviation for all coordinates or one
            for each.
        error: the wanted KL divergence, in nats; total variation is then at most ``sqrt(error/2)``.
        delta: variance of the noise, (sigma/alpha)^2, at which sampling stops. By default where the path ends, or 0.1%
            of the smallest variance.
        score_error: squared error of the score in units of the noise, a coordinate: the `fisher_divergence` that
            [`score_health`][scoresample.score_health] measures against an exact score.
        log_sobolev: the data's log-Sobolev constant C, ``Ent(f^2) <= 2 C E|grad f|^2``: v for a normal law of variance
            v, at most 1/m where ``-grad^2 log p >= m``; [`log_sobolev_bounds`][scoresample.log_sobolev_bounds]
            estimates it. In the coordinates of the plan: standardised ones for a learned score.
        lipschitz: a Lipschitz constant of the data's own score, for annealed Langevin; the curvature of a level is then
            ``1/(1/lipschitz + s^2)``, without it ``1/s^2``; both hold for log-concave data.
        grid: "adapted", "exponential" or "log-snr".

    Returns:
        The plan.

    Raises:
        TypeError: if the target is neither.
        ValueError: if a number is out of range, the score's error alone exceeds `error`, or the path's range is too
            short for it.

    Examples:
        >>> import scoresample as ss
        >>> ss.plan((2, 1.0), error=0.1).num_steps
        574
        >>> print(ss.plan((2, 1.0), error=0.1).table.bound.round(3).to_dict())
        {'start': 0.002, 'discretisation': 0.098, 'score error': 0.0, 'total': 0.1}
    """
    _check_numbers(error=error, delta=delta, log_sobolev=log_sobolev, lipschitz=lipschitz)
    if not 0 <= score_error < float("inf"):
        raise ValueError(f"`score_error` must be at least 0, got {score_error}.")
    if grid not in get_args(PlannedGrid):
        raise ValueError(f"`grid` must be one of {list(get_args(PlannedGrid))}, got {grid!r}.")
    variances, noisiest, least = _described(target)
    end = float(np.sqrt(delta)) if delta is not None else least
    if end < least * (1 - 1e-4) and isinstance(target, AbstractPerturbedScore):
        raise ValueError(
            f"`delta`: the path ends at sigma/alpha = {least:.3g}, so at least {least**2:.3g}, got {delta}."
        )
    if log_sobolev is not None and log_sobolev < variances.max() * (1 - 1e-6):
        raise ValueError(
            f"`log_sobolev`: no log-Sobolev constant is below the largest variance, {variances.max():.3g} here, got "
            f"{log_sobolev}."
        )
    ladders = {name: _shortest(variances, noisiest, end, error, score_error, name) for name in get_args(PlannedGrid)}
    noise = ladders.pop(grid)
    if noise is None:
        raise ValueError(_why_not(variances, noisiest, end, error, score_error))
    langevin = None
    if log_sobolev is not None:
        langevin = langevin_plan(variances, log_sobolev, error, noise[0], noise[-1], _curvature(lipschitz))
    return SamplingPlan(
        dimension=variances.size,
        variances=variances,
        error=error,
        score_error=score_error,
        grid=grid,
        noise=noise,
        start=start_bound(variances, noise[0]),
        discretisation=discretisation_bound(variances, noise),
        score=score_bound(score_error, variances.size, noise),
        steps_by_grid={name: None if ladder is None else ladder.size - 1 for name, ladder in ladders.items()},
        log_sobolev=log_sobolev,
        lipschitz=lipschitz,
        langevin=langevin,
    )


def _mark(axes: Axes, constant: float, steps: float, colour: str) -> None:
    """A plan's own constant on a line, with the number of steps."""
    axes.plot([constant], [steps], "o", color=colour)
    label = f"{steps:.2g}" if steps >= 1e5 else f"{steps:,.0f}"
    place: dict[str, Any] = {"xytext": (8, -9), "textcoords": "offset points"}
    axes.annotate(label, (constant, steps), **place, fontsize=8, color=colour)


def _curvature(lipschitz: float | None) -> Callable[[np.ndarray], np.ndarray]:
    """The curvature of a level: noise s gives ``1/s^2`` at most, and on smooth data less."""
    flat = 0.0 if lipschitz is None else 1 / lipschitz
    return lambda noise: 1 / (flat + noise**2)


def _check_path(path: object, name: str) -> None:
    if not isinstance(path, AbstractPerturbedScore):
        raise TypeError(
            f"`{name}` must be a perturbed score or (dimension, scale), got {type(path).__name__}. Make one with "
            "fit_score(draws), PerturbedScore(network, process) or perturb(density, process)."
        )
    check_concrete(path)


def _check_numbers(**numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"`{name}` must be positive and finite, got {value}.")


def _described(target: object) -> tuple[np.ndarray, float, float]:
    """Variances of the coordinates, the noisiest level that there is, and the last."""
    if isinstance(target, tuple):
        if len(target) != 2 or not isinstance(target[0], int | np.integer) or target[0] < 1:
            raise ValueError(f"`target` must be (dimension, scale) with a dimension of at least 1, got {target!r}.")
        scales = np.asarray(target[1], np.float64)
        if scales.shape not in ((), (target[0],)) or not np.all((scales > 0) & np.isfinite(scales)):
            raise ValueError(
                f"`target`: the scale must be one positive number or {target[0]} of them, got {target[1]!r}."
            )
        variances = np.broadcast_to(scales**2, (int(target[0]),)).astype(np.float64)
        return variances, float("inf"), _SMALLEST_SCALE * float(np.sqrt(variances.min()))
    _check_path(target, "target")
    assert isinstance(target, AbstractPerturbedScore)
    variances = _variances_of(target)
    low, high = np.asarray(target.log_snr_range, np.float64)
    return variances, float(np.exp(-low)), float(np.exp(-high))


def _variances_of(path: AbstractPerturbedScore) -> np.ndarray:
    """Variances of the coordinates in standard coordinates: 1 where they are not known."""
    leaves = zip(jax.tree.leaves(path.data_moments()[1]), jax.tree.leaves(path.structure), strict=True)
    return np.concatenate([np.broadcast_to(np.asarray(v, np.float64), s.shape).ravel() for v, s in leaves])


def _start_for(variances: np.ndarray, share: float) -> float:
    """The noise level whose start leaves `share`, by bisection in its logarithm."""
    low, high = np.log(np.sqrt(variances.min())) - 20, np.log(np.sqrt(variances.sum() / share)) + 1
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if start_bound(variances, float(np.exp(middle))) <= share else (middle, high)
    return float(np.exp(high))


def _ladder(variances: np.ndarray, start: float, end: float, num_steps: int, grid: str) -> np.ndarray:
    match grid:
        case "adapted":
            return adapted_noise(variances, start, end, num_steps)
        case "exponential":
            # Its two regimes meet where the noise has the scale of the data.
            scale = float(np.sqrt(variances.mean()))
            return scale * np.exp(-exponential_log_snr(-np.log(start / scale), -np.log(end / scale), num_steps))
        case _:
            return np.geomspace(start, end, num_steps + 1)


def _shortest(
    variances: np.ndarray, noisiest: float, end: float, error: float, score_error: float, grid: str
) -> np.ndarray | None:
    """The ladder of fewest steps, over the shares of the error that the start may take, or None if there is none."""

    def remaining(noise: np.ndarray) -> float:
        return discretisation_bound(variances, noise) + score_bound(score_error, variances.size, noise)

    def falling(start: float, num_steps: int) -> float:
        """What more steps make smaller: all but the part of the score's error that none of them removes."""
        always = least_score_bound(score_error, variances.size, start, end)
        return remaining(_ladder(variances, start, end, num_steps, grid)) - always

    starts = {min(noisiest, _start_for(variances, share * error)) for share in _START_SHARES}
    found = []
    for start in sorted(starts):
        left = error - start_bound(variances, start) - least_score_bound(score_error, variances.size, start, end)
        if start > end and left > 0:
            found.append((falling(start, TRIAL_STEPS) / left, start, left))
    if not found:
        return None
    _, start, left = min(found)
    steps = fewest_steps(lambda num: falling(start, num), left, _MOST_STEPS)
    return None if steps is None else _ladder(variances, start, end, steps, grid)


def _why_not(variances: np.ndarray, noisiest: float, end: float, error: float, score_error: float) -> str:
    """What stands in the way of an error."""
    start = start_bound(variances, noisiest) if np.isfinite(noisiest) else 0.0
    if start >= error:
        return (
            f"`error`: the path starts at sigma/alpha = {noisiest:.3g}, which alone leaves up to {start:.3g} nats of "
            f"the wanted {error:g}. Use a process with more noise, or allow a larger error."
        )
    least = least_score_bound(score_error, variances.size, min(noisiest, _start_for(variances, error / 2)), end)
    if least >= error / 2:
        return (
            f"`score_error`: {score_error:g} a coordinate adds about {least:.3g} nats however many steps are taken, of "
            f"the wanted {error:g}. Train a better score, stop at more noise (`delta`), or allow a larger error."
        )
    return (
        f"`error`: {error:g} nats would take more than {_MOST_STEPS:,} steps. Allow a larger error or a larger `delta`."
    )
