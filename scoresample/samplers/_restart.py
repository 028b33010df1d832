"""Restart: Heun steps down the ladder, and several times back up with fresh noise."""

import dataclasses

import equinox as eqx
import numpy as np

from scoresample.paths import AbstractPerturbedScore, Levels, karras_ratios
from scoresample.samplers._doors import check_at_least
from scoresample.samplers._heun import AbstractHeun, HeunLadder

_SAME_LEVEL = 1e-6
"""Times in single precision give levels that differ by this much, relatively."""


class Restart(AbstractHeun):
    """The probability-flow ODE by Heun's method, with jumps back up to a higher noise level on the way.

    In the coordinates ``y = z/alpha`` with ``s = sigma/alpha``, `low` and `high` are values of s. Particles go down the
    ladder of the grid. At the first level s_low that is at or below `low`, `num_restarts` times: they get fresh noise,
    ``y <- y + sqrt(high^2 - s_low^2) z``, which takes them to `high`, and go down again to s_low in `num_restart_steps`
    Heun steps, uniform in ``s^(1/7)``. Then the rest of the ladder follows.

    Noise up and ODE down leave the noised law at s_low as it is, to order 2 in the steps, so the bias is that of Heun's
    method; each round forgets some of every error that was made above, of the start, the score or the steps. In a
    direction of variance v an error of the mean shrinks by ``sqrt((v + s_low^2)/(v + high^2))`` a round, and one of the
    variance by its square: what is wrong between modes that are a distance apart needs a `high` near that distance.
    Errors of the score between the two levels are made again in every round.

    Cost: ``2 (num_steps + num_restarts * num_restart_steps)`` evaluations.

    Source: Xu et al. 2023, arXiv 2306.14878, algorithm 1, with one interval.

    Attributes:
        low: the level from which particles go back up, in units of the standardised data.
        high: the level to which they go. The defaults, 0.1 and 0.6, are near twice the 0.06 and 0.3 that the paper took
            for images of standard deviation 0.5.
        num_restarts: how many times.
        num_restart_steps: Heun steps of each way down. On Gaussians of any variance 6 of them and the default levels
            leave standard deviations 1% too wide at most on a ladder with a level at `low`, 4 of them 2.5%.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import scoresample as ss
        >>> path = ss.perturb(ss.Gaussian(jnp.ones(2), 0.5), ss.VP())
        >>> sampler = ss.ReverseSDE(num_steps=18, solver=ss.Restart(num_restarts=2, num_restart_steps=3), grid="karras")
        >>> ss.sample(path, sampler, key=jax.random.key(0), num_samples=25).nfe  # 2 (18 + 2 * 3), and 1 to denoise
        49.0
    """

    low: float = eqx.field(static=True, default=0.1)
    high: float = eqx.field(static=True, default=0.6)
    num_restarts: int = eqx.field(static=True, default=4)
    num_restart_steps: int = eqx.field(static=True, default=6)

    def __check_init__(self) -> None:
        """Check the settings."""
        check_at_least(1, num_restarts=self.num_restarts, num_restart_steps=self.num_restart_steps)
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(
                "`low` and `high` must be two increasing noise levels sigma/alpha, got "
                f"low={self.low} and high={self.high}."
            )

    def evaluations(self, num_steps: int) -> int:
        """Two a step, on the ladder and on every way down again."""
        return 2 * (num_steps + self.num_restarts * self.num_restart_steps)

    def is_noisy(self) -> bool:
        """Always."""
        return True

    def ladder(self, path: AbstractPerturbedScore, levels: Levels) -> HeunLadder:
        """The ladder's steps, with the restarts after the step that reaches `low`."""
        del path
        s = np.exp(-levels.log_snr)
        if self.high > s[0] * (1 + _SAME_LEVEL) or self.low < s[-1] * (1 - _SAME_LEVEL):
            raise ValueError(
                f"`low` and `high`: the ladder goes from sigma/alpha = {s[0]:.4g} down to {s[-1]:.4g}, and the restart "
                f"interval, from {self.low:.4g} to {self.high:.4g}, must lie within."
            )
        reached = int(np.argmax(s <= self.low * (1 + _SAME_LEVEL)))
        high = min(self.high, float(s[0]))
        again = karras_ratios(high, float(s[reached]), self.num_restart_steps)
        noise = np.append(np.sqrt(high**2 - s[reached] ** 2), np.zeros(self.num_restart_steps - 1))
        # Each column of (from, to, noise): the ladder down to `low`, the restarts, and the rest of the ladder.
        down = np.stack([s[:-1], s[1:], np.zeros(s.size - 1)])
        restarts = np.tile(np.stack([again[:-1], again[1:], noise]), self.num_restarts)
        return HeunLadder(*np.concatenate([down[:, :reached], restarts, down[:, reached:]], axis=1))

    def refined(self, factor: int) -> "Restart":
        """The same restarts with `factor` times as many steps on each way down."""
        return dataclasses.replace(self, num_restart_steps=factor * self.num_restart_steps)
