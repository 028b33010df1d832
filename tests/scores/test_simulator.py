"""Simulators: coordinates in which priors are standard normal, joint draws, exact posteriors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from scipy import stats

import scoresample as ss
from scoresample.scores._normal_sites import coordinate_shape, site_map

QUANTILES: dict[str, tuple[Any, Any]] = {
    "normal": (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
    "uniform": (dist.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "exponential": (dist.Exponential(2.0), stats.expon(scale=0.5)),
    "half normal": (dist.HalfNormal(2.0), stats.halfnorm(scale=2)),
    "half Cauchy": (dist.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
    "Cauchy": (dist.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    "Laplace": (dist.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    "logistic": (dist.Logistic(1.0, 2.0), stats.logistic(1, 2)),
    "log-normal": (dist.LogNormal(0.3, 0.5), stats.lognorm(0.5, scale=np.exp(0.3))),
    "Gumbel, by its own quantiles": (dist.Gumbel(0.0, 1.0), stats.gumbel_r()),
}


@pytest.mark.parametrize("name", QUANTILES)
def test_normal_coordinates_are_quantiles_in_both_tails(name: str) -> None:
    distribution, exact = QUANTILES[name]
    u = np.array([-5.0, -3.0, -1.0, -0.2, 0.0, 0.5, 2.0, 4.0])
    mapped = site_map(distribution)
    assert mapped.log_volume is None
    found = mapped.to_value(jnp.asarray(u, jnp.float32))
    expected = np.where(u < 0, exact.ppf(stats.norm.cdf(u)), exact.isf(stats.norm.sf(u)))
    # Of quantile functions that take a share, the upper tail loses digits: shares near 1 have few.
    np.testing.assert_allclose(found, expected, rtol=2e-4 if "own" in name else 3e-5, atol=1e-6)
    # dx/du = phi(u)/p(x).
    slope = jax.vmap(jax.grad(mapped.to_value))(jnp.asarray(u[1:], jnp.float32))
    np.testing.assert_allclose(slope, stats.norm.pdf(u[1:]) / exact.pdf(expected[1:]), rtol=1e-2)


def test_structured_sites_have_coordinates_of_their_own_shape() -> None:
    covariance = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    normal = dist.MultivariateNormal(jnp.ones(2), covariance)
    values = jax.vmap(site_map(normal).to_value)(jax.random.normal(jax.random.key(0), (20_000, 2)))
    np.testing.assert_allclose(np.cov(values.T), covariance, atol=0.06)
    assert coordinate_shape(dist.Normal(jnp.zeros(2), 1.0).expand([4, 2]).to_event(2)) == (4, 2)
    assert coordinate_shape(dist.Dirichlet(jnp.ones(3))) == (2,)
    assert site_map(dist.Gamma(2.0, 1.0)).log_volume is not None


def schools(spread: Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", spread.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.deterministic("shrinkage", 1 / (1 + (tau / spread) ** 2))
        numpyro.sample("y", dist.Normal(theta, spread))


SPREAD = jnp.array([15.0, 10.0, 16.0])


def normal(x: Any, mean: Any, deviation: Any) -> np.ndarray:
    """Log densities of normal laws."""
    x, mean, deviation = (np.asarray(value, np.float64) for value in (x, mean, deviation))
    return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)


def test_a_hierarchy_is_told_apart_from_its_scale() -> None:
    made = ss.simulator(schools, observed="y", model_args=(SPREAD,))
    assert made.is_normal
    u = jnp.array([0.5, 1.0, -1.0, 0.3, 2.0])
    named = made.constrain(u)
    tau = 5 * stats.halfcauchy.ppf(stats.norm.cdf(1.0))
    np.testing.assert_allclose(named["mu"], 2.5, rtol=1e-6)
    np.testing.assert_allclose(named["tau"], tau, rtol=1e-5)
    np.testing.assert_allclose(named["theta"], 2.5 + tau * np.array([-1.0, 0.3, 2.0]), rtol=1e-5)
    assert named["shrinkage"].shape == (3,)
    y = jnp.array([3.0, -2.0, 8.0])
    expected = normal(u, 0.0, 1.0).sum() + normal(y, named["theta"], SPREAD).sum()
    np.testing.assert_allclose(made.posterior_density(y).logdensity(u), expected, rtol=1e-5)


def test_missing_observations_are_left_out_of_the_likelihood() -> None:
    made = ss.simulator(schools, observed="y", model_args=(SPREAD,))
    u, y = jnp.array([0.5, 1.0, -1.0, 0.3, 2.0]), jnp.array([3.0, jnp.nan, 8.0])
    theta = np.asarray(made.constrain(u)["theta"])
    expected = normal(np.array([3.0, 0.0, 8.0]), theta, SPREAD)[[0, 2]].sum()
    np.testing.assert_allclose(made.log_likelihood(u, y), expected, rtol=1e-5)
    assert bool(jnp.isfinite(made.posterior_density(y)(u)).all())


def pairs() -> None:
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("parts", 3):
        numpyro.sample("apart", dist.Normal(mean, 0.5).to_event(1))
        numpyro.sample("joint", dist.MultivariateNormal(mean, jnp.array([[1.0, 0.4], [0.4, 1.0]])))


def test_independent_numbers_go_missing_one_by_one_and_joint_ones_together() -> None:
    made = ss.simulator(pairs, observed=["apart", "joint"])
    u, seen = made.simulate(jax.random.key(0), 1)
    u, seen = u[0], jax.tree.map(lambda x: x[0], seen)
    whole = made.log_likelihood(u, seen)
    one = {**seen, "apart": seen["apart"].at[1, 0].set(jnp.nan)}
    lost = normal(seen["apart"][1, 0], u[0], 0.5)
    np.testing.assert_allclose(whole - made.log_likelihood(u, one), lost, rtol=1e-4, atol=1e-5)
    part = {**seen, "joint": seen["joint"].at[2].set(jnp.nan)}
    lost = dist.MultivariateNormal(u, jnp.array([[1.0, 0.4], [0.4, 1.0]])).log_prob(seen["joint"][2])
    np.testing.assert_allclose(whole - made.log_likelihood(u, part), lost, rtol=1e-4, atol=1e-5)
    half = {**seen, "joint": seen["joint"].at[2, 0].set(jnp.nan)}
    assert bool(jnp.isnan(made.log_likelihood(u, half)))


def late() -> None:
    start: Any = numpyro.sample("start", dist.Normal(0.0, 1.0))
    with numpyro.plate("times", 2):
        law: Any = dist.TransformedDistribution(
            dist.LogNormal(0.0, 1.0).expand([2]), dist.transforms.AffineTransform(start, 1.0)
        )
        numpyro.sample("x", law)


def test_missing_numbers_have_no_derivatives_either() -> None:
    """Of a law whose support moves with the parameters."""
    made = ss.simulator(late, observed="x")
    u, x = jnp.ones(1), jnp.array([2.5, jnp.nan])
    value, slope = jax.value_and_grad(made.log_likelihood)(u, x)
    whole = stats.lognorm.logpdf(1.5, 1)
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    np.testing.assert_allclose(slope[0], (1 + np.log(1.5)) / 1.5, rtol=1e-5)


def kinds() -> None:
    tilt: Any = numpyro.sample("tilt", dist.Normal(0.0, 1.0))
    law: Any = dist.Categorical(logits=tilt * jnp.arange(3.0))
    with numpyro.plate("items", 4):
        numpyro.sample("kind", law)


def test_categories_have_a_likelihood_and_may_be_missing() -> None:
    made = ss.simulator(kinds, observed="kind")
    u = jnp.array([0.7])
    logs = np.log(np.exp(0.7 * np.arange(3)) / np.exp(0.7 * np.arange(3)).sum())
    # Numbers that went through a network's encoding are off by rounding.
    seen = jnp.array([0.0, 1.9999999, jnp.nan, 1.0000001])
    np.testing.assert_allclose(made.log_likelihood(u, seen), logs[[0, 2, 1]].sum(), rtol=1e-5)


STICKS = dist.TransformedDistribution(
    dist.Normal(0.0, 1.0).expand([3, 2]).to_event(1), dist.transforms.StickBreakingTransform()
)


@pytest.mark.parametrize(("law", "shape"), [(dist.ZeroSumNormal(1.0, (4,)), (3,)), (STICKS, (3, 2))])
def test_transforms_that_change_shapes_have_coordinates_of_their_base(law: Any, shape: tuple[int, ...]) -> None:
    assert coordinate_shape(law) == shape
    u = jax.random.normal(jax.random.key(0), shape)
    value = site_map(law).to_value(u)
    assert value.shape == law.shape()
    np.testing.assert_allclose(value.sum(axis=-1), 0.0 if shape == (3,) else 1.0, atol=1e-5)


def with_factor() -> None:
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.factor("more", -(a**2))
    numpyro.sample("y", dist.Normal(a, 1.0))


def with_subsample() -> None:
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", 10, subsample_size=3):
        numpyro.sample("y", dist.Normal(a, 1.0))


@pytest.mark.parametrize(("model", "words"), [(with_factor, "'more'.*factors"), (with_subsample, "subsample")])
def test_what_simulations_cannot_follow_is_refused(model: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.simulator(model, observed="y")


def test_priors_at_the_bounds_of_their_support_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'theta'.*float64"):
        ss.simulator(lambda key, theta: theta, dist.Gamma(0.02, 1.0))


def loose() -> None:
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    numpyro.sample("counts", dist.Multinomial(20, shares))
    numpyro.sample("x", dist.Normal(rate, 1.0).expand([4]).to_event(1))


def test_sites_without_quantiles_are_standardised_and_keep_their_density() -> None:
    made = ss.simulator(loose, observed=["counts", "x"])
    assert not made.is_normal
    u, seen = made.simulate(jax.random.key(0), 4000)
    assert jax.tree.map(jnp.shape, seen) == {"counts": (4000, 3), "x": (4000, 4)}
    np.testing.assert_allclose(u.mean(axis=0), 0, atol=0.12)
    np.testing.assert_allclose(u.std(axis=0), 1, atol=0.08)
    # A density integrates to one, so its score has mean zero and E[u s(u)] = -1 under it (Stein's identity).
    scores = jax.vmap(jax.grad(made.log_prior))(u)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=5 * scores.std(axis=0).max() / np.sqrt(4000))
    products = u * scores
    errors = products.std(axis=0) / np.sqrt(4000)
    assert bool((jnp.abs(products.mean(axis=0) + 1) < 5 * errors).all())


def test_functions_with_priors_by_name_draw_jointly() -> None:
    def observe(key: Array, parameters: dict[str, Array]) -> Array:
        return parameters["scale"] * jax.random.normal(key, (2,)) + parameters["mean"]

    prior = {"mean": dist.Uniform(-1.0, 1.0), "scale": dist.HalfNormal(1.0)}
    made = ss.simulator(observe, prior)
    u, x = made.simulate(jax.random.key(0), 3000)
    named = jax.vmap(made.constrain)(u)
    assert float(named["mean"].min()) >= -1
    assert float(named["scale"].min()) > 0
    assert stats.kstest(np.asarray(named["mean"]), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    z = (x - named["mean"][:, None]) / named["scale"][:, None]
    assert stats.kstest(np.asarray(z).ravel(), stats.norm.cdf).pvalue > 1e-3
    assert not made.has_likelihood()
    with pytest.raises(ValueError, match="no likelihood"):
        made.posterior_density(x[0])


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (schools, {}, "either a `prior`"),
        (schools, {"observed": "z", "model_args": (SPREAD,)}, "has the sites"),
        (lambda key, theta: theta, {"prior": dist.Poisson(1.0)}, "discrete"),
        (lambda key, theta: {}, {"prior": dist.Normal(0.0, 1.0)}, "must return an observation"),
        (lambda key, theta: theta, {"prior": dist.Normal(0.0, 1.0), "model_args": (1.0,)}, "NumPyro models"),
    ],
)
def test_what_is_no_simulator_is_refused(model: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ss.simulator(model, **settings)


def test_a_prior_must_be_a_distribution() -> None:
    with pytest.raises(TypeError, match="`prior` must be a NumPyro distribution"):
        ss.simulator(lambda key, theta: theta, "normal")
