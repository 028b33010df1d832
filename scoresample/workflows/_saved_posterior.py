"""Amortised posteriors in files: everything but the simulator, which is code."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scoresample.scores import AbstractSimulator, simulator
from scoresample.training import (
    read_archive,
    score_content,
    score_from,
    structure_content,
    structure_from,
    tree_from,
    write_archive,
)
from scoresample.workflows._encoding import Encoding
from scoresample.workflows._fit_posterior import AmortisedPosterior, PosteriorGradient

_KIND = "posterior"
_NUM_POSITIONS = 5
_FARTHEST = 1.5
"""Where a simulator's prior is compared: so far from its centre, in its spreads."""
_TOLERANCE = 1e-3
"""Of comparisons of priors and likelihoods, which other machines compute with other roundings."""

Arrays = dict[str, Any]


def save_posterior(posterior: AmortisedPosterior, path: str | os.PathLike[str]) -> None:
    """Write amortised posteriors to a file, all but their simulator: functions are not written to files.

    The file is one of arrays and JSON, like those of [`save_score`][scoresample.save_score], and as safe. It also holds
    what tells a simulator from another: the names and shapes of parameters and observations, and the values of the
    parameters and of the densities at a few fixed places.

    Arguments:
        posterior: what [`fit_posterior`][scoresample.fit_posterior] returned.
        path: the file, by convention with the suffix ``.safetensors``.

    Raises:
        TypeError: if it is no `AmortisedPosterior`, its network is one of your own, or its observations hold containers
            other than dictionaries, lists and tuples.

    Examples:
        >>> import tempfile, jax, numpyro.distributions as dist
        >>> import scoresample as ss
        >>> def observe(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, theta.shape)
        >>> prior = dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)
        >>> posterior = ss.fit_posterior(
        ...     observe, prior, key=jax.random.key(0), num_simulations=500, num_epochs=2, coordinates="prior", width=16
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_posterior(posterior, f"{folder}/posterior.safetensors")
        ...     again = load_posterior(f"{folder}/posterior.safetensors", observe, prior)
        >>> point, x = jax.numpy.zeros(2), jax.numpy.array([0.2, -0.5])
        >>> bool((again.given(x)(point, 0.5) == posterior.given(x)(point, 0.5)).all())
        True
    """
    if not isinstance(posterior, AmortisedPosterior):
        raise TypeError(
            f"`posterior` must be what fit_posterior returned, got {type(posterior).__name__}. Scores are written by "
            "save_score."
        )
    arrays: Arrays = {}
    encoding = posterior.encoding
    content = {
        "score": score_content(posterior.score, arrays),
        "in_prior_coordinates": posterior.in_prior_coordinates,
        "encoding": {
            "structure": structure_content(encoding.structure),
            "has_gaps": encoding.has_gaps,
            "exchangeable": encoding.exchangeable,
            "takes_fewer": encoding.takes_fewer,
        },
        "simulator": _simulator_content(posterior.simulator, arrays),
    }
    arrays |= {"encoding.location.0": encoding.location, "encoding.scale.0": encoding.scale}
    write_archive(path, _KIND, content, arrays)


def load_posterior(
    path: str | os.PathLike[str],
    model: Callable[..., Any] | AbstractSimulator,
    prior: Any = None,
    *,
    observed: Sequence[str] | str | None = None,
    log_likelihood: Callable[..., Any] | None = None,
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
) -> AmortisedPosterior:
    """Read amortised posteriors that [`save_posterior`][scoresample.save_posterior] wrote. No code in the file is run.

    The simulator comes from you, as it came to [`fit_posterior`][scoresample.fit_posterior]. Its prior is compared with
    the one of the training; of its observations only shapes are, and the likelihood where there was one, for
    simulations depend on random numbers that other releases draw differently.

    Arguments:
        path: the file.
        model: the simulator, or what `fit_posterior` takes in its place.
        prior: the prior of a function's parameters.
        observed: the observed sites of a NumPyro model.
        log_likelihood: (parameters, observation) -> log density, beside a function. Informed posteriors need it; others
            may be loaded without, or with one that they were trained without.
        model_args: arguments of a NumPyro model, without observations.
        model_kwargs: its keyword arguments, likewise.

    Returns:
        The posteriors, whose scores have the same values to the last bit.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if the simulator or the prior is none.
        ValueError: if the file is truncated or damaged, or was written by a later release; or the simulator is not the
            one of the training.
    """
    content, arrays = read_archive(path, _KIND)
    joint = model
    if not isinstance(joint, AbstractSimulator):
        joint = simulator(
            joint, prior, observed=observed, log_likelihood=log_likelihood, model_args=model_args,
            model_kwargs=model_kwargs,
        )  # fmt: skip
    try:
        return _posterior_from(content, dict(arrays), joint)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(
            f"`path`: {os.fspath(path)} does not hold a posterior that this release knows ({error!r})."
        ) from error


def _posterior_from(content: dict[str, Any], arrays: Arrays, joint: AbstractSimulator) -> AmortisedPosterior:
    told = content["encoding"]
    number = jax.ShapeDtypeStruct((), float)
    location, scale = (tree_from(number, f"encoding.{name}", arrays) for name in ("location", "scale"))
    encoding = Encoding(
        structure_from(told["structure"]), location, scale, bool(told["has_gaps"]), bool(told["exchangeable"]),
        bool(told["takes_fewer"]),
    )  # fmt: skip
    joint = _checked_simulator(joint, content["simulator"], arrays)

    def gradient(centre: Any) -> PosteriorGradient:
        if not joint.has_likelihood():
            raise ValueError(
                "`model`: these posteriors are informed, so their network needs the density of observations. Pass "
                "`log_likelihood=`, or write the simulator as a NumPyro model."
            )
        return PosteriorGradient(joint, encoding, centre)

    informed = _is_informed(content["score"])
    score = score_from(content["score"], arrays, None, joint.constrain, gradient if informed else None)
    return AmortisedPosterior(joint, score, encoding, bool(content["in_prior_coordinates"]))


def _is_informed(content: dict[str, Any]) -> bool:
    denoiser = content["inner"]["denoiser"]
    return denoiser.get("member", denoiser)["network"]["class"] == "InformedNetwork"


def _simulator_content(joint: AbstractSimulator, arrays: Arrays) -> dict[str, Any]:
    """What tells a simulator from another."""
    sites = joint.sites
    positions = np.linspace(-_FARTHEST, _FARTHEST, _NUM_POSITIONS * joint.dimension)
    positions = jnp.asarray(positions.reshape(_NUM_POSITIONS, joint.dimension), dtype=float)
    arrays |= {"simulator.location.0": sites.location, "simulator.scale.0": sites.scale}
    arrays["simulator.positions.0"] = positions
    parameters, log_prior = _at(joint, positions)
    arrays["simulator.log_prior"] = log_prior
    for place, name in enumerate(sites.names):
        arrays[f"simulator.parameter.{place}"] = parameters[name]
    if joint.has_likelihood():
        observation = joint.observe(positions[0], key=jax.random.key(0))
        for place, leaf in enumerate(jax.tree.leaves(observation)):
            arrays[f"simulator.observation.{place}"] = leaf
        arrays["simulator.log_likelihood"] = _log_likelihoods(joint, positions, observation)
    return {
        "names": list(sites.names),
        "shapes": [list(shape) for shape in sites.shapes],
        "normal": [bool(normal) for normal in sites.normal],
        "observation": structure_content(joint.observation),
        "has_likelihood": joint.has_likelihood(),
    }


def _checked_simulator(joint: AbstractSimulator, content: dict[str, Any], arrays: Arrays) -> AbstractSimulator:
    """The simulator in the coordinates of the training, if it is the one of the training.

    Raises:
        ValueError: if it is not; the message says what differs.
    """
    sites = joint.sites
    pairs = {
        "parameters": (content["names"], list(sites.names)),
        "parameters of shapes": (content["shapes"], [list(shape) for shape in sites.shapes]),
        "observations": (_shown(structure_from(content["observation"])), _shown(joint.observation)),
        "parameters whose priors have quantile functions": (content["normal"], [bool(n) for n in sites.normal]),
    }
    for what, (trained, given) in pairs.items():
        if trained != given:
            raise ValueError(f"`model`: these posteriors were trained with {what} {trained}, but it has {given}.")
    # Draws of the prior made these: other releases would draw others.
    kept = tuple(tree_from(sites.location, f"simulator.{name}", arrays) for name in ("location", "scale"))
    joint = eqx.tree_at(lambda s: (s.sites.location, s.sites.scale), joint, kept)
    positions = tree_from(sites.location, "simulator.positions", arrays)
    parameters, log_prior = _at(joint, positions)
    found = {name: parameters[name] for name in sites.names}
    differing = [
        name
        for place, name in enumerate(sites.names)
        if not _alike(arrays[f"simulator.parameter.{place}"], found[name])
    ]
    if not differing and not _alike(arrays["simulator.log_prior"], log_prior):
        differing = list(sites.names)
    if differing:
        raise ValueError(
            f"`model`: the prior of {differing} is not the one that these posteriors were trained with. Load them with "
            "the simulator of the training; another prior needs another training."
        )
    if content["has_likelihood"] and joint.has_likelihood():
        observation = tree_from(joint.observation, "simulator.observation", arrays)
        if not _alike(arrays["simulator.log_likelihood"], _log_likelihoods(joint, positions, observation)):
            raise ValueError(
                "`model`: its likelihood is not the one that these posteriors were trained with. Load them with the "
                "simulator of the training."
            )
    return joint


@eqx.filter_jit
def _at(joint: AbstractSimulator, positions: Any) -> Any:
    return jax.vmap(joint.constrain)(positions), jax.vmap(joint.log_prior)(positions)


@eqx.filter_jit
def _log_likelihoods(joint: AbstractSimulator, positions: Any, observation: Any) -> Any:
    """At positions, from the first: it may lack a constant."""
    values = jax.vmap(lambda u: joint.log_likelihood(u, observation))(positions)
    return values - values[0]


def _alike(trained: Any, given: Any) -> bool:
    trained, given = np.asarray(trained, np.float64), np.asarray(given, np.float64)
    return trained.shape == given.shape and np.allclose(
        trained, given, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
    )


def _shown(structure: Any) -> str:
    """Containers and shapes; the precision may be another."""
    leaves, tree = jax.tree.flatten(structure)
    return str(jax.tree.unflatten(tree, [leaf.shape for leaf in leaves]))
