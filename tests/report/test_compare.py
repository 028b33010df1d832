import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from scoresample.inference import Draws
from scoresample.report import Comparison, compare
from tests.diagnostics.made_draws import made_draws, normal_chains

CENTRES = np.array([[-4.0, -1.0], [4.0, -2.0], [0.0, 6.0]])
WEIGHTS = np.array([0.25, 0.25, 0.5])


def independent(seed: int, *event: int, draws: int = 4000, shift: float = 0.0, scale: float = 1.0) -> Draws:
    return made_draws(scale * normal_chains(seed, *event, chains=1, draws=draws) + np.float32(shift), "independent")


def mixture(seed: int, weights: np.ndarray = WEIGHTS, draws: int = 4000, **fields: Any) -> Draws:
    generator = np.random.default_rng(seed)
    position = CENTRES[generator.choice(3, p=weights, size=draws)] + generator.normal(size=(draws, 2))
    return made_draws(position[None].astype(np.float32), "independent", **fields)


def level(comparison: Comparison, name: str = "run") -> str:
    return comparison.verdicts[name].level


def missed(comparison: Comparison, name: str = "run") -> dict[str, str]:
    return {check.name.split(",")[0].split(" (")[0]: check.severity for check in comparison.verdicts[name].failures}


def test_exact_samples_are_to_be_used() -> None:
    levels = [
        level(compare({"run": independent(seed, 3), "truth": independent(100 + seed, 3)}, reference="truth", seed=seed))
        for seed in range(5)
    ]
    assert levels == ["use"] * 5


def test_exact_weighted_chains_and_short_samples_agree_with_a_reference() -> None:
    sample = normal_chains(3, 2, chains=1, draws=6000)
    weighted = made_draws(sample + np.float32(0.3), "independent", log_weights=-0.3 * sample.sum(-1))
    results = {"weighted": weighted, "chains": made_draws(normal_chains(4, 2)), "short": independent(5, 2, draws=500)}
    found = compare(results, reference=independent(6, 2))
    assert [level(found, name) for name in results] == ["use"] * 3, str(found)
    assert found.reference == "reference"
    assert level(found, "reference") == "use"


@pytest.mark.parametrize(
    ("run", "expected", "cause"),
    [
        (independent(1, 2, shift=0.2), "use with care", "The mean of x["),
        (independent(1, 2, shift=0.6), "do not use", "The mean of x["),
        (independent(1, 2, scale=1.2), "use with care", "too wide in x["),
        (independent(1, 2, scale=1.8), "do not use", "too wide in x["),
        (independent(1, 2, scale=0.8), "use with care", "too narrow in x["),
        (independent(1, 2, scale=0.5), "do not use", "too narrow in x["),
    ],
)
def test_shifted_and_scaled_draws_are_caught(run: Draws, expected: str, cause: str) -> None:
    found = compare({"run": run, "truth": independent(2, 2)}, reference="truth")
    assert level(found) == expected
    assert cause in found.verdicts["run"].sentence


def test_small_differences_that_chance_explains_pass() -> None:
    # A shift of 0.12 standard deviations is 2.4 standard errors of 400 draws.
    found = compare({"run": independent(1, draws=400, shift=0.12), "truth": independent(2)}, reference="truth")
    assert "standardised error of the mean" not in missed(found)
    assert found.table.loc["run", "mean_error_se"] == pytest.approx(np.sqrt(1 / 400 + 1 / 4000), rel=0.1)


def test_distances_see_what_moments_do_not() -> None:
    signs = np.sign(normal_chains(7, 2, chains=1, draws=4000))
    run = made_draws((signs * 0.98 + 0.2 * normal_chains(8, 2, chains=1, draws=4000)).astype(np.float32), "independent")
    found = compare({"run": run, "truth": independent(2, 2)}, reference="truth")
    assert level(found) == "do not use"
    assert missed(found) == {"sliced Wasserstein-2 distance": "fail", "energy distance": "fail"}


@pytest.mark.parametrize("known", [True, False])
def test_missing_and_overweighted_modes_are_named(known: bool) -> None:
    results = {"run": mixture(1, np.array([0.0, 0.5, 0.5])), "good": mixture(2), "truth": mixture(3)}
    weights = WEIGHTS if known else None
    found = compare(results, reference="truth", modes=CENTRES, mode_weights=weights)
    assert level(found) == "do not use"
    assert "Mode 1 (-4, -1) is missing" in found.verdicts["run"].sentence
    assert "mode 2 (4, -2) is over-weighted" in found.verdicts["run"].sentence
    assert level(found, "good") == "use"
    assert level(found, "truth") == "use"


def test_known_mode_weights_judge_the_reference_too() -> None:
    lost = mixture(1, np.array([0.0, 0.5, 0.5]))
    found = compare({"run": mixture(2), "truth": lost}, reference="truth", modes=CENTRES, mode_weights=WEIGHTS)
    assert level(found, "truth") == "do not use"
    assert level(found) == "use with care"


def test_modes_may_come_as_a_tree() -> None:
    position = {"b": np.array([[-5.0], [5.0]])[np.arange(4000) % 2][None], "a": normal_chains(0, chains=1, draws=4000)}
    draws = made_draws(position | {"b": position["b"] + normal_chains(1, 1, chains=1, draws=4000)}, "independent")
    found = compare({"run": draws}, modes={"a": np.zeros(2), "b": np.array([[-5.0], [5.0]])}, mode_weights=[0.5, 0.5])
    np.testing.assert_array_equal(found.modes, [[0.0, -5.0], [0.0, 5.0]])
    assert not missed(found).get("mode weights")


def test_modes_without_weights_are_shown_and_not_checked() -> None:
    found = compare({"run": mixture(0)}, modes=CENTRES)
    assert found.runs["run"].modes is not None
    assert not any("mode" in check.name for check in found.checks["run"])
    assert any("shown, not checked" in note for note in found.notes)


def test_a_reference_that_fails_only_warns() -> None:
    stuck = made_draws(normal_chains(0, 2) + 8.0 * np.arange(4)[:, None, None].astype(np.float32))
    chains, shifted = made_draws(normal_chains(1, 2)), independent(2, 2)
    found = compare({"NUTS": stuck, "chains": chains, "shifted": shifted}, reference="NUTS")
    assert level(found, "NUTS") == "do not use"
    assert level(found, "shifted") == "use with care"
    assert all(severity == "warn" for severity in missed(found, "shifted").values())
    assert "untrusted reference (NUTS failed its own checks)" in found.verdicts["shifted"].sentence
    assert any("NUTS failed its own checks" in note for note in found.notes)


def test_a_reference_that_is_not_finite_judges_nobody() -> None:
    broken = normal_chains(0)
    broken[0, 0] = np.inf
    found = compare({"run": independent(1), "truth": made_draws(broken)}, reference="truth")
    assert found.deviations == {}
    assert level(found) == "use with care"


def test_the_verdict_of_the_reference_counts_its_own_checks_only() -> None:
    found = compare({"run": independent(1, shift=3.0), "truth": independent(2)}, reference="truth")
    assert level(found, "truth") == "use"
    assert np.isnan(found.table.loc["truth", "mean_error"])


def test_derived_sites_are_compared_in_their_own_units() -> None:
    def constrain(position: dict[str, Any]) -> dict[str, Any]:
        return {"tau": jnp.exp(position["tau"]), "ratio": jnp.exp(position["tau"]) / 2}

    run, truth = ({"tau": normal_chains(seed, chains=1, draws=4000) + 0.5 * seed} for seed in (1, 0))
    reference = made_draws(truth, constrain=constrain)
    found = compare({"run": made_draws(run, "independent", constrain=constrain)}, reference=reference)
    moments = found.deviations["run"].moments
    assert moments.names == ("tau (unconstrained)", "ratio")
    assert abs(moments.mean_error[0] - 0.5) < 5 * moments.mean_error_se[0]


def test_the_table_holds_the_facts_of_each_run() -> None:
    info = {"num_evaluations": 60_000, "compile_seconds": 1.0}
    run = made_draws(normal_chains(0, 2), nfe=7.0, seconds=3.0, info=info)
    found = compare({"run": run, "truth": independent(1, 2)}, reference="truth")
    row = found.table.to_dict(orient="index")["run"]
    assert (row["kind"], row["chains"], row["draws"], row["nfe"], row["evaluations"]) == ("chains", 4, 4000, 7, 60_000)
    assert row["ess_per_second"] == pytest.approx(row["ess_bulk"] / 2.0)
    assert row["r_hat"] < 1.01
    assert row["sliced_w2_null_median"] < row["sliced_w2_null_95"]
    other = found.table.to_dict(orient="index")["truth"]
    assert np.isnan(other["r_hat"])
    assert other["ess_bulk"] == 4000


def test_the_same_seed_gives_the_same_comparison() -> None:
    results = {"run": independent(1, 2), "truth": independent(2, 2)}
    first, second, third = (compare(results, reference="truth", seed=seed).to_json() for seed in (0, 0, 1))
    assert first == second
    assert first != third


def test_text_and_json_hold_every_verdict() -> None:
    results = {"run": independent(1, shift=3.0), "truth": independent(2)}
    found = compare(results, reference="truth", title="On a line", notes=["A note."])
    text = str(found)
    for words in (
        "On a line",
        "run: do not use. The mean of x",
        "truth (reference): use.",
        "bulk ESS",
        "A note.",
        "-> ",
    ):
        assert words in text
    content = json.loads(found.to_json())
    assert content["verdicts"]["run"]["level"] == "do not use"
    assert content["table"]["truth"]["r_hat"] is None
    assert content["title"] == "On a line"


def test_without_a_reference_it_says_so() -> None:
    found = compare({"run": made_draws(normal_chains(0))})
    assert level(found) == "use"
    assert any("No reference" in note for note in found.notes)


DRAWS = made_draws(normal_chains(0, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"results": {}}, ValueError, "`results` is empty"),
        ({"results": {"a": DRAWS}, "reference": "b"}, ValueError, "`reference` is 'b', but the results are a"),
        ({"results": {"a": DRAWS, "b": independent(0, 3)}}, ValueError, "same coordinates"),
        ({"results": {"a": DRAWS}, "mode_weights": [1.0]}, ValueError, "without `modes`"),
        ({"results": {"a": DRAWS}, "modes": np.zeros((2, 3))}, ValueError, r"shape \(modes, 2\)"),
        ({"results": {"a": DRAWS}, "modes": {"y": np.zeros((2, 2))}}, ValueError, "`modes`"),
        ({"results": {"a": DRAWS}, "modes": CENTRES, "mode_weights": [1.0, 1.0, 1.0]}, ValueError, "sum to one"),
        ({"results": {"a": DRAWS}, "modes": CENTRES, "mode_weights": [0.5, 0.5]}, ValueError, "3 non-negative"),
        ({"results": {"a": normal_chains(0)}}, TypeError, "Draws"),
        ({"results": [DRAWS]}, TypeError, "`results`"),
        ({"results": {"a": DRAWS}, "reference": 3}, TypeError, "`reference`"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    unchecked = getattr(compare, "__wrapped__", compare)
    with pytest.raises(error, match=words):
        unchecked(**arguments)
