"""A NumPyro model, sampled by NUTS and by the reverse SDE on a score learned from a pilot run.

Counts of a decaying source over a constant background: three positive parameters, strongly correlated.
Run it as `python examples/numpyro_model.py [--quick] [--out FILE]`.
"""

import argparse

import arviz as az
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import scoresample as ss


# --8<-- [start:model]
def model(times, counts):
    background = numpyro.sample("background", dist.Gamma(2.0, 0.5))
    amplitude = numpyro.sample("amplitude", dist.Gamma(2.0, 0.05))
    lifetime = numpyro.sample("lifetime", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("half_life", lifetime * jnp.log(2.0))
    rate = background + amplitude * jnp.exp(-times / lifetime)
    numpyro.sample("counts", dist.Poisson(rate), obs=counts)


# --8<-- [end:model]


def main(quick: bool, out: str) -> None:
    times = jnp.linspace(0.0, 8.0, 20)
    counts = jax.random.poisson(jax.random.key(1), 4.0 + 40.0 * jnp.exp(-times / 2.0))
    # --8<-- [start:nuts]
    posterior = ss.from_numpyro(model, (times, counts))
    key_nuts, key_learn, key_sde = jax.random.split(jax.random.key(0), 3)

    nuts = ss.sample(posterior, ss.NUTS(), key=key_nuts)
    print(az.summary(nuts.to_arviz()))
    # --8<-- [end:nuts]

    settings = {"num_pilot": 4000, "num_epochs": 20, "width": 64} if quick else {}
    # --8<-- [start:score]
    score, pilot = ss.fit_score_to_density(posterior, key=key_learn, **settings)
    print(ss.compare({"pilot": pilot}).verdicts["pilot"])
    print(score.record)
    sde = ss.sample(score, ss.ReverseSDE(), key=key_sde)
    # --8<-- [end:score]

    # --8<-- [start:compare]
    comparison = ss.compare({"NUTS": nuts, "reverse SDE": sde}, reference="NUTS", title="A decaying source")
    print(comparison)
    comparison.save(out)
    # --8<-- [end:compare]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pilot draws and little training")
    parser.add_argument("--out", default="report/numpyro_model.html", help="where to write the report")
    options = parser.parse_args()
    main(options.quick, options.out)
