"""The bars of the report: ranks of chains, and mode weights."""

import numpy as np
from matplotlib.figure import Figure

from scoresample.diagnostics import ModeWeights
from scoresample.report._comparison import Comparison
from scoresample.report._legend import COLOURS, colour_of, draw_legend
from scoresample.report._statistics import RunStatistics
from scoresample.report._svg import INK, new_figure, plain_text

MAX_RANKED = 4
"""Most quantities whose ranks are drawn."""

_RANK_BINS = 20


def ranks_figure(run: RunStatistics) -> Figure | None:
    """Rank histograms of every chain, for the quantities with the largest R-hat.

    The ranks of a chain among all draws are uniform if the chains agree. Bars stand on each chain's own line, and the
    lines show what is expected.

    Arguments:
        run: statistics of the run.

    Returns:
        The figure, or None for draws without several chains.

    Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), *Rank-normalization, folding, and localization*,
    section 4 (rank plots).
    """
    if run.draws.kind != "chains" or run.chains is None or run.shape[0] < 2:
        return None
    worst = np.argsort(-run.chains.r_hat, kind="stable")[:MAX_RANKED]
    chains, length = run.shape
    figure = new_figure(2.4 * len(worst) + 0.4, 0.32 * chains + 0.9)
    for panel, place in zip(figure.subplots(1, len(worst), squeeze=False)[0], worst, strict=True):
        name, r_hat = run.chains.names[place], run.chains.r_hat[place]
        order = np.argsort(run.values[name], axis=None, kind="stable")
        ranks = np.empty(order.size)
        ranks[order] = np.arange(order.size)
        edges = np.linspace(0, order.size, _RANK_BINS + 1)
        expected = length / _RANK_BINS
        for chain, own in enumerate(ranks.reshape(chains, length)):
            counts = np.histogram(own, edges)[0] / expected
            base = chain + 0.1
            panel.bar(edges[:-1], np.minimum(counts, 2.2) * 0.4, np.diff(edges), base, align="edge", color=COLOURS[0])
            panel.axhline(base + 0.4, color=INK, linewidth=0.7, linestyle="--", alpha=0.7)
        panel.set_ylim(0, chains)
        panel.set_yticks(np.arange(chains) + 0.5, [str(chain + 1) for chain in range(chains)])
        panel.set_xticks([])
        panel.set_xlabel("rank among all draws", fontsize=8)
        panel.set_title(plain_text(f"{name}, R-hat {r_hat:.3f}"), fontsize=9)
    figure.axes[0].set_ylabel("chain", fontsize=8)
    return figure


def modes_figure(comparison: Comparison) -> Figure | None:
    """Mode weights of every run with two standard errors, and what they should be.

    Arguments:
        comparison: what `compare` found.

    Returns:
        The figure, or None if no modes were named.
    """
    runs = [(run, run.modes) for run in comparison.runs.values() if run.modes is not None]
    if not runs:
        return None
    count = len(runs[0][1].fractions)
    figure = new_figure(min(10.0, max(4.0, 0.35 * count * (len(runs) + 1))), 2.9)
    panel = figure.subplots()
    width = 0.8 / len(runs)
    for place, (run, weights) in enumerate(runs):
        panel.bar(
            np.arange(count) - 0.4 + width * (place + 0.5),
            weights.fractions,
            0.9 * width,
            yerr=2 * weights.standard_errors,
            color=colour_of(comparison, run.name),
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2},
        )
    expected = comparison.expected_modes
    if expected is not None and not isinstance(expected, ModeWeights):
        panel.hlines(expected, np.arange(count) - 0.45, np.arange(count) + 0.45, color=INK, linewidth=1.2)
    panel.set_xticks(np.arange(count), [str(index + 1) for index in range(count)])
    panel.set_xlabel("mode", fontsize=9)
    panel.set_ylabel("weight", fontsize=9)
    panel.set_ylim(0.0, min(1.05, panel.get_ylim()[1]))
    draw_legend(figure, comparison, [run for run, _ in runs], filled=True)
    return figure
