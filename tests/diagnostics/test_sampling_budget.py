"""Budgets against exact laws: above the true divergence, and equal to that of the paths."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import GridName, noise_levels
from tests.diagnostics.made_draws import made_draws
from tests.diagnostics.path_divergences import (
    Law,
    Mixture,
    Normal,
    mixture_divergence,
    mixture_path_divergence,
    normal_divergence,
    normal_path_divergence,
    normal_sampler,
)

SOLVERS = {"score": "exponential-integrator", "denoiser": "ddpm"}
PROCESSES = {"VP": ss.VP, "OU": ss.OU, "VE": ss.VE, "EDM": ss.EDM}


class Case(NamedTuple):
    """A sampler, and whether its score is exact, that of another law, or the exact one times a factor."""

    dimension: int
    num_steps: int
    process: str
    frozen: str
    grid: GridName
    score: str

    @property
    def preserving(self) -> bool:
        return self.process in ("VP", "OU")

    def sampler(self) -> ss.ReverseSDE:
        return ss.ReverseSDE(num_steps=self.num_steps, solver=SOLVERS[self.frozen], grid=self.grid)


CASES = [
    Case(1, 5, "VP", "denoiser", "log-snr", "exact"),
    Case(2, 12, "VP", "score", "exponential", "exact"),
    Case(2, 20, "VE", "denoiser", "karras", "exact"),
    Case(3, 40, "EDM", "score", "log-snr", "exact"),
    Case(3, 12, "OU", "score", "log-snr", "other"),
    Case(2, 20, "EDM", "denoiser", "karras", "other"),
    Case(1, 30, "OU", "denoiser", "exponential", "other"),
    Case(1, 8, "VP", "score", "uniform", "scaled"),
    Case(2, 20, "VP", "denoiser", "log-snr", "scaled"),
    Case(3, 40, "VE", "score", "karras", "scaled"),
]
REPEATS = 5


def random_normal(generator: np.random.Generator, dimension: int, factor: float = 1.0) -> Normal:
    roots = generator.normal(size=(dimension, dimension))
    return Normal(generator.normal(size=dimension), roots @ roots.T / dimension + 0.1 * np.eye(dimension), factor)


def scaled_score(z: Array, t: Array, path: ss.AbstractPerturbedScore, factor: Array) -> Array:
    return factor * path.standard_score(z, t)


def divergences(case: Case, generator: np.random.Generator, key: Array) -> tuple[ss.SamplingBudget, float, float]:
    """The budget, the divergence of the draws and that of the paths."""
    truth = random_normal(generator, case.dimension)
    process = PROCESSES[case.process]()
    exact = ss.perturb(ss.Gaussian(jnp.asarray(truth.mean), truth.covariance), process)
    law, path, variances = truth, exact, np.diag(truth.covariance)
    if case.score == "other":
        law = Normal(truth.mean + 0.2 * generator.normal(size=case.dimension), truth.covariance * 1.3)
        path, variances = (
            ss.perturb(ss.Gaussian(jnp.asarray(law.mean), law.covariance), process),
            np.diag(law.covariance),
        )
    elif case.score == "scaled":
        law = truth._replace(factor=generator.uniform(0.8, 1.2))
        low, high = (float(end) for end in exact.log_snr_range)
        args = (exact, jnp.asarray(law.factor, jnp.float32))
        path = ss.PerturbedScore(scaled_score, process, structure=exact.structure, args=args, log_snr_range=(low, high))
        variances = np.ones(case.dimension)
    data = generator.multivariate_normal(truth.mean, truth.covariance, size=1024)
    known = None if case.score == "exact" else exact
    budget = ss.sampling_budget(path, case.sampler(), data, key=key, exact=known)
    levels = np.exp(-2 * noise_levels(path, case.num_steps, case.grid).log_snr)
    mean = np.zeros(case.dimension) if case.score == "scaled" else law.mean
    start = Law(mean, np.diag(variances + levels[0]))
    settings: dict[str, Any] = {"frozen": case.frozen, "preserving": case.preserving}
    draws = normal_sampler(law, start, levels, **settings)
    divergence = normal_divergence(truth.mean, truth.covariance + levels[-1] * np.eye(case.dimension), draws)
    return budget, divergence, normal_path_divergence(truth, law, start, levels, **settings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_total_is_the_divergence_of_the_paths_and_bounds_that_of_the_draws(case: Case) -> None:
    generator = np.random.default_rng(CASES.index(case))
    for key in jax.random.split(jax.random.key(CASES.index(case)), REPEATS):
        budget, divergence, of_paths = divergences(case, generator, key)
        assert budget.is_bound
        assert divergence < of_paths
        assert budget.total + 3 * budget.total_se >= divergence
        assert budget.total >= 0.9 * of_paths
        assert abs(budget.total - of_paths) < 5 * budget.total_se
        parts = budget.start + budget.discretisation + budget.score_error + budget.interaction
        assert budget.total == pytest.approx(parts, rel=1e-9)
        assert (budget.interaction == 0) == (case.frozen == "denoiser" or not case.preserving or case.score == "exact")
        assert (budget.score_error == 0) == (case.score == "exact")


def mixture_path(mixture: Mixture) -> ss.AbstractPerturbedScore:
    density = ss.GaussianMixture(mixture.weights, mixture.means[:, None], mixture.variances[:, None])
    return ss.perturb(density, ss.VE(0.01, 30.0))


def random_mixture(generator: np.random.Generator) -> Mixture:
    weights, means = generator.dirichlet([3.0, 3.0]), generator.normal(size=2) * 1.5
    return Mixture(weights, means, generator.uniform(0.05, 0.4, size=2))


# The levels end where the density of the draws is still smooth on the grid of the quadrature.
TIMES = tuple(np.linspace(0.9, 0.3, 16))


@pytest.mark.parametrize("frozen", ["score", "denoiser"])
@pytest.mark.parametrize("seed", range(3))
def test_mixtures_are_bounded_too(frozen: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = random_mixture(generator)
    wrong = truth._replace(weights=truth.weights[::-1], means=truth.means + 0.1)
    exact, key = mixture_path(truth), jax.random.key(seed)
    which = generator.choice(2, size=1024, p=truth.weights)
    data = (truth.means[which] + np.sqrt(truth.variances[which]) * generator.normal(size=1024))[:, None]
    sampler = ss.ReverseSDE(solver=SOLVERS[frozen], grid=TIMES)
    levels = np.exp(-2 * noise_levels(exact, 1, TIMES).log_snr)

    budget = ss.sampling_budget(exact, sampler, data, key=key)
    divergence = mixture_divergence(truth, truth, levels, frozen=frozen)
    of_paths = mixture_path_divergence(truth, levels, frozen=frozen)
    assert 0 < divergence < of_paths
    assert budget.total + 3 * budget.total_se >= divergence
    assert budget.total >= 0.9 * of_paths
    assert abs(budget.total - of_paths) < 5 * budget.total_se

    worse = ss.sampling_budget(mixture_path(wrong), sampler, data, key=key, exact=exact)
    assert worse.discretisation == pytest.approx(budget.discretisation, rel=1e-3)
    assert worse.total + 3 * worse.total_se >= mixture_divergence(truth, wrong, levels, frozen=frozen)


def test_the_bound_loosens_with_the_number_of_steps() -> None:
    """Almost a point mass: the divergence of the draws falls like 1/N^2, that of their paths like 1/N."""
    truth = Normal(np.zeros(1), np.full((1, 1), 1e-3))
    path = ss.perturb(ss.Gaussian(jnp.zeros(1), 1e-3), ss.OU())
    data = np.sqrt(1e-3) * np.random.default_rng(0).normal(size=(1024, 1))
    ratios = []
    for num_steps in (40, 80):
        sampler = ss.ReverseSDE(num_steps=num_steps, solver="exponential-integrator")
        budget = ss.sampling_budget(path, sampler, data, key=jax.random.key(1))
        levels = np.exp(-2 * noise_levels(path, num_steps).log_snr)
        start = Law(np.zeros(1), np.full((1, 1), 1e-3 + levels[0]))
        draws = normal_sampler(truth, start, levels, frozen="score", preserving=True)
        ratios.append(budget.total / normal_divergence(truth.mean, truth.covariance + levels[-1], draws))
    assert ratios[0] > 20
    assert 1.7 < ratios[1] / ratios[0] < 2.3


def normal_network(factor: float = 1.0) -> ss.PerturbedScore:
    """The score of standard normal data under VP, times a factor."""
    return ss.PerturbedScore(
        lambda z, t, c: jax.tree.map(lambda x: -c.astype(x.dtype) * x, z),
        ss.VP(),
        structure=jnp.zeros(2),
        args=(jnp.asarray(factor),),
    )


NORMAL = ss.ReverseSDE(num_steps=20, solver="ddpm")


def normal_data(num: int = 400) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, 2)).astype(np.float32)


def test_without_the_exact_score_there_is_no_bound_and_the_text_says_so() -> None:
    exact = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    good, bad = (
        ss.sampling_budget(normal_network(c), NORMAL, normal_data(), key=jax.random.key(0)) for c in (1.0, 1.5)
    )
    known = ss.sampling_budget(normal_network(1.5), NORMAL, normal_data(), key=jax.random.key(0), exact=exact)
    assert not good.is_bound
    assert good.score_error < 0.02
    assert known.is_bound
    assert 0.5 * known.score_error < bad.score_error < known.score_error + 3 * known.score_error_se
    assert bad.total_variation is None
    assert bad.score_distance is None
    for words in ("at least", "no bound", "does not bound", "Pass exact="):
        assert words in str(bad)
    assert "at most" not in str(bad)
    for words in ("upper bound", "total variation is at most", "before its last move", "score error"):
        assert words in str(known)
    assert "at least" not in str(known)


def test_without_densities_the_start_is_bounded_by_its_mean_over_the_data() -> None:
    """An exact score that comes without its density: the same terms, and a start that is no less."""
    exact = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    whole = ss.sampling_budget(normal_network(), NORMAL, normal_data(), key=jax.random.key(0), exact=exact)
    bare = ss.sampling_budget(normal_network(), NORMAL, normal_data(), key=jax.random.key(0), exact=normal_network())
    assert bare.discretisation == pytest.approx(whole.discretisation, rel=1e-3)
    assert bare.score_error < 1e-9
    assert abs(whole.start) < 1e-6
    snr = 1 / 20**2  # sampling starts at twenty standard deviations of the data
    squares = np.mean(np.sum(normal_data() ** 2, axis=1))
    expected = np.log1p(snr) - snr / (1 + snr) + 0.5 * squares * snr / (1 + snr)
    assert bare.start == pytest.approx(expected, rel=1e-4)


def test_trees_frames_and_draws_in_either_precision(precision: jnp.dtype) -> None:
    location = {"a": jnp.array([3.0, -2.0]), "b": jnp.asarray(7.0)}
    scale = {"a": jnp.array([2.0, 0.1]), "b": jnp.asarray(5.0)}
    network = ss.PerturbedScore(
        lambda z, t: jax.tree.map(lambda x: -x, z), ss.VP(), structure=location, location=location, scale=scale
    )
    exact = ss.perturb(ss.Gaussian(location, jax.tree.map(jnp.square, scale)), ss.VE(0.01, 30.0))
    data = exact.density.sample(jax.random.key(0), 256)
    budget = ss.sampling_budget(network, NORMAL, data, key=jax.random.key(1), exact=exact)
    draws = made_draws(jax.tree.map(lambda x: np.asarray(x)[None], data), "independent")
    other = ss.sampling_budget(network, NORMAL, draws, key=jax.random.key(1), exact=exact)
    assert (budget.dimension, budget.num_points, budget.num_steps) == (3, 256, 20)
    assert budget.score_error < (1e-6 if precision == "float32" else 1e-10)
    assert budget.total == pytest.approx(other.total, rel=0.2)
    table = budget.table
    assert list(table.columns)[:3] == ["t", "t_next", "noise"]
    assert len(table) == 20
    assert np.sum(budget.step_discretisation) == pytest.approx(budget.discretisation, rel=1e-9)
    assert np.all(np.diff(budget.noise) < 0)
    assert budget.last_noise == pytest.approx(0.002, rel=0.1)


def test_a_score_that_is_not_finite_leaves_no_finite_bound() -> None:
    exact = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    budget = ss.sampling_budget(normal_network(np.nan), NORMAL, normal_data(), key=jax.random.key(0), exact=exact)
    assert budget.total == np.inf
    assert budget.total_variation == 1.0


def test_a_single_point_as_data() -> None:
    """Every denoiser that answers with the point is exact: a frozen denoiser then costs nothing."""
    point = ss.PerturbedScore(lambda z, t: 0 * z, ss.OU(), prediction="denoised", structure=jnp.zeros(1))
    settings: dict[str, Any] = {"key": jax.random.key(0), "exact": point}
    denoiser, score = (
        ss.sampling_budget(point, ss.ReverseSDE(num_steps=20, solver=solver), np.zeros((100, 1)), **settings)
        for solver in (SOLVERS["denoiser"], SOLVERS["score"])
    )
    assert denoiser.discretisation < 1e-6
    assert score.discretisation > 0.1
    assert np.isfinite(denoiser.noise).all()


def test_a_retrained_score_compiles_nothing(compilations: Any) -> None:
    first, data, key = normal_network(), normal_data(), jax.random.key(0)
    second = eqx.tree_at(lambda path: path.args[0], first, jnp.asarray(1.1))
    ss.sampling_budget(first, NORMAL, data, key=key)
    with compilations.none_expected():
        ss.sampling_budget(second, NORMAL, data, key=key)


def test_a_grid_stands_for_the_exponential_integrator() -> None:
    score, key = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP()), jax.random.key(0)
    named = ss.sampling_budget(score, "exponential", normal_data(), key=key)
    spelled = ss.ReverseSDE(solver=ss.ExponentialIntegrator(), grid="exponential", eta=1.0)
    assert named.total == ss.sampling_budget(score, spelled, normal_data(), key=key).total
    assert (named.num_steps, named.frozen) == (50, "score")
    times = ss.sampling_budget(score, np.linspace(0.9, 0.1, 9), normal_data(), key=key)
    assert times.num_steps == 8
    np.testing.assert_allclose([times.t[0], times.t_next[-1]], [0.9, 0.1], rtol=1e-6)


REFUSED = {
    "second order": (ss.ReverseSDE(), ValueError),
    "eta": (ss.ReverseSDE(solver="ddpm", eta=0.5), ValueError),
    "corrector": (ss.ReverseSDE(solver=ss.ExponentialAdams(order=1, corrector=True)), ValueError),
    "Euler-Maruyama": (ss.ReverseSDE(solver="euler-maruyama"), ValueError),
    "Karras": (ss.ReverseSDE(solver=ss.KarrasHeun(churn=10.0)), ValueError),
    "ODE": (ss.ProbabilityFlowODE(), TypeError),
    "predictor-corrector": (ss.PredictorCorrector(), TypeError),
    "Langevin": (ss.AnnealedLangevin(), TypeError),
    "a solver's name": ("ddpm", ValueError),
    "times that grow": ((0.1, 0.9), ValueError),
    "nothing": (None, TypeError),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", REFUSED)
def test_other_samplers_are_refused_and_told_which_ones_fit(name: str) -> None:
    sampler, error = REFUSED[name]
    with pytest.raises(error) as caught:
        ss.sampling_budget(normal_network(), sampler, normal_data(), key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    words = str(caught.value)
    if name == "times that grow":
        assert "`grid`" in words
    else:
        assert "`sampler`" in words
        assert "ReverseSDE(solver=" in words


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_arguments_are_named() -> None:
    path, data, wrong = normal_network(), normal_data(100), ss.Gaussian(jnp.zeros(2), 1.0)
    with pytest.raises(TypeError, match="`score` must be a perturbed score, got Gaussian"):
        ss.sampling_budget(wrong, NORMAL, data, key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`exact` must be a perturbed score"):
        ss.sampling_budget(path, NORMAL, data, key=jax.random.key(0), exact=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least 50 draws"):
        ss.sampling_budget(path, NORMAL, data[:10], key=jax.random.key(0))
    with pytest.raises(ValueError, match="`data`"):
        ss.sampling_budget(path, NORMAL, data[:, :1], key=jax.random.key(0))
