"""The Lipschitz constant of a path's score at a level, estimated from particles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractScorePath, of_particles
from scoresample.scores import Position

_NUM_PARTICLES = 32
_NUM_ITERATIONS = 12


def estimate_lipschitz(path: AbstractScorePath, particles: Position, t: Array, *, key: Array) -> Array:
    """The largest singular value of the standard score's Jacobian over some particles, by power iteration.

    The Jacobian of a true score is symmetric, so one forward-mode product per iteration suffices. Twelve iterations on
    at most 32 particles give a lower bound that is close where the spectrum has a gap or the dimension is small.

    Arguments:
        path: the path.
        particles: points in standard coordinates with a leading axis; the first 32 are used.
        t: the level.
        key: random key of the starting directions.

    Returns:
        A positive scalar.
    """
    some = jax.tree.map(lambda x: x[:_NUM_PARTICLES], particles)
    leaves, tree = jax.tree.flatten(some)
    keys = jax.random.split(key, len(leaves))
    directions = tree.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])

    def norm(v: Position) -> Array:
        return jnp.sqrt(jax.tree.reduce(jnp.add, jax.tree.map(lambda a: jnp.sum(a**2), v)))

    def largest(path: AbstractScorePath, z: Position, v: Position) -> Array:
        def body(carry: tuple[Position, Array], _: None) -> tuple[tuple[Position, Array], None]:
            v, size = carry
            v = jax.tree.map(lambda a: a / size, v)
            _, product = jax.jvp(lambda z: path.standard_score(z, t), (z,), (v,))
            size = jnp.maximum(norm(product), jnp.finfo(size.dtype).tiny ** 0.5)
            return (product, size), None

        (_, size), _ = jax.lax.scan(body, (v, norm(v)), None, length=_NUM_ITERATIONS)
        return size

    path = of_particles(path, slice(_NUM_PARTICLES))
    return jnp.max(jax.vmap(largest, in_axes=(path.condition_axes(), 0, 0))(path, some, directions))
