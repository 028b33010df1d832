"""`fit_score` with conditions: the conditional law is learned, pair by pair, whatever the loss."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.nn import ResidualMLP, UNet
from scoresample.paths import score_particles
from scoresample.scores import Position
from scoresample.training._data import Source
from scoresample.training._scale import unexplained
from tests.diagnostics.made_draws import made_draws

GAIN = np.array([[1.0, 0.5], [-0.5, 0.3]])
NOISE = np.array([0.3, 0.5])
CENTRE, SPREAD = np.array([50.0, -3.0]), np.array([2.0, 0.5])


def pairs(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x | c is normal with mean GAIN (c - CENTRE)/SPREAD and standard deviations NOISE."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(num, 2))
    return c @ GAIN.T + NOISE * rng.normal(size=(num, 2)), CENTRE + SPREAD * c


def mean_given(conditions: np.ndarray) -> np.ndarray:
    return (conditions - CENTRE) / SPREAD @ GAIN.T


@pytest.fixture(scope="module")
def learned() -> Any:
    data, conditions = pairs(6000)
    return ss.fit_score(
        data,
        conditions=conditions,
        key=jax.random.key(0),
        process=ss.VE(0.01, 30.0),
        width=32,
        depth=1,
        num_epochs=60,
        learning_rate=3e-3,
        ema_decay=0.99,
        progress=False,
    )


def errors(score: Any, sigma: float) -> tuple[float, float]:
    """Relative L2 errors at a noise level: of the score, and of the exact score of the law without conditions."""
    data, conditions = pairs(1000, 1)
    scale = np.asarray(score.frame.scale, np.float64)
    noised = data + sigma * scale * np.random.default_rng(2).normal(size=data.shape)
    t = score.process.time(-jnp.log(jnp.asarray(sigma)))
    z = jax.vmap(score.frame.to_standard)(jnp.asarray(noised, jnp.float32))
    got = np.asarray(eqx.filter_jit(score_particles)(score.given(conditions), z, t), np.float64)
    want = -scale * (noised - mean_given(conditions)) / (NOISE**2 + (sigma * scale) ** 2)
    total = GAIN @ GAIN.T + np.diag(NOISE**2 + (sigma * scale) ** 2)
    unconditional = -scale * np.linalg.solve(total, noised.T).T
    return tuple(float(np.sqrt(np.sum((s - want) ** 2) / np.sum(want**2))) for s in (got, unconditional))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(("sigma", "tolerance"), [(0.1, 0.25), (0.5, 0.15), (2.0, 0.1), (8.0, 0.05)])
def test_a_learned_score_is_near_the_exact_one_of_every_condition(learned: Any, sigma: float, tolerance: float) -> None:
    error, blind = errors(learned, sigma)
    assert error < tolerance
    assert blind > 2 * error, "the score of the law without conditions is as near"


def test_draws_follow_the_condition(learned: Any) -> None:
    """One condition for all, and one for each: means and spreads are those of the conditional law."""
    one = CENTRE + SPREAD * np.array([1.5, -1.0])
    draws = ss.sample(
        learned.given(one), ss.ReverseSDE(num_steps=30), key=jax.random.key(1), num_samples=500, num_chains=1,
        progress=False,
    )  # fmt: skip
    x = draws.position[0].astype(np.float64)
    np.testing.assert_allclose(x.mean(axis=0), mean_given(one), atol=0.12)
    np.testing.assert_allclose(x.std(axis=0), NOISE, rtol=0.2)
    assert np.abs(mean_given(one)).min() > 4 * 0.12, "a score that ignores its condition would pass"
    _, many = pairs(500, 3)
    draws = ss.sample(
        learned.given(many), ss.ReverseSDE(num_steps=30), key=jax.random.key(1), num_samples=500, num_chains=1,
        batch_size=200, progress=False,
    )  # fmt: skip
    residual = draws.position[0] - mean_given(many)
    np.testing.assert_allclose(residual.std(axis=0), NOISE, rtol=0.25)


def test_the_smallest_scale_is_that_under_a_condition(learned: Any) -> None:
    data, conditions = pairs(6000)
    under_a_condition = (NOISE / data.std(axis=0)).min()
    found = learned.record.smallest_scale
    assert found == pytest.approx(under_a_condition, rel=0.1)
    alone = ss.fit_score(data, key=jax.random.key(0), network=Shift(jnp.zeros(())), num_epochs=1, progress=False)
    assert alone.record.smallest_scale > 2 * found
    # Conditions with more numbers than a tenth of the points explain everything by chance.
    few = np.random.default_rng(0).normal(size=(100, 20))
    np.testing.assert_array_equal(unexplained(few, few), few)
    rest = unexplained(data, np.random.default_rng(1).normal(size=(6000, 200)))
    np.testing.assert_allclose(rest.std(axis=0), data.std(axis=0), rtol=0.06)
    assert np.abs(unexplained(data, conditions).std(axis=0) / NOISE - 1).max() < 0.05


class Shift(eqx.Module):
    """The smallest network of a condition: so many times the condition."""

    weight: Array

    def __call__(self, x: Position, log_sigma: Array, condition: Any = None) -> Position:
        if condition is None:
            return jax.tree.map(lambda leaf: 0 * self.weight * leaf, x)
        return jax.tree.map(lambda leaf: self.weight * condition["c"] + 0 * leaf, x)


def fit(data: Any, conditions: Any, **settings: Any) -> Any:
    defaults: dict[str, Any] = {"network": Shift(jnp.zeros(())), "num_epochs": 2, "progress": False}
    return ss.fit_score(data, conditions=conditions, key=jax.random.key(0), **(defaults | settings))


def following(num: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Points that are their condition and noise."""
    rng = np.random.default_rng(0)
    c = rng.normal(size=(num, 2))
    return 0.8 * c + 0.6 * rng.normal(size=(num, 2)), 7.0 + 3.0 * c


VARIANTS: dict[str, dict[str, Any]] = {
    "sliced": {"loss": "sliced"},
    "implicit": {"loss": "implicit"},
    "learned weights": {"weighting": "learned"},
    "last": {"keep": "last", "patience": None},
    "penalty": {"penalties": {"score-fpe": 1e-4}},
    "ensemble": {"num_members": 2, "network": lambda key: Shift(jnp.zeros(()))},
    "energy": {"parametrisation": "energy"},
    "scores": {"scores": True},
    "batches": {"batch_size": 7},
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_way_to_train_sees_the_condition(name: str, precision: jnp.dtype) -> None:
    """The best weight of the condition is about .37: the regression of the network's target on it."""
    if precision == "float64" and name not in ("ensemble", "energy", "penalty"):
        pytest.skip("one of each kind")
    data, conditions = following()
    settings = dict(VARIANTS[name])
    if settings.get("scores"):
        settings["scores"] = -(data - 0.8 * (conditions - 7.0) / 3.0) / 0.36
    score = fit(data, {"c": conditions}, num_epochs=30, learning_rate=0.03, **settings)
    denoiser = score.fn.__self__ if name == "energy" else score.fn
    weight = denoiser.members.network.weight if name == "ensemble" else denoiser.network.weight
    # An energy's gradient is multiplied by the noise, which asks for a smaller weight.
    assert np.all(weight > (0.02 if name == "energy" else 0.1))
    given = score.given({"c": conditions[0]})
    value = eqx.filter_jit(lambda s, x: s(x, 0.5))(given, jnp.asarray(data[0], precision))
    assert value.dtype == precision
    other = eqx.filter_jit(lambda s, x: s(x, 0.5))(score.given({"c": conditions[1]}), jnp.asarray(data[0], precision))
    assert not np.allclose(value, other)
    assert np.isfinite(score.record.loss_by_level).all()
    if name == "ensemble":
        assert float(score.fn.spread(jnp.zeros(2, precision), jnp.ones((), precision), given.conditioning.value)) > 0


def test_shuffled_conditions_teach_nothing() -> None:
    data, conditions = following()
    score = fit(data, {"c": np.random.default_rng(1).permutation(conditions)}, num_epochs=30, learning_rate=0.03)
    assert abs(float(score.fn.network.weight)) < 0.1


def source(data: Any, conditions: Any, standardise: Any = "coordinates") -> Source:
    return Source(data, None, jax.random.key(3), None, "coordinates", 1000, 0.3, conditions, standardise)


def test_conditions_stay_with_their_points() -> None:
    """Conditions that are the points themselves are the same rows, of trees, of chains and of independent draws."""
    data = np.random.default_rng(0).normal(3.0, 2.0, size=(4, 50, 3))
    flat = data.reshape(200, 3)
    split = {"b": flat[:, 1:], "a": flat[:, 0]}
    chains = made_draws(data)
    for points, conditions in ((flat, flat), (split, split), (chains, data), (chains, flat)):
        first: Any = source(points, conditions).first
        np.testing.assert_allclose(first.conditions, first.points, atol=1e-5)
        for rows in (first.held_out, ~first.held_out):
            kept: Any = first.taken(rows)
            np.testing.assert_allclose(kept.conditions, kept.points, atol=1e-5)


def test_conditions_are_standardised_by_a_rule_of_their_own() -> None:
    data = np.random.default_rng(0).normal(size=(100, 2))
    conditions = np.column_stack([np.full(100, 3.0), np.arange(100), 10.0 * np.arange(100)])
    rows = source(data, conditions).first.conditions
    assert rows is not None
    np.testing.assert_allclose(rows[:, 0], 0.0)
    np.testing.assert_allclose(rows[:, 1:].std(axis=0), 1.0, rtol=1e-5)
    rows = source(data, conditions, "arrays").first.conditions
    assert rows is not None
    np.testing.assert_allclose([rows.mean(), rows.std()], [0.0, 1.0], atol=1e-5)
    plain: Any = source(data, conditions, "none").first
    np.testing.assert_allclose(plain.conditions, conditions)
    score = fit(data, {"c": conditions[:, 1:]}, standardise_conditions="arrays", num_epochs=1)
    wanted = (conditions[5, 1:] - conditions[:, 1:].mean()) / conditions[:, 1:].std()
    np.testing.assert_allclose(score.given({"c": conditions[5, 1:]}).conditioning.value["c"], wanted, rtol=1e-5)


def test_fields_are_learned_given_fields() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(60, 2, 4, 4))
    score = ss.fit_score(
        coarse.sum(axis=1) + 0.1 * rng.normal(size=(60, 4, 4)),
        conditions=coarse,
        key=jax.random.key(0),
        network=lambda key: UNet((4, 4), width=4, num_levels=1, periodic=True, condition_shape=(2, 4, 4), key=key),
        standardise="arrays",
        num_epochs=1,
        progress=False,
    )
    assert score.given(coarse[0])(jnp.zeros((4, 4)), 0.3).shape == (4, 4)


WEIGHTED = made_draws(np.random.default_rng(0).normal(size=(1, 100, 2)), log_weights=np.zeros((1, 100)))
DATA = np.random.default_rng(0).normal(size=(100, 2))
DOORS: dict[str, tuple[Any, type[Exception], str]] = {
    "rows": (lambda: fit(DATA, DATA[:99]), ValueError, r"`conditions` must have one for each point of `data`, 100"),
    "nan": (lambda: fit(DATA, {"c": np.where(DATA > 2, np.nan, DATA)}), ValueError, "values of c are not finite"),
    "words": (lambda: fit(DATA, np.full(100, "a")), TypeError, "`conditions` must be an array of real numbers"),
    "nothing": (lambda: fit(DATA, {}), TypeError, "`conditions` must be an array of real numbers"),
    "stream": (lambda: fit(lambda: iter([DATA]), DATA), ValueError, "`conditions` are taken beside arrays"),
    "weighted": (lambda: fit(WEIGHTED, DATA), ValueError, "`conditions`: these draws are weighted"),
    "rule": (lambda: fit(DATA, DATA, standardise_conditions="all"), ValueError, "`standardise_conditions` must be"),
    "rule alone": (
        lambda: fit(DATA, None, standardise_conditions="none"), ValueError, "there are no `conditions`",
    ),
    "network": (
        lambda: fit(DATA, DATA, network=lambda key: ResidualMLP(2, width=4, key=key)), ValueError,
        "`condition` has 2 numbers, but this network takes 0",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", list(DOORS))
def test_what_cannot_be_used_is_named(name: str) -> None:
    call, error, message = DOORS[name]
    with pytest.raises(error, match=message):
        call()


def test_batches_of_pairs_are_points_with_their_conditions() -> None:
    """A conditional law learned from a stream is that of the pairs, standardised by the first buffer."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        while True:
            known = rng.normal(3.0, 2.0, (500, 1))
            yield known + 0.1 * rng.normal(size=(500, 1)), known

    score = ss.fit_score(
        batches, conditions="paired", key=jax.random.key(0), num_epochs=12, buffer_size=2000, width=32, progress=False
    )
    assert isinstance(score, ss.PerturbedScore)
    assert score.conditioning is not None
    np.testing.assert_allclose(np.asarray(score.conditioning.frame.location), 3.0, atol=0.3)
    found = [float(score.given(jnp.array([c])).denoise(jnp.array([3.0]), 0.9)[0]) for c in (1.0, 5.0)]
    np.testing.assert_allclose(found, [1.0, 5.0], atol=0.4)


def test_pairs_that_are_none_are_refused() -> None:
    def batches() -> Iterator[np.ndarray]:
        yield np.ones((100, 2))

    with pytest.raises(ValueError, match="must be pairs"):
        ss.fit_score(batches, conditions="paired", key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="batches of pairs"):
        ss.fit_score(np.ones((100, 2)), conditions="paired", key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match='must be arrays, or "paired"'):
        ss.fit_score(batches, conditions="both", key=jax.random.key(0), progress=False)
