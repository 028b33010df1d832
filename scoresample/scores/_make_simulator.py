"""Simulators from what users write: a function with its prior, or a NumPyro model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpyro.distributions as dist

from scoresample.scores._function_simulator import FunctionSimulator
from scoresample.scores._numpyro_simulator import numpyro_simulator
from scoresample.scores._simulator import AbstractSimulator, completed
from scoresample.scores._sites import check_continuous, plain_sites


def simulator(
    model: Callable[..., Any],
    prior: Any = None,
    *,
    observed: Sequence[str] | str | None = None,
    log_likelihood: Callable[..., Any] | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> AbstractSimulator:
    """A simulator of observations, with its prior.

    Arguments:
        model: with a `prior`: a function (key, parameters) -> observation, in JAX, an array or a tree of arrays, of one
            simulation. With `observed`: a NumPyro model.
        prior: a NumPyro distribution, whose values the function takes as an array; or a dictionary of independent
            ones, which it takes as a dictionary.
        observed: names of the sites of a NumPyro model that are observed. One alone is an observation without a name;
            several are a dictionary.
        log_likelihood: (parameters, observation) -> log density of an observation, beside a function: it makes draws
            comparable with the exact posterior. It may lack a constant that does not depend on the parameters.
        model_args: arguments of a NumPyro model other than observations.
        model_kwargs: its keyword arguments.

    Returns:
        A simulator: `simulate(key, num)` draws parameters, in coordinates in which the prior is standard normal, and
        observations; `constrain` gives parameters by name; `posterior_density(observation)` is the exact posterior.

    Raises:
        TypeError: if `model` is no function, or the prior no distribution.
        ValueError: if both or none of `prior` and `observed` are given, a site is discrete or does not exist, or the
            function does not return arrays.

    Examples:
        >>> import jax, numpyro.distributions as dist
        >>> def observe(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, theta.shape)
        >>> two = simulator(observe, dist.Uniform(-1.0, 1.0).expand([2]).to_event(1))
        >>> positions, observations = two.simulate(jax.random.key(0), 5)
        >>> positions.shape, observations.shape, two.is_normal
        ((5, 2), (5, 2), True)
    """
    if not callable(model):
        raise TypeError(f"`model` must be a function, got {type(model).__name__}.")
    if (prior is None) == (observed is None):
        raise ValueError(
            "give either a `prior`, for a function (key, parameters) -> observation, or the `observed` sites of a "
            "NumPyro model."
        )
    if prior is None:
        assert observed is not None
        names = (observed,) if isinstance(observed, str) else tuple(observed)
        return numpyro_simulator(model, names, tuple(model_args), dict(model_kwargs or {}))
    if model_args or model_kwargs:
        raise ValueError("`model_args` are for NumPyro models. Let the function hold what else it needs.")
    bare = isinstance(prior, dist.Distribution)
    priors = {"theta": prior} if bare else prior
    if not isinstance(priors, Mapping) or not all(isinstance(d, dist.Distribution) for d in priors.values()):
        raise TypeError(
            "`prior` must be a NumPyro distribution, or a dictionary of them, got "
            f"{type(prior).__name__}. A prior in which parameters depend on each other is written as a NumPyro model."
        )
    check_continuous(priors)
    made = FunctionSimulator(
        prior=dict(priors), fn=model, density=log_likelihood, bare=bare, sites=plain_sites(priors), observation=None
    )
    return completed(made)
