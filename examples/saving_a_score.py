"""Saving a learned score and loading it again, also one of a network of one's own, and posteriors of a simulator.

Run it as `python examples/saving_a_score.py [--quick]`.
"""

import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:network]
class Linear(eqx.Module):
    """The smallest network of one's own."""

    layer: eqx.nn.Linear

    def __init__(self, key):
        self.layer = eqx.nn.Linear(3, 3, key=key)

    def __call__(self, x, log_sigma):
        return jnp.tanh(log_sigma) * self.layer(x)


# --8<-- [end:network]


def observe(key, theta):
    return theta + 0.3 * jax.random.normal(key, theta.shape)


def main(quick: bool) -> None:
    num_epochs = 5 if quick else 100
    key_data, key_fit, key_other = jax.random.split(jax.random.key(0), 3)
    folder = Path(tempfile.mkdtemp())
    data = jax.random.gamma(key_data, 3.0, (2000, 3))
    # --8<-- [start:save]
    score = ss.fit_score(data, key=key_fit, support=(0.0, None), num_epochs=num_epochs)
    ss.save_score(score, folder / "score.safetensors")

    again = ss.load_score(folder / "score.safetensors")
    point = jnp.zeros(3)
    assert (again(point, 0.3) == score(point, 0.3)).all()  # to the last bit
    print(again.record)
    # --8<-- [end:save]

    # --8<-- [start:damage]
    damaged = bytearray((folder / "score.safetensors").read_bytes())
    damaged[-100] ^= 1
    (folder / "damaged.safetensors").write_bytes(damaged)
    try:
        ss.load_score(folder / "damaged.safetensors")
    except ValueError as error:
        print(str(error).replace(str(folder), "..."))
    # --8<-- [end:damage]

    # --8<-- [start:own]
    mine = ss.fit_score(data, key=key_fit, network=Linear, num_epochs=num_epochs)
    ss.save_score(mine, folder / "mine.safetensors")
    loaded = ss.load_score(folder / "mine.safetensors", network=Linear(key_other))  # its arrays are replaced
    assert (loaded.fn.network.layer.weight == mine.fn.network.layer.weight).all()
    # --8<-- [end:own]

    budget = {"num_simulations": 500, "num_epochs": 2, "coordinates": "prior"} if quick else {}
    # --8<-- [start:posterior]
    prior = dist.Uniform(-1.0, 1.0).expand([2]).to_event(1)
    posterior = ss.fit_posterior(observe, prior, key=key_fit, **budget)
    ss.save_posterior(posterior, folder / "posterior.safetensors")

    kept = ss.load_posterior(folder / "posterior.safetensors", observe, prior)
    x = jnp.array([0.4, -0.2])
    assert (kept.given(x)(jnp.zeros(2), 0.3) == posterior.given(x)(jnp.zeros(2), 0.3)).all()
    # --8<-- [end:posterior]


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
