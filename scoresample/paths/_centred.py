"""Conditional scores in coordinates that move with the condition."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scoresample.paths._conditioning import Condition
from scoresample.paths._frame import Frame
from scoresample.paths._perturbed import AbstractPerturbedScore, PerturbedScore
from scoresample.paths._process import AbstractNoiseProcess
from scoresample.scores import Constrain, Position, Structure


class CentredScore(AbstractPerturbedScore):
    """A conditional score of what a regression leaves over: ``position = centre(condition) + mixing z``.

    The score that was learned is that of the residual z, of mean near 0 and covariance near the identity, whatever the
    condition: so is the start of every sampler, and the network need not learn where posteriors lie. Noise is isotropic
    in z, which is the same noise for all conditions.

    Attributes:
        inner: the conditional score of the residual, without a frame of its own.
        centre: (standardised condition) -> vector.
        process: the noise process.
        log_snr_range: levels at which the score is valid.
        frame: residuals -> positions, once a condition was given.
        structure: one position, a vector.
        constrain: position -> named sites.
    """

    inner: PerturbedScore
    centre: Callable[[Any], Array]
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(
        self,
        inner: PerturbedScore,
        centre: Callable[[Any], Array],
        mixing: Float[Array, "d d"],
        *,
        constrain: Constrain,
    ) -> None:
        """Move a score with its condition.

        Raises:
            ValueError: if `inner` has no conditions.
        """
        if inner.conditioning is None:
            raise ValueError("`inner` must be a conditional score: train it with fit_score(data, conditions=...).")
        self.inner, self.centre = inner, centre
        self.process, self.log_snr_range, self.structure = inner.process, inner.log_snr_range, inner.structure
        self.constrain = constrain
        self.frame = Frame(jnp.zeros(mixing.shape[0], mixing.dtype), None, mixing)

    @property
    def record(self) -> Any:
        """The history of the training."""
        return self.inner.record

    def standard_score(self, z: Position, t: Array) -> Position:
        """The score of the residual."""
        return self.inner.standard_score(z, t)

    def data_moments(self) -> tuple[Position, Position]:
        """Zero mean and unit variance."""
        return self.inner.data_moments()

    def smallest_scale(self) -> Array | None:
        """That of the residual."""
        return self.inner.smallest_scale()

    def given(self, condition: Condition) -> "CentredScore":
        """The score under a condition, or under one for each particle; see `PerturbedScore.given`."""
        inner = self.inner.given(condition)
        assert inner.conditioning is not None
        value = inner.conditioning.value
        many = inner.conditioning.particles is not None
        location = _centres(self.centre, value) if many else self.centre(value)
        return eqx.tree_at(_moving, self, (inner, location))

    def condition_axes(self) -> Any:
        """None, or a tree that marks the conditions and the centres where every particle has its own."""
        axes = self.inner.condition_axes()
        if axes is None:
            return None
        everything = jax.tree.map(lambda _: None, self)
        return eqx.tree_at(_moving, everything, (axes, 0), is_leaf=lambda leaf: leaf is None)


def _moving(score: Any) -> Any:
    return score.inner, score.frame.location


@eqx.filter_jit
def _centres(centre: Callable[[Any], Array], values: Any) -> Array:
    return jax.vmap(centre)(values)
