"""One posterior and its report: what is said of draws that are right, wrong, weighted, polished, or never measured."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from jaxtyping import Array

import scoresample as ss
from scoresample.checks import Check
from scoresample.diagnostics import normalized_weights
from scoresample.report import parameter_table
from scoresample.workflows import _analyse_posterior as module
from tests.report.test_html import Page

DATA = np.array([0.6, -1.2])
NOISE = 0.5
MEAN, SD = DATA / (1 + NOISE**2), NOISE / np.sqrt(1 + NOISE**2)
"""Of the posterior."""
SMALL: dict[str, Any] = {"num_simulations": 2000, "width": 16, "depth": 1, "coordinates": "regression"}
QUICK: dict[str, Any] = {"num_samples": 600, "num_warmup": 200}


def model() -> None:
    theta = jnp.asarray(numpyro.sample("theta", dist.Normal(0.0, 1.0).expand([2]).to_event(1)))
    numpyro.deterministic("product", theta[0] * theta[1])
    numpyro.sample("x", dist.Normal(theta, NOISE).to_event(1))


def observe(key: Array, theta: Array) -> Array:
    return theta + NOISE * jax.random.normal(key, (2,))


@pytest.fixture(scope="module")
def posterior() -> ss.AmortisedPosterior:
    return ss.fit_posterior(model, observed="x", key=jax.random.key(0), num_epochs=30, **SMALL)


@pytest.fixture(scope="module")
def found(posterior: ss.AmortisedPosterior) -> ss.PosteriorAnalysis:
    return ss.analyse_posterior(
        posterior, DATA, key=jax.random.key(1), calibration=100, title="Two numbers", reproduce="run <me>", **QUICK
    )


@pytest.fixture(scope="module")
def unmeasured() -> ss.AmortisedPosterior:
    prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    return ss.fit_posterior(observe, prior, key=jax.random.key(0), num_epochs=20, **SMALL)


def words_of(found: ss.PosteriorAnalysis) -> str:
    return " ".join(" ".join(Page(found.to_html()).words).split())


def test_draws_that_are_right_can_be_used(found: ss.PosteriorAnalysis) -> None:
    assert found.verdict.level == "use", str(found)
    assert found.certificate is not None
    assert found.certificate.verdict in ("use", "use weighted")
    table = parameter_table(found.comparison, found.name)
    assert list(table.index) == ["product", "theta[0]", "theta[1]"]
    rows = table.loc[["theta[0]", "theta[1]"]]
    assert np.all(np.abs(rows["mean"] - MEAN) < 5 * rows["mcse"])
    np.testing.assert_allclose(rows["sd"], SD, rtol=5 / np.sqrt(2 * 400))
    np.testing.assert_allclose(rows["q95"] - rows["q5"], 2 * 1.645 * SD, rtol=0.2)
    np.testing.assert_allclose(rows["difference"], (rows["mean"] - rows["reference_mean"]) / rows["reference_sd"])
    assert np.all(np.abs(rows["difference"]) < 5 * rows["difference_se"])
    assert np.all(rows["r_hat"] < 1.05)


def test_weights_count_in_the_table(found: ss.PosteriorAnalysis, posterior: ss.AmortisedPosterior) -> None:
    assert found.log_weights is not None
    tilted = dataclasses.replace(found.draws, log_weights=jnp.asarray(found.learned.position[..., 0]))
    one = ss.compare({"a": module._named(tilted)})
    table = parameter_table(one, "a")
    weights, theta = normalized_weights(tilted), tilted.sites()["theta"].reshape(-1, 2)
    np.testing.assert_allclose(table.loc["theta[0]", "mean"], weights @ theta[:, 0], rtol=1e-5)
    order = np.argsort(theta[:, 0])
    middle = theta[order, 0][np.searchsorted(np.cumsum(weights[order]), 0.5)]
    np.testing.assert_allclose(table.loc["theta[0]", "q50"], middle, rtol=1e-5)


def test_the_report_has_every_part(found: ss.PosteriorAnalysis) -> None:
    text = found.to_html()
    page = Page(text)
    words = " ".join(" ".join(page.words).split())
    parts = ("Can the draws be trusted?", "The posterior", "NUTS beside it", "Certificate", "Calibration")
    for heading in (*parts, "Does the model make such data?", "Training", "To reproduce"):
        assert heading in words
    assert found.headline in words
    assert "run <me>" in words
    assert "x[1]" in text
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in page.loads)
    assert len(page.ids) == len(set(page.ids))
    assert "do not use" not in words.lower().replace("use: ✕ do not use", "")
    assert text == found.to_html()


def test_print_shows_verdict_and_parameters(found: ss.PosteriorAnalysis) -> None:
    lines = str(found).splitlines()
    assert lines[0] == "Two numbers"
    assert lines[3] == found.headline
    assert any(line.startswith("theta[0]") for line in lines)
    assert "NUTS, from starts of its own" in lines[-1]


def test_save_writes_the_report_and_the_draws(found: ss.PosteriorAnalysis, tmp_path: Path) -> None:
    report = found.save(tmp_path / "deep" / "here")
    assert report.read_text(encoding="utf-8") == found.to_html()
    for name in ("posterior", "nuts"):
        with xr.open_datatree(report.parent / "draws" / f"{name}.nc", engine="h5netcdf") as tree:
            assert tree["posterior"]["theta"].shape[-1] == 2
            assert tree.attrs["verdict"] in ("use", "use with care")
    with pytest.raises(ValueError, match="is a file"):
        found.save(report)


def test_a_posterior_that_learned_nothing_is_not_to_be_used() -> None:
    settings: dict[str, Any] = SMALL | {"coordinates": "prior", "num_simulations": 500}
    posterior = ss.fit_posterior(model, observed="x", key=jax.random.key(0), num_epochs=2, **settings)
    data = np.array([3.0, -3.0])
    found = ss.analyse_posterior(posterior, data, key=jax.random.key(1), calibration=0, **QUICK)
    assert found.verdict.level == "do not use"
    assert "use its draws" in found.headline
    words = words_of(found)
    assert "✕ Do not use" in words
    assert "draws that are not to be used" in words
    assert found.name == "learned posterior"
    assert found.draws.log_weights is None


def test_without_a_likelihood_nothing_is_certified(unmeasured: ss.AmortisedPosterior) -> None:
    found = ss.analyse_posterior(unmeasured, DATA, key=jax.random.key(1), calibration=100, **QUICK)
    assert found.certificate is None
    assert found.nuts is None
    assert found.verdict.level == "use with care", str(found)
    assert "log_proposal" not in found.learned.stats
    words = words_of(found)
    assert "Calibration" in words
    assert "No certificate is possible" in words
    for absent in ("Pareto", "otal variation", "NUTS", "log evidence", "Weights"):
        assert absent not in words
        assert absent not in str(found)
    assert "calibrated on average" in found.headline


def test_without_a_likelihood_a_posterior_that_is_not_calibrated_is_refused() -> None:
    prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    settings: dict[str, Any] = SMALL | {"coordinates": "prior", "num_simulations": 200}
    posterior = ss.fit_posterior(observe, prior, key=jax.random.key(0), num_epochs=1, **settings)
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=200, **QUICK)
    assert found.calibration is not None
    assert not found.calibration.passed
    assert found.verdict.level == "do not use"
    ignorant = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, **QUICK)
    assert ignorant.verdict.level == "use with care"
    assert ignorant.headline.startswith("Nothing says")


def test_a_calibration_made_before_is_not_made_again(
    unmeasured: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ss.calibrate(unmeasured, key=jax.random.key(3), num_simulations=100, num_draws=20)
    monkeypatch.delattr(module, "calibrate")
    found = ss.analyse_posterior(unmeasured, DATA, key=jax.random.key(1), calibration=made, **QUICK)
    assert found.calibration is made
    assert found.seconds["calibrating"] == made.seconds


def certified_as(verdict: str, **changes: Any) -> Any:
    def certify(draws: ss.Draws, target: Any, *, key: Array) -> ss.Certificate:
        return dataclasses.replace(ss.certify(draws, target, key=key), verdict=cast(Any, verdict), **changes)

    return certify


def test_polished_draws_are_shown_as_such(posterior: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = ss.sample(posterior.given(DATA), ss.WithDensity(), key=jax.random.key(5), num_samples=600, num_chains=1)
    density = posterior.density(DATA)
    moved = ss.polish(ss.reweight(learned, density), density, key=jax.random.key(6))
    tail = Check("tail", 0.8, 0.7, False, "A few draws carry the weight.", "Train.", "fail")
    monkeypatch.setattr(module, "certify", certified_as("use polished", draws=moved, checks=[tail]))
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, nuts=False, **QUICK)
    assert found.draws is moved
    assert found.name == "learned posterior, polished"
    assert found.verdict.level == "use with care"
    assert found.headline.startswith("Use the polished draws")
    table = parameter_table(found.comparison, found.name)
    np.testing.assert_allclose(
        table.loc["theta[0]", "mean"], np.mean(moved.sites()["theta"][..., 0], dtype=np.float64), rtol=1e-4
    )
    assert "NUTS was not run" in found.remarks[0]


def test_a_certificate_that_missed_something_is_contradicted_by_nuts(
    posterior: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws that are all in one place pass any weighing there; NUTS finds the rest."""
    half = ss.sample(posterior.given(DATA), ss.WithDensity(), key=jax.random.key(5), num_samples=600, num_chains=1)
    half = dataclasses.replace(half, position=MEAN[0] + jnp.abs(half.position - MEAN[0]))
    monkeypatch.setattr(module, "certify", certified_as("use", draws=half, checks=[]))
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, **QUICK)
    assert found.verdict.level == "do not use"
    assert "a check failed that weights cannot see" in found.headline


def test_what_weights_have_mended_is_no_reproach(
    posterior: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = ss.sample(posterior.given(DATA), ss.WithDensity(), key=jax.random.key(5), num_samples=600, num_chains=1)
    weighted = ss.reweight(learned, posterior.density(DATA))
    apart = Check("total variation", 0.2, 0.05, False, "The draws differ.", "Weigh them.", "warn")
    monkeypatch.setattr(module, "certify", certified_as("use weighted", draws=weighted, checks=[apart]))
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, nuts=False, **QUICK)
    assert found.verdict.level == "use", str(found)
    assert found.name == "learned posterior, weighted"
    assert found.headline.startswith("Use the draws with their weights")


def test_a_refusal_needs_no_other_check(posterior: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "certify", certified_as("do not use", checks=[]))
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, nuts=False, **QUICK)
    assert found.verdict.level == "do not use"
    assert "far from the exact posterior" in found.verdict.sentence
    assert found.draws is found.learned


def test_draws_that_no_weight_can_be_given_to_are_refused(
    posterior: ss.AmortisedPosterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    def certify(*_: Any, **__: Any) -> ss.Certificate:
        raise ValueError("none of the draws gets a weight.")

    monkeypatch.setattr(module, "certify", certify)
    found = ss.analyse_posterior(posterior, DATA, key=jax.random.key(1), calibration=0, nuts=False, **QUICK)
    assert found.certificate is None
    assert found.verdict.level == "do not use"
    assert "none of the draws gets a weight" in found.verdict.sentence
    assert "Certificate" not in words_of(found)


def test_data_that_the_model_cannot_make_ask_for_care(posterior: ss.AmortisedPosterior) -> None:
    def strange(x: Array) -> dict[str, Array]:
        return {"distance": jnp.where(x[0] == DATA[0].astype(np.float32), 1e3, x[0] - x[1])}

    found = ss.analyse_posterior(
        posterior, DATA, key=jax.random.key(1), calibration=0, statistics=strange, nuts=False, **QUICK
    )
    assert found.predictive is not None
    assert not found.predictive.passed
    assert found.verdict.level == "use with care"
    assert "distance" in words_of(found)


def test_exchangeable_data_with_gaps_are_compared_by_summaries() -> None:
    def look(key: Array, theta: Array) -> Array:
        key_noise, key_gap = jax.random.split(key)
        x = theta + jax.random.normal(key_noise, (6,))
        return jnp.where(jax.random.uniform(key_gap, (6,)) < 0.1, jnp.nan, x)

    prior = dist.Normal(0.0, 1.0)
    settings: dict[str, Any] = SMALL | {"num_simulations": 300}
    posterior = ss.fit_posterior(look, prior, key=jax.random.key(0), num_epochs=1, exchangeable=True, **settings)
    data = np.array([0.3, np.nan, 1.0, 0.2, 0.1, -0.5])
    found = ss.analyse_posterior(posterior, data, key=jax.random.key(1), calibration=0, num_samples=100)
    assert found.predictive is not None
    assert found.predictive.names == ("largest x", "least x", "mean of x", "sd of x")
    expected = [np.nanmax(data), np.nanmin(data), np.nanmean(data), np.nanstd(data)]
    np.testing.assert_allclose(found.predictive.observed, expected, rtol=1e-5)
    in_order = ss.fit_posterior(look, prior, key=jax.random.key(0), num_epochs=1, **settings)
    found = ss.analyse_posterior(in_order, data, key=jax.random.key(1), calibration=0, num_samples=100)
    assert found.predictive is None
    assert "No posterior-predictive check" in found.remarks[-1]


@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_analysed_is_refused(posterior: ss.AmortisedPosterior) -> None:
    key = jax.random.key(0)
    wrong: Any = posterior.score
    with pytest.raises(TypeError, match="`posterior` must be what fit_posterior returned, got CentredScore"):
        ss.analyse_posterior(wrong, DATA, key=key)
    with pytest.raises(ValueError, match="one observation: many came"):
        ss.analyse_posterior(posterior, np.stack([DATA] * 3), key=key)
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        ss.analyse_posterior(posterior, np.zeros(3), key=key)
    with pytest.raises(ValueError, match="`num_samples`"):
        ss.analyse_posterior(posterior, DATA, key=key, num_samples=10)
    with pytest.raises(ValueError, match="`calibration`"):
        ss.analyse_posterior(posterior, DATA, key=key, calibration=10)
    sampler: Any = ss.ProbabilityFlowODE()
    with pytest.raises(TypeError, match="`sampler` must be a WithDensity"):
        ss.analyse_posterior(posterior, DATA, key=key, sampler=sampler)
