"""Samplers on eight schools against posteriordb's reference draws.

It needs a folder of posteriordb's posteriors: ``pytest -m slow --posteriordb PATH``. Below PATH stands
``eight_schools-eight_schools_noncentered/draws.json.zip``: chains of 10,000 draws by Stan, thinned.
"""

import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import scoresample as ss
from scoresample.cli._models import load_model
from scoresample.diagnostics import quantities
from scoresample.samplers import available_samplers

pytestmark = pytest.mark.slow

SAMPLERS = ("nuts", "reverse-sde", "probability-flow", "predictor-corrector", "annealed-langevin")
MOST_MEAN_ERROR = 0.1
"""In standard deviations of the reference."""
SD_RATIOS = (0.9, 1.1)


@pytest.fixture(scope="module")
def reference(posteriordb: Path) -> dict[str, np.ndarray]:
    """The reference draws of mu, log(tau) and theta[j], all chains joined."""
    archive = posteriordb / "eight_schools-eight_schools_noncentered" / "draws.json.zip"
    if not archive.is_file():
        pytest.skip(f"there are no reference draws at {archive}")
    with zipfile.ZipFile(archive) as files:
        chains = json.loads(files.read(files.namelist()[0]))
    joined = {name: np.concatenate([chain[name] for chain in chains]) for name in chains[0]}
    return {
        "mu": joined["mu"],
        "log tau": np.log(joined["tau"]),
        **{f"theta[{j}]": joined[f"theta[{j + 1}]"] for j in range(8)},
    }


@pytest.fixture(scope="module")
def comparison() -> ss.Comparison:
    """What the demonstration runs: NUTS, and the path samplers on a score learned from a pilot run of its own."""
    samplers = {name: available_samplers()[name]() for name in SAMPLERS}
    return ss.compare_samplers(load_model("eight_schools"), samplers, key=jax.random.key(0))


def values(draws: ss.Draws) -> dict[str, np.ndarray]:
    found = quantities(draws)
    named = {"mu": "mu", "log tau": "tau (unconstrained)", **{f"theta[{j}]": f"theta[{j}]" for j in range(8)}}
    return {name: found[label].reshape(-1) for name, label in named.items()}


def test_there_is_a_row_for_every_sampler(comparison: ss.Comparison) -> None:
    assert set(comparison.runs) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_moments_are_those_of_the_reference(
    name: str, reference: dict[str, np.ndarray], comparison: ss.Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = values(comparison.runs[name].draws)
    mean_error = {q: (drawn[q].mean() - x.mean()) / x.std() for q, x in reference.items()}
    sd_ratio = {q: drawn[q].std() / x.std() for q, x in reference.items()}
    with capsys.disabled():
        print(f"\n{name:22}  mean error (sd)   sd ratio")
        for q in reference:
            print(f"  {q:20}  {mean_error[q]:+15.3f}  {sd_ratio[q]:9.3f}")
    assert max(map(abs, mean_error.values())) <= MOST_MEAN_ERROR
    assert min(sd_ratio.values()) >= SD_RATIOS[0]
    assert max(sd_ratio.values()) <= SD_RATIOS[1]
