"""Posteriors from simulators."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import Encoded, SetEncoder, VectorEncoder
from scoresample.workflows._encoding import make_encoding

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {"num_simulations": 2000, "num_epochs": 15, "width": 32, "depth": 2, "progress": False}


def gaussian_model(size: int = 3) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([size]).to_event(1))
    numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1))


def test_a_linear_model_is_learned_by_its_regression() -> None:
    posterior = ss.fit_posterior(gaussian_model, observed="x", key=KEY, coordinates="regression", **SMALL)
    x = np.array([1.0, -0.5, 2.0])
    draws = ss.sample(posterior.given(x), ss.WithDensity(), key=KEY, num_samples=1000, num_chains=1)
    found = np.asarray(draws.position[0])
    # The posterior is N(.8 x, .2); a regression on 1,800 points is off by about 1%.
    np.testing.assert_allclose(found.mean(axis=0), 0.8 * x, atol=0.08)
    np.testing.assert_allclose(found.std(axis=0), np.sqrt(0.2), rtol=0.1)
    certificate = ss.certify(draws, posterior.density(x), key=KEY)
    assert certificate.verdict in ("use", "use weighted"), str(certificate)
    # The evidence is N(x; 0, 1.25).
    evidence = np.sum(-0.5 * x**2 / 1.25 - 0.5 * np.log(2 * np.pi * 1.25))
    assert abs(certificate.log_evidence - evidence) < 5 * certificate.log_evidence_se + 1e-3


def test_every_particle_may_have_an_observation_of_its_own() -> None:
    posterior = ss.fit_posterior(gaussian_model, observed="x", key=KEY, coordinates="regression", **SMALL)
    truths, observations = posterior.simulate(jax.random.key(7), 600)
    draws = ss.sample(posterior.given(observations), key=KEY, num_samples=600, num_chains=1)
    # A draw and the truth are exchangeable given the observation.
    apart = np.asarray(draws.position[0] - truths)
    np.testing.assert_allclose(apart.mean(axis=0), 0, atol=5 * np.sqrt(0.4 / 600))
    np.testing.assert_allclose(apart.std(axis=0), np.sqrt(0.4), rtol=5 / np.sqrt(1200))


def uniform_observe(key: Array, theta: Array) -> Array:
    return theta + 0.3 * jax.random.normal(key, theta.shape)


UNIFORM = dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)


@pytest.mark.parametrize("coordinates", ["best", "prior"])
def test_draws_never_leave_the_support_of_the_prior(coordinates: Any) -> None:
    posterior = ss.fit_posterior(uniform_observe, UNIFORM, key=KEY, coordinates=coordinates, **SMALL)
    draws = ss.sample(posterior.given(jnp.array([0.95, -1.4])), key=KEY, num_samples=500, num_chains=1)
    theta = np.asarray(jax.vmap(draws.constrain)(draws.position[0])["theta"])
    assert theta.min() >= -1
    assert theta.max() <= 1
    assert theta[:, 1].mean() < -0.6


def test_fresh_simulations_every_epoch() -> None:
    settings: dict[str, Any] = SMALL | {"num_simulations": None, "num_epochs": 2}
    posterior = ss.fit_posterior(uniform_observe, UNIFORM, key=KEY, coordinates="regression", **settings)
    assert posterior.record.num_train > 15_000
    assert posterior.record.train_loss[-1] < 1.05


def test_the_gradient_of_the_likelihood_teaches_what_simulations_do_not() -> None:
    def observe(key: Array, theta: Array) -> Array:
        return theta**3 + 0.05 * jax.random.normal(key, theta.shape)

    def log_likelihood(theta: Array, x: Array) -> Array:
        return -0.5 * jnp.sum(((x - theta**3) / 0.05) ** 2)

    distances = []
    for informed in (False, True):
        posterior = ss.fit_posterior(
            observe, UNIFORM, log_likelihood=log_likelihood, informed=informed, coordinates="prior", key=KEY, **SMALL
        )
        for x in (jnp.array([0.5, 0.03]), jnp.array([-0.2, 0.6])):
            draws = ss.sample(posterior.given(x), ss.WithDensity(), key=KEY, num_samples=2000, num_chains=1)
            distances.append(ss.certify(draws, posterior.density(x), key=KEY, polish=False).total_variation)
    # Each has a standard error of 0.008.
    assert sum(distances[2:]) < sum(distances[:2]) - 0.06
    with pytest.raises(ValueError, match="`informed` needs the density"):
        ss.fit_posterior(observe, UNIFORM, informed=True, key=KEY, **SMALL)


def gappy(key: Array, theta: Array) -> Array:
    """Between one and six measurements of two means; the others are missing."""
    key_noise, key_number = jax.random.split(key)
    parts = theta + 0.5 * jax.random.normal(key_noise, (6, 2))
    number = jax.random.randint(key_number, (), 1, 7)
    return jnp.where(jnp.arange(6)[:, None] < number, parts, jnp.nan)


def test_observations_of_any_length() -> None:
    prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    settings: dict[str, Any] = SMALL | {"num_simulations": 4000, "num_epochs": 30, "coordinates": "regression"}
    posterior = ss.fit_posterior(gappy, prior, exchangeable=True, key=KEY, **settings)
    part = jnp.array([1.0, -1.0])
    apart = 0.5 * (-1.0) ** jnp.arange(6)[:, None]  # as far as measurements are
    spreads = []
    for number in (1, 6):
        x = jnp.where(jnp.arange(6)[:, None] < number, part + (0 if number == 1 else apart), jnp.nan)
        draws = ss.sample(posterior.given(x), key=KEY, num_samples=1000, num_chains=1)
        found = np.asarray(draws.position[0])
        exact = 1 / (1 + 4 * number)
        np.testing.assert_allclose(found.mean(axis=0), 4 * number * exact * np.array([1.0, -1.0]), atol=0.15)
        spreads += (found.std(axis=0) / np.sqrt(exact)).tolist()
    # A network that did not see the number would be off by 5^(1/4), about 1.5, for one of them.
    assert 1 / 1.4 < min(spreads)
    assert max(spreads) < 1.4
    shuffled = jnp.stack([part, jnp.full(2, jnp.nan), 2 * part, *([jnp.full(2, jnp.nan)] * 3)])
    paths = [posterior.given(rows) for rows in (shuffled, shuffled[::-1])]
    z = jnp.array([0.3, 0.2])
    np.testing.assert_allclose(paths[0](z, 0.5), paths[1](z, 0.5), rtol=1e-4, atol=1e-5)


def test_missing_numbers_must_have_been_missing_before() -> None:
    settings: dict[str, Any] = SMALL | {"num_epochs": 1}
    posterior = ss.fit_posterior(uniform_observe, UNIFORM, key=KEY, coordinates="prior", **settings)
    with pytest.raises(ValueError, match="nothing was missing"):
        posterior.given(jnp.array([0.1, jnp.nan]))
    with pytest.raises(ValueError, match="must have arrays of shape"):
        posterior.given(jnp.zeros((1, 3)))


def test_encodings_are_undone() -> None:
    structure = {"a": jax.ShapeDtypeStruct((4, 2), jnp.float32), "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    rng = np.random.default_rng(0)
    seen = {
        "a": jnp.asarray(rng.standard_cauchy((500, 4, 2)), jnp.float32),
        "b": jnp.asarray(rng.normal(5.0, 3.0, (500, 4)), jnp.float32),
    }
    seen["b"] = seen["b"].at[:, 3].set(jnp.nan)
    for exchangeable in (False, True):
        encoding = make_encoding(seen, structure, exchangeable=exchangeable)
        encoded = encoding(seen)
        assert encoded.present is not None
        assert float(jnp.abs(encoded.values).max()) < 80
        back = encoding.decode(jax.tree.map(lambda x: x[7], encoded))
        for name, values in back.items():
            np.testing.assert_allclose(values, seen[name][7], rtol=2e-4, atol=2e-4)


def test_set_encoders_see_neither_order_nor_empty_parts() -> None:
    encoder = SetEncoder(3, 16, 8, has_gaps=True, key=KEY)
    values = jax.random.normal(jax.random.key(1), (5, 3))
    present = jnp.ones((5, 3)).at[3:].set(0.0)
    whole = encoder(Encoded(values * present, present))
    order = jnp.array([2, 4, 0, 1, 3])
    np.testing.assert_allclose(whole, encoder(Encoded((values * present)[order], present[order])), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole, encoder(Encoded(values[:3], present[:3])), rtol=1e-4, atol=1e-5)
    assert VectorEncoder(30, 16, 8, key=KEY)(Encoded(values, present)).shape == (8,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"coordinates": "posterior"}, "`coordinates` must be one of"),
        ({"num_simulations": 10}, "`num_simulations` must be a whole number of at least 100"),
        ({"num_epochs": 0}, "`num_epochs`"),
        ({"exchangeable": True, "model": lambda key, theta: theta.sum()}, "need one first axis of parts"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_settings_that_cannot_be_used(settings: dict[str, Any], words: str) -> None:
    settings = {"progress": False, **settings}
    model = settings.pop("model", uniform_observe)
    with pytest.raises(ValueError, match=words):
        ss.fit_posterior(model, UNIFORM, key=KEY, **settings)


def test_many_observations_from_a_score_trained_on_one() -> None:
    settings: dict[str, Any] = SMALL | {"num_simulations": 4000, "num_epochs": 30, "coordinates": "prior"}
    posterior = ss.fit_posterior(gaussian_model, observed="x", model_args=(1,), key=KEY, **settings)
    x = 1.0 + 0.5 * jax.random.normal(jax.random.key(3), (8, 1))
    draws = ss.sample(posterior.given_all(x, key=KEY), key=KEY, num_samples=1000, num_chains=1)
    found = np.asarray(jax.vmap(draws.constrain)(draws.position[0])["mean"])
    # Eight measurements of variance 1/4 each, of a mean with a standard normal prior.
    variance = 1 / (1 + 4 * 8)
    assert abs(found.mean() - variance * 4 * float(x.sum())) < 0.5 * np.sqrt(variance)
    assert 0.8 < found.std() / np.sqrt(variance) < 1.25


def test_observations_are_not_combined_in_coordinates_that_move() -> None:
    settings: dict[str, Any] = SMALL | {"num_epochs": 1, "coordinates": "regression"}
    posterior = ss.fit_posterior(gaussian_model, observed="x", key=KEY, **settings)
    with pytest.raises(ValueError, match='coordinates="prior"'):
        posterior.given_all(jnp.zeros((2, 3)), key=KEY)


def test_a_linear_model_is_calibrated_and_a_shifted_one_is_not() -> None:
    posterior = ss.fit_posterior(gaussian_model, observed="x", key=KEY, coordinates="regression", **SMALL)
    settings: dict[str, Any] = {"num_simulations": 400, "num_draws": 50, "key": jax.random.key(4)}
    found = ss.calibrate(posterior, **settings)
    assert found.passed, str(found)
    assert found.sbc.names == ("mean[0]", "mean[1]", "mean[2]")

    def shifted(key: Array, num: int) -> tuple[Array, Array]:
        positions, observations = posterior.simulate(key, num)
        return positions + 0.3, observations

    assert not ss.calibrate(posterior, shifted, **settings).passed
