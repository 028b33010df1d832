import base64
import io
import json
import re
import struct
from typing import Any, cast

import matplotlib.image
import numpy as np
import pytest

from scoresample.inference import Draws
from scoresample.report import Comparison, compare
from scoresample.report._field_figures import correlation_figure, sheets, spectrum_figure
from scoresample.report._fields import field_statistics
from scoresample.report._html import _summary
from scoresample.report._png import png_uri
from scoresample.report._spectrum_check import power_ratio
from tests.diagnostics.made_draws import made_draws, normal_chains

SIDE = 8
CHECK = "power spectrum against the reference"


def power(side: int = SIDE, boost: tuple[int, float] | None = None) -> np.ndarray:
    """Spectrum of a periodic Gaussian field, with one ring of waves made stronger if wanted."""
    waves = 2 * np.pi * np.fft.fftfreq(side)
    found = 1 / (0.5 + np.hypot(waves[:, None], waves) ** 2)
    if boost is not None:
        ring = np.rint(side * np.hypot(waves[:, None], waves) / (2 * np.pi))
        found = np.where(ring == boost[0], boost[1] * found, found)
    return found


def fields(seed: int, draws: int = 4000, *, chains: int = 1, side: int = SIDE, **changed: Any) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(chains, draws, side, side))
    return np.real(np.fft.ifft2(np.fft.fft2(noise) * np.sqrt(power(side, **changed)))).astype(np.float32)


def independent(seed: int, draws: int = 4000, **changed: Any) -> Draws:
    return made_draws(fields(seed, draws, **changed), "independent")


def the_check(comparison: Comparison, name: str = "run") -> Any:
    (found,) = [check for check in comparison.checks[name] if check.name.startswith(CHECK)]
    return found


@pytest.fixture(scope="module")
def found() -> Comparison:
    runs = {
        "chains": made_draws(fields(1, 500, chains=4)),
        "rough": independent(2, 1000, boost=(4, 1.3)),
        "truth": independent(3),
    }
    return compare(runs, reference="truth")


def test_spectra_and_two_point_functions_are_those_of_the_law(found: Comparison) -> None:
    waves = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(waves[:, None], waves)
    for run in (found.fields["chains"], found.fields["truth"]):
        assert run.shape == (SIDE, SIDE)
        assert run.power.shape == run.power_se.shape == run.wavenumbers.shape == (5,)
        exact = [power()[np.rint(radius) == ring].mean() for ring in range(5)]
        assert np.all(np.abs(run.power - exact) < 5 * run.power_se)
        correlation = np.real(np.fft.ifft2(power()))
        assert run.two_point.shape == (5,)
        assert np.all(np.abs(run.two_point - correlation[0, :5]) < 5 * run.two_point_se)
    independent_error = found.fields["truth"].power_se[0]
    assert independent_error == pytest.approx(np.sqrt(2 / 4000) * power()[0, 0], rel=0.15)


def test_too_much_power_in_one_band_fails_and_exact_fields_pass(found: Comparison) -> None:
    assert the_check(found, "chains").passed
    rough = the_check(found, "rough")
    assert not rough.passed
    assert rough.severity == "fail"
    assert rough.value == pytest.approx(1.3, abs=0.05)
    assert rough.threshold == 1.2
    assert "(wavenumber 4)" in rough.name
    assert rough.cause.startswith("Fine scales are too rough (waves of 2 sites): the power at wavenumber 4 is 1.")
    assert found.verdicts["rough"].level == "do not use"
    assert not [check for check in found.checks["truth"] if check.name.startswith(CHECK)]


@pytest.mark.parametrize(
    ("ring", "boost", "outcome", "words"),
    [
        (4, 0.7, "fail", "Fine scales are too smooth"),
        (4, 1.15, "warn", "Fine scales are too rough"),
        (2, 1.4, "fail", "Middle scales are too rough"),
        (1, 0.7, "fail", "Large scales are too weak"),
        (0, 1.6, "fail", "The mean over all sites is too large or too variable"),
    ],
)
def test_each_scale_is_named(ring: int, boost: float, outcome: str, words: str) -> None:
    run = independent(5, boost=(ring, boost))
    check = the_check(compare({"run": run, "truth": independent(6)}, reference="truth"))
    assert (check.passed, check.severity) == (False, outcome)
    assert check.cause.startswith(words)
    assert check.remedy


def test_differences_that_chance_explains_or_that_are_small_pass() -> None:
    truth = independent(6, 2000)
    few = compare({"run": independent(7, 25, boost=(0, 1.5)), "truth": truth}, reference="truth")
    assert the_check(few).passed
    assert abs(np.log(the_check(few).value)) > np.log(1.1)  # farther than the limit, and yet no evidence
    small = compare({"run": independent(8, boost=(4, 1.07)), "truth": truth}, reference="truth")
    assert the_check(small).passed
    ratio = power_ratio(small.fields["run"], small.fields["truth"])
    assert ratio.in_errors[4] > ratio.limit[4]  # certain, and yet too small to matter


def test_exact_runs_raise_no_alarm() -> None:
    """The largest of a hundred runs' statistics stays below the limit, and is no formality."""
    references = [field_statistics({"": independent(1000 + k, 1000)}, True)[""] for k in range(4)]
    largest = []
    for seed in range(100):
        run = field_statistics({"": independent(seed, 200)}, True)[""]
        ratio = power_ratio(run, references[seed % 4])
        largest.append(np.max(ratio.in_errors / ratio.limit))
    assert max(largest) < 1
    assert 0.25 < np.median(largest) < 0.6


def test_fields_without_power_in_a_band_are_compared_in_the_others() -> None:
    runs = {name: fields(seed, 1000) for name, seed in (("run", 1), ("truth", 2))}
    made = {n: made_draws(x - x.mean((2, 3), keepdims=True), "independent") for n, x in runs.items()}
    check = the_check(compare(made, reference="truth"))
    assert check.passed
    assert np.isfinite(check.value)
    assert "wavenumber 0" not in check.name


def test_the_page_shows_sheets_spectra_and_words(found: Comparison) -> None:
    text = found.to_html()
    assert [sheet.uri for sheet in sheets(found)[0]] == [sheet.uri for sheet in sheets(found)[0]]
    images = re.findall(r'<img src="(data:image/png;base64,[^"]+)"[^>]*alt="([^"]+)"', text)
    assert [re.match(r"Draws of (\w+):", alt)[1] for _, alt in images] == ["chains", "rough", "truth"]  # pyright: ignore
    assert all(len(uri) < 150_000 for uri, _ in images)
    assert "40 draws at even distances in all 4 chains, chain by chain" in text
    assert "The first 40 draws." in text
    for heading in ("Fields", "Power spectrum", "Two-point function and mean"):
        assert f">{heading}</h" in text
    assert not re.search(r"https?:|<script|<link", text)
    content = json.loads(found.to_json())["fields"]
    np.testing.assert_allclose(content["rough"]["power"], found.fields["rough"].power)
    assert len(spectrum_figure(found).axes) == 2
    assert len(correlation_figure(found).axes) == 2


def test_sheets_are_the_first_draws_on_one_scale(found: Comparison) -> None:
    shown, scale = sheets(found)
    truth = found.fields["truth"]
    np.testing.assert_array_equal(truth.sheet[..., 0], np.asarray(found.runs["truth"].draws.position)[0, :40])
    chains = np.asarray(found.runs["chains"].draws.position)
    np.testing.assert_array_equal(found.fields["chains"].sheet[10, ..., 0], chains[1, 0])
    assert scale.signed
    assert scale.low == -scale.high
    content = base64.b64decode(shown[2].uri.split(",")[1])
    assert struct.unpack(">II", content[16:24]) == (shown[2].width, shown[2].height) == (8 * 9 - 1, 5 * 9 - 1)
    pixels = matplotlib.image.imread(io.BytesIO(content))
    assert pixels.shape == (44, 71, 4)
    assert np.all(pixels[8, :, 3] == 0)  # the gap between two rows
    assert np.all(pixels[:8, :8, 3] == 1)
    first = np.clip((truth.sheet[0, ..., 0] - scale.low) / (scale.high - scale.low), 0, 1)
    wanted = scale.colours[np.round(first * 63).astype(int)] / 255
    np.testing.assert_allclose(pixels[:8, :8, :3], wanted, atol=1e-6)


@pytest.mark.parametrize("event", [(1, 12, 9), (3, 12, 9), (12, 9, 3)])
def test_images_with_channels(event: tuple[int, ...]) -> None:
    values = np.abs(normal_chains(0, *event, chains=1, draws=300))
    compared = compare({"run": made_draws(values, "independent")}, fields=True)
    run = compared.fields["run"]
    assert run.shape == (12, 9)
    assert run.sheet.shape == (40, 12, 9, 3 if 3 in event else 1)
    shown, scale = sheets(compared)
    assert not scale.signed
    content = base64.b64decode(shown[0].uri.split(",")[1])
    assert matplotlib.image.imread(io.BytesIO(content)).shape[:2] == (64, 79)
    assert len(spectrum_figure(compared).axes) == 1


def test_large_fields_of_noise_make_small_files() -> None:
    for side, number in ((64, 32), (256, 2), (400, 2)):
        run = made_draws(normal_chains(0, side, side, chains=1, draws=max(number, 4)), "independent")
        found = field_statistics({"run": run}, True)["run"]
        assert len(found.sheet) == number
        assert found.sheet.size <= 2**17
        noise = np.random.default_rng(0).integers(0, 64, (362, 362))
        assert len(png_uri(noise, 64, np.zeros((65, 3)))) < 150_000


def test_weighted_draws_count_by_their_weights() -> None:
    values = fields(1, 4000)
    tilt = 0.5 * np.mean(values, axis=(2, 3)) * SIDE**2 / power()[0, 0]
    run = made_draws(values, "independent", log_weights=0.2 * tilt)
    found = field_statistics({"run": run}, True)["run"]
    mean = 0.1  # the tilt moves the mean of the field by its variance P(0) / 64 times 0.1 * 64 / P(0)
    exact = power()[0, 0] + SIDE**2 * mean**2
    assert abs(found.power[0] - exact) < 5 * found.power_se[0]
    assert found.power[0] > power()[0, 0] + 2 * found.power_se[0]
    assert found.how == "40 draws, resampled by their weights"
    assert found.site_means.mean() == pytest.approx(mean, abs=0.05)


def test_what_are_fields_and_what_are_none() -> None:
    def shown(draws: Draws, wanted: bool | str | None = None) -> list[str]:
        return [found.site for found in field_statistics({"run": draws}, wanted).values()]

    field, other = normal_chains(0, 8, 9, draws=10), normal_chains(1, 8, 8, draws=10)
    assert shown(made_draws(field)) == ["x"]
    assert shown(made_draws(field), False) == []
    assert shown(made_draws({"phi": field})) == ["phi"]
    for event in ((7, 9), (64,), (2, 8, 8), (3, 3), ()):
        assert shown(made_draws(normal_chains(0, *event, draws=10))) == []
    several = made_draws({"phi": field, "psi": other, "scale": normal_chains(2, draws=10)})
    assert shown(several) == []
    assert shown(several, "psi") == ["psi"]
    assert shown(made_draws({"phi": field, "scale": normal_chains(2, draws=10)}), True) == ["phi"]
    broken = field.copy()
    broken[0, 0, 0, 0] = np.nan
    assert shown(made_draws(broken)) == []
    with pytest.raises(ValueError, match="several sites are fields: phi and psi"):
        shown(several, True)
    with pytest.raises(ValueError, match="`fields` is 'chi', but the sites of all runs are phi, psi and scale"):
        shown(several, "chi")
    with pytest.raises(ValueError, match="'scale', a site of shape"):
        shown(several, "scale")
    with pytest.raises(ValueError, match="no site is a field"):
        shown(made_draws(normal_chains(0, 4, draws=10)), True)


def test_a_run_that_is_not_finite_is_left_out() -> None:
    broken = fields(1, 500)
    broken[0, 0] = np.nan
    compared = compare({"run": made_draws(broken, "independent"), "truth": independent(2, 500)}, reference="truth")
    assert list(compared.fields) == ["truth"]
    assert [sheet.name for sheet in sheets(compared)[0]] == ["truth"]
    assert len(spectrum_figure(compared).axes) == 2


def test_nothing_is_said_of_fields_where_there_are_none() -> None:
    compared = compare({"run": made_draws(fields(1, 200, chains=4))}, fields=False)
    assert compared.fields == {}
    assert "fields" not in json.loads(compared.to_json())
    assert "Power spectrum" not in str(compared)


def test_long_summaries_show_the_worst_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoresample.report._html.MAX_SUMMARY_ROWS", 60)
    monkeypatch.setattr("scoresample.report._html.WORST_ROWS", 10)
    values = normal_chains(0, 8, 8, draws=100)
    values[:, :, 5, 7] += 3 * np.arange(4, dtype=np.float32)[:, None]
    truth = made_draws(normal_chains(1, 8, 8, chains=1, draws=400), "independent")
    shifted = normal_chains(2, 8, 8, chains=1, draws=400)
    shifted[..., 6, 2] += 1
    runs = {"run": made_draws(values), "shifted": made_draws(shifted, "independent"), "truth": truth}
    compared = compare(runs, reference="truth", fields=False)
    shown = {name: _summary(compared.runs[name], compared.deviations.get(name)) for name in runs}
    words = {
        "run": "those with the largest R-hat",
        "shifted": "those whose means are most standard errors from",
        "truth": "the first",
    }
    for name, summary in shown.items():
        assert summary is not None
        assert summary["total"] == 64
        assert summary["how"].startswith(words[name])
    chains, moved, first = (list(cast(Any, summary)["rows"]) for summary in shown.values())
    assert chains[0] == "x[5, 7]"
    assert 5 <= len(chains) <= 10
    assert moved[0] == "x[6, 2]"
    assert len(moved) == 10
    assert first == [f"x[{place // 8}, {place % 8}]" for place in range(10)]


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_choice_of_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="`fields` must be True, False, None or the name of a site, but int came"):
        compare({"run": independent(1, 50)}, fields=cast(Any, 1))
