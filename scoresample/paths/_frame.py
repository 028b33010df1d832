"""The coordinates in which a path's particles move."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.scores import Position, Structure, check_structure


class Frame(eqx.Module):
    """An affine change of coordinates, ``position = location + scale * (mixing z)``.

    Paths are defined and sampled in the standard coordinates z, where learned scores have data of unit scale and the
    noise is isotropic. Users see positions. Without location, scale and mixing the two are the same.

    Attributes:
        location: tree like a position, or None for 0.
        scale: tree like a position, positive, or None for 1: what each coordinate is multiplied by.
        mixing: for positions that are one vector: an invertible matrix, (d, d), or None for the identity.

    Examples:
        >>> import jax.numpy as jnp
        >>> frame = Frame(jnp.array([10.0]), jnp.array([2.0]))
        >>> frame.to_standard(jnp.array([14.0])).tolist()
        [2.0]
    """

    location: Position | None = None
    scale: Position | None = None
    mixing: Array | None = None

    def to_standard(self, position: Position) -> Position:
        """``mixing^-1 ((position - location) / scale)``."""
        if self.location is not None:
            position = jax.tree.map(lambda x, m: x - m.astype(x.dtype), position, self.location)
        if self.scale is not None:
            position = jax.tree.map(lambda x, s: x / s.astype(x.dtype), position, self.scale)
        if self.mixing is not None:
            position = jnp.linalg.solve(self.mixing.astype(position.dtype), position)
        return position

    def to_position(self, standard: Position) -> Position:
        """``location + scale * (mixing standard)``."""
        if self.mixing is not None:
            standard = self.mixing.astype(standard.dtype) @ standard
        if self.scale is not None:
            standard = jax.tree.map(lambda z, s: z * s.astype(z.dtype), standard, self.scale)
        if self.location is not None:
            standard = jax.tree.map(lambda z, m: z + m.astype(z.dtype), standard, self.location)
        return standard

    def score_to_position(self, standard_score: Position) -> Position:
        """The score in positions from that in standard coordinates: ``mixing^-T`` of it, divided by the scale."""
        if self.mixing is not None:
            standard_score = jnp.linalg.solve(self.mixing.astype(standard_score.dtype).T, standard_score)
        if self.scale is None:
            return standard_score
        return jax.tree.map(lambda g, s: g / s.astype(g.dtype), standard_score, self.scale)

    def score_to_standard(self, score: Position) -> Position:
        """The score in standard coordinates from that in positions: ``mixing^T`` of it times the scale."""
        if self.scale is not None:
            score = jax.tree.map(lambda g, s: g * s.astype(g.dtype), score, self.scale)
        return score if self.mixing is None else self.mixing.astype(score.dtype).T @ score

    def log_volume(self, structure: Structure) -> Array:
        """``log |d position / d z|``, a scalar: the logarithms of the scale and of the mixing's determinant."""
        volume = jnp.zeros((), jnp.result_type(*jax.tree.leaves(structure)))
        if self.mixing is not None:
            volume = volume + jnp.linalg.slogdet(self.mixing)[1].astype(volume.dtype)
        if self.scale is None:
            return volume
        logs = jax.tree.map(lambda s, leaf: jnp.sum(jnp.log(jnp.broadcast_to(s, leaf.shape))), self.scale, structure)
        return volume + jax.tree.reduce(jnp.add, logs)


def make_frame(location: Position | None, scale: Position | None, structure: Structure, *, prefix: str = "") -> Frame:
    """A checked [`Frame`][scoresample.paths.Frame] for positions of a structure.

    Arguments:
        location: tree like a position, a single number for all coordinates, or None.
        scale: likewise, positive.
        structure: the positions' tree of `jax.ShapeDtypeStruct`.
        prefix: what goes before the names in messages.

    Raises:
        ValueError: if a shape does not fit, a value is not finite or a scale is not positive.
    """

    def complete(value: Position | None, name: str) -> Position | None:
        if value is None:
            return None
        if isinstance(value, int | float):
            number = float(value)
            value = jax.tree.map(lambda leaf: jnp.full(leaf.shape, number, leaf.dtype), structure)
        check_structure(value, structure, name=name, what="tree")
        value = jax.tree.map(lambda v, leaf: jnp.asarray(v, leaf.dtype), value, structure)
        if not all(bool(jnp.all(jnp.isfinite(v))) for v in jax.tree.leaves(value)):
            raise ValueError(f"`{name}` must be finite.")
        return value

    scale = complete(scale, f"{prefix}scale")
    if scale is not None and not all(bool(jnp.all(s > 0)) for s in jax.tree.leaves(scale)):
        raise ValueError(
            f"`{prefix}scale` must be positive. A coordinate that never varies cannot be standardised: drop it."
        )
    return Frame(complete(location, f"{prefix}location"), scale)
