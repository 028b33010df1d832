from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.interop import ExponentialAdamsSolver, diffrax_terms
from scoresample.paths import Levels, noise_levels
from scoresample.samplers import _exponential
from tests.conftest import Compilations
from tests.samplers.affine_laws import CORRELATED, MEAN, path_of

NUM_STEPS = 7
NUM_PARTICLES = 5
KERNELS = [
    {"order": order, "midpoint": midpoint, "corrector": corrector}
    for order, midpoint in [(1, False), (2, False), (2, True), (3, False)]
    for corrector in (False, True)
]


def name(kernel: dict[str, Any]) -> str:
    return f"{kernel['order']}{'m' * kernel['midpoint']}{'c' * kernel['corrector']}"


def mixture() -> Any:
    means = np.array([[0.0, 0.0, 1.0], [2.0, -1.0, 0.5], [-3.0, 1.5, 0.0]])
    return ss.perturb(ss.GaussianMixture([0.2, 0.5, 0.3], means, [0.25, 0.64, 0.09]), ss.VP())


def noises() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(NUM_STEPS, NUM_PARTICLES, 3))


class KnownPath(diffrax.AbstractBrownianPath[Any]):
    """A Brownian path from given standard normal numbers, for steps between given times."""

    ends: Array
    values: Array
    t0: Any
    t1: Any
    levy_area: Any = eqx.field(static=True)

    def __init__(self, ends: Array, standard: np.ndarray) -> None:
        self.ends = ends
        steps = jnp.sqrt(jnp.diff(ends))[:, None, None] * standard
        self.values = jnp.concatenate([jnp.zeros_like(steps[:1]), jnp.cumsum(steps, axis=0)])
        self.t0, self.t1, self.levy_area = ends[0], ends[-1], diffrax.BrownianIncrement

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True, use_levy: bool = False) -> Any:
        assert not use_levy
        first, last = (jnp.argmin(jnp.abs(self.ends - t)) for t in (t0, t1))
        return self.values[last] - self.values[first]


class Run(NamedTuple):
    """Levels, particles at the first of them, and those at the last by the built-in scan."""

    levels: Levels
    start: Array
    end: np.ndarray


def scan(path: Any, kernel: dict[str, Any], eta: float, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The built-in sampler's steps, each with its own noise."""
    table = jnp.asarray(noises())
    monkeypatch.setattr(_exponential, "random_like", lambda key, _tree: table[jax.random.key_data(key)[1]])
    settings: Any = {"num_steps": NUM_STEPS, "grid": "karras", "denoise": False}
    solver = ss.ExponentialAdams(**kernel)
    sampler = (
        ss.ReverseSDE(solver=solver, eta=eta, **settings)
        if eta > 0
        else ss.ProbabilityFlowODE(solver=solver, **settings)
    )
    plan = sampler.plan(path, key=jax.random.key(0))
    levels = noise_levels(path, NUM_STEPS, "karras")
    start = path.sample_reference(jax.random.key(3), NUM_PARTICLES, levels.t[0])

    @jax.jit
    def run(start: Array) -> Array:
        def body(state: Any, inputs: Any) -> tuple[Any, None]:
            number, row = inputs
            return sampler.step(path, state, row, key=jax.random.key(number))[0], None

        state = sampler.init(path, start, plan, key=jax.random.key(0))
        state, _ = jax.lax.scan(body, state, (jnp.arange(NUM_STEPS), plan.steps))
        return sampler.final(path, state, plan)[0]

    return Run(levels, start, np.asarray(run(start)))


def solve(terms: Any, solver: Any, log_snr: Any, y: Any) -> Any:
    """The state at the last level."""
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=log_snr[0],
        t1=log_snr[-1],
        dt0=None,
        y0=y,
        stepsize_controller=diffrax.StepTo(log_snr),
        adjoint=diffrax.ForwardMode(),
        saveat=diffrax.SaveAt(t1=True),
        max_steps=None,
    )
    return jax.tree.map(lambda x: x[-1], solution.ys)


def agrees(make_path: Callable[[], Any], kernel: dict[str, Any], eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True):
        path = make_path()
        run = scan(path, kernel, eta, monkeypatch)
        ends = jnp.asarray(run.levels.log_snr)
        brownian = KnownPath(ends, noises()) if eta > 0 else None
        terms = diffrax_terms(path, eta=eta, brownian=brownian)
        solver = ExponentialAdamsSolver(**kernel, eta=eta)
        found = jax.jit(lambda y: solve(terms, solver, ends, y))(run.start / run.levels.alpha[0])
    assert found.dtype == np.float64
    assert np.abs(run.end).max() > 0.5
    np.testing.assert_allclose(np.asarray(found), run.end, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_a_solve_is_the_built_in_scan_on_a_mixture(
    kernel: dict[str, Any], eta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agrees(mixture, kernel, eta, monkeypatch)


@pytest.mark.parametrize("process", ["VP", "VE"])
def test_a_solve_is_the_built_in_scan_on_a_normal_target(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(lambda: path_of(process, CORRELATED), KERNELS[-1], 0.5, monkeypatch)


def test_the_standard_coordinates_are_those_of_the_path() -> None:
    """A path with a frame: the particles end where the data are only after `to_position`."""
    location, scale = jnp.array([3.0, -1.0, 0.5]), jnp.array([2.0, 0.5, 1.0])
    path = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(3), location=location, scale=scale)
    levels = noise_levels(path, 30)
    z = path.sample_reference(jax.random.key(0), 4, levels.t[0])
    y = solve(diffrax_terms(path, eta=0.0), ExponentialAdamsSolver(3, eta=0.0), levels.log_snr, z / levels.alpha[0])
    # The score of N(0, 1) under VP: the flow leaves z = alpha y where it is.
    np.testing.assert_allclose(np.asarray(levels.alpha[-1] * y), np.asarray(z), rtol=1e-3)


def test_euler_steps_on_the_terms_tend_to_the_same_flow() -> None:
    with jax.enable_x64(True):
        path = mixture()
        levels = noise_levels(path, 100)
        y = path.sample_reference(jax.random.key(3), NUM_PARTICLES, levels.t[0]) / levels.alpha[0]

        @eqx.filter_jit
        def run(solver: Any, log_snr: Array) -> Array:
            return solve(diffrax_terms(path, eta=0.0), solver, log_snr, y)

        truth = run(ExponentialAdamsSolver(3, corrector=True, eta=0.0), jnp.asarray(levels.log_snr))
        grids = [jnp.asarray(noise_levels(path, num).log_snr) for num in (1000, 2000)]
        coarse, fine = (np.asarray(run(diffrax.Euler(), grid) - truth) for grid in grids)
    assert 1.8 < np.abs(coarse).max() / np.abs(fine).max() < 2.2
    np.testing.assert_allclose(2 * fine, coarse, atol=3e-3)  # an error of order 1, and nothing else


def test_euler_steps_on_one_brownian_path_tend_to_the_same_particles() -> None:
    """Sizes, signs and order of the noise: a solve follows the path that drives it."""
    with jax.enable_x64(True):
        path: Any = path_of("VP", CORRELATED)
        first, last = (float(x) for x in noise_levels(path, 1).log_snr)
        y = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3)) * np.exp(-first))
        fine = jnp.linspace(first, last, 4097)
        brownian = KnownPath(fine, np.random.default_rng(2).normal(size=(4096, 50, 3)))

        @eqx.filter_jit
        def run(solver: Any, log_snr: Array) -> Array:
            return solve(diffrax_terms(path, eta=0.7, brownian=brownian), solver, log_snr, y)

        truth = run(diffrax.Euler(), fine)
        coarse, finer = (
            float(jnp.sqrt(((run(ExponentialAdamsSolver(2, eta=0.7), fine[::stride]) - truth) ** 2).mean()))
            for stride in (128, 32)
        )
    assert coarse < 0.05
    assert coarse / finer > 3
    assert np.std(np.asarray(truth) - MEAN) > 0.5


def test_without_noise_it_also_runs_from_data_to_noise() -> None:
    with jax.enable_x64(True):
        path = mixture()
        levels = noise_levels(path, 200)
        y = path.sample_reference(jax.random.key(3), NUM_PARTICLES, levels.t[0]) / levels.alpha[0]
        solver = ExponentialAdamsSolver(3, corrector=True, eta=0.0)
        terms = diffrax_terms(path, eta=0.0)

        @jax.jit
        def there_and_back(y: Array) -> Array:
            data = solve(terms, solver, jnp.asarray(levels.log_snr), y)
            return solve(terms, solver, jnp.asarray(levels.log_snr[::-1]), data)

        np.testing.assert_allclose(np.asarray(there_and_back(y)), np.asarray(y), rtol=1e-4, atol=1e-3)


def test_noise_from_data_to_noise_gives_nan() -> None:
    path, y = mixture(), jnp.zeros((2, 3))
    terms, solver = diffrax_terms(path, brownian=brownian()), ExponentialAdamsSolver()
    end = jax.jit(lambda y: solve(terms, solver, jnp.array([1.0, 0.0, -1.0]), y))(y)
    assert bool(jnp.isnan(end).all())


def test_a_solve_in_two_parts_is_the_solve_at_once() -> None:
    with jax.enable_x64(True):
        path = mixture()
        log_snr = jnp.asarray(noise_levels(path, 8).log_snr)
        y = path.sample_reference(jax.random.key(3), NUM_PARTICLES, 1.0)
        terms, solver = diffrax_terms(path, eta=0.0), ExponentialAdamsSolver(3, corrector=True, eta=0.0)

        @jax.jit
        def part(y: Array, log_snr: Array, state: Any) -> tuple[Array, Any]:
            solution = diffrax.diffeqsolve(
                terms,
                solver,
                log_snr[0],
                log_snr[-1],
                None,
                y,
                stepsize_controller=diffrax.StepTo(log_snr),
                saveat=diffrax.SaveAt(t1=True, solver_state=True),
                adjoint=diffrax.ForwardMode(),
                solver_state=state,
            )
            assert solution.ys is not None
            return solution.ys[-1], solution.solver_state

        half, state = part(y, log_snr[:5], None)
        found, _ = part(half, log_snr[4:], state)
        expected, _ = part(y, log_snr, None)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-10)


def test_after_a_jump_the_history_is_not_used() -> None:
    with jax.enable_x64(True):
        path = mixture()
        terms, solver = diffrax_terms(path, eta=0.0), ExponentialAdamsSolver(2, corrector=True, eta=0.0)
        y = path.sample_reference(jax.random.key(3), NUM_PARTICLES, 1.0)
        state = solver.init(terms, jnp.asarray(-2.0), jnp.asarray(-1.0), y, None)

        @jax.jit
        def step(start: Array, stop: Array, y: Array, state: Any, made_jump: Array) -> tuple[Array, Any]:
            y, _, _, state, _ = solver.step(terms, start, stop, y, None, state, made_jump)
            return y, state

        yes, no, ends = jnp.asarray(True), jnp.asarray(False), jnp.asarray([-2.0, -1.0, -0.5])
        after, old = step(ends[0], ends[1], y, state, no)
        jumped, fresh, smooth = (
            np.asarray(step(ends[1], ends[2], after, state, jump)[0])
            for state, jump in ((old, yes), (state, no), (old, no))
        )
    np.testing.assert_array_equal(jumped, fresh)
    assert np.abs(smooth - fresh).max() > 1e-3


def tree_score(z: Any, t: Any) -> Any:
    return jax.tree.map(lambda x: -x, z)


def test_trees_keep_their_structure_and_dtypes(precision: jnp.dtype) -> None:
    structure = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    path = ss.PerturbedScore(tree_score, ss.VP(), structure=structure)
    levels = noise_levels(path, 6)
    y = path.sample_reference(jax.random.key(0), 4, levels.t[0])
    shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), y)
    terms = diffrax_terms(path, brownian=diffrax.UnsafeBrownianPath(shape, jax.random.key(1)))
    solver = ExponentialAdamsSolver(3, corrector=True)
    ends = jax.jit(lambda y: solve(terms, solver, jnp.asarray(levels.log_snr), y))(y)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), ends) == {"a": ((4, 2), precision), "b": ((4,), precision)}
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(ends))


def test_single_precision_is_close_to_double() -> None:
    found = {}
    for double in (False, True):
        with jax.enable_x64(double):
            path = mixture()
            levels = noise_levels(path, 40)
            y = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_PARTICLES, 3)) * 20)
            solver = ExponentialAdamsSolver(3, corrector=True, eta=0.0)
            found[double] = np.asarray(
                jax.jit(lambda y, s=solver, p=path, e=levels: solve(diffrax_terms(p, eta=0.0), s, e.log_snr, y))(y)
            )
    assert found[False].dtype == np.float32
    np.testing.assert_allclose(found[False], found[True], atol=1e-3)


def test_new_keys_and_new_scores_compile_nothing(compilations: Compilations) -> None:
    def make(mean: float) -> Any:
        return ss.perturb(ss.Gaussian(jnp.full(3, mean), 0.5), ss.VP())

    path = make(1.0)
    log_snr = noise_levels(path, 5).log_snr

    @eqx.filter_jit
    def run(path: Any, y: Array, key: Array) -> Array:
        brownian = diffrax.UnsafeBrownianPath(y.shape, key)
        return solve(diffrax_terms(path, eta=0.5, brownian=brownian), ExponentialAdamsSolver(eta=0.5), log_snr, y)

    y, other = jnp.ones((4, 3)), make(2.0)
    keys = jax.random.split(jax.random.key(0))
    one, two = keys[0], keys[1]
    first = run(path, y, one)
    with compilations.none_expected():
        second, third = run(path, y, two), run(other, y, two)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_derivative_with_respect_to_the_start_is_finite_and_right() -> None:
    with jax.enable_x64(True):
        path = mixture()
        log_snr = jnp.asarray(noise_levels(path, 6).log_snr)
        terms, solver = diffrax_terms(path, eta=0.0), ExponentialAdamsSolver(3, corrector=True, eta=0.0)
        y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
        direction = jnp.ones_like(y)

        def end(size: Array) -> Array:
            return solve(terms, solver, log_snr, y + size * direction)

        both = jax.jit(lambda x: jax.jvp(end, (x,), (jnp.ones_like(x),)))
        _, tangent = both(jnp.asarray(0.0))
        difference = (both(jnp.asarray(1e-5))[0] - both(jnp.asarray(-1e-5))[0]) / 2e-5
    np.testing.assert_allclose(np.asarray(tangent), np.asarray(difference), rtol=1e-5, atol=1e-7)


def brownian() -> Any:
    return diffrax.UnsafeBrownianPath((2, 3), jax.random.key(0))


def wrong_solve(made_with: float, solved_with: float) -> Any:
    noise = brownian() if made_with > 0 else None
    terms = diffrax_terms(mixture(), eta=made_with, brownian=noise)
    return solve(terms, ExponentialAdamsSolver(eta=solved_with), np.array([-1.0, 0.0, 1.0]), jnp.zeros((2, 3)))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExponentialAdamsSolver(4), "`order` must be one of"),
        (lambda: ExponentialAdamsSolver(0), "`order` must be one of"),
        (lambda: ExponentialAdamsSolver(3, midpoint=True), "`midpoint` is a form of order 2"),
        (lambda: ExponentialAdamsSolver(eta=-0.5), "`eta` must be at least 0"),
        (lambda: ExponentialAdamsSolver(eta=float("nan")), "`eta` must be at least 0"),
        (lambda: diffrax_terms(mixture(), eta=-1.0, brownian=brownian()), "`eta` must be at least 0"),
        (lambda: diffrax_terms(mixture(), eta=0.5), "`brownian` is needed"),
        (lambda: diffrax_terms(mixture(), eta=0.0, brownian=brownian()), "there is no noise"),
        (lambda: wrong_solve(0.0, 0.5), "needs 2 of them, got 1"),
        (lambda: wrong_solve(0.5, 0.0), "needs 1 of them, got 2"),
        (lambda: wrong_solve(0.5, 1.0), "made with 0.5, the solver with 1.0"),
    ],
)
def test_static_mistakes_are_value_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.usefixtures("unchecked_types")
def test_terms_need_a_perturbed_score() -> None:
    score: Any = ss.Gaussian(jnp.zeros(3), 1.0)
    with pytest.raises(TypeError, match="`path` must be a perturbed score, got Gaussian"):
        diffrax_terms(score, eta=0.0)
