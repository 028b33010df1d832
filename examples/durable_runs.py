"""A long run that survives: stop it, look at it, go on with it."""

import argparse
import shutil

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import scoresample as ss

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="fewer draws")
parser.add_argument("--store", default="run.zarr", help="where the draws go")
options = parser.parse_args()
num_samples = 400 if options.quick else 20_000
shutil.rmtree(options.store, ignore_errors=True)

# --8<-- [start:run]
y = jnp.array([2.8, -0.4, 1.1, 0.7, -1.3])


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.StudentT(3.0, mu, sigma), obs=y)


posterior = ss.from_numpyro(model, (y,))
settings = {"key": jax.random.key(0), "num_samples": num_samples, "store": options.store}
draws = ss.sample(posterior, ss.NUTS(), **settings)
# --8<-- [end:run]

# --8<-- [start:again]
draws = ss.sample(posterior, ss.NUTS(), **settings)  # the same call: what is there is not drawn again
print(draws.seconds, draws.position["mu"].shape)
# --8<-- [end:again]

# --8<-- [start:load]
so_far = ss.load(options.store)
print(so_far.info["complete"], so_far.summary()[["mean", "sd", "ess_bulk", "r_hat"]])
# --8<-- [end:load]

# --8<-- [start:refused]
try:
    ss.sample(posterior, ss.NUTS(0.95), **settings)
except ValueError as error:
    print(error)
# --8<-- [end:refused]
