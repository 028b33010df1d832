"""BlackJAX's algorithms as samplers: the laws that they leave invariant, and what their tuners find."""

from typing import Any

import arviz
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.mcmc.mala import MALAState
from jaxtyping import Array
from scipy.special import digamma, polygamma

import scoresample as ss
from scoresample.samplers import require_density
from scoresample.scores import line_integral
from tests.cases import bare_tree, density, network_path, tree_position

MOST_Z = 5.0
"""In Monte-Carlo standard errors."""
EXACT: dict[str, Any] = {
    "MALA": ss.MALA(),
    "Barker": ss.Barker(),
    "DynamicHMC": ss.DynamicHMC(),
    "AdjustedMCLMC": ss.AdjustedMCLMC(num_integration_steps=3.0),
    "BlackJAX": ss.BlackJAX(blackjax.ghmc, step_size=0.4, momentum_inverse_scale=jnp.ones(3), alpha=0.7, delta=0.6),
}


def z_scores(draws: ss.Draws) -> dict[str, float]:
    """Means and mean squares of the skewed target of `cases.density` against the truth, in standard errors.

    `log_scale` is the logarithm of a Gamma(3) variable, `effects` are normal with unit variance around (1, -1).
    """
    sites, found = draws.sites(), {}
    quantities = {
        "log_scale": (sites["log_scale"], digamma(3.0)),
        "log_scale squared": (sites["log_scale"] ** 2, polygamma(1, 3.0) + digamma(3.0) ** 2),
        "effects[0]": (sites["effects"][..., 0], 1.0),
        "effects[1] squared": (sites["effects"][..., 1] ** 2, 2.0),
    }
    for name, (values, truth) in quantities.items():
        error = float(arviz.mcse(values, method="mean")) if draws.kind == "chains" else values.std() / values.size**0.5
        found[name] = float((values.mean() - truth) / error)
    return found


@pytest.mark.parametrize("name", EXACT)
def test_metropolised_samplers_leave_a_skewed_target_invariant(name: str) -> None:
    draws = ss.sample(
        density(), EXACT[name], key=jax.random.key(3), num_samples=3000, num_warmup=500, num_chains=8,
        initial_position=tree_position(),
    )  # fmt: skip
    scores = z_scores(draws)
    assert max(map(abs, scores.values())) < MOST_Z, scores
    assert arviz.rhat(draws.to_arviz())["log_scale"] < 1.02


def test_mclmc_is_tuned_to_a_small_bias_with_and_without_a_density() -> None:
    settings: dict[str, Any] = {"num_samples": 2000, "num_warmup": 500, "initial_position": tree_position()}
    sampler = ss.MCLMC(steps_per_draw=8)
    known = ss.sample(density(), sampler, key=jax.random.key(0), **settings)
    bare = ss.sample(bare_tree(), sampler, key=jax.random.key(0), **settings)
    assert "lp" in known.stats
    assert not {"lp", "energy_error"} & bare.stats.keys(), "a score alone has no energies to report"
    for name in ("step_size", "decoherence_length"):
        np.testing.assert_allclose(bare.info[f"warmup_{name}"].mean(), known.info[f"warmup_{name}"].mean(), rtol=0.15)
    for draws in (known, bare):
        scores = z_scores(draws)
        assert max(map(abs, scores.values())) < MOST_Z, scores


def test_mclmc_ignores_values_once_it_is_tuned() -> None:
    sampler = ss.MCLMC(steps_per_draw=3, decoherence_length=1.5, step_size=0.4)
    settings: dict[str, Any] = {"num_samples": 5, "num_warmup": 0, "initial_position": tree_position()}
    known = ss.sample(density(), sampler, key=jax.random.key(0), **settings)
    bare = ss.sample(bare_tree(), sampler, key=jax.random.key(0), **settings)
    for a, b in zip(jax.tree.leaves(known.position), jax.tree.leaves(bare.position), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_work_along_a_step_is_the_difference_of_log_densities() -> None:
    target = density()
    start, end = tree_position(), jax.tree.map(lambda x: x + 0.3, tree_position())
    np.testing.assert_allclose(
        line_integral(bare_tree(), start, end, 3), target.logdensity(end) - target.logdensity(start), rtol=1e-5
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sgld_has_the_exact_law_of_its_recursion(temperature: float) -> None:
    mean, variance, step = jnp.array([1.0, -2.0]), jnp.array([1.0, 0.4]), 0.3
    draws = ss.sample(
        ss.Gaussian(mean, variance), ss.SGLD(step, temperature), key=jax.random.key(0), num_samples=5000, num_chains=40,
        num_warmup=100,
    )  # fmt: skip
    exact = temperature * variance / (1 - step / (2 * variance))
    assert_law(draws.position, mean, exact)


def test_sghmc_has_the_exact_law_of_its_recursion() -> None:
    mean, variance, step, friction, noise, num = jnp.array([1.0, -2.0]), jnp.array([1.0, 0.4]), 0.25, 0.8, 0.3, 6
    draws = ss.sample(
        ss.Gaussian(mean, variance), ss.SGHMC(step, num, friction, noise), key=jax.random.key(0), num_samples=4000,
        num_chains=40, num_warmup=50,
    )  # fmt: skip
    exact = []
    for v in np.asarray(variance, np.float64):
        # (x, p) -> (x + h p, (1 - a h) p - h x / v + sqrt(h (2 a - b h)) z): the score is taken before x moves
        advance = np.array([[1.0, step], [-step / v, 1 - friction * step]])
        gain, spread = np.eye(2), np.diag([0.0, 1.0])
        for _ in range(num):
            gain = advance @ gain
            spread = advance @ spread @ advance.T + np.diag([0.0, step * (2 * friction - noise * step)])
        exact.append(spread[0, 0] / (1 - gain[0, 0] ** 2))
    assert_law(draws.position, mean, jnp.asarray(exact))


def assert_law(position: Array, mean: Array, variance: Array) -> None:
    """Means and variances of chains of normal draws, against the truth in standard errors."""
    for column in range(2):
        values = np.asarray(position[..., column], np.float64) - float(mean[column])
        for power, truth in ((values, 0.0), (values**2, float(variance[column]))):
            error = float(arviz.mcse(power, method="mean"))
            assert abs(power.mean() - truth) / error < MOST_Z, (column, power.mean(), truth, error)


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [
        (ss.MALA(step_size=0.1), 1),
        (ss.Barker(step_size=0.1), 1),
        (ss.MCLMC(steps_per_draw=3, step_size=0.1, decoherence_length=1.0), 6),
        (ss.AdjustedMCLMC(num_integration_steps=3.0, step_size=0.1), None),
        (ss.DynamicHMC(step_size=0.1, num_integration_steps=5.0), None),
        (ss.SGLD(0.1), 1),
        (ss.SGHMC(0.1, num_integration_steps=4), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_reported_number_of_score_evaluations_is_the_number_of_calls(sampler: Any, evaluations: int | None) -> None:
    calls: list[int] = []

    class Counted(ss.AbstractDensityScore):
        structure: Any
        constrain: Any
        init_position: Any

        def logdensity(self, position: Array) -> Array:
            return -0.5 * jnp.sum(position**2)

        def value_and_score(self, position: Array) -> tuple[Array, Array]:
            jax.debug.callback(lambda: calls.append(1))
            return self.logdensity(position), -position

    score = Counted(jax.ShapeDtypeStruct((3,), jnp.float32), lambda x: {"x": x}, None)
    state = sampler.init(score, jnp.ones(3), key=jax.random.key(0))
    _, tuned, _ = sampler.warmup(score, jnp.ones((1, 3)), 0, key=jax.random.key(0))
    tuned = jax.tree.map(lambda leaf: leaf[0] if isinstance(leaf, jax.Array) else leaf, tuned)
    for number in range(3):
        jax.effects_barrier()
        calls.clear()
        state, stats = tuned.step(score, state, key=jax.random.key(number))
        jax.effects_barrier()
        assert len(calls) == int(stats["n_steps"])
        assert evaluations is None or len(calls) == evaluations


@pytest.mark.parametrize("dense", [False, True])
def test_barker_jumps_in_units_of_the_estimated_covariance(dense: bool) -> None:
    variances = jnp.array([100.0, 1.0])
    flat = ss.Score(jnp.zeros_like, structure=jnp.zeros(2))
    sampler = ss.Barker(step_size=0.1, inverse_mass_matrix=jnp.diag(variances) if dense else variances)
    target = ss.LineIntegralDensity(flat, jnp.zeros(2))
    state = sampler.init(target, jnp.zeros(2), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 4000)
    jumps = jax.vmap(lambda key: sampler.step(target, state, key=key)[0].position)(keys)
    np.testing.assert_allclose(jumps.std(axis=0), [1.0, 0.1], rtol=0.06)


def test_the_tuner_of_mclmc_sees_the_energy_error_of_blackjax() -> None:
    with jax.enable_x64(True):
        target, start = density(), jax.tree.map(jnp.asarray, tree_position())
        logdensity = ss.logdensity_fn(target)
        state = blackjax.mclmc.init(start, logdensity, jax.random.key(0))
        settings: dict[str, Any] = {
            "logdensity_fn": logdensity, "inverse_mass_matrix": jnp.ones(3), "L": 2.0, "step_size": 0.3
        }  # fmt: skip
        for number in range(5):
            key = jax.random.key(number)
            _, ours = ss.MCLMC()._tuning_kernel(target)(key, state, **settings)
            state, theirs = blackjax.mclmc.build_kernel()(key, state, **settings)
            np.testing.assert_allclose(ours.energy_change, theirs.energy_change, rtol=1e-4, atol=1e-7)
            assert abs(theirs.energy_change) > 1e-5, "too small to tell"


@pytest.mark.parametrize("sampler", [ss.MCLMC(steps_per_draw=4), ss.AdjustedMCLMC(num_integration_steps=3.0)])
def test_targets_far_from_the_origin_are_tuned_like_others(sampler: Any) -> None:
    """The variance of a coordinate near 3,000 is lost in float32 where squares are averaged."""
    far = ss.Gaussian(jnp.full(3, 3000.0), jnp.array([1.0, 0.5, 2.0]))
    draws = ss.sample(far, sampler, key=jax.random.key(0), num_samples=1000, num_warmup=500)
    assert np.isfinite(draws.info["warmup_step_size"]).all()
    np.testing.assert_allclose(draws.position.std(axis=(0, 1)) ** 2, [1.0, 0.5, 2.0], rtol=0.25)


def test_climbing_towards_the_bulk_leaves_alone_what_is_there() -> None:
    from scoresample.samplers._mclmc import approach

    target = ss.Gaussian(jnp.zeros(4), jnp.array([1.0, 1e-4, 1.0, 0.01]))
    inside = target.sample(jax.random.key(0), 100)
    np.testing.assert_array_equal(jax.vmap(lambda x: approach(target, x))(inside), inside)
    outside = approach(target, jnp.full(4, 1e3))
    assert float(target.logdensity(outside)) > float(target.logdensity(jnp.full(4, 1e3))) / 100

    def heavy(x: Array) -> Array:
        return -6.5 * jnp.log1p(jnp.sum((x / 1e-3) ** 2) / 3)

    score = ss.DensityScore(heavy, structure=jnp.zeros(10))
    ball = 1e-3 * jax.random.t(jax.random.key(1), 3.0, (50, 10))
    moved = jax.vmap(lambda x: approach(score, x))(ball)
    assert float(jnp.abs(moved).max()) < 2 * float(jnp.abs(ball).max()), "a chain was thrown out of a narrow bulk"


def test_any_algorithm_of_blackjax_runs_as_it_is() -> None:
    def jump(key: Array, position: Any) -> Any:
        return jax.tree.map(lambda x: x + 0.7 * jax.random.normal(key, x.shape), position)

    draws = ss.sample(
        density(), ss.BlackJAX(blackjax.rmh, proposal_generator=jump), key=jax.random.key(0), num_samples=200,
        num_warmup=50, initial_position=tree_position(),
    )  # fmt: skip
    assert 0.1 < draws.stats["accepted"].mean() < 0.9
    assert draws.nfe == 1.0


def test_new_parameters_of_an_algorithm_compile_nothing(compilations: Any) -> None:
    def run(scale: float) -> ss.Draws:
        sampler = ss.BlackJAX(blackjax.mala, step_size=jnp.asarray(scale))
        return ss.sample(
            density(), sampler, key=jax.random.key(0), num_samples=3, num_warmup=2, initial_position=tree_position()
        )

    run(0.1)
    with compilations.none_expected():
        run(0.2)


class TestDoors:
    """What is refused, and what the message says to do."""

    @pytest.mark.parametrize(
        "sampler",
        [ss.MALA(), ss.Barker(), ss.DynamicHMC(), ss.AdjustedMCLMC(), ss.BlackJAX(blackjax.mala, step_size=1.0)],
    )
    def test_a_bare_score_is_refused_by_what_accepts_or_rejects(self, sampler: Any) -> None:
        with pytest.raises(TypeError, match=r"needs a log density.*LineIntegralDensity"):
            ss.sample(bare_tree(), sampler, key=jax.random.key(0), initial_position=tree_position())
        with pytest.raises(TypeError, match="LineIntegralDensity"):
            require_density(sampler, bare_tree())

    @pytest.mark.parametrize("sampler", [ss.MALA(), ss.Barker(), ss.DynamicHMC(), ss.AdjustedMCLMC(), ss.MCLMC()])
    def test_an_untuned_sampler_needs_a_warmup(self, sampler: Any) -> None:
        with pytest.raises(ValueError, match=r"`num_warmup` is 0, but \w+ has no `step_size`"):
            ss.sample(density(), sampler, key=jax.random.key(0), num_warmup=0, initial_position=tree_position())

    @pytest.mark.parametrize("sampler", [ss.MCLMC(), ss.AdjustedMCLMC()])
    def test_one_dimension_is_too_few_to_turn_in(self, sampler: Any) -> None:
        with pytest.raises(ValueError, match="`target` has 1 dimension"):
            ss.sample(ss.Gaussian(jnp.zeros(1), 1.0), sampler, key=jax.random.key(0))

    def test_chees_needs_chains_to_compare(self) -> None:
        with pytest.raises(ValueError, match="at least 2"):
            ss.sample(ss.Gaussian(jnp.zeros(2), 1.0), ss.DynamicHMC(), key=jax.random.key(0), num_chains=1)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: ss.MALA(step_size=-1.0), "`step_size` must be positive and finite"),
            (lambda: ss.MALA(target_acceptance_rate=1.5), "`target_acceptance_rate` must lie between 0 and 1"),
            (lambda: ss.MCLMC(steps_per_draw=0), "`steps_per_draw` must be at least 1"),
            (lambda: ss.AdjustedMCLMC(num_integration_steps=0.5), "`num_integration_steps` must be at least 1.2"),
            (lambda: ss.SGHMC(friction=-0.1), "`friction` and `gradient_noise` must not be negative"),
            (lambda: ss.SGLD(temperature=0.0), "`temperature` must be positive"),
            (lambda: ss.TemperedSMC(target_ess=1.0), "`target_ess` must lie between 0 and 1"),
            (lambda: ss.BlackJAX(blackjax.mala, evaluations_per_step=0), "`evaluations_per_step` must be at least 1"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, make: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()

    def test_what_is_no_algorithm_is_refused(self) -> None:
        with pytest.raises(TypeError, match="`algorithm` must be one of BlackJAX's"):
            ss.BlackJAX("nuts")
        wrong = ss.BlackJAX(lambda logdensity, **_: logdensity)
        with pytest.raises(TypeError, match="not a SamplingAlgorithm"):
            wrong.init(density(), tree_position(), key=jax.random.key(0))
        algorithm: Any = blackjax.base.SamplingAlgorithm
        bare_state = ss.BlackJAX(lambda logdensity: algorithm(lambda p, k: p, lambda k, s: (s, None)))
        with pytest.raises(TypeError, match="have no `position`"):
            bare_state.init(density(), jnp.zeros(2), key=jax.random.key(0))


def test_states_are_blackjax_own() -> None:
    state = ss.MALA(step_size=0.1).init(density(), tree_position(), key=jax.random.key(0))
    assert isinstance(state, MALAState)


def test_chains_run_on_the_last_level_of_a_learned_path() -> None:
    """Its score alone: location (3, -4), scale (.5, 2), and a gain of .9 that makes the law a little narrow."""
    draws = ss.sample(
        network_path(), ss.MCLMC(steps_per_draw=6), key=jax.random.key(0), num_samples=1000, num_warmup=300
    )
    effects = draws.position["effects"]
    np.testing.assert_allclose(effects.mean(axis=(0, 1)), [3.0, -4.0], atol=0.3)
    assert "lp" not in draws.stats
    with pytest.raises(TypeError, match="LineIntegralDensity"):
        ss.sample(network_path(), ss.MALA(), key=jax.random.key(0))
