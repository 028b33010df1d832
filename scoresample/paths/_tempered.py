"""The geometric path between a reference density and a target density."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractDensityPath
from scoresample.paths._frame import Frame, make_frame
from scoresample.scores import (
    AbstractDensityScore,
    AbstractExactDensity,
    Constrain,
    Position,
    Structure,
    check_structure,
)


class TemperedPath(AbstractDensityPath):
    """``log p_t = t log reference + (1 - t) log target``, the geometric path (Neal 2001, annealed importance sampling).

    Attributes:
        reference: a density in closed form to draw from at t=1. It should cover the target.
        target: the density at t=0.
        known_lipschitz: a Lipschitz constant of the target's score, or None to let samplers estimate the path's.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.scores import Gaussian
        >>> path = TemperedPath(Gaussian(jnp.zeros(1), 4.0), Gaussian(jnp.ones(1), 1.0))
        >>> path(jnp.array([0.0]), 0.0).tolist()
        [1.0]
    """

    reference: AbstractExactDensity
    target: AbstractDensityScore
    known_lipschitz: Array | None
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(
        self,
        reference: AbstractExactDensity,
        target: AbstractDensityScore,
        *,
        lipschitz: float | None = None,
        scale: Position | None = None,
    ) -> None:
        """Join a reference to a target.

        Arguments:
            reference: a density in closed form, such as a [`Gaussian`][scoresample.Gaussian] wider than the target.
            target: a score with a density, of the same structure.
            lipschitz: a Lipschitz constant of the target's score, if known.
            scale: typical scale of each coordinate, by which the samplers' moves are scaled.

        Raises:
            TypeError: if the reference cannot be drawn from, or the target has no density.
            ValueError: if the structures differ or `lipschitz` is not positive.
        """
        if not isinstance(reference, AbstractExactDensity):
            raise TypeError(
                f"`reference` must be a density with exact draws, such as Gaussian, got {type(reference).__name__}."
            )
        if not isinstance(target, AbstractDensityScore):
            raise TypeError(
                f"`target` must be a score with a density, got {type(target).__name__}. Tempering a bare score between "
                "two densities needs both; for a learned score use its own noised path."
            )
        if target.structure is not None:
            check_structure(reference.structure, target.structure, name="reference", what="density's position")
        if lipschitz is not None and not 0 < lipschitz < float("inf"):
            raise ValueError(f"`lipschitz` must be positive and finite, got {lipschitz}.")
        self.reference, self.target = reference, target
        self.known_lipschitz = None if lipschitz is None else jnp.asarray(lipschitz, dtype=float)
        self.structure = reference.structure
        self.frame = make_frame(None, scale, self.structure)
        self.constrain = target.constrain

    def _mix(self, z: Position, t: Array) -> tuple[Array, Position]:
        position = self.frame.to_position(z)
        value_ref, score_ref = self.reference.value_and_score(position)
        value, score = self.target.value_and_score(position)

        def mix(of_reference: Array, of_target: Array) -> Array:
            time = t.astype(of_target.dtype)
            # At t=1 the target has no say, even where its log density is minus infinity.
            return jnp.where(time == 1, of_reference, time * of_reference + (1 - time) * of_target)

        return mix(value_ref, value), jax.tree.map(mix, score_ref, score)

    def standard_score(self, z: Position, t: Array) -> Position:
        """``t s_reference + (1 - t) s_target``, scaled by the frame."""
        return self.frame.score_to_standard(self._mix(z, t)[1])

    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """``t log reference + (1 - t) log target`` in standard coordinates, up to a constant."""
        value = self._mix(z, t)[0]
        return value + self.frame.log_volume(self.structure).astype(value.dtype)

    def sample_reference(self, key: Array, num_particles: int, t: Array | float = 1.0) -> Position:
        """Exact draws of the reference (whatever t), in standard coordinates."""
        return jax.vmap(self.frame.to_standard)(self.reference.sample(key, num_particles))

    def lipschitz(self, t: Array) -> Array | None:
        """``t L_reference + (1 - t) L_target`` in positions with unit scale, or None where L_target is not known."""
        if self.known_lipschitz is None:
            return None
        largest = max_leaf(self.frame.scale) ** 2 if self.frame.scale is not None else jnp.ones(())
        reference = 1 / self.reference.smallest_scale() ** 2
        return largest * (t * reference + (1 - t) * self.known_lipschitz)

    def condition_axes(self) -> Any:
        """None: nothing is particle by particle."""
        return None


def max_leaf(tree: Position) -> Array:
    """The largest entry of a tree."""
    return jax.tree.reduce(jnp.maximum, jax.tree.map(jnp.max, tree))
