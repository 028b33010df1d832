"""NumPyro models as simulators, and as exact densities at once."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from scoresample.scores._normal_sites import site_map
from scoresample.scores._simulator import AbstractSimulator, Observation, completed, floating
from scoresample.scores._sites import Sites, check_continuous, draw_site, plain_sites


class _InCoordinates(Messenger):
    """Gives latent sites the values of their coordinates, and collects what their priors need."""

    def __init__(self, fn: Callable[..., Any], coordinates: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.coordinates = coordinates
        self.log_priors: list[Array] = []

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["name"] not in self.coordinates or msg["value"] is not None:
            return
        coordinates = self.coordinates[msg["name"]]
        mapped = site_map(msg["fn"])
        msg["value"] = mapped.to_value(coordinates)
        if mapped.log_volume is None:
            self.log_priors.append(-0.5 * jnp.sum(coordinates**2 + np.log(2 * np.pi).item()))
        else:
            self.log_priors.append(msg["fn"].log_prob(msg["value"]).sum() + mapped.log_volume(coordinates))


class _Observed(Messenger):
    """Gives observed sites their values, in the types that the model draws.

    What is missing is filled with a draw of the site, whose term is left out: a value in its support, whatever the
    parameters, so that the derivatives of the terms that are left out are finite.
    """

    def __init__(self, fn: Callable[..., Any], values: Mapping[str, Array]) -> None:
        super().__init__(fn)
        self.values = values

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["name"] not in self.values:
            return
        value, law = self.values[msg["name"]], msg["fn"]
        drawn = jax.lax.stop_gradient(law.sample(msg["kwargs"]["rng_key"]))
        if not jnp.issubdtype(drawn.dtype, jnp.floating):
            value = jnp.where(jnp.isnan(value), drawn, jnp.round(value)).astype(drawn.dtype)
        else:
            value = jnp.where(jnp.isnan(value), drawn, value)
        msg["value"], msg["is_observed"] = value, True


class NumPyroSimulator(AbstractSimulator):
    """A NumPyro model as a simulator, and as an exact density at once; made by [`simulator`][scoresample.simulator].

    Attributes:
        model: the model.
        model_args: its arguments, without observations.
        model_kwargs: its keyword arguments, likewise.
        observed: the sites that are observed; one alone is an observation without a name.
        sites: where its parameters lie in a vector.
    """

    model: Callable[..., Any]
    model_args: tuple[Any, ...]
    model_kwargs: dict[str, Any]
    observed: tuple[str, ...] = eqx.field(static=True)
    sites: Sites
    observation: Any

    @property
    def observed_name(self) -> str | None:
        """The observed site, where there is one."""
        return self.observed[0] if len(self.observed) == 1 else None

    def has_likelihood(self) -> bool:
        """A model knows its densities."""
        return True

    def _trace(self, position: Array, observation: Observation | None, key: Array) -> tuple[dict[str, Any], Array]:
        seeded = handlers.seed(self.model, key)
        if observation is not None:
            seeded = _Observed(seeded, self._named(observation))
        placed = _InCoordinates(seeded, self.sites.coordinates(position))
        with handlers.block():
            trace = handlers.trace(placed).get_trace(*self.model_args, **self.model_kwargs)
        return trace, sum(placed.log_priors, jnp.zeros((), position.dtype))

    def _named(self, observation: Observation) -> dict[str, Any]:
        return {self.observed[0]: observation} if len(self.observed) == 1 else dict(observation)

    def constrain(self, position: Float[Array, " d"]) -> dict[str, Array]:
        """The latent and deterministic sites."""
        trace, _ = self._trace(position, None, jax.random.key(0))
        kept = (*self.sites.names, *(name for name, site in trace.items() if site["type"] == "deterministic"))
        return {name: trace[name]["value"] for name in kept}

    def observe(self, position: Float[Array, " d"], *, key: Array) -> Observation:
        """The observed sites, drawn by the model."""
        trace, _ = self._trace(position, None, key)
        values = {name: floating(trace[name]["value"]) for name in self.observed}
        return values[self.observed[0]] if len(self.observed) == 1 else values

    def log_prior(self, position: Float[Array, " d"]) -> Float[Array, ""]:
        """The log density of u under the prior."""
        return self._trace(position, None, jax.random.key(0))[1] + jnp.log(self.sites.scale).sum()

    def log_likelihood(self, position: Float[Array, " d"], observation: Observation) -> Float[Array, ""]:
        """The log density of the observed sites."""
        trace, _ = self._trace(position, observation, jax.random.key(0))
        total = jnp.zeros((), position.dtype)
        for name, values in self._named(observation).items():
            site = trace[name]
            terms = _terms_of_present(site["fn"], site["value"], values)
            if site["scale"] is not None:
                terms = jnp.asarray(site["scale"]) * terms
            total = total + terms.sum()
        return total

    def draw_prior(self, key: Array, num: int) -> Float[Array, "n d"]:
        """Standard normal coordinates, or those of the model's own draws."""
        if self.is_normal:
            return jax.random.normal(key, (num, self.dimension))
        vectors = jax.vmap(lambda k: _draw_coordinates(self, k))(jax.random.split(key, num))
        return (vectors - self.sites.location) / self.sites.scale


def _terms_of_present(distribution: Any, filled: Array, observation: Array) -> Array:
    """Log densities of the numbers that are there, one for each element of the batch.

    Independent numbers are told apart, so that one may be missing without the others. Where some but not all numbers of
    a joint law are missing its marginal would be needed: the result is then not a number.
    """
    parts, event_dim = distribution, distribution.event_dim
    while isinstance(parts, dist.Independent | dist.ExpandedDistribution):
        parts = parts.base_dist
    terms = jnp.broadcast_to(parts.log_prob(filled), filled.shape[: filled.ndim - parts.event_dim])
    missing = jnp.isnan(observation)
    joint = tuple(range(missing.ndim - parts.event_dim, missing.ndim))
    every, some = missing.all(axis=joint), missing.any(axis=joint)
    terms = jnp.where(every, 0, jnp.where(some, jnp.nan, terms))
    return terms.sum(axis=tuple(range(terms.ndim - (event_dim - parts.event_dim), terms.ndim)))


class _DrawCoordinates(Messenger):
    """Draws latent sites in their coordinates."""

    def __init__(self, fn: Callable[..., Any], names: tuple[str, ...], key: Array) -> None:
        super().__init__(fn)
        self.keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        self.coordinates: dict[str, Array] = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] in self.keys and msg["value"] is None:
            msg["value"], self.coordinates[msg["name"]] = draw_site(msg["fn"], self.keys[msg["name"]])


def _draw_coordinates(simulator: NumPyroSimulator, key: Array) -> Array:
    key_sites, key_model = jax.random.split(key)
    drawn = _DrawCoordinates(handlers.seed(simulator.model, key_model), simulator.sites.names, key_sites)
    with handlers.block():
        handlers.trace(drawn).get_trace(*simulator.model_args, **simulator.model_kwargs)
    return jnp.concatenate([jnp.ravel(drawn.coordinates[name]) for name in simulator.sites.names])


def numpyro_simulator(
    model: Callable[..., Any], observed: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NumPyroSimulator:
    """A model with the sites that are observed; `ValueError` where simulations cannot follow it."""
    with handlers.block():
        trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(*args, **kwargs)
    samples = {name: site for name, site in trace.items() if site["type"] == "sample"}
    unknown = sorted(set(observed) - set(samples))
    if not observed or unknown:
        raise ValueError(f"`observed`: the model has the sites {sorted(samples)}, but {unknown or 'none'} are named.")
    given = sorted(name for name in observed if samples[name]["is_observed"])
    if given:
        raise ValueError(
            f"`observed`: {given} have values already. Leave the observations out of `model_args` and `model_kwargs` "
            "(None in their place), so that the model draws them."
        )
    fixed = sorted(name for name, site in samples.items() if site["is_observed"] and name not in observed)
    if fixed:
        raise ValueError(
            f"`model`: {fixed} are observed sites or factors beside those named. Simulations cannot follow them, and "
            "the exact density would belong to another posterior. Name them in `observed`, or leave them out."
        )
    partial = sorted(n for n, s in trace.items() if s["type"] == "plate" and s["args"][1] not in (None, s["args"][0]))
    scaled = sorted(n for n, s in samples.items() if n not in observed and s["scale"] is not None)
    if partial or scaled:
        raise ValueError(
            f"`model`: {partial or scaled} subsample their plates or scale the density of the prior, which simulations "
            "cannot follow. Write the model without."
        )
    latent = {n: s["fn"] for n, s in samples.items() if n not in observed}
    if not latent:
        raise ValueError("`model`: there is no latent site to infer.")
    check_continuous(latent)
    made = NumPyroSimulator(
        model=model, model_args=args, model_kwargs=kwargs, observed=observed, sites=plain_sites(latent),
        observation=None,
    )  # fmt: skip
    return completed(made)
