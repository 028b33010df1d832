"""The simulators that the command line knows, and those that a user brings in a file."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers

from scoresample.cli._models import EFFECTS, STANDARD_ERRORS, UnknownModel, function_named, needed_arguments
from scoresample.scores import AbstractSimulator, simulator

Given = tuple[AbstractSimulator, Any]
"""A simulator, and an observation of its own or None."""


def eight_schools() -> Given:
    """Effects of coaching in eight schools: a hierarchical normal model, non-centred (Rubin 1981)."""

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(EFFECTS)):
            theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * theta_trans)
            numpyro.sample("effects", dist.Normal(theta, jnp.array(STANDARD_ERRORS)))

    return simulator(model, observed="effects"), np.array(EFFECTS)


def eight_schools_centred() -> Given:
    """The same, centred: the effects themselves are the parameters."""

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(EFFECTS)):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("effects", dist.Normal(theta, jnp.array(STANDARD_ERRORS)))

    return simulator(model, observed="effects"), np.array(EFFECTS)


def two_moons() -> Given:
    """Two crescents of parameters behind one point of the plane: a simulator without a likelihood (Greenberg 2019)."""

    def observe(key: Array, theta: Array) -> Array:
        key_angle, key_radius = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (), minval=-jnp.pi / 2, maxval=jnp.pi / 2)
        radius = 0.1 + 0.01 * jax.random.normal(key_radius, ())
        crescent = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]) + jnp.array([0.25, 0.0])
        total, difference = theta[0] + theta[1], theta[1] - theta[0]
        return crescent + jnp.stack([-jnp.abs(total), difference]) / jnp.sqrt(2.0)

    return simulator(observe, dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)), np.zeros(2)


BUILT_IN_SIMULATORS: dict[str, Callable[[], Given]] = {
    "eight_schools": eight_schools,
    "eight_schools_centred": eight_schools_centred,
    "two_moons": two_moons,
}
"""Built-in simulators by name."""


def load_simulator(name: str, observed: Sequence[str]) -> Given:
    """The simulator behind a name: a built-in one, or one of a Python file.

    A file is code and runs: name only files that you trust. What stands there is a simulator, or a function without
    arguments. It returns a simulator, or a pair (simulator, observation); or it is itself a NumPyro model that draws
    its observations, whose names are then those of the data.

    Arguments:
        name: a built-in name, or ``path/to/file.py:function``.
        observed: the names of the data, empty where they have none.

    Returns:
        The simulator, and the observation that it brings or None.

    Raises:
        UnknownModel: if there is no such model, file or function, or it is none of these.
    """
    if name in BUILT_IN_SIMULATORS:
        return BUILT_IN_SIMULATORS[name]()
    function = function_named(name, BUILT_IN_SIMULATORS)
    if isinstance(function, AbstractSimulator):
        return function, None
    needed = needed_arguments(function)
    if needed:
        raise UnknownModel(
            f"'{name}' needs the arguments {', '.join(needed)}. Give a function without arguments, for example one "
            "that returns scoresample.simulator(model, prior)."
        )
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        value = function()
    if isinstance(value, AbstractSimulator):
        return value, None
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], AbstractSimulator):
        return value
    if not any(site["type"] == "sample" for site in trace.values()):
        raise UnknownModel(
            f"'{name}' returned {type(value).__name__} and has no NumPyro sites. Return a simulator, as "
            "scoresample.simulator(model, prior) makes one, or write a NumPyro model."
        )
    if not observed:
        raise UnknownModel(
            f"'{name}' is a NumPyro model, and nothing says which of its sites are observed. Give --observed data with "
            'names (.npz, .csv or .json), or return scoresample.simulator(model, observed="name").'
        )
    return simulator(function, observed=tuple(observed)), None
