"""Sets of which some parts are left out in training."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import Encoded
from scoresample.workflows._left_out import LeftOutParts

NUM = 4000


def left(share: float, present: Array) -> tuple[np.ndarray, np.ndarray]:
    """Which parts of many equal sets are left, (NUM, parts), and their values."""
    values = jnp.arange(1.0, 1 + present.size)[:, None] * jnp.ones(2) * present[:, None]
    one = Encoded(values, jnp.broadcast_to(present[:, None], values.shape))
    augment = LeftOutParts(jnp.asarray(share))
    _, found = jax.vmap(lambda key: augment(key, jnp.zeros(1), one))(jax.random.split(jax.random.key(0), NUM))
    assert found.present is not None
    np.testing.assert_array_equal(found.present[..., 0], found.present[..., 1])
    np.testing.assert_array_equal(found.values, values * found.present)
    return np.asarray(found.present[..., 0]), np.asarray(found.values)


def test_numbers_of_parts_are_uniform_and_parts_alike() -> None:
    present, _ = left(1.0, jnp.array([1.0, 1.0, 0.0, 1.0]))
    assert not present[:, 2].any()
    counts = np.bincount(present.sum(axis=1).astype(int), minlength=5)[1:4] / NUM
    # Standard errors are below .5 / sqrt(4000) = .008.
    np.testing.assert_allclose(counts, 1 / 3, atol=0.032)
    np.testing.assert_allclose(present.mean(axis=0)[[0, 1, 3]], 2 / 3, atol=0.032)


def test_half_of_the_sets_stay_whole() -> None:
    present, _ = left(0.5, jnp.ones(4))
    np.testing.assert_allclose((present.sum(axis=1) == 4).mean(), 0.5 + 0.5 / 4, atol=0.032)
    assert left(0.0, jnp.ones(4))[0].all()


def test_posteriors_of_fewer_parts_are_learned_too() -> None:
    """Of n looks at a normal parameter with noise of variance 1 the posterior's mean is n/(1+n) times theirs."""

    def observe(key: Array, theta: Array) -> Array:
        return theta + jax.random.normal(key, (4, 1))

    posterior = ss.fit_posterior(
        observe, dist.Normal(0.0, 1.0).expand([1]).to_event(1), key=jax.random.key(0), exchangeable=True,
        coordinates="prior", num_simulations=4000, num_epochs=60, width=64, depth=1, progress=False,
    )  # fmt: skip
    assert posterior.encoding.takes_fewer
    assert not posterior.encoding.has_gaps
    for number in (1, 2, 4):
        # As far apart as looks are: equal ones are nothing that the simulator makes.
        path = posterior.given(1.2 + jnp.array({1: [0.0], 2: [-0.7, 0.7], 4: [-0.9, 0.8, -0.4, 0.5]}[number])[:, None])
        draws = ss.sample(
            path, ss.ProbabilityFlowODE(num_steps=20), key=jax.random.key(1), num_samples=2000, num_chains=1,
            progress=False,
        )  # fmt: skip
        found = np.asarray(draws.position).ravel()
        exact = 1.2 * number / (1 + number), 1 / np.sqrt(1 + number)
        assert abs(found.mean() - exact[0]) < 0.25 * exact[1]
        assert abs(found.std() / exact[1] - 1) < 0.2
    # Single numbers were never missing, and neither was everything.
    with pytest.raises(ValueError, match="nothing was missing"):
        posterior.given(jnp.full((4, 1), jnp.nan))


def test_the_exact_density_of_fewer_parts_is_theirs_alone() -> None:
    """A part that is not there is no copy of one that is: nothing is broadcast over the model's plate."""

    def model() -> None:
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        with numpyro.plate("parts", 3):
            numpyro.sample("x", dist.Normal(theta, 0.5))

    posterior = ss.fit_posterior(
        model, observed="x", key=jax.random.key(0), exchangeable=True, coordinates="prior", num_simulations=300,
        num_epochs=2, width=16, depth=1, progress=False,
    )  # fmt: skip
    assert posterior.encoding.takes_fewer
    for parts in ([1.3], [1.3, 0.4], [1.3, 0.4, -0.2]):
        density = posterior.density(jnp.array(parts))
        place = jnp.array([0.0]), jnp.array([0.7])
        found = density.logdensity(place[1]) - density.logdensity(place[0])
        log_joint = [
            -0.5 * theta**2 - 0.5 * float(np.sum((np.array(parts) - theta) ** 2)) / 0.25 for theta in (0.0, 0.7)
        ]
        np.testing.assert_allclose(found, log_joint[1] - log_joint[0], rtol=1e-5)
