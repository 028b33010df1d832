"""The published checks: they pass what is right (see the laws) and name what is wrong."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.scores import Constrain, Position, Structure, named_sites, structure_of
from scoresample.testing import check_path, check_sampler, check_score

KEY = jax.random.key(0)
MEAN, SD = 2.0, 3.0


def data() -> Array:
    """A Gaussian off centre and wide."""
    return MEAN + SD * jax.random.normal(jax.random.key(1), (4096, 2))


def network(fn: Any, **settings: Any) -> ss.PerturbedScore:
    """A network for standardised data, with the standardisation that belongs to `data`."""
    frame: dict[str, Any] = {"location": jnp.full(2, MEAN), "scale": jnp.full(2, SD)}
    return ss.PerturbedScore(fn, ss.VP(), structure=jnp.zeros(2), **(frame | settings))


def test_a_right_network_passes_in_any_parametrisation() -> None:
    """Standard normal data stay so under VP: s = -z, noise sigma z, denoised alpha z, velocity 0."""
    check_path(network(lambda z, t: -z), data(), key=KEY)
    check_path(network(lambda z, s: z / (1 + s**2), prediction="denoised", time="sigma"), data(), key=KEY)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (network(lambda z, t: z), "The sign is wrong"),
        (network(lambda z, t: -3.0 * z), r"The scale is wrong: divide the score by (2\.9|3)"),
        (network(lambda z, t: -z * (0.1 + 3 * t)), "The error changes with the noise level"),
        (network(lambda z, t: -z, location=None, scale=None), "Pass the standardisation .* as `location` and `scale`"),
        (network(lambda z, t: -z * jnp.log(z)), "is not finite"),
    ],
)
def test_a_wrong_network_is_named(path: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_path(path, data(), key=KEY)


class Written(ss.AbstractDensityScore):
    """A density score whose three parts are given one by one."""

    log_p: Any
    value: Any
    score: Any
    structure: Structure
    constrain: Constrain
    init_position: Any

    def __init__(self, log_p: Any, value: Any, score: Any) -> None:
        self.log_p, self.value, self.score = log_p, value, score
        self.structure, self.constrain, self.init_position = structure_of(jnp.zeros(2)), named_sites, None

    def logdensity(self, position: Position) -> Array:
        return self.log_p(position)

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        return self.value(position), self.score(position)


def square(x: Array) -> Array:
    return -0.5 * jnp.sum(x**2)


@pytest.mark.parametrize(
    ("log_p", "value", "score", "message"),
    [
        (square, square, lambda x: x, "the derivative of logdensity differs from the score"),
        (square, lambda x: square(x) + 1, lambda x: -x, "the value of value_and_score differs from logdensity"),
        (lambda x: -0.5 * x**2, lambda x: -0.5 * x**2, lambda x: -x, "the log density must be a scalar"),
        (square, square, lambda x: -x[:1], "the score must look like its position"),
        (square, square, lambda x: {"x": -x}, "the score must look like its position"),
        (square, square, lambda x: -x.astype(jnp.float16), "the score must look like its position"),
        (square, square, lambda x: -x / (x > 0), "the score is not finite"),
    ],
)
def test_a_wrong_score_is_named(log_p: Any, value: Any, score: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_score(Written(log_p, value, score), key=KEY)


def test_a_right_score_passes() -> None:
    check_score(Written(square, square, lambda x: -x), key=KEY)


def test_a_score_without_structure_needs_points() -> None:
    score = ss.Score(lambda x: -x)
    check_score(score, key=KEY, positions=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="`positions`: this score has no structure"):
        check_score(score, key=KEY)


class Stubborn(ss.AbstractSampler):
    """A chain with one fault of choice."""

    name = "stubborn"
    reference = "nobody"
    asymptotically_exact = False
    needs_density = False

    fault: str = eqx.field(static=True)

    def init(self, score: Any, position: Position, *, key: Array) -> Any:
        return ss.ULA(0.1).init(score, position, key=key)

    def step(self, score: Any, state: Any, *, key: Array) -> tuple[Any, dict[str, Array]]:
        key = jax.random.key(0) if self.fault == "ignores the key" else key
        state, stats = ss.ULA(0.1).step(score, state, key=key)
        return state, stats | ({"n_steps": jnp.asarray(0)} if self.fault == "counts nothing" else {})

    def warmup(self, score: Any, positions: Position, num_warmup: int, *, key: Array) -> Any:
        del key
        states = jax.vmap(lambda x: self.init(score, x, key=jax.random.key(0)))(positions)
        return states, self, {"num_evaluations": jnp.ones(jax.tree.leaves(positions)[0].shape[0], int)}


@pytest.mark.parametrize(
    ("fault", "message"),
    [("ignores the key", "another key gave the same draws"), ("counts nothing", "0.0 score evaluations per draw")],
)
def test_a_wrong_sampler_is_named(fault: str, message: str) -> None:
    target = ss.DensityScore(square, structure=jnp.zeros(2), init_position=lambda key: jnp.ones(2))
    with pytest.raises(AssertionError, match=message):
        check_sampler(Stubborn(fault), target, key=KEY)
    check_sampler(Stubborn("none"), target, key=KEY)
