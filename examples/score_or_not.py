"""Is it a score at all? A learned score held to the equation that scores of noised data obey, and its own likelihood.

Run it as `python examples/score_or_not.py [--quick]`.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss


def main(quick: bool) -> None:
    num, epochs, width = (1000, 20, 32) if quick else (10_000, 150, 64)
    key_data, key_new, key_fit, key_health, key_nuts = jax.random.split(jax.random.key(0), 5)
    # --8<-- [start:fit]
    target = ss.GaussianMixture([0.2, 0.8], [[-1.0, -1.0], [1.0, 1.0]], jnp.stack([0.04 * jnp.eye(2)] * 2))
    data = ss.exact_draws(target, key=key_data, num_samples=num)
    settings = {"key": key_fit, "num_epochs": epochs, "width": width, "depth": 2}
    plain = ss.fit_score(data, **settings)
    energy = ss.fit_score(
        data,
        parametrisation="energy",  # a log density, so its gradient is a score
        penalties={"logdensity-fpe": 1.0},  # and its levels belong together
        **settings,
    )
    # --8<-- [end:fit]

    # --8<-- [start:health]
    held_out = ss.exact_draws(target, key=key_new, num_samples=num // 10)
    for name, score in {"denoising only": plain, "energy with penalty": energy}.items():
        health = ss.score_health(score, held_out, key=key_health, exact=ss.perturb(target, ss.VP()), sampling=False)
        print(f"\n{name}\n{health}")
    # --8<-- [end:health]

    # --8<-- [start:odds]
    mode = jnp.ones(2)
    flow = ss.ProbabilityFlowDensity(plain)
    print("\nlog odds of the two modes, truth", np.log(4.0).round(3))
    print("  along the probability flow:", float(flow.logdensity(mode) - flow.logdensity(-mode)))
    print("  off the energy:", float(energy.logdensity(mode, 0.01) - energy.logdensity(-mode, 0.01)))
    # --8<-- [end:odds]

    # --8<-- [start:likelihood]
    points = held_out.position[0][:100]
    found = jax.vmap(flow.evaluate)(points)
    truth = jax.vmap(target.logdensity)(points)
    print(f"\nmean log density {found.value.mean():.3f}, truth {truth.mean():.3f}")
    print(f"error of one value {jnp.median(found.error):.1e} nats, {found.num_evaluations.mean():.0f} evaluations")
    # --8<-- [end:likelihood]

    # --8<-- [start:weights]
    draws = ss.sample(plain, ss.ProbabilityFlowODE(), key=key_nuts, num_samples=num // 8)
    weighted = ss.reweight(draws, target, flow)  # what is off in the learned score goes into the weights
    share = np.asarray(jax.nn.softmax(weighted.log_weights.ravel()))
    print(f"weights: effective share {1 / np.sum(share**2) / share.size:.2f}")
    # --8<-- [end:weights]


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
