"""Whether a log density and its score belong together, where nothing guarantees it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks._check import Check, graded_check
from scoresample.scores import (
    AbstractDensityScore,
    AbstractExactDensity,
    DensityScore,
    LineIntegralDensity,
    Position,
    line_integral,
)

_NUM_POINTS = 32
"""Draws that are looked at; each is joined to another."""
_NODES = 12
_WARN, _FAIL = 0.1, 0.5
"""In nats, as for loops of a score."""
_CUSTOM = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_jvp_call_jaxpr")


def value_checks(density: AbstractDensityScore, positions: Position) -> list[Check]:
    """Whether differences of a log density between draws are those that its score integrates to.

    A sampler that accepts and rejects takes steps by the score and judges them by the value, and where the two do not
    belong together it leaves neither's law invariant. Both are one function and its derivative in most densities,
    which are not looked at: closed forms, line integrals (which have checks of their own) and functions that JAX
    differentiates by itself.

    Arguments:
        density: what a sampler accepted and rejected with.
        positions: draws with a leading axis; at most 32 of them, evenly spread, are looked at.

    Returns:
        One check, or none where there is nothing to look at. Its value is the upper quartile over pairs of draws, in
        nats, of what neither the quadrature (12, 24 and 48 nodes, one against the other) nor rounding explains.
    """
    num = jax.tree.leaves(positions)[0].shape[0]
    chosen = np.linspace(0, num - 1, min(num, _NUM_POINTS)).astype(int)
    points = jax.tree.map(lambda x: jnp.asarray(x[chosen]), positions)
    if num < 2 or _belong_together(density, jax.tree.map(lambda x: x[0], points)):
        return []
    return [
        graded_check(
            "log density against its score",
            float(_discrepancy(density, points)),
            warn=_WARN,
            fail=_FAIL,
            cause="The score is not the gradient of the log density: between two draws the one changes by this many "
            "nats more or less than the other says, and draws are accepted by the wrong values.",
            remedy="Let the density and its score come from one function (DensityScore), or, if only the score is "
            "known, take LineIntegralDensity or a sampler that needs no density. A constant in the place of the "
            "density makes every step accepted.",
        )
    ]


def _belong_together(density: AbstractDensityScore, position: Position) -> bool:
    if isinstance(density, AbstractExactDensity | LineIntegralDensity):
        return True
    if not isinstance(density, DensityScore):
        return False
    return not _has_custom_rule(eqx.filter_make_jaxpr(lambda x: density.logdensity(x))(position)[0].jaxpr)


def _has_custom_rule(jaxpr: Any) -> bool:
    """Whether somebody wrote a derivative by hand anywhere in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _CUSTOM:
            return True
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and _has_custom_rule(inner):
                return True
    return False


@eqx.filter_jit
def _discrepancy(density: AbstractDensityScore, points: Position) -> Array:
    others = jax.tree.map(lambda x: jnp.roll(x, max(x.shape[0] // 3, 1), axis=0), points)

    def pair(x: Position, y: Position) -> Array:
        start, end = density.logdensity(x), density.logdensity(y)
        coarse, medium, fine = (line_integral(density, x, y, nodes) for nodes in (_NODES, 2 * _NODES, 4 * _NODES))
        rounding = 100 * jnp.finfo(end.dtype).eps * (jnp.abs(start) + jnp.abs(end) + jnp.abs(fine))
        unresolved = 3 * jnp.maximum(jnp.abs(fine - medium), jnp.abs(fine - coarse))
        return jnp.maximum(jnp.abs(end - start - fine) - unresolved - rounding, 0.0)

    found = jax.vmap(pair)(points, others)
    # Where a value is not finite, other checks say so.
    return jnp.nan_to_num(jnp.nanquantile(jnp.where(jnp.isfinite(found), found, jnp.nan), 0.75))
