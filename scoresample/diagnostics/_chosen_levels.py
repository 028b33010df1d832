"""The noise levels that a perturbed score is measured at."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scoresample.paths import AbstractPerturbedScore, Levels, levels_at, noise_levels


def chosen_levels(score: AbstractPerturbedScore, levels: Any, number: int) -> Levels:
    """The levels to look at, from noise to data: those given, or so many over the range that samplers use.

    Raises:
        ValueError: if the levels are no times in (0, 1], or outside the score's range.
    """
    if levels is None:
        return noise_levels(score, number - 1)
    times = np.unique(np.asarray(levels, np.float64))[::-1]
    if np.ndim(levels) != 1 or times.size == 0 or not (times[-1] > 0 and times[0] <= 1):
        raise ValueError(
            f"`levels` must be a list of times in (0, 1], got {levels!r}. Leave it out for {number} of them."
        )
    with jax.enable_x64(True):
        log_snr = np.asarray(jax.vmap(score.process.log_snr)(jnp.asarray(times, jnp.float64)))
    low, high = (float(end) for end in score.log_snr_range)
    if log_snr[0] < low - 1e-4 or log_snr[-1] > high + 1e-4:
        first, last = (float(t) for t in levels_at(score, np.array([low, high])).t)
        raise ValueError(
            f"`levels`: the score is valid from t={first:.6g} to t={last:.6g}, but the times go from {times[0]:.6g} to "
            f"{times[-1]:.6g}."
        )
    return levels_at(score, log_snr)
