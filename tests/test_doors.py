"""Wrong input: every mistake has an error of its own that names the argument and the way out."""

from collections.abc import Callable
from functools import cache
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import FrozenScore, noise_levels
from tests.diagnostics.made_draws import made_draws, normal_chains

pytestmark = pytest.mark.usefixtures("unchecked_types")

KEY = jax.random.key(0)
Mistake = tuple[Callable[[], Any], type[Exception], str]


def gaussian() -> ss.Gaussian:
    return ss.Gaussian(jnp.zeros(2), 1.0)


@cache
def path() -> Any:
    return ss.perturb(gaussian(), ss.VP())


@cache
def tempered() -> ss.TemperedPath:
    return ss.TemperedPath(ss.Gaussian(jnp.zeros(2), 4.0), gaussian())


def bare() -> ss.Score:
    return ss.Score(lambda x: -x, structure=jnp.zeros(2))


def density(logdensity: Callable[[Array], Array], size: int = 2) -> ss.DensityScore:
    return ss.DensityScore(logdensity, structure=jnp.zeros(size))


def square(x: Array) -> Array:
    return -0.5 * jnp.sum(x**2)


def run(target: Any, sampler: Any, **settings: Any) -> Any:
    counts: dict[str, Any] = {"key": KEY, "num_samples": 2, "num_warmup": 2, "num_chains": 2}
    return ss.sample(target, sampler, **(counts | settings))


def made(sampler: Any, **settings: Any) -> Any:
    return sampler(**settings)


def network(**settings: Any) -> ss.PerturbedScore:
    settings = {"fn": lambda z, t: -z, "process": ss.VP(), "structure": jnp.zeros(2)} | settings
    return ss.PerturbedScore(settings.pop("fn"), settings.pop("process"), **settings)


def normal_data(num: int = 100) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(num, 2))


def spoiled(value: float) -> np.ndarray:
    data = normal_data()
    data[3, 1] = value
    return data


NOT_A_TARGET = "`target` must be a score or a path, got {}.*DensityScore.*Score.*from_numpyro"

SAMPLE: dict[str, Mistake] = {
    "a function as target": (lambda: run(square, ss.NUTS()), TypeError, NOT_A_TARGET.format("function")),
    "an array as target": (lambda: run(np.zeros((3, 2)), ss.ReverseSDE()), TypeError, NOT_A_TARGET.format("ndarray")),
    "a class as sampler": (lambda: run(gaussian(), ss.NUTS), TypeError, r"`sampler` must be an instance.*NUTS\(\)"),
    "a name as sampler": (lambda: run(gaussian(), "nuts"), TypeError, "`sampler` must be an instance.*'nuts'"),
    "a number as key": (lambda: run(gaussian(), ss.NUTS(), key=0), TypeError, r"`key` must be one random key.*got 0"),
    "two keys": (
        lambda: run(gaussian(), ss.NUTS(), key=jax.random.split(KEY)),
        TypeError,
        r"`key` must be one random key, such as jax\.random\.key\(0\)",
    ),
    "an array as key": (
        lambda: run(gaussian(), ss.NUTS(), key=jnp.zeros(2)),
        TypeError,
        "`key` must be one random key",
    ),
    "zero draws": (
        lambda: run(gaussian(), ss.NUTS(), num_samples=0),
        ValueError,
        "`num_samples` must be at least 1, got 0. Zero draws say nothing",
    ),
    "half a draw": (
        lambda: run(gaussian(), ss.NUTS(), num_samples=0.5),
        TypeError,
        "`num_samples` must be a whole number, got 0.5",
    ),
    "True as a number": (
        lambda: run(gaussian(), ss.NUTS(), num_samples=True),
        TypeError,
        "`num_samples` must be a whole number, got True",
    ),
    "no chains": (
        lambda: run(gaussian(), ss.NUTS(), num_chains=0),
        ValueError,
        "`num_chains` must be at least 1, got 0",
    ),
    "negative warm-up": (
        lambda: run(gaussian(), ss.NUTS(), num_warmup=-1),
        ValueError,
        "`num_warmup` must be at least 0, got -1",
    ),
    "an empty batch": (
        lambda: run(path(), ss.ReverseSDE(), batch_size=0),
        ValueError,
        "`batch_size` must be at least 1, got 0",
    ),
    "a fractional batch": (
        lambda: run(path(), ss.ReverseSDE(), batch_size=2.5),
        TypeError,
        "`batch_size` must be a whole number, got 2.5",
    ),
    "a plan for chains": (
        lambda: run(gaussian(), ss.NUTS(), plan=object()),
        ValueError,
        "`plan` is for path samplers; NUTS runs chains",
    ),
    "a start for a path": (
        lambda: run(path(), ss.ReverseSDE(), initial_position=jnp.zeros(2)),
        ValueError,
        "`initial_position` is for chains; ReverseSDE starts from the path's own reference",
    ),
    "a matrix for a tree": (
        lambda: ss.Gaussian({"a": jnp.zeros(2)}, {"a": jnp.eye(2)}),
        ValueError,
        "`covariance` can be a matrix only where the mean is a single vector",
    ),
    "no warm-up and no step size": (
        lambda: run(gaussian(), ss.NUTS(), num_warmup=0),
        ValueError,
        "`num_warmup` is 0, but NUTS has no `step_size`. Give one",
    ),
    "a bare score for NUTS": (
        lambda: run(bare(), ss.NUTS(), initial_position=jnp.zeros(2)),
        TypeError,
        r"`target`: NUTS accepts or rejects.*Score is a bare score.*LineIntegralDensity\(score, origin=.*ULA",
    ),
    "a bare score for HMC": (
        lambda: run(bare(), ss.HMC(), initial_position=jnp.zeros(2)),
        TypeError,
        "`target`: HMC accepts or rejects.*LineIntegralDensity",
    ),
    "a bare score for HMC itself": (
        lambda: ss.HMC(step_size=0.1).init(bare(), jnp.zeros(2), key=KEY),
        TypeError,
        "LineIntegralDensity",
    ),
    "no start": (
        lambda: run(bare(), ss.ULA()),
        ValueError,
        "`initial_position`: this target does not know where to start. Give one position",
    ),
    "a start of a wrong shape": (
        lambda: run(bare(), ss.ULA(), initial_position=jnp.zeros(3)),
        ValueError,
        r"`initial_position`: the array of this position has shape \(3,\), but \(2,\) is needed",
    ),
    "starts for a wrong number of chains": (
        lambda: run(bare(), ss.ULA(), initial_position=jnp.zeros((3, 2))),
        ValueError,
        r"`initial_position`: .* shape \(3, 2\), but \(2,\).*without chain or draw axes",
    ),
    "a start of a wrong tree": (
        lambda: run(bare(), ss.ULA(), initial_position={"x": jnp.zeros(2)}),
        ValueError,
        "`initial_position`: this position has the tree .* Pass the same containers",
    ),
    "a start that is not a number": (
        lambda: run(bare(), ss.ULA(), initial_position=jnp.array([[0.0, 0.0], [jnp.nan, 0.0]])),
        ValueError,
        r"`initial_position`: the starts of the chains \[1\] are not finite",
    ),
    "a score that is not finite at the start": (
        lambda: run(density(lambda x: jnp.sum(jnp.log(x - 1))), ss.ULA(), initial_position=jnp.array([2.0, 1.0])),
        ValueError,
        r"`target`: the score is not finite at the starts of the chains \[0, 1\].*inside the support",
    ),
    "a score of a wrong shape": (
        lambda: run(ss.Score(lambda x: -jnp.sum(x), structure=jnp.zeros(2)), ss.ULA(), initial_position=jnp.zeros(2)),
        ValueError,
        "`target`: the score returned ShapeDtypeStruct.*a score looks like its position",
    ),
    "a score of a wrong tree": (
        lambda: run(ss.Score(lambda x: (-x, 0.0), structure=jnp.zeros(2)), ss.ULA(), initial_position=jnp.zeros(2)),
        ValueError,
        "`target`: the score returned .*a score looks like its position",
    ),
    "a log density that is no scalar": (
        lambda: run(density(lambda x: -(x**2)), ss.ULA(), initial_position=jnp.zeros(2)),
        ValueError,
        "`target`: the score cannot be evaluated at the start.*scalar",
    ),
    "an array of exact draws": (
        lambda: ss.exact_draws(bare(), key=KEY),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`density` must have exact draws .*got Score",
    ),
    "no exact draws": (
        lambda: ss.exact_draws(gaussian(), key=KEY, num_samples=0),
        ValueError,
        "`num_samples` must be at least 1",
    ),
}

PATH_SAMPLERS: dict[str, Mistake] = {
    **{
        f"a bare density for {sampler.__name__}": (
            lambda sampler=sampler: run(gaussian(), sampler()),
            TypeError,
            rf"`target`: {sampler.__name__} needs a path.*fit_score\(draws\).*perturb\(density, process\)",
        )
        for sampler in (ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector)
    },
    "a bare density for AnnealedLangevin": (
        lambda: run(gaussian(), ss.AnnealedLangevin()),
        TypeError,
        r"AnnealedLangevin needs a path.*fit_score\(draws\).*TemperedPath\(reference, score\)",
    ),
    **{
        f"a tempered path for {sampler.__name__}": (
            lambda sampler=sampler: run(tempered(), sampler()),
            TypeError,
            rf"`target`: {sampler.__name__} reverses a noise process.*TemperedPath.*AnnealedLangevin.*fit_score",
        )
        for sampler in (ss.ReverseSDE, ss.ProbabilityFlowODE, ss.PredictorCorrector)
    },
    "an object without a path": (
        lambda: ss.ReverseSDE().plan(square, key=KEY),  # pyright: ignore[reportArgumentType]
        TypeError,
        r"ReverseSDE needs a path, got function. Wrap a network in PerturbedScore",
    ),
    **{
        f"{sampler.__name__}({setting}={value!r})": (
            lambda sampler=sampler, settings={setting: value}: made(sampler, **settings),
            ValueError,
            f"`{setting}`.*{value}",
        )
        for sampler, setting, value in (
            (ss.ReverseSDE, "num_steps", 0),
            (ss.ReverseSDE, "num_steps", 2.5),
            (ss.ReverseSDE, "eta", -0.5),
            (ss.ProbabilityFlowODE, "num_steps", -3),
            (ss.ProbabilityFlowODE, "max_steps", 0),
            (ss.PredictorCorrector, "num_steps", -1),
            (ss.PredictorCorrector, "corrector_steps", 0),
            (ss.PredictorCorrector, "corrector_step_size", 0.0),
            (ss.PredictorCorrector, "corrector_step_size", 2.0),
            (ss.PredictorCorrector, "eta", 1.5),
            (ss.AnnealedLangevin, "num_levels", 0),
            (ss.AnnealedLangevin, "steps_per_level", -2),
            (ss.AnnealedLangevin, "step_size", -0.1),
            (ss.AnnealedLangevin, "step_size", 2.0),
            (ss.ParallelMALA, "num_steps", 1),
            (ss.ParallelMALA, "target_acceptance_rate", 1.0),
            (ss.ParallelMALA, "step_size", 0.0),
            (ss.ULA, "step_size", 0.0),
            (ss.ULA, "step_size", -0.1),
            (ss.NUTS, "step_size", -0.1),
            (ss.NUTS, "target_acceptance_rate", 1.0),
            (ss.NUTS, "max_num_doublings", 0),
            (ss.HMC, "num_integration_steps", 0),
            (ss.HMC, "target_acceptance_rate", -0.5),
        )
    },
    "no noise at all": (lambda: ss.ReverseSDE(eta=0.0), ValueError, "`eta` must be positive.*ProbabilityFlowODE"),
    "a class as solver": (
        lambda: ss.ReverseSDE(solver=diffrax.ShARK),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`solver` must be one of the names .*or a diffrax solver such as .*got <class",
    ),
    "a solver for other equations": (
        lambda: ss.ReverseSDE(solver=diffrax.Tsit5()),
        ValueError,
        "`solver`: Tsit5 is not for Ito equations. Use diffrax.ShARK",
    ),
    "a solver in the Stratonovich sense": (
        lambda: ss.ReverseSDE(solver=diffrax.EulerHeun()),
        ValueError,
        "`solver`: EulerHeun",
    ),
    "an implicit solver": (
        lambda: ss.ProbabilityFlowODE(solver=diffrax.Kvaerno3()),
        ValueError,
        "`solver`: Kvaerno3 is not an explicit solver. Use diffrax.Euler, Heun, Tsit5",
    ),
    "a stochastic solver for the flow": (
        lambda: ss.ProbabilityFlowODE(solver=diffrax.ShARK()),
        ValueError,
        "`solver`: ShARK is for stochastic equations",
    ),
    "adaptive steps without an error estimate": (
        lambda: ss.ProbabilityFlowODE(solver=diffrax.Euler(), rtol=1e-3),
        ValueError,
        "`rtol`: Euler does not estimate its error.*Tsit5",
    ),
    "an absolute tolerance alone": (
        lambda: ss.ProbabilityFlowODE(atol=1e-3),
        ValueError,
        "`atol` without `rtol`",
    ),
    "a tolerance of zero": (
        lambda: ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=0.0),
        ValueError,
        "`rtol` must be positive and finite, got 0.0",
    ),
    "no steps on a grid": (lambda: noise_levels(path(), 0), ValueError, "`num_steps` must be at least 1, got 0"),
    "a grid that is over before it starts": (
        lambda: noise_levels(network(log_snr_range=(-12.0, -9.0), process=ss.VE(0.01, 100.0)), 5),
        ValueError,
        "no noise level is left. Widen `log_snr_range`",
    ),
}

PATHS: dict[str, Mistake] = {
    "no function": (lambda: network(fn=3), TypeError, r"`fn` must be a function of \(z, time\), got int"),
    "no process": (lambda: network(process="VP"), TypeError, r"`process` must be a noise process such as VP\(\)"),
    "a class as process": (lambda: network(process=ss.VP), TypeError, r"`process` must be a noise process such as VP"),
    "an unknown prediction": (
        lambda: network(prediction="epsilon"),
        ValueError,
        r"`prediction` must be one of \['score', 'noise', 'denoised', 'velocity'\], got 'epsilon'",
    ),
    "an unknown time": (
        lambda: network(time="timestep"),
        ValueError,
        r"`time` must be one of \['t', 'sigma', 'log_snr', 'index'\], got 'timestep'",
    ),
    "a network that returns another shape": (
        lambda: network(fn=lambda z, t: z[:1]),
        ValueError,
        "`fn` returned .*a prediction must look like one position.*unbatched",
    ),
    "a network that returns another tree": (
        lambda: network(fn=lambda z, t: {"score": z}),
        ValueError,
        "`fn` returned .*a prediction must look like one position",
    ),
    "a reversed range": (
        lambda: network(log_snr_range=(3.0, -3.0)),
        ValueError,
        r"`log_snr_range` must be two increasing finite numbers, got \(3.0, -3.0\)",
    ),
    "an endless range": (
        lambda: network(log_snr_range=(-3.0, float("inf"))),
        ValueError,
        "`log_snr_range` must be two increasing finite numbers",
    ),
    "a scale of zero": (lambda: network(scale=jnp.array([1.0, 0.0])), ValueError, "`scale` must be positive.*drop it"),
    "a location that is no number": (
        lambda: network(location=jnp.array([jnp.nan, 0.0])),
        ValueError,
        "`location` must be finite",
    ),
    "a location of a wrong shape": (
        lambda: network(location=jnp.zeros(3)),
        ValueError,
        r"`location`: .* has shape \(3,\), but \(2,\)",
    ),
    "another process that is none": (
        lambda: network().with_process("VE"),  # pyright: ignore[reportArgumentType]
        TypeError,
        r"`process` must be a noise process such as VP\(\) or VE\(\), got 'VE'",
    ),
    "rates in a wrong order": (
        lambda: ss.VP(beta_min=20.0, beta_max=0.1),
        ValueError,
        "`beta_min` < `beta_max` must be positive numbers, got 20.0 and 0.1",
    ),
    "a noise of nothing": (
        lambda: ss.VE(sigma_min=0.0),
        ValueError,
        "`sigma_min` < `sigma_max` must be positive numbers, got 0.0",
    ),
    "noise for a density without a closed form": (
        lambda: ss.perturb(density(square), ss.VP()),
        TypeError,
        r"`data` must be points, or a density with a closed-form.*got DensityScore.*fit_score\(draws\).*TemperedPath",
    ),
    "a density noised by nothing": (
        lambda: ss.perturb(gaussian(), None),  # pyright: ignore[reportArgumentType, reportCallIssue]
        TypeError,
        "`process` must be a noise process.*None",
    ),
    "a reference without draws": (
        lambda: ss.TemperedPath(density(square), gaussian()),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`reference` must be a density with exact draws, such as Gaussian, got DensityScore",
    ),
    "a target without density": (
        lambda: ss.TemperedPath(gaussian(), bare()),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`target` must be a score with a density, got Score",
    ),
    "a reference of another dimension": (
        lambda: ss.TemperedPath(ss.Gaussian(jnp.zeros(3), 1.0), gaussian()),
        ValueError,
        r"`reference`: .*shape \(3,\), but \(2,\)",
    ),
    "a Lipschitz constant below zero": (
        lambda: ss.TemperedPath(gaussian(), gaussian(), lipschitz=-1.0),
        ValueError,
        "`lipschitz` must be positive and finite, got -1.0",
    ),
}

SCORES: dict[str, Mistake] = {
    "a covariance that is none": (
        lambda: ss.Gaussian(jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])),
        ValueError,
        "`covariance` must be positive definite",
    ),
    "a lopsided covariance": (
        lambda: ss.Gaussian(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.0, 1.0]])),
        ValueError,
        "`covariance` must be symmetric",
    ),
    "a covariance of a wrong shape": (
        lambda: ss.Gaussian(jnp.zeros(2), jnp.ones(3)),
        ValueError,
        r"`covariance` must be a variance.*got shape \(3,\)",
    ),
    "a mean that is no number": (lambda: ss.Gaussian(jnp.array([jnp.nan]), 1.0), ValueError, "`mean` must be finite"),
    "a negative weight": (
        lambda: ss.GaussianMixture([0.5, -0.5], jnp.zeros((2, 1)), 1.0),
        ValueError,
        "`weights` must be 2 positive numbers, one for each row of `means`",
    ),
    "means without an axis": (
        lambda: ss.GaussianMixture([0.5, 0.5], jnp.zeros(2), 1.0),
        ValueError,
        r"`means` must have shape \(components, dimension\), got \(2,\)",
    ),
    "too many covariances": (
        lambda: ss.GaussianMixture([0.5, 0.5], jnp.zeros((2, 1)), jnp.ones(3)),
        ValueError,
        r"`covariances` must have shape .*got \(3,\)",
    ),
    "an integral over a density's name": (
        lambda: ss.LineIntegralDensity("score", jnp.zeros(2)),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`score` must be an AbstractScore, got str. Wrap functions in Score",
    ),
    "an origin of a wrong shape": (
        lambda: ss.LineIntegralDensity(bare(), jnp.zeros(3)),
        ValueError,
        r"`origin`: .*shape \(3,\), but \(2,\)",
    ),
    "a quadrature without nodes": (
        lambda: ss.LineIntegralDensity(bare(), jnp.zeros(2), num_nodes=0),
        ValueError,
        "`num_nodes` must be at least 1, got 0",
    ),
}


def fit(data: Any, **settings: Any) -> Any:
    return ss.fit_score(data, key=KEY, **settings)


TRAINING: dict[str, Mistake] = {
    "data that are no number": (
        lambda: fit(spoiled(np.nan)),
        ValueError,
        "`data`: 1 values of data are not finite. Drop them",
    ),
    "infinite data in a tree": (
        lambda: fit({"mu": spoiled(np.inf)}),
        ValueError,
        "`data`: 1 values of mu are not finite",
    ),
    "a constant coordinate": (
        lambda: fit(normal_data() * [1.0, 0.0] + 7.0),
        ValueError,
        "`data`: 1 coordinates of data never vary.*drop them",
    ),
    "too few draws": (
        lambda: fit(normal_data(20)),
        ValueError,
        r"`data` needs one leading axis of at least 50 draws.*\(20, 2\).*only remembers them",
    ),
    "draws of unequal numbers": (
        lambda: fit({"a": normal_data(100), "b": normal_data(99)}),
        ValueError,
        r"`data` needs one leading axis.*\(100, 2\), \(99, 2\)",
    ),
    "no arrays": (lambda: fit("draws"), TypeError, "`data` must be an array, a tree of arrays .*or Draws"),
    "no data": (lambda: fit({}), TypeError, "`data` must be an array.*got dict"),
    **{
        f"{name}={value!r}": (lambda k=name, v=value: fit(normal_data(), **{k: v}), ValueError, f"`{name}`")
        for name, value in (
            ("num_epochs", 0),
            ("batch_size", 0),
            ("width", -1),
            ("depth", 0.5),
            ("patience", 0),
            ("learning_rate", 0.0),
            ("ema_decay", 1.0),
            ("validation_fraction", 0.0),
            ("sigma_range", (1.0, 0.1)),
        )
    },
}


def draws(seed: int = 0, dimension: int = 2) -> ss.Draws:
    return made_draws(normal_chains(seed, dimension, draws=100))


COMPARE: dict[str, Mistake] = {
    "a list of runs": (
        lambda: ss.compare([draws()]),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`results` must map names to Draws, but a list came: {'NUTS': draws}",
    ),
    "no runs": (lambda: ss.compare({}), ValueError, "`results` is empty"),
    "arrays instead of runs": (
        lambda: ss.compare({"NUTS": np.zeros((4, 100, 2))}),  # pyright: ignore[reportArgumentType]
        TypeError,
        "`results` must map names to Draws, but str -> ndarray came",
    ),
    "an unknown reference": (
        lambda: ss.compare({"NUTS": draws()}, reference="nuts"),
        ValueError,
        "`reference` is 'nuts', but the results are NUTS",
    ),
    "runs of different coordinates": (
        lambda: ss.compare({"a": draws(), "b": draws(1, 3)}),
        ValueError,
        r"`results`: 'b' has positions x\[3\], but 'a' has x\[2\]",
    ),
    "a path sampler for a bare score": (
        lambda: ss.compare_samplers(bare(), {"sde": ss.ReverseSDE(), "ula": ss.ULA()}, key=KEY),
        TypeError,
        "`target`: sde need a path from noise to the target, but Score is a score without a density",
    ),
}

ALL = {
    f"{room}: {name}": mistake
    for room, mistakes in {
        "sample": SAMPLE,
        "samplers": PATH_SAMPLERS,
        "paths": PATHS,
        "scores": SCORES,
        "fit_score": TRAINING,
        "compare": COMPARE,
    }.items()
    for name, mistake in mistakes.items()
}


@pytest.mark.parametrize("name", ALL)
def test_a_mistake_has_an_error_that_helps(name: str) -> None:
    act, kind, message = ALL[name]
    with pytest.raises(kind, match=message) as caught:
        act()
    assert type(caught.value) is kind, "an error of another kind, such as a type checker's"


def test_a_path_level_is_a_bare_score_and_says_so() -> None:
    assert type(network().at(0.1)) is FrozenScore
    with pytest.raises(TypeError, match=r"FrozenScore is a bare score.*LineIntegralDensity"):
        run(network(), ss.NUTS())


def test_right_input_at_the_edge_is_accepted() -> None:
    """The doors do not shut out the least that is allowed."""
    one = run(gaussian(), ss.ULA(0.1), num_samples=1, num_chains=1, num_warmup=0)
    assert one.position.shape == (1, 1, 2)
    assert run(path(), ss.PredictorCorrector(num_steps=1), num_samples=np.int64(1)).position.shape == (1, 2, 2)
    assert run(path(), ss.AnnealedLangevin(num_levels=1, steps_per_level=1)).position.shape == (1, 4, 2)
    assert run(path(), ss.ReverseSDE(num_steps=1), batch_size=100).position.shape == (1, 4, 2)
