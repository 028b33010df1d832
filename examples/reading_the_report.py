"""A report with something wrong in it: a good run, chains stuck in their modes, and a ladder with too few levels.

Run it as `python examples/reading_the_report.py [--quick] [--out FILE]`.
"""

import argparse

import jax
import jax.numpy as jnp

import scoresample as ss


def main(num_samples: int, out: str) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    # --8<-- [start:runs]
    means, weights = jnp.array([[-4.0, 0.0], [0.0, 4.0], [4.0, 0.0]]), jnp.array([0.2, 0.3, 0.5])
    target = ss.GaussianMixture(weights, means, 0.4)
    path = ss.perturb(target, ss.VP())
    starts = jnp.array([[-4.0, 1.0], [0.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    runs = {
        "NUTS": ss.sample(target, ss.NUTS(), key=keys[0], num_samples=num_samples, initial_position=starts),
        "reverse SDE": ss.sample(path, ss.ReverseSDE(), key=keys[1], num_samples=num_samples),
        "short ladder": ss.sample(path, ss.AnnealedLangevin(num_levels=8), key=keys[2], num_samples=num_samples),
    }
    # --8<-- [end:runs]
    # --8<-- [start:compare]
    runs["exact draws"] = ss.exact_draws(target, key=keys[3], num_samples=4 * num_samples)
    comparison = ss.compare(runs, reference="exact draws", modes=means, mode_weights=weights, title="Three modes")
    print(comparison)
    comparison.save(out)
    # --8<-- [end:compare]
    # --8<-- [start:checks]
    for name, verdict in comparison.verdicts.items():
        print(f"\n{name}: {verdict.level}")
        for check in verdict.checks:
            outcome = "ok" if check.passed else check.severity
            print(f"  {outcome:4}  {check.name}: {check.value:.4g} (limit {check.threshold:.4g})")
    # --8<-- [end:checks]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", default="report/reading_the_report.html", help="where to write the report")
    options = parser.parse_args()
    main(500 if options.quick else 2000, options.out)
