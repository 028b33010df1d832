"""Sampling budgets in a comparison: a bound is called one, and what is none is not."""

import json
from functools import cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.report import Comparison, compare
from tests.diagnostics.made_draws import made_draws, normal_chains
from tests.report.test_html import Page


@cache
def budget(*, known: bool) -> ss.SamplingBudget:
    exact = ss.perturb(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP())
    score = ss.PerturbedScore(lambda z, t: -1.2 * z, ss.VP(), structure=jnp.zeros(2))
    sampler, data = ss.ReverseSDE(num_steps=6, solver="ddpm"), normal_chains(0, 2)[0]
    return ss.sampling_budget(score, sampler, data, key=jax.random.key(0), exact=exact if known else None)


@cache
def comparison(*known: bool) -> Comparison:
    runs = {name: made_draws(normal_chains(seed, 2)) for seed, name in enumerate(["NUTS", "SDE & <one>", "two"])}
    names = list(runs)[1:]
    budgets = {name: budget(known=each) for name, each in zip(names, known, strict=False)}
    return compare(runs, reference="NUTS", budgets=budgets or None)


def test_a_bound_stands_beside_the_distances_and_other_runs_have_a_dash() -> None:
    found, known = comparison(True), budget(known=True)
    table = found.table
    assert table.loc["SDE & <one>", "kl_at_most"] == known.total
    assert np.isnan(cast(float, table.loc["NUTS", "kl_at_most"]))
    page = Page(found.to_html())
    words = " ".join(" ".join(page.words).split())
    for text in (words, str(found)):
        for phrase in ("KL at most", "Sampling budgets", "SDE & <one>", "score error", "discretisation", known.meaning):
            assert phrase in text
        assert "KL, no bound" not in text
    assert len(page.ids) == len(set(page.ids))
    content = json.loads(found.to_json())["budgets"]["SDE & <one>"]
    assert content["is_bound"] is True
    assert content["total"] == known.total
    assert len(content["steps"]["discretisation"]) == 6


def test_what_is_no_bound_stands_under_no_such_heading() -> None:
    found = comparison(True, False)
    row = found.table.to_dict(orient="index")["two"]
    assert np.isnan(row["kl_at_most"])
    assert row["kl_budget"] == budget(known=False).total
    alone = compare({"two": made_draws(normal_chains(2, 2))}, budgets={"two": budget(known=False)})
    for text in (str(alone), alone.to_html()):
        assert "KL at most" not in text
        assert "KL, no bound" in text
        assert "total, no bound" in text


def test_without_budgets_nothing_changes() -> None:
    bare, with_one = comparison(), comparison(True)
    assert "budgets" not in json.loads(bare.to_json())
    assert "kl_at_most" not in bare.table
    for text in (str(bare), bare.to_html()):
        assert "Sampling budgets" not in text
        assert "KL at most" not in text
    assert bare.verdicts == with_one.verdicts
    shared = with_one.table[bare.table.columns]
    assert shared.equals(bare.table)


@pytest.mark.usefixtures("unchecked_types")
def test_budgets_of_nothing_are_refused() -> None:
    run = {"run": made_draws(normal_chains(0, 2))}
    with pytest.raises(TypeError, match="`budgets` must map names of runs to SamplingBudget, but a list came"):
        compare(run, budgets=cast(Any, [1]))
    with pytest.raises(TypeError, match="but str -> float came"):
        compare(run, budgets=cast(Any, {"run": 0.3}))
    with pytest.raises(ValueError, match="`budgets` names 'other', but the results are run"):
        compare(run, budgets={"other": budget(known=True)})
