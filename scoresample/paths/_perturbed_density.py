"""The exact noised path of a density in closed form."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from scoresample.paths._base import AbstractDensityPath
from scoresample.paths._frame import Frame
from scoresample.paths._perturbed import AbstractPerturbedScore, checked_range
from scoresample.paths._process import AbstractNoiseProcess
from scoresample.scores import AbstractExactDensity, Constrain, Position, Structure

SIGMA_MIN_FRACTION = 0.03
"""Sampling ends where sigma/alpha is this fraction of the smallest scale: 0.1% of its variance."""


def range_to_scale(scale: Array, process: AbstractNoiseProcess) -> Array:
    """The range of log(alpha/sigma) from the process's t=1 to a small fraction of the smallest scale of the data."""
    lowest, highest = (float(process.log_snr(jnp.asarray(t))) for t in (1.0, 0.0))
    return checked_range((lowest, min(highest, -float(jnp.log(SIGMA_MIN_FRACTION * scale)))), process)


class PerturbedDensity(AbstractPerturbedScore, AbstractDensityPath):
    """The exact path of a density in closed form, noised by a process; made by [`perturb`][scoresample.perturb].

    Attributes:
        density: the density at t=0, in standard coordinates.
        process: the noise process.
        log_snr_range: from the process's t=1 to a small fraction of the density's smallest scale.
    """

    density: AbstractExactDensity
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(
        self, density: AbstractExactDensity, process: AbstractNoiseProcess, frame: Frame | None = None
    ) -> None:
        """Noise a density; see [`perturb`][scoresample.perturb].

        Arguments:
            density: the density at t=0, in standard coordinates.
            process: the noise process.
            frame: from standard coordinates to positions; by default they are the same.
        """
        self.density, self.process = density, process
        self.frame = Frame() if frame is None else frame
        self.structure, self.constrain = density.structure, density.constrain
        self.log_snr_range = range_to_scale(density.smallest_scale(), process)

    def _level(self, t: Array) -> AbstractExactDensity:
        return self.density.perturbed(self.process.alpha(t), self.process.variance(t))

    def standard_score(self, z: Position, t: Array) -> Position:
        """The score of the noised density."""
        return self._level(t)(z)

    def standard_logdensity(self, z: Position, t: Array) -> Array:
        """The normalised log density of the noised density."""
        return self._level(t).logdensity(z)

    def data_moments(self) -> tuple[Position, Position]:
        """The density's mean and coordinate variances."""
        return self.density.moments()

    def smallest_scale(self) -> Array:
        """The density's own."""
        return self.density.smallest_scale()

    def condition_axes(self) -> Any:
        """None: nothing is particle by particle."""
        return None
