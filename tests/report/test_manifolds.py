"""What scores know of their manifold in a comparison: the checks join the score's verdict, four figures say why."""

import dataclasses
import json
from functools import cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.report import Comparison, compare
from scoresample.report._manifolds import manifold_figures
from tests.diagnostics.made_draws import made_draws, normal_chains
from tests.diagnostics.manifold_scores import normal
from tests.report.test_html import Page

PLANE = np.array([1.0, 1.0, 0.0, 0.0])
KEY = jax.random.key(0)
HEADINGS = ("Blow-up", "Intrinsic dimension", "Normal space", "Finite energy")


def draws(number: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (number, 4)) * jnp.asarray(PLANE, jnp.float32)


@cache
def manifold(factor: float) -> ss.ManifoldHealth:
    return ss.manifold_health(
        normal(PLANE, factor=factor), draws(400), key=KEY, exact=normal(PLANE), training=draws(100)
    )


@cache
def comparison() -> Comparison:
    scores = {
        name: ss.score_health(normal(PLANE, factor=factor), draws(400), key=KEY, sampling=False, levels=[0.3, 0.1])
        for name, factor in (("exact & <known>", 1.0), ("only healthy", 1.0))
    }
    manifolds = {"exact & <known>": manifold(1.0), "wrong": manifold(1.9)}
    return compare({"run": made_draws(normal_chains(0, 2))}, scores=scores, manifolds=manifolds)


def test_the_checks_join_the_verdict_of_the_score_of_that_name() -> None:
    found = comparison()
    assert list(found.score_verdicts) == ["exact & <known>", "only healthy", "wrong"]
    joined = found.score_verdicts["exact & <known>"]
    assert joined.checks == (*found.scores["exact & <known>"].checks, *manifold(1.0).checks)
    assert joined.level == "use"
    assert found.score_verdicts["wrong"].level == "do not use"
    assert found.score_verdicts["wrong"].checks == tuple(manifold(1.9).checks)
    assert found.verdicts["run"].level == "use"


def test_the_page_has_four_figures_and_a_paragraph_for_each() -> None:
    found = comparison()
    page = Page(found.to_html())
    words = " ".join(" ".join(page.words).split())
    assert len(page.ids) == len(set(page.ids))
    for heading in HEADINGS:
        assert words.count(heading) >= 2
    for health in (manifold(1.0), manifold(1.9)):
        for paragraph in health.paragraphs().values():
            assert paragraph in words
    assert "spacing of the training points" in words
    assert "at training points it is" in words.lower()
    for cause, _ in found.score_verdicts["wrong"].reasons:
        assert cause in words


def test_text_and_json_have_the_numbers() -> None:
    found, known = comparison(), manifold(1.0)
    text = str(found)
    assert known.levels_text() in text
    for heading, paragraph in known.paragraphs().items():
        assert f"{heading}: {paragraph}" in text
    scores = json.loads(found.to_json())["scores"]
    assert "levels" in scores["exact & <known>"]
    content = scores["exact & <known>"]["manifold"]
    assert content["energy"]["verdict"] == "finite"
    assert content["break_noise"] is None
    assert content["dimensions"]["spectrum"]["value"] == 2
    np.testing.assert_allclose(content["levels"]["flipd"], known.flipd)
    assert list(scores["wrong"]) == ["level", "sentence", "checks", "manifold"]
    assert "manifold" not in scores["only healthy"]


def test_without_them_nothing_changes() -> None:
    alone = compare({"run": made_draws(normal_chains(0, 2))})
    assert alone.manifolds == {}
    assert "Learned scores" not in str(alone)
    assert "Learned scores" not in alone.to_html()


def test_figures_can_be_drawn_of_anything() -> None:
    """No spectrum, values that are not finite, an integral of which nothing is known."""
    health = manifold(1.0)
    nothing = np.full_like(health.noise, np.nan)
    energy = dataclasses.replace(health.energy, rate=nothing, rate_se=nothing)
    broken = dataclasses.replace(
        health, spectrum=None, flipd=-health.flipd, flipd_training=None, blow_up=1e3 * health.blow_up, energy=energy
    )
    drawn = {heading: figure for heading, _, figure in manifold_figures(broken)}
    assert tuple(drawn) == HEADINGS
    assert drawn["Normal space"] is None
    page = compare({"run": made_draws(normal_chains(0, 2))}, manifolds={"odd": broken}).to_html()
    assert "no error above zero at any level" in page
    assert "takes too long" in page


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_none_is_refused() -> None:
    run = {"run": made_draws(normal_chains(0, 2))}
    wrong: Any = [1]
    with pytest.raises(TypeError, match="`manifolds` must map names to ManifoldHealth, but a list came"):
        compare(run, manifolds=wrong)
    with pytest.raises(TypeError, match="but str -> int came"):
        compare(run, manifolds=cast(Any, {"learned": 1}))
