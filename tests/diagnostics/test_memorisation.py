"""Copies of the training set: chance rates in closed form, exact neighbours, verdicts of copies and of new draws."""

import time
import tracemalloc
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss
from scoresample.diagnostics import _neighbours
from scoresample.diagnostics._neighbours import two_nearest
from scoresample.diagnostics._point_sets import distinct_rows
from tests.diagnostics.made_draws import made_draws

Z = 5.0


def circle(seed: int, number: int, dimension: int = 20) -> np.ndarray:
    """Uniform on a unit circle in a random plane that is always the same."""
    plane = np.linalg.qr(np.random.default_rng(99).normal(size=(dimension, 2)))[0]
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, number)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T


def torus(seed: int, number: int, factors: int) -> np.ndarray:
    """Uniform on a product of circles: no edges, so the chance rate holds with few points too."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (number, factors))
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def normal(seed: int, number: int, dimension: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, dimension))


def by_brute_force(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.array([np.sort(np.sqrt(np.sum((others - point) ** 2, axis=1)))[:2] for point in points])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_chance_rate_is_a_third_to_the_power_of_the_dimension_of_the_data(k: int) -> None:
    points = circle(0, 20_000, 6) if k == 1 else torus(0, 20_000, k)
    training, held_out, new = points[:12_000], points[12_000:16_000], points[16_000:]
    found = ss.memorisation(new, training, held_out, scale="none", num_draws=4000)
    for rate, error in ((found.chance, found.chance_se), (found.fraction, found.fraction_se)):
        assert abs(rate - 3.0**-k) < Z * error
    # The law behind it: (d1/d2)^k is uniform, so its mean is 1/2 and its variance 1/12.
    uniform = found.held_out_ratio**k
    assert abs(uniform.mean() - 0.5) < Z / np.sqrt(12 * uniform.size)
    assert abs(uniform.var() - 1 / 12) < Z * np.sqrt((1 / 80 - 1 / 144) / uniform.size)
    assert abs(found.nearer - 0.5) < Z * found.nearer_se
    # At another ratio the rate is ratio^k.
    other = ss.memorisation(new, training, held_out, scale="none", num_draws=4000, ratio=0.6)
    assert abs(other.chance - 0.6**k) < Z * other.chance_se
    assert all(check.passed for check in found.checks)


def test_standard_errors_are_those_of_repeated_experiments() -> None:
    training = normal(0, 300, 2)
    found = [
        ss.memorisation(normal(100 + seed, 100, 2), training, normal(500 + seed, 150, 2), scale="none")
        for seed in range(300)
    ]
    for name in ("fraction", "chance", "excess", "share", "nearer"):
        spread = np.std([getattr(each, name) for each in found])
        claimed = np.mean([getattr(each, f"{name}_se") for each in found])
        # A standard deviation of 300 numbers is right to 4%; the errors of a fraction are a little generous.
        assert 0.85 < spread / claimed < 1.15
    assert abs(np.mean([each.nearer for each in found]) - 0.5) < Z * found[0].nearer_se / np.sqrt(300)


def test_copies_are_all_memorised_and_repeated_training_points_do_not_hide_them() -> None:
    training, held_out = normal(0, 500), normal(1, 500)
    exact = ss.memorisation(training[:200], training, held_out)
    assert exact.fraction == 1.0
    assert np.all(exact.distance == 0)
    assert exact.nearer == 1.0
    assert abs(exact.share - 1.0) < 1e-12
    twice = np.concatenate([training, training[:100], training[:100]])
    repeated = ss.memorisation(training[:100] + 1e-3, twice, held_out)
    assert (repeated.fraction, repeated.num_repeated, repeated.num_training) == (1.0, 200, 500)
    assert [check.severity for check in repeated.checks if not check.passed] == ["fail", "fail"]
    assert "200 repeated ones left out" in str(repeated)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_the_share_of_copies_is_found(share: float) -> None:
    training, held_out, new = circle(0, 2000), circle(1, 4000), circle(2, 4000)
    copied = np.random.default_rng(3).random(4000) < share
    picked = training[np.random.default_rng(4).integers(0, 2000, 4000)]
    found = ss.memorisation(np.where(copied[:, None], picked, new), training, held_out, scale="none", num_draws=4000)
    assert abs(found.share - share) < Z * found.share_se
    assert found.share_se < 0.03
    assert abs(found.nearer - (0.5 + share / 2)) < Z * found.nearer_se


def test_draws_between_copies_and_new_ones_are_caught_by_their_distances() -> None:
    # In 50 dimensions, half the spacing away from a training point the ratio is above a third.
    training, held_out, new = (normal(seed, 600, 50) for seed in range(3))
    spacing = np.median(two_nearest(held_out, training)[:, 0])
    near = ss.memorisation(training + 0.5 * spacing * new / np.sqrt(50), training, held_out, scale="none")
    copies, nearness = near.checks
    assert copies.passed
    assert (nearness.passed, nearness.severity) == (False, "fail")
    assert abs(near.distance_ratio - 0.5) < 0.05
    assert "delta" in nearness.remedy
    # A sample that is too narrow is nearer too, but not near: that is worth a warning, not this failure.
    narrow = ss.memorisation(0.8 * new, training, held_out, scale="none").checks[1]
    assert (narrow.passed, narrow.severity) == (False, "warn")
    assert "too narrow a sample" in narrow.cause


def test_draws_off_the_data_are_no_copies() -> None:
    training, held_out = circle(0, 1000), circle(1, 1000)
    found = ss.memorisation(circle(2, 1000) + 0.1 * normal(3, 1000, 20), training, held_out, scale="none")
    assert all(check.passed for check in found.checks)
    assert found.distance_ratio > 10
    assert found.nearer < 0.01
    assert "off the data" in found.meaning


def test_checks_of_new_draws_pass_on_every_seed() -> None:
    for seed in range(20):
        sizes = (400, 100 if seed % 2 else 400, 100)
        parts = [normal(10 * seed + place, size, 1 + seed % 4) for place, size in enumerate(sizes)]
        assert all(check.passed for check in ss.memorisation(parts[2], parts[0], parts[1]).checks)


@pytest.mark.parametrize("dimension", [1, 3, 30])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_neighbours_are_those_of_brute_force(dimension: int, mean: float) -> None:
    others = mean + normal(0, 2000, dimension)
    others[1000:] = others[:1000] + 1e-4 * normal(1, 1000, dimension)
    near = others[:50] + 1e-6 * normal(2, 50, dimension)
    points = np.concatenate([mean + normal(3, 50, dimension), near, others[:20]])
    found, exact = two_nearest(points, others), by_brute_force(points, others)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    assert np.all(found[-20:, 0] == 0)
    # What one product would have given instead, without the differences, is wrong.
    if dimension == 30 and mean:
        squares = (points**2).sum(1)[:, None] + (others**2).sum(1) - 2 * points @ others.T
        assert np.max(np.abs(np.sqrt(np.maximum(squares.min(axis=1), 0)) - exact[:, 0])) > 1e-3


def test_neighbours_where_rounding_hides_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two clusters far apart with points 1e-9 apart: squares of 1e12 have errors of 1e-4, so bounds rule out nothing.
    others = np.where(np.arange(400) % 2, 1e6, -1e6)[:, None] + 1e-9 * np.round(1e3 * normal(0, 400, 12)) + 0.0
    points = others[:40] + 3e-9
    with monkeypatch.context() as patch:
        asked = []
        whole = _neighbours._by_differences
        patch.setattr(_neighbours, "_by_differences", lambda point, rows: asked.append(1) or whole(point, rows))
        np.testing.assert_allclose(two_nearest(points, others), by_brute_force(points, others), rtol=1e-12)
        assert len(asked) > 20
    # Ties: many points equally near.
    lattice = np.unique(np.random.default_rng(0).integers(0, 2, (1500, 12)), axis=0).astype(float)
    corners = np.random.default_rng(1).integers(0, 2, (60, 12)).astype(float)
    np.testing.assert_array_equal(two_nearest(corners, lattice), by_brute_force(corners, lattice))
    # Fewer points than candidates.
    np.testing.assert_allclose(two_nearest(corners, lattice[:2]), by_brute_force(corners, lattice[:2]))


def test_neighbours_of_many_points_take_little_memory_and_seconds() -> None:
    generator = np.random.default_rng(0)
    others, points = generator.normal(size=(100_000, 64)), generator.normal(size=(1000, 64))
    others[:1000] = points + 1e-4
    tracemalloc.start()
    began = time.perf_counter()
    found = two_nearest(points, others)
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found[:, 0], 8e-4, rtol=1e-9)
    # The matrix of all distances would take 763 MiB; the points themselves have 49. It took 2 to 5 s on two busy cores.
    assert peak < 200 * 2**20
    assert seconds < 60


def test_repeated_rows_are_dropped_in_their_order() -> None:
    rows = np.array([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0], [1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(distinct_rows(rows), rows[[0, 1, 3]])


def test_scales() -> None:
    training, held_out, new = (normal(seed, 300, 4) for seed in range(3))
    units = np.array([1e-6, 1.0, 1e3, 1e5])
    plain = ss.memorisation(new, training, held_out)
    scaled = ss.memorisation(new * units + 7 * units, training * units + 7 * units, held_out * units + 7 * units)
    np.testing.assert_allclose(scaled.ratio, plain.ratio, rtol=1e-6)
    own = ss.memorisation(new * units, training * units, held_out * units, scale=units * training.std(axis=0))
    np.testing.assert_allclose(own.distance, plain.distance, rtol=1e-9)
    none = ss.memorisation(new, training, held_out, scale="none")
    np.testing.assert_array_equal(none.ratio, ss.memorisation(new, training, held_out, scale=1.0).ratio)
    np.testing.assert_allclose(none.distance, 3 * ss.memorisation(new, training, held_out, scale=3.0).distance)


@pytest.mark.parametrize("fill", ["constant", "rounding", "rare"])
def test_a_coordinate_that_hardly_varies_does_not_blow_up(fill: str) -> None:
    training, held_out, new = (normal(seed, 1000, 3).astype(np.float32) for seed in range(3))
    column = np.full((1000, 1), 0.1, np.float32)
    if fill == "rounding":
        column += np.float32(7e-9) * (np.arange(1000) % 2)[:, None].astype(np.float32)
    if fill == "rare":
        column[::250] += 1.0
    made = np.concatenate([new, 0.1 + 0.01 * normal(5, 1000, 1).astype(np.float32)], axis=1)
    found = ss.memorisation(
        made, np.concatenate([training, column], axis=1), np.concatenate([held_out, column], axis=1)
    )
    assert 0.9 < found.distance_ratio < 1.2


def test_trees_and_runs_mean_the_same_as_arrays() -> None:
    training, held_out, new = (normal(seed, 400, 5).astype(np.float32) for seed in range(3))

    def tree(points: np.ndarray) -> dict[str, np.ndarray]:
        return {"b": points[:, 3], "a": points[:, :3], "c": points[:, 4:].reshape(-1, 1, 1)}

    plain = ss.memorisation(new, training, held_out)
    assert plain.dimension == 5
    np.testing.assert_allclose(plain.ratio, ss.memorisation(tree(new), tree(training), tree(held_out)).ratio, rtol=1e-9)
    run = made_draws({name: jnp.asarray(leaf[None]) for name, leaf in tree(new).items()}, "independent")
    np.testing.assert_allclose(plain.ratio, ss.memorisation(run, tree(training), tree(held_out)).ratio, rtol=1e-9)
    chains = made_draws(training.reshape(4, 100, 5), "chains")
    np.testing.assert_allclose(plain.ratio, ss.memorisation(new, chains, held_out).ratio, rtol=1e-9)
    pictures = ss.memorisation(*(points.reshape(-1, 5, 1) for points in (new, training, held_out)))
    np.testing.assert_allclose(plain.ratio, pictures.ratio, rtol=1e-9)


def test_weights_are_used_up() -> None:
    training, held_out, new = (normal(seed, 1000, 5) for seed in range(3))
    both = np.concatenate([training, new]).astype(np.float32)[None]
    heavy = np.where(np.arange(2000) < 1000, 0.0, -40.0)[None]
    found = [
        ss.memorisation(made_draws(both, "independent", log_weights=weights), training, held_out).fraction
        for weights in (heavy, heavy[:, ::-1], None)
    ]
    assert found[0] == 1.0
    assert found[1] < 0.05
    assert abs(found[2] - 0.5) < 0.05


def test_no_more_points_are_used_than_asked_for() -> None:
    training, held_out, new = (normal(seed, 500) for seed in range(3))
    found = ss.memorisation(new, training, held_out, num_draws=100)
    assert found.ratio.size == found.held_out_ratio.size == 100
    whole = ss.memorisation(new, training, held_out)
    np.testing.assert_array_equal(found.ratio, whole.ratio[np.linspace(0, 499, 100).round().astype(int)])
    assert found.table["points"].value_counts().to_dict() == {"draws": 100, "held out": 100}


def test_what_does_not_fit_is_refused() -> None:
    training, held_out, new = (normal(seed, 100, 3) for seed in range(3))
    with pytest.raises(ValueError, match="`held_out`: 7 of 107 points are also in `training`"):
        ss.memorisation(new, training, np.concatenate([held_out, training[:7]]))
    single = training.astype(np.float32)
    with pytest.raises(ValueError, match="`held_out`: 100 of 100 points are also"):
        ss.memorisation(new, training, single)
    with pytest.raises(ValueError, match="`draws` needs one leading axis of at least 50"):
        ss.memorisation(new[:49], training, held_out)
    with pytest.raises(ValueError, match="`held_out` needs one leading axis of at least 50"):
        ss.memorisation(new, training, held_out[:49])
    with pytest.raises(ValueError, match="`training` needs one leading axis of at least 50"):
        ss.memorisation(new, training[:10], held_out)
    with pytest.raises(ValueError, match="`training`: all points are equal"):
        ss.memorisation(new, np.ones((100, 3)), held_out)
    with pytest.raises(ValueError, match=r"`draws`.*has shape"):
        ss.memorisation(normal(0, 100, 4), training, held_out)
    with pytest.raises(ValueError, match="`held_out`: this point has the tree"):
        ss.memorisation(new, training, {"x": held_out})
    broken = new.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="`draws`: some values are not finite"):
        ss.memorisation(broken, training, held_out)
    with pytest.raises(TypeError, match="`draws` must be an array"):
        ss.memorisation(["a"] * 100, training, held_out)
    for ratio in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="`ratio` must lie between 0 and 1"):
            ss.memorisation(new, training, held_out, ratio=ratio)
    with pytest.raises(ValueError, match="`num_draws` must be at least 50"):
        ss.memorisation(new, training, held_out, num_draws=10)
    for scale, words in (
        ("units", "`scale` must be 'coordinates'"),
        (np.ones(4), "`scale` must have the shapes"),
        (np.zeros(3), "every scale must be positive"),
        ({"x": 1.0}, "`scale` must have the tree"),
    ):
        with pytest.raises(ValueError, match=words):
            ss.memorisation(new, training, held_out, scale=cast(Any, scale))
