"""Simulators: a prior and a way to draw observations, in coordinates in which the prior is standard normal."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from scoresample.scores._function import DensityScore
from scoresample.scores._sites import Sites

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

    sites: AbstractVar[Sites]
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


def completed[Made: AbstractSimulator](made: Made) -> Made:
    """The simulator, standardised, which knows what its observations look like.

    Raises:
        ValueError: if draws of the prior are not finite or never vary, or there is no observation.
    """
    return _with_observation(_standardised(made))


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


def floating(value: Any) -> Array:
    """A value in the default floating dtype: counts and categories are numbers to a network."""
    return jnp.asarray(value).astype(jnp.asarray(0.0).dtype)
