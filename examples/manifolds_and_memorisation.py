"""Manifolds and memorisation: do draws lie where data lie, and are they new?

Run it as `python examples/manifolds_and_memorisation.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss


def torus(key: jax.Array, num: int) -> jax.Array:
    """Points on a two-dimensional surface in six dimensions."""
    a, b = jax.random.normal(key, (2, num)) + jax.random.uniform(key, (2, num)) * 3
    turns = jnp.stack([a, b, a + b], axis=1)
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.cos(turns), jnp.sin(turns)], axis=1)


def main(out: Path, *, quick: bool) -> None:
    keys = jax.random.split(jax.random.key(0), 12)
    epochs, num, held = (100, 500, 2500) if quick else (1500, 2000, 4000)
    # --8<-- [start:data]
    training, held_out = torus(keys[0], 1000), torus(keys[1], held)
    scores = {
        "network": ss.fit_score(training, key=keys[2], num_epochs=epochs, sigma_range=(0.01, 20.0)),
        "the points": ss.perturb(training, ss.VP()),
        "the points, smoothed": ss.perturb(training, ss.VP(), bandwidth="spacing"),
    }
    # --8<-- [end:data]

    # --8<-- [start:draws]
    runs, copies = {}, {}
    for key, (name, score) in zip(keys[3:], scores.items(), strict=False):
        runs[name] = ss.sample(score, ss.ReverseSDE(), key=key, num_samples=num, num_chains=1)
        copies[name] = ss.memorisation(runs[name], training, held_out)
        print(f"{name}: {copies[name].meaning}")
    # --8<-- [end:draws]

    # --8<-- [start:manifold]
    manifolds = {
        name: ss.manifold_health(scores[name], held_out, training=training, key=keys[6])
        for name in ("network", "the points")
    }
    print(manifolds["the points"])
    # --8<-- [end:manifold]

    # --8<-- [start:stop]
    points = scores["the points"]
    for share in (0.1, 0.3, 1.0, 3.0):
        sampler = ss.ReverseSDE(delta=float(share * points.spacing) ** 2)
        draws = ss.sample(points, sampler, key=keys[7], num_samples=num, num_chains=1)
        found = ss.memorisation(draws, training, held_out)
        print(f"noise left {share:g} spacings: {found.fraction:.0%} copies, nearest {found.distance_ratio:.2f} times")
    # --8<-- [end:stop]

    # --8<-- [start:labels]
    side = np.asarray(training[:, 0] > 0).astype(int)
    right = ss.perturb(training, ss.VP(), conditions=side, bandwidth="spacing").given(1)
    draws = ss.sample(right, ss.ReverseSDE(), key=keys[8], num_samples=num, num_chains=1)
    print(f"{np.mean(np.asarray(draws.position)[..., 0] > 0):.0%} on the right side")
    # --8<-- [end:labels]

    # --8<-- [start:report]
    reference = ss.sample(ss.perturb(held_out, ss.VP(), bandwidth=0.02), ss.ReverseSDE(), key=keys[9], num_samples=num)
    comparison = ss.compare({**runs, "held-out data": reference}, memorisation=copies, manifolds=manifolds)
    comparison.save(out / "report.html")
    print(comparison)
    # --8<-- [end:report]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.out or Path(folder), quick=options.quick)
