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


class PerturbedDensity(AbstractPerturbedScore, AbstractDensityPath):
    """The exact path of a density in closed form, noised by a process; made by [`perturb`][scoresample.perturb].

    Attributes:
        density: the density at t=0.
        process: the noise process.
        log_snr_range: from the process's t=1 to a small fraction of the density's smallest scale.
    """

    density: AbstractExactDensity
    process: AbstractNoiseProcess
    log_snr_range: Array
    frame: Frame
    structure: Structure
    constrain: Constrain

    def __init__(self, density: AbstractExactDensity, process: AbstractNoiseProcess) -> None:
        """Noise a density; see [`perturb`][scoresample.perturb]."""
        self.density, self.process = density, process
        self.frame = Frame()
        self.structure, self.constrain = density.structure, density.constrain
        end = -float(jnp.log(SIGMA_MIN_FRACTION * density.smallest_scale()))
        end = min(end, float(process.log_snr(jnp.asarray(0.0))))
        self.log_snr_range = checked_range((float(process.log_snr(jnp.asarray(1.0))), end), process)

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

    def condition_axes(self) -> Any:
        """None: nothing is particle by particle."""
        return None
