from typing import Any

import numpy as np

from scoresample.checks import Check
from scoresample.report import Verdict, compare
from tests.diagnostics.made_draws import autoregressive_chains, made_draws, normal_chains


def verdict_of(*args: Any, **fields: Any) -> Verdict:
    return compare({"run": made_draws(*args, **fields)}).verdicts["run"]


def missed(verdict: Verdict) -> dict[str, str]:
    return {check.name.split(",")[0].split(" (")[0]: check.severity for check in verdict.failures}


def test_good_chains_pass() -> None:
    verdict = verdict_of(normal_chains(0, 3))
    assert verdict.level == "use", verdict
    assert not verdict.failures


def test_stuck_chains_disagree() -> None:
    verdict = verdict_of(normal_chains(0, 2) + np.array([0, 0, 9, 9])[:, None, None])
    assert verdict.level == "do not use"
    assert "chains disagree" in verdict.sentence
    assert missed(verdict)["R-hat"] == "fail"
    assert any("between modes" in remedy for _, remedy in verdict.reasons)


def test_slow_chains_are_worth_few_draws() -> None:
    verdict = verdict_of(autoregressive_chains(0, 0.97, draws=1000))
    assert verdict.level == "do not use"
    assert "bulk ESS" in missed(verdict)


def test_frozen_chains_never_moved() -> None:
    position = normal_chains(0, 2)
    position[1, :, 0] = 0.5
    verdict = verdict_of(position)
    assert verdict.level == "do not use"
    assert "1 of 4 chains never moved" in verdict.sentence


def test_one_chain_cannot_disagree() -> None:
    verdict = verdict_of(normal_chains(0, chains=1, draws=2000))
    assert verdict.level == "use with care"
    assert "single chain" in verdict.sentence


def test_draws_that_are_not_finite_stop_everything_else() -> None:
    position = normal_chains(0, 2)
    position[0, 7, 1] = np.nan
    verdict = verdict_of(position)
    assert verdict.level == "do not use"
    assert "1 of 4,000 draws" in verdict.sentence
    assert len(verdict.checks) == 1


def test_flags_of_the_sampler_count() -> None:
    flags = np.zeros((4, 1000), bool)
    flags[0, :3] = True
    few = verdict_of(normal_chains(0), stats={"diverging": flags})
    assert few.level == "use with care"
    assert "3 transitions of 4,000 diverged" in few.sentence
    flags[:, :20] = True
    assert verdict_of(normal_chains(0), stats={"diverging": flags}).level == "do not use"
    deep = verdict_of(normal_chains(0), stats={"reached_max_treedepth": flags})
    assert deep.level == "use with care"
    assert "tree depth" in deep.sentence
    assert verdict_of(normal_chains(0), stats={"non_finite": flags}).level == "use with care"


def test_checks_found_while_sampling_count() -> None:
    found = Check("terminal match", 0.4, 0.1, False, "The path starts from the wrong place.", "Raise sigma_max.")
    verdict = verdict_of(normal_chains(0), info={"checks": [found]})
    assert verdict.level == "do not use"
    assert verdict.sentence.startswith("The path starts from the wrong place.")


def test_nothing_vouches_for_independent_draws_or_biased_chains() -> None:
    independent = verdict_of(normal_chains(0, chains=1, draws=2000), "independent")
    assert independent.level == "use with care"
    assert "no reference was given" in independent.sentence
    biased = verdict_of(normal_chains(0), attributes={"asymptotically_exact": 0})
    assert biased.level == "use with care"
    assert "not asymptotically exact" in biased.sentence


def test_uneven_weights_are_worth_little() -> None:
    log_weights = 3.0 * normal_chains(1, chains=1, draws=2000)
    verdict = verdict_of(normal_chains(0, chains=1, draws=2000), "independent", log_weights=log_weights)
    assert verdict.level == "do not use"
    assert "weights are uneven" in verdict.sentence
