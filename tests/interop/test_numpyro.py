"""Samplers as kernels of NumPyro's MCMC: their laws, NumPyro's own bookkeeping, Gibbs, and what is refused."""

import pickle
from collections.abc import Callable
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC
from numpyro.infer.util import potential_energy
from scipy.special import digamma, polygamma

import scoresample as ss
from scoresample.interop import ScoreKernel
from tests.conftest import Compilations

Y = jnp.array([0.2, 1.1, 0.4, 2.0])
SHAPE, RATE = 3.0 + 4, 2.0 + float(Y.sum())


def gamma_exponential(y: Array) -> None:
    """The posterior of the rate is Gamma(SHAPE, RATE)."""
    rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.deterministic("mean", 1 / rate)
    numpyro.sample("y", dist.Exponential(rate), obs=y)


def counts(y: Array) -> None:
    """Sites on the line, the half line and the simplex."""
    scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([0.7, 2.0, 4.0])))
    with numpyro.plate("groups", 2):
        effect: Any = numpyro.sample("effect", dist.Normal(0.0, scale))
    numpyro.deterministic("total", effect.sum())
    numpyro.sample("y", dist.Multinomial(9, weights), obs=y)


def normal_gamma(y: Array) -> None:
    """Conjugate: the posteriors of both sites are known, and they depend on each other."""
    precision = numpyro.sample("precision", dist.Gamma(3.0, 2.0))
    location = numpyro.sample("location", dist.Normal(1.0, 1 / jnp.sqrt(precision)))
    numpyro.sample("y", dist.Normal(location, 1 / jnp.sqrt(precision)), obs=y)


def run(kernel: Any, *args: Any, num: tuple[int, int] = (300, 1000), chains: int = 4, key: int = 0, **more: Any) -> Any:
    fields = {name: more.pop(name) for name in ("extra_fields", "init_params") if name in more}
    settings: dict[str, Any] = {
        "chain_method": "vectorized" if chains > 1 else "sequential",
        "progress_bar": False,
    } | more
    mcmc: Any = MCMC(kernel, num_warmup=num[0], num_samples=num[1], num_chains=chains, **settings)
    mcmc.run(jax.random.key(key), *args, **fields)
    return mcmc


def z_of_mean(chains: Any, want: float) -> float:
    """How many standard errors the mean of (chain, draw) values is off."""
    chains = np.asarray(chains, np.float64)
    return float((chains.mean() - want) / (chains.std() / np.sqrt(effective_sample_size(chains))))


def assert_posterior(mcmc: Any) -> None:
    """The logarithm of the rate is skewed to the left: a flipped sign would show in its mean and third moment."""
    rate = np.asarray(mcmc.get_samples(group_by_chain=True)["rate"], np.float64)
    u, mean = np.log(rate), float(digamma(SHAPE) - np.log(RATE))
    assert abs(z_of_mean(rate, SHAPE / RATE)) < 5
    assert abs(z_of_mean(u, mean)) < 5
    assert abs(z_of_mean((u - mean) ** 2, float(polygamma(1, SHAPE)))) < 5
    assert abs(z_of_mean((u - mean) ** 3, float(polygamma(2, SHAPE)))) < 5
    np.testing.assert_allclose(mcmc.get_samples(group_by_chain=True)["mean"], 1 / rate, rtol=1e-5)


@pytest.mark.parametrize("sampler", [ss.HMC(num_integration_steps=5), ss.MALA()], ids=lambda s: type(s).__name__)
def test_the_posterior_of_a_skewed_model(sampler: Any) -> None:
    assert_posterior(run(ScoreKernel(sampler, gamma_exponential), Y, num=(300, 2500)))


def test_samplers_that_need_the_score_only_take_a_model_too() -> None:
    """With a small step Langevin's bias, of order h, is far below the tolerance; a flipped sign would diverge."""
    mcmc = run(ScoreKernel(ss.ULA(0.02), gamma_exponential), Y, num=(300, 2000), extra_fields=("num_steps",))
    rate = mcmc.get_samples(group_by_chain=True)["rate"]
    assert abs(z_of_mean(rate, SHAPE / RATE)) < 5
    assert set(np.asarray(mcmc.get_extra_fields()["num_steps"])) == {1}


@pytest.mark.parametrize(
    ("method", "sampler"),
    [("sequential", ss.MALA()), ("vectorized", ss.HMC(num_integration_steps=3))],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_shapes_fields_summary_and_arviz(method: str, sampler: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kernel, data = ScoreKernel(sampler, counts), jnp.array([2, 3, 4])
    fields = ("num_steps", "accept_prob", "potential_energy", "z.scale", "parameters.step_size")
    mcmc = run(kernel, data, num=(20, 12), chains=3, chain_method=method, extra_fields=fields)
    sites = mcmc.get_samples(group_by_chain=True)
    shapes = {"effect": (3, 12, 2), "scale": (3, 12), "total": (3, 12), "weights": (3, 12, 3)}
    assert {name: value.shape for name, value in sites.items()} == shapes
    np.testing.assert_allclose(sites["weights"].sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(sites["total"], sites["effect"].sum(axis=-1), rtol=1e-4, atol=1e-5)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    hamiltonian = isinstance(sampler, ss.HMC)
    assert set(extra) == {*fields, *(["diverging"] if hamiltonian else [])}
    assert {value.shape for value in extra.values()} == {(3, 12)}
    np.testing.assert_allclose(np.exp(extra["z.scale"]), sites["scale"], rtol=1e-5)
    assert set(np.ravel(extra["num_steps"])) == {3 if hamiltonian else 1}
    assert len(np.unique(extra["parameters.step_size"])) == 3, "every chain has its own step size"
    mcmc.print_summary()
    shown = capsys.readouterr().out
    assert "weights[2]" in shown
    assert "total" not in shown
    assert ("Number of divergences" in shown) == hamiltonian
    tree = az.from_numpyro(mcmc)
    assert set(tree["posterior"].data_vars) == set(shapes)
    assert tree["posterior"]["effect"].dims == ("chain", "draw", "groups")
    assert {"acceptance_rate", "lp", "n_steps"} <= set(tree["sample_stats"].data_vars)
    np.testing.assert_array_equal(tree["sample_stats"]["lp"], -extra["potential_energy"])
    np.testing.assert_array_equal(tree["observed_data"]["y"], [2, 3, 4])


def test_the_potential_energy_is_that_of_numpyro_and_thinning_keeps_every_third() -> None:
    fields = ("potential_energy", "z.rate", "lp")
    mcmc = run(ScoreKernel(ss.MALA(), gamma_exponential), Y, num=(50, 30), chains=1, thinning=3, extra_fields=fields)
    extra = mcmc.get_extra_fields()
    assert extra["potential_energy"].shape == (10,)
    want = [float(potential_energy(gamma_exponential, (Y,), {}, {"rate": u})) for u in extra["z.rate"]]
    np.testing.assert_allclose(extra["potential_energy"], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(extra["lp"], -extra["potential_energy"])


def test_the_warm_up_is_paid_once() -> None:
    """Every evaluation of the score is counted while the program runs."""
    evaluations = 0

    def count() -> None:
        nonlocal evaluations
        evaluations += 1

    def score(x: Array) -> Array:
        jax.debug.callback(count)
        return -x

    target = ss.Score(score, structure=jnp.zeros(2), init_position=lambda key: jax.random.normal(key, (2,)))
    mcmc = run(ScoreKernel(ss.ULA(0.1), target=target), num=(40, 25), chains=1)
    jax.effects_barrier()
    # One where the start is checked, one for the sampler's first state, one for each step of its warm-up and draw.
    assert evaluations == 2 + 40 + 25
    assert mcmc.last_state.warmup_left == 0


def test_runs_go_on_from_a_warm_up_or_from_the_last_state() -> None:
    kernel = ScoreKernel(ss.MALA(), gamma_exponential)
    mcmc: Any = MCMC(kernel, num_warmup=60, num_samples=40, num_chains=2, chain_method="vectorized", progress_bar=False)
    mcmc.warmup(jax.random.key(0), Y, collect_warmup=True)
    held = mcmc.get_samples(group_by_chain=True)["rate"]
    assert held.shape == (2, 60)
    np.testing.assert_array_equal(held, np.broadcast_to(held[:, :1], held.shape))
    state = mcmc.post_warmup_state
    mcmc.run(jax.random.key(1), Y)
    first = mcmc.get_samples(group_by_chain=True)["rate"]
    assert len(np.unique(first)) > 40
    np.testing.assert_array_equal(mcmc.last_state.parameters.step_size, state.parameters.step_size)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(jax.random.key(2), Y)
    second = mcmc.get_samples(group_by_chain=True)["rate"]
    assert not np.array_equal(first, second)


def test_the_same_key_gives_the_same_draws_and_new_data_compile_no_other_warm_up(compilations: Compilations) -> None:
    kernel = ScoreKernel(ss.MALA(), gamma_exponential)
    mcmc: Any = MCMC(kernel, num_warmup=30, num_samples=20, progress_bar=False, jit_model_args=True)
    mcmc.run(jax.random.key(0), Y)
    first = np.asarray(mcmc.get_samples()["rate"])
    mcmc.run(jax.random.key(0), Y)
    np.testing.assert_array_equal(mcmc.get_samples()["rate"], first)
    other = Y + 1
    with compilations.none_expected():  # NumPyro's own loop compiles with every run
        kernel.init(jax.random.key(0), 30, None, (other,), {})
    mcmc.run(jax.random.key(0), other)
    assert float(mcmc.get_samples()["rate"].mean()) < float(first.mean()), "longer times mean a smaller rate"


def test_new_data_are_seen_without_jit_model_args_too() -> None:
    mcmc = run(ScoreKernel(ss.MALA(), gamma_exponential), Y, num=(100, 300), chains=1)
    before = mcmc.get_samples()["rate"].mean()
    mcmc.run(jax.random.key(0), 10 * Y)
    assert float(mcmc.get_samples()["rate"].mean()) < 0.5 * float(before)


def test_the_progress_bar_says_what_the_sampler_does(capsys: pytest.CaptureFixture[str]) -> None:
    kernel = ScoreKernel(ss.MALA(), gamma_exponential)
    mcmc = run(kernel, Y, num=(15, 10), chains=1, progress_bar=True)
    mcmc.progress_bar = True
    mcmc.run(jax.random.key(1), Y)
    assert mcmc.get_samples()["rate"].shape == (10,)
    assert "1 score evaluations, step size" in capsys.readouterr().err
    assert "acc. prob=" in kernel.get_diagnostics_str(mcmc.last_state)


def test_old_raw_keys_are_accepted() -> None:
    kernel = ScoreKernel(ss.ULA(0.01), gamma_exponential)
    mcmc: Any = MCMC(kernel, num_warmup=5, num_samples=5, num_chains=2, chain_method="vectorized", progress_bar=False)
    mcmc.run(jax.random.PRNGKey(0), Y)
    assert mcmc.get_samples()["rate"].shape == (10,)


def test_starts_are_unconstrained_and_one_for_each_chain() -> None:
    start = {"rate": jnp.array([-2.0, 3.0])}
    kernel = ScoreKernel(ss.ULA(1e-8), gamma_exponential)
    for method in ("sequential", "vectorized"):
        mcmc = run(kernel, Y, num=(0, 1), chains=2, chain_method=method, init_params=start)
        np.testing.assert_allclose(mcmc.get_samples()["rate"], np.exp(start["rate"]), rtol=1e-3)
    with pytest.raises(ValueError, match="`init_params`: this position has the tree"):
        run(kernel, Y, num=(0, 1), chains=1, init_params={"speed": jnp.array(1.0)})
    with pytest.raises(ValueError, match=r"`init_params`: the chains \[1\] start where"):
        run(kernel, Y, num=(0, 1), chains=2, init_params={"rate": jnp.array([0.0, jnp.nan])})


def learned_path() -> Any:
    """Stands for a score learned on the unconstrained space: log(rate) is N(0.5, 0.2), unlike in the posterior."""
    return ss.perturb(ss.Gaussian({"rate": jnp.array(0.5)}, {"rate": 0.2}), ss.VP())


@pytest.mark.parametrize(
    ("sampler", "warmup"),
    [(ss.ReverseSDE(num_steps=15), 0), (ss.MALA(), 200)],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("method", ["sequential", "vectorized"])
def test_a_target_is_sampled_and_the_model_names_its_draws(sampler: Any, warmup: int, method: str) -> None:
    kernel = ScoreKernel(sampler, gamma_exponential, target=learned_path())
    mcmc = run(kernel, Y, num=(warmup, 2000), chains=2, chain_method=method)
    sites = mcmc.get_samples(group_by_chain=True)
    u = np.log(np.asarray(sites["rate"], np.float64))
    assert abs(z_of_mean(u, 0.5)) < 5
    assert abs(u.var() - 0.2) < 0.03
    np.testing.assert_allclose(sites["mean"], 1 / sites["rate"], rtol=1e-5)
    assert sites["rate"].shape == (2, 2000)
    assert set(az.from_numpyro(mcmc)["posterior"].data_vars) == {"mean", "rate"}


def test_a_target_alone_names_its_draws_itself(capsys: pytest.CaptureFixture[str]) -> None:
    path = ss.perturb(ss.Gaussian(jnp.array([1.0, -2.0]), 1.0), ss.VP())
    mcmc = run(ScoreKernel(ss.ReverseSDE(num_steps=8), target=path), num=(0, 100), chains=2)
    assert mcmc.get_samples()["x"].shape == (200, 2)
    mcmc.print_summary()
    assert "x[1]" in capsys.readouterr().out
    assert az.from_numpyro(mcmc)["posterior"]["x"].shape == (2, 100, 2)


def test_a_model_may_branch_on_its_data() -> None:
    def model(y: Array) -> None:
        rate = numpyro.sample("rate", dist.Gamma(3.0, 2.0))
        if y[0] > 0.1:
            numpyro.sample("y", dist.Exponential(rate), obs=y)
        else:
            numpyro.sample("z", dist.Exponential(2 * rate), obs=y)

    with pytest.raises(ValueError, match="static_data=True"):
        run(ScoreKernel(ss.MALA(), model), Y, num=(5, 5), chains=1)
    mcmc = run(ScoreKernel(ss.MALA(), model, static_data=True), Y, num=(100, 1500), chains=2)
    assert abs(z_of_mean(mcmc.get_samples(group_by_chain=True)["rate"], SHAPE / RATE)) < 5


def test_a_prior_is_sampled_when_asked_for() -> None:
    def model() -> None:
        numpyro.sample("rate", dist.Gamma(3.0, 2.0))

    with pytest.raises(ValueError, match="allow_prior=True"):
        run(ScoreKernel(ss.MALA(), model), num=(5, 5), chains=1)
    mcmc = run(ScoreKernel(ss.MALA(), model, allow_prior=True), num=(100, 1500), chains=2)
    assert abs(z_of_mean(mcmc.get_samples(group_by_chain=True)["rate"], 1.5)) < 5


def test_a_kernel_can_be_pickled() -> None:
    kernel = ScoreKernel(ss.MALA(), gamma_exponential)
    run(kernel, Y, num=(5, 5), chains=1)
    again = pickle.loads(pickle.dumps(kernel))
    assert run(again, Y, num=(5, 5), chains=1).get_samples()["rate"].shape == (5,)


def test_a_missing_statistic_is_named() -> None:
    with pytest.raises(AttributeError, match="no statistic `diverging`"):
        run(ScoreKernel(ss.ULA(0.1), gamma_exponential), Y, num=(5, 5), chains=1, extra_fields=("diverging",))


def test_what_does_not_fit_is_refused_at_the_door(unchecked_types: None) -> None:
    path = learned_path()
    bare = ss.Score(lambda x: -x, structure=jnp.zeros(2))
    doors: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (ValueError, "nothing to sample", lambda: ScoreKernel(ss.NUTS())),
        (TypeError, "must be a NumPyro model", lambda: ScoreKernel(ss.NUTS(), 3)),  # pyright: ignore[reportArgumentType]
        (TypeError, "instance of a sampler", lambda: ScoreKernel(ss.NUTS, normal_gamma)),  # pyright: ignore[reportArgumentType]
        (TypeError, "target=fit_score", lambda: ScoreKernel(ss.ReverseSDE(), gamma_exponential)),
        (TypeError, "needs a path", lambda: ScoreKernel(ss.ReverseSDE(), target=bare)),
        (TypeError, "LineIntegralDensity", lambda: ScoreKernel(ss.NUTS(), target=bare)),
        (ValueError, "is for path samplers", lambda: ScoreKernel(ss.NUTS(), target=path, plan=1)),
        (ValueError, "cannot be a block", lambda: ScoreKernel(ss.HMC(), gamma_exponential, target=path).wrap_model(id)),
        (ValueError, "num_warmup=1000", lambda: run(ScoreKernel(ss.NUTS(), gamma_exponential), Y, num=(0, 5))),
        (ValueError, "init_params", lambda: run(ScoreKernel(ss.ULA(0.1), target=bare), num=(0, 5))),
        (ValueError, "`target`: its positions", lambda: run(ScoreKernel(ss.ULA(), normal_gamma, target=path), Y)),
        (ValueError, "discrete", lambda: run(ScoreKernel(ss.ULA(), discrete), Y, num=(0, 5))),
    ]
    for kind, message, door in doors:
        with pytest.raises(kind, match=message):
            door()


def discrete(y: Array) -> None:
    which = numpyro.sample("which", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(which, 1.0), obs=y)


needs_gibbs = pytest.mark.skipif(not hasattr(numpyro.infer, "Gibbs"), reason="this NumPyro has no general Gibbs")


@needs_gibbs
@pytest.mark.filterwarnings("ignore:Some donated buffers")  # NumPyro's, for any kernel under jax.vmap
def test_two_blocks_of_gibbs_have_the_exact_posterior() -> None:
    y = np.array([0.2, 1.1, 0.4, 2.0, 3.0])
    blocks = [
        (ScoreKernel(ss.MALA(), normal_gamma), ["precision"]),
        (ScoreKernel(ss.MALA(), normal_gamma), None),
    ]
    gibbs = numpyro.infer.Gibbs(blocks)
    fields = ("block_states.0.accept_prob", "block_states.1.potential_energy", "z.precision")
    mcmc = run(gibbs, jnp.asarray(y), num=(300, 6000), chains=2, chain_method=jax.vmap, extra_fields=fields)
    sites = mcmc.get_samples(group_by_chain=True)
    k, n = 1 + len(y), len(y)
    shape = 3.0 + n / 2
    rate = 2.0 + 0.5 * ((y - y.mean()) ** 2).sum() + 0.5 * n / k * (y.mean() - 1) ** 2
    assert abs(z_of_mean(sites["precision"], shape / rate)) < 5
    assert abs(z_of_mean(np.log(sites["precision"]), float(digamma(shape) - np.log(rate)))) < 5
    location = np.asarray(sites["location"], np.float64) - (1 + y.sum()) / k
    assert abs(z_of_mean(location, 0.0)) < 5
    assert abs(z_of_mean(location**2, rate / (shape - 1) / k)) < 5
    # Given the precision the location is normal: were the conditioning stale, the product would have another mean.
    assert abs(z_of_mean(location**2 * np.asarray(sites["precision"]), 1 / k)) < 5
    extra = mcmc.get_extra_fields(group_by_chain=True)
    np.testing.assert_allclose(np.exp(extra["z.precision"]), sites["precision"], rtol=1e-5)
    # Both blocks see the whole joint density at the end of a sweep; its Jacobian is that of the block's own sites.
    at = {"precision": sites["precision"][0, -1], "location": sites["location"][0, -1]}
    joint = sum(
        float(site.log_prob(value).sum())
        for site, value in [
            (dist.Gamma(3.0, 2.0), at["precision"]),
            (dist.Normal(1.0, at["precision"] ** -0.5), at["location"]),
            (dist.Normal(at["location"], at["precision"] ** -0.5), jnp.asarray(y)),
        ]
    )
    np.testing.assert_allclose(extra["block_states.1.potential_energy"][0, -1], -joint, rtol=1e-4)


@needs_gibbs
def test_a_block_stands_beside_numpyros_own() -> None:
    y = jnp.array([0.2, 1.1, 0.4])

    def draw(rng_key: Array, gibbs_sites: Any, hmc_sites: Any) -> dict[str, Array]:
        del gibbs_sites
        noise = jax.random.normal(rng_key) / jnp.sqrt(4 * hmc_sites["precision"])
        return {"location": (1 + y.sum()) / 4 + noise}

    blocks = [(numpyro.infer.CustomGibbs(draw), ["location"]), (ScoreKernel(ss.ULA(1e-8), normal_gamma), ["precision"])]
    gibbs = numpyro.infer.Gibbs(blocks)
    # Starts of our block are in the model's coordinates; with this step it stays there.
    mcmc = run(gibbs, y, num=(4, 6), chains=1, init_params={"precision": jnp.array(2.5)})
    np.testing.assert_allclose(mcmc.get_samples()["precision"], 2.5, rtol=1e-2)
    assert len(np.unique(mcmc.get_samples()["location"])) > 3


@needs_gibbs
def test_supports_that_depend_on_other_blocks_are_refused() -> None:
    def model(y: Array) -> None:
        upper = numpyro.sample("upper", dist.Exponential(1.0))
        inside = numpyro.sample("inside", dist.Uniform(0.0, upper))
        numpyro.sample("y", dist.Normal(inside, 1.0), obs=y)

    blocks = [(ScoreKernel(ss.ULA(), model), ["inside"]), (ScoreKernel(ss.ULA(), model), ["upper"])]
    with pytest.raises(ValueError, match=r"supports of the sites \['inside'\] depend on sites of other blocks"):
        run(numpyro.infer.Gibbs(blocks), Y, num=(2, 2), chains=1)
    kernel = ScoreKernel(ss.ULA(), normal_gamma, static_data=True)
    with pytest.raises(ValueError, match="static_data"):
        run(numpyro.infer.Gibbs([(kernel, None)]), Y, num=(2, 2), chains=1)
