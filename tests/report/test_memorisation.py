"""Memorisation in a comparison: copies of the training set agree with the reference, and get another verdict."""

import json
from functools import cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.report import Comparison, compare
from tests.diagnostics.made_draws import made_draws
from tests.report.test_html import Page

NAMES = ("new & <SDE>", "copies")


def points(seed: int, number: int) -> np.ndarray:
    """Two modes in five dimensions."""
    generator = np.random.default_rng(seed)
    side = np.where(generator.random(number) < 0.3, -1.0, 1.0)
    return (side[:, None] + 0.3 * generator.normal(size=(number, 5))).astype(np.float32)


@cache
def runs() -> dict[str, ss.Draws]:
    generator = np.random.default_rng(0)
    copies = points(1, 1000)[generator.integers(0, 1000, 1000)]
    copies += 0.02 * generator.normal(size=copies.shape).astype(np.float32)
    arrays = {"truth": points(3, 4000), NAMES[0]: points(4, 1000), NAMES[1]: copies}
    return {name: made_draws(array[None], "independent") for name, array in arrays.items()}


@cache
def measured(name: str) -> ss.Memorisation:
    return ss.memorisation(runs()[name], points(1, 1000), points(2, 1000))


@cache
def comparison(*names: str) -> Comparison:
    return compare(runs(), reference="truth", memorisation={name: measured(name) for name in names} or None)


def test_copies_and_new_draws_get_different_verdicts() -> None:
    bare, found = comparison(), comparison(*NAMES)
    # Nothing else tells the two apart: the copies agree with the reference.
    assert [bare.verdicts[name].level for name in NAMES] == ["use", "use"]
    assert [found.verdicts[name].level for name in NAMES] == ["use", "do not use"]
    failures = found.verdicts["copies"].failures
    assert [check.name.split(",")[0] for check in failures] == [
        "memorised fraction beyond chance",
        "probability that a draw is nearer to the training set than a held-out point",
    ]
    for check in measured("copies").checks:
        assert check in found.checks["copies"]
    assert "copies of training points" in found.verdicts["copies"].sentence
    assert "Train on more data" in found.verdicts["copies"].reasons[0][1]


def test_a_reference_that_copies_is_no_judge() -> None:
    found = compare(runs(), reference="copies", memorisation={"copies": measured("copies")})
    assert found.verdicts["copies"].level == "do not use"
    assert any("failed its own checks" in note for note in found.notes)


def test_numbers_words_and_figures_are_in_every_form() -> None:
    found, known = comparison(*NAMES), measured("copies")
    row = found.table.loc["copies"]
    assert (row["memorised"], row["memorised_chance"], row["nearer"]) == (known.fraction, known.chance, known.nearer)
    assert np.isnan(cast(float, found.table.loc["truth", "memorised"]))
    page = Page(found.to_html())
    words = " ".join(" ".join(page.words).split())
    for text in (words, str(found)):
        for phrase in ("Copies of the training set", "memorised", "nearer", NAMES[0], known.meaning):
            assert phrase in text
        assert f"chance {known.chance:.4f}" in text.replace("\u00a0", " ")
    assert words.count("Distances to the training set") == 2
    assert not [address for address in page.loads if not address.startswith(("#", "data:"))]
    assert len(page.ids) == len(set(page.ids))
    content = json.loads(found.to_json())["memorisation"]["copies"]
    assert content["fraction"] == known.fraction
    assert content["num_training"] == 1000


def test_without_it_nothing_changes() -> None:
    bare, with_one = comparison(), comparison(NAMES[0])
    assert "memorisation" not in json.loads(bare.to_json())
    assert "memorised" not in bare.table
    for text in (str(bare), bare.to_html()):
        assert "Copies of the training set" not in text
    assert with_one.table[bare.table.columns].equals(bare.table)
    assert bare.verdicts["copies"] == with_one.verdicts["copies"]
    assert len(with_one.checks[NAMES[0]]) == len(bare.checks[NAMES[0]]) + 2


def test_exact_copies_can_be_drawn() -> None:
    training = points(1, 1000)
    run = made_draws(training[None, :200], "independent")
    known = ss.memorisation(run, training, points(2, 1000))
    assert np.all(known.distance == 0)
    Page(compare({"run": run}, memorisation={"run": known}).to_html())


@pytest.mark.usefixtures("unchecked_types")
def test_memorisation_of_nothing_is_refused() -> None:
    run = {"run": runs()["truth"]}
    with pytest.raises(TypeError, match="`memorisation` must map names of runs to Memorisation, but a list came"):
        compare(run, memorisation=cast(Any, [1]))
    with pytest.raises(TypeError, match="but str -> float came"):
        compare(run, memorisation=cast(Any, {"run": 0.3}))
    with pytest.raises(ValueError, match="`memorisation` names 'other', but the results are run"):
        compare(run, memorisation={"other": measured("copies")})


def test_the_score_of_the_training_set_gives_it_back_and_that_of_the_density_does_not() -> None:
    modes = ss.GaussianMixture(jnp.array([0.3, 0.7]), jnp.outer(jnp.array([-1.0, 1.0]), jnp.ones(5)), 0.09)
    sampler = ss.ReverseSDE(num_steps=30)
    training = points(1, 300)
    paths = {
        "density": ss.perturb(modes, ss.OU(5.0)),
        "training set": ss.perturb(training, ss.OU(5.0)),
        "kernel": ss.perturb(training, ss.OU(5.0), bandwidth="spacing"),
    }
    found = {name: ss.sample(path, sampler, key=jax.random.key(0), num_samples=250) for name, path in paths.items()}
    memorised = {name: ss.memorisation(draws, training, points(2, 1000)) for name, draws in found.items()}
    checks = {name: each.checks for name, each in memorised.items()}
    verdicts = compare(found, memorisation=memorised).verdicts
    assert verdicts["training set"].level == "do not use"
    assert memorised["training set"].fraction > 0.98
    assert verdicts["density"].level != "do not use"
    assert all(check.passed for name in ("density", "kernel") for check in checks[name])
    assert abs(memorised["density"].excess) < 5 * memorised["density"].excess_se
