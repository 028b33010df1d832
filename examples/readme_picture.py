"""Draw the README's picture: NUTS chains that stay in their modes, beside draws of the reverse SDE.

Run it as `python examples/readme_picture.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import scoresample as ss
from scoresample.diagnostics import draws_mode_weights

CHAINS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")


def main(num_samples: int, out: Path) -> None:
    angles = 2 * jnp.pi * jnp.arange(8) / 8
    means = 6 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    weights = jnp.arange(1.0, 9.0) / 36
    target = ss.GaussianMixture(weights, means, 0.2)
    key_start, key_nuts, key_sde = jax.random.split(jax.random.key(0), 3)
    starts = 4 * jax.random.normal(key_start, (4, 2))
    nuts = ss.sample(target, ss.NUTS(), key=key_nuts, num_samples=num_samples, initial_position=starts)
    path = ss.perturb(target, ss.VP())
    sde = ss.sample(path, ss.ReverseSDE(), key=key_sde, num_samples=num_samples)

    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(10, 3.5), width_ratios=(1, 1, 1.25), layout="constrained"
    )
    for chain, colour in enumerate(CHAINS):
        left.plot(*nuts.position[chain].T, ".", ms=2, alpha=0.35, color=colour)
    left.scatter(*starts.T, marker="X", s=60, c=CHAINS, edgecolors="black", zorder=3)
    left.set_title("NUTS: four chains")
    middle.plot(*sde.position[0].T, ".", ms=2, alpha=0.35, color="#444444")
    middle.set_title("Reverse SDE: independent draws")
    for axes in (left, middle):
        axes.set(xlim=(-8.2, 8.2), ylim=(-8.2, 8.2), aspect="equal", xticks=(-6, 0, 6), yticks=(-6, 0, 6))
        for number, (x, y) in enumerate(means, start=1):
            axes.text(0.55 * x, 0.55 * y, str(number), ha="center", va="center", color="#777777")

    places = np.arange(1, 9)
    found = {"NUTS": (nuts, -0.2, "#9CC4E4"), "reverse SDE": (sde, 0.2, "#444444")}
    for name, (draws, offset, colour) in found.items():
        modes = draws_mode_weights(draws, np.asarray(means))
        print(name, np.round(modes.fractions, 3), f"nfe {draws.nfe:.0f}, {draws.seconds:.1f} s")
        right.bar(places + offset, modes.fractions, 0.38, color=colour, label=name)
    print("truth", np.round(np.asarray(weights), 3))
    right.hlines(weights, places - 0.42, places + 0.42, color="#D55E00", lw=2, label="truth")
    right.set(xticks=places, ylim=(0, 0.6), xlabel="mode", title="Share of the draws in each mode")
    right.legend(frameon=False, loc="upper left", ncols=3, columnspacing=1.2, handlelength=1.4)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "modes.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", type=Path, help="folder to write to: docs/images, or with --quick a temporary one")
    options = parser.parse_args()
    kept = Path(__file__).parents[1] / "docs" / "images"
    main(250 if options.quick else 1000, options.out or (Path(tempfile.mkdtemp()) if options.quick else kept))
