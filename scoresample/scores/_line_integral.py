"""A log density recovered from a score alone, by a line integral."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.scores._base import (
    AbstractDensityScore,
    AbstractScore,
    Constrain,
    Position,
    Structure,
    check_structure,
)


def line_integral(score: Callable[[Position], Position], start: Position, end: Position, num_nodes: int) -> Array:
    """The work of a score along a segment, ``integral_0^1 <s(x + u (y - x)), y - x> du``, by Gauss-Legendre quadrature.

    Arguments:
        score: position -> tree like it.
        start: x.
        end: y; the result has its dtype.
        num_nodes: number of quadrature nodes, and of score evaluations.

    Returns:
        A scalar in nats: the difference of the log density between the ends, where the score is a gradient.
    """
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    offset = jax.tree.map(lambda x, o: x - o.astype(x.dtype), end, start)

    def integrand(u: Array) -> Array:
        point = jax.tree.map(lambda x, d: x - (1 - u.astype(x.dtype)) * d, end, offset)
        terms = jax.tree.map(jnp.vdot, score(point), offset)
        return jax.tree.reduce(jnp.add, terms)

    dtype = jnp.result_type(*jax.tree.leaves(end))
    values = jax.vmap(integrand)(jnp.asarray((nodes + 1) / 2, dtype))
    return jnp.asarray(weights / 2, dtype) @ values


class LineIntegralDensity(AbstractDensityScore):
    """The log density of a score, as its line integral from a fixed origin.

    ``log p(x) - log p(o) = integral_0^1 <s(o + u (x - o)), x - o> du`` by Gauss-Legendre quadrature. It makes a
    score usable with Metropolised samplers. It is right when

    * the score is a gradient (its Jacobian is symmetric). A score with a rotational part has no density: the
      integral then depends on the path, and NUTS or MALA are wrong without a sign;
    * the quadrature resolves the segment: with m nodes it is exact for log densities that are polynomials of
      degree up to 2m along it. Put the origin where the mass is;
    * the segment stays where the score is right. A learned score is not, far from its data.

    One value costs `num_nodes` score evaluations; a gradient costs one more.

    Attributes:
        score: the score that is integrated.
        origin: the fixed end of every segment, a position.
        num_nodes: number of quadrature nodes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Score
        >>> bare = Score(lambda x: -x, structure=jnp.zeros(2))
        >>> density = LineIntegralDensity(bare, origin=jnp.zeros(2))
        >>> round(float(density.logdensity(jnp.array([1.0, 2.0]))), 5)
        -2.5
    """

    score: AbstractScore
    origin: Position
    num_nodes: int = eqx.field(static=True)
    structure: Structure
    constrain: Constrain
    init_position: Callable[[Array], Position] | None

    def __init__(self, score: AbstractScore, origin: Position, *, num_nodes: int = 8) -> None:
        """Integrate a score.

        Arguments:
            score: any score.
            origin: a position in the bulk of the density, such as a posterior mean.
            num_nodes: number of Gauss-Legendre nodes on the segment.

        Raises:
            TypeError: if `score` is not a score.
            ValueError: if `origin` does not match the score's structure, or `num_nodes` < 1.
        """
        if not isinstance(score, AbstractScore):
            raise TypeError(f"`score` must be an AbstractScore, got {type(score).__name__}. Wrap functions in Score.")
        if num_nodes < 1:
            raise ValueError(f"`num_nodes` must be at least 1, got {num_nodes}.")
        origin = jax.tree.map(jnp.asarray, origin)
        if score.structure is not None:
            check_structure(origin, score.structure, name="origin")
        self.score = score
        self.origin = origin
        self.num_nodes = num_nodes
        self.structure = score.structure
        self.constrain = score.constrain
        self.init_position = score.init_position

    def logdensity(self, position: Position) -> Array:
        """The integral along the segment from the origin: a scalar, zero at the origin."""
        return line_integral(self.score, self.origin, position, self.num_nodes)

    def quadrature_error(self, position: Position) -> Array:
        """An estimate of the quadrature's error: how far the integral is from the one with twice as many nodes.

        Arguments:
            position: one position, unbatched.

        Returns:
            A scalar in nats, not negative. `jax.vmap` it over draws: where it is not small against 1, raise
            `num_nodes`.
        """
        finer = line_integral(self.score, self.origin, position, 2 * self.num_nodes)
        return jnp.abs(self.logdensity(position) - finer)

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        """The integral and the score itself (not the derivative of the quadrature)."""
        return self.logdensity(position), self.score(position)
