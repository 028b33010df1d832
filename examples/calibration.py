"""Calibration: whether the uncertainties of learned posteriors are right, and what wrong ones look like.

Run it as `python examples/calibration.py [--quick] [--save FILE]`.
"""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:simulator]
def observe(key, theta):
    """Counts and a level: no density to write down."""
    return jnp.array([theta[0], theta[0] * theta[1]]) + 0.2 * jax.random.t(key, 4.0, (2,))


prior = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
# --8<-- [end:simulator]


def main(quick: bool, picture: Path) -> None:
    budget = {"num_simulations": 1000, "num_epochs": 10, "width": 32, "coordinates": "prior"} if quick else {}
    number = 100 if quick else 1000
    # --8<-- [start:calibrate]
    posterior = ss.fit_posterior(observe, prior, key=jax.random.key(0), **budget)
    calibration = ss.calibrate(posterior, key=jax.random.key(1), num_simulations=number)
    print(calibration)
    calibration.save(picture)  # ranks in their bands, coverage, TARP
    # --8<-- [end:calibrate]

    # --8<-- [start:wrong]
    hasty = ss.fit_posterior(observe, prior, key=jax.random.key(0), num_simulations=200, num_epochs=5, width=32)
    print(ss.calibrate(hasty, key=jax.random.key(1), num_simulations=number))
    # --8<-- [end:wrong]

    # --8<-- [start:predict]
    x = jnp.array([0.5, -0.4])  # the data
    draws = ss.sample(posterior.given(x), key=jax.random.key(2), num_samples=500, num_chains=1)

    def again(key, position):
        return observe(key, posterior.constrain(position)["theta"])

    print(ss.posterior_predictive_check(draws, again, x, key=jax.random.key(3)))
    # --8<-- [end:predict]


if __name__ == "__main__":
    out = Path(sys.argv[sys.argv.index("--save") + 1]) if "--save" in sys.argv else None
    main("--quick" in sys.argv, out or Path(tempfile.mkdtemp()) / "calibration.png")
