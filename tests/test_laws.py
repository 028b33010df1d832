"""Laws that every score, noise process, path and sampler keeps, run over the cases of `cases.py`."""

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from scoresample.inference import Draws, sample
from scoresample.paths import (
    VP,
    AbstractPerturbedScore,
    AbstractScorePath,
    denoise_particles,
    perturb,
    score_particles,
)
from scoresample.samplers import AbstractPathSampler, AbstractSampler
from scoresample.scores import (
    AbstractDensityScore,
    AbstractScore,
    DensityScore,
    Gaussian,
    Position,
    Score,
    from_numpyro,
    structure_of,
)
from scoresample.testing import check_path, check_sampler, check_score
from tests.cases import (
    CHAIN_SAMPLERS,
    ON_TEMPERED_PATHS,
    PARTICLE_SAMPLERS,
    PATHS,
    PROCESSES,
    SAMPLERS,
    SCORES,
    network_path,
    numpyro_model,
    quartic,
    tree_logdensity,
    tree_position,
)
from tests.conftest import Compilations

TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
"""Relative difference that another order of additions may make."""
LEVELS = (0.05, 0.4, 0.95)


def points(structure: Any, num: int, seed: int = 0) -> Position:
    """Points off the origin with a leading axis."""
    leaves, tree = jax.tree.flatten(structure)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    made = [0.3 + jax.random.normal(k, (num, *leaf.shape), leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, made)


def first(tree: Position) -> Position:
    return jax.tree.map(lambda x: x[0], tree)


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    """Equal trees up to a share of the largest entry of each array."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(initial=0.0), 1e-3))


def assert_like(value: Any, position: Position, dtype: jnp.dtype) -> None:
    assert structure_of(value) == structure_of(position)
    for leaf in jax.tree.leaves(value):
        assert leaf.dtype == dtype
        assert not leaf.weak_type
        assert np.isfinite(leaf).all()


def promotion(name: str) -> Any:
    """Strict dtype promotion for our own code; NumPyro's transforms mix dtypes freely."""
    return jax.numpy_dtype_promotion("standard" if "NumPyro" in name else "strict")


# Scores


@pytest.mark.parametrize("name", SCORES)
def test_scores_keep_structure_shape_and_dtype(name: str, precision: jnp.dtype) -> None:
    score = SCORES[name]()
    batch = points(score.structure, 3)
    one = first(batch)
    assert structure_of(one) == score.structure
    with promotion(name):
        compiled = eqx.filter_jit(lambda s, x: s(x))(score, one)
        batched = eqx.filter_jit(lambda s, x: jax.vmap(s)(x))(score, batch)
    assert_like(compiled, one, precision)
    assert_like(batched, batch, precision)
    eager = score(one)
    assert_like(eager, one, precision)
    assert_close(compiled, eager, TOLERANCE[precision.name])
    assert_close(first(batched), eager, TOLERANCE[precision.name])
    if isinstance(score, AbstractDensityScore):
        with promotion(name):
            both, also = eqx.filter_jit(lambda s, x: s.value_and_score(x))(score, one)
            value, gradient = eqx.filter_jit(lambda s, x: jax.value_and_grad(s.logdensity)(x))(score, one)
        assert value.shape == ()
        assert value.dtype == precision
        assert_close(both, value, TOLERANCE[precision.name])
        assert_close(also, eager, TOLERANCE[precision.name])
        # A network has float32 weights of its own accuracy; the line integral is exact for this cubic score.
        assert_close(gradient, eager, 10 * TOLERANCE[precision.name])


@pytest.mark.parametrize("name", ["mixture", "log density of a tree", "bare score of a tree", "line integral"])
def test_scores_keep_the_published_contract(name: str) -> None:
    check_score(SCORES[name](), key=jax.random.key(0))


@pytest.mark.parametrize("name", SCORES)
def test_constrained_positions_are_named_arrays(name: str) -> None:
    score = SCORES[name]()
    sites = score.constrain(first(points(score.structure, 1)))
    assert sites
    assert all(isinstance(site, str) and np.isfinite(value).all() for site, value in sites.items())


def test_equal_structures_share_one_trace() -> None:
    traces: list[str] = []

    @eqx.filter_jit
    def evaluate(score: AbstractScore, position: Position) -> Position:
        traces.append(type(score).__name__)
        return score(position)

    effects = jnp.array([1.0, -1.0])
    families = {
        "DensityScore": [
            DensityScore(tree_logdensity, jnp.asarray(shape), shape * effects, structure=tree_position())
            for shape in (3.0, 4.0)
        ],
        "Score": [Score(quartic, slope * effects, structure=jnp.zeros(2)) for slope in (1.0, 2.0)],
        "Gaussian": [Gaussian(jnp.full(2, mean), 1.0 + mean) for mean in (1.0, 2.0)],
        "FrozenScore": [network_path(gain).at(t) for gain, t in ((0.9, 0.1), (0.8, 0.2))],
        "FrozenDensityScore": [perturb(Gaussian(jnp.full(2, mean), 1.0), VP()).at(mean / 4) for mean in (1.0, 2.0)],
        "TemperedDensityScore": [beta * Gaussian(jnp.zeros(2), 1.0) for beta in (0.5, 0.7)],
        "SumDensityScore": [Gaussian(jnp.full(2, mean), 1.0) + Gaussian(jnp.zeros(2), 2.0) for mean in (1.0, 2.0)],
    }
    for name, scores in families.items():
        values = [evaluate(score, jax.tree.map(jnp.ones_like, first(points(score.structure, 1)))) for score in scores]
        assert not same(*values)
        assert traces.count(name) == 1, f"{name} was traced again"
    posteriors = [from_numpyro(numpyro_model, (data,)) for data in (jnp.array([0.3, -1.0]), jnp.array([2.0, 4.0]))]
    traces.clear()
    for posterior in posteriors:
        evaluate(posterior, first(points(posterior.structure, 1)))
    assert traces == ["DensityScore"]


# Noise processes and paths


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_keep_the_dtype_and_invert_their_clock(name: str, precision: jnp.dtype) -> None:
    process = PROCESSES[name]()
    t = jnp.linspace(0.05, 1.0, 7)
    with jax.numpy_dtype_promotion("strict"):
        for method in ("log_alpha", "alpha", "variance", "sigma", "log_snr", "drift_rate", "squared_diffusion"):
            value = jax.jit(jax.vmap(getattr(process, method)))(t)
            assert value.dtype == precision, method
            assert np.isfinite(value).all(), method
            np.testing.assert_allclose(value[3], getattr(process, method)(t[3]), rtol=1e-5)
        back = jax.vmap(process.time)(jax.vmap(process.log_snr)(t))
    assert back.dtype == precision
    np.testing.assert_allclose(back, t, rtol=1e4 * jnp.finfo(precision).eps)


@eqx.filter_jit
def along(path: AbstractScorePath, batch: Position, t: Array) -> tuple[Position, ...]:
    """Scores in positions, in standard coordinates and of the frozen path, and denoised points where there are any."""
    standard = score_particles(path, jax.vmap(path.frame.to_standard)(batch), t)
    denoised = denoise_particles(path, batch, t) if isinstance(path, AbstractPerturbedScore) else batch
    return jax.vmap(lambda x: path(x, t))(batch), standard, jax.vmap(path.at(t))(batch), denoised


@pytest.mark.parametrize("name", PATHS)
def test_paths_keep_structure_shape_and_dtype(name: str, precision: jnp.dtype) -> None:
    path = PATHS[name]()
    batch = points(path.structure, 3)
    with jax.numpy_dtype_promotion("strict"):
        reference = eqx.filter_jit(lambda p, k: p.sample_reference(k, 3))(path, jax.random.key(0))
        assert_like(reference, batch, precision)
        for level in LEVELS:
            scores, standard, frozen, denoised = along(path, batch, jnp.asarray(level, precision))
            for value in (scores, standard, frozen, denoised):
                assert_like(value, batch, precision)
            assert_close(jax.vmap(path.frame.score_to_position)(standard), scores, 10 * TOLERANCE[precision.name])
            assert_close(frozen, scores, 10 * TOLERANCE[precision.name])
    eager = path(first(batch), LEVELS[0])
    compiled = first(along(path, batch, jnp.asarray(LEVELS[0], precision))[0])
    assert_close(eager, compiled, 100 * TOLERANCE[precision.name])


@pytest.mark.parametrize("name", ["noised mixture", "network of a tree", "tempered"])
def test_paths_keep_the_published_contract(name: str) -> None:
    check_path(PATHS[name](), key=jax.random.key(0))


@pytest.mark.parametrize("name", PATHS)
def test_frames_go_there_and_back(name: str) -> None:
    path = PATHS[name]()
    one = first(points(path.structure, 1))
    assert_close(path.frame.to_position(path.frame.to_standard(one)), one, 1e-5)
    assert_close(path.frame.score_to_position(path.frame.score_to_standard(one)), one, 1e-5)
    jacobian = jax.jacfwd(lambda v: ravel_pytree(path.frame.to_position(ravel_pytree(one)[1](v)))[0])(
        ravel_pytree(one)[0]
    )
    volume = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(path.frame.log_volume(path.structure), volume, rtol=1e-5, atol=1e-5)


# Samplers


def natural_target(name: str) -> AbstractScore | AbstractScorePath:
    """A target of trees for every sampler."""
    if name in ON_TEMPERED_PATHS:
        return PATHS["tempered density of a tree"]()
    if name in PARTICLE_SAMPLERS:
        return network_path()
    return DensityScore(
        tree_logdensity, jnp.asarray(3.0), jnp.array([1.0, -1.0]), structure=tree_position(), init_position=start
    )


def start(key: Array) -> Position:
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape, x.dtype), tree_position())


COUNTS: dict[str, Any] = {"num_samples": 6, "num_chains": 2, "num_warmup": 20, "progress": False}
"""Those of `check_sampler`, whose compiled programs serve here too."""


def run(name: str, *, seed: int = 0, **settings: Any) -> Draws:
    return sample(natural_target(name), SAMPLERS[name](), key=jax.random.key(seed), **(COUNTS | settings))


def same(a: Position, b: Position) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_are_functions_of_the_key(name: str, compilations: Compilations) -> None:
    draws = run(name)
    shape = (2, 6) if name in CHAIN_SAMPLERS else (1, 12)
    for leaf, want in zip(jax.tree.leaves(draws.position), jax.tree.leaves(tree_position()), strict=True):
        assert leaf.shape == (*shape, *want.shape)
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()
        flat = leaf.reshape(shape[0] * shape[1], -1)
        assert len(np.unique(flat[:, 0])) > shape[0] * shape[1] // 4, "the draws stand still"
    assert draws.stats["non_finite"].shape == shape
    assert all(value.shape[:2] == shape for value in draws.stats.values())
    with compilations.none_expected():
        again = run(name)
        other = run(name, seed=1)
    assert same(draws.position, again.position)
    assert not same(draws.position, other.position)


@pytest.mark.parametrize("name", ["HMC", "ULA", "ReverseSDE", "PredictorCorrector", "AnnealedLangevin"])
def test_samplers_keep_the_published_contract(name: str) -> None:
    check_sampler(SAMPLERS[name](), natural_target(name), key=jax.random.key(0))


SPLIT = ["NUTS", "DynamicHMC", "ULA", *(name for name in PARTICLE_SAMPLERS if name != "TemperedSMC")]
"""Particles that interact are never split; of the chain samplers, one of each way to warm up."""


@pytest.mark.parametrize("name", SPLIT)
def test_blocks_are_equal_and_depend_on_the_key_and_their_size_only(name: str) -> None:
    chains = name in CHAIN_SAMPLERS
    extra: dict[str, Any] = {"initial_position": tree_position()} if chains else {"num_samples": 1}

    def drawn(num: int, batch_size: int | None) -> Position:
        position = run(name, num_chains=num, batch_size=batch_size, **extra).position
        return position if chains else jax.tree.map(lambda x: x[0], position)

    def cut(position: Position, num: int) -> Position:
        return jax.tree.map(lambda x: x[:num], position)

    five, four, two = drawn(5, 2), drawn(4, 2), drawn(2, 2)
    assert same(cut(five, 4), four), "the last block changed those before it"
    assert same(cut(four, 2), two), "the number of blocks changed the first"
    assert same(drawn(2, None), two), "one block is the same with and without a `batch_size`"
    assert same(drawn(2, 7), two), "a block is never larger than the whole"
    first_block, second_block = cut(four, 2), jax.tree.map(lambda x: x[2:], four)
    assert not same(first_block, second_block), "two blocks used the same key"


@pytest.mark.parametrize("name", CHAIN_SAMPLERS)
def test_chain_steps_keep_their_state(name: str, precision: jnp.dtype) -> None:
    sampler, target = CHAIN_SAMPLERS[name](), natural_target(name)
    assert isinstance(sampler, AbstractSampler)
    assert isinstance(target, AbstractScore)
    positions = jax.vmap(start)(jax.random.split(jax.random.key(0), 3))

    @eqx.filter_jit
    def warm_up(score: AbstractScore) -> Any:
        return sampler.warmup(score, positions, 12, key=jax.random.key(1))

    states, tuned, facts = warm_up(target)
    assert type(tuned) is type(sampler)
    assert structure_of(states.position) == structure_of(positions)
    assert facts["num_evaluations"].shape == (3,)
    assert (facts["num_evaluations"] >= 12).all()
    one_state, one_sampler = first(states), jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, tuned)

    def step(sampler: Any, score: AbstractScore, state: Any) -> Any:
        return sampler.step(score, state, key=jax.random.key(2))

    after, stats = eqx.filter_jit(step)(one_sampler, target, one_state)
    assert structure_of(after) == structure_of(one_state), "a state changes its shape or dtype"
    assert_like(after.position, tree_position(), precision)
    assert int(stats["n_steps"]) >= 1
    eager, eager_stats = step(one_sampler, target, one_state)
    assert_close(after.position, eager.position, 100 * TOLERANCE[precision.name])
    assert stats.keys() == eager_stats.keys()
    fresh = sampler.init(target, tree_position(), key=jax.random.key(3))
    assert structure_of(fresh) == structure_of(one_state), "init and warmup make different states"


@pytest.mark.parametrize("name", PARTICLE_SAMPLERS)
def test_particle_runs_keep_their_particles(name: str, precision: jnp.dtype) -> None:
    sampler, path = PARTICLE_SAMPLERS[name](), natural_target(name)
    assert isinstance(path, AbstractScorePath)
    plan = sampler.plan(path, key=jax.random.key(0))
    particles = path.sample_reference(jax.random.key(1), 4, plan.t_start)

    def run(path: AbstractScorePath, particles: Position) -> Any:
        return sampler.run(path, particles, plan, key=jax.random.key(2))

    with jax.numpy_dtype_promotion("strict" if isinstance(sampler, AbstractPathSampler) else "standard"):
        moved, log_weights, info = eqx.filter_jit(run)(path, particles)
    assert_like(moved, particles, precision)
    assert (log_weights is None) == (name not in ON_TEMPERED_PATHS)
    assert int(info.nfe) > 0
    if isinstance(sampler, AbstractPathSampler):
        state = sampler.init(path, particles, plan, key=jax.random.key(2))
        one_step = jax.tree.map(lambda x: x[0], plan.steps)

        def step(path: AbstractScorePath, state: Any) -> Any:
            return sampler.step(path, state, one_step, key=jax.random.key(3))[0]

        after = eqx.filter_jit(step)(path, state)
        assert structure_of(after) == structure_of(state), "a state changes its shape or dtype"
        assert_close(step(path, state), after, 100 * TOLERANCE[precision.name])
        assert_like(sampler.final(path, after, plan)[0], particles, precision)


@pytest.mark.parametrize("name", [name for name in PARTICLE_SAMPLERS if name != "TemperedSMC"])
def test_plans_can_be_made_ahead_and_never_from_traced_paths(name: str) -> None:
    path, sampler = natural_target(name), PARTICLE_SAMPLERS[name]()
    assert isinstance(path, AbstractScorePath)
    plan = sampler.plan(path, key=jax.random.key(5))
    assert same(run(name, plan=plan).position, run(name).position)
    with pytest.raises(TypeError, match=r"traced .*sample\(\.\.\., plan=plan\)"):
        eqx.filter_jit(lambda p: sampler.plan(p, key=jax.random.key(5)).t_start)(path)


@pytest.mark.parametrize(
    "name", ["NUTS", "ULA", "ReverseSDE", "PredictorCorrector", "AnnealedLangevin", "ParallelMALA"]
)
def test_new_data_and_retrained_networks_compile_nothing(name: str, compilations: Compilations) -> None:
    def target(weight: float) -> AbstractScore | AbstractScorePath:
        if name in PARTICLE_SAMPLERS:
            return network_path(weight)
        data = jnp.array([weight, -1.0])
        return DensityScore(
            tree_logdensity, jnp.asarray(3.0 + weight), data, structure=tree_position(), init_position=start
        )

    targets = [target(weight) for weight in (0.9, 0.8, 0.7)]
    before = sample(targets[0], SAMPLERS[name](), key=jax.random.key(0), **COUNTS)
    with compilations.none_expected():
        after = [sample(other, SAMPLERS[name](), key=jax.random.key(0), **COUNTS) for other in targets[1:]]
    assert not same(before.position, after[0].position)
    assert not same(after[0].position, after[1].position)


def test_new_data_of_a_numpyro_model_compile_nothing(compilations: Compilations) -> None:
    posteriors = [from_numpyro(numpyro_model, (jnp.array(data),)) for data in ([0.3, -1.0], [2.0, 4.0])]
    before = sample(posteriors[0], SAMPLERS["HMC"](), key=jax.random.key(0), **COUNTS)
    with compilations.none_expected():
        after = sample(posteriors[1], SAMPLERS["HMC"](), key=jax.random.key(0), **COUNTS)
    assert not same(before.position, after.position)


def subprograms(equation: Any) -> Iterator[Any]:
    """The programs inside an equation: the bodies of loops, the branches of conditionals."""
    for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
        if hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def equations(jaxpr: Any, *, looping: bool = False) -> Iterator[tuple[Any, bool]]:
    """All equations of a program, and whether each is inside a loop."""
    for equation in jaxpr.eqns:
        yield equation, looping
        inside = looping or equation.primitive.name in ("scan", "while")
        for part in subprograms(equation):
            yield from equations(part, looping=inside)


def wide_or_host(jaxpr: Any) -> list[str]:
    """The float64 arrays of a program, and the calls to the host inside its loops."""
    found = []
    for equation, looping in equations(jaxpr.jaxpr):
        if looping and ("callback" in equation.primitive.name or "infeed" in equation.primitive.name):
            found.append(equation.primitive.name)
        found += [f"{equation.primitive.name} -> {v.aval}" for v in equation.outvars if is_wide(v.aval)]
    return found


def is_wide(aval: Any) -> bool:
    """A float64 array; scalars of Python numbers are not counted, they cost nothing."""
    return getattr(aval, "dtype", None) == np.float64 and aval.size > 1


def test_wide_numbers_and_callbacks_are_seen() -> None:
    def body(carry: Array, _: None) -> tuple[Array, None]:
        jax.debug.callback(lambda x: None, carry)
        return (carry + jnp.arange(3.0)).astype(carry.dtype), None

    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(lambda x: jax.lax.scan(body, x, None, length=2))(jnp.zeros(3, jnp.float32))
    found = wide_or_host(jaxpr)
    assert any("callback" in line for line in found)
    assert any("float64[3]" in line for line in found)


@pytest.mark.parametrize("name", ["ULA", *(n for n in PARTICLE_SAMPLERS if "adaptive" not in n and n != "TemperedSMC")])
def test_float32_loops_hold_no_float64_and_no_callback(name: str) -> None:
    """Under x64, where any number of unstated dtype would be a float64."""
    target, sampler = natural_target(name), SAMPLERS[name]()
    particles = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), tree_position())
    parts, static = eqx.partition((target, sampler), eqx.is_array)
    if isinstance(sampler, AbstractSampler):

        def program(parts: Any, particles: Position, key: Array) -> Any:
            target, sampler = eqx.combine(parts, static)
            states, tuned, _ = sampler.warmup(target, particles, 5, key=key)
            return eqx.filter_vmap(lambda s, x: s.step(target, x, key=key), in_axes=(eqx.if_array(0), 0))(tuned, states)
    else:
        plan = sampler.plan(target, key=jax.random.key(0))

        def program(parts: Any, particles: Position, key: Array) -> Any:
            target, sampler = eqx.combine(parts, static)
            return sampler.run(target, particles, plan, key=key)

    key = jax.random.key(1)
    with jax.enable_x64(True):
        jaxpr = jax.make_jaxpr(program)(parts, particles, key)
    assert any(looping for _, looping in equations(jaxpr.jaxpr))
    assert wide_or_host(jaxpr) == []
