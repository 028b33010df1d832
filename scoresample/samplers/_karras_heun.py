"""Heun steps with churn."""

import equinox as eqx
import numpy as np

from scoresample.paths import AbstractPerturbedScore, Levels
from scoresample.samplers._heun import AbstractHeun, HeunLadder

_MOST_CHURN = np.sqrt(2) - 1
"""Karras et al. 2022, algorithm 2: no step more than doubles the variance of the noise."""


class KarrasHeun(AbstractHeun):
    """Heun's method for ``dy/ds = (y - D(y, s))/s``, s = sigma/alpha, after adding a little noise ("churn").

    Each step raises the noise level from s to ``s (1 + gamma)``, ``gamma = min(churn/num_steps, sqrt(2) - 1)``, with
    fresh noise, and goes down from there to the next level by Heun's method: two evaluations a step. Without churn it
    is a solver of the probability-flow ODE, of order 2 in the step; with it a stochastic sampler whose churn forgets
    errors of the steps before (its bias tends to 0 with the steps, for an exact score).

    Source: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2. It was made for the grid ``"karras"``.

    Attributes:
        churn: their S_churn, at least 0.
        churn_range: noise levels s between which there is churn: their (S_tmin, S_tmax).
        inflation: factor of the churn's noise, their S_noise.

    Examples:
        >>> import scoresample as ss
        >>> sampler = ss.ReverseSDE(num_steps=40, solver=ss.KarrasHeun(churn=10.0), grid="karras")
    """

    churn: float = eqx.field(static=True, default=0.0)
    churn_range: tuple[float, float] = eqx.field(static=True, default=(0.0, float("inf")))
    inflation: float = eqx.field(static=True, default=1.0)

    def __check_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.churn < float("inf"):
            raise ValueError(f"`churn` must be at least 0, got {self.churn}.")
        if not 0 <= self.churn_range[0] < self.churn_range[1]:
            raise ValueError(f"`churn_range` must be two increasing noise levels, got {self.churn_range}.")
        if not 0 < self.inflation < float("inf"):
            raise ValueError(f"`inflation` must be positive, got {self.inflation}.")

    def evaluations(self, num_steps: int) -> int:
        """Two a step."""
        return 2 * num_steps

    def is_noisy(self) -> bool:
        """Whether it churns."""
        return self.churn > 0

    def ladder(self, path: AbstractPerturbedScore, levels: Levels) -> HeunLadder:
        """Each step from its level after the churn, which never leaves the range in which the score is valid."""
        s = np.exp(-levels.log_snr)
        low, high = self.churn_range
        gamma = np.where((low <= s[:-1]) & (s[:-1] <= high), min(self.churn / (s.size - 1), _MOST_CHURN), 0.0)
        raised = np.maximum(np.minimum(s[:-1] * (1 + gamma), np.exp(-float(path.log_snr_range[0]))), s[:-1])
        return HeunLadder(raised, s[1:], self.inflation * np.sqrt(raised**2 - s[:-1] ** 2))
