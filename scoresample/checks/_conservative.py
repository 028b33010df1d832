"""Is a score a gradient at all: the antisymmetric part of its Jacobian, and its integral around closed loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.checks._check import Check, graded_check
from scoresample.scores import AbstractScore, LineIntegralDensity, Position, line_integral, random_like

_NUM_POINTS = 64
"""Positions that the checks of a run look at."""
_WARN_ASYMMETRY, _FAIL_ASYMMETRY = 0.05, 0.2
_WARN_LOOP, _FAIL_LOOP = 0.1, 0.5
"""In nats: an error of 0.1 in a log density moves a probability by a tenth of itself."""


def asymmetry(score: AbstractScore, positions: Position, *, key: Array | None = None) -> float:
    """The share of a score's Jacobian J that no log density can have: ``|J - J^T|_F / (2 |J|_F)``.

    0 for the gradient of a density, whose Jacobian is a Hessian and so symmetric; 1 for a pure rotation. The norms are
    estimated over the positions with one random direction each (Hutchinson), in units of the positions' standard
    deviations. It costs one Jacobian-vector and one vector-Jacobian product for each position.

    Arguments:
        score: any score, learned or written.
        positions: where to look, with a leading axis of length n: draws, or data.
        key: random key of the directions; a fixed one by default.

    Returns:
        A number between 0 and 1.

    Raises:
        TypeError: if `score` is not a score.
        ValueError: if the positions have no leading axis, or differ in its length.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Score
        >>> turning = Score(lambda x: jnp.array([-x[0] - x[1], x[0] - x[1]]), structure=jnp.zeros(2))
        >>> round(asymmetry(turning, jnp.eye(2)), 4)
        0.7071
    """
    if not isinstance(score, AbstractScore):
        raise TypeError(f"`score` must be an AbstractScore, got {type(score).__name__}. Wrap functions in Score.")
    positions = jax.tree.map(jnp.asarray, positions)
    _check_batch(positions)
    return float(_asymmetry(score, positions, jax.random.key(0) if key is None else key))


def loop_integral(score: AbstractScore, corners: Position, *, num_nodes: int = 8) -> Array:
    """The integral of a score around a closed polygon, ``sum_k integral <s, dx>`` from corner k to corner k + 1.

    0 for the gradient of a density, up to quadrature. In nats, it is how far two ways of integrating the score to a log
    density disagree.

    Arguments:
        score: any score.
        corners: the polygon's corners in order, with a leading axis of length at least 3; the last is joined to the
            first.
        num_nodes: Gauss-Legendre nodes on each side.

    Returns:
        A scalar.

    Raises:
        ValueError: if there are fewer than three corners.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Score
        >>> turning = Score(lambda x: jnp.array([-x[1], x[0]]), structure=jnp.zeros(2))
        >>> triangle = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> round(float(loop_integral(turning, triangle)), 4)  # twice the enclosed area
        1.0
    """
    corners = jax.tree.map(jnp.asarray, corners)
    if _check_batch(corners) < 3:
        raise ValueError("`corners` must have a leading axis of at least 3 corners: two enclose nothing.")

    def side(start: Position, end: Position) -> Array:
        return line_integral(score, start, end, num_nodes)

    return jnp.sum(jax.vmap(side)(corners, jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), corners)))


def conservative_checks(density: LineIntegralDensity, positions: Position, *, key: Array) -> list[Check]:
    """Whether a line integral is a log density where a run went: asymmetry, and loops through the origin.

    Arguments:
        density: the line integral that a sampler accepted and rejected with.
        positions: draws with a leading axis; at most 64 of them, evenly spread, are looked at.
        key: random key.

    Returns:
        Two checks. The loops go from the origin to one draw, to another and back; their root mean square also holds
        the error of the quadrature.
    """
    num = jax.tree.leaves(positions)[0].shape[0]
    chosen = np.linspace(0, num - 1, min(num, _NUM_POINTS)).astype(int)
    points = jax.tree.map(lambda x: jnp.asarray(x[chosen]), positions)
    share, loop = _measure(density, points, key)
    return [
        graded_check(
            "asymmetry of the score",
            float(share),
            warn=_WARN_ASYMMETRY,
            fail=_FAIL_ASYMMETRY,
            cause="The score's Jacobian is not symmetric, so the score is no gradient: there is no density that these "
            "draws could be from.",
            remedy="Train the score better or as the gradient of a scalar network, or use a sampler that needs no "
            "density (ULA, MCLMC, a path sampler).",
        ),
        graded_check(
            "loop integral of the score",
            float(loop),
            warn=_WARN_LOOP,
            fail=_FAIL_LOOP,
            cause="The log density between two draws depends on the way it is integrated along, by this many nats: the "
            "score is no gradient, or the quadrature does not resolve it.",
            remedy="Raise `num_nodes` of the LineIntegralDensity; if that does not help, the score is at fault.",
        ),
    ]


@eqx.filter_jit
def _measure(density: LineIntegralDensity, points: Position, key: Array) -> tuple[Array, Array]:
    others = jax.tree.map(lambda x: jnp.roll(x, x.shape[0] // 2, axis=0), points)

    def loop(x: Position, y: Position) -> Array:
        corners = jax.tree.map(lambda o, a, b: jnp.stack([o.astype(a.dtype), a, b]), density.origin, x, y)
        return loop_integral(density.score, corners, num_nodes=density.num_nodes)

    return _asymmetry(density.score, points, key), jnp.sqrt(jnp.mean(jax.vmap(loop)(points, others) ** 2))


@eqx.filter_jit
def _asymmetry(score: AbstractScore, positions: Position, key: Array) -> Array:
    scales = jax.tree.map(_scale, positions)
    num = jax.tree.leaves(positions)[0].shape[0]

    def one(position: Position, key: Array) -> tuple[Array, Array]:
        direction = random_like(key, position)
        scaled = jax.tree.map(jnp.multiply, scales, direction)
        _, forward = jax.jvp(score, (position,), (scaled,))
        _, pull = jax.vjp(score, position)
        (backward,) = pull(scaled)
        forward, backward = (jax.tree.map(jnp.multiply, scales, product) for product in (forward, backward))
        difference = jax.tree.map(jnp.subtract, forward, backward)
        return _square(difference), _square(forward) + _square(backward)

    antisymmetric, whole = jax.vmap(one)(positions, jax.random.split(key, num))
    return jnp.sqrt(jnp.sum(antisymmetric) / jnp.maximum(2 * jnp.sum(whole), jnp.finfo(whole.dtype).tiny))


def _scale(values: Array) -> Array:
    """Standard deviations over the leading axis; 1 where there is no spread."""
    spread = jnp.std(values, axis=0)
    return jnp.where(spread > 0, spread, 1.0)


def _square(tree: Position) -> Array:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x: jnp.sum(x**2), tree))


def _check_batch(positions: Position) -> int:
    lengths = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else None for leaf in jax.tree.leaves(positions)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "`positions` must be a tree of arrays with one common leading axis, got shapes "
            f"{[jnp.shape(leaf) for leaf in jax.tree.leaves(positions)]}."
        )
    return lengths.pop() or 0
