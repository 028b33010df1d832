"""The parameters of several sites in one vector, standardised."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from scoresample.scores._normal_sites import coordinate_shape, site_map


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


def plain_sites(latent: Mapping[str, Any]) -> Sites:
    """Latent sites by their distributions, not standardised yet."""
    shapes = tuple(coordinate_shape(d) for d in latent.values())
    size = sum(int(np.prod(shape)) for shape in shapes)
    normal = tuple(site_map(d).log_volume is None for d in latent.values())
    return Sites(tuple(latent), shapes, normal, jnp.zeros(size), jnp.ones(size))


def draw_site(distribution: Any, key: Array) -> tuple[Array, Array]:
    """A value of a distribution and its coordinates."""
    mapped = site_map(distribution)
    if mapped.log_volume is None:
        coordinates = jax.random.normal(key, coordinate_shape(distribution))
        return mapped.to_value(coordinates), coordinates
    value = distribution.sample(key)
    return value, dist.biject_to(distribution.support).inv(value)


def log_prior_of_site(distribution: Any, coordinates: Array) -> Array:
    """The log density of a site's coordinates under its distribution."""
    mapped = site_map(distribution)
    if mapped.log_volume is None:
        return -0.5 * jnp.sum(coordinates**2 + np.log(2 * np.pi).item())
    return distribution.log_prob(mapped.to_value(coordinates)).sum() + mapped.log_volume(coordinates)


def check_continuous(latent: Mapping[str, Any]) -> None:
    """Refuse latent sites that are discrete."""
    discrete = sorted(name for name, d in latent.items() if d.support.is_discrete)
    if discrete:
        raise ValueError(f"`prior`: {discrete} are discrete, which have no score. Sum them out in the simulator.")
