"""Amortised posteriors in files: the same bits come back beside the same simulator, and beside no other."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.paths import score_particles
from scoresample.training._archive import read_archive, write_archive

KEY = jax.random.key(0)
TINY: dict[str, Any] = {"num_simulations": 200, "num_epochs": 1, "width": 8, "depth": 1, "progress": False}


def observe(key: Array, theta: Array) -> Array:
    return theta + 0.5 * jax.random.normal(key, theta.shape)


def log_likelihood(theta: Array, x: Array) -> Array:
    return -2.0 * jnp.sum((x - theta) ** 2)


UNIFORM = dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)


def looks(key: Array, theta: dict[str, Array]) -> dict[str, Array]:
    """Up to four looks at a location and a scale; the others are missing."""
    key_noise, key_number = jax.random.split(key)
    x = theta["mean"] + theta["scale"] * jax.random.normal(key_noise, (4, 2))
    there = jnp.arange(4) < jax.random.randint(key_number, (), 1, 5)
    return {"x": jnp.where(there[:, None], x, jnp.nan), "day": jnp.where(there, jnp.arange(4.0), jnp.nan)}


LOOKS = {"mean": dist.Normal(0.0, 2.0), "scale": dist.StudentT(3.0, 0.0, 1.0)}


def model(size: int = 3, width: float = 2.0) -> None:
    mean = numpyro.sample("mean", dist.Gamma(width, 1.0).expand([size]).to_event(1))
    numpyro.sample("x", dist.Normal(mean, 0.5).to_event(1))


Case = tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]
"""The simulator, in arguments and by name, and settings of the training."""

POSTERIORS: dict[str, Case] = {
    "a function": ((observe, UNIFORM), {}, {"coordinates": "prior"}),
    "a regression": ((observe, UNIFORM), {}, {"coordinates": "regression", "process": ss.VE(0.01, 30.0)}),
    "sets with gaps and a wide prior": ((looks, LOOKS), {}, {"coordinates": "regression", "exchangeable": True}),
    "a NumPyro model": ((model,), {"observed": "x", "model_args": (2,)}, {"coordinates": "regression"}),
    "an ensemble": ((observe, UNIFORM), {}, {"coordinates": "regression", "num_members": 2}),
    "informed": ((observe, UNIFORM), {"log_likelihood": log_likelihood}, {"coordinates": "prior", "informed": True}),
    "an informed ensemble": (
        (model,),
        {"observed": ["x"]},
        {"coordinates": "regression", "informed": True, "num_members": 2},
    ),
}


def fitted(case: Case) -> ss.AmortisedPosterior:
    arguments, named, settings = case
    return ss.fit_posterior(*arguments, key=KEY, **named, **(TINY | settings))


def value(path: Any) -> np.ndarray:
    position = jnp.full(path.structure.shape, 0.3)
    return np.asarray(eqx.filter_jit(lambda s, x: s(x, 0.4))(path, position))


@eqx.filter_jit
def _values(path: Any, points: Array) -> Array:
    return score_particles(path, points, jnp.asarray(0.4))


@pytest.mark.parametrize("name", list(POSTERIORS))
def test_posteriors_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    posterior = fitted(POSTERIORS[name])
    # Zeros at the last layer would hide the network.
    network = eqx.filter(posterior.score, eqx.is_inexact_array)
    moved = jax.tree.map(lambda x: x + 0.01, network.inner.fn)
    posterior = eqx.tree_at(lambda p: p.score.inner.fn, posterior, eqx.combine(moved, posterior.score.inner.fn))
    arguments, named, _ = POSTERIORS[name]
    ss.save_posterior(posterior, tmp_path / "posterior")
    again = ss.load_posterior(tmp_path / "posterior", *arguments, **named)
    _, observations = posterior.simulate(jax.random.key(1), 3)
    one = jax.tree.map(lambda x: x[1], observations)
    np.testing.assert_array_equal(value(again.given(one)), value(posterior.given(one)))
    points = jnp.linspace(-1.0, 1.0, 3 * posterior.simulator.dimension).reshape(3, -1)
    many = [_values(p.given(observations), points) for p in (posterior, again)]
    np.testing.assert_array_equal(many[0], many[1])
    for site, values in posterior.constrain(points[0]).items():
        np.testing.assert_array_equal(values, again.constrain(points[0])[site])
    assert str(again.record) == str(posterior.record)
    assert again.in_prior_coordinates == posterior.in_prior_coordinates
    assert again.encoding.has_gaps == posterior.encoding.has_gaps
    assert list(tmp_path.iterdir()) == [tmp_path / "posterior"]


def test_an_informed_network_is_shown_the_gradient_of_the_loaded_simulator(tmp_path: Path) -> None:
    posterior = fitted(POSTERIORS["informed"])
    ss.save_posterior(posterior, tmp_path / "posterior")
    again = ss.load_posterior(tmp_path / "posterior", observe, UNIFORM, log_likelihood=log_likelihood)
    gradients = []
    for each in (posterior, again):
        score = each.given(jnp.array([0.4, -0.3]))
        assert score.inner.conditioning is not None
        fn: Any = score.inner.fn
        gradients.append(fn.network.gradient.value(jnp.array([0.2, 0.1]), score.inner.conditioning.value))
    np.testing.assert_array_equal(gradients[0], gradients[1])
    assert np.abs(gradients[0]).min() > 0.1


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("posteriors")
    for name in ("a function", "informed", "a NumPyro model"):
        ss.save_posterior(fitted(POSTERIORS[name]), folder / name)
    return {path.name: path for path in folder.iterdir()}


def test_another_simulator_is_refused(saved: dict[str, Path]) -> None:
    wider = dist.Uniform(-1.0, 1.1).expand([2]).to_event(1)
    with pytest.raises(ValueError, match=r"the prior of \['theta'\] is not the one"):
        ss.load_posterior(saved["a function"], observe, wider)
    with pytest.raises(ValueError, match=r"parameters \['theta'\], but it has \['shift'\]"):
        ss.load_posterior(saved["a function"], lambda key, theta: theta["shift"], {"shift": UNIFORM})
    with pytest.raises(ValueError, match=r"shapes \[\[2\]\], but it has \[\[3\]\]"):
        ss.load_posterior(saved["a function"], observe, dist.Uniform(-1.0, 1.0).expand([3]).to_event(1))
    with pytest.raises(ValueError, match=r"observations \(2,\), but it has \(1,\)"):
        ss.load_posterior(saved["a function"], lambda key, theta: theta[:1], UNIFORM)
    # The same coordinates, for there is no quantile function to tell them apart, but another density.
    settings: dict[str, Any] = {"observed": "x", "model_args": (2,)}
    with pytest.raises(ValueError, match=r"the prior of \['mean'\] is not the one"):
        ss.load_posterior(saved["a NumPyro model"], model, model_kwargs={"width": 3.0}, **settings)
    ss.load_posterior(saved["a NumPyro model"], model, **settings)


def test_another_likelihood_is_refused(saved: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="its likelihood is not the one"):
        ss.load_posterior(saved["informed"], observe, UNIFORM, log_likelihood=lambda t, x: 0.5 * log_likelihood(t, x))
    # It may lack a constant.
    ss.load_posterior(saved["informed"], observe, UNIFORM, log_likelihood=lambda t, x: log_likelihood(t, x) + 3)
    with pytest.raises(ValueError, match="are informed, so their network needs the density"):
        ss.load_posterior(saved["informed"], observe, UNIFORM)


def test_files_that_do_not_fit_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    whole = saved["a function"].read_bytes()
    damaged = bytearray(whole)
    damaged[-50] ^= 1
    for name, content, words in (
        ("damaged", bytes(damaged), "is damaged: its checksum"),
        ("truncated", whole[:-9], "truncated, damaged or no safetensors file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            ss.load_posterior(tmp_path / name, observe, UNIFORM)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        ss.load_posterior(tmp_path / "nothing", observe, UNIFORM)
    with pytest.raises(ValueError, match="holds a posterior, not a score"):
        ss.load_score(saved["a function"])
    content, arrays = read_archive(saved["a function"], "posterior")
    write_archive(tmp_path / "less", "posterior", content, {k: v for k, v in arrays.items() if k != "centre.slope"})
    with pytest.raises(ValueError, match=r"missing \['centre.slope'\]"):
        ss.load_posterior(tmp_path / "less", observe, UNIFORM)
    write_archive(tmp_path / "other", "posterior", {k: v for k, v in content.items() if k != "encoding"}, arrays)
    with pytest.raises(ValueError, match="does not hold a posterior that this release knows"):
        ss.load_posterior(tmp_path / "other", observe, UNIFORM)


@pytest.mark.usefixtures("unchecked_types")
def test_only_posteriors_are_written(tmp_path: Path) -> None:
    posterior = fitted(POSTERIORS["a function"])
    with pytest.raises(TypeError, match="`posterior` must be what fit_posterior returned"):
        ss.save_posterior(posterior.score, tmp_path / "posterior")  # type: ignore[arg-type]
    other = eqx.tree_at(lambda p: p.score.centre, posterior, lambda c: c.values)
    with pytest.raises(TypeError, match="which is code"):
        ss.save_posterior(other, tmp_path / "posterior")
    assert not list(tmp_path.iterdir())


def test_the_score_of_a_posterior_is_a_score(tmp_path: Path) -> None:
    posterior = fitted(POSTERIORS["a regression"])
    x = jnp.array([0.4, -0.3])
    for score in (posterior.given(x), posterior.given(x).with_process(ss.VP())):
        ss.save_score(score, tmp_path / "score")
        again = ss.load_score(tmp_path / "score", constrain=posterior.constrain)
        np.testing.assert_array_equal(value(again), value(score))
    with pytest.warns(UserWarning, match="`constrain` is a function"):
        ss.load_score(tmp_path / "score")
    with pytest.raises(TypeError, match="with save_posterior"):
        ss.save_score(fitted(POSTERIORS["informed"]).given(x), tmp_path / "informed")
