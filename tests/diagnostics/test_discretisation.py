"""What halving the steps changes, against exact laws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scoresample as ss


def path() -> Any:
    return ss.perturb(ss.Gaussian(jnp.zeros(2), jnp.array([1.0, 0.04])), ss.VP())


def test_the_odes_change_is_that_of_its_linear_map() -> None:
    """Draws are linear in their start, so every draw changes by the same factor, coordinate by coordinate."""
    sampler = ss.ProbabilityFlowODE(num_steps=6, solver="ddim")
    error = ss.discretisation_error(path(), sampler, key=jax.random.key(0), num_samples=500)
    draws = [ss.sample(path(), ss.ProbabilityFlowODE(n, "ddim"), key=jax.random.key(0), num_chains=1, num_samples=500)
             for n in (6, 12)]  # fmt: skip
    factor = np.asarray(draws[0].position[0, 0] / draws[1].position[0, 0])
    np.testing.assert_allclose(error.moments.sd_ratio, factor, rtol=1e-4)
    assert error.pathwise == pytest.approx(np.sqrt(np.mean((factor - 1) ** 2)), rel=0.05)
    assert error.nfe == (7.0, 13.0)
    assert not error.check().passed


def test_few_steps_of_ddpm_are_seen_and_many_of_the_midpoint_are_not() -> None:
    coarse = ss.discretisation_error(path(), ss.ReverseSDE(6, "ddpm"), key=jax.random.key(0))
    fine = ss.discretisation_error(path(), ss.ReverseSDE(40), key=jax.random.key(0))
    assert not coarse.check().passed
    assert coarse.distance.value > coarse.distance.null_95
    assert fine.check().passed
    assert coarse.pathwise is None


@pytest.mark.parametrize(
    ("sampler", "finer"),
    [
        (ss.ReverseSDE(num_steps=5), ss.ReverseSDE(num_steps=15)),
        (ss.PredictorCorrector(num_steps=5), ss.PredictorCorrector(num_steps=15)),
        (ss.AnnealedLangevin(num_levels=5), ss.AnnealedLangevin(num_levels=15)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_refined_has_more_steps(sampler: Any, finer: Any) -> None:
    assert sampler.refined(3) == finer


def test_own_times_are_refined_between() -> None:
    refined = ss.ReverseSDE(grid=(0.9, 0.5, 0.1)).refined(2)
    np.testing.assert_allclose(np.asarray(refined.grid), [0.9, 0.7, 0.5, 0.3, 0.1])


def test_tolerances_are_refined() -> None:
    import diffrax

    refined = ss.ProbabilityFlowODE(solver=diffrax.Tsit5(), rtol=1e-3, atol=1e-4).refined(2)
    assert (refined.rtol, refined.atol) == (5e-4, 5e-5)


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_path_sampler_is_refused() -> None:
    wrong: Any = ss.NUTS()
    with pytest.raises(TypeError, match="`sampler` must be a path sampler"):
        ss.discretisation_error(path(), wrong, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`factor` must be at least 2"):
        ss.discretisation_error(path(), ss.ReverseSDE(), key=jax.random.key(0), factor=1)
