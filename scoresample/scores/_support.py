"""Bounded supports: intervals and half-lines, and the unbounded coordinates in which scores are learned and sampled."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores._base import Position, named_sites


class Support(eqx.Module):
    """A bijection between positions with bounds and unbounded coordinates u, one coordinate at a time.

    * two bounds: ``x = low + (high - low) / (1 + exp(-u))``;
    * one bound: ``x = low + exp(u)``, or ``x = high - exp(u)``;
    * none: ``x = u``.

    Densities change by the Jacobian: ``log p_u(u) = log p_x(x(u)) + log |dx/du|``. Calling it gives the named sites in
    the bounded coordinates, so it serves as a score's `constrain`.

    Attributes:
        low: lower bounds, a tree like a position, ``-inf`` where there is none.
        high: upper bounds, likewise, ``inf`` where there is none.

    Examples:
        >>> import jax.numpy as jnp
        >>> support = Support(jnp.array([0.0, -jnp.inf]), jnp.array([2.0, jnp.inf]))
        >>> support.to_bounded(jnp.array([0.0, 5.0])).tolist()
        [1.0, 5.0]
    """

    low: Position
    high: Position

    def __check_init__(self) -> None:
        """Check that the bounds leave room."""
        if jax.tree.structure(self.low) != jax.tree.structure(self.high):
            raise ValueError("`low` and `high` must be trees of the same containers.")
        for low, high in zip(jax.tree.leaves(self.low), jax.tree.leaves(self.high), strict=True):
            if not isinstance(low, jax.core.Tracer) and eqx.is_array(low) and not np.all(np.asarray(low < high)):
                raise ValueError(f"`support`: lower bounds must lie below upper ones, got {low} and {high}.")

    def __call__(self, position: Position) -> dict[str, Array]:
        """The named sites of a point, in the bounded coordinates."""
        return named_sites(self.to_bounded(position))

    def to_bounded(self, position: Position) -> Position:
        """x(u)."""
        return jax.tree.map(lambda u, low, high: _bounded(u, low, high)[0], position, self.low, self.high)

    def to_unbounded(self, bounded: Position) -> Position:
        """u(x), infinite on the bounds themselves."""
        return jax.tree.map(_unbounded, bounded, self.low, self.high)

    def log_jacobian(self, position: Position) -> Array:
        """``log |dx/du|`` at u, a scalar: subtract it from a log density of u for that of x."""
        logs = jax.tree.map(lambda u, low, high: jnp.sum(_bounded(u, low, high)[1]), position, self.low, self.high)
        return jax.tree.reduce(jnp.add, logs)

    def score_to_unbounded(self, position: Position, bounded_score: Position) -> Position:
        """``s_u = dx/du s_x + d log|dx/du| / du`` at u."""
        _, pull_back = jax.vjp(self.to_bounded, position)
        (pulled,) = pull_back(bounded_score)
        return jax.tree.map(jnp.add, pulled, jax.grad(self.log_jacobian)(position))


def as_support(bounds: Any, position: Position) -> Support:
    """A [`Support`][scoresample.Support] for positions of a kind.

    Arguments:
        bounds: a `Support`; a pair (low, high) for all coordinates or of arrays; or a dictionary of such pairs for some
            of the arrays of a position that is a dictionary. None, or an infinity, is no bound.
        position: one position.

    Raises:
        ValueError: if names or shapes do not fit, or bounds leave no room.
    """
    if isinstance(bounds, Support):
        return bounds

    def pair(value: Any, leaf: Array, where: str) -> tuple[Array, Array]:
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(f"`support`{where} must be a pair (low, high), got {value!r}.")
        ends = [default if end is None else end for end, default in zip(value, (-np.inf, np.inf), strict=True)]
        try:
            low, high = (jnp.broadcast_to(jnp.asarray(end, leaf.dtype), leaf.shape) for end in ends)
        except ValueError as error:
            raise ValueError(
                f"`support`{where}: bounds of shapes {[np.shape(end) for end in ends]} do not fit coordinates of shape "
                f"{leaf.shape}."
            ) from error
        return low, high

    if isinstance(bounds, Mapping):
        if not isinstance(position, Mapping) or not set(bounds) <= set(position):
            raise ValueError(
                f"`support` has bounds for {sorted(bounds)}, but positions hold "
                f"{sorted(position) if isinstance(position, Mapping) else 'a bare array'}."
            )
        pairs = {name: pair(bounds.get(name, (None, None)), leaf, f" of {name}") for name, leaf in position.items()}
        return Support({k: low for k, (low, _) in pairs.items()}, {k: high for k, (_, high) in pairs.items()})
    leaves, tree = jax.tree.flatten(position)
    pairs = [pair(bounds, leaf, "") for leaf in leaves]
    return Support(*(jax.tree.unflatten(tree, list(ends)) for ends in zip(*pairs, strict=True)))


def _bounded(u: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Bounded coordinates and log|dx/du|, one by one; bounds that do not exist stand in with harmless numbers."""
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    both, one = has_low & has_high, has_low ^ has_high
    low, high = jnp.where(has_low, low, 0.0).astype(u.dtype), jnp.where(has_high, high, 1.0).astype(u.dtype)
    width = jnp.where(both, high - low, 1.0).astype(u.dtype)
    # Each branch sees only coordinates of its own kind, so that derivatives of the others cannot overflow into it.
    exponent = jnp.where(one, u, 0.0)
    half_line = jnp.where(has_low, low + jnp.exp(exponent), high - jnp.exp(exponent))
    x = jnp.where(both, low + width * jax.nn.sigmoid(u), jnp.where(one, half_line, u))
    log_slope = jnp.log(width) + jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u)
    return x, jnp.where(both, log_slope, jnp.where(one, u, 0.0))


def _unbounded(x: Array, low: Array, high: Array) -> Array:
    has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
    above = jnp.where(has_low, x - jnp.where(has_low, low, 0.0), 1.0)
    below = jnp.where(has_high, jnp.where(has_high, high, 0.0) - x, 1.0)
    half_line = jnp.where(has_low, jnp.log(above), jnp.log(below))
    logit = jnp.log(above) - jnp.log(below)
    return jnp.where(has_low & has_high, logit, jnp.where(has_low | has_high, half_line, x))
