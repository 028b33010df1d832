"""Simulators: a prior and a way to draw observations, in coordinates in which the prior is standard normal."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from equinox import AbstractVar
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.primitives import Messenger

from scoresample.scores._function import DensityScore
from scoresample.scores._normal_sites import coordinate_shape, site_map

Observation = Any
"""What a simulator gives: an array, or a tree of arrays; NaN marks what is missing."""

_NUM_PILOT_DRAWS = 4096
"""Of the prior, for the location and scale of coordinates that are not normal."""


class AbstractSimulator(eqx.Module):
    """A joint law ``p(theta, x)`` of parameters and observations, with parameters in coordinates u of one vector.

    Where every parameter has a map from the standard normal law (its quantile function, an affine map, or a
    transformation of such), u is standard normal under the prior, whatever the prior is: bounded parameters cannot
    leave their bounds, scales of hierarchies are told apart from what they scale, and the prior with noise is known in
    closed form. Other parameters are moved to NumPyro's unconstrained space and standardised.

    Attributes:
        sites: where the parameters lie in u.
        observation: tree of `jax.ShapeDtypeStruct` of one observation.
    """

    sites: AbstractVar["Sites"]
    observation: AbstractVar[Any]

    @property
    def dimension(self) -> int:
        """The numbers in u."""
        return self.sites.dimension

    @property
    def is_normal(self) -> bool:
        """Whether the prior is the standard normal law in all of u."""
        return all(self.sites.normal)

    @property
    @abc.abstractmethod
    def observed_name(self) -> str | None:
        """The name of an observation that is one array and has one, or None."""

    @abc.abstractmethod
    def has_likelihood(self) -> bool:
        """Whether the density of observations is known."""

    @abc.abstractmethod
    def constrain(self, position: Float[Array, " d"]) -> dict[str, Array]:
        """The parameters by name, and what the model derives from them."""

    @abc.abstractmethod
    def observe(self, position: Float[Array, " d"], *, key: Array) -> Observation:
        """One observation under parameters."""

    @abc.abstractmethod
    def log_prior(self, position: Float[Array, " d"]) -> Float[Array, ""]:
        """The log density of u under the prior."""

    @abc.abstractmethod
    def log_likelihood(self, position: Float[Array, " d"], observation: Observation) -> Float[Array, ""]:
        """The log density of an observation, up to a constant for each; entries that are NaN are left out."""

    @abc.abstractmethod
    def draw_prior(self, key: Array, num: int) -> Float[Array, "n d"]:
        """Parameters from the prior."""

    def simulate(self, key: Array, num: int) -> tuple[Float[Array, "n d"], Observation]:
        """Draws of the joint law: parameters u and their observations, with one leading axis."""
        key_prior, key_observation = jax.random.split(key)
        positions = self.draw_prior(key_prior, num)
        observe = jax.vmap(lambda u, k: self.observe(u, key=k))
        return positions, observe(positions, jax.random.split(key_observation, num))

    def posterior_density(self, observation: Observation) -> DensityScore:
        """``log p(u) + log p(x | u)`` as a score with a density: the exact posterior, up to the evidence.

        Raises:
            ValueError: if the density of observations is not known.
        """
        if not self.has_likelihood():
            raise ValueError(
                "this simulator has no likelihood, so its posterior has no density to compare with. Pass "
                "`log_likelihood=`, or write the simulator as a NumPyro model."
            )
        observation = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(0.0).dtype), observation)
        return DensityScore(
            _log_joint,
            self,
            observation,
            structure=jnp.zeros(self.dimension),
            constrain=self.constrain,
            init_position=PriorStart(self),
        )


class PriorStart(eqx.Module):
    """A start for a chain: one draw of the prior."""

    simulator: AbstractSimulator

    def __call__(self, key: Array) -> Array:
        """One draw."""
        return self.simulator.draw_prior(key, 1)[0]


def _log_joint(position: Array, simulator: AbstractSimulator, observation: Observation) -> Array:
    return simulator.log_prior(position) + simulator.log_likelihood(position, observation)


class Sites(eqx.Module):
    """Where the parameters of a model lie in a vector, and how they are standardised.

    Attributes:
        names: the sites, in the model's order.
        shapes: the shapes of their coordinates.
        normal: whether a site's coordinates are standard normal under the prior.
        location: what is added to coordinates after they were scaled; 0 where they are normal.
        scale: by what they are scaled; 1 where they are normal.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    normal: tuple[bool, ...] = eqx.field(static=True)
    location: Array
    scale: Array

    @property
    def dimension(self) -> int:
        """The length of the vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def coordinates(self, position: Array) -> dict[str, Array]:
        """A vector as coordinates of every site."""
        vector = self.location.astype(position.dtype) + self.scale.astype(position.dtype) * position
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        parts = jnp.split(vector, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}


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
        values = {name: _floating(trace[name]["value"]) for name in self.observed}
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


class FunctionSimulator(AbstractSimulator):
    """A prior and a function that draws observations; made by [`simulator`][scoresample.simulator].

    Attributes:
        prior: distributions by name.
        fn: (key, parameters) -> observation; a prior of one distribution gives an array, of several a dictionary.
        density: (parameters, observation) -> log density of the observation, or None.
        bare: whether the prior is one distribution without a name.
        sites: where the parameters lie in a vector.
    """

    prior: dict[str, Any]
    fn: Callable[..., Any]
    density: Callable[..., Any] | None
    bare: bool = eqx.field(static=True)
    sites: Sites
    observation: Any

    @property
    def observed_name(self) -> str | None:
        """None: functions name what they return themselves."""
        return None

    def has_likelihood(self) -> bool:
        """Whether there is a density of observations."""
        return self.density is not None

    def constrain(self, position: Float[Array, " d"]) -> dict[str, Array]:
        """The parameters by name."""
        coordinates = self.sites.coordinates(position)
        return {name: site_map(self.prior[name]).to_value(coordinates[name]) for name in self.sites.names}

    def _parameters(self, position: Array) -> Any:
        named = self.constrain(position)
        return named[self.sites.names[0]] if self.bare else named

    def observe(self, position: Float[Array, " d"], *, key: Array) -> Observation:
        """What the function gives."""
        return jax.tree.map(_floating, self.fn(key, self._parameters(position)))

    def log_prior(self, position: Float[Array, " d"]) -> Float[Array, ""]:
        """The log density of u under the prior."""
        coordinates = self.sites.coordinates(position)
        total = jnp.log(self.sites.scale).sum().astype(position.dtype)
        for name in self.sites.names:
            total = total + _log_prior(self.prior[name], coordinates[name])
        return total

    def log_likelihood(self, position: Float[Array, " d"], observation: Observation) -> Float[Array, ""]:
        """What the user's function says; what it makes of missing entries is its own affair."""
        assert self.density is not None
        return jnp.asarray(self.density(self._parameters(position), observation))

    def draw_prior(self, key: Array, num: int) -> Float[Array, "n d"]:
        """Standard normal coordinates, or those of draws of the distributions."""
        if self.is_normal:
            return jax.random.normal(key, (num, self.dimension))
        keys = jax.random.split(key, len(self.sites.names))
        named = [
            jax.vmap(lambda k, d=self.prior[name]: _draw_site(d, k)[1])(jax.random.split(k, num)).reshape(num, -1)
            for name, k in zip(self.sites.names, keys, strict=True)
        ]
        return (jnp.concatenate(named, axis=1) - self.sites.location) / self.sites.scale


def _log_prior(distribution: Any, coordinates: Array) -> Array:
    mapped = site_map(distribution)
    if mapped.log_volume is None:
        return -0.5 * jnp.sum(coordinates**2 + np.log(2 * np.pi).item())
    return distribution.log_prob(mapped.to_value(coordinates)).sum() + mapped.log_volume(coordinates)


def _draw_site(distribution: Any, key: Array) -> tuple[Array, Array]:
    """A value of a distribution and its coordinates."""
    mapped = site_map(distribution)
    if mapped.log_volume is None:
        coordinates = jax.random.normal(key, coordinate_shape(distribution))
        return mapped.to_value(coordinates), coordinates
    value = distribution.sample(key)
    return value, dist.biject_to(distribution.support).inv(value)


class _DrawCoordinates(Messenger):
    """Draws latent sites in their coordinates."""

    def __init__(self, fn: Callable[..., Any], names: tuple[str, ...], key: Array) -> None:
        super().__init__(fn)
        self.keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        self.coordinates: dict[str, Array] = {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] in self.keys and msg["value"] is None:
            msg["value"], self.coordinates[msg["name"]] = _draw_site(msg["fn"], self.keys[msg["name"]])


def _draw_coordinates(simulator: NumPyroSimulator, key: Array) -> Array:
    key_sites, key_model = jax.random.split(key)
    drawn = _DrawCoordinates(handlers.seed(simulator.model, key_model), simulator.sites.names, key_sites)
    with handlers.block():
        handlers.trace(drawn).get_trace(*simulator.model_args, **simulator.model_kwargs)
    return jnp.concatenate([jnp.ravel(drawn.coordinates[name]) for name in simulator.sites.names])


def _floating(value: Any) -> Array:
    """A value in the default floating dtype: counts and categories are numbers to a network."""
    return jnp.asarray(value).astype(jnp.asarray(0.0).dtype)


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
        return _numpyro_simulator(model, names, tuple(model_args), dict(model_kwargs or {}))
    if model_args or model_kwargs:
        raise ValueError("`model_args` are for NumPyro models. Let the function hold what else it needs.")
    bare = isinstance(prior, dist.Distribution)
    priors = {"theta": prior} if bare else prior
    if not isinstance(priors, Mapping) or not all(isinstance(d, dist.Distribution) for d in priors.values()):
        raise TypeError(
            "`prior` must be a NumPyro distribution, or a dictionary of them, got "
            f"{type(prior).__name__}. A prior in which parameters depend on each other is written as a NumPyro model."
        )
    _check_continuous(priors)
    made = FunctionSimulator(
        prior=dict(priors), fn=model, density=log_likelihood, bare=bare, sites=_plain_sites(priors), observation=None
    )
    standard = _standardised(made)
    return _with_observation(standard)


def _numpyro_simulator(
    model: Callable[..., Any], observed: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> NumPyroSimulator:
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
    _check_continuous(latent)
    made = NumPyroSimulator(
        model=model, model_args=args, model_kwargs=kwargs, observed=observed, sites=_plain_sites(latent),
        observation=None,
    )  # fmt: skip
    standard = _standardised(made)
    return _with_observation(standard)


def _check_continuous(latent: Mapping[str, Any]) -> None:
    discrete = sorted(name for name, d in latent.items() if d.support.is_discrete)
    if discrete:
        raise ValueError(f"`prior`: {discrete} are discrete, which have no score. Sum them out in the simulator.")


def _plain_sites(latent: Mapping[str, Any]) -> Sites:
    shapes = tuple(coordinate_shape(d) for d in latent.values())
    size = sum(int(np.prod(shape)) for shape in shapes)
    normal = tuple(site_map(d).log_volume is None for d in latent.values())
    return Sites(tuple(latent), shapes, normal, jnp.zeros(size), jnp.ones(size))


def _standardised(made: Any) -> Any:
    """The simulator with location and scale of the coordinates that are not normal, from draws of the prior."""
    if made.is_normal:
        return made
    draws = np.asarray(made.draw_prior(jax.random.key(1), _NUM_PILOT_DRAWS), np.float64)
    sizes = [int(np.prod(shape)) for shape in made.sites.shapes]
    normal = np.repeat(made.sites.normal, sizes)
    with np.errstate(invalid="ignore"):
        usable = normal | (np.isfinite(draws).all(axis=0) & (draws.std(axis=0) > 0))
    if not usable.all():
        names = sorted(set(np.repeat(made.sites.names, sizes)[~usable].tolist()))
        raise ValueError(
            f"`prior`: draws of {names} are not finite in unbounded coordinates, or never vary: in this precision they "
            "reach the bounds of their support. Use another parametrisation of the prior, or float64."
        )
    dtype = jnp.asarray(0.0).dtype
    location = jnp.asarray(np.where(normal, 0.0, draws.mean(axis=0)), dtype)
    scale = jnp.asarray(np.where(normal, 1.0, draws.std(axis=0)), dtype)
    return eqx.tree_at(lambda s: (s.sites.location, s.sites.scale), made, (location, scale))


def _with_observation[Made: AbstractSimulator](made: Made) -> Made:
    """The simulator, which knows what its observations look like."""
    position = jax.ShapeDtypeStruct((made.dimension,), jnp.asarray(0.0).dtype)
    shape = eqx.filter_eval_shape(lambda u: made.observe(u, key=jax.random.key(0)), position)
    if not jax.tree.leaves(shape):
        raise ValueError("`model` must return an observation: an array, or a tree of arrays.")
    return eqx.tree_at(lambda s: s.observation, made, shape, is_leaf=lambda leaf: leaf is None)
