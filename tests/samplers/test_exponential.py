"""The solvers of the reverse process, against the formulas of their papers, and their orders.

Each formula is written in its paper's own notation, in NumPy's float64, with the posterior mean of a mixture by
conditioning. The package's steps are driven one by one; where a key goes in, the noise itself is handed over.
"""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.integrate import quad

import scoresample as ss
from scoresample.samplers import _exponential, _heun
from tests.samplers.affine_laws import CORRELATED, MEAN, UNEQUAL, kl, some_particles

VE_SIGMAS = 0.002, 10.0
OU_HORIZON = 4.0
PROCESSES: dict[str, ss.AbstractNoiseProcess] = {
    "VP": ss.VP(),
    "VE": ss.VE(*VE_SIGMAS),
    "OU": ss.OU(OU_HORIZON),
}
TIMES = {
    "VP": np.array([0.9, 0.55, 0.35, 0.15, 0.06]),
    "VE": np.array([1.0, 0.83, 0.75, 0.6, 0.5]),
    "OU": np.array([0.7, 0.45, 0.25, 0.07, 0.02]),
}
"""Unequal steps, each too long to be accurate."""


def scales(process: str, t: float) -> tuple[float, float]:
    """Alpha and sigma in closed form."""
    if process == "VE":
        return 1.0, float(VE_SIGMAS[0] * (VE_SIGMAS[1] / VE_SIGMAS[0]) ** t)
    rate = 0.1 * t + 9.95 * t**2 if process == "VP" else 2 * OU_HORIZON * t
    return float(np.exp(-rate / 2)), float(np.sqrt(-np.expm1(-rate)))


class Mixture(NamedTuple):
    """A mixture of normal laws."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def posterior_mean(self, x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
        """E[x_0 | alpha x_0 + sigma z = x]: condition within each component, then weigh the components."""
        log_parts, centres = [], []
        for weight, mean, covariance in zip(*self, strict=True):
            total = alpha**2 * covariance + sigma**2 * np.eye(3)
            offset = x - alpha * mean
            solved = np.linalg.solve(total, offset.T).T
            log_parts.append(np.log(weight) - 0.5 * np.sum(offset * solved, 1) - 0.5 * np.linalg.slogdet(total)[1])
            centres.append(mean + alpha * solved @ covariance)
        parts = np.exp(np.array(log_parts) - np.max(log_parts, axis=0))
        return np.sum((parts / parts.sum(0))[:, :, None] * np.array(centres), axis=0)


TARGETS = {
    "normal": Mixture(np.ones(1), MEAN[None], CORRELATED[None]),
    "mixture": Mixture(
        np.array([0.3, 0.7]), np.array([MEAN, [-1.0, 1.0, 2.0]]), np.array([0.4 * CORRELATED, 0.3 * UNEQUAL])
    ),
}


class Problem(NamedTuple):
    """A target, a process and its levels, and what a paper knows about them."""

    target: Mixture
    process: str
    times: np.ndarray

    def scales(self, i: int) -> tuple[float, float]:
        return scales(self.process, self.times[i])

    def log_snr(self) -> np.ndarray:
        return np.array([np.log(a / s) for a, s in map(self.scales, range(len(self.times)))])

    def data(self, x: np.ndarray, i: int) -> np.ndarray:
        return self.target.posterior_mean(x, *self.scales(i))

    def noise(self, x: np.ndarray, i: int) -> np.ndarray:
        alpha, sigma = self.scales(i)
        return (x - alpha * self.data(x, i)) / sigma

    def score(self, x: np.ndarray, i: int) -> np.ndarray:
        return -self.noise(x, i) / self.scales(i)[1]

    def steps(self) -> range:
        return range(len(self.times) - 1)


Formula = Callable[[Problem, np.ndarray, np.ndarray], np.ndarray]
"""(problem, starts, noise of every step) -> particles at the last level."""


def ddim(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Song, Meng and Ermon 2021, arXiv 2010.02502, eq. 12 without noise."""
    del z
    for i in problem.steps():
        here, there = problem.scales(i)[0] ** 2, problem.scales(i + 1)[0] ** 2
        noise = problem.noise(x, i)
        predicted = (x - np.sqrt(1 - here) * noise) / np.sqrt(here)
        x = np.sqrt(there) * predicted + np.sqrt(1 - there) * noise
    return x


def ddim_exploding(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The same paper, eq. 15: Euler steps of ``d xbar = noise d sigma``."""
    del z
    for i in problem.steps():
        x = x + (problem.scales(i + 1)[1] - problem.scales(i)[1]) * problem.noise(x, i)
    return x


def ddpm(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Ho, Jain and Abbeel 2020, arXiv 2006.11239, algorithm 2 with the variance of eq. 7."""
    for i in problem.steps():
        bar, bar_before = problem.scales(i)[0] ** 2, problem.scales(i + 1)[0] ** 2
        alpha = bar / bar_before
        beta = 1 - alpha
        posterior_variance = (1 - bar_before) / (1 - bar) * beta
        mean = (x - beta / np.sqrt(1 - bar) * problem.noise(x, i)) / np.sqrt(alpha)
        x = mean + np.sqrt(posterior_variance) * z[i]
    return x


def ancestral_exploding(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Song et al. 2021, arXiv 2011.13456, eq. 47: ancestral sampling of SMLD."""
    for i in problem.steps():
        here, there = problem.scales(i)[1] ** 2, problem.scales(i + 1)[1] ** 2
        x = x + (here - there) * problem.score(x, i) + np.sqrt(there * (here - there) / here) * z[i]
    return x


def dpm_solver_2m(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Lu et al. 2022, arXiv 2211.01095, algorithm 2."""
    del z
    h, before = np.diff(problem.log_snr()), None
    for i in problem.steps():
        now = problem.data(x, i)
        ratio = np.inf if before is None else h[i - 1] / h[i]
        mixed = now if before is None else (1 + 1 / (2 * ratio)) * now - 1 / (2 * ratio) * before
        (_, sigma), (alpha_next, sigma_next) = problem.scales(i), problem.scales(i + 1)
        x = sigma_next / sigma * x - alpha_next * (np.exp(-h[i]) - 1) * mixed
        before = now
    return x


def sde_dpm_solver_2m(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The same paper, SDE-DPM-Solver++(2M)."""
    h, before = np.diff(problem.log_snr()), None
    for i in problem.steps():
        now = problem.data(x, i)
        (_, sigma), (alpha_next, sigma_next) = problem.scales(i), problem.scales(i + 1)
        shrunk = 1 - np.exp(-2 * h[i])
        slope = 0.0 if before is None else (now - before) / (h[i - 1] / h[i])
        x = sigma_next / sigma * np.exp(-h[i]) * x + alpha_next * shrunk * (now + slope / 2)
        x = x + sigma_next * np.sqrt(shrunk) * z[i]
        before = now
    return x


def lagrange(nodes: np.ndarray, j: int, u: float) -> float:
    return float(np.prod([(u - node) / (nodes[j] - node) for k, node in enumerate(nodes) if k != j]))


def sa_solver(order: int, tau: float, *, corrector: bool = True) -> Formula:
    """Xue et al. 2023, arXiv 2309.05019, eqs. 14-19: Adams predictor and corrector, the integrals by quadrature.

    With tau = 0 it is UniPC (Zhao et al. 2023, arXiv 2302.04867), whose linear system has the same solution.
    """

    def formula(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        log_snr = problem.log_snr()

        def move(x: np.ndarray, i: int, points: dict[int, np.ndarray]) -> np.ndarray:
            """From level i to the next, D being the polynomial through some points."""
            h, (_, sigma), (_, sigma_next) = log_snr[i + 1] - log_snr[i], problem.scales(i), problem.scales(i + 1)
            nodes = log_snr[list(points)]
            after = sigma_next / sigma * np.exp(-(tau**2) * h) * x
            for j, point in enumerate(points.values()):

                def integrand(u: float, j: int = j) -> float:
                    decay = np.exp(-(tau**2) * (log_snr[i + 1] - u))
                    return float(decay * (1 + tau**2) * np.exp(u) * lagrange(nodes, j, u))

                weight = quad(integrand, log_snr[i], log_snr[i + 1], epsabs=1e-13, epsrel=1e-13)[0]
                after = after + sigma_next * weight * point
            return after + sigma_next * np.sqrt(1 - np.exp(-2 * tau**2 * h)) * z[i]

        points: dict[int, np.ndarray] = {}
        x_before = x
        for i in problem.steps():
            points[i] = problem.data(x, i)
            if corrector and i > 0:
                x = move(x_before, i - 1, {k: points[k] for k in range(max(i - order, 0), i + 1)})
            x_before = x
            x = move(x, i, {k: points[k] for k in range(max(i - order + 1, 0), i + 1)})
        return x

    return formula


def karras_heun(churn: float, low: float, high: float, inflation: float) -> Formula:
    """Karras et al. 2022, arXiv 2206.00364, algorithm 2, in the coordinates x/alpha."""

    def formula(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        levels = np.exp(-problem.log_snr())

        def denoiser(y: np.ndarray, s: float) -> np.ndarray:
            alpha = 1.0 if problem.process == "VE" else 1 / np.sqrt(1 + s**2)
            return problem.target.posterior_mean(alpha * y, alpha, alpha * s)

        y = x / problem.scales(0)[0]
        for i in problem.steps():
            t, t_next = levels[i], levels[i + 1]
            gamma = min(churn / len(problem.steps()), np.sqrt(2) - 1) if low <= t <= high else 0.0
            raised = t + gamma * t
            y = y + np.sqrt(raised**2 - t**2) * inflation * z[i]
            d = (y - denoiser(y, raised)) / raised
            euler = y + (t_next - raised) * d
            d_next = (euler - denoiser(euler, t_next)) / t_next
            y = y + (t_next - raised) * (d + d_next) / 2
        return y * problem.scales(len(problem.times) - 1)[0]

    return formula


def exponential_integrator(eta: float) -> Formula:
    """Chen et al. 2023, arXiv 2209.11215, section 2, for ``dX = -X ds + sqrt(2) dW``; VP is it with ``ds = beta/2 dt``.

    Where nothing shrinks: ``dx = (1 + eta^2)/2 score d(sigma^2) + eta d(W of sigma^2)``.
    """

    def formula(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        for i in problem.steps():
            (alpha, sigma), (alpha_next, sigma_next) = problem.scales(i), problem.scales(i + 1)
            score = problem.score(x, i)
            if problem.process == "VE":
                gap = sigma**2 - sigma_next**2
                x = x + (1 + eta**2) / 2 * gap * score + eta * np.sqrt(gap) * z[i]
            else:
                h = np.log(alpha_next / alpha)
                x = np.exp(h) * x + (1 + eta**2) * (np.exp(h) - 1) * score + eta * np.sqrt(np.exp(2 * h) - 1) * z[i]
        return x

    return formula


def euler_maruyama(eta: float) -> Formula:
    """Song et al. 2021, eq. 6 with the drifts of eqs. 30-33."""

    def formula(problem: Problem, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        for i in problem.steps():
            t, h = problem.times[i], problem.times[i] - problem.times[i + 1]
            if problem.process == "VE":
                drift, squared = 0.0, 2 * problem.scales(i)[1] ** 2 * np.log(VE_SIGMAS[1] / VE_SIGMAS[0])
            else:
                beta = 0.1 + 19.9 * t if problem.process == "VP" else 2 * OU_HORIZON
                drift, squared = -beta / 2, beta
            force = drift * x - (1 + eta**2) / 2 * squared * problem.score(x, i)
            x = x - force * h + eta * np.sqrt(squared * h) * z[i]
        return x

    return formula


def ode(solver: Any, **settings: Any) -> ss.ProbabilityFlowODE:
    return ss.ProbabilityFlowODE(solver=solver, denoise=False, **settings)


def sde(solver: Any, eta: float | None = None, **settings: Any) -> ss.ReverseSDE:
    return ss.ReverseSDE(solver=solver, eta=eta, denoise=False, **settings)


SOME_CHURN: dict[str, Any] = {"churn": 1.0, "churn_range": (0.3, 4.0), "inflation": 1.1}
NO_CHURN = (0.0, 0.0, np.inf, 1.0)

FORMULAS: dict[str, tuple[Any, Formula, tuple[str, ...]]] = {
    "ddim": (ode("ddim"), ddim, ("VP", "OU")),
    "ddim, exploding": (ode("ddim"), ddim_exploding, ("VE",)),
    "ddpm": (sde("ddpm"), ddpm, ("VP", "OU")),
    "ddpm, exploding": (sde("ddpm"), ancestral_exploding, ("VE",)),
    "dpm-solver++2m": (ode("dpm-solver++2m"), dpm_solver_2m, ("VP", "VE")),
    "sde-dpm-solver++2m": (sde("sde-dpm-solver++2m"), sde_dpm_solver_2m, ("VP", "VE")),
    "unipc-3": (ode("unipc-3"), sa_solver(3, 0.0), ("VP", "VE")),
    "sa-solver": (sde("sa-solver"), sa_solver(2, 1.0), ("VP", "VE")),
    "SA-Solver, order 3, eta 0.5": (
        sde(ss.ExponentialAdams(order=3, corrector=True), 0.5),
        sa_solver(3, 0.5),
        ("OU",),
    ),
    "Adams predictor, order 3": (ode(ss.ExponentialAdams(order=3)), sa_solver(3, 0.0, corrector=False), ("VP",)),
    "Adams predictor, order 2, eta 0.5": (
        sde(ss.ExponentialAdams(order=2), 0.5),
        sa_solver(2, 0.5, corrector=False),
        ("VE",),
    ),
    "karras-heun": (ode("karras-heun"), karras_heun(*NO_CHURN), ("VP", "VE")),
    "KarrasHeun with churn": (sde(ss.KarrasHeun(churn=1.0)), karras_heun(1.0, *NO_CHURN[1:]), ("VP",)),
    "KarrasHeun, most churn": (sde(ss.KarrasHeun(churn=50.0)), karras_heun(50.0, *NO_CHURN[1:]), ("OU",)),
    "KarrasHeun, churn in a range": (sde(ss.KarrasHeun(**SOME_CHURN)), karras_heun(1.0, 0.3, 4.0, 1.1), ("VE",)),
    "exponential-integrator": (sde("exponential-integrator"), exponential_integrator(1.0), ("VP", "VE", "OU")),
    "ExponentialIntegrator, eta 0.5": (sde(ss.ExponentialIntegrator(), 0.5), exponential_integrator(0.5), ("OU",)),
    "ExponentialIntegrator, no noise": (ode(ss.ExponentialIntegrator()), exponential_integrator(0.0), ("VP",)),
    "euler-maruyama": (sde("euler-maruyama"), euler_maruyama(1.0), ("VP", "VE", "OU")),
    "EulerMaruyama, eta 0.5": (sde(ss.EulerMaruyama(), 0.5), euler_maruyama(0.5), ("VP",)),
    "EulerMaruyama, no noise": (ode(ss.EulerMaruyama()), euler_maruyama(0.0), ("VE",)),
}


@pytest.fixture
def keys_are_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step draws noise with its key, the key is the noise."""
    for module in (_exponential, _heun):
        monkeypatch.setattr(module, "random_like", lambda key, tree: key + 0 * tree)


def path_to(target: Mixture, process: ss.AbstractNoiseProcess) -> Any:
    if len(target.weights) == 1:
        return ss.perturb(ss.Gaussian(target.means[0], target.covariances[0]), process)
    return ss.perturb(ss.GaussianMixture(*target), process)


def walk(sampler: Any, path: Any, particles: np.ndarray, keys: Any, *, step: Any = None, seed: int = 1) -> np.ndarray:
    """Where the sampler's own steps lead, one after the other, each with a key of its own."""
    plan = sampler.plan(path, key=jax.random.key(0))
    state = sampler.init(path, jnp.asarray(particles), plan, key=jax.random.key(seed))
    columns = jax.tree.map(np.asarray, plan.steps)
    for k in range(len(jax.tree.leaves(columns)[0])):
        row = jax.tree.map(lambda x, k=k: jnp.asarray(x[k]), columns)
        if step is None:
            state, _ = sampler.step(path, state, row, key=keys(k))
        else:
            state = step(path, state, row, keys(k))
    ends = sampler.final(path, state, plan)[0]
    assert ends.dtype == jnp.float64
    return np.asarray(ends)


CASES = [(name, process) for name, (_, _, processes) in FORMULAS.items() for process in processes]


@pytest.mark.usefixtures("keys_are_noise")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "process"), CASES)
def test_steps_are_the_published_formula(name: str, process: str, target: str) -> None:
    sampler, formula, _ = FORMULAS[name]
    problem = Problem(TARGETS[target], process, TIMES[process])
    noise = np.random.default_rng(3).normal(size=(len(problem.steps()), 8, 3))
    expected = formula(problem, some_particles(), noise) / problem.scales(-1)[0]
    with jax.enable_x64(True):
        sampler = dataclasses.replace(sampler, grid=problem.times)
        path = path_to(problem.target, PROCESSES[process])
        found = walk(sampler, path, some_particles(), lambda k: jnp.asarray(noise[k]))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("keys_are_noise")
@pytest.mark.parametrize("name", ["unipc-3", "ddpm", "karras-heun"])
def test_the_last_move_is_the_posterior_mean(name: str) -> None:
    sampler, formula, _ = FORMULAS[name]
    problem = Problem(TARGETS["mixture"], "VP", TIMES["VP"])
    noise = np.random.default_rng(3).normal(size=(len(problem.steps()) + 1, 8, 3))
    expected = problem.data(formula(problem, some_particles(), noise), -1)
    with jax.enable_x64(True):
        sampler = dataclasses.replace(sampler, grid=problem.times, denoise=True)
        path = path_to(problem.target, PROCESSES["VP"])
        found = walk(sampler, path, some_particles(), lambda k: jnp.asarray(noise[k]))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", [2, 3])
def test_weights_solve_the_linear_system_of_unipc(order: int) -> None:
    """Zhao et al. 2023, eqs. 5-9 in the form for predicted data, ``B(h) = h``: ``R a = phi / B``."""
    nodes, h = np.array([0.4, 0.1, -0.35, -0.5])[:order], 0.6
    ratios = (nodes[1:] - nodes[0]) / h
    # phi_{k+1} = (1/k! - phi_k)/h from phi_0 = exp(-h), and then k! phi_{k+1} on the right-hand side.
    phi = [np.exp(-h)]
    factorial = [1.0, 1.0, 2.0, 6.0]
    for k in range(order):
        phi.append((1 / factorial[k] - phi[k]) / h)
    moments = np.array([factorial[k] * phi[k + 1] * h for k in range(1, order)])
    solution = np.linalg.solve(np.vander(ratios, order - 1, increasing=True).T, moments)
    expected = np.append(h * phi[1] - np.sum(solution / ratios), solution / ratios)
    np.testing.assert_allclose(_exponential.adams_weights(nodes, 0.4, 1.0, 1.0), expected, rtol=1e-12)


@pytest.mark.usefixtures("keys_are_noise")
def test_churn_stays_where_the_score_is_valid() -> None:
    """The first level is the noisiest: there is no room above it."""
    problem = Problem(TARGETS["normal"], "VE", TIMES["VE"])
    sampler = sde(ss.KarrasHeun(churn=1.0), grid=problem.times)
    with jax.enable_x64(True):
        plan = sampler.plan(path_to(problem.target, PROCESSES["VE"]), key=jax.random.key(0))
    sigma = np.array([problem.scales(i)[1] for i in problem.steps()])
    churned = np.append(sigma[0], 1.25 * sigma[1:])
    np.testing.assert_allclose(plan.steps.churn_sd, np.sqrt(churned**2 - sigma**2), rtol=1e-8, atol=1e-12)


ODE_SOLVERS = ["unipc-3", "dpm-solver++2m", "ddim", "karras-heun"]
SDE_SOLVERS = ["sde-dpm-solver++2m", "ddpm", "sa-solver", "exponential-integrator", "euler-maruyama"]


@pytest.mark.parametrize("solver", [*ODE_SOLVERS, *SDE_SOLVERS, ss.KarrasHeun(churn=1.0)], ids=str)
def test_only_noise_depends_on_the_key(solver: Any) -> None:
    noisy = solver not in ODE_SOLVERS
    sampler = (sde if noisy else ode)(solver, grid=TIMES["VP"])
    with jax.enable_x64(True):
        path = path_to(TARGETS["mixture"], PROCESSES["VP"])
        first, second = (
            walk(sampler, path, some_particles(), lambda k, seed=seed: jax.random.key(10 * seed + k)) for seed in (1, 2)
        )
    assert np.array_equal(first, second) != noisy


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("solver", [*ODE_SOLVERS, *SDE_SOLVERS, ss.KarrasHeun(churn=1.0)], ids=str)
def test_reported_evaluations_are_the_calls(solver: Any, denoise: bool) -> None:
    """One a step and one more, two for Heun; every call is one trace."""
    calls: list[str] = []

    def counted(z: Array, t: Array) -> Array:
        calls.append("score")
        return -2 * z / (1 + t)

    path = ss.PerturbedScore(counted, PROCESSES["VP"], structure=jnp.zeros(3))
    kind = ss.ProbabilityFlowODE if solver in ODE_SOLVERS else ss.ReverseSDE
    sampler: Any = kind(num_steps=5, solver=solver, denoise=denoise)
    plan = sampler.plan(path, key=jax.random.key(0))
    particles = jnp.zeros((2, 3))
    calls.clear()
    state = jax.eval_shape(lambda x: sampler.init(path, x, plan, key=jax.random.key(0)), particles)
    for k in range(len(plan.steps[0])):
        row = jax.tree.map(lambda x, k=k: x[k], plan.steps)
        state = jax.eval_shape(lambda s, row=row: sampler.step(path, s, row, key=jax.random.key(0))[0], state)
    jax.eval_shape(lambda s: sampler.final(path, s, plan), state)
    each = 2 if "heun" in str(solver).lower() else 1
    assert plan.nfe == len(calls) == 5 * each + int(denoise)


# Orders: the error against the number of steps


SMOOTH = ss.VE(0.01, 1e3)
"""So much noise that the first steps, which have no history yet, hide no order."""
ENDS = 1e3, 0.1
NUMBERS = (40, 80, 160)


def smooth_times(num_steps: int) -> np.ndarray:
    """Uniform in log sigma."""
    return np.linspace(1.0, np.log(ENDS[1] / 0.01) / np.log(1e5), num_steps + 1)


def slope(numbers: tuple[int, ...], errors: list[float]) -> float:
    """The order: minus the slope of log error on log number."""
    return -float(np.polyfit(np.log(numbers), np.log(errors), 1)[0])


def stepper(sampler: Any) -> Any:
    """One step, compiled once whatever the number of steps."""

    @eqx.filter_jit
    def step(path: Any, state: Any, row: Any, key: Array) -> Any:
        return sampler.step(path, state, row, key=key)[0]

    return step


def order_of_the_flow(sampler: Any) -> float:
    """``(y - m)/sqrt(v + s^2)`` stays along every coordinate of independent normal data."""
    variances = UNEQUAL.diagonal()
    start = MEAN + np.sqrt(variances + ENDS[0] ** 2) * np.array([[1.0, -0.5, 2.0], [-2.0, 1.0, 0.5]])
    growth = np.sqrt((variances + ENDS[1] ** 2) / (variances + ENDS[0] ** 2))
    expected, step, errors = MEAN + growth * (start - MEAN), stepper(sampler), []
    with jax.enable_x64(True):
        path = ss.perturb(ss.Gaussian(MEAN, UNEQUAL), SMOOTH)
        for n in NUMBERS:
            ends = walk(dataclasses.replace(sampler, grid=smooth_times(n)), path, start, jax.random.key, step=step)
            errors.append(float(np.abs(ends - expected).max()))
    assert errors[-1] > 1e-9, "too close to rounding"
    return slope(NUMBERS, errors)


ORDERS: dict[str, tuple[Any, float, float]] = {
    "ddim": ("ddim", 0.9, 1.1),
    "dpm-solver++2m": ("dpm-solver++2m", 1.8, 2.2),
    "karras-heun": ("karras-heun", 1.8, 2.2),
    "Adams, order 2": (ss.ExponentialAdams(order=2), 1.8, 2.2),
    "Adams, order 3": (ss.ExponentialAdams(order=3), 2.8, 3.5),
    "Adams with corrector, order 2": (ss.ExponentialAdams(order=2, corrector=True), 2.8, 3.2),
    "unipc-3": ("unipc-3", 3.5, 4.3),
}


@pytest.mark.parametrize("name", ORDERS)
def test_flow_has_the_solvers_order(name: str) -> None:
    solver, low, high = ORDERS[name]
    assert low < order_of_the_flow(ode(solver)) < high


def exact_laws(sampler: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The law of the sampler's ends for independent normal data, without a random number.

    Steps are affine, so the ends are the mean plus a sum over independent causes: the start and the noise of every
    step. One particle goes for each: the mean, the start moved by one deviation, the noise of step k alone.
    """
    variances, size, step, laws = UNEQUAL.diagonal(), 2 + NUMBERS[-1], stepper(sampler), []
    start = np.tile(MEAN, (size, 1))
    start[1] += np.sqrt(variances + ENDS[0] ** 2)
    with jax.enable_x64(True):
        path = ss.perturb(ss.Gaussian(MEAN, UNEQUAL), SMOOTH)
        for n in NUMBERS:

            def noise(k: int) -> Array:
                return jnp.zeros((size, 3)).at[2 + k].set(1.0)

            ends = walk(dataclasses.replace(sampler, grid=smooth_times(n)), path, start, noise, step=step)
            laws.append((ends[0], np.diag(np.sum((ends[1:] - ends[0]) ** 2, axis=0))))
    return laws


WEAK_ORDERS: dict[str, tuple[Any, float, float]] = {
    "ddpm": (sde("ddpm"), 0.9, 1.1),
    "ddpm, eta 0.5": (sde("ddpm", 0.5), 0.9, 1.1),
    "exponential-integrator": (sde("exponential-integrator"), 0.9, 1.1),
    "EulerMaruyama, eta 1.5": (sde("euler-maruyama", 1.5), 0.9, 1.2),
    "Adams with corrector, order 3": (sde(ss.ExponentialAdams(order=3, corrector=True)), 1.8, 2.2),
    "sde-dpm-solver++2m": (sde("sde-dpm-solver++2m"), 1.8, 2.3),
    "sa-solver": (sde("sa-solver"), 1.8, 2.6),
}
"""With eta 1 and steps uniform in log sigma, the first-order term of Euler-Maruyama's error nearly cancels: eta is
another here. Whatever the polynomial, the law with noise has order 2; SA-Solver comes down to it from 3."""


@pytest.mark.usefixtures("keys_are_noise")
@pytest.mark.parametrize("name", WEAK_ORDERS)
def test_law_has_the_solvers_weak_order(name: str) -> None:
    sampler, low, high = WEAK_ORDERS[name]
    truth = MEAN, UNEQUAL + ENDS[1] ** 2 * np.eye(3)
    laws = exact_laws(sampler)
    errors = [float(np.abs(covariance - truth[1]).max()) for _, covariance in laws]
    assert errors[-1] > 1e-9, "too close to rounding"
    assert low < slope(NUMBERS, errors) < high
    divergences = [kl(*law, *truth) for law in laws]
    assert 2 * low < slope(NUMBERS, divergences) < 2 * high


def test_refined_steps_converge_along_one_brownian_path() -> None:
    """Additive noise: Euler's strong order is 1, for each particle and not only in law."""
    numbers = (16, 32, 64, 128)
    sampler = sde(ss.DiffraxSolver(diffrax.Euler(), brownian="tree"))
    start, step = 10 * np.random.default_rng(0).normal(size=(64, 3)), stepper(sampler)
    with jax.enable_x64(True):
        path = path_to(TARGETS["normal"], PROCESSES["VE"])
        ends = [
            walk(dataclasses.replace(sampler, num_steps=n), path, start, jax.random.key, step=step) for n in numbers
        ]
        other = walk(dataclasses.replace(sampler, num_steps=16), path, start, jax.random.key, step=step, seed=2)
    errors = [float(np.sqrt(np.mean((coarse - fine) ** 2))) for coarse, fine in pairwise(ends)]
    assert 0.8 < slope(numbers[:-1], errors) < 1.3
    assert np.sqrt(np.mean((ends[0] - other) ** 2)) > 5 * errors[0], "another key is another path"
