import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.paths import TrainingRecord
from scoresample.report import Comparison, compare
from tests.diagnostics.made_draws import made_draws, normal_chains

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page: what it loads, its ids, its text, and whether its tags match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def mixed_comparison() -> Comparison:
    stuck = normal_chains(0, 3) + np.array([0, 0, 5, 5], np.float32)[:, None, None]
    broken = normal_chains(1, 3)
    broken[0, 0, 0] = np.nan
    results = {
        "truth": made_draws(normal_chains(2, 3, chains=1, draws=4000), "independent"),
        "stuck & <slow>": made_draws(stuck),
        "broken": made_draws(broken),
        "weighted": made_draws(
            normal_chains(3, 3, chains=1, draws=4000),
            "independent",
            log_weights=0.1 * normal_chains(4, chains=1, draws=4000),
        ),
    }
    return compare(results, reference="truth", modes=np.array([[-1.0, 0, 0], [1.0, 0, 0]]), mode_weights=[0.5, 0.5])


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return mixed_comparison()


@pytest.fixture(scope="module")
def text(comparison: Comparison) -> str:
    return comparison.to_html()


def test_the_page_loads_nothing(text: str) -> None:
    page = Page(text)
    assert page.loads
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in page.loads)
    assert not re.search(r"https?:|@import|<script|<link", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", text))


def test_references_inside_the_page_resolve_and_ids_are_unique(text: str) -> None:
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    targets = [target[1:] for target in page.loads if target.startswith("#")]
    targets += [target[1:] for target in re.findall(r"url\(([^)]*)", text)]
    assert set(targets) <= set(page.ids)


def test_every_verdict_stands_in_the_page(comparison: Comparison, text: str) -> None:
    words = " ".join(" ".join(Page(text).words).split())
    for name, verdict in comparison.verdicts.items():
        assert name in words
        assert verdict.sentence in words
        for cause, remedy in verdict.reasons:
            assert cause in words
            assert remedy in words
    for words_of_badge in ("✓ Use", "✕ Do not use"):
        assert words_of_badge in words
    assert "<slow>" not in text


def test_figures_can_be_read_without_seeing_them(text: str) -> None:
    svgs = re.findall(r"<svg[^>]*>", text)
    assert len(svgs) == 4  # modes, marginals, pairs, ranks of the one run with finite chains
    assert all('role="img"' in svg and len(re.findall(r'aria-label="([^"]*)"', svg)[0]) > 40 for svg in svgs)
    assert text.count("<figcaption>") == 4


def test_settings_and_summaries_are_there_to_reproduce(text: str) -> None:
    words = " ".join(Page(text).words)
    assert '"steps": 10' in words
    assert np.__version__ in words
    assert "Summary of every run" in words
    assert words.count("r_hat") == 1  # of the one run with finite chains


def test_the_page_is_small_and_the_same_every_time(comparison: Comparison, text: str) -> None:
    assert len(text.encode()) < 3_000_000
    assert text == comparison.to_html()


def test_save_makes_folders_and_replaces_files(tmp_path: Path) -> None:
    found = compare({"run": made_draws(normal_chains(0, chains=4, draws=300))})
    target = found.save(tmp_path / "deep" / "er" / "report.html")
    assert target == tmp_path / "deep" / "er" / "report.html"
    assert found.save(str(target)) == target
    assert target.read_text(encoding="utf-8") == found.to_html()
    with pytest.raises(ValueError, match="folder"):
        found.save(tmp_path)


def test_a_page_without_a_reference_or_a_second_quantity(tmp_path: Path) -> None:
    found = compare({"cost in $": made_draws({"a$b$": normal_chains(0)})})
    text = found.to_html()
    Page(text)
    assert "without a reference" in text
    assert "a$b$" in text


def scored_comparison() -> Comparison:
    density = ss.Gaussian(jnp.zeros(2), jnp.ones(2))
    data = density.sample(jax.random.key(0), 256)
    record = TrainingRecord(
        train_loss=np.array([1.0, 0.8, 0.7]),
        validation_loss=np.array([0.9, 0.75]),
        validation_epochs=np.array([0, 2]),
        best_epoch=2,
        level_edges=np.array([0.01, 0.1, 1.0]),
        loss_by_level=np.array([0.9, 0.6]),
        num_train=1000,
        num_validation=100,
        num_parameters=5000,
        seconds=1.5,
    )

    def turned(z: jax.Array, t: jax.Array, strength: jax.Array) -> jax.Array:
        return -z - strength * jnp.stack([z[1], -z[0]])

    scores = {
        name: ss.score_health(
            ss.PerturbedScore(turned, ss.VP(), structure=jnp.zeros(2), args=(jnp.asarray(strength),), record=kept),
            data,
            key=jax.random.key(1),
            sampling=False,
        )
        for name, strength, kept in (("learned & <good>", 0.0, record), ("turned", 0.5, None))
    }
    return compare({"run": made_draws(normal_chains(0, 2))}, scores=scores)


def test_learned_scores_have_a_section_with_health_training_and_checks() -> None:
    found = scored_comparison()
    page = Page(found.to_html())
    words = " ".join(" ".join(page.words).split())
    assert "Learned scores" in words
    assert "learned & <good>" in words
    assert "Training: 3 epochs on 1000 points" in words
    turned = found.score_verdicts["turned"]
    assert turned.level == "do not use"
    assert found.score_verdicts["learned & <good>"].level == "use"
    for cause, remedy in turned.reasons:
        assert cause in words
        assert remedy in words
    assert words.count("Loss") == 1  # the other score carries no record
    assert words.count("Fokker-Planck residual") == 2
    assert len(page.ids) == len(set(page.ids))
    assert found.verdicts["run"].level == "use"

    text = str(found)
    assert "Learned scores" in text
    assert "turned: do not use" in text
    assert "  Training: 3 epochs" in text

    content = json.loads(found.to_json())["scores"]
    assert content["turned"]["training"] is None
    assert content["learned & <good>"]["training"]["best_epoch"] == 2
    assert len(content["turned"]["levels"]["asymmetry"]) == 8
    assert content["turned"]["level"] == "do not use"


def test_without_scores_there_is_no_such_section(comparison: Comparison, text: str) -> None:
    assert "Learned scores" not in text
    assert "Learned scores" not in str(comparison)
    assert comparison.scores == {}


@pytest.mark.usefixtures("unchecked_types")
def test_scores_that_are_none_are_refused() -> None:
    run = {"run": made_draws(normal_chains(0, 2))}
    wrong: Any = [1]
    with pytest.raises(TypeError, match="`scores` must map names to ScoreHealth, but a list came"):
        compare(run, scores=wrong)
    with pytest.raises(TypeError, match="but str -> int came"):
        compare(run, scores=cast(Any, {"learned": 1}))
