"""The NumPyro adapter against closed forms: the Jacobian, the sign, the sites, the data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from scipy import stats

from scoresample.scores import DensityScore, Position, from_numpyro

Y = jnp.array([0.4, -1.3, 2.2])


def half_normal(y: Array) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(0.5, scale), obs=y)


def gamma_exponential(y: Array) -> None:
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("y", dist.Exponential(rate), obs=y)


def beta_binomial(y: Array) -> None:
    success = numpyro.sample("success", dist.Beta(2.0, 5.0))
    numpyro.sample("y", dist.Binomial(10, success), obs=y)


def test_a_positive_site_carries_the_jacobian_of_the_logarithm() -> None:
    posterior = from_numpyro(half_normal, (Y,))
    for u in (-1.0, 0.0, 0.8):
        scale = np.exp(u)
        want = stats.halfnorm.logpdf(scale, scale=2.0) + u + np.sum(stats.norm.logpdf(np.asarray(Y), 0.5, scale))
        np.testing.assert_allclose(posterior.logdensity({"scale": jnp.asarray(u)}), want, rtol=1e-5)


def test_an_interval_carries_the_jacobian_of_the_logistic_function() -> None:
    posterior = from_numpyro(beta_binomial, (jnp.array([3, 4]),))
    for u in (-2.0, 0.3):
        p = 1 / (1 + np.exp(-u))
        want = stats.beta.logpdf(p, 2.0, 5.0) + np.log(p * (1 - p)) + np.sum(stats.binom.logpmf([3, 4], 10, p))
        np.testing.assert_allclose(posterior.logdensity({"success": jnp.asarray(u)}), want, rtol=1e-5)


def test_a_simplex_carries_the_jacobian_of_its_map() -> None:
    concentration = np.array([0.7, 2.0, 4.0])

    def model(y: Array) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.asarray(concentration)))
        numpyro.sample("y", dist.Multinomial(9, weights), obs=y)

    posterior = from_numpyro(model, (jnp.array([2, 3, 4]),))
    for u in (jnp.array([0.3, -1.0]), jnp.array([-2.0, 1.5])):
        weights = np.asarray(posterior.constrain({"weights": u})["weights"], np.float64)
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
        # The density of a simplex is with respect to all coordinates but the last.
        jacobian = jax.jacfwd(lambda u: posterior.constrain({"weights": u})["weights"][:-1])(u)
        volume = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
        weights = weights / weights.sum()
        want = stats.dirichlet.logpdf(weights, concentration) + volume + stats.multinomial.logpmf([2, 3, 4], 9, weights)
        np.testing.assert_allclose(posterior.logdensity({"weights": u}), want, rtol=1e-4)


def test_the_sign_is_that_of_the_log_density_on_a_skewed_model() -> None:
    """Given n exponential times, log(rate) has the density ``exp((3 + n) u - (2 + sum y) e^u)``."""
    y = jnp.array([0.2, 1.1, 0.4, 2.0])
    posterior = from_numpyro(gamma_exponential, (y,))
    shape, rate = 3.0 + 4, 2.0 + float(y.sum())
    for u in (-1.5, 0.0, 1.5):
        score = posterior({"rate": jnp.asarray(u)})["rate"]
        np.testing.assert_allclose(score, shape - rate * np.exp(u), rtol=1e-5)
    assert float(posterior({"rate": jnp.asarray(-3.0)})["rate"]) > 0
    assert float(posterior({"rate": jnp.asarray(3.0)})["rate"]) < 0
    # The value minus the normalised posterior is the log evidence, the same everywhere.
    values = [float(posterior.logdensity({"rate": jnp.asarray(u)})) for u in (-1.0, 1.0)]
    normalised = [stats.gamma.logpdf(np.exp(u), shape, scale=1 / rate) + u for u in (-1.0, 1.0)]
    np.testing.assert_allclose(np.diff(values), np.diff(normalised), rtol=1e-5)


def test_constrained_and_deterministic_sites_are_shown() -> None:
    def model(y: Array) -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        with numpyro.plate("groups", 3):
            effect: Any = numpyro.sample("effect", dist.Normal(0.0, scale))
        total = numpyro.deterministic("total", scale * effect.sum())
        numpyro.sample("y", dist.Normal(total, 1.0), obs=y)

    posterior = from_numpyro(model, (Y,))
    position = {"effect": jnp.array([1.0, -2.0, 0.5]), "scale": jnp.log(jnp.asarray(3.0))}
    assert jax.tree.structure(posterior.structure) == jax.tree.structure(position)
    sites = posterior.constrain(position)
    assert sorted(sites) == ["effect", "scale", "total"]
    np.testing.assert_allclose(sites["scale"], 3.0, rtol=1e-6)
    np.testing.assert_allclose(sites["total"], -1.5, rtol=1e-6)
    np.testing.assert_allclose(sites["effect"], position["effect"])


def test_a_support_may_depend_on_another_site() -> None:
    def model(y: Array) -> None:
        upper = numpyro.sample("upper", dist.Exponential(1.0))
        inside = numpyro.sample("inside", dist.Uniform(0.0, upper))
        numpyro.sample("y", dist.Normal(inside, 1.0), obs=y)

    posterior = from_numpyro(model, (Y,))
    for u, v in ((0.5, -1.0), (-1.0, 2.0)):
        position = {"inside": jnp.asarray(v), "upper": jnp.asarray(u)}
        upper, share = np.exp(u), 1 / (1 + np.exp(-v))
        np.testing.assert_allclose(posterior.constrain(position)["inside"], upper * share, rtol=1e-5)
        # The uniform density 1/upper and the Jacobian upper * share * (1 - share) cancel but for the share.
        want = -upper + u + np.log(share * (1 - share)) + np.sum(stats.norm.logpdf(np.asarray(Y), upper * share, 1))
        np.testing.assert_allclose(posterior.logdensity(position), want, rtol=1e-5)


def test_starts_are_finite_and_differ() -> None:
    posterior = from_numpyro(half_normal, (Y,))
    assert posterior.init_position is not None
    starts = jax.vmap(posterior.init_position)(jax.random.split(jax.random.key(0), 20))
    assert starts["scale"].shape == (20,)
    assert len(np.unique(starts["scale"])) == 20
    assert np.abs(starts["scale"]).max() <= 2.0
    assert np.isfinite(jax.vmap(posterior)(starts)["scale"]).all()


def test_an_initialisation_strategy_is_used() -> None:
    from numpyro.infer import init_to_value

    strategy = init_to_value(values={"scale": jnp.asarray(4.0)})
    posterior = from_numpyro(half_normal, (Y,), init_strategy=strategy)
    assert posterior.init_position is not None
    np.testing.assert_allclose(posterior.init_position(jax.random.key(0))["scale"], np.log(4.0), rtol=1e-6)


def test_new_data_of_the_same_shape_do_not_trace_again() -> None:
    traces = []

    @eqx.filter_jit
    def evaluate(score: DensityScore, position: Position) -> tuple[Array, dict[str, Array]]:
        traces.append(1)
        return score.logdensity(position), score.constrain(position)

    position = {"scale": jnp.asarray(0.2)}
    values = [evaluate(from_numpyro(half_normal, (data,)), position)[0] for data in (Y, 2 * Y, np.asarray(3 * Y))]
    assert len(traces) == 1
    assert len({float(value) for value in values}) == 3
    evaluate(from_numpyro(half_normal, (Y[:2],)), position)
    assert len(traces) == 2


def test_data_may_come_by_name() -> None:
    by_name = from_numpyro(half_normal, model_kwargs={"y": Y})
    position = {"scale": jnp.asarray(0.2)}
    np.testing.assert_allclose(by_name.logdensity(position), from_numpyro(half_normal, (Y,)).logdensity(position))


def branching(y: Array) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(2.0 if y.sum() > 0 else 1.0))
    numpyro.sample("y", dist.Normal(0.5, scale), obs=y)


def test_models_that_branch_on_data_need_static_data() -> None:
    with pytest.raises(ValueError, match=r"depends on the values of its data.*`static_data=True`"):
        from_numpyro(branching, (Y,))
    posterior = from_numpyro(branching, (Y,), static_data=True)
    position = {"scale": jnp.asarray(0.2)}
    np.testing.assert_allclose(
        eqx.filter_jit(posterior.logdensity)(position), from_numpyro(half_normal, (Y,)).logdensity(position), rtol=1e-5
    )
    assert jax.tree.leaves(eqx.filter((posterior.fn, posterior.args), eqx.is_array)) == []
    assert posterior.init_position is not None
    assert np.isfinite(posterior.init_position(jax.random.key(0))["scale"])


def discrete(y: Array) -> None:
    with numpyro.plate("points", 3):
        group = numpyro.sample("group", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(2.0 * group, 1.0), obs=y)


def optional_data(y: Array | None = None) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


def all_observed(y: Array) -> None:
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (discrete, (Y,), r"\['group'\] are discrete latent variables.*MixtureSameFamily"),
        (optional_data, (), r"no site is observed.*`model_args`.*allow_prior=True"),
        (all_observed, (Y,), "no latent site"),
        (half_normal, (Y.at[1].set(jnp.nan),), r"1 of the 3 observations of site 'y' are NaN.*mask"),
    ],
)
def test_models_without_a_posterior_are_refused(
    model: Callable[..., None], data: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=f"`model`.*{message}"):
        from_numpyro(model, data)


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`model` must be a NumPyro model.*got int"):
        from_numpyro(3)  # pyright: ignore[reportArgumentType]


def test_a_prior_may_be_asked_for() -> None:
    def prior() -> None:
        numpyro.sample("scale", dist.HalfNormal(2.0))

    score = from_numpyro(prior, allow_prior=True)
    want = stats.halfnorm.logpdf(np.exp(0.4), scale=2.0) + 0.4
    np.testing.assert_allclose(score.logdensity({"scale": jnp.asarray(0.4)}), want, rtol=1e-5)


def test_masked_observations_do_not_count() -> None:
    def model(y: Array, seen: Array) -> None:
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(0.5, scale), obs=y)

    masked = from_numpyro(model, (Y.at[1].set(100.0), jnp.array([True, False, True])))
    position = {"scale": jnp.asarray(0.2)}
    want = from_numpyro(half_normal, (Y[jnp.array([0, 2])],)).logdensity(position)
    np.testing.assert_allclose(masked.logdensity(position), want, rtol=1e-5)


def test_float64_data_give_float64_scores() -> None:
    with jax.enable_x64(True):
        posterior = from_numpyro(half_normal, (jnp.array([0.4, -1.3, 2.2]),))
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(posterior.structure))
        position: Any = {"scale": jnp.asarray(0.3)}
        assert ravel_pytree(posterior(position))[0].dtype == jnp.float64


def test_improper_flat_priors_have_a_score() -> None:
    """A flat prior has no draws of its own; the posterior has."""

    def model(y: Any) -> None:
        mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), event_shape=(2,)))
        numpyro.sample("y", dist.Normal(mean, 2.0), obs=y)

    posterior = from_numpyro(model, (jnp.array([1.0, -3.0]),))
    np.testing.assert_allclose(posterior({"mean": jnp.zeros(2)})["mean"], [0.25, -0.75], rtol=1e-6)
    assert posterior.init_position is not None
    assert np.isfinite(posterior.init_position(jax.random.key(0))["mean"]).all()
