"""A prior and a function that draws observations, as a simulator."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scoresample.scores._normal_sites import site_map
from scoresample.scores._simulator import AbstractSimulator, Observation, floating
from scoresample.scores._sites import Sites, draw_site, log_prior_of_site


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
        return jax.tree.map(floating, self.fn(key, self._parameters(position)))

    def log_prior(self, position: Float[Array, " d"]) -> Float[Array, ""]:
        """The log density of u under the prior."""
        coordinates = self.sites.coordinates(position)
        total = jnp.log(self.sites.scale).sum().astype(position.dtype)
        for name in self.sites.names:
            total = total + log_prior_of_site(self.prior[name], coordinates[name])
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
            jax.vmap(lambda k, d=self.prior[name]: draw_site(d, k)[1])(jax.random.split(k, num)).reshape(num, -1)
            for name, k in zip(self.sites.names, keys, strict=True)
        ]
        return (jnp.concatenate(named, axis=1) - self.sites.location) / self.sites.scale
