"""The tasks of the benchmark of simulation-based inference, as simulators with likelihoods.

Source: Lueckmann, Boelts, Greenberg, Goncalves and Macke 2021, arXiv 2101.04653, appendix T. Observations and reference
draws come from the package `sbibm-jax`, and so does the design of the generalised linear model.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

import scoresample as ss

_DAYS, _EVERY, _SUBSTEPS = 160, 17, 2
"""Of the epidemic: its length, the days between two observations, and steps of the solver in a day."""


def of_package(task: str) -> Any:
    """A task of the package `sbibm-jax`, with its observations and reference draws."""
    return importlib.import_module("sbibm_jax.tasks").get_task(task)


class Task(NamedTuple):
    """A task.

    Attributes:
        prior: the prior of its parameters, an array.
        observe: (key, parameters) -> observation.
        log_likelihood: (parameters, observation) -> log density, up to a constant for each observation; exchangeable
            parts that are NaN are left out.
        shape: shape of one observation; a leading axis of exchangeable parts where `exchangeable`.
        exchangeable: whether the first axis of an observation holds parts that are independent and alike.
    """

    prior: dist.Distribution
    observe: Callable[[Array, Array], Array]
    log_likelihood: Callable[[Array, Array], Array]
    shape: tuple[int, ...]
    exchangeable: bool = False

    def simulator(self, *, informed: bool = True) -> Any:
        """The simulator, with its likelihood or without."""
        return ss.simulator(self.observe, self.prior, log_likelihood=self.log_likelihood if informed else None)


def _uniform(bound: float, size: int) -> dist.Distribution:
    return dist.Uniform(-bound, bound).expand([size]).to_event(1)


def two_moons() -> Task:
    """A crescent in observations for two mirrored crescents of parameters."""

    def turned(theta: Array) -> Array:
        return jnp.stack([-jnp.abs(theta[0] + theta[1]), theta[1] - theta[0]]) / np.sqrt(2.0).item()

    def observe(key: Array, theta: Array) -> Array:
        key_angle, key_radius = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (), minval=-np.pi / 2, maxval=np.pi / 2)
        radius = 0.1 + 0.01 * jax.random.normal(key_radius)
        return jnp.stack([radius * jnp.cos(angle) + 0.25, radius * jnp.sin(angle)]) + turned(theta)

    def log_likelihood(theta: Array, x: Array) -> Array:
        across, along = x - turned(theta) - jnp.array([0.25, 0.0])
        square = across**2 + along**2
        radius = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        # The angle is uniform on a half circle, so the density in the plane has 1 over the radius.
        density = -0.5 * ((radius - 0.1) / 0.01) ** 2 - jnp.log(radius)
        return jnp.where((across > 0) & (square > 0), density, -jnp.inf)

    return Task(_uniform(1.0, 2), observe, log_likelihood, (2,))


def gaussian_mixture() -> Task:
    """A wide and a narrow normal law around the parameters."""
    scales = jnp.array([1.0, 0.1])

    def observe(key: Array, theta: Array) -> Array:
        key_which, key_noise = jax.random.split(key)
        scale = jnp.where(jax.random.bernoulli(key_which), scales[0], scales[1])
        return theta + scale * jax.random.normal(key_noise, (2,))

    def log_likelihood(theta: Array, x: Array) -> Array:
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - theta) ** 2) / scales**2 - 2 * jnp.log(scales))

    return Task(_uniform(10.0, 2), observe, log_likelihood, (2,))


def _gaussian(prior: dist.Distribution) -> Task:
    spread = np.sqrt(0.1).item()

    def observe(key: Array, theta: Array) -> Array:
        return theta + spread * jax.random.normal(key, theta.shape)

    def log_likelihood(theta: Array, x: Array) -> Array:
        return -0.5 * jnp.sum(((x - theta) / spread) ** 2)

    return Task(prior, observe, log_likelihood, (10,))


def gaussian_linear() -> Task:
    """Ten means under a normal prior."""
    return _gaussian(dist.Normal(0.0, np.sqrt(0.1).item()).expand([10]).to_event(1))


def gaussian_linear_uniform() -> Task:
    """Ten means under a uniform prior."""
    return _gaussian(_uniform(1.0, 10))


def bernoulli_glm() -> Task:
    """A generalised linear model of spikes, seen through its sufficient statistics."""
    package = of_package("bernoulli_glm")
    design = jnp.asarray(package._load_design_matrix())

    def observe(key: Array, theta: Array) -> Array:
        spikes = jax.random.bernoulli(key, jax.nn.sigmoid(design @ theta)).astype(design.dtype)
        return statistics.T @ spikes

    # The statistics are a linear map of the spikes, and theta enters through design.T @ spikes alone.
    statistics = _spike_statistics(package)
    mixing = jnp.asarray(np.linalg.lstsq(np.asarray(statistics), np.asarray(design), rcond=None)[0])

    def log_likelihood(theta: Array, x: Array) -> Array:
        return x @ (mixing @ theta) - jnp.sum(jax.nn.softplus(design @ theta))

    return Task(package.prior_dist, observe, log_likelihood, (10,))


def _spike_statistics(package: Any) -> Array:
    """The matrix of the statistics: the number of spikes, and nine lags of the mean stimulus before them."""
    stimulus = np.asarray(package._load_stimulus_I())
    num = stimulus.size
    columns = [np.ones(num)]
    for lag in range(8, 17):
        # The padded spikes, moved by `lag`, against the stimulus.
        shift = lag - 8
        columns.append(np.concatenate([np.zeros(shift), stimulus[: num - shift]]))
    return jnp.asarray(np.stack(columns, axis=1), jnp.float32)


def slcp() -> Task:
    """Four points of a normal law whose moments are nonlinear functions of five parameters."""

    def moments(theta: Array) -> tuple[Array, Array, Array, Array]:
        first, second = theta[2] ** 2, theta[3] ** 2
        return theta[:2], first, second, jnp.tanh(theta[4])

    def observe(key: Array, theta: Array) -> Array:
        mean, first, second, correlation = moments(theta)
        noise = jax.random.normal(key, (4, 2))
        across = correlation * noise[:, 0] + jnp.sqrt(1 - correlation**2) * noise[:, 1]
        return mean + jnp.stack([first * noise[:, 0], second * across], axis=1)

    def log_likelihood(theta: Array, x: Array) -> Array:
        mean, first, second, correlation = moments(theta)
        covariance = jnp.array(
            [[first**2 + 1e-6, correlation * first * second], [correlation * first * second, second**2 + 1e-6]]
        )
        seen = jnp.isfinite(x).all(axis=-1)
        parts = dist.MultivariateNormal(mean, covariance).log_prob(jnp.where(seen[:, None], x, 0.0))
        return jnp.where(seen, parts, 0.0).sum()

    return Task(_uniform(3.0, 5), observe, log_likelihood, (4, 2), exchangeable=True)


def sir() -> Task:
    """An epidemic: the share of infected people, counted in samples of a thousand on ten days."""
    population, total = 1e6, 1000

    def infected(theta: Array) -> Array:
        """Shares of infected people every 17th day, by Runge and Kutta's method in the shares' logarithms."""
        step = 1 / _SUBSTEPS

        def slope(state: Array) -> Array:
            susceptible, log_infected = state
            rate = theta[0] * susceptible
            return jnp.stack([-rate * jnp.exp(log_infected), rate - theta[1]])

        def advance(state: Array, _: None) -> tuple[Array, Array]:
            one = slope(state)
            two = slope(state + step / 2 * one)
            three = slope(state + step / 2 * two)
            four = slope(state + step * three)
            return state + step / 6 * (one + 2 * two + 2 * three + four), state[1]

        start = jnp.array([1 - 1 / population, -np.log(population).item()])
        _, logs = jax.lax.scan(advance, start, length=_DAYS * _SUBSTEPS)
        return jnp.clip(jnp.exp(logs[:: _EVERY * _SUBSTEPS]), 1e-10, 1 - 1e-10)

    def observe(key: Array, theta: Array) -> Array:
        return dist.Binomial(total, infected(theta)).sample(key).astype(theta.dtype)

    def log_likelihood(theta: Array, x: Array) -> Array:
        share = infected(theta)
        return jnp.sum(x * jnp.log(share) + (total - x) * jnp.log1p(-share))

    prior = dist.LogNormal(jnp.log(jnp.array([0.4, 0.125])), jnp.array([0.5, 0.2])).to_event(1)
    return Task(prior, observe, log_likelihood, (10,))


TASKS: dict[str, Callable[[], Task]] = {
    "two_moons": two_moons,
    "gaussian_mixture": gaussian_mixture,
    "gaussian_linear": gaussian_linear,
    "gaussian_linear_uniform": gaussian_linear_uniform,
    "bernoulli_glm": bernoulli_glm,
    "slcp": slcp,
    "sir": sir,
}
"""The tasks by name."""
