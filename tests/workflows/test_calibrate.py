"""`calibrate` on exact conditional posteriors, right and wrong in one way, and `posterior_predictive_check`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from matplotlib.image import imread

import scoresample as ss
from tests.conftest import Compilations
from tests.workflows.posteriors import COVARIANCE, GAIN, gaussian_posterior, posterior_named, simulate

KEY = jax.random.key(1)


def calibrated(name: str, **settings: Any) -> ss.Calibration:
    return ss.calibrate(posterior_named(name), simulate, key=KEY, num_draws=100, progress=False, **settings)


def test_the_exact_posterior_passes_everything() -> None:
    found = ss.calibrate(posterior_named("exact"), simulate, key=KEY, progress=False)
    assert (found.num_simulations, found.num_draws, found.nfe) == (1000, 200, 21.0)
    assert found.passed, str(found)
    assert found.sbc.names == ("x[0]", "x[1]")
    assert found.draws.shape == (1000, 200, 2)
    assert "calibrated, as far as these tests see" in str(found)
    assert 0 < found.sampling_seconds < found.seconds
    # Every draw belongs to its own observation.
    residual = found.draws - (found.conditions @ GAIN.T)[:, None]
    np.testing.assert_allclose(
        np.cov(residual.reshape(-1, 2).T), COVARIANCE, atol=5 * 0.3 * np.sqrt(2 / 200_000) + 0.01 * 0.3
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("too wide", ("over-dispersed (too wide)",) * 2),
        ("too narrow", ("under-dispersed (too narrow)",) * 2),
        ("too high", ("shifted up", "calibrated")),
        ("too low", ("calibrated", "shifted down")),
    ],
)
def test_wrong_marginals_are_named(name: str, words: tuple[str, str]) -> None:
    found = calibrated(name)
    assert not found.passed
    assert found.sbc.words == words
    assert "not calibrated" in str(found)
    assert words[0] in str(found)
    assert words[1] in str(found)


def test_lost_correlations_are_caught_by_tarp_and_by_a_joint_quantity() -> None:
    found = calibrated("without correlations")
    assert [check.name for check in found.checks if not check.passed] == ["TARP p-value, joint law"]
    assert "Every quantity by itself is calibrated" in str(found)
    joint = calibrated("without correlations", quantities=lambda theta: {"sum": theta.sum()})
    assert joint.sbc.names == ("sum",)
    # The right sum has a smaller variance: its coordinates are negatively correlated.
    assert joint.sbc.words == ("over-dispersed (too wide)",)


def test_the_prior_is_caught_by_tarp_alone() -> None:
    found = calibrated("the prior")
    assert found.sbc.words == ("calibrated",) * 2
    assert found.coverage.words == ("calibrated",) * 2
    assert found.tarp.words.startswith("over-dispersed")


def test_many_keys_of_the_exact_posterior() -> None:
    """A fifth of the runs may fail at level 0.2."""
    level, num = 0.2, 60
    path, failed = posterior_named("exact"), 0
    for number in range(num):
        found = ss.calibrate(
            path, simulate, key=jax.random.key(100 + number), num_simulations=100, num_draws=20, level=level,
            progress=False,
        )  # fmt: skip
        failed += not found.passed
    assert failed / num < level + 5 * np.sqrt(level * (1 - level) / num)
    assert failed > 0


def test_named_sites_and_trees() -> None:
    """A tree of conditions and positions, with a constrained and a constant site."""

    def constrain(position: dict[str, Array]) -> dict[str, Array]:
        x = position["x"]
        return {"scale": jnp.exp(x[0]), "theta": x, "zero": jnp.zeros(2, x.dtype)}

    def denoiser(y: Any, s: Array, c: Any) -> Any:
        return {"x": c["data"] / 2 + (y["x"] - c["data"] / 2) / (1 + 2 * s**2)}

    def pairs(key: Array, num: int) -> tuple[Any, Any]:
        theta, noise = np.asarray(jax.random.normal(key, (2, num, 2)))
        return {"x": theta}, {"data": theta + noise}

    path = ss.PerturbedScore(
        denoiser, ss.VE(0.01, 30.0), structure={"x": jnp.zeros(2)}, prediction="denoised", time="sigma",
        condition={"data": jnp.zeros(2)}, constrain=constrain,
    )  # fmt: skip
    found = ss.calibrate(
        path, pairs, key=jax.random.key(2), num_simulations=200, num_draws=30, batch_size=1000, progress=False
    )
    assert found.sbc.names == ("scale", "theta[0]", "theta[1]")
    assert found.passed
    np.testing.assert_allclose(found.sbc.ranks[:, 0], found.sbc.ranks[:, 1], atol=1 / 31 + 1e-6)


def test_one_compilation_serves_all_conditions(compilations: Compilations) -> None:
    ss.calibrate(posterior_named("exact"), simulate, key=KEY, num_simulations=100, num_draws=20, progress=False)
    with compilations.none_expected():
        ss.calibrate(posterior_named("too wide"), simulate, key=KEY, num_simulations=100, num_draws=20, progress=False)


def test_the_figure(tmp_path: Path) -> None:
    def many(theta: Array) -> dict[str, Array]:
        return {"theta": jnp.arange(1.0, 8.0, dtype=theta.dtype)[:, None] * theta, "cost in $": theta.sum()}

    found = calibrated("too narrow", num_simulations=200, quantities=many)
    assert len(found.sbc.names) == 15
    figure = found.figure()
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert len(titles) == 14
    assert sum("TARP" in title for title in titles) == 1
    assert figure.get_supxlabel().startswith("3 more quantities")
    saved = found.save(tmp_path / "made" / "calibration.png")
    assert imread(saved).shape[2] == 4
    assert imread(saved).std() > 0.01
    for wrong in (tmp_path, tmp_path / "calibration.html"):
        with pytest.raises(ValueError, match="`path` must be a file with an ending"):
            found.save(wrong)


def test_weights_of_the_draws_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of too wide a posterior, weighted to the right one."""
    from scoresample.workflows import _calibrate

    inner = ss.sample

    def weighted(path: Any, *arguments: Any, **settings: Any) -> ss.Draws:
        draws = inner(path, *arguments, **settings)
        condition = np.asarray(path.conditioning.value)
        z = np.asarray(draws.position)[0] - condition @ GAIN.T
        right, wide = (-0.5 * np.sum(z @ np.linalg.inv(c * COVARIANCE) * z, axis=1) for c in (1.0, 1.5**2))
        return dataclasses.replace(draws, log_weights=jnp.asarray(right - wide, jnp.float32)[None])

    assert not calibrated("too wide").passed
    monkeypatch.setattr(_calibrate, "sample", weighted)
    assert calibrated("too wide").passed


def short(posterior: Any = None, **settings: Any) -> ss.Calibration:
    path = gaussian_posterior() if posterior is None else posterior
    arguments: dict[str, Any] = {"simulate": simulate, "key": KEY, "progress": False, **settings}
    return ss.calibrate(path, **arguments)


DOORS: dict[str, tuple[Any, type[Exception], str]] = {
    "no path": (lambda: short(ss.Gaussian(jnp.zeros(2), 1.0)), TypeError, "`posterior` must be a path with conditions"),
    "no conditions": (
        lambda: short(ss.PerturbedScore(lambda z, t: -z, ss.VP(), structure=jnp.zeros(2))), ValueError,
        "was made without conditions",
    ),
    "chains": (lambda: short(sampler=ss.NUTS()), TypeError, "`sampler` must be a path sampler"),
    "few": (lambda: short(num_simulations=99), ValueError, "`num_simulations` must be at least 100"),
    "few draws": (lambda: short(num_draws=9), ValueError, "`num_draws` must be at least 10"),
    "level": (lambda: short(level=1.0), ValueError, "`level` must be between 0 and 1"),
    "no pair": (lambda: short(simulate=lambda key, num: jnp.zeros(num)), TypeError, "`simulate` must return a pair"),
    "other numbers": (
        lambda: short(simulate=lambda key, num: (jnp.zeros((num, 2)), jnp.zeros((3, 2)))), ValueError,
        "`simulate` was asked for 1000 simulations",
    ),
    "other shapes": (
        lambda: short(simulate=lambda key, num: (jnp.zeros((num, 3)), jnp.zeros((num, 2)))), ValueError, "`simulate`: ",
    ),
    "not finite": (
        lambda: short(simulate=lambda key, num: (jnp.full((num, 2), jnp.nan), jnp.zeros((num, 2)))), ValueError,
        "`simulate` returned 2000 numbers that are not finite",
    ),
    "constant": (
        lambda: short(quantities=lambda theta: {"one": jnp.ones(())}, num_simulations=100, num_draws=10), ValueError,
        "`quantities`: none of them varies",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DOORS))
def test_what_cannot_be_used_is_named(name: str, unchecked_types: None) -> None:
    call, error, message = DOORS[name]
    with pytest.raises(error, match=message):
        call()


def normal_data(key: Array, theta: Array) -> Array:
    return theta[0] + jax.random.normal(key, (30,), theta.dtype)


def mean_and_spread(x: Array) -> dict[str, Array]:
    return {"mean": x.mean(), "spread": x.std()}


def predictive(observed: Array, draws: ss.Draws | None = None, **settings: Any) -> ss.PosteriorPredictiveCheck:
    if draws is None:
        centre = observed.mean(keepdims=True) if observed.size else jnp.zeros(1)
        draws = ss.exact_draws(ss.Gaussian(centre, 1 / 30), key=jax.random.key(2), num_samples=500)
    return ss.posterior_predictive_check(draws, normal_data, observed, key=jax.random.key(3), **settings)


def test_replicates_of_a_right_model_look_like_the_data() -> None:
    right = 5 + jax.random.normal(jax.random.key(4), (30,))
    found = predictive(right, statistics=mean_and_spread)
    assert found.passed
    assert found.names == ("mean", "spread")
    assert found.replicated.shape == (1000, 2)
    # Of theta + the mean of 30 numbers, whose variances add.
    assert abs(found.replicated[:, 0].std() / np.sqrt(2 / 30) - 1) < 5 / np.sqrt(2 * 500)
    assert predictive(right).names[0] == "x[0]"
    wide = predictive(3 * right - 10, statistics=mean_and_spread)
    assert [check.passed for check in wide.checks] == [False, True, False]


def test_replicates_come_from_draws_by_their_weights() -> None:
    observed = jax.random.normal(jax.random.key(4), (30,))
    draws = ss.exact_draws(ss.Gaussian(observed.mean(keepdims=True), 1 / 30), key=KEY, num_samples=500)
    split = dataclasses.replace(draws, position=draws.position + jnp.where(jnp.arange(500) < 400, 9.0, 0.0)[:, None])
    far = predictive(observed, split, statistics=mean_and_spread).replicated[:, 0] > 5
    assert far.mean() == pytest.approx(0.8)
    weights = jnp.where(jnp.arange(500) < 400, -jnp.inf, 0.0)[None]
    weighted = predictive(observed, dataclasses.replace(split, log_weights=weights), statistics=mean_and_spread)
    assert weighted.passed
    assert weighted.replicated[:, 0].max() < 5


def test_a_wrong_observation_is_named(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=r"`observed` has the shapes \(29,\), but `simulator` makes \(30,\)"):
        predictive(jnp.zeros(29))
    with pytest.raises(TypeError, match="`draws` must be Draws, got ndarray"):
        predictive(jnp.zeros(30), np.zeros(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`statistics` must return a dictionary"):
        predictive(jnp.zeros(30), statistics=lambda x: x)
    with pytest.raises(ValueError, match="`num_replicates` must be at least 50"):
        predictive(jnp.zeros(30), num_replicates=49)
