"""A posterior from a log density of your own, or from a score alone: a logistic regression, three ways.

Run it as `python examples/own_score.py [--quick]`.
"""

import argparse

import jax
import jax.numpy as jnp

import scoresample as ss
from scoresample.testing import check_score


# --8<-- [start:functions]
def log_likelihood(weights, features, labels):
    logits = features @ weights
    return jnp.sum(labels * logits - jax.nn.softplus(logits))


def likelihood_score(weights, features, labels):
    return features.T @ (labels - jax.nn.sigmoid(features @ weights))


# --8<-- [end:functions]


def main(quick: bool) -> None:
    key_x, key_y, key_check, *keys = jax.random.split(jax.random.key(0), 6)
    features = jax.random.normal(key_x, (80, 2))
    labels = jax.random.bernoulli(key_y, jax.nn.sigmoid(features @ jnp.array([1.5, -0.5]))).astype(float)
    num_samples = 1000 if quick else 10_000

    # --8<-- [start:density]
    prior = ss.Gaussian(jnp.zeros(2), 4.0)
    likelihood = ss.DensityScore(log_likelihood, features, labels, structure=jnp.zeros(2))
    posterior = prior + likelihood
    check_score(posterior, key=key_check)
    nuts = ss.sample(posterior, ss.NUTS(), key=keys[0], num_samples=num_samples)
    # --8<-- [end:density]

    # --8<-- [start:bare]
    bare = prior + ss.Score(likelihood_score, features, labels, structure=jnp.zeros(2))
    ula = ss.sample(bare, ss.ULA(step_size=0.005), key=keys[1], num_samples=num_samples)
    try:
        ss.sample(bare, ss.NUTS(), key=keys[2], num_samples=num_samples)
    except TypeError as error:
        print(f"NUTS on the bare score:\n  {error}\n")
    # --8<-- [end:bare]

    # --8<-- [start:line]
    density = ss.LineIntegralDensity(bare, origin=nuts.position.mean(axis=(0, 1)))
    hmc = ss.sample(density, ss.HMC(num_integration_steps=3), key=keys[2], num_samples=num_samples)
    # --8<-- [end:line]
    runs = {"NUTS": nuts, "ULA": ula, "HMC on the line integral": hmc}
    print(ss.compare(runs, reference="NUTS"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    main(parser.parse_args().quick)
