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
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

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
DIMENSIONS = (2, 4, 8, 16, 32, 64)
SUBSPACES = (1, 2, 4, 8, 16, 32, 64)
PLANS = ((1, 0.1, 1e-3), (1, 0.01, 1e-2), (16, 0.5, 1e-3))
"""Dimension, wanted KL, variance of the noise that is left."""


class Goal(NamedTuple):
    """A claim, what was measured, what is asked, and whether it holds."""

    claim: str
    measured: str
    goal: str
    holds: bool


def exponential_times(kappa: float) -> np.ndarray:
    """Times left, from T to delta: each step is kappa times the lesser of 1 and the time left, the last one cut."""
    left = [HORIZON]
    while left[-1] > DELTA * (1 + 1e-9):
        left.append(max(left[-1] - kappa * min(1.0, left[-1]), DELTA))
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


def variance_ratios(path: Any, sampler: ss.ReverseSDE) -> tuple[np.ndarray, np.ndarray]:
    """Of the noised data to the draws, a coordinate: the recursion of variances, with the sampler's own coefficients.

    From N(0, I), as in the paper, and from the library's own start, which has the variances of the noised data. The
    path is made in float64, of a normal law with mean zero and independent coordinates.
    """
    variances = np.asarray(path.density.variances, np.float64)
    with jax.enable_x64(True):
        plan = sampler.plan(path, key=jax.random.key(0))
        one, zero = jnp.ones(variances.size), jnp.zeros(variances.size)
        slopes = jax.vmap(lambda t: path.standard_denoise(one, t) - path.standard_denoise(zero, t))(plan.steps.t)
        (first, start_noise), (last, end_noise) = (
            (float(path.process.alpha(t)), float(path.process.variance(t))) for t in (plan.t_start, plan.t_final)
        )
    rows = jax.tree.map(np.asarray, plan.steps)
    law = np.stack([np.ones(variances.size), first**2 * variances + start_noise]) / first**2
    for k, slope in enumerate(np.asarray(slopes)):
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
    """The same for DDPM on normal data: the integral of ``mmse_k - mmse(u)`` over ``u = 1/(2 s^2)``, s = sigma/alpha."""
    total = 0.0
    for v, count in zip(*np.unique(variances, return_counts=True), strict=True):
        u = 0.5 / noise**2
        total += count * np.sum(np.diff(u) * v / (1 + 2 * u[:-1] * v) - 0.5 * np.diff(np.log1p(2 * u * v)))
    return float(total)


def schedules() -> dict[str, list[dict[str, float]]]:
    """Every variance, grid and kappa: divergences a coordinate."""
    found: dict[str, list[dict[str, float]]] = {f"{name}|{grid}": [] for name in VARIANCES for grid in GRIDS}
    with jax.enable_x64(True):
        path = perturbed(ss.Gaussian(jnp.zeros(len(VARIANCES)), jnp.asarray(list(VARIANCES.values()))))
    for grid in GRIDS:
        for kappa in KAPPAS:
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
    """Path divergences on rotated mixtures, on one grid for all."""
    sampler, found = frozen_score(exponential_times(0.1)), []
    for dimension in dimensions:
        for seed in range(num_mixtures):
            density = rotated_mixture(dimension, seed)
            data = density.sample(jax.random.key(seed), num_points)
            key = jax.random.key(100 + seed)
            budget = ss.sampling_budget(perturbed(density), sampler, data, key=key, num_points=num_points)
            found.append({"d": dimension, "mixture": seed, "path KL": budget.total, "se": budget.total_se})
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


def line(reach: float, size: int = 1201) -> Line:
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
        logs, squares = (np.asarray(x) for x in _squared_scores(path, jnp.asarray(points.z), jnp.asarray(left / HORIZON)))
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
