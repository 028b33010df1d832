"""Annealing and predictor-corrector: why levels, which corrector, and weights that give the evidence of a model.

Run it as `python examples/annealing_and_predictor_corrector.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.stats import multivariate_normal

import scoresample as ss
from scoresample.diagnostics import draws_mode_weights, kish_ess, normalized_weights

MODES = jnp.array([[-3.0, 0.0], [3.0, 0.0]])


# --8<-- [start:model]
def model(x, y):
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ slope, 0.5), obs=y)


# --8<-- [end:model]


def cold_and_annealed(quick, key):
    """The share of the draws in the lighter of two modes, with and without levels."""
    num, epochs, particles = (1000, 15, 250) if quick else (10_000, 60, 1000)
    key_data, key_fit, key_starts, *keys = jax.random.split(key, 8)
    # --8<-- [start:cold]
    target = ss.GaussianMixture([0.2, 0.8], MODES, 0.25)
    data = ss.exact_draws(target, key=key_data, num_samples=num)
    score = ss.fit_score(data, key=key_fit, num_epochs=epochs, width=64, depth=2)
    starts = 5.0 * jax.random.normal(key_starts, (particles, 2))
    runs = {
        "Langevin, cold start": ss.sample(
            score.at(0.01),  # hardly any noise
            ss.ULA(step_size=0.05),
            key=keys[0],
            num_chains=particles,
            initial_position=starts,
            num_warmup=499,
            num_samples=1,
        ),
        "predictor-corrector": ss.sample(score, ss.PredictorCorrector(num_steps=50), key=keys[1]),
        "annealed, 100 x 5": ss.sample(score, ss.AnnealedLangevin(), key=keys[2]),
        "restart": ss.sample(
            score, ss.ReverseSDE(num_steps=18, solver=ss.Restart(high=3.0), grid="karras"), key=keys[3]
        ),
    }
    # --8<-- [end:cold]
    shares = {}
    for name, draws in runs.items():
        found = draws_mode_weights(draws, np.asarray(MODES))
        distance = jnp.linalg.norm(draws.position[..., None, :] - MODES, axis=-1).min(axis=-1)
        share = float(found.fractions[0])
        shares[name] = share, float(np.sqrt(share * (1 - share) / distance.size))
        far = float(jnp.mean(distance > 2.0))
        evaluations = draws.info["num_evaluations"] / draws.num_chains / draws.num_draws
        share, error = shares[name]
        print(
            f"{name:22} share {share:.3f} +- {error:.3f}, far from both modes {far:.1%}, {evaluations:.0f} evaluations"
        )
    return shares


def variance_ratios(quick, key):
    """Variances at one level over the truth, in its narrow and in its wide directions, by corrector and step."""
    num = 250 if quick else 2500
    # --8<-- [start:correctors]
    variances = jnp.concatenate([jnp.full(10, 1e-4), jnp.ones(10)])  # ten narrow directions, and ten wide ones
    path = ss.perturb(ss.Gaussian(jnp.zeros(20), variances), ss.VP())
    t = float(path.process.time(jnp.log(1 / 0.3)))  # the level with sigma/alpha = 0.3

    def ratios(corrector, step_size, steps):
        """Start in the law of the level, move, and look at the variances."""
        sampler = ss.AnnealedLangevin(
            num_levels=2,
            ladder=(1.0001 * t, t),
            steps_per_level=(1, steps),
            step_size=step_size,
            corrector=corrector,
            denoise=False,
        )
        draws = ss.sample(path, sampler, key=key, num_samples=num)
        found = jnp.mean(draws.position**2, axis=(0, 1)) / (variances + 0.3**2)
        return float(found[:10].mean()), float(found[10:].mean()), draws

    # --8<-- [end:correctors]
    correctors = {
        "langevin": ("langevin", 100),
        "underdamped": ("underdamped", 100),
        "metropolis": ("metropolis", 50),
        "HMC": (ss.HMC(step_size=1.0, num_integration_steps=5), 20),
    }
    sizes = (0.2,) if quick else (0.05, 0.2, 0.5, 1.0)
    table = {}
    for name, (corrector, steps) in correctors.items():
        for size in sizes:
            narrow, wide, draws = ratios(corrector, size, steps)
            accepted = draws.info.get("acceptance_rate")
            rate = "" if accepted is None else f", {float(accepted[0, -1]):.0%} accepted"
            print(f"{name:12} c = {size:<4}  narrow {narrow:.3f}  wide {wide:.3f}  {draws.nfe:.0f} NFE{rate}")
            table[name, size] = narrow
    return table


def evidence(quick, key):
    """The evidence of a linear regression, beside its closed form."""
    num = 250 if quick else 1000
    key_x, key_y, key_run = jax.random.split(key, 3)
    # --8<-- [start:evidence]
    x = jax.random.normal(key_x, (20, 3))
    y = x @ jnp.array([1.0, -0.5, 2.0]) + 0.5 * jax.random.normal(key_y, (20,))
    prior = ss.Gaussian({"slope": jnp.zeros(3)}, 4.0)
    path = ss.TemperedPath(prior, ss.from_numpyro(model, (x, y)))
    sampler = ss.AnnealedLangevin(num_levels=50, weights=True)
    draws = ss.sample(path, sampler, key=key_run, num_samples=num)

    truth = multivariate_normal.logpdf(y, jnp.zeros(20), 4.0 * x @ x.T + 0.25 * jnp.eye(20))
    weights = normalized_weights(draws)
    size = kish_ess(weights)
    print(f"log evidence {draws.info['log_z']:.3f} +- {draws.info['log_z_se']:.3f}, truth {truth:.3f}")
    print(f"{draws.num_draws * draws.num_chains} particles, worth {size:.0f}")
    print(f"divergence between levels: {draws.info['warm_start_divergence'][0, 0]:.4f} nats")
    # --8<-- [end:evidence]


def picture(table, shares, out):
    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1, 1.1), layout="constrained")
    names = list(dict.fromkeys(name for name, _ in table))
    for name, colour in zip(names, ("#D55E00", "#E69F00", "#0072B2", "#009E73"), strict=True):
        sizes = [size for other, size in table if other == name]
        left.plot(sizes, [table[name, size] for size in sizes], "o-", color=colour, label=name, ms=5)
    left.axhline(1.0, color="0.7", lw=1, zorder=0)
    left.set(xscale="log", xlabel="step, relative to 1/L", title="Variance over the truth, narrow directions")
    left.set_xticks((0.05, 0.2, 0.5, 1.0), ("0.05", "0.2", "0.5", "1"))
    left.minorticks_off()
    left.legend(frameon=False)
    places = np.arange(len(shares))
    right.barh(places, [share for share, _ in shares.values()], 0.6, color="#9CC4E4",
               xerr=[2 * error for _, error in shares.values()])  # fmt: skip
    right.axvline(0.2, color="#D55E00", lw=2, label="truth")
    right.set_yticks(places, list(shares))
    right.invert_yaxis()
    right.set(title="Share of the draws in the lighter mode", xlim=(0, 0.6))
    right.legend(frameon=False, loc="lower right")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "annealing.png", dpi=110)


def main(quick: bool, out: Path) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    table = variance_ratios(quick, keys[0])
    evidence(quick, keys[1])
    shares = cold_and_annealed(quick, keys[2])
    picture(table, shares, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", type=Path, help="folder to write to: docs/images, or with --quick a temporary one")
    options = parser.parse_args()
    kept = Path(__file__).parents[1] / "docs" / "images"
    main(options.quick, options.out or (Path(tempfile.mkdtemp()) if options.quick else kept))
