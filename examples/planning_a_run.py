"""Planning a run: the steps that a wanted accuracy takes, what a run is off by at most, and ladders of noise levels.

Run it as `python examples/planning_a_run.py [--quick] [--out FOLDER]`.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp

import scoresample as ss


def before(out: Path) -> None:
    # --8<-- [start:plan]
    plan = ss.plan((10, 1.0), error=0.1)
    print(plan)
    # --8<-- [end:plan]

    # --8<-- [start:learned]
    print(ss.plan((10, 1.0), error=0.1, score_error=1e-3))
    try:
        ss.plan((10, 1.0), error=0.1, score_error=1e-2)
    except ValueError as problem:
        print(problem)
    # --8<-- [end:learned]

    # --8<-- [start:figure]
    smooth = ss.plan((10, 1.0), error=0.1, log_sobolev=2.0, lipschitz=1.0)
    figure = smooth.figure()
    # --8<-- [end:figure]
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "plan-log-sobolev.png", dpi=110, facecolor="white")
    print(str(smooth).splitlines()[-1])


def after(num: int, out: Path) -> None:
    keys = jax.random.split(jax.random.key(0), 7)
    # --8<-- [start:target]
    covariance = jnp.array([[1.0, 0.6], [0.6, 0.5]])
    target = ss.GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], jnp.stack([covariance, covariance]))
    held_out = ss.exact_draws(target, key=keys[0], num_samples=num)
    path = ss.perturb(target, ss.VP())
    # --8<-- [end:target]

    # --8<-- [start:constant]
    one_mode = ss.Gaussian(jnp.zeros(2), covariance)
    print(ss.log_sobolev_bounds(one_mode, one_mode.sample(keys[1], 1000)))
    print(ss.log_sobolev_bounds(target, held_out))
    # --8<-- [end:constant]

    # --8<-- [start:run]
    planned = ss.plan(path, error=0.5).sampler(path)
    adapted = ss.loss_adaptive_grid(path, held_out, key=keys[2], num_steps=50)
    short = ss.ReverseSDE(num_steps=50, solver="ddpm", grid=adapted, denoise=False)
    samplers = {"planned": planned, "50 steps": short}
    runs, budgets = {}, {}
    for key, (name, sampler) in zip(keys[3:], samplers.items(), strict=False):
        key_draws, key_budget = jax.random.split(key)
        runs[name] = ss.sample(path, sampler, key=key_draws, num_samples=num)
        budgets[name] = ss.sampling_budget(path, sampler, held_out, key=key_budget, num_points=512)
    comparison = ss.compare(runs, reference=held_out, budgets=budgets)
    print(comparison)
    comparison.save(out / "report.html")
    # --8<-- [end:run]

    # --8<-- [start:warm]
    print(ss.warm_start(path, key=keys[5], num_levels=40))
    # --8<-- [end:warm]

    # --8<-- [start:steps]
    quick = ss.ReverseSDE(num_steps=20)  # a solver of order 2, which no plan covers
    print(ss.discretisation_error(path, quick, key=keys[6], num_samples=num).check())
    # --8<-- [end:steps]


def main(quick: bool, out: Path) -> None:
    before(out)
    after(500 if quick else 4000, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--out", type=Path, help="folder for the figure and the report, by default a temporary one")
    options = parser.parse_args()
    main(options.quick, options.out or Path(tempfile.mkdtemp()))
