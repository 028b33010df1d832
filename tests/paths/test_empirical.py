"""The exact score of noised points, against the same sums in double precision."""

import dataclasses
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import EmpiricalPerturbedScore, perturb, score_particles
from scoresample.paths._gaussian_average import _over_nearest
from scoresample.paths._points import spacing

PROCESS = ss.VE(sigma_min=1e-5, sigma_max=50.0)


def circle(num: int, dimension: int, seed: int = 0) -> np.ndarray:
    """Points on the unit circle in the first two of some coordinates, away from the origin."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, num)
    points = np.full((num, dimension), 3.0)
    points[:, 0] += np.cos(angle)
    points[:, 1] += np.sin(angle)
    return points.astype(np.float32).astype(np.float64)


def two_clusters(num: int) -> np.ndarray:
    """Two clusters, each narrower than squares by products can tell in single precision."""
    rng = np.random.default_rng(1)
    points = 1e-3 * rng.normal(size=(num, 3)) + np.where(rng.random((num, 1)) < 0.5, -1.0, 1.0)
    return points.astype(np.float32).astype(np.float64)


def reference(positions: np.ndarray, points: np.ndarray, sigma: float, log_weights: Any = 0.0) -> Any:
    """Scores and log densities of ``sum_i w_i N(x_i, sigma^2 I)``."""
    squares = np.sum((positions[:, None] - points[None]) ** 2, axis=2)
    logits = log_weights - squares / (2 * sigma**2)
    largest = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - largest)
    total = weights.sum(axis=1, keepdims=True)
    norm = np.log(np.sum(np.exp(np.broadcast_to(log_weights, len(points)))))
    dimension = points.shape[1]
    logdensity = largest[:, 0] + np.log(total[:, 0]) - norm - 0.5 * dimension * np.log(2 * np.pi * sigma**2)
    return ((weights / total) @ points - positions) / sigma**2, logdensity


def time_of(path: EmpiricalPerturbedScore, sigma: float) -> Array:
    return path.process.time(-jnp.log(jnp.asarray(sigma)))


@eqx.filter_jit
def both(path: EmpiricalPerturbedScore, z: Array, t: Array) -> tuple[Array, Array]:
    return score_particles(path, z, t), jax.vmap(path.standard_logdensity, in_axes=(0, None))(z, t)


# Roundings of the points themselves, 1e-7 of their size, are 1e-3 of a noise of 1e-4.
CASES = {
    "few points": (lambda: circle(300, 20), (5.0, 0.3, 0.02, 1e-3, 1e-4)),
    "many points": (lambda: circle(6000, 20), (5.0, 0.3, 0.02, 1e-3, 1e-4)),
    "many points in their own neighbourhood": (lambda: two_clusters(6000), (1.0, 0.01, 1e-3, 3e-4)),
    "many dimensions": (lambda: np.random.default_rng(2).normal(size=(3000, 64)), (5.0, 1.0, 0.1, 0.01)),
}


@pytest.mark.parametrize("name", CASES)
def test_score_and_density_are_those_of_double_precision(name: str) -> None:
    make, levels = CASES[name]
    points = make()
    path = perturb(points, PROCESS)
    rng = np.random.default_rng(5)
    for sigma in levels:
        t = time_of(path, sigma)
        sigma = float(path.process.sigma(t))
        z = jnp.asarray(points[:24] + sigma * rng.normal(size=points[:24].shape), jnp.float32)
        score, logdensity = both(path, z, t)
        want, want_log = reference(np.asarray(z, np.float64), points, sigma)
        assert np.max(np.abs(np.asarray(score) - want)) * sigma < 1e-2, sigma
        assert np.max(np.abs(np.asarray(logdensity) - want_log)) < 0.05, sigma


def test_double_precision_is_used_where_it_is_on() -> None:
    points = circle(4000, 4)
    with jax.enable_x64(True):
        path = perturb(points, PROCESS)
        for sigma in (0.3, 1e-4):
            t = time_of(path, sigma)
            sigma = float(path.process.sigma(t))
            z = jnp.asarray(points[:8] + 0.5 * sigma, jnp.float64)
            score, logdensity = both(path, z, t)
            want, want_log = reference(np.asarray(z), points, sigma)
            assert np.max(np.abs(np.asarray(score) - want)) * sigma < 1e-6
            assert np.max(np.abs(np.asarray(logdensity) - want_log)) < 1e-6


def test_a_position_far_from_all_points_is_drawn_to_the_nearest() -> None:
    path = perturb(circle(5000, 3), PROCESS)
    z = jnp.array([1e3, 3.0, 3.0])
    t = time_of(path, 1e-3)
    clean = path.standard_denoise(z, t)
    assert np.allclose(clean, [4.0, 3.0, 3.0], atol=2e-3)


def test_the_nearest_points_are_enough_where_they_say_so() -> None:
    """All distances are taken only where the nearest points cannot be told, or are too many."""
    points = circle(6000, 20)
    path = perturb(points, PROCESS)
    y = jnp.asarray(points[:16] + 5e-5 * np.random.default_rng(0).normal(size=(16, 20)), jnp.float32)

    def unsure(y: Array, sigma: float, path: EmpiricalPerturbedScore) -> Array:
        points = path.points._replace(features=None)
        variance = jnp.asarray(sigma**2, jnp.float32)
        return jax.vmap(lambda y: _over_nearest(y - points.centre, variance, points, lambda c: c.log_weights)[1])(y)

    assert not np.any(unsure(y, 2e-4, path))
    assert np.all(unsure(y, 0.5, path))
    clusters = two_clusters(6000)
    assert np.all(unsure(jnp.asarray(clusters[:16], jnp.float32), 3e-4, perturb(clusters, PROCESS)))


def test_one_particle_among_many_points_is_enough_to_take_all_distances() -> None:
    """The first particle, at a point of its own, could do without."""
    points = np.concatenate([two_clusters(6000), np.full((1, 3), 5.0)])
    path = perturb(points, PROCESS)
    t = time_of(path, 1e-3)
    z = jnp.asarray(points[[-1, 0, 1]], jnp.float32)
    sigma = float(path.process.sigma(t))
    got, got_log = both(path, z, t)
    want, want_log = reference(np.asarray(z, np.float64), points, sigma)
    assert np.max(np.abs(np.asarray(got) - want)) * sigma < 1e-2
    assert np.max(np.abs(np.asarray(got_log) - want_log)) < 0.05


def test_points_closer_than_the_rounding_of_squares_are_told_apart() -> None:
    """Squares tell distances of 3e-4 apart here, neighbours are at 1e-5."""
    rng = np.random.default_rng(3)
    points = 1e-4 * rng.normal(size=(5000, 3)) + np.where(np.arange(5000)[:, None] < 2500, -0.6, 0.6)
    points = points.astype(np.float32).astype(np.float64)
    path = perturb(points, ss.VE(1e-7, 50.0))
    t = path.process.time(-jnp.log(1e-6))
    denoise = jax.vmap(path.standard_denoise, in_axes=(0, None))
    clean = np.asarray(denoise(jnp.asarray(points[:40], jnp.float32), t), np.float64)
    assert np.max(np.abs(clean - points[:40])) < 3e-7


@pytest.mark.parametrize("num", [500, 5000])
@pytest.mark.parametrize("sigma", [0.5, 2e-4])
def test_the_score_is_the_gradient_of_the_log_density(num: int, sigma: float) -> None:
    points = circle(num, 3)
    path = perturb(points, PROCESS)
    t = time_of(path, sigma)
    z = jnp.asarray(points[:5] + 0.5 * sigma, jnp.float32)
    gradient = jax.vmap(jax.grad(path.standard_logdensity), in_axes=(0, None))(z, t)
    assert np.allclose(gradient * sigma, score_particles(path, z, t) * sigma, atol=1e-4)
    forward, reverse = (
        jax.vmap(derivative(path.standard_score), in_axes=(0, None))(z, t) for derivative in (jax.jacfwd, jax.jacrev)
    )
    assert np.allclose(forward * sigma**2, reverse * sigma**2, atol=1e-4)
    assert np.allclose(forward * sigma**2, np.swapaxes(forward, 1, 2) * sigma**2, atol=1e-4)


def test_branches_stay_branches_for_many_particles() -> None:
    path = perturb(circle(5000, 3), PROCESS)
    jaxpr = jax.make_jaxpr(lambda z, t: score_particles(path, z, t))(jnp.zeros((7, 3)), jnp.asarray(0.5))
    branches = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "cond"]
    assert len(branches) == 1
    inner = [eqn.primitive.name for branch in branches[0].params["branches"] for eqn in branch.jaxpr.eqns]
    assert "cond" in inner


def test_memory_does_not_grow_with_the_product_of_positions_and_points() -> None:
    rng = np.random.default_rng(0)
    path = perturb(rng.normal(size=(100_000, 64)).astype(np.float32), PROCESS)
    z = jnp.zeros((1000, 64), jnp.float32)
    compiled = jax.jit(lambda z, t: score_particles(path, z, t)).lower(z, jnp.asarray(0.5)).compile()
    matrix = 4 * 1000 * 100_000
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 0.6 * matrix


def test_copies_count_as_weights() -> None:
    points = circle(40, 3)
    copied = perturb(np.concatenate([points, points[:10], points[:10]]), PROCESS)
    weighted = perturb(points, PROCESS, weights=np.where(np.arange(40) < 10, 3.0, 1.0))
    z, t = jnp.asarray(points[5:15] + 0.1, jnp.float32), time_of(copied, 0.3)
    for one, other in zip(both(copied, z, t), both(weighted, z, t), strict=True):
        assert np.allclose(one, other, atol=1e-4)
    assert np.allclose(copied.data_moments()[0], weighted.data_moments()[0], atol=1e-5)
    log_weights = np.log(np.where(np.arange(40) < 10, 3.0, 1.0))
    want, want_log = reference(np.asarray(z, np.float64), points, float(copied.process.sigma(t)), log_weights)
    assert np.allclose(both(weighted, z, t)[0], want, atol=1e-3)
    assert np.allclose(both(weighted, z, t)[1], want_log, atol=1e-3)


@pytest.mark.parametrize("process", [ss.VP(), PROCESS], ids=["VP", "VE"])
def test_a_bandwidth_makes_a_mixture_of_normal_laws(process: ss.AbstractNoiseProcess) -> None:
    points, width = circle(30, 3), 0.2
    smooth = perturb(points, process, bandwidth=width)
    mixture = perturb(ss.GaussianMixture(np.ones(30), points, width**2), process)
    for got, want in zip(jax.tree.leaves(smooth.data_moments()), jax.tree.leaves(mixture.data_moments()), strict=True):
        assert np.allclose(got, want, atol=1e-4)
    assert np.allclose(smooth.log_snr_range, mixture.log_snr_range, atol=1e-4)
    x = jnp.asarray(points[:6] + 0.1, jnp.float32)
    for t in (0.1, 0.4, 0.9):
        assert np.allclose(
            jax.vmap(lambda p, t=t: smooth(p, t))(x), jax.vmap(lambda p, t=t: mixture(p, t))(x), atol=1e-3
        )
        ours, theirs = (jax.vmap(lambda p, t=t, path=path: path.logdensity(p, t))(x) for path in (smooth, mixture))
        assert np.allclose(ours, theirs, atol=1e-3)


def test_location_and_scale_move_the_noise() -> None:
    points = circle(30, 3)
    location, scale = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 1.0])
    framed = perturb(points, ss.VP(), location=jnp.asarray(location), scale=jnp.asarray(scale))
    plain = perturb((points - location) / scale, ss.VP())
    x, t = jnp.asarray(points[0] + 0.2, jnp.float32), 0.4
    assert np.allclose(framed(x, t) * scale, plain((x - location) / scale, t), atol=1e-4)
    assert np.isclose(framed.logdensity(x, t) + np.log(scale).sum(), plain.logdensity((x - location) / scale, t))


@pytest.mark.parametrize("condition", [None, 2])
def test_points_in_another_frame_are_those_noised_there(condition: int | None) -> None:
    """Far from the origin, where single precision of a position is a visible part of a standard coordinate."""
    points = np.array([900.0, -3.0, 0.0]) + np.array([0.01, 2.0, 1.0]) * circle(400, 3)
    old: dict[str, Any] = {"location": jnp.array([1.0, 2.0, 3.0]), "scale": jnp.array([0.5, 2.0, 1.0])}
    new: dict[str, Any] = {"location": jnp.array([900.0, 0.0, 5.0]), "scale": jnp.array([0.01, 2.0, 3.0])}
    weights, labels = np.arange(400) % 3 + 1.0, np.arange(400) % 3
    settings: dict[str, Any] = {"weights": weights, "conditions": labels}
    first, second = (perturb(points, PROCESS, **frame, **settings) for frame in (old, new))
    plain = perturb(points, PROCESS, **settings)
    if condition is not None:
        first, second, plain = (path.given(condition) for path in (first, second, plain))
    for path in (first.in_frame(**new), plain.in_frame(**new)):
        assert float(path.spacing) == pytest.approx(float(second.spacing), rel=1e-3)
        assert np.allclose(path.log_snr_range, second.log_snr_range, atol=1e-3)
        for got, want in zip(jax.tree.leaves(path.data_moments()), jax.tree.leaves(second.data_moments()), strict=True):
            assert np.allclose(got, want, atol=1e-3)
        for t in (0.3, 0.7):
            z = second.sample_reference(jax.random.key(0), 6, t)
            sigma = second.process.sigma(jnp.asarray(t))
            for got, want in zip(both(path, z, jnp.asarray(t)), both(second, z, jnp.asarray(t)), strict=True):
                assert np.allclose(got * sigma, want * sigma, atol=1e-2)
    assert np.allclose(both(first, z, jnp.asarray(0.3))[0], both(plain, z, jnp.asarray(0.3))[0]) is False
    back = second.in_frame()
    assert back.frame.location is None
    assert np.allclose(back.points.centre, plain.points.centre)
    with pytest.raises(ValueError, match="`bandwidth`: smoothed points stay in the standard coordinates"):
        perturb(points, ss.VP(), bandwidth=0.1).in_frame(**new)


def test_points_far_from_the_origin_stay_where_they_are() -> None:
    """A centre that is not a number of single precision moves no point."""
    points = (1000.0003 + 1e-2 * np.random.default_rng(0).normal(size=(50, 2))).astype(np.float32).astype(np.float64)
    path = perturb(points, PROCESS)
    held = np.asarray(path.points.points, np.float64).swapaxes(1, 2).reshape(-1, 2)
    held = np.unique(held + np.asarray(path.points.centre, np.float64), axis=0)
    assert np.max(np.abs(held - np.unique(points, axis=0))) < 1e-8


def test_a_tree_is_noised_like_its_coordinates_side_by_side() -> None:
    points = circle(30, 3).astype(np.float32)
    tree = {"a": points[:, :1], "b": {"c": points[:, 1], "d": points[:, 2].reshape(30, 1, 1)}}
    path, flat = perturb(tree, ss.VP()), perturb(points, ss.VP())
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[3] + 0.1), tree)
    got = path(x, 0.5)
    want = flat(jnp.asarray(points[3] + 0.1), 0.5)
    assert got["b"]["d"].shape == (1, 1)
    assert np.allclose(jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(got)]), want, atol=1e-5)


def test_a_label_chooses_its_points() -> None:
    points, labels = circle(60, 3), np.arange(60) % 3 + 7
    path = perturb(points, PROCESS, conditions=labels)
    z, t = jnp.asarray(points[:6] + 0.1, jnp.float32), time_of(path, 0.2)
    for label in (7, 9):
        alone = perturb(points[labels == label], PROCESS)
        for got, want in zip(both(path.given(label), z, t), both(alone, z, t), strict=True):
            assert np.allclose(got, want, atol=1e-3)
    by_truth = perturb(points, PROCESS, conditions=labels == 8).given(True)
    assert np.allclose(both(by_truth, z, t)[0], both(path.given(8), z, t)[0], atol=1e-4)
    everything = perturb(points, PROCESS)
    assert np.allclose(both(path, z, t)[0], both(everything, z, t)[0], atol=1e-4)


@pytest.mark.parametrize(("num", "sigma"), [(3000, 0.2), (3000, 1.2e-3), (1000, 1.2e-3)])
def test_a_real_condition_weighs_points_by_a_kernel(num: int, sigma: float) -> None:
    """Neighbours have conditions of their own, so that their weights count at the smallest noise too."""
    points = circle(num, 3)
    conditions = np.random.default_rng(0).normal(size=(num, 2))
    path = perturb(points, PROCESS, conditions=conditions, condition_bandwidth=np.array([0.3, 0.5]))
    wanted = np.array([0.5, 0.2])
    log_weights = -0.5 * np.sum(((conditions - wanted) / [0.3, 0.5]) ** 2, axis=1)
    t = time_of(path, sigma)
    sigma = float(path.process.sigma(t))
    z = jnp.asarray(points[:24] + sigma * np.random.default_rng(1).normal(size=(24, 3)), jnp.float32)
    got, got_log = both(path.given(wanted), z, t)
    want, want_log = reference(np.asarray(z, np.float64), points, sigma, log_weights)
    assert np.max(np.abs(np.asarray(got) - want)) * sigma < 1e-2
    assert np.max(np.abs(np.asarray(got_log) - want_log)) < 0.05


def test_conditions_far_from_zero_are_compared_as_precisely() -> None:
    """Seconds since 1970: in single precision they are the same for two minutes."""
    points, times = circle(300, 3), 10.0 * np.arange(300)
    z = jnp.asarray(points[:6] + 0.1, jnp.float32)
    late, early = (
        perturb(points, PROCESS, conditions=start + times, condition_bandwidth=50.0).given(start + 1005.0)
        for start in (1.7e9, 0.0)
    )
    t = time_of(early, 0.3)
    weights = np.exp(-0.5 * ((times - 1005.0) / 50.0) ** 2)
    for path in (late, early):
        for got, want in zip(both(path, z, t), both(perturb(points, PROCESS, weights=weights), z, t), strict=True):
            assert np.allclose(got, want, atol=2e-3)


def test_every_particle_may_have_a_condition_of_its_own() -> None:
    points, labels = circle(60, 3), np.arange(60) % 3
    path = perturb(points, PROCESS, conditions=labels)
    wanted = np.array([2, 0, 1, 1])
    z, t = jnp.asarray(points[:4] + 0.1, jnp.float32), time_of(path, 0.2)
    together = score_particles(path.given(wanted), z, t)
    alone = jnp.stack([path.given(label).standard_score(z[k], t) for k, label in enumerate(wanted)])
    assert np.allclose(together, alone, atol=1e-4)
    draws = ss.sample(
        path.given(np.repeat(wanted, 25)), ss.ReverseSDE(num_steps=30), key=jax.random.key(0), num_samples=100,
        num_chains=1, batch_size=50,
    )  # fmt: skip
    nearest = np.argmin(np.linalg.norm(np.asarray(draws.position)[0][:, None] - points[None], axis=2), axis=1)
    assert np.array_equal(labels[nearest], np.repeat(wanted, 25))


def test_draws_bring_their_weights_and_names() -> None:
    density = ss.Gaussian(jnp.zeros(2), 1.0)
    draws = ss.sample(density, ss.ULA(step_size=0.1), key=jax.random.key(0), num_samples=30, num_warmup=10)
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 30)), jnp.float32)
    weighted = dataclasses.replace(draws, log_weights=log_weights)
    path = perturb(weighted, ss.VP())
    flat = np.asarray(draws.position).reshape(-1, 2)
    want = perturb(flat, ss.VP(), weights=np.exp(np.ravel(log_weights)))
    x = jnp.array([0.3, -0.2])
    assert np.allclose(path(x, 0.3), want(x, 0.3), atol=1e-5)
    assert path.constrain is draws.constrain


def test_all_the_way_every_draw_is_a_point_and_a_bandwidth_keeps_them_apart() -> None:
    points = circle(50, 4)
    own = spacing(points)

    def distances(path: EmpiricalPerturbedScore) -> np.ndarray:
        draws = ss.sample(path, ss.ReverseSDE(), key=jax.random.key(1), num_samples=100)
        found = np.asarray(draws.position, np.float64).reshape(-1, 1, 4)
        return np.min(np.linalg.norm(found - points[None], axis=2), axis=1)

    assert np.max(distances(perturb(points, ss.VP()))) < 0.02 * own
    smooth = perturb(points, ss.VP(), bandwidth="spacing")
    assert float(smooth.bandwidth) == pytest.approx(own)
    assert np.median(distances(smooth)) > own


def test_spacing_is_the_median_distance_to_another_point() -> None:
    points = np.random.default_rng(0).normal(size=(400, 5)) + 1e3
    distances = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(400, np.inf))
    assert spacing(points) == pytest.approx(np.median(distances.min(axis=1)), rel=1e-9)
    assert spacing(np.concatenate([points, points])) == pytest.approx(spacing(points))
    assert spacing(points[:1]) == 0.0


def test_one_point_is_a_point_mass() -> None:
    path = perturb(np.array([[2.0, -1.0]]), ss.OU(5.0))
    x, t = jnp.array([0.5, 0.5]), 0.3
    alpha, variance = path.process.alpha(jnp.asarray(t)), path.process.variance(jnp.asarray(t))
    assert np.allclose(path(x, t), (alpha * np.array([2.0, -1.0]) - x) / variance, rtol=1e-5)


POINTS = np.random.default_rng(0).normal(size=(20, 2))
DOORS: dict[str, tuple[Any, type[Exception], str]] = {
    "complex": (lambda: perturb(POINTS + 1j, ss.VP()), TypeError, "`data` must be a density"),
    "complex conditions": (
        lambda: perturb(POINTS, ss.VP(), conditions=POINTS + 1j), ValueError, "`conditions` must be numbers",
    ),
    "no coordinates": (lambda: perturb(np.ones((5, 0)), ss.VP()), ValueError, "`data` needs one leading axis"),
    "traced": (
        lambda: jax.jit(lambda x: perturb(x, ss.VP())(x[0], 0.3))(POINTS), TypeError, "`data`: points .* are traced",
    ),
    "a label without weight": (
        lambda: perturb(POINTS, ss.VP(), conditions=np.arange(20) % 2, weights=np.arange(20) % 2).given(0),
        ValueError, "this label have weight zero",
    ),
    "nobody's condition": (
        lambda: perturb(POINTS, ss.VP(), conditions=np.arange(20)).given(np.zeros(0, int)),
        ValueError, r"must have shape \(\)",
    ),
    "words": (lambda: perturb(np.array(["a"]), ss.VP()), TypeError, "`data` must be a density.*or points"),
    "lengths": (lambda: perturb({"a": POINTS, "b": POINTS[1:]}, ss.VP()), ValueError, "`data` needs one leading axis"),
    "nan": (lambda: perturb(POINTS * np.nan, ss.VP()), ValueError, "`data`: some values are not finite"),
    "weights": (lambda: perturb(POINTS, ss.VP(), weights=np.ones(3)), ValueError, "`weights` must be 20 numbers"),
    "negative": (lambda: perturb(POINTS, ss.VP(), weights=-np.ones(20)), ValueError, "`weights` must be 20 numbers"),
    "bandwidth": (lambda: perturb(POINTS, ss.VP(), bandwidth=-1.0), ValueError, "`bandwidth` must be a positive"),
    "a word": (lambda: perturb(POINTS, ss.VP(), bandwidth="scott"), ValueError, "`bandwidth` must be a positive"),
    "conditions": (lambda: perturb(POINTS, ss.VP(), conditions=np.ones(3)), ValueError, "`conditions` must be numbers"),
    "no kernel": (
        lambda: perturb(POINTS, ss.VP(), conditions=np.ones(20)), ValueError, "`condition_bandwidth` must be positive",
    ),
    "labels have none": (
        lambda: perturb(POINTS, ss.VP(), conditions=np.arange(20), condition_bandwidth=1.0),
        ValueError, "whole numbers are labels",
    ),
    "without conditions": (
        lambda: perturb(POINTS, ss.VP(), condition_bandwidth=1.0), ValueError, "came without `conditions`",
    ),
    "unconditional": (lambda: perturb(POINTS, ss.VP()).given(1.0), ValueError, "came without conditions"),
    "unknown label": (
        lambda: perturb(POINTS, ss.VP(), conditions=np.arange(20)).given(77), ValueError, "no point has the label",
    ),
    "shape": (
        lambda: perturb(POINTS, ss.VP(), conditions=POINTS).given(np.ones(3)), ValueError, r"must have shape \(2,\)",
    ),
    "far": (
        lambda: perturb(POINTS, ss.VP(), conditions=POINTS).given(np.full(2, 1e6)), ValueError, "than 8 bandwidths",
    ),
    "a density with weights": (
        lambda: cast(Any, perturb)(ss.Gaussian(jnp.zeros(2), 1.0), ss.VP(), weights=np.ones(2)),
        TypeError, "`weights` is for points; Gaussian is noised as it is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_doors(name: str) -> None:
    call, error, message = DOORS[name]
    with pytest.raises(error, match=message):
        call()
