"""Posteriors from a simulator: learned once for all observations, certified against the exact density, combined.

Run it as `python examples/posteriors_from_a_simulator.py [--quick]`.
"""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:function]
def observe(key, theta):
    """Six noisy looks at a point, through a lens that bends."""
    bent = jnp.stack([theta[0] + theta[1] ** 2, theta[1]])
    return bent + 0.3 * jax.random.normal(key, (6, 2))


prior = dist.Uniform(-2.0, 2.0).expand([2]).to_event(1)
# --8<-- [end:function]


# --8<-- [start:model]
def lens():
    theta = numpyro.sample("theta", dist.Uniform(-2.0, 2.0).expand([2]).to_event(1))
    bent = jnp.stack([theta[0] + theta[1] ** 2, theta[1]])
    with numpyro.plate("looks", 6):
        numpyro.sample("x", dist.Normal(bent, 0.3).to_event(1))


# --8<-- [end:model]


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
    truths, observations = posterior.simulate(jax.random.key(2), 500)
    one_each = ss.sample(posterior.given(observations), key=key, num_samples=500, num_chains=1)
    print("root mean square error:", float(jnp.sqrt(jnp.mean((one_each.position[0] - truths) ** 2))))
    # --8<-- [end:many]

    # --8<-- [start:calibrate]
    calibration = ss.calibrate(posterior, key=jax.random.key(3), num_simulations=100 if quick else 1000)
    print(calibration)
    calibration.save(Path(tempfile.mkdtemp()) / "calibration.png")  # ranks in their bands, coverage, TARP
    # --8<-- [end:calibrate]

    # --8<-- [start:certify]
    exact = ss.fit_posterior(lens, observed="x", exchangeable=True, key=key, **budget, **short)
    draws = ss.sample(exact.given(x), ss.WithDensity(), key=key, num_samples=2000, num_chains=1)
    certificate = ss.certify(draws, exact.density(x), key=key)
    print(certificate)
    usable = certificate.draws
    # --8<-- [end:certify]
    print(usable)

    # --8<-- [start:compare]
    nuts = ss.sample(exact.density(x), ss.NUTS(), key=key, num_samples=200 if quick else 1000)
    comparison = ss.compare({"NUTS": nuts, "learned": draws, "certified": usable}, reference="NUTS")
    print(comparison)
    # --8<-- [end:compare]

    # --8<-- [start:combine]
    single = ss.fit_posterior(lambda key, theta: observe(key, theta)[0], prior, coordinates="prior", key=key, **budget)
    together = ss.sample(single.given_all(x, key=key), key=key, num_samples=500, num_chains=1)
    print(together.to_arviz()["posterior"]["theta"].mean("draw").values)
    # --8<-- [end:combine]


if __name__ == "__main__":
    main("--quick" in sys.argv)
