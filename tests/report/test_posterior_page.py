"""The report of one posterior: its table, its figures, and pages with parts left out."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from scoresample.checks import Check
from scoresample.diagnostics import compare_replicates
from scoresample.report import PosteriorPage, Verdict, compare, form_verdict, parameter_columns, parameter_table
from scoresample.report._posterior_figures import MOST_STATISTICS, replicates_figure, weights_figure
from tests.diagnostics.made_draws import made_draws, normal_chains
from tests.report.test_html import Page


def page(**changes: object) -> PosteriorPage:
    comparison = compare({"learned & <it>": made_draws(normal_chains(0, 2, chains=1, draws=1000), "independent")})
    bare = PosteriorPage(
        title="A posterior", subtitle="of <nothing>", verdict=form_verdict([]), headline="Who knows?", remarks=(),
        shown="learned & <it>", comparison=comparison,
    )  # fmt: skip
    return dataclasses.replace(bare, **changes)


def test_a_page_without_any_part() -> None:
    text = page().to_html()
    words = " ".join(" ".join(Page(text).words).split())
    assert "Who knows?" in words
    assert "learned & <it>" in words
    for absent in ("Certificate", "Calibration", "beside it", "Training", "✕ Do not use"):
        assert absent not in words


def test_a_verdict_against_the_draws_is_a_red_banner() -> None:
    found = page(verdict=form_verdict([Check("a", 1.0, 0.0, False, "They are wrong.", "Do better.")]))
    text = found.to_html()
    assert 'class="card verdict do-not-use"' in text
    words = " ".join(Page(text).words)
    assert words.count("✕ Do not use") == 2  # on the verdict, and over the numbers
    assert "They are wrong." in words


def test_draws_that_are_not_finite_have_no_table() -> None:
    values = normal_chains(0, 2, chains=1, draws=1000)
    values[0, 3, 1] = np.nan
    found = compare({"broken": made_draws(values, "independent")})
    assert parameter_table(found, "broken").empty
    broken = page(comparison=found, shown="broken", verdict=Verdict("do not use", "No.", ()))
    Page(broken.to_html())


def test_the_table_of_draws_beside_a_reference() -> None:
    values = normal_chains(0, 2, chains=1, draws=4000)
    weighted = made_draws(values, "independent", log_weights=jnp.asarray(values[..., 0] * 0.5))
    chains = made_draws(normal_chains(1, 2))
    found = compare({"w": weighted, "NUTS": chains}, reference="NUTS")
    table = parameter_table(found, "w")
    weights = np.exp(0.5 * values[0, :, 0].astype(np.float64))
    weights /= weights.sum()
    mean = weights @ values[0].astype(np.float64)
    np.testing.assert_allclose(table["mean"], mean, rtol=1e-4, atol=1e-6)
    # The tilted law is N(1/2, 1).
    assert abs(table["mean"].iloc[0] - 0.5) < 5 * table["mcse"].iloc[0]
    assert abs(table["q50"].iloc[0] - 0.5) < 6 * table["mcse"].iloc[0]
    np.testing.assert_allclose(table["ess"], 1 / np.sum(weights**2), rtol=1e-4)
    assert table["difference"].iloc[0] > 5 * table["difference_se"].iloc[0]
    names = [column.name for column in parameter_columns(found)]
    assert set(names) <= set(table.columns)
    alone = compare({"w": weighted})
    assert not any("reference" in column.name for column in parameter_columns(alone))
    assert "difference" not in parameter_table(alone, "w")


def test_weights_are_drawn_over_their_mean() -> None:
    log_weights = np.array([0.0, 0.0, np.log(2.0), -np.inf])
    left, right = weights_figure(log_weights).axes
    curve = np.asarray(right.lines[0].get_xydata())
    np.testing.assert_allclose(curve, [[0.25, 0.5], [0.5, 0.75], [0.75, 1.0], [1.0, 1.0]])
    assert sum(patch.get_height() for patch in left.patches) == 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("place", [-50.0, 0.1, 50.0])
def test_statistics_far_out_are_arrows(place: float) -> None:
    replicated = np.random.default_rng(0).normal(size=(2400, 30))
    observed = np.zeros(30)
    observed[7] = place
    found = compare_replicates(observed, replicated, names=[f"s{k}" for k in range(30)])
    left = replicates_figure(found).axes[0]
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert len(labels) == MOST_STATISTICS
    markers = {str(line.get_marker()) for line in left.lines} - {"None"}
    if abs(place) > 1:
        assert labels[0] == "s7"
        assert markers == {"o", ">" if place > 0 else "<"}
    else:
        assert markers == {"o"}
