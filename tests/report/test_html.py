import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

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
