"""Learning a score from draws: the fit, its record, bounds, targets' gradients, conditions, batches, interruptions.

Run it as `python examples/training_a_score.py [--quick]`.
"""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss


def simulate(rng, num):
    """A rate between 0 and 1, and a waiting time that is long where the rate is small."""
    rate = rng.beta(2.0, 3.0, size=num)
    return {"rate": rate, "wait": rng.gamma(3.0, size=num) / (0.2 + rate)}


def main(quick: bool) -> None:
    num, epochs = (1000, 30) if quick else (10_000, 300)
    key_fit, key_draws, key_again = jax.random.split(jax.random.key(0), 3)
    # --8<-- [start:fit]
    data = simulate(np.random.default_rng(0), num)
    score = ss.fit_score(
        data,
        key=key_fit,
        support={"rate": (0.0, 1.0), "wait": (0.0, None)},
        num_epochs=epochs,
    )
    print(score.record)
    print("held-out loss by noise level:", score.record.loss_by_level.round(2))
    # --8<-- [end:fit]

    # --8<-- [start:sample]
    draws = ss.sample(score, ss.ReverseSDE(), key=key_draws, num_samples=num // 4)
    sites = draws.sites()  # in the bounded coordinates
    print("rates between", sites["rate"].min(), "and", sites["rate"].max())
    fresh = simulate(np.random.default_rng(1), num)
    for name, values in fresh.items():
        print(f"{name}: mean {np.mean(sites[name]):.3f} (data {values.mean():.3f}), sd {np.std(sites[name]):.3f}"
              f" (data {values.std():.3f})")  # fmt: skip
    # --8<-- [end:sample]

    # --8<-- [start:target]
    target = ss.GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], jnp.stack([jnp.eye(2)] * 2))
    pilot = ss.exact_draws(target, key=key_again, num_samples=num)
    gradients = jax.vmap(jax.vmap(target))(pilot.position)  # the target's own score at every draw
    informed = ss.fit_score(pilot, scores=gradients, key=key_fit, num_epochs=epochs // 3)
    print(informed.record)
    # --8<-- [end:target]

    # --8<-- [start:conditional]
    rates = ss.fit_score(
        data["rate"],
        conditions=np.log(data["wait"]),
        key=key_fit,
        support=(0.0, 1.0),
        num_epochs=epochs // 3,
    )
    for wait in (2.0, 12.0):
        one = ss.sample(rates.given(np.log(wait)), key=key_draws, num_samples=num // 4)
        near = np.abs(np.log(data["wait"] / wait)) < 0.1
        print(f"rate after a wait of {wait:g}: mean {one.sites()['x'].mean():.3f}, data near it "
              f"{data['rate'][near].mean():.3f}")  # fmt: skip
    waits = fresh["wait"][:100]  # one condition for each particle
    each = ss.sample(rates.given(np.log(waits)), key=key_draws, num_samples=100, num_chains=1)
    print("correlation of rates and waits:", np.corrcoef(each.sites()["x"].ravel(), np.log(waits))[0, 1].round(2))
    # --8<-- [end:conditional]

    # --8<-- [start:stream]
    def batches():
        """Simulations one batch after another, always in the same order."""
        rng = np.random.default_rng(2)
        return (np.log(simulate(rng, 100)["wait"])[:, None] for _ in range(num // 100))

    with tempfile.TemporaryDirectory() as folder:
        settings = {"key": key_fit, "buffer_size": num // 2, "num_epochs": epochs // 10}
        # Interrupt this, run it again, and it goes on where it was, to the same bits.
        streamed = ss.fit_score(batches, checkpoint=Path(folder) / "run", **settings)
    print(streamed.record)
    # --8<-- [end:stream]


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
