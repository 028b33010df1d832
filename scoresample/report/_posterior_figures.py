"""The figures of the report of one posterior: weights, and replicates of the data."""

import numpy as np
from matplotlib.figure import Figure

from scoresample.diagnostics import PosteriorPredictiveCheck
from scoresample.report._legend import COLOURS, REFERENCE_COLOUR
from scoresample.report._svg import INK, new_figure, plain_text

MOST_STATISTICS = 20
"""Statistics in the figure of replicates, the most extreme first."""

_SMALLEST = -6.0
"""Decimal logarithm of the smallest weight that is told apart."""
_BEYOND = 6.0
"""Spreads of the replicates, to either side, that the figure shows at most."""


def weights_figure(log_weights: np.ndarray) -> Figure:
    """How unequal the weights of draws are: their histogram, and how much of the weight the largest hold.

    Arguments:
        log_weights: of any shape; draws without a weight have minus infinity.
    """
    flat = np.sort(np.asarray(log_weights, np.float64).ravel())[::-1]
    weights = np.exp(flat - flat[0])
    weights = weights / weights.mean()
    figure = new_figure(9.8, 2.7)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    with np.errstate(divide="ignore"):
        exponents = np.maximum(np.log10(weights), _SMALLEST)
    low, high = min(float(exponents.min()), -0.5), max(float(exponents.max()), 0.5)
    left.hist(exponents, bins=60, range=(low, high), color=COLOURS[0])
    left.axvline(0.0, color=INK, linewidth=1.0, linestyle="--")
    left.set_xlabel("log10 of the weight over the mean weight", fontsize=9)
    left.set_ylabel("draws", fontsize=9)
    left.set_title("Weights", fontsize=9)
    share = np.arange(1, weights.size + 1) / weights.size
    right.plot(share, np.cumsum(weights) / weights.sum(), color=COLOURS[0], linewidth=1.6)
    right.plot([0.0, 1.0], [0.0, 1.0], color=REFERENCE_COLOUR, linewidth=1.0, linestyle="--")
    right.set_xlim(0.0, 1.0)
    right.set_ylim(0.0, 1.02)
    right.set_xlabel("share of the draws, the heaviest first", fontsize=9)
    right.set_title("Share of the weight that they hold", fontsize=9)
    return figure


def replicates_figure(found: PosteriorPredictiveCheck) -> Figure:
    """The data's statistics among those of the replicates: one by one, and all together.

    Arguments:
        found: the posterior-predictive check.
    """
    order = np.argsort(found.tail_probabilities, kind="stable")[:MOST_STATISTICS]
    figure = new_figure(9.8, max(2.4, 0.24 * len(order) + 1.0))
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    failed = [not check.passed for check in found.checks[1:]]
    outside = False
    for row, index in enumerate(order):
        values = found.replicated[:, index]
        middle, spread = float(np.median(values)), float(values.std())
        spread = spread if spread > 0 else 1.0
        bands = (np.quantile(values, (0.05, 0.25, 0.75, 0.95)) - middle) / spread
        left.plot(bands[[0, 3]], [row, row], color=REFERENCE_COLOUR, linewidth=1.4, solid_capstyle="butt")
        left.plot(bands[[1, 2]], [row, row], color=REFERENCE_COLOUR, linewidth=4.5, solid_capstyle="butt")
        place = (float(found.observed[index]) - middle) / spread
        outside |= abs(place) > _BEYOND
        marker = "o" if abs(place) <= _BEYOND else (">" if place > 0 else "<")
        colour = COLOURS[1] if failed[index] else COLOURS[0]
        left.plot(float(np.clip(place, -_BEYOND, _BEYOND)), row, marker, color=colour, markersize=5)
    left.set_yticks(range(len(order)), [plain_text(found.names[index]) for index in order])
    left.invert_yaxis()
    if outside:
        left.set_xlim(-_BEYOND - 0.3, _BEYOND + 0.3)
    left.set_xlabel("distance from the replicates' median, in their standard deviations", fontsize=9)
    left.set_title("Data (points) among replicates (50% and 90% of them)", fontsize=9)
    high = max(float(np.quantile(found.distances, 0.999)), 1.05 * found.distance)
    right.hist(found.distances, bins=40, range=(0.0, high), color=REFERENCE_COLOUR, alpha=0.7)
    right.axvline(found.distance, color=COLOURS[0] if found.checks[0].passed else COLOURS[1], linewidth=2.0)
    right.set_yticks([])
    right.set_xlabel("squared Mahalanobis distance", fontsize=9)
    right.set_title(f"All together: data (line), p = {found.joint_probability:.2g}", fontsize=9)
    return figure
