"""Perturbed scores that are gradients by construction: those of a family of log densities."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractDensityPath
from scoresample.paths._conditioning import (
    Condition,
    Conditioning,
    condition_like,
    conditioning_axes,
    given,
    given_condition,
    make_conditioning,
)
from scoresample.paths._frame import Frame, make_frame
from scoresample.paths._perturbed import AbstractPerturbedScore, checked_range, unit_moments
from scoresample.paths._process import AbstractNoiseProcess, check_process
from scoresample.paths._record import recorded_scale
from scoresample.scores import Constrain, Position, Structure, named_sites, structure_of


class PerturbedEnergy(AbstractPerturbedScore, AbstractDensityPath):
    """A perturbed score that is the gradient of a log density, such as that of an energy network.

    `fn` gives the log density of data with noise of standard deviation s added, ``log p_s(y)``, in standard
    coordinates; the score is its derivative, so its Jacobian is symmetric, and Metropolised samplers run on any level,
    ``path.at(t)``. The log density is as good as it was learned: learned from draws alone, the weights of modes that
    are far apart at low noise are not reliable.

    With ``condition=`` it is the conditional law's: `fn` takes the standardised condition after s, and
    ``energy.given(condition)`` is the energy under one condition, or under one for each particle of a run.

    Attributes:
        fn: ``fn(y, s, *args) -> log p_s(y)``, a scalar, up to a constant for each s (and each condition).
        args: further arguments of `fn`.
        process: the noise process.
        log_snr_range: levels at which it is valid.
        frame: the standardisation that was used in training.
        record: the history of the training, or None.
        conditioning: the shapes, the standardisation and the value of conditions; None where there are none.

    Examples:
        >>> import jax.numpy as jnp
        >>> from scoresample.paths import VE
        >>> def standard_normal(y, s):
        ...     return -0.5 * jnp.sum(y**2) / (1 + s**2) - jnp.log(2 * jnp.pi * (1 + s**2))
        >>> path = PerturbedEnergy(standard_normal, VE(), structure=jnp.zeros(2))
        >>> path.at(0.0)(jnp.array([1.0, -1.0])).round(3).tolist()
        [-1.0, 1.0]
    """

    fn: Callable[..., Array]
    args: tuple[Any, ...]
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain
    record: Any = eqx.field(static=True)
    conditioning: Conditioning | None

    def __init__(
        self,
        fn: Callable[..., Array],
        process: AbstractNoiseProcess,
        *,
        structure: Position,
        args: tuple[Any, ...] = (),
        log_snr_range: tuple[float, float] | None = None,
        location: Position | None = None,
        scale: Position | None = None,
        constrain: Constrain = named_sites,
        record: Any = None,
        condition: Condition = None,
        condition_location: Condition = None,
        condition_scale: Condition = None,
    ) -> None:
        """Wrap a log density.

        Arguments:
            fn: ``fn(y, s, *args) -> scalar``, unbatched; y = z/alpha, s = sigma/alpha.
            process: any noise process: it is only a clock and a scale.
            structure: one position, or its tree of `jax.ShapeDtypeStruct`.
            args: passed to `fn` after the level; arrays here are traced.
            log_snr_range: (lowest, highest) log(alpha/sigma) at which it is valid; see
                [`PerturbedScore`][scoresample.PerturbedScore].
            location: the data's mean that was subtracted before training.
            scale: the data's standard deviation by which it was divided.
            constrain: position -> named sites.
            record: the history of the training, to keep with the score.
            condition: for a conditional law: one condition, or its tree of `jax.ShapeDtypeStruct`.
            condition_location: what is subtracted from conditions, a tree like one or a number.
            condition_scale: what they are then divided by, likewise.

        Raises:
            TypeError: if `fn` is no function or `process` no noise process.
            ValueError: if the shapes do not fit, or `fn` does not return a scalar.
        """
        if not callable(fn):
            raise TypeError(f"`fn` must be a function of (y, s), got {type(fn).__name__}.")
        check_process(process)
        self.fn, self.args, self.process = fn, tuple(args), process
        self.structure = structure_of(structure)
        self.frame = make_frame(location, scale, self.structure)
        self.constrain, self.record = constrain, record
        self.log_snr_range = checked_range(log_snr_range, process)
        dtype = jnp.result_type(*jax.tree.leaves(self.structure))
        self.conditioning = make_conditioning(condition, condition_location, condition_scale)
        like = condition_like(self.conditioning, dtype)
        output = jax.eval_shape(self.fn, self.structure, jax.ShapeDtypeStruct((), dtype), *like, *self.args)
        if jax.tree.structure(output) != jax.tree.structure(0) or output.shape != ():
            raise ValueError(f"`fn` must return a scalar, the log density at one unbatched point, but got {output}.")

    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """``log p_s(z/alpha) - d log alpha``, up to a constant for each level."""
        alpha = self.process.alpha(t)
        size = sum(leaf.size for leaf in jax.tree.leaves(z))
        condition = given_condition(self.conditioning, z)
        value = self.fn(jax.tree.map(lambda x: x / alpha, z), self.process.sigma(t) / alpha, *condition, *self.args)
        return value - size * self.process.log_alpha(t)

    def standard_score(self, z: Position, t: Array) -> Position:
        """The derivative of the log density."""
        return jax.grad(self.standard_logdensity)(z, t)

    def data_moments(self) -> tuple[Position, Position]:
        """Zero mean and unit variance: the meaning of standard coordinates."""
        return unit_moments(self.structure)

    def smallest_scale(self) -> Array | None:
        """The one that `fit_score` found in the training data, if there is a record of it."""
        return recorded_scale(self.record)

    def given(self, condition: Condition) -> "PerturbedEnergy":
        """The energy under a condition; see [`PerturbedScore.given`][scoresample.PerturbedScore.given].

        Raises:
            TypeError: if it holds anything but real numbers.
            ValueError: if this is no conditional law, a shape does not fit, or a number is not finite.
        """
        return given(self, condition)

    def condition_axes(self) -> Any:
        """None, or a tree that marks the conditions where every particle has its own."""
        return conditioning_axes(self)
