"""Many observations from scores under one each: exact on normal models, measured where they are approximate."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import BridgedScore, CentredScore, CombinedScore

PRIOR_MEAN = np.array([1.0, -2.0, 0.5])
PRIOR_COVARIANCE = np.array([[2.0, 0.6, 0.1], [0.6, 0.5, -0.1], [0.1, -0.1, 1.5]])
GAIN = np.array([[1.0, -0.5, 0.3], [0.2, 0.8, -0.4]])
NOISE = np.array([[0.5, 0.2], [0.2, 0.8]])
"""x | theta is normal with mean GAIN theta and covariance NOISE: one direction of theta is never seen."""
LOCATION, SCALE = np.array([0.5, -1.0, 0.0]), np.array([1.4, 0.7, 1.2])
"""Positions are LOCATION + SCALE z."""
OF_PRIOR = np.linalg.inv(PRIOR_COVARIANCE)
OF_DATA = GAIN.T @ np.linalg.inv(NOISE) @ GAIN


def posterior(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of theta given all observations."""
    covariance = np.linalg.inv(OF_PRIOR + len(observations) * OF_DATA)
    return covariance @ (OF_PRIOR @ PRIOR_MEAN + GAIN.T @ np.linalg.solve(NOISE, observations.sum(axis=0))), covariance


def denoiser(y: Array, s: Array, x: Array, mean: Array, slope: Array, covariance: Array, error: Array) -> Array:
    """The posterior mean of theta under one observation, with errors where `error` says so."""
    centre = mean + slope @ x
    wrong = error.astype(y.dtype) * jnp.sin(3 * y + jnp.sum(x))
    noise = s**2 * jnp.eye(3, dtype=y.dtype)
    exact = centre + covariance @ jnp.linalg.solve(covariance + noise, y - centre)
    return exact + s**2 / jnp.sqrt(s**2 + jnp.diagonal(covariance)) * wrong


def single_score(process: ss.AbstractNoiseProcess | None = None, error: float = 0.0) -> ss.PerturbedScore:
    _, covariance = posterior(np.zeros((1, 2)))
    slope = covariance @ GAIN.T @ np.linalg.inv(NOISE) / SCALE[:, None]
    mean = (covariance @ OF_PRIOR @ PRIOR_MEAN - LOCATION) / SCALE
    values = mean, slope, covariance / np.outer(SCALE, SCALE), error
    return ss.PerturbedScore(
        denoiser,
        ss.VP() if process is None else process,
        structure=jnp.zeros(3),
        prediction="denoised",
        time="sigma",
        args=tuple(jnp.asarray(value, dtype=float) for value in values),
        location=jnp.asarray(LOCATION, dtype=float),
        scale=jnp.asarray(SCALE, dtype=float),
        condition=jnp.zeros(2),
    )


def data(number: int) -> np.ndarray:
    noise = np.random.default_rng(3).multivariate_normal(np.zeros(2), NOISE, size=number)
    return GAIN @ np.array([1.5, -2.2, 0.2]) + noise


def prior() -> ss.Gaussian:
    return ss.Gaussian(jnp.asarray(PRIOR_MEAN, dtype=float), PRIOR_COVARIANCE)


def known_moments(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    each = [posterior(x[None]) for x in observations]
    return np.stack([mean for mean, _ in each]), np.stack([covariance for _, covariance in each])


def combined(number: int, method: Any, process: ss.AbstractNoiseProcess | None = None, **settings: Any) -> Any:
    observations = data(number)
    settings = {"moments": known_moments(observations), "prior": prior()} | settings
    return ss.combine_observations(single_score(process), observations, method=method, **settings)


def exact_score(z: np.ndarray, observations: np.ndarray, alpha: float, variance: float) -> np.ndarray:
    """Of the noised posterior in standard coordinates."""
    mean, covariance = posterior(observations)
    mean, covariance = (mean - LOCATION) / SCALE, covariance / np.outer(SCALE, SCALE)
    return -np.linalg.solve(alpha**2 * covariance + variance * np.eye(3), z - alpha * mean)


@eqx.filter_jit
def scores_at(path: Any, points: Array, t: Array) -> Array:
    return jax.vmap(lambda z: path.standard_score(z, t))(points)


@pytest.mark.parametrize("method", ["gauss", "jac"])
@pytest.mark.parametrize(("process", "number"), [(ss.VP(), 1), (ss.VP(), 2), (ss.VP(), 100), (ss.VE(0.002, 60.0), 10)])
def test_normal_models_are_combined_exactly_at_all_levels(
    method: str, number: int, process: ss.AbstractNoiseProcess, precision: jnp.dtype
) -> None:
    path = combined(number, method, process)
    assert isinstance(path, CombinedScore)
    # A denoiser as a score loses the digits of (sigma/alpha)^2; n scores less n - 1 of the prior's lose log10(n).
    tolerance = {"float32": 2e-4, "float64": 1e-12}[precision.name]
    for ratio in (0.05, 0.3, 2.0, 20.0, 50.0):
        t = process.time(-jnp.log(jnp.asarray(ratio, precision)))
        alpha, variance = float(process.alpha(t)), float(process.variance(t))
        z = np.random.default_rng(0).normal(size=(5, 3)) * np.sqrt(0.1 * alpha**2 + variance)
        got = scores_at(path, jnp.asarray(z, precision), t)
        assert got.dtype == precision
        want = np.stack([exact_score(one, data(number), alpha, variance) for one in z])
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())
    assert float(path.regularised_share(jnp.asarray(z, precision), t)) == 0


def test_one_observation_is_the_score_itself() -> None:
    single, points = single_score(), jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype=float)
    given = single.given(data(1)[0])
    for t in (0.05, 0.6):
        want = scores_at(given, points, jnp.asarray(t))
        for method in ("gauss", "jac"):
            assert np.array_equal(scores_at(combined(1, method), points, jnp.asarray(t)), want)
        bridged = combined(1, "fnpse")
        log_snr = bridged.log_snr(jnp.asarray(t))
        at = single.process.time(log_snr)
        alpha = single.process.alpha(at)
        np.testing.assert_allclose(
            scores_at(bridged, points, jnp.asarray(t)), alpha * scores_at(given, alpha * points, at), rtol=1e-5
        )


@pytest.mark.parametrize("number", [2, 10, 100])
def test_bridges_are_their_own_formula_and_their_moments_are_its_law(number: int) -> None:
    with jax.enable_x64(True):
        path = combined(number, "fnpse")
        assert isinstance(path, BridgedScore)
        z = np.random.default_rng(0).normal(size=(4, 3))
        _, wide = posterior(data(1))
        wide = wide / np.outer(SCALE, SCALE)
        of_prior = np.linalg.inv(PRIOR_COVARIANCE / np.outer(SCALE, SCALE))
        for t in (0.0, 0.3, 0.9, 1.0):
            squared = float(np.exp(-2 * path.log_snr(jnp.asarray(t))))
            single = np.linalg.inv(wide + squared * np.eye(3))
            want = np.zeros_like(z)
            for mean in (known_moments(data(number))[0] - LOCATION) / SCALE:
                want -= (z - mean) @ single
            noised_prior = np.linalg.inv(np.linalg.inv(of_prior) + squared * np.eye(3))
            want += (number - 1) * (z - (PRIOR_MEAN - LOCATION) / SCALE) @ noised_prior
            np.testing.assert_allclose(scores_at(path, jnp.asarray(z), jnp.asarray(t)), want, rtol=1e-7, atol=1e-8)
            mean, covariance = path.level_moments(jnp.asarray(t))
            law = -(z - mean) @ np.linalg.inv(covariance)
            np.testing.assert_allclose(law, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
            assert np.linalg.eigvalsh(covariance)[0] > 0


def check_draws(draws: np.ndarray, observations: np.ndarray, bias: float = 0.0) -> None:
    """Mean and covariance within five standard errors, and a share `bias` of the variance."""
    mean, covariance = posterior(observations)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws - mean).T).T
    error = 1 / np.sqrt(len(white))
    assert np.abs(white.mean(axis=0)).max() < 5 * error
    off = np.cov(white.T) - np.eye(3)
    assert np.abs(off).max() < 5 * np.sqrt(2) * error + bias


@pytest.mark.parametrize("method", ["gauss", "jac"])
@pytest.mark.parametrize("number", [1, 10, 100])
def test_probability_flows_draw_from_the_posterior_of_all(method: str, number: int) -> None:
    path = combined(number, method, moments=None, key=jax.random.key(1))
    draws = ss.sample(path, ss.ProbabilityFlowODE(num_steps=30), key=jax.random.key(2), num_samples=500)
    check_draws(draws.position.reshape(-1, 3), data(number))


@pytest.mark.parametrize("number", [1, 10, 100])
def test_annealed_langevin_draws_from_bridges(number: int) -> None:
    path = combined(number, "fnpse")
    sampler = ss.AnnealedLangevin(num_levels=60, steps_per_level=10, step_size=0.1)
    draws = ss.sample(path, sampler, key=jax.random.key(2), num_samples=500 if number < 100 else 125)
    position = draws.position.reshape(-1, 3)
    # Unadjusted steps of 0.1 of the stiffest direction's variance make it 1/(1 - 0.1/2) too wide.
    if number < 100:
        check_draws(position, data(number), bias=0.06)
        return
    # The direction that no observation sees needs n times the steps: here what is seen is held against the truth.
    mean, covariance = posterior(data(number))
    seen, root = GAIN, np.linalg.cholesky(GAIN @ covariance @ GAIN.T)
    white = np.linalg.solve(root, seen @ (position - mean).T).T
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(len(white))
    assert np.abs(np.cov(white.T) - np.eye(2)).max() < 5 * np.sqrt(2 / len(white)) + 0.06


@pytest.mark.parametrize("number", [1, 10, 100])
def test_moments_are_those_of_the_combined_law(number: int) -> None:
    path = combined(number, "gauss", moments=None, key=jax.random.key(1))
    mean, covariance = posterior(data(number))
    covariance = covariance / np.outer(SCALE, SCALE)
    np.testing.assert_allclose(path.covariance, covariance, atol=2e-3 * np.abs(covariance).max())
    deviation = np.sqrt(np.diagonal(covariance))
    assert np.abs((np.asarray(path.data_moments()[0]) - (mean - LOCATION) / SCALE) / deviation).max() < 0.05
    np.testing.assert_allclose(path.smallest_scale(), np.sqrt(np.linalg.eigvalsh(covariance)[0]), rtol=5e-3)


@pytest.mark.parametrize("method", ["gauss", "jac", "fnpse"])
def test_chunks_change_nothing(method: str) -> None:
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype=float)
    whole, three = (combined(10, method, chunk_size=size) for size in (None, 3))
    t = jnp.asarray(0.3)
    np.testing.assert_allclose(scores_at(whole, points, t), scores_at(three, points, t), rtol=1e-3, atol=1e-3)


# Laws on a grid

NODES = np.linspace(-12.0, 12.0, 801)


def tabulated(
    log_prior: np.ndarray, log_likelihood: Any, dimension: int
) -> tuple[ss.PerturbedScore, ss.PerturbedScore]:
    """Scores of independent coordinates on a grid of nodes, given x and under the prior."""

    def denoised(y: Array, s: Array, logits: Array) -> Array:
        nodes = jnp.asarray(NODES, y.dtype)
        weights = jax.nn.softmax(logits - 0.5 * ((y[:, None] - nodes) / s) ** 2, axis=1)
        return weights @ nodes

    def conditional(y: Array, s: Array, x: Array) -> Array:
        nodes = jnp.asarray(NODES, y.dtype)
        return denoised(y, s, jnp.asarray(log_prior, y.dtype) + log_likelihood(nodes, x[:, None]))

    settings: dict[str, Any] = {"structure": jnp.zeros(dimension), "prediction": "denoised", "time": "sigma"}
    settings["log_snr_range"] = (-float(np.log(50.0)), -float(np.log(0.045)))
    unconditional = lambda y, s: denoised(y, s, jnp.asarray(log_prior, y.dtype)[None])  # noqa: E731
    return (
        ss.PerturbedScore(conditional, ss.VP(), condition=jnp.zeros(dimension), **settings),
        ss.PerturbedScore(unconditional, ss.VP(), **settings),
    )


def truth(log_prior: np.ndarray, log_likelihood: Any, observations: np.ndarray) -> np.ndarray:
    """The weights of the nodes under all observations of one coordinate."""
    total = log_prior + sum(np.asarray(log_likelihood(NODES, x)) for x in observations)
    weights = np.exp(total - total.max())
    return weights / weights.sum()


def two_modes(theta: Any, x: Any) -> Any:
    """The log likelihood of ``x = theta^2 / 2 + 0.7 noise``: two symmetrical modes."""
    return -0.5 * ((theta**2 / 2 - x) / 0.7) ** 2


@pytest.mark.parametrize(("method", "most"), [("gauss", 0.2), ("jac", 0.2), ("fnpse", 0.2)])
def test_two_modes_within_a_measured_error(method: Any, most: float) -> None:
    log_prior = -0.5 * (NODES / 1.5) ** 2
    score, _ = tabulated(log_prior, two_modes, 1)
    observations = np.array([[1.2], [0.4], [1.9], [1.5]])
    path = ss.combine_observations(
        score, observations, prior=ss.Gaussian(jnp.zeros(1), 1.5**2), method=method, key=jax.random.key(0)
    )
    sampler: Any = ss.ProbabilityFlowODE(num_steps=30)
    if method == "fnpse":
        sampler = ss.AnnealedLangevin(num_levels=30, steps_per_level=8, step_size=0.1)
    draws = np.sort(ss.sample(path, sampler, key=jax.random.key(1), num_samples=100).position.ravel())
    weights = truth(log_prior, two_modes, observations[:, 0])
    exact = np.interp((np.arange(draws.size) + 0.5) / draws.size, np.cumsum(weights), NODES)
    deviation = np.sqrt(weights @ NODES**2)
    distance = float(np.mean(np.abs(draws - exact)) / deviation)
    assert distance < most


@pytest.mark.parametrize("method", ["gauss", "jac", "fnpse"])
def test_bounded_priors_give_no_nan_and_the_right_law(method: Any) -> None:
    log_prior = -np.logaddexp(0, NODES) - np.logaddexp(0, -NODES)
    likelihood = lambda u, x: -0.5 * ((x - jnp.tanh(u / 2)) / 0.5) ** 2  # noqa: E731
    score, of_prior = tabulated(log_prior, likelihood, 2)
    observations = np.array([0.9, -0.2]) + 0.5 * np.random.default_rng(5).normal(size=(8, 2))
    path = ss.combine_observations(
        score, observations, prior=of_prior, method=method, key=jax.random.key(0), num_draws=200
    )
    for t in (0.05, 0.3, 0.7, 1.0):
        far = jnp.asarray([[-11.0, 9.0], [0.1, -0.4], [30.0, 2.0]], dtype=float)
        assert np.isfinite(scores_at(path, far, jnp.asarray(t))).all()
    sampler: Any = ss.ProbabilityFlowODE(num_steps=30)
    if method == "fnpse":
        sampler = ss.AnnealedLangevin(num_levels=40, steps_per_level=25, step_size=0.2)
    draws = np.tanh(ss.sample(path, sampler, key=jax.random.key(1), num_samples=100).position.reshape(-1, 2) / 2)
    for coordinate in (0, 1):
        weights = truth(log_prior, likelihood, observations[:, coordinate])
        mean = weights @ np.tanh(NODES / 2)
        deviation = np.sqrt(weights @ np.tanh(NODES / 2) ** 2 - mean**2)
        assert abs(draws[:, coordinate].mean() - mean) < 0.3 * deviation
        assert abs(draws[:, coordinate].std() / deviation - 1) < 0.25


# Doors and warnings


def test_what_does_not_fit_is_refused() -> None:
    score = single_score()
    known: dict[str, Any] = {"moments": known_moments(data(2)), "prior": prior()}
    refuse = lambda error, match: pytest.raises(error, match=match)  # noqa: E731
    unchecked: Any = inspect.unwrap(ss.combine_observations)
    with refuse(TypeError, "`score` must be a conditional"):
        ss.combine_observations(ss.perturb(prior(), ss.VP()), data(2), **known)
    with refuse(ValueError, "`condition`: this score was made without"):
        plain = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(3))
        ss.combine_observations(plain, data(2), **known)
    with refuse(ValueError, "`observations` must have a leading axis"):
        ss.combine_observations(score, data(2)[0], **known)
    with refuse(ValueError, "not finite"):
        ss.combine_observations(score, np.full((2, 2), np.nan), **known)
    with refuse(ValueError, "`method` must be one of"):
        unchecked(score, data(2), method="sum", **known)
    with refuse(ValueError, "`chunk_size` must be"):
        ss.combine_observations(score, data(2), chunk_size=0, **known)
    with refuse(ValueError, "`key` is needed"):
        ss.combine_observations(score, data(2), prior=prior())
    with refuse(ValueError, "`num_draws` must be"):
        ss.combine_observations(score, data(2), prior=prior(), num_draws=4, key=jax.random.key(0))
    with refuse(ValueError, "`moments` must be means"):
        ss.combine_observations(score, data(3), **known)
    with refuse(TypeError, "`prior` must be a noised score"):
        unchecked(score, data(2), moments=known["moments"], prior=3.0)
    with refuse(ValueError, "`prior` is a law of positions"):
        ss.combine_observations(score, data(2), moments=known["moments"], prior=ss.Gaussian(jnp.zeros(2), 1.0))
    learned = ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(3))
    with refuse(ValueError, "other relative scales"):
        ss.combine_observations(score, data(2), moments=known["moments"], prior=learned, key=jax.random.key(0))
    with refuse(TypeError, "AbstractPerturbedScore|noised"):
        ss.sample(combined(2, "fnpse"), ss.ProbabilityFlowODE(), key=jax.random.key(0))


def test_a_score_that_ends_at_too_much_noise_is_told_of() -> None:
    score = eqx.tree_at(lambda s: s.log_snr_range, single_score(), jnp.asarray([-4.0, 2.5], dtype=float))
    with pytest.warns(UserWarning, match="sigma_range="):
        ss.combine_observations(score, data(100), prior=prior(), moments=known_moments(data(100)))


@pytest.mark.parametrize("frame", ["its own", "another factor", "another process"])
def test_priors_are_brought_to_the_coordinates_of_the_score(frame: str) -> None:
    want = combined(3, "gauss")
    process = ss.VE(0.001, 300.0) if frame == "another process" else ss.VP()
    factor = 2.5 if frame == "another factor" else 1.0
    location, scale = LOCATION + 0.3 * (frame == "another factor"), factor * SCALE
    inner = ss.Gaussian(
        jnp.asarray((PRIOR_MEAN - location) / scale, dtype=float), PRIOR_COVARIANCE / np.outer(scale, scale)
    )
    exact = ss.perturb(inner, process)
    prior_score = ss.PerturbedScore(
        lambda z, t: exact.standard_score(z, t), process, structure=jnp.zeros(3),
        location=jnp.asarray(location, dtype=float), scale=jnp.asarray(scale, dtype=float),
    )  # fmt: skip
    got = combined(3, "gauss", prior=prior_score, key=jax.random.key(0))
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype=float)
    for t in (0.1, 0.5, 0.9):
        scores = [scores_at(path, points, jnp.asarray(t)) for path in (got, want)]
        np.testing.assert_allclose(scores[0], scores[1], atol=5e-3 * np.abs(scores[1]).max())


def test_covariances_wider_than_the_prior_are_cut_and_counted() -> None:
    means, covariances = known_moments(data(40))
    covariances[::4] = 1.5 * PRIOR_COVARIANCE
    path = combined(40, "gauss", moments=(means, covariances))
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), dtype=float)
    assert float(path.regularised_share(points, 0.3)) == 0.25
    assert np.linalg.eigvalsh(path.covariance)[0] > 0
    assert np.isfinite(scores_at(path, points, jnp.asarray(0.3))).all()


def test_scores_in_coordinates_that_move_with_the_observation_are_refused() -> None:
    single = ss.PerturbedScore(
        lambda y, s, x: y / (1 + s**2), ss.VP(), structure=jnp.zeros(2), prediction="denoised", time="sigma",
        condition=jnp.zeros(2),
    )  # fmt: skip
    moving = CentredScore(single, lambda x: x / 2, jnp.eye(2), constrain=single.constrain)
    with pytest.raises(ValueError, match="`score` lives in coordinates that move"):
        ss.combine_observations(moving, jnp.ones((3, 2)), key=jax.random.key(0))
