"""What the memorisation of a run is held against."""

from scoresample.checks import Check, graded_check

_STANDARD_ERRORS = 3.0
"""Differences within so many standard errors are taken for chance."""

# Each pair is (warn, fail). They were chosen with 1,000 draws, training points and held-out points of a circle in R^20,
# a torus, two modes in 5-d and standard normals in 10-d and 50-d, three seeds each, by lower bounds of the excess and
# of the probability and the ratio of median distances. Draws were exact; training points with noise of .05, .5 and 1
# times their spacing (along circle and torus); exact, but for a share of copies; exact, but shrunk by .8 (last 3 laws):
#                    exact      noise .05   noise .5   noise 1    10% copies   50% copies   shrunk
#   excess           0          .54-1.0     0-.25      0-.05      .01-.07      .25-.46      0, 0, 0
#   probability      .45-.47    .96-1.0     .78-1.0    .48-.68    .50-.52      .71-.73      .48, .65, .87
#   distances        .98-1.01   .03-.05     .27-.50    .43-.99    .82-.99      .09-.42      .95, .88, .89
_COPIES_LIMITS = (0.05, 0.2)
_NEARER_LIMITS = (0.6, 0.75)

_NEAR = 0.7
"""Ratio of median distances from which on draws that are nearer may just be too narrow a sample, which only warns."""

_REMEDY = (
    "Train on more data, stop the training earlier (where the held-out loss is least) or use a smaller network; with "
    "the score of the training points themselves, stop the sampler at more noise (a larger `delta`) or smooth that "
    "score (perturb(..., bandwidth=))."
)


def copies_check(fraction: float, chance: float, excess: float, error: float, limit: float) -> Check:
    """Hold the memorised fraction against the chance rate.

    Arguments:
        fraction: memorised fraction of the draws.
        chance: that of held-out points.
        excess: their difference.
        error: its standard error.
        limit: ratio of distances below which a draw counts.
    """
    warn, fail = _COPIES_LIMITS
    return graded_check(
        "memorised fraction beyond chance, at least",
        max(excess - _STANDARD_ERRORS * error, 0.0),
        warn=warn,
        fail=fail,
        cause=f"{fraction:.0%} of the draws count as copies of training points, where {chance:.1%} would by chance: "
        f"their nearest training point is nearer than {limit:.2g} times the next.",
        remedy=_REMEDY,
    )


def nearness_check(nearer: float, error: float, ratio: float) -> Check:
    """Hold the draws' distances to the training set against those of held-out points.

    Arguments:
        nearer: probability that a draw is nearer than a held-out point.
        error: its standard error.
        ratio: ratio of the median distances.
    """
    warn, fail = _NEARER_LIMITS
    at_points = ratio < _NEAR
    cause = (
        f"The draws lie closer to training points than new data do ({ratio:.2g} times the median distance; a draw is "
        f"the nearer of the two with probability {nearer:.2f} instead of 0.5)"
    )
    narrow = " By so little that they may as well be new, but too narrow a sample: hold their spread against the data."
    return graded_check(
        "probability that a draw is nearer to the training set than a held-out point, at least",
        max(nearer - _STANDARD_ERRORS * error, 0.0),
        warn=warn,
        fail=fail if at_points else 1.0,
        cause=f"{cause}." + ("" if at_points else narrow),
        remedy=_REMEDY,
    )
