"""Nearly d-linear convergence: how the reverse SDE's error falls with its steps, and grows with the dimension.

Benton et al. 2024, arXiv 2308.03686. Run it as
`python -m examples.papers.linear_in_dimension [--quick] [--json FILE] [--out FOLDER]`.

The Ornstein-Uhlenbeck process up to T = 8, the exponential integrator on steps ``kappa min(1, T - t)``, stopped at
``T - delta``. On normal data the law of the draws is an affine recursion, followed in float64 with the sampler's own
coefficients; on the line the density of the draws is propagated; in many dimensions there is the budget of the paths.
The exit status is 1 if a goal fails.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.special import gammaln

import scoresample as ss
from tests.benchmarks.report import keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
HORIZON, DELTA = 8.0, 1e-3
POINT_MASS = 1e-12
"""The variance that stands for a point mass: a billionth of the noise that is left."""
VARIANCES = {"point mass": POINT_MASS, "variance .001": 1e-3, "variance .25": 0.25, "variance 4": 4.0}
KAPPAS = (0.4, 0.2, 0.1, 0.05, 0.025)
FITTED = 136
"""Slopes are fitted over so many steps or more."""
GRIDS = ("exponential", "uniform")
PATH_SLOPE, KL_SLOPE, DIMENSION_SLOPE = (-1.0, 0.05), (-2.0, 0.1), (1.0, 0.1)
BAND = (0.85, 1.45)
RATIO_STEPS, RATIO = 275, 1e-3
STANDARD_ERRORS = 4.0
CDF_ERROR = 1e-4
LINE_WIDTH = 0.5
"""Up to here the points of the line are evenly spaced, beyond they thin out."""
DELTAS, DELTA_KAPPA, DELTA_DATA = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), 0.1, ("point mass", "variance 4")
DIMENSIONS = (2, 4, 8, 16, 32, 64)
DIMENSION_KEYS = ("path KL", "near", "denoiser")
NEAR = 1.0
"""Time left from which the steps of the exponential grid shrink."""
SUBSPACES = (1, 2, 4, 8, 16, 32, 64)
type Ladder = Literal["adapted", "exponential"]
LADDERS: tuple[Ladder, ...] = ("adapted", "exponential")
PLANS = ((1, 0.1, 1e-3), (1, 0.01, 1e-2), (16, 0.5, 1e-3))
"""Dimension, wanted KL, variance of the noise that is left."""


class Goal(NamedTuple):
    """A claim, what was measured, what is asked, and whether it holds."""

    claim: str
    measured: str
    goal: str
    holds: bool


def exponential_times(kappa: float, delta: float = DELTA) -> np.ndarray:
    """Times left, from T to delta: each step is kappa times the lesser of 1 and the time left, the last one cut."""
    left = [HORIZON]
    while left[-1] > delta * (1 + 1e-9):
        left.append(max(left[-1] - kappa * min(1.0, left[-1]), delta))
    return np.array(left)


def grid_times(grid: str, kappa: float) -> np.ndarray:
    """Times left on the exponential grid, or on a uniform one of as many steps."""
    left = exponential_times(kappa)
    return left if grid == "exponential" else np.linspace(HORIZON, DELTA, left.size)


def perturbed(density: ss.Gaussian | ss.GaussianMixture) -> Any:
    """The exact score of noised data, from T to delta."""
    path = ss.perturb(density, ss.OU(HORIZON))
    ends = -0.5 * np.log(np.expm1(2 * np.array([HORIZON, DELTA])))
    return eqx.tree_at(lambda p: p.log_snr_range, path, jnp.asarray(ends, path.log_snr_range.dtype))


def frozen_score(left: np.ndarray) -> ss.ReverseSDE:
    """The paper's sampler."""
    return ss.ReverseSDE(solver="exponential-integrator", grid=left / HORIZON, denoise=False)


def frozen_denoiser(left: np.ndarray) -> ss.ReverseSDE:
    """DDPM, which keeps the denoiser instead of the score."""
    return ss.ReverseSDE(solver="ddpm", grid=left / HORIZON, denoise=False)


def normal_divergence(ratio: np.ndarray) -> np.ndarray:
    """KL of centred normal laws, from the ratio of the first one's variance to the second one's."""
    return 0.5 * (ratio - 1 - np.log(ratio))


@eqx.filter_jit
def denoiser_slopes(path: Any, t: Array) -> Array:
    """The factors by which the denoiser of a centred normal law shrinks each coordinate, shape (steps, d)."""
    one = jnp.ones(path.structure.shape)
    return jax.vmap(lambda t: path.standard_denoise(one, t) - path.standard_denoise(jnp.zeros_like(one), t))(t)


def variance_ratios(path: Any, sampler: ss.ReverseSDE) -> tuple[np.ndarray, np.ndarray]:
    """Of the noised data to the draws, a coordinate: the recursion of variances, with the sampler's own coefficients.

    From N(0, I), as in the paper, and from the library's own start, which has the variances of the noised data. The
    path is made in float64, of a normal law with mean zero and independent coordinates.
    """
    variances = np.asarray(path.density.variances, np.float64)
    with jax.enable_x64(True):
        plan = sampler.plan(path, key=jax.random.key(0))
        slopes = np.asarray(denoiser_slopes(path, plan.steps.t))
        (first, start_noise), (last, end_noise) = (
            (float(path.process.alpha(t)), float(path.process.variance(t))) for t in (plan.t_start, plan.t_final)
        )
    rows = jax.tree.map(np.asarray, plan.steps)
    law = np.stack([np.ones(variances.size), first**2 * variances + start_noise]) / first**2
    for k, slope in enumerate(slopes):
        law = (rows.keep[k] + rows.predict[k, 0] * rows.alpha[k] * slope) ** 2 * law + rows.spread[k] ** 2
    paper, own = (last**2 * variances + end_noise) / (last**2 * law)
    return paper, own


def frozen_score_paths(fisher: Callable[[np.ndarray], np.ndarray], left: np.ndarray) -> float:
    """The KL divergence of paths, of the steps alone, from the Fisher information at every time left.

    The exact score at time s is ``e^h`` times the mean of that at s - h given the noisier point, so
    ``E|s_t - s_k|^2 = J_t + J_k - 2 exp(-h) J_k``, and OU paths differ by its integral.
    """
    nodes, weights = np.polynomial.legendre.leggauss(24)
    first, last = left[:-1], left[1:]
    half = 0.5 * np.log(first / last)
    inner = np.exp(0.5 * np.log(first * last)[:, None] + half[:, None] * nodes)
    integral = half * np.sum(weights * inner * fisher(inner), axis=1)
    h = first - last
    return float(np.sum(integral + (h + 2 * np.expm1(-h)) * fisher(first)))


def normal_fisher(variance: float) -> Callable[[np.ndarray], np.ndarray]:
    """Of noised normal data."""
    return lambda left: 1 / (variance * np.exp(-2 * left) - np.expm1(-2 * left))


def frozen_denoiser_paths(variances: np.ndarray, noise: np.ndarray) -> float:
    """The same for DDPM on normal data: ``mmse_k - mmse(u)`` integrated over ``u = 1/(2 s^2)``, s = sigma/alpha."""
    total = 0.0
    for v, count in zip(*np.unique(variances, return_counts=True), strict=True):
        u = 0.5 / noise**2
        total += count * np.sum(np.diff(u) * v / (1 + 2 * u[:-1] * v) - 0.5 * np.diff(np.log1p(2 * u * v)))
    return float(total)


def schedules(kappas: tuple[float, ...]) -> dict[str, list[dict[str, float]]]:
    """Every variance, grid and kappa: divergences a coordinate."""
    found: dict[str, list[dict[str, float]]] = {f"{name}|{grid}": [] for name in VARIANCES for grid in GRIDS}
    with jax.enable_x64(True):
        path = perturbed(ss.Gaussian(jnp.zeros(len(VARIANCES)), jnp.asarray(list(VARIANCES.values()))))
    for grid in GRIDS:
        for kappa in kappas:
            left = grid_times(grid, kappa)
            ratios, own = variance_ratios(path, frozen_score(left))
            for i, (name, variance) in enumerate(VARIANCES.items()):
                start = normal_divergence(1 / normal_fisher(variance)(np.array(HORIZON)))
                found[f"{name}|{grid}"].append({
                    "N": left.size - 1,
                    "kappa": kappa,
                    "KL": float(normal_divergence(ratios[i])),
                    "reverse KL": float(normal_divergence(1 / ratios[i])),
                    "own start": float(normal_divergence(own[i])),
                    "path KL": frozen_score_paths(normal_fisher(variance), left) + float(start),
                })  # fmt: skip
    return found


def budgets(kappas: tuple[float, ...], num_points: int) -> list[dict[str, Any]]:
    """The path divergence by `sampling_budget`, from data alone, beside the closed form."""
    found = []
    for i, (name, variance) in enumerate(VARIANCES.items()):
        density = ss.Gaussian(jnp.zeros(1), variance)
        data = density.sample(jax.random.key(1), num_points)
        for kappa in kappas:
            left = exponential_times(kappa)
            key = jax.random.fold_in(jax.random.key(2 + i), left.size)
            budget = ss.sampling_budget(perturbed(density), frozen_score(left), data, key=key, num_points=num_points)
            exact = frozen_score_paths(normal_fisher(variance), left)
            found.append({
                "data": name, "N": left.size - 1, "exact": exact, "budget": budget.discretisation,
                "se": budget.discretisation_se,
            })  # fmt: skip
    return found


def slope(numbers: list[dict[str, float]], what: str) -> float:
    """In the number of steps, over the larger ones, by least squares of logarithms."""
    kept = [row for row in numbers if row["N"] >= FITTED]
    return float(np.polyfit(np.log([row["N"] for row in kept]), np.log([row[what] for row in kept]), 1)[0])


def rotated_mixture(dimension: int, seed: int, inside: int | None = None) -> ss.GaussianMixture:
    """Four normal laws, of variances from .05 to 1 along axes of their own, around means at a distance ~ sqrt(d).

    The mean of ``|x|^2`` is the dimension. With `inside`, all this happens in a random subspace of that dimension, of
    which the mean square is then a coordinate's as before, and everything else is of variance 1e-12.
    """
    rng = np.random.default_rng((seed, dimension))
    k = dimension if inside is None else inside
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    means = rng.normal(size=(4, k))
    means *= np.sqrt(0.5 * k) / np.linalg.norm(means, axis=1, keepdims=True)
    means -= weights @ means
    eigenvalues = 0.05 ** (1 - (np.arange(k) + 0.5) / k)
    eigenvalues *= (k - weights @ np.sum(means**2, axis=1)) / eigenvalues.sum()
    turns = [stats.ortho_group.rvs(k, random_state=rng) if k > 1 else np.ones((1, 1)) for _ in weights]
    covariances = np.stack([turn @ np.diag(eigenvalues) @ turn.T for turn in turns])
    if k < dimension:
        basis = stats.ortho_group.rvs(dimension, random_state=rng)
        means = means @ basis[:, :k].T
        outside = POINT_MASS * basis[:, k:] @ basis[:, k:].T
        covariances = basis[:, :k] @ covariances @ basis[:, :k].T + outside
    return ss.GaussianMixture(weights, means, covariances)


def in_dimensions(dimensions: tuple[int, ...], num_mixtures: int, num_points: int) -> list[dict[str, Any]]:
    """Path divergences on rotated mixtures, on one grid for all: frozen score, its steps near the data, and DDPM."""
    left, found = exponential_times(0.1), []
    for dimension in dimensions:
        for seed in range(num_mixtures):
            density = rotated_mixture(dimension, seed)
            path, data = perturbed(density), density.sample(jax.random.key(seed), num_points)
            score, denoiser = (
                ss.sampling_budget(path, sampler, data, key=jax.random.key(100 + seed), num_points=num_points)
                for sampler in (frozen_score(left), frozen_denoiser(left))
            )
            near = score.t * HORIZON < NEAR + 1e-6
            found.append({
                "d": dimension,
                "path KL": score.total,
                "path KL se": score.total_se,
                "near": float(score.step_discretisation[near].sum()),
                "near se": float(np.sqrt(np.sum(score.step_discretisation_se[near] ** 2))),
                "denoiser": denoiser.total,
                "denoiser se": denoiser.total_se,
            })  # fmt: skip
    return found


def subspaces(sizes: tuple[int, ...], num_points: int) -> list[dict[str, Any]]:
    """Path divergences of both samplers, on mixtures in a k-dimensional subspace of R^64."""
    left, found = exponential_times(0.1), []
    for k in sizes:
        density = rotated_mixture(64, 0, inside=k)
        path, data = perturbed(density), density.sample(jax.random.key(k), num_points)
        row: dict[str, Any] = {"k": k}
        for name, sampler in (("score", frozen_score(left)), ("denoiser", frozen_denoiser(left))):
            budget = ss.sampling_budget(path, sampler, data, key=jax.random.key(3), num_points=num_points)
            row |= {name: budget.total, f"{name} se": budget.total_se}
        found.append(row)
    return found


def adaptive(num_points: int) -> dict[str, tuple[float, float]]:
    """Path divergences of DDPM on three grids of as many steps, on a rotated mixture."""
    density, left = rotated_mixture(16, 0), exponential_times(0.1)
    path, data = perturbed(density), density.sample(jax.random.key(5), num_points)
    times = ss.loss_adaptive_grid(path, data, key=jax.random.key(6), num_steps=left.size - 1)
    fresh = density.sample(jax.random.key(7), num_points)
    grids = {"exponential": left / HORIZON, "uniform": grid_times("uniform", 0.1) / HORIZON, "loss-adaptive": times}
    found = {}
    for name, grid in grids.items():
        sampler = ss.ReverseSDE(solver="ddpm", grid=grid, denoise=False)
        budget = ss.sampling_budget(path, sampler, fresh, key=jax.random.key(8), num_points=num_points)
        found[name] = (budget.total, budget.total_se)
    return found


class Line(NamedTuple):
    """Points of the real line, dense near zero, and the weights of the trapezoid rule."""

    z: np.ndarray
    dz: np.ndarray


def line(reach: float, size: int = 801) -> Line:
    """From -reach to reach."""
    s = np.linspace(-1, 1, size) * np.arcsinh(reach / LINE_WIDTH)
    return Line(LINE_WIDTH * np.sinh(s), LINE_WIDTH * np.cosh(s) * (s[1] - s[0]))


@eqx.filter_jit
def denoisers(path: Any, z: Array, t: Array) -> tuple[Array, Array]:
    """Denoised points and their derivatives, at every time and point of the line."""

    def denoise(z: Array, t: Array) -> Array:
        return path.standard_denoise(z[None], t)[0]

    return jax.lax.map(lambda t: jax.vmap(jax.value_and_grad(denoise), in_axes=(0, None))(z, t), t)


@eqx.filter_jit
def logdensities(path: Any, z: Array, t: Array) -> Array:
    """Of the noised data, at points of the line."""
    return jax.vmap(lambda z: path.standard_logdensity(z[None], t))(z)


def divergence_on_the_line(path: Any, sampler: ss.ReverseSDE, points: Line) -> float:
    """KL(noised data || draws) in one dimension: the draws' density, carried from step to step.

    A step moves every point to ``u(z)``, monotone, and adds normal noise: the density of u is that of z over u', and
    the noise a sum over its own density. Logarithms are interpolated by cubic splines. The start is the library's.
    """
    noise = np.arange(-8.0, 8.01, 0.4)
    log_weights = stats.norm.logpdf(noise) + np.log(0.4)
    with jax.enable_x64(True):
        plan = sampler.plan(path, key=jax.random.key(0))
        rows = jax.tree.map(np.asarray, plan.steps)
        pulled, slopes = (np.asarray(x) for x in denoisers(path, jnp.asarray(points.z), plan.steps.t))
        alphas = np.append(rows.alpha, float(path.process.alpha(plan.t_final)))
        mean, variance = (float(m[0]) for m in path.data_moments())
        first, start_noise = float(path.process.alpha(plan.t_start)), float(path.process.variance(plan.t_start))
        target = np.asarray(logdensities(path, jnp.asarray(points.z), plan.t_final))
    law = stats.norm.logpdf(points.z, first * mean, np.sqrt(first**2 * variance + start_noise))
    for k, (alpha, after) in enumerate(pairwise(alphas)):
        moved = after * (rows.keep[k] * points.z / alpha + rows.predict[k, 0] * pulled[k])
        stretch = after * (rows.keep[k] / alpha + rows.predict[k, 0] * slopes[k])
        assert stretch.min() > 0, "the step folds the line"
        seen = points.z[:, None] + after * rows.spread[k] * noise
        terms = _extended(moved, law - np.log(stretch), seen) + log_weights
        top = terms.max(axis=1)
        law = top + np.log(np.sum(np.exp(terms - top[:, None]), axis=1))
    assert abs(np.sum(points.dz * np.exp(law)) - 1) < 1e-5, "the density has lost mass"
    density = np.exp(target)
    return float(np.sum(points.dz * (density * (target - law) - density + np.exp(law))))


def _extended(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A cubic spline, and straight lines beyond its ends."""
    spline = CubicSpline(x, y)
    inside = np.clip(at, x[0], x[-1])
    ends = spline(x[[0, -1]], 1)
    return spline(inside) + np.minimum(at - x[0], 0) * ends[0] + np.maximum(at - x[-1], 0) * ends[1]


def student() -> ss.GaussianMixture:
    """Student's t with three degrees of freedom: normal laws whose variance is inverse-gamma(3/2, 3/2).

    The trapezoid rule in the logarithm of the variance, from .03 to 1e8.
    """
    variances = np.geomspace(0.03, 1e8, 100)
    log_weights = 1.5 * np.log(1.5) - gammaln(1.5) - 1.5 * np.log(variances) - 1.5 / variances
    weights = np.exp(np.maximum(log_weights, -600))
    return ss.GaussianMixture(weights / weights.sum(), np.zeros((100, 1)), variances)


def student_cdf_error(density: ss.GaussianMixture) -> float:
    """The largest difference of distribution functions, from the centre to the far tail."""
    z = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 2000)])
    scales = np.sqrt(np.asarray(density.variances, np.float64)[:, 0])
    weights = np.exp(np.asarray(density.log_weights, np.float64))
    return float(np.max(np.abs(stats.norm.cdf(z[:, None] / scales) @ weights - stats.t.cdf(z, 3))))


@eqx.filter_jit
def _squared_scores(path: Any, z: Array, t: Array) -> tuple[Array, Array]:
    def both(z: Array, t: Array) -> tuple[Array, Array]:
        return path.standard_logdensity(z[None], t), path.standard_score(z[None], t)[0] ** 2

    return jax.lax.map(lambda t: jax.vmap(both, in_axes=(0, None))(z, t), t)


def fisher_on_the_line(path: Any, points: Line) -> Callable[[np.ndarray], np.ndarray]:
    """The Fisher information of the noised data at any time left, by a spline through 160 of them."""
    left = np.geomspace(0.9 * DELTA, HORIZON, 160)
    with jax.enable_x64(True):
        logs, squares = (
            np.asarray(x) for x in _squared_scores(path, jnp.asarray(points.z), jnp.asarray(left / HORIZON))
        )
    spline = CubicSpline(np.log(left), np.sum(points.dz * np.exp(logs) * squares, axis=1))
    return lambda left: spline(np.log(left))


def heavy_tails(kappas: tuple[float, ...]) -> dict[str, Any]:
    """KL and path KL on Student's t, on both grids; and how well the same code does on a normal law."""
    points = line(2000.0)
    with jax.enable_x64(True):
        density = student()
        path, normal = perturbed(density), perturbed(ss.GaussianMixture([1.0], [[0.0]], 0.25))
    fisher = fisher_on_the_line(path, points)
    found: dict[str, Any] = {"cdf error": student_cdf_error(density)}
    for grid in GRIDS:
        found[grid] = []
        for kappa in kappas:
            left = grid_times(grid, kappa)
            kl = divergence_on_the_line(path, frozen_score(left), points)
            found[grid].append({"N": left.size - 1, "KL": kl, "path KL": frozen_score_paths(fisher, left)})
    left = exponential_times(0.1)
    with jax.enable_x64(True):
        exact = perturbed(ss.Gaussian(jnp.zeros(1), 0.25))
    known = float(normal_divergence(variance_ratios(exact, frozen_score(left))[1][0]))
    found["check"] = abs(divergence_on_the_line(normal, frozen_score(left), line(8.0)) / known - 1)
    return found


def three_modes() -> ss.GaussianMixture:
    """A skewed mixture on the line, of mean zero and variance one."""
    weights, means, variances = np.array([0.6, 0.3, 0.1]), np.array([-0.8, 0.6, 2.0]), np.array([0.05, 0.1, 0.02])
    means -= weights @ means
    total = weights @ (means**2 + variances)
    return ss.GaussianMixture(weights, means[:, None] / np.sqrt(total), variances / total)


def planned_for(data: str, dimension: int) -> ss.Gaussian | ss.GaussianMixture:
    """Data of variance one, made in JAX's precision of the moment."""
    if data == "normal":
        return ss.Gaussian(jnp.zeros(dimension), jnp.ones(dimension))
    return three_modes() if dimension == 1 else rotated_mixture(dimension, 0)


def planned(
    plans: tuple[tuple[int, float, float], ...], ladders: tuple[Ladder, ...], num_points: int
) -> list[dict[str, Any]]:
    """What `plan` asks for, and what its sampler is off by, on normal data and on mixtures."""
    found = []
    for dimension, error, delta in plans:
        for ladder in ladders:
            for data in ("normal", "mixture"):
                with jax.enable_x64(True):
                    path = ss.perturb(planned_for(data, dimension), ss.OU(HORIZON))
                    plan = ss.plan(path, error=error, delta=delta, grid=ladder)
                    sampler = plan.sampler(path)
                row: dict[str, Any] = {
                    "data": data, "d": dimension, "error": error, "delta": delta, "ladder": ladder,
                    "N": plan.num_steps, "bound": plan.total, "KL": None, "se": 0.0,
                }  # fmt: skip
                if data == "normal":
                    row["KL"] = float(np.sum(normal_divergence(variance_ratios(path, sampler)[1])))
                    row["path KL"] = frozen_denoiser_paths(plan.variances, plan.noise)
                else:
                    if dimension == 1:
                        row["KL"] = divergence_on_the_line(path, sampler, line(8.0))
                    single = ss.perturb(planned_for(data, dimension), path.process)
                    draws = single.density.sample(jax.random.key(9), num_points)
                    budget = ss.sampling_budget(single, sampler, draws, key=jax.random.key(10), num_points=num_points)
                    row |= {"path KL": budget.total, "se": budget.total_se}
                found.append(row)
    return found


def dimension_slope(rows: list[dict[str, Any]], what: str) -> tuple[float, float]:
    """Of a path divergence in the dimension, with its standard error, by least squares of logarithms."""
    fit, covariance = np.polyfit(np.log([row["d"] for row in rows]), np.log([row[what] for row in rows]), 1, cov=True)
    return float(fit[0]), float(np.sqrt(covariance[0, 0]))


def goals(cells: dict[str, Any]) -> Iterator[Goal]:
    """All that has to hold."""
    grids, heavy = cells["schedules"], cells["heavy tails"]
    laws = {name: grids[f"{name}|exponential"] for name in VARIANCES} | {"Student's t(3)": heavy["exponential"]}
    for what, (aim, within) in (("path KL", PATH_SLOPE), ("KL", KL_SLOPE)):
        for name, rows in laws.items():
            found = slope(rows, what)
            claim = f"slope of {what} in N, N >= {FITTED}: {name}"
            yield Goal(claim, f"{found:.3f}", f"{aim:g} ± {within}", abs(found - aim) <= within)
    everything = [row for rows in grids.values() for row in rows] + [row for grid in GRIDS for row in heavy[grid]]
    least = min(row["path KL"] / row["KL"] for row in everything)
    yield Goal("path KL / KL, least of all data and grids", f"{least:.3g}", ">= 1", least >= 1)
    bands = [band(row) for name in VARIANCES for row in grids[f"{name}|exponential"]]
    claim = "path KL / (kappa log(1/delta)), normal data"
    text = f"{min(bands):.3f} to {max(bands):.3f}"
    yield Goal(claim, text, "{} to {}".format(*BAND), BAND[0] <= min(bands) and max(bands) <= BAND[1])
    one, other = (row["KL"] for g in GRIDS for row in grids[f"point mass|{g}"] if row["N"] == RATIO_STEPS)
    claim = f"KL exponential / uniform, point mass, N={RATIO_STEPS}"
    yield Goal(claim, f"{one / other:.2g}", f"<= {RATIO:g}", one / other <= RATIO)
    far = max(abs(row["budget"] - row["exact"]) / row["se"] for row in cells["budgets"])
    claim = "sampling_budget from the closed form, most standard errors"
    yield Goal(claim, f"{far:.1f}", f"<= {STANDARD_ERRORS:g}", far <= STANDARD_ERRORS)
    aim, within = DIMENSION_SLOPE
    for what, sampler in (("path KL", "frozen score"), ("denoiser", "DDPM")):
        value, error = dimension_slope(cells["dimensions"], what)
        claim = f"slope of path KL in d, rotated mixtures, {sampler}"
        yield Goal(claim, f"{value:.3f} ± {error:.3f}", f"{aim:g} ± {within}", abs(value - aim) <= within)
    claim = "Student's t(3) as a mixture, error of its distribution function"
    yield Goal(claim, f"{heavy['cdf error']:.0e}", f"<= {CDF_ERROR:g}", heavy["cdf error"] <= CDF_ERROR)
    falls = all(a["KL"] > b["KL"] and a["path KL"] > b["path KL"] for a, b in pairwise(heavy["exponential"]))
    yield Goal("KL and path KL on Student's t(3) fall at every refinement", yes(falls), "yes", falls)
    worst = max(max(row["path KL"], row["KL"] or 0.0) / row["error"] for row in cells["plans"])
    yield Goal("planned runs: path KL and KL / wanted error, most", f"{worst:.2f}", "<= 1", worst <= 1)


def band(row: dict[str, float]) -> float:
    """The path divergence a coordinate in units of the bound's leading term."""
    return row["path KL"] / (row["kappa"] * np.log(1 / DELTA))


def yes(holds: bool) -> str:
    """In words."""
    return "yes" if holds else "no"


def delta_rows() -> list[list[str]]:
    """Path divergences for several delta, and what of them falls to the time before the data show."""
    lines = []
    for delta in DELTAS:
        left = exponential_times(DELTA_KAPPA, delta)
        line = [f"{delta:g}", f"{left.size - 1}"]
        for name in DELTA_DATA:
            fisher = normal_fisher(VARIANCES[name])
            line += [f"{frozen_score_paths(fisher, part):.3f}" for part in (left, left[left > NEAR - 1e-9])]
        lines.append(line)
    return lines


def cost_of_delta() -> float:
    """What a unit of log(1/delta) adds to the path divergence of a point mass, in units of kappa."""
    most, least = (
        frozen_score_paths(normal_fisher(POINT_MASS), exponential_times(DELTA_KAPPA, delta))
        for delta in (DELTAS[-1], DELTAS[-2])
    )
    return (most - least) / (DELTA_KAPPA * np.log(DELTAS[-2] / DELTAS[-1]))


def with_error(value: float, error: float) -> str:
    """To two digits of the error."""
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def schedule_rows(cells: dict[str, Any], names: list[str]) -> list[list[str]]:
    """The main table."""
    lines = []
    for name in names:
        both = zip(*(cells["schedules"][f"{name}|{grid}"] for grid in GRIDS), strict=True)
        for row, even in both:
            lines.append([
                name, f"{row['N']}", f"{row['kappa']}", f"{row['KL']:.3g}", f"{row['path KL']:.3g}",
                f"{row['path KL'] / row['KL']:.0f}", f"{band(row):.3f}", f"{even['KL']:.3g}", f"{even['path KL']:.3g}",
                f"{row['KL'] / even['KL']:.2g}",
            ])  # fmt: skip
    return lines


def report(cells: dict[str, Any], picture: str) -> tuple[list[str], bool]:
    """The page, and whether all goals hold."""
    found = list(goals(cells))
    grids, heavy = cells["schedules"], cells["heavy tails"]
    lines = [[g.claim, g.measured, g.goal, yes(g.holds)] if g.holds else _missed(g) for g in found]
    mass = list(zip(*(grids[f"point mass|{grid}"] for grid in GRIDS), strict=True))
    change = max(abs(row["own start"] / row["KL"] - 1) for rows in grids.values() for row in rows)
    smooth, even = (grids[f"variance 4|{grid}"][-1] for grid in GRIDS)
    slopes = [f"{a:.3f} ± {b:.3f}" for a, b in (dimension_slope(cells["dimensions"], key) for key in DIMENSION_KEYS)]
    cost = cost_of_delta()
    tail, flat = (heavy[grid][-1] for grid in GRIDS)
    parts = [
        "Benton et al. 2024, arXiv 2308.03686: for any data with finite second moments, the reverse SDE with frozen "
        "scores on steps `kappa min(1, T - t)` comes within KL `eps^2` of the data, noised by a variance of about "
        "delta, in about `d log(1/delta)^2 / eps^2` steps. The paper is a proof, without experiments; here its "
        "sampler, grid and bound are run: `ReverseSDE(solver=\"exponential-integrator\", grid=times, denoise=False)` "
        f"and `sampling_budget`, under `OU({HORIZON:g})` with `T = {HORIZON:g}`, stopped a time `delta = {DELTA:g}` "
        "before the end. Goals that are missed are in bold.",
        table(["claim", "measured", "goal", "holds"], lines),
        picture,
        "**The grid is insurance.** It bounds the cost for any data, and costs more than a uniform grid where the "
        f"data are smooth: on normal data of variance 4 the uniform grid's KL is {smooth['KL'] / even['KL']:.1f} times "
        f"smaller at {smooth['N']} steps, its path KL {smooth['path KL'] / even['path KL']:.1f} times. On a point mass "
        f"it is {mass[-1][1]['KL'] / mass[-1][0]['KL']:,.0f} times larger. If the data are known to be smooth at the "
        "scale of delta, use another grid; and a solver of higher order either way.",
        "## Steps\n\nNats a coordinate. KL is `KL(noised data || draws)`: the variances of the draws follow an affine "
        "recursion, taken in float64 with the coefficients of the sampler's own plan and the path's own denoiser, from "
        f"N(0, I) as in the paper. (From the library's start KL changes by {change:.0e} of itself at most.) Path KL is "
        "Girsanov's bound by quadrature, start included; log is natural. The point mass is a normal law of variance "
        f"{POINT_MASS:g}.",
        table(
            ["data", "N", "kappa", "KL", "path KL", "path KL / KL", "path KL / (kappa log(1/delta))", "KL, uniform",
             "path KL, uniform", "KL exponential / uniform"],
            schedule_rows(cells, list(VARIANCES)),
        ),
        "KL falls like 1/N^2 and path KL like 1/N, so the bound loosens like N: on a point mass it is "
        f"{mass[0][0]['path KL'] / mass[0][0]['KL']:.0f} times the truth at N={mass[0][0]['N']} and "
        f"{mass[-1][0]['path KL'] / mass[-1][0]['KL']:,.0f} times at {mass[-1][0]['N']}. It is a bound on this "
        "direction only: the draws of the uniform grid are too wide, and `KL(draws || noised data)` is above their "
        "path KL.",
        table(
            ["point mass, N", "KL(draws, noised data), exponential", "KL(draws, noised data), uniform",
             "path KL, uniform"],
            [[f"{a['N']}", f"{a['reverse KL']:.3g}", f"{b['reverse KL']:.3g}", f"{b['path KL']:.3g}"] for a, b in mass],
        ),
        "The unit `kappa log(1/delta)` is the bound's, not a law of its own. Most of the path KL is spent while the "
        "data are drowned (time left above 1): there a frozen score falls behind at a rate of kappa a coordinate and "
        "unit of time, whatever the data, which is the term `kappa d T` of the theorem. Below, a unit of log(1/delta) "
        f"costs a point mass about {cost:.2f} kappa, and smooth data nothing. At kappa {DELTA_KAPPA}:",
        table(
            ["delta", "N", *(f"path KL, {name}{part}" for name in DELTA_DATA for part in ("", ", time left > 1"))],
            delta_rows(),
        ),
        "`sampling_budget` measures the same path KL on draws of the data, without the formula:",
        table(
            ["data", "N", "path KL", "sampling_budget"],
            [[r["data"], f"{r['N']}", f"{r['exact']:.4f}", with_error(r["budget"], r["se"])] for r in cells["budgets"]],
        ),
        "## Dimension\n\nFour normal laws with weights .4, .3, .2 and .1, means at a distance that grows like sqrt(d), "
        "variances from .05 to 1 (before scaling) along random axes of each law's own: no rotation makes it a product. "
        f"The mean square of a coordinate is 1. Path KL by `sampling_budget` with N={FITTED} (kappa .1) for all; mean "
        "over random mixtures with the standard error of the draws. The last row has the slopes of the logarithms. The "
        "frozen score's cost while the data are drowned is that of any data and so trivially linear: its steps from "
        "time left 1 on are shown by themselves, and DDPM, which has no such cost.",
        table(
            ["d", "mixtures", "frozen score", "/ d", "its steps near the data", "/ d", "DDPM", "/ d"],
            [*_dimension_rows(cells["dimensions"]), ["slope", "", *(x for text in slopes for x in (text, ""))]],
        ),
        "## Heavy tails\n\nStudent's t with three degrees of freedom has a second moment and no third. It is a scale "
        "mixture of normal laws, here 100 of them with variances from .03 to 1e8 (its distribution function is off by "
        f"{heavy['cdf error']:.0e} at most, up to |x| = 1e4). Scores are exact at every level. The density of the "
        "draws is carried along 801 points of the line; on N(0, .25) the same code gives the exact KL to "
        f"{heavy['check']:.0e} of itself.",
        table(
            ["N", *(f"{what}, {grid}" for grid in GRIDS for what in ("KL", "path KL"))],
            [
                [f"{a['N']}", *(f"{row[what]:.3g}" for row in (a, b) for what in ("KL", "path KL"))]
                for a, b in zip(*(heavy[grid] for grid in GRIDS), strict=True)
            ],
        ),
        "It converges at the rates of normal data. t(3) is smooth, so the uniform grid does as well: at "
        f"N={tail['N']} its path KL is {tail['path KL'] / flat['path KL']:.2f} times smaller, its KL "
        f"{flat['KL'] / tail['KL']:.2f} times larger.",
        "## The planner\n\n`plan` asks for steps that suffice for any data with these variances, by DDPM, which "
        "freezes the denoiser. What its runs are off by, in nats: KL of normal laws by the recursion, of mixtures on "
        "the line by the density of the draws (in many dimensions it is not known, but is less than path KL). Path KL "
        "by formula or `sampling_budget`.",
        table(
            ["data", "d", "wanted", "delta", "ladder", "N", "bound", "path KL", "KL"],
            [_plan_row(row) for row in cells["plans"]],
        ),
    ]  # fmt: skip
    return [*parts, *_beyond(cells)], all(goal.holds for goal in found)


def _beyond(cells: dict[str, Any]) -> list[str]:
    """What has no goal; a quick run leaves it out."""
    if "subspaces" not in cells:
        return []
    return [
        "## Beyond\n\nData in a k-dimensional subspace of R^64: the rotated mixture in k dimensions, with variance "
        f"{POINT_MASS:g} in the others. Path KL at N={FITTED}. The d of the theorem is that of the space, and the "
        "sampler with frozen scores pays it: an exact point mass costs more than smooth data. With the denoiser frozen "
        "only k counts: the denoiser does not move in the other directions. That DDPM's coefficients adapt to the "
        "data's own dimension is Li and Yan 2024, arXiv 2405.14861, and for the number of steps Huang, Wei and Chen "
        "2024, arXiv 2410.18784.",
        table(
            ["k", "frozen score", "frozen denoiser (DDPM)", "DDPM / k"],
            [
                [f"{r['k']}", with_error(r["score"], r["score se"]), with_error(r["denoiser"], r["denoiser se"]),
                 f"{r['denoiser'] / r['k']:.3f}"]
                for r in cells["subspaces"]
            ],
        ),
        f"Path KL of DDPM with {FITTED} steps on the 16-dimensional rotated mixture, by grid (`loss_adaptive_grid` "
        "places its times by the denoising loss on other draws): "
        + ", ".join(f"{name} {with_error(*pair)}" for name, pair in cells["adaptive"].items())
        + ".",
    ]  # fmt: skip


def _missed(goal: Goal) -> list[str]:
    return [goal.claim, f"**{goal.measured}**", goal.goal, "**no**"]


def _dimension_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines = []
    for d in dict.fromkeys(row["d"] for row in rows):
        same = [row for row in rows if row["d"] == d]
        line = [f"{d}", f"{len(same)}"]
        for key in DIMENSION_KEYS:
            mean = float(np.mean([row[key] for row in same]))
            error = float(np.sqrt(np.sum([row[f"{key} se"] ** 2 for row in same])) / len(same))
            line += [with_error(mean, error), f"{mean / d:.4f}"]
        lines.append(line)
    return lines


def _plan_row(row: dict[str, Any]) -> list[str]:
    kl = "-" if row["KL"] is None else f"{row['KL']:.2g}"
    path = with_error(row["path KL"], row["se"]) if row["se"] else f"{row['path KL']:.3g}"
    return [
        row["data"], f"{row['d']}", f"{row['error']}", f"{row['delta']}", row["ladder"], f"{row['N']}",
        f"{row['bound']:.3g}", path, kl,
    ]  # fmt: skip


def draw(cells: dict[str, Any], out: Path) -> None:
    """KL and path KL against N, on both grids."""
    laws = {
        "point mass": [cells["schedules"][f"point mass|{grid}"] for grid in GRIDS],
        "normal, variance 4": [cells["schedules"][f"variance 4|{grid}"] for grid in GRIDS],
        "Student's t(3)": [cells["heavy tails"][grid] for grid in GRIDS],
    }
    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axes, (name, both) in zip(panels, laws.items(), strict=True):
        for grid, rows, colour in zip(GRIDS, both, ("#0072B2", "#D55E00"), strict=True):
            num = [row["N"] for row in rows]
            for what, style in (("path KL", "o--"), ("KL", "o-")):
                axes.loglog(num, [row[what] for row in rows], style, ms=4, color=colour, label=f"{what}, {grid}")
        ticks = [row["N"] for row in both[0]]
        axes.set_xscale("log")
        if name == "normal, variance 4":
            ends = np.array([150.0, 500.0])
            for power, height in ((-1, 0.1), (-2, 0.0015)):
                axes.plot(ends, height * (ends / ends[0]) ** power, color="0.6", lw=1)
                axes.text(ends[0] * 0.95, height, f"$N^{{{power}}}$", color="0.4", va="center", ha="right")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set(title=name, xlabel="steps N")
    panels[0].set_ylabel("nats a coordinate")
    panels[2].legend(frameon=False, fontsize=8, loc="lower left")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "linear_in_dimension.png", dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer dimensions, steps and draws")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    quick = options.quick
    points = 256 if quick else 1024
    measures: dict[str, Callable[[], Any]] = {
        "schedules": lambda: schedules(KAPPAS[2:] if quick else KAPPAS),
        "budgets": lambda: budgets((0.1,) if quick else (0.4, 0.1, 0.025), points),
        "dimensions": lambda: in_dimensions((2, 16) if quick else DIMENSIONS, 2 if quick else 3, min(points, 512)),
        "heavy tails": lambda: heavy_tails(KAPPAS[2:4] if quick else KAPPAS),
        "plans": lambda: planned(PLANS[:1] if quick else PLANS, LADDERS[:1] if quick else LADDERS, min(points, 512)),
    }
    if not quick:
        measures |= {"subspaces": lambda: subspaces(SUBSPACES, 512), "adaptive": lambda: adaptive(points)}
    cells = {}
    for name, measure in measures.items():
        start = time.perf_counter()
        cells[name] = measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(cells))
    kept = options.out is not None or not quick
    images = options.out or DOCS / "images"
    if kept:
        draw(cells, images)
    place = "" if options.out else "../images/"
    picture = (
        f"![KL and path KL against the number of steps, on a point mass, a wide normal law and Student's t, on the "
        f"exponential and the uniform grid.]({place}linear_in_dimension.png)"
    )
    parts, passed = report(cells, picture)
    title = "Nearly d-linear convergence"
    if kept:
        keep("linear_in_dimension", title, *parts, out=options.out or DOCS / "papers")
    else:
        print("\n\n".join(parts))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
