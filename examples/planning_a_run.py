"""Planning a run: steps before sampling, from bounds; a budget of what was run; and ladders of noise levels.

Run it as `python examples/planning_a_run.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss


def main(quick: bool, out: Path) -> None:
    num = 500 if quick else 4000
    keys = jax.random.split(jax.random.key(0), 12)
    # --8<-- [start:plan]
    plan = ss.plan((10, 1.0), error=0.1)
    print(plan)
    # --8<-- [end:plan]

    # --8<-- [start:figure]
    smooth = ss.plan((10, 1.0), error=0.1, log_sobolev=2.0, lipschitz=1.0)
    out.mkdir(parents=True, exist_ok=True)
    smooth.figure().savefig(out / "plan-log-sobolev.png", dpi=110)
    # --8<-- [end:figure]
    print(f"\n{str(smooth).splitlines()[-1]}")
    for error in (1.0, 0.1, 0.01):
        print(error, [ss.plan((dim, 1.0), error=error).num_steps for dim in (1, 10, 100)])

    # --8<-- [start:target]
    covariance = jnp.array([[1.0, 0.6], [0.6, 0.5]])
    target = ss.GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], jnp.stack([covariance, covariance]))
    path = ss.perturb(target, ss.VP())
    held_out = ss.exact_draws(target, key=keys[0], num_samples=num)
    # --8<-- [end:target]

    # --8<-- [start:constants]
    for level in (0.0, 0.05):
        bounds = ss.log_sobolev_bounds(path.at(level), ss.sample(path.at(level), ss.ULA(), key=keys[1]) if 0 else held_out)
        print(bounds)
    # --8<-- [end:constants]

    # --8<-- [start:run]
    plan = ss.plan(path, error=0.5)
    planned = plan.sampler(path)
    short = ss.ReverseSDE(num_steps=50, solver="ddpm", denoise=False)
    runs = {
        "planned": ss.sample(path, planned, key=keys[2], num_samples=num),
        "50 steps": ss.sample(path, short, key=keys[3], num_samples=num),
    }
    # --8<-- [end:run]
    print(plan)
    # --8<-- [start:budget]
    budgets = {
        "planned": ss.sampling_budget(path, planned, held_out, key=keys[4]),
        "50 steps": ss.sampling_budget(path, short, held_out, key=keys[5]),
    }
    print(budgets["50 steps"])
    comparison = ss.compare(runs, reference=held_out, budgets=budgets)
    print(comparison)
    # --8<-- [end:budget]
    comparison.save(out / "report.html")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", type=Path, help="folder to write to, by default a temporary one")
    options = parser.parse_args()
    main(options.quick, options.out or Path(tempfile.mkdtemp()))
