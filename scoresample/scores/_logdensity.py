"""Any score as a log-density function that automatic differentiation gives the score of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from scoresample.scores._base import AbstractDensityScore, AbstractScore, Position
from scoresample.scores._line_integral import LineIntegralDensity


def _with_density(score: AbstractScore, origin: Position | None, num_nodes: int) -> AbstractDensityScore:
    if isinstance(score, AbstractDensityScore):
        if origin is not None:
            raise ValueError(
                f"`origin`: {type(score).__name__} has a log density of its own, so no line integral is taken. Leave "
                "the origin out."
            )
        return score
    if origin is None:
        raise ValueError(
            f"`origin`: {type(score).__name__} is a bare score, whose log density is integrated from an origin. Give a "
            "position in the bulk of the density, such as a mean."
        )
    return LineIntegralDensity(score, origin, num_nodes=num_nodes)


def _densify(primal: Array, tangent: Array | SymbolicZero) -> Array:
    return jnp.zeros_like(primal) if isinstance(tangent, SymbolicZero) else tangent


def logdensity_fn(
    score: AbstractScore, *, origin: Position | None = None, num_nodes: int = 8
) -> Callable[[Position], Array]:
    """Any score as a log-density function whose gradient is the score, for BlackJAX, NumPyro or code of your own.

    The value is the log density where the score has one, and its line integral from `origin` where it has not (see
    [`LineIntegralDensity`][scoresample.LineIntegralDensity] for when that is right). The derivative is taken from the
    score, so one gradient costs one score evaluation, also where differentiating the value would cost more (a line
    integral) or would not give the score.

    A function with the right gradient and a constant value in place of the log density is *wrong* in any sampler that
    accepts or rejects: NUTS then draws a standard normal several times too wide, without one divergence.

    Arguments:
        score: any score.
        origin: where the line integral of a bare score starts: a position in the bulk of the density.
        num_nodes: Gauss-Legendre nodes of the line integral.

    Returns:
        A function position -> scalar with a forward-mode rule, ``tangent = <score, dx>``: `jax.grad`, `jax.jvp`,
        `jax.hessian` and `jax.vmap` work on it, with respect to the position and to the score's parameters: the
        arrays in it, such as the `args` of a `Score`. What its function closes over are constants.

    Raises:
        TypeError: if `score` is not a score.
        ValueError: if a bare score comes without an `origin`, or a density with one.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from scoresample.scores import Score
        >>> bare = Score(lambda x: -x, structure=jnp.zeros(2))
        >>> logdensity = logdensity_fn(bare, origin=jnp.zeros(2))
        >>> value, gradient = jax.value_and_grad(logdensity)(jnp.array([1.0, 3.0]))
        >>> round(float(value), 5), gradient.tolist()
        (-5.0, [-1.0, -3.0])
    """
    if not isinstance(score, AbstractScore):
        raise TypeError(
            f"`score` must be an AbstractScore, got {type(score).__name__}. Wrap a function in Score, or in "
            "DensityScore where it is a log density."
        )
    density = _with_density(score, origin, num_nodes)
    parameters, static = eqx.partition(density, eqx.is_inexact_array)

    @jax.custom_jvp
    def value(parameters: AbstractDensityScore, position: Position) -> Array:
        return eqx.combine(parameters, static).logdensity(position)

    def rule(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
        parameters, position = primals
        parameter_tangents, position_tangent = tangents
        log_p, score_at = eqx.combine(parameters, static).value_and_score(position)
        tangent = jnp.zeros_like(log_p)
        for s, dx in zip(jax.tree.leaves(score_at), jax.tree.leaves(position_tangent), strict=True):
            if not isinstance(dx, SymbolicZero):
                tangent = tangent + jnp.vdot(s, dx).astype(tangent.dtype)
        if not all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(parameter_tangents)):
            dense = jax.tree.map(_densify, parameters, parameter_tangents)
            _, more = jax.jvp(lambda p: eqx.combine(p, static).logdensity(position), (parameters,), (dense,))
            tangent = tangent + more
        return log_p, tangent

    value.defjvp(rule, symbolic_zeros=True)
    return lambda position: value(parameters, position)
