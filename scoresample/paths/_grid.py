"""Grids: the levels at which a path is evaluated, from noise to data, made on the host in float64."""

from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from scoresample.paths._perturbed import AbstractPerturbedScore, start_log_snr


class Levels(NamedTuple):
    """A decreasing ladder of noise levels, as float64 NumPy arrays of one length.

    Attributes:
        t: times, from near 1 to near 0.
        log_snr: log(alpha/sigma), increasing.
        alpha: scales of the signal.
        sigma: standard deviations of the noise.
    """

    t: np.ndarray
    log_snr: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


def log_snr_grid(path: AbstractPerturbedScore, num_steps: int) -> Levels:
    """Levels uniform in log(alpha/sigma), from the start of sampling to the end of the score's range.

    The start is the noisiest valid level, but not beyond sigma/alpha = 20 data standard deviations: a start from the
    Gaussian with the data's own moments has no visible error there.

    Arguments:
        path: a perturbed score, concrete (not traced).
        num_steps: number of steps, so `num_steps` + 1 levels.

    Returns:
        The ladder of levels.

    Raises:
        TypeError: if the path is traced.
        ValueError: if `num_steps` < 1 or the range is empty.
    """
    check_concrete(path)
    if num_steps < 1:
        raise ValueError(f"`num_steps` must be at least 1, got {num_steps}.")
    start, end = start_log_snr(path), float(path.log_snr_range[1])
    if not start < end:
        raise ValueError(
            f"the score is valid up to log-SNR {end:.3g}, but sampling would start at {start:.3g}: no noise level is "
            "left. Widen `log_snr_range`, or rescale the data (`location`, `scale`)."
        )
    return levels_at(path, np.linspace(start, end, num_steps + 1))


def levels_at(path: AbstractPerturbedScore, log_snr: np.ndarray) -> Levels:
    """The levels at given values of log(alpha/sigma), computed in float64."""
    with jax.enable_x64(True):
        t = np.asarray(path.process.time(jnp.asarray(log_snr, jnp.float64)))
        alpha = np.exp(np.asarray(jax.vmap(path.process.log_alpha)(jnp.asarray(t))))
    return Levels(t, np.asarray(log_snr, np.float64), alpha, alpha * np.exp(-np.asarray(log_snr, np.float64)))


def check_concrete(path: object) -> None:
    """Raise unless a path holds concrete values.

    Raises:
        TypeError: if an array of the path is traced.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(path)):
        raise TypeError(
            "plans are made from concrete values, but this path is traced (inside jit, grad or vmap). Make the plan "
            "outside with `sampler.plan(path, key=key)` and pass it as `sample(..., plan=plan)`."
        )
