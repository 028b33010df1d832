"""Does sampling stop at little enough noise for the data."""

import math

from scoresample.checks._check import Check, graded_check

_WARN, _FAIL = 0.1, 0.5
"""Noise over the data's smallest scale: half a percent of a standard deviation, and 12 percent."""
_SPACING_WARN, _SPACING_FAIL = 1.0, 0.3
"""Noise over the spacing of points. Of the draws of the score of 3,000 normal points in 2, 5 and 20 dimensions,
denoised at the end, so many lay three times nearer to one point than to the next (by chance: 11%, .3%, 0):

    noise/spacing     2       1       .5      .3      .1
    2-d               16%     29%     59%     79%     98%
    5-d               .4%     2.4%    28%     75%     100%
    20-d              0       0       .6%     35%     100%
"""


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


def point_stop_check(noise_left: float, spacing: float) -> Check:
    """Hold the noise of the last level against the spacing of the points that a path consists of.

    The exact score of points with noise gives back the points where the noise is small against their spacing.

    Arguments:
        noise_left: sigma/alpha where sampling stopped, in standard coordinates; with a bandwidth h of the points
            ``sqrt((sigma/alpha)^2 + h^2)``.
        spacing: median distance of a point to its nearest neighbour there.

    Returns:
        The check.

    Examples:
        >>> point_stop_check(2.0, 1.0).passed, point_stop_check(0.1, 1.0).severity
        (True, 'fail')
    """
    ratio = noise_left / spacing
    return graded_check(
        "noise left where sampling stopped, over the spacing of the points behind the score",
        ratio,
        warn=_SPACING_WARN,
        fail=_SPACING_FAIL,
        smaller_is_better=False,
        cause=f"The score is that of a set of points, and sampling went on to noise of {ratio:.2g} times the distance "
        "between neighbours: draws are these points again, more or less.",
        remedy="Stop at more noise (`delta`), smooth the points (`bandwidth` of perturb), or learn the score from them "
        "with fit_score.",
    )
