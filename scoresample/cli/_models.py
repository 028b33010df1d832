"""The models that the command line knows, and those that a user brings in a file."""

import importlib.util
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers

from scoresample.paths import AbstractScorePath
from scoresample.scores import AbstractScore, AbstractSimulator, GaussianMixture, from_numpyro

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
STANDARD_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
"""Rubin's schools: estimated effects of coaching, and their standard errors."""


class UnknownModel(ValueError):
    """A model name that leads nowhere."""


def eight_schools() -> AbstractScore:
    """Effects of coaching in eight schools: a hierarchical normal model, non-centred (Rubin 1981)."""

    def model(effects: Array, standard_errors: Array) -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(EFFECTS)):
            theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
            theta = numpyro.deterministic("theta", mu + tau * theta_trans)
            numpyro.sample("effects", dist.Normal(theta, standard_errors), obs=effects)

    return from_numpyro(model, (jnp.array(EFFECTS), jnp.array(STANDARD_ERRORS)))


def mixture() -> AbstractScore:
    """Eight well separated modes of unequal weight in the plane: a density on which chains do not mix."""
    angles = 2 * np.pi * np.arange(8) / 8
    means = 6.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + np.array([1.0, -0.5])
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    return GaussianMixture(weights / weights.sum(), means, np.linspace(0.15, 0.6, 8))


BUILT_IN: dict[str, Callable[[], AbstractScore]] = {"eight_schools": eight_schools, "mixture": mixture}
"""Built-in models by name."""


def load_model(name: str) -> AbstractScore | AbstractScorePath:
    """The target behind a name: a built-in model, or a function in a Python file.

    A file is code and runs: name only files that you trust. The function takes no arguments. It either returns a score
    or a path, or is itself a NumPyro model with its data inside.

    Arguments:
        name: a built-in name, or ``path/to/file.py:function``.

    Returns:
        The target.

    Raises:
        UnknownModel: if there is no such model, file or function, or the function is neither kind.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    return _target_of(function_named(name, BUILT_IN), name)


def function_named(name: str, built_in: Iterable[str]) -> Any:
    """What stands under a name in a Python file, which runs.

    Arguments:
        name: ``path/to/file.py:function``.
        built_in: the names that need no file, for the message.

    Returns:
        A function, or anything else that can be called.

    Raises:
        UnknownModel: if there is no such model, file or function.
    """
    file, colon, function_name = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise UnknownModel(
            f"there is no model '{name}'. Built-in models: {', '.join(built_in)}. Your own: path/to/file.py:function."
        )
    path = Path(file)
    if not path.is_file():
        raise UnknownModel(f"there is no file '{path}'.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, function_name, None)
    if not callable(function) and not isinstance(function, AbstractSimulator):
        names = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise UnknownModel(f"'{path}' has no function '{function_name}'. It has: {', '.join(names) or 'none'}.")
    return function


def needed_arguments(function: Callable[..., Any]) -> list[str]:
    """The arguments that have no value of their own."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _target_of(function: Callable[..., Any], name: str) -> AbstractScore | AbstractScorePath:
    if isinstance(function, AbstractScore | AbstractScorePath):
        return function
    needed = needed_arguments(function)
    if needed:
        raise UnknownModel(
            f"'{name}' needs the arguments {', '.join(needed)}. Give a function without arguments, for example one "
            "that returns scoresample.from_numpyro(model, (data,))."
        )
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        value = function()
    if isinstance(value, AbstractScore | AbstractScorePath):
        return value
    if any(site["type"] == "sample" for site in trace.values()):
        return from_numpyro(function)
    raise UnknownModel(
        f"'{name}' returned {type(value).__name__} and has no NumPyro sites. Return a score or a path, or write a "
        "NumPyro model."
    )
