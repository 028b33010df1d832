"""Distributions as maps of a standard normal variable: what makes every prior look like the same one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import erfinv, log_ndtr, ndtr, ndtri
from jaxtyping import Array

_ROOT_TWO = 2.0**0.5


class SiteMap(NamedTuple):
    """How a site of a model comes from its coordinates.

    Attributes:
        to_value: coordinates -> value, of the site's own shape.
        log_volume: coordinates -> log |d value / d coordinates|, a scalar; None where standard normal coordinates give
            values of the site's own law, so that the volume is not needed.
    """

    to_value: Callable[[Array], Array]
    log_volume: Callable[[Array], Array] | None


def site_map(distribution: Any) -> SiteMap:
    """The map of a distribution: from standard normal coordinates where there is one, else its NumPyro bijection."""
    normal = _from_normal(distribution)
    if normal is not None:
        return SiteMap(normal, None)
    bijection = dist.biject_to(distribution.support)

    def log_volume(coordinates: Array) -> Array:
        return jnp.sum(bijection.log_abs_det_jacobian(coordinates, bijection(coordinates)))

    return SiteMap(bijection, log_volume)


def coordinate_shape(distribution: Any) -> tuple[int, ...]:
    """The shape of a site's coordinates: its own, or that of its unconstrained space."""
    if _from_normal(distribution) is not None:
        return _normal_shape(distribution, distribution.shape())
    return dist.biject_to(distribution.support).inverse_shape(distribution.shape())


def _normal_shape(distribution: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the normal coordinates of values of a shape: transforms may change it."""
    if isinstance(distribution, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        return _normal_shape(distribution.base_dist, shape)
    if isinstance(distribution, dist.TransformedDistribution):
        for transform in reversed(distribution.transforms):
            shape = transform.inverse_shape(shape)
        return _normal_shape(distribution.base_dist, shape)
    return shape


def _from_normal(distribution: Any) -> Callable[[Array], Array] | None:
    """``u -> F^-1(Phi(u))``, or an affine map for normal laws; None where there is no such map to differentiate.

    Standard normal u give values of the distribution: Rosenblatt's transformation (Rosenblatt 1952), backwards. Values
    of a transformed distribution are its transforms of the base's values, whether they increase or not.
    """
    if isinstance(distribution, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        return _from_normal(distribution.base_dist)
    if isinstance(distribution, dist.TransformedDistribution):
        return _transformed(distribution)
    if isinstance(distribution, dist.MultivariateNormal):
        loc, factor = _arrays(distribution.loc, distribution.scale_tril)
        return lambda u: loc + (factor @ u[..., None])[..., 0]
    for kind, quantile in _WITHOUT_LOCATION.items():
        if isinstance(distribution, kind):
            return lambda u: distribution.scale * quantile(u)
    for kind, quantile in _WITH_LOCATION.items():
        if isinstance(distribution, kind):
            return lambda u: distribution.loc + distribution.scale * quantile(u)
    if isinstance(distribution, dist.Uniform):
        low, high = _arrays(distribution.low, distribution.high)
        return lambda u: jnp.where(u < 0, low + (high - low) * ndtr(u), high - (high - low) * ndtr(-u))
    if isinstance(distribution, dist.Exponential):
        return lambda u: _exponential(u) / distribution.rate
    return _by_quantiles(distribution)


def _arrays(*values: Any) -> tuple[Array, ...]:
    return tuple(jnp.asarray(value) for value in values)


def _transformed(distribution: Any) -> Callable[[Array], Array] | None:
    base = _from_normal(distribution.base_dist)
    if base is None:
        return None

    def value(u: Array) -> Array:
        x = base(u)
        for transform in distribution.transforms:
            x = transform(x)
        return x

    return value


def _by_quantiles(distribution: Any) -> Callable[[Array], Array] | None:
    """By the distribution's own quantile function, if it has one that can be differentiated."""
    if distribution.event_dim or distribution.support.is_discrete:
        return None

    def value(u: Array) -> Array:
        # Beyond some five standard deviations a share in single precision is 1.
        share = ndtr(u)
        return distribution.icdf(jnp.clip(share, jnp.finfo(share.dtype).tiny, 1 - jnp.finfo(share.dtype).epsneg))

    try:
        slope = jax.jvp(value, (jnp.zeros(distribution.batch_shape),), (jnp.ones(distribution.batch_shape),))[1]
    except (NotImplementedError, ImportError, TypeError):  # no quantiles, or of a package that is not there
        return None
    # A quantile function made of a search has no slope.
    return value if isinstance(slope, jax.core.Tracer) or bool(jnp.all(slope > 0)) else None


def _sides(u: Array) -> tuple[Array, Array]:
    """U where it is negative, and where it is not, with 0 elsewhere: each branch sees only what it is good for."""
    return jnp.where(u < 0, u, 0), jnp.where(u < 0, 0, u)


def _exponential(u: Array) -> Array:
    """Quantiles of the exponential law of rate 1, without cancellation in either tail."""
    low, high = _sides(u)
    return jnp.where(u < 0, -jnp.log1p(-ndtr(low)), -log_ndtr(-high))


def _half_normal(u: Array) -> Array:
    """Quantiles of |N(0, 1)|, likewise."""
    low, high = _sides(u)
    return jnp.where(u < 0, _ROOT_TWO * erfinv(ndtr(low)), -ndtri(ndtr(-high) / 2))


def _half_cauchy(u: Array) -> Array:
    low, high = _sides(u)
    return jnp.where(u < 0, jnp.tan(0.5 * jnp.pi * ndtr(low)), 1 / jnp.tan(0.5 * jnp.pi * ndtr(-high)))


def _cauchy(u: Array) -> Array:
    """Quantiles of a Cauchy law; between -1 and 1 by the difference to the median, beyond by the tail."""
    inside = jnp.abs(u) < 1
    inner = jnp.tan(jnp.pi * (ndtr(jnp.where(inside, u, 0)) - 0.5))
    outer = jnp.sign(u) / jnp.tan(jnp.pi * ndtr(-jnp.where(inside, 1, jnp.abs(u))))
    return jnp.where(inside, inner, outer)


def _laplace(u: Array) -> Array:
    low, high = _sides(u)
    log_two = jnp.log(jnp.asarray(2.0, u.dtype))
    return jnp.where(u < 0, log_two + log_ndtr(low), -log_two - log_ndtr(-high))


_WITHOUT_LOCATION: dict[Any, Callable[[Array], Array]] = {
    dist.HalfNormal: _half_normal,
    dist.HalfCauchy: _half_cauchy,
}
_WITH_LOCATION: dict[Any, Callable[[Array], Array]] = {
    dist.Normal: lambda u: u,
    dist.Cauchy: _cauchy,
    dist.Laplace: _laplace,
    dist.Logistic: lambda u: log_ndtr(u) - log_ndtr(-u),
}
"""Standard quantiles of laws that are scaled, and moved."""
