"""`fit_score`: what is learned, in which coordinates, from which draws."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.scores import Position
from scoresample.training import _fit
from tests.conftest import Compilations
from tests.diagnostics.made_draws import made_draws

COVARIANCE = np.array([[1.0, 1.2], [1.2, 4.0]])
MEAN = np.array([2.0, -3.0])


def correlated(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(MEAN, COVARIANCE, size=num)


class Gain(eqx.Module):
    """The smallest network: one gain for every noise level. A fit of it is compiled in no time."""

    weight: Array

    def __call__(self, x: Position, log_sigma: Array) -> Position:
        return jax.tree.map(lambda leaf: self.weight * leaf * jnp.tanh(log_sigma), x)


def gain(value: float = 0.3) -> Gain:
    return Gain(jnp.asarray(value))


def fit(data: Any, *, seed: int = 0, **settings: Any) -> Any:
    defaults: dict[str, Any] = {"network": gain(), "num_epochs": 2, "progress": False}
    return ss.fit_score(data, key=jax.random.key(seed), **(defaults | settings))


@pytest.fixture(scope="module")
def learned() -> Any:
    return ss.fit_score(
        correlated(8000),
        key=jax.random.key(0),
        width=32,
        depth=1,
        num_epochs=60,
        learning_rate=3e-3,
        ema_decay=0.99,
        progress=False,
    )


def relative_error(score: Any, exact: Any, sigma: float) -> float:
    """The relative L2 error at noise level sigma (in data standard deviations), over draws of that level."""
    t = score.process.time(-jnp.log(jnp.asarray(sigma)))
    alpha = score.process.alpha(t)
    rng = np.random.default_rng(1)
    scale = np.sqrt(np.diag(COVARIANCE))
    noised = correlated(1000, 2) + sigma * scale * rng.normal(size=(1000, 2))
    positions = jnp.asarray(alpha * (noised - MEAN) + MEAN, jnp.float32)
    got, want = (np.asarray(jax.jit(jax.vmap(f))(positions), np.float64) for f in (lambda x: score(x, t), exact(t)))
    return float(np.sqrt(np.sum((scale * (got - want)) ** 2) / np.sum((scale * want) ** 2)))


def exact_score(process: Any) -> Any:
    """The exact score of the noised Gaussian, standardised coordinate by coordinate as training does."""
    scale = np.sqrt(np.diag(COVARIANCE))
    standard = ss.Gaussian(jnp.zeros(2), COVARIANCE / np.outer(scale, scale))

    def at(t: Array) -> Any:
        noised = standard.perturbed(process.alpha(t), process.variance(t))
        return lambda x: noised((x - MEAN) / scale) / scale

    return at


@pytest.mark.parametrize(("sigma", "tolerance"), [(0.1, 0.2), (0.5, 0.1), (2.0, 0.05), (8.0, 0.05)])
def test_a_learned_score_is_near_the_exact_one(learned: Any, sigma: float, tolerance: float) -> None:
    exact = exact_score(learned.process)
    error = relative_error(learned, exact, sigma)
    assert error < tolerance, f"relative L2 error {error:.3f}"
    untrained = eqx.tree_at(
        lambda s: s.fn.network.project.weight, learned, jnp.zeros_like(learned.fn.network.project.weight)
    )
    if sigma < 5:
        assert relative_error(untrained, exact, sigma) > 2 * error, "a network of zeros does as well"


def test_a_record_tells_the_training(learned: Any) -> None:
    record = learned.record
    assert len(record.train_loss) == 60
    assert 30 <= len(record.validation_loss) == len(record.validation_epochs) <= 60
    assert record.best_epoch == record.validation_epochs[int(np.argmin(record.validation_loss))]
    assert record.best_loss == record.validation_loss.min() < record.validation_loss[0]
    assert 0 < record.epoch_seconds < record.seconds
    assert (record.num_train, record.num_validation) == (7200, 800)
    assert record.loss_by_level.shape == (8,)
    np.testing.assert_allclose(record.level_edges[[0, -1]], [0.005, 20.0], rtol=1e-5)
    assert record.num_parameters == sum(x.size for x in jax.tree.leaves(eqx.filter(learned.fn, eqx.is_inexact_array)))
    assert str(record).startswith("60 epochs on 7200 points in ")


def test_sampling_with_a_learned_score_recovers_the_moments(learned: Any) -> None:
    draws = ss.sample(learned, ss.ReverseSDE(num_steps=30), key=jax.random.key(5), progress=False)
    x = draws.position[0].astype(np.float64)
    scale = np.sqrt(np.diag(COVARIANCE))
    assert np.abs((x.mean(axis=0) - MEAN) / scale).max() < 0.15
    correlation = np.corrcoef(x.T)[0, 1]
    assert correlation == pytest.approx(0.6, abs=0.08)
    np.testing.assert_allclose(x.std(axis=0) / scale, 1.0, atol=0.12)


def test_a_retrained_score_shares_the_compilation_of_sampling(compilations: Compilations) -> None:
    scores = [fit(correlated(200, seed), seed=seed) for seed in (0, 1)]
    assert scores[0].fn.network.weight != scores[1].fn.network.weight

    def run(score: Any) -> np.ndarray:
        return ss.sample(score, ss.PredictorCorrector(num_steps=4), key=jax.random.key(2), num_samples=5).position

    before = run(scores[0])
    with compilations.none_expected():
        after = run(scores[1])
    assert not np.array_equal(before, after)


def test_training_is_a_function_of_the_key() -> None:
    data = correlated(200)
    first, again, other = fit(data), fit(data), fit(data, seed=1)
    assert first.fn.network.weight == again.fn.network.weight
    np.testing.assert_array_equal(first.record.train_loss, again.record.train_loss)
    assert first.fn.network.weight != other.fn.network.weight


def test_the_standardisation_is_undone() -> None:
    """Data far from zero and tiny, beside data that are large: the same network, seen through another frame."""
    standard = np.random.default_rng(0).normal(size=(300, 2))
    standard = (standard - standard.mean(axis=0)) / standard.std(axis=0)
    location, scale = np.array([1000.0, -5.0]), np.array([1e-3, 50.0])
    plain, moved = fit(standard), fit(location + scale * standard)
    np.testing.assert_allclose(moved.frame.location, location, rtol=1e-6)
    np.testing.assert_allclose(moved.frame.scale, scale, rtol=1e-4)
    np.testing.assert_allclose(moved.fn.network.weight, plain.fn.network.weight, rtol=1e-4)
    # Near 1000 the numbers of float32 are 6e-5 apart: points that it can represent.
    z = np.array([[0.0, 1.0], [2.0**-13 / 1e-3, -2.0]])
    for t in (0.2, 0.8):
        got = jax.vmap(lambda x, t=t: moved(x, t))(jnp.asarray(location + scale * z, jnp.float32))
        want = jax.vmap(lambda x, t=t: plain(x, t))(jnp.asarray(z, jnp.float32)) / scale
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-2 * np.abs(want).max(axis=0).min())
    # Draws come back where the data were.
    draws = ss.sample(moved, ss.PredictorCorrector(num_steps=10), key=jax.random.key(1), num_samples=100)
    assert np.abs((draws.position[0].mean(axis=0) - location) / scale).max() < 1.0


def test_float64_inputs_give_scores_of_the_default_dtype() -> None:
    score = fit(correlated(200))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(score.structure))
    with jax.enable_x64(True):
        score = fit(correlated(200), network=Gain(jnp.asarray(0.3)))
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(score.structure))
        assert score(jnp.asarray(MEAN), 0.5).dtype == np.float64


def test_positions_may_be_trees() -> None:
    rng = np.random.default_rng(0)
    data = {"effects": rng.normal(size=(200, 2, 2)), "log_scale": rng.normal(3.0, 0.1, size=200)}
    score = fit(data)
    assert score.structure["effects"].shape == (2, 2)
    assert score.structure["log_scale"].shape == ()
    position = {"effects": jnp.ones((2, 2)), "log_scale": jnp.asarray(3.0)}
    value = score(position, 0.4)
    assert jax.tree.structure(value) == jax.tree.structure(position)
    np.testing.assert_allclose(score.frame.location["log_scale"], data["log_scale"].mean(), rtol=1e-6)
    draws = ss.sample(score, ss.PredictorCorrector(num_steps=4), key=jax.random.key(0), num_samples=3, num_chains=1)
    assert draws.position["effects"].shape == (1, 3, 2, 2)
    assert sorted(draws.sites()) == ["effects", "log_scale"]


def constrain(position: Position) -> dict[str, Array]:
    return {"scale": jnp.exp(position["log_scale"])}


def some_draws(**fields: Any) -> ss.Draws:
    rng = np.random.default_rng(0)
    return made_draws({"log_scale": rng.normal(size=(4, 100)).astype(np.float32)}, constrain=constrain, **fields)


def test_draws_hand_on_their_named_sites() -> None:
    draws = some_draws()
    score = fit(draws)
    assert score.constrain is constrain
    assert score.structure["log_scale"].shape == ()
    again = ss.sample(score, ss.PredictorCorrector(num_steps=4), key=jax.random.key(0), num_samples=5)
    assert list(again.sites()) == ["scale"]
    np.testing.assert_allclose(again.sites()["scale"], np.exp(again.position["log_scale"]), rtol=1e-5)


def test_chains_are_pooled() -> None:
    draws = some_draws()
    flat = {"log_scale": draws.position["log_scale"].reshape(-1)}
    for ours, theirs in zip(jax.tree.leaves(fit(draws).frame), jax.tree.leaves(fit(flat).frame), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_point_is_on_both_sides() -> None:
    """Chains are held out by blocks, and weighted draws are resampled on either side of the split."""
    from scoresample.training._data import Source

    chains = Source(some_draws(), None, jax.random.key(0), None, "none", 1, 0.2).first
    np.testing.assert_array_equal(chains.held_out.reshape(4, 100).sum(axis=1), 20)
    np.testing.assert_array_equal(chains.held_out.reshape(4, 100)[:, 80:], True)
    single = made_draws({"log_scale": np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32)})
    assert Source(single, None, jax.random.key(0), None, "none", 1, 0.2).first.held_out.sum() == 12, "of single draws"
    draws = some_draws()
    weighted = some_draws(log_weights=2 * np.asarray(draws.position["log_scale"]), kind="independent")
    points = Source(weighted, None, jax.random.key(0), None, "none", 1, 0.2).first
    assert points.held_out.sum() == 80
    assert not set(points.points[points.held_out, 0]) & set(points.points[~points.held_out, 0])
    assert len(set(points.points[:, 0])) < 300, "they were resampled"


def test_weighted_draws_are_resampled() -> None:
    """Weights exp(x) move a standard normal law to the mean 1."""
    draws = some_draws()
    weighted = some_draws(log_weights=np.asarray(draws.position["log_scale"]), kind="independent")
    x = np.asarray(draws.position["log_scale"], np.float64).reshape(-1)
    weights = np.exp(x) / np.exp(x).sum()
    mean = weights @ x
    sd = np.sqrt(weights @ (x - mean) ** 2)
    location = float(fit(weighted).frame.location["log_scale"])
    assert abs(location - mean) < 5 * sd / np.sqrt(400)
    assert abs(location - x.mean()) > 10 * sd / np.sqrt(400)


def test_training_stops_when_nothing_improves() -> None:
    patient = fit(correlated(200), num_epochs=12, learning_rate=1e-9, patience=None)
    assert len(patient.record.train_loss) == 12
    # A network that starts at the optimum and then takes huge steps gets worse from the first epoch on.
    wild = fit(
        np.random.default_rng(0).normal(size=(400, 2)), network=gain(0.0), num_epochs=200, patience=3, learning_rate=1.0
    )
    record = wild.record
    assert len(record.train_loss) < 200
    assert len(record.train_loss) == record.best_epoch + 1 + 3
    assert record.best_epoch == int(np.argmin(record.validation_loss))


def test_the_kept_weights_are_those_of_the_best_epoch() -> None:
    """With one step an epoch and a rate that only grows, early weights are the best."""
    data = np.random.default_rng(0).normal(size=(300, 2))
    settings: dict[str, Any] = {"network": gain(0.0), "batch_size": 300, "learning_rate": 0.5, "patience": None}
    long = fit(data, num_epochs=30, **settings)
    assert long.record.best_epoch < 29
    assert abs(float(long.fn.network.weight)) < 0.5


def test_the_last_weights_are_kept_on_request() -> None:
    """With one step an epoch and a rate that only grows, the last weights are far from the best."""
    data = np.random.default_rng(0).normal(size=(300, 2))
    settings: dict[str, Any] = {"network": gain(0.0), "batch_size": 300, "learning_rate": 0.5, "patience": None}
    best, last = (fit(data, num_epochs=30, keep=keep, **settings) for keep in ("best", "last"))
    np.testing.assert_array_equal(best.record.validation_loss, last.record.validation_loss)
    assert last.record.best_epoch == 29
    assert last.record.best_loss == best.record.validation_loss[-1] > best.record.best_loss
    # What the record says of the kept weights is measured on them: the levels' losses average to the whole.
    for score in (best, last):
        assert score.record.loss_by_level.mean() == pytest.approx(score.record.best_loss, rel=1e-3)
    assert abs(float(last.fn.network.weight)) > 2 * abs(float(best.fn.network.weight))


def test_weights_are_averaged_over_steps() -> None:
    """A young average follows the weights: of the second step's, the first that moves, it takes nine elevenths."""
    data = correlated(200)
    settings: dict[str, Any] = {"num_epochs": 1, "batch_size": 90, "network": gain(0.3)}
    last = float(fit(data, ema_decay=1e-12, **settings).fn.network.weight)
    average = float(fit(data, ema_decay=0.999, **settings).fn.network.weight)
    assert last != pytest.approx(0.3, abs=1e-5)
    assert average == pytest.approx(2 / 11 * 0.3 + 9 / 11 * last, rel=1e-5)


def test_known_scores_of_the_target_enter_in_its_own_coordinates() -> None:
    """On a Gaussian without correlations they leave no variance in the targets: the loss of a zero network is zero."""
    mean, sd = np.array([1000.0, -2.0]), np.array([0.1, 30.0])
    z = np.random.default_rng(0).normal(size=(400, 2))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    data = mean + sd * z
    settings: dict[str, Any] = {"network": gain(0.0), "learning_rate": 1e-9, "num_epochs": 1}
    without = fit(data, **settings)
    informed = fit(data, scores=-(data - mean) / sd**2, **settings)
    assert without.record.train_loss[0] == pytest.approx(1.0, abs=0.2)
    assert informed.record.train_loss[0] < 1e-3
    assert informed.record.validation_loss[0] < 1e-3
    wrong = fit(data, scores=(data - mean) / sd**2, **settings)
    assert wrong.record.train_loss[0] > 1.0


def test_known_scores_must_fit_the_data() -> None:
    data = correlated(200)
    with pytest.raises(ValueError, match="`scores` must look like `data`"):
        fit(data, scores=data[:100])
    with pytest.raises(ValueError, match="`scores`: some are not finite"):
        fit(data, scores=np.full_like(data, np.nan))


def test_the_process_and_the_range_are_the_users() -> None:
    score = fit(correlated(200), process=ss.VE(0.01, 50.0), sigma_range=(0.02, 10.0))
    assert isinstance(score.process, ss.VE)
    np.testing.assert_allclose(score.log_snr_range, [-np.log(10.0), -np.log(0.02)], rtol=1e-5)
    assert isinstance(fit(correlated(200)).process, ss.VP)


def test_a_loss_that_explodes_is_an_error() -> None:
    class Exploding(eqx.Module):
        weight: Array

        def __call__(self, x: Array, log_sigma: Array) -> Array:
            return x * jnp.exp(1e3 * self.weight)

    message = r"the training loss became (inf|nan) in epoch 1 \(held-out loss .*\). Lower `learning_rate`"
    with pytest.raises(RuntimeError, match=message):
        fit(correlated(200), network=Exploding(jnp.asarray(1.0)))


def test_a_bar_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    data = correlated(200)
    silent = fit(data, progress=False)
    assert capsys.readouterr().err == ""
    assert fit(data, progress=True).fn.network.weight == silent.fn.network.weight


def test_an_ensemble_trains_different_members() -> None:
    score = fit(correlated(200), network=lambda key: Gain(jax.random.normal(key)), num_members=3)
    weights = np.asarray(score.fn.members.network.weight)
    assert weights.shape == (3,)
    assert len(set(weights.tolist())) == 3
    alone = fit(correlated(200), network=lambda key: Gain(jax.random.normal(key)))
    assert alone.fn.network.weight.shape == ()
    z, s = jnp.array([0.4, -1.0]), jnp.asarray(0.7)
    np.testing.assert_allclose(score.fn(z, s), np.mean([score.fn.member(i)(z, s) for i in range(3)], axis=0), rtol=1e-5)
    with pytest.raises(ValueError, match="Pass a function key -> network"):
        fit(correlated(200), num_members=2)


@pytest.mark.parametrize("settings", [{"loss": "sliced"}, {"loss": "implicit"}, {"weighting": "learned"}])
def test_other_losses_and_weightings_have_the_same_minimiser(settings: dict[str, Any]) -> None:
    """On independent normal data the best gain of the smallest network is zero, whatever the way to it."""
    data = np.random.default_rng(0).normal(size=(2000, 2))
    score = fit(data, network=gain(0.3), num_epochs=20, learning_rate=0.03, patience=None, ema_decay=0.9, **settings)
    assert abs(float(score.fn.network.weight)) < 0.05


def test_bounded_data_are_learned_without_bounds() -> None:
    """Uniform numbers are logistic in their logits, and come back inside of their bounds."""
    data = {
        "share": np.random.default_rng(0).random((400, 2)),
        "level": 3 + np.random.default_rng(1).gamma(2.0, size=400),
    }
    score = fit(data, support={"share": (0.0, 1.0), "level": (3.0, None)})
    np.testing.assert_allclose(score.frame.scale["share"], np.pi / np.sqrt(3), rtol=0.15)
    draws = ss.sample(score, ss.PredictorCorrector(num_steps=4), key=jax.random.key(0), num_samples=50, num_chains=1)
    sites = draws.sites()
    assert np.all((sites["share"] >= 0) & (sites["share"] <= 1))
    assert np.all(sites["level"] >= 3)
    with pytest.raises(ValueError, match="`data`: 1 values of share lie on or outside of the bounds"):
        fit({"share": np.append(np.random.default_rng(0).random(99), 1.0)}, support={"share": (0.0, 1.0)})


def test_scores_of_bounded_data_are_moved_with_them() -> None:
    """Half-normal data, learned in their logarithms: a wrong Jacobian would show in the loss."""
    data = np.abs(np.random.default_rng(0).normal(size=(4000, 1)))
    settings: dict[str, Any] = {"support": (0.0, None), "network": gain(0.0), "learning_rate": 1e-9, "num_epochs": 1}
    right = fit(data, scores=-data, **settings).record.validation_loss[0]
    wrong = fit(data, scores=data, **settings).record.validation_loss[0]
    assert right < 0.6 < 1.0 < wrong


def test_batches_from_an_iterator_are_data() -> None:
    data = correlated(1000)
    whole = fit(data[:500])
    with pytest.warns(UserWarning, match="the iterator ended after 2 of 9 epochs"):
        stream = fit(iter(np.split(data, 10)), num_epochs=9, buffer_size=500)
    assert len(stream.record.train_loss) == 2, "a buffer of 500, then 450 more, and the iterator has ended"
    np.testing.assert_allclose(stream.frame.location, whole.frame.location, rtol=1e-6)
    again = fit(lambda: iter(np.split(data, 10)), num_epochs=9, buffer_size=500)
    assert len(again.record.train_loss) == 9
    assert again.record.num_validation == 50
    with pytest.raises(ValueError, match="the iterator gave no batches"):
        fit(iter([]))
    with pytest.raises(ValueError, match="batches must be trees of arrays of one shape"):
        fit(iter([data[:100], data[:100, :1]]), buffer_size=200)


def test_held_out_points_of_a_stream_are_never_trained_on() -> None:
    seen = []

    def batches() -> Any:
        for start in range(0, 300, 50):
            seen.append(start)
            yield np.arange(start, start + 50, dtype=float)[:, None]

    from scoresample.training._data import Source

    source = Source(batches, None, jax.random.key(0), None, "none", 150, 0.2)
    np.testing.assert_array_equal(np.flatnonzero(source.first.held_out), np.arange(30))
    for _ in range(5):
        points = source.more()
        assert points is not None
        assert points.points.shape == (120, 1)
        assert points.points.min() >= 30
    assert seen.count(0) > 1, "it was opened anew"


@pytest.mark.parametrize(("dimension", "asked", "probes"), [(16, None, 0), (17, None, 1), (16, 2, 2), (17, 0, 0)])
def test_penalties_take_exact_traces_in_few_dimensions(
    dimension: int, asked: int | None, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(_state: Any, _static: Any, settings: Any, *_: Any) -> Any:
        seen.append(settings.penalty_probes)
        raise KeyboardInterrupt

    monkeypatch.setattr(_fit, "run_round", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(np.random.default_rng(0).normal(size=(60, dimension)), penalties={"score-fpe": 1.0}, penalty_probes=asked)
    assert seen == [probes]


@pytest.mark.usefixtures("unchecked_types")
def test_settings_that_cannot_be_used_are_named() -> None:
    data = correlated(100)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"weighting": "flat"}, "`weighting` must be one of"),
        ({"loss": "slice"}, "`loss` must be one of"),
        ({"keep": "first"}, "`keep` must be one of"),
        ({"parametrisation": "eps"}, "`parametrisation` must be one of"),
        ({"penalties": {"fpe": 1.0}}, "`penalties`: names are"),
        ({"penalties": {"score-fpe": -1.0}}, "`penalties`: the weight of score-fpe"),
        ({"penalties": {"logdensity-fpe": 1.0}}, 'set parametrisation="energy"'),
        ({"penalty_probes": -1}, "`penalty_probes` must be at least 0"),
        ({"loss": "sliced", "scores": data}, "`scores` are targets of the denoising loss"),
        ({"gradient_clip": 0.0}, "`gradient_clip` must be positive"),
        ({"num_members": 2, "parametrisation": "energy"}, "ensembles of energies"),
    ]
    for settings, message in wrong:
        with pytest.raises(ValueError, match=message):
            fit(data, **settings)


def denoised_at(score: Any, x: Array, sigma: float) -> Array:
    """What the denoiser of a score makes of a point."""
    return score.fn(x, jnp.asarray(sigma))


def test_augmented_points_are_those_that_are_learned() -> None:
    """Points around +2 and their mirror images have mean 0: a denoiser of much noise tends to it."""
    data = 2 + 0.1 * jax.random.normal(jax.random.key(0), (400, 1))
    settings: dict[str, Any] = {
        "key": jax.random.key(1), "num_epochs": 150, "batch_size": 36, "learning_rate": 3e-3, "width": 16, "depth": 1,
        "standardise": "none", "progress": False,
        "keep": "last",
    }  # fmt: skip
    mirrored = ss.fit_score(data, augment=lambda key, z: z * jax.random.rademacher(key, (), z.dtype), **settings)
    plain = ss.fit_score(data, **settings)
    # Much noise sees a normal law of the same mean and variance v: E[z | y] = mean + v / (v + s^2) (y - mean).
    x, sigma = jnp.array([1.5]), 6.0
    low, high = (float(denoised_at(score, x, sigma)[0]) for score in (mirrored, plain))
    assert abs(low - 1.5 * 4.01 / (4.01 + sigma**2)) < 0.15
    assert abs(high - 2) < 0.15


def test_augmenting_draws_with_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="`augment`: `scores` belong"):
        ss.fit_score(
            jnp.ones((20, 1)), scores=jnp.ones((20, 1)), augment=lambda key, z: z, key=jax.random.key(0), progress=False
        )


def test_augmentations_of_other_shapes_are_refused_at_the_door() -> None:
    points = jnp.arange(240.0).reshape(120, 2)
    settings: dict[str, Any] = {"key": jax.random.key(0), "progress": False}
    with pytest.raises(ValueError, match="`augment` must keep the shapes"):
        ss.fit_score(points, augment=lambda key, z: z[:1], **settings)
    with pytest.raises(ValueError, match=r"`augment` must give a pair \(point, condition\)"):
        ss.fit_score(points, conditions=points, augment=lambda key, z, c: z, **settings)
    with pytest.raises(ValueError, match="`augment` must give a point as it takes"):
        ss.fit_score(points, augment=lambda key, z: (z, z), **settings)
