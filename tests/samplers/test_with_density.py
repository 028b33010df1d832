"""The density of a deterministic sampler's own draws."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal
from jaxtyping import Array

import scoresample as ss
from scoresample.diagnostics import normalized_weights
from tests.cases import gaussian, mixture

SOLVERS = ["ddim", "dpm-solver++2m", "unipc-3", "karras-heun"]


def drawn(path: Any, num_steps: int, solver: Any, **settings: Any) -> ss.Draws:
    sampler = ss.WithDensity(ss.ProbabilityFlowODE(num_steps=num_steps, solver=solver))
    counts: dict[str, Any] = {"key": jax.random.key(0), "num_samples": 40, "num_chains": 1, "throw": False}
    return ss.sample(path, sampler, **(counts | settings))


@pytest.mark.parametrize("num_steps", [5, 12])
@pytest.mark.parametrize("solver", SOLVERS)
def test_affine_maps_have_the_gaussian_density_of_their_image(solver: Any, num_steps: int) -> None:
    path = ss.perturb(gaussian(), ss.VP())
    sampler = ss.ProbabilityFlowODE(num_steps=num_steps, solver=solver)
    plan = sampler.plan(path, key=jax.random.key(0))
    ends, _, _ = sampler.run(path, jnp.concatenate([jnp.zeros((1, 2)), jnp.eye(2)]), plan, key=jax.random.key(0))
    matrix, shift = np.asarray(ends[1:] - ends[0]).T, np.asarray(ends[0])
    start = path.sample_reference(jax.random.key(1), 200_000, plan.t_start)
    alpha, variance = path.process.alpha(plan.t_start), path.process.variance(plan.t_start)
    mean, spread = path.data_moments()
    first = np.asarray(alpha * mean)
    covariance = np.diag(np.asarray(alpha**2 * spread + variance))
    np.testing.assert_allclose(start.mean(axis=0), first, atol=0.02)
    draws = drawn(path, num_steps, solver)
    expected = multivariate_normal.logpdf(draws.position[0], matrix @ first + shift, matrix @ covariance @ matrix.T)
    np.testing.assert_allclose(draws.stats["log_proposal"][0], expected, atol=2e-3)
    assert not draws.stats["folded"].any()
    assert draws.nfe == 3 * plan.nfe


@pytest.mark.parametrize("solver", ["dpm-solver++2m", "karras-heun"])
def test_curved_maps_have_the_determinant_of_their_whole_derivative(solver: Any) -> None:
    path = ss.perturb(mixture(), ss.VP())
    sampler = ss.ProbabilityFlowODE(num_steps=8, solver=solver)
    plan = sampler.plan(path, key=jax.random.key(0))

    def moved(z: Array) -> Array:
        return sampler.run(path, z[None], plan, key=jax.random.key(0))[0][0]

    starts = path.sample_reference(jax.random.key(3), 6, plan.t_start)
    wrapped = ss.WithDensity(sampler)
    ends, _, info = jax.jit(lambda z: wrapped.run(path, z, plan, key=jax.random.key(0)))(starts)
    log_dets = [np.linalg.slogdet(np.asarray(jax.jacrev(moved)(z)))[1] for z in starts]
    expected = jax.vmap(lambda z: path.reference_logdensity(z, plan.t_start))(starts) - jnp.asarray(log_dets)
    np.testing.assert_allclose(info.stats["log_proposal"], expected, atol=1e-3)
    np.testing.assert_allclose(ends, jax.vmap(moved)(starts), atol=1e-5)


def test_few_steps_are_weighted_to_the_target_all_the_same() -> None:
    target = ss.GaussianMixture(jnp.array([0.3, 0.7]), jnp.array([[-1.0], [1.5]]), jnp.array([[[0.3]], [[0.2]]]))
    draws = drawn(ss.perturb(target, ss.VP()), 4, "dpm-solver++2m", num_samples=4000)
    raw, weighted = np.asarray(draws.position[0, :, 0]), ss.reweight(draws, target)
    weights = normalized_weights(weighted)
    mean, square = 0.3 * -1.0 + 0.7 * 1.5, 0.3 * 1.3 + 0.7 * 2.45
    errors = [abs(weights @ raw - mean), abs(weights @ raw**2 - square)]
    ess = 1 / np.sum(weights**2)
    assert errors[0] < 5 * raw.std() / np.sqrt(ess)
    assert errors[1] < 5 * (raw**2).std() / np.sqrt(ess)
    assert abs(weighted.info["log_z"]) < 5 * weighted.info["log_z_se"]
    # Four steps are wrong by far more than that on their own.
    assert abs((raw**2).mean() - square) > 5 * (raw**2).std() / np.sqrt(4000)


def test_batches_and_particles_with_conditions_of_their_own() -> None:
    from tests.cases import centred_path

    conditions = jax.random.normal(jax.random.key(5), (12, 2))
    path = centred_path()
    many = drawn(path.given(conditions), 5, "ddim", num_samples=12)
    one = drawn(path.given(conditions[3]), 5, "ddim", num_samples=12)
    np.testing.assert_allclose(many.position[0, 3], one.position[0, 3], atol=1e-5)
    np.testing.assert_allclose(many.stats["log_proposal"][0, 3], one.stats["log_proposal"][0, 3], atol=1e-4)
    parts = drawn(path.given(conditions), 5, "ddim", num_samples=12, batch_size=5)
    assert parts.stats["log_proposal"].shape == (1, 12)


def test_what_is_no_map_of_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed steps"):
        ss.WithDensity(ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-3))
    with pytest.raises(ValueError, match="a solver of ours"):
        ss.WithDensity(ss.ProbabilityFlowODE(solver=diffrax.Heun()))
