"""Six samplers on a density with one mode and on one with two, with the same settings: who fails where, at what price.

Run it as `python examples/choosing_a_sampler.py [--quick]`.
"""

import sys

import jax
import jax.numpy as jnp

import scoresample as ss

# --8<-- [start:samplers]
SAMPLERS = {
    "NUTS": ss.NUTS(),
    "ULA": ss.ULA(step_size=0.05),
    "annealed Langevin": ss.AnnealedLangevin(),
    "predictor-corrector": ss.PredictorCorrector(),
    "reverse SDE": ss.ReverseSDE(),
    "probability flow": ss.ProbabilityFlowODE(),
}
# --8<-- [end:samplers]


def show(title, target, num_samples):
    key_exact, *keys = jax.random.split(jax.random.key(0), 1 + len(SAMPLERS))
    # --8<-- [start:run]
    exact = ss.exact_draws(target, key=key_exact, num_samples=4 * num_samples)
    path = ss.perturb(target, ss.VP())  # the scores of the target with noise added, known exactly here
    runs = {}
    for key, (name, sampler) in zip(keys, SAMPLERS.items(), strict=True):
        on = target if isinstance(sampler, ss.AbstractSampler) else path
        runs[name] = ss.sample(on, sampler, key=key, num_samples=num_samples)
    comparison = ss.compare(runs, reference=exact)
    # --8<-- [end:run]
    print(f"\n{title}\n{'-' * len(title)}")
    for name, draws in runs.items():
        total = draws.info["num_evaluations"] / draws.num_chains / draws.num_draws
        verdict = comparison.verdicts[name]
        print(f"{name:20} {draws.nfe:7.1f} NFE ({total:7.1f} with warm-up)  {verdict}")


def main(quick: bool) -> None:
    num_samples = 500 if quick else 2500
    covariance = jnp.array([[1.0, 0.6], [0.6, 0.5]])
    for title, distance in {"one mode": 0.0, "two modes, ten standard deviations apart": 5.0}.items():
        means = jnp.array([[-distance, 0.0], [distance, 0.0]])
        show(title, ss.GaussianMixture([0.3, 0.7], means, jnp.stack([covariance, covariance])), num_samples)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
