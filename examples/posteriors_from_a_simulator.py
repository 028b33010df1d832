"""Posteriors from a simulator: learned once for all observations, drawn for many at once, combined.

Run it as `python examples/posteriors_from_a_simulator.py [--quick]`.
"""

import sys

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:function]
def observe(key, theta):
    """Six noisy looks at a point, through a lens that bends."""
    bent = jnp.stack([theta[0] + theta[1] ** 2, theta[1]])
    return bent + 0.3 * jax.random.normal(key, (6, 2))


prior = dist.Uniform(-2.0, 2.0).expand([2]).to_event(1)
# --8<-- [end:function]


def main(quick: bool) -> None:
    budget = {"num_simulations": 300, "num_epochs": 2, "width": 16, "depth": 1} if quick else {}
    short = {"coordinates": "regression"} if quick else {}
    key = jax.random.key(0)
    # --8<-- [start:fit]
    posterior = ss.fit_posterior(observe, prior, exchangeable=True, key=key, **budget, **short)

    x = observe(jax.random.key(1), jnp.array([0.5, -1.0]))  # the data
    draws = ss.sample(posterior.given(x), key=key, num_samples=1000, num_chains=1)
    print(draws.to_arviz()["posterior"]["theta"].mean("draw").values)
    # --8<-- [end:fit]

    # --8<-- [start:many]
    truths, observations = posterior.simulate(jax.random.key(2), 1000)
    one_each = ss.sample(posterior.given(observations), key=key, num_samples=1000, num_chains=1)
    print("root mean square error:", float(jnp.sqrt(jnp.mean((one_each.position[0] - truths) ** 2))))
    # --8<-- [end:many]

    # --8<-- [start:combine]
    single = ss.fit_posterior(
        lambda key, theta: observe(key, theta)[0], prior, key=key, **{**budget, "coordinates": "prior"}
    )
    together = ss.sample(single.given_all(x, key=key), key=key, num_samples=500, num_chains=1)
    print(together.to_arviz()["posterior"]["theta"].mean("draw").values)
    # --8<-- [end:combine]


if __name__ == "__main__":
    main("--quick" in sys.argv)
