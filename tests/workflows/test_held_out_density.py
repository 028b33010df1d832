"""The log density by which trainings are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

import scoresample as ss
from scoresample.nn import Encoded
from scoresample.paths import CentredScore
from scoresample.workflows._held_out_density import mean_log_density


@pytest.mark.parametrize("mixing", [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.2], [0.2, 0.8]]])
def test_it_is_that_of_a_normal_posterior(mixing: list[list[float]]) -> None:
    """z given x is normal with mean x/3 and variances 2/3 and 1/5, in coordinates around x."""
    root, variance = jnp.array(mixing), jnp.array([2 / 3, 1 / 5])

    def denoiser(y: Array, s: Array, condition: Encoded) -> Array:
        mean = condition.values / 3
        return mean + variance / (variance + s**2) * (y - mean)

    inner = ss.PerturbedScore(
        denoiser, ss.VP(), structure=jnp.zeros(2), prediction="denoised", time="sigma", condition=Encoded(jnp.zeros(2))
    )
    score = CentredScore(inner, lambda condition: condition.values, root, constrain=inner.constrain)
    noise, x = jax.random.normal(jax.random.key(0), (2, 300, 2))
    positions = x + (x / 3 + jnp.sqrt(variance) * noise) @ root
    found = float(mean_log_density(score, positions, Encoded(x), (0.003, 20.0)))
    residuals = np.linalg.solve(np.asarray(root), np.asarray(positions - x).T).T - np.asarray(x) / 3
    exact = stats.norm.logpdf(residuals, scale=np.sqrt(variance)).sum(axis=1).mean()
    exact -= np.linalg.slogdet(np.asarray(root, np.float64))[1]
    assert abs(found - exact) < 0.01
