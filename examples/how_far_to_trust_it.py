"""How far to trust a learned posterior: weights from the exact density, a certificate, and NUTS beside it.

Run it as `python examples/how_far_to_trust_it.py [--quick]`.
"""

import sys

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:model]
def lens():
    theta = numpyro.sample("theta", dist.Uniform(-2.0, 2.0).expand([2]).to_event(1))
    bent = jnp.stack([theta[0] + theta[1] ** 2, theta[1]])
    with numpyro.plate("looks", 6):
        numpyro.sample("x", dist.Normal(bent, 0.3).to_event(1))


# --8<-- [end:model]


def main(quick: bool) -> None:
    budget = {"num_simulations": 1000, "num_epochs": 10, "width": 32, "coordinates": "prior"} if quick else {}
    key = jax.random.key(0)
    # --8<-- [start:certify]
    posterior = ss.fit_posterior(lens, observed="x", exchangeable=True, key=key, **budget)
    x = jnp.array([[1.4, -0.9], [1.7, -1.3], [1.2, -1.0], [1.9, -0.7], [1.6, -1.2], [1.1, -0.8]])  # the data

    draws = ss.sample(posterior.given(x), ss.WithDensity(), key=key, num_samples=2000, num_chains=1)
    certificate = ss.certify(draws, posterior.density(x), key=key)
    print(certificate)
    usable = certificate.draws
    # --8<-- [end:certify]

    # --8<-- [start:weights]
    weighted = ss.reweight(draws, posterior.density(x), smooth=True)
    print(f"log evidence {weighted.info['log_z']:.2f} +- {weighted.info['log_z_se']:.2f}")
    moved = ss.polish(weighted, posterior.density(x), key=key)  # or method="nuts", or "independence"
    print(f"{moved.info['num_distinct']} different draws of {moved.position.shape[1]}")
    # --8<-- [end:weights]

    # --8<-- [start:compare]
    nuts = ss.sample(posterior.density(x), ss.NUTS(), key=key, num_samples=200 if quick else 1000)
    print(ss.compare({"NUTS": nuts, "as drawn": draws, "certified": usable}, reference="NUTS"))
    # --8<-- [end:compare]


if __name__ == "__main__":
    main("--quick" in sys.argv)
