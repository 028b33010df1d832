"""The phi^4 reproduction's measurements: symmetric images, gaps, histograms, and the exact score of finest details."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from examples.papers import wavelets_phi4
from examples.papers.wavelets_phi4 import Gap, augmented, gaps, variation

ROOT = Path(__file__).parent.parent


def test_images_keep_the_action_and_reach_all_symmetries() -> None:
    fields = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    images = augmented(fields, 4000, 0)
    assert images.shape == (12_000, 4, 4)
    assert images.dtype == fields.dtype
    target = ss.LatticePhi4((4, 4), 0.34)
    of = np.asarray(target.action_density(jnp.asarray(images)))
    np.testing.assert_allclose(of, np.tile(np.asarray(target.action_density(jnp.asarray(fields))), 4000), rtol=1e-4)
    # 2 signs, 16 shifts, 4 reflections, 2 transpositions.
    assert len(np.unique(images[::3].reshape(4000, 16), axis=0)) == 256


def test_total_variation_is_that_of_the_law_and_sees_another() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(20):
        distance, null, most = variation(np.abs(rng.normal(size=1000)), np.abs(rng.normal(size=(16, 200))))
        assert 0.02 < null < most < 0.2
        inside += distance <= most
    assert inside == 20
    distance, _, most = variation(np.abs(rng.normal(size=1000)) * 1.2, np.abs(rng.normal(size=(16, 200))))
    assert distance > most


def test_gaps_are_in_standard_errors_of_both() -> None:
    gap = Gap(1.05, 0.03, 1.0, 0.04)
    assert gap.errors == pytest.approx(1.0)
    assert gap.percent == pytest.approx(5.0)


def test_observables_that_are_off_are_seen() -> None:
    """Of normal draws beside normal chains: within three standard errors where laws agree, beyond where they do not."""
    rng = np.random.default_rng(0)

    def run(scale: float) -> dict[str, Gap]:
        chains = np.abs(rng.normal(size=(10, 400)))
        estimate = SimpleNamespace(value=chains.mean(), standard_error=chains.std() / np.sqrt(chains.size))
        curve = (np.full(9, estimate.value), np.full(9, estimate.standard_error))
        reference: Any = SimpleNamespace(
            estimates=dict.fromkeys(("|m|", "action per site", "phi^2"), estimate),
            curves={"two-point function": curve},
        )
        draws = scale * np.abs(rng.normal(size=(1, 1000)))
        series = dict.fromkeys(("|m|", "action per site", "phi^2"), draws)
        return gaps(series | {"two-point function": np.repeat(draws[..., None], 9, axis=-1)}, reference)

    errors = [[gap.errors for gap in run(1.0).values()] for _ in range(100)]
    assert list(run(1.0)) == ["|m|", "action per site", "phi^2", "C(1)", "C(4)"]
    assert np.abs(errors).max() < 4
    assert 0.8 < np.std(errors) < 1.2
    assert all(gap.errors > 3 and gap.percent == pytest.approx(15, abs=8) for gap in run(1.15).values())


def test_the_score_error_is_that_of_the_finest_scale() -> None:
    """Of a Gaussian field, whose stages are exact, there is none but the noise's; of a wrong model there is."""
    target = ss.LatticePhi4((4, 4), 0.15, 0.0)
    hessian = -np.asarray(jax.jacfwd(lambda x: target(x.reshape(4, 4)).ravel())(jnp.zeros(16)), np.float64)
    frequencies = 2 * np.pi * np.fft.fftfreq(4)
    spectrum = 1 / (2 - 4 * 0.15 * (np.cos(frequencies)[:, None] + np.cos(frequencies)))
    path = ss.perturb_wavelets(ss.GaussianField(spectrum), ss.VP(), wavelet="haar", levels=1)
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    fields = (np.random.default_rng(0).normal(size=(200, 16)) @ root.T).reshape(-1, 4, 4).astype(np.float32)
    assert wavelets_phi4.score_error(path, target, fields) < 5e-3
    assert wavelets_phi4.score_error(path, ss.LatticePhi4((4, 4), 0.2, 0.0), fields) > 0.02


@pytest.mark.slow
def test_the_quick_run_meets_its_goals(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.papers.wavelets_phi4", "--quick", "--cache", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
