"""How probable held-out parameters are under learned posteriors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from scoresample.nn import Encoded
from scoresample.paths import CentredScore

_NUM_STEPS = 32
_BATCH = 256


@eqx.filter_jit
def mean_log_density(
    score: CentredScore, positions: Array, conditions: Encoded, sigma_range: tuple[float, float]
) -> Array:
    """The mean log density of points, each under its own condition, by the probability flow.

    Heun's method in log s for ``v = z / sqrt(1 + s^2)``, ``dv/dlog s = (z / (1 + s^2) - D(z, s)) / sqrt(1 + s^2)``,
    with the exact divergence, from the points to the most noise, where v is taken as standard normal. The steps are
    fixed: good to about a hundredth of a nat for smooth laws, at a price that is known beforehand, to choose between
    trainings.

    Arguments:
        score: the conditional score, of residuals of order one.
        positions: points, (n, d).
        conditions: what each belongs to, with a leading axis of n.
        sigma_range: the noise levels that the score was trained on.

    Returns:
        A scalar, in nats.
    """
    return jnp.mean(
        jax.lax.map(
            lambda pair: _log_density(score, pair[0], pair[1], sigma_range), (positions, conditions), batch_size=_BATCH
        )
    )


def _log_density(score: CentredScore, position: Array, condition: Encoded, sigma_range: tuple[float, float]) -> Array:
    """One point's."""
    low, high = (float(np.log(sigma)) for sigma in sigma_range)
    step = (high - low) / _NUM_STEPS
    path = score.given(condition)
    z = path.frame.to_standard(position)

    def slope(v: Array, log_sigma: Array) -> tuple[Array, Array]:
        sigma, total = jnp.exp(log_sigma), 1 + jnp.exp(2 * log_sigma)

        def flow(v: Array) -> Array:
            z = v * jnp.sqrt(total)
            return (z / total - path.inner.fn(z, sigma, condition)) / jnp.sqrt(total)

        value, pullback = jax.vjp(flow, v)
        return value, jnp.trace(jax.vmap(lambda row: pullback(row)[0])(jnp.eye(v.size, dtype=v.dtype)))

    def body(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        v, gained = carry
        log_sigma = jnp.asarray(low + number * step, v.dtype)
        first, growth = slope(v, log_sigma)
        second, later = slope(v + step * first, log_sigma + step)
        return v + step / 2 * (first + second), gained + step / 2 * (growth + later)

    scale = np.sqrt(1 + np.exp(2 * low))
    v, gained = jax.lax.fori_loop(0, _NUM_STEPS, body, (z / scale, jnp.zeros((), z.dtype)))
    normal = -0.5 * jnp.sum(v**2) - z.size * (0.5 * np.log(2 * np.pi) + np.log(scale))
    return normal + gained - path.frame.log_volume(path.structure)
