"""Does sampling stop at little enough noise for the data."""

import math

from scoresample.checks._check import Check, graded_check

_WARN, _FAIL = 0.1, 0.5
"""Noise over the data's smallest scale: half a percent of a standard deviation, and 12 percent."""


def stop_check(noise_left: float, smallest_scale: float) -> Check:
    """Hold the noise of the last level against the narrowest part of the data.

    With r their ratio, a standard deviation there comes out ``sqrt(1 + r^2)`` times too large, or, after a last move
    to the posterior mean, too small.

    Arguments:
        noise_left: sigma/alpha where sampling stopped, in standard coordinates.
        smallest_scale: the smallest standard deviation of the data there.

    Returns:
        The check.

    Examples:
        >>> stop_check(0.03, 1.0).passed, stop_check(0.2, 1.0).severity
        (True, 'warn')
    """
    ratio = noise_left / smallest_scale
    return graded_check(
        "noise left where sampling stopped, over the data's smallest scale",
        ratio,
        warn=_WARN,
        fail=_FAIL,
        cause=f"Sampling stopped at noise of {ratio:.2g} times the data's smallest scale: the narrowest parts of the "
        f"draws are {math.sqrt(1 + ratio**2) - 1:.1%} too wide, or, denoised at the end, too narrow by as much.",
        remedy="Stop at less noise: leave `delta` out or make it smaller; where the score itself ends there, let it "
        "reach further down (`sigma_range` of fit_score, `log_snr_range`, the process's `sigma_min`).",
    )
