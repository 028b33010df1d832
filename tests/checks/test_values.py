"""Whether a log density and its score belong together: what is looked at, and what is found."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import scoresample as ss
from scoresample.checks import value_checks
from scoresample.scores import AbstractDensityScore, Constrain, Position, Structure, named_sites
from tests.cases import gaussian

POINTS = jax.random.normal(jax.random.key(0), (50, 2))


class Claimed(AbstractDensityScore):
    """A standard normal score whose log density is `factor` times what it should be, plus a bump."""

    structure: Structure = None
    constrain: Constrain = named_sites
    init_position: Any = None
    factor: float = 1.0
    sharp: float = 0.0

    def logdensity(self, position: Position) -> Array:
        return -0.5 * self.factor * jnp.sum(position**2) + 0.05 * jnp.sin(self.sharp * position[0])

    def value_and_score(self, position: Position) -> tuple[Array, Position]:
        bump = 0.05 * self.sharp * jnp.cos(self.sharp * position[0]) * jnp.array([1.0, 0.0], position.dtype)
        return self.logdensity(position), -position + bump


@jax.custom_jvp
def constant(x: Array) -> Array:
    """A constant in the place of a log density, with a score for its derivative."""
    return 0.0 * jnp.sum(x)


constant.defjvp(lambda primals, tangents: (constant(*primals), -jnp.vdot(primals[0], tangents[0])))


def value(density: AbstractDensityScore, points: Array = POINTS) -> float:
    (check,) = value_checks(density, points)
    return check.value


def test_what_belongs_together_passes() -> None:
    assert value(Claimed()) == 0.0
    (check,) = value_checks(Claimed(sharp=5.0), POINTS)
    assert check.passed


def test_the_value_is_the_error_in_nats() -> None:
    chosen = POINTS[np.linspace(0, 49, 32).astype(int)]
    squares = jnp.sum(chosen**2, axis=1)
    expected = 0.5 * 0.3 * jnp.quantile(jnp.abs(squares - jnp.roll(squares, 32 // 3)), 0.75)
    np.testing.assert_allclose(value(Claimed(factor=1.3)), expected, rtol=1e-3)


def test_a_constant_density_is_found() -> None:
    (check,) = value_checks(ss.DensityScore(constant), POINTS)
    assert not check.passed
    assert check.severity == "fail"
    assert "accepted" in check.remedy


def test_a_constant_density_inside_another_program_is_found() -> None:
    nested = ss.DensityScore(lambda x: jax.lax.cond(x[0] > 0, jax.jit(constant), lambda x: constant(2.0 * x) / 4, x))
    assert value(nested) > 0.5


def test_rules_that_jax_wrote_are_looked_at_and_pass() -> None:
    assert value(ss.DensityScore(lambda x: -jnp.sum(jax.nn.softplus(x) + jax.nn.softplus(-2 * x)))) < 1e-3


@pytest.mark.parametrize(
    "density",
    [
        gaussian(),
        ss.DensityScore(lambda x: -jnp.sum(x**4)),
        ss.LineIntegralDensity(ss.Score(lambda x: -x, structure=jnp.zeros(2)), jnp.zeros(2)),
    ],
    ids=["closed form", "differentiated", "line integral"],
)
def test_what_must_belong_together_is_not_looked_at(density: AbstractDensityScore) -> None:
    assert value_checks(density, POINTS) == []


def test_a_quadrature_that_resolves_nothing_accuses_nobody() -> None:
    assert value(Claimed(sharp=4000.0)) < 0.1


def test_rounding_accuses_nobody() -> None:
    far = ss.DensityScore(lambda x: -0.5 * jnp.sum(jax.nn.relu(x) ** 2) - 1e6)
    assert value(far) == 0.0


def test_a_run_is_checked_and_the_report_says_so() -> None:
    settings: dict[str, Any] = {"num_samples": 200, "num_warmup": 200, "initial_position": jnp.zeros(2)}
    draws = ss.sample(ss.DensityScore(constant), ss.NUTS(), key=jax.random.key(0), **settings)
    verdict = ss.compare({"hack": draws}).verdicts["hack"]
    causes = [check.name for check in verdict.checks if not check.passed]
    assert "log density against its score" in causes[:3]
    assert verdict.level == "do not use"
