"""A long HMC run on the two-dimensional lattice phi^4 model near its transition: fields, observables and their errors.

What learned scores of these fields are held against: Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003, and
Guth, Lempereur, Bruna and Mallat 2023, arXiv 2306.00181, with lam = 1 and their beta = 2 kappa. Run as
`python -m examples.papers.phi4_reference [--quick] [--json FILE] [--cache FOLDER]`.

BlackJAX's HMC, with long trajectories: what is slow is the mean field, whose standard deviation near the transition
is some 20 of the units in which single sites move by a tenth a step. The sign of the mean field hardly ever changes
there, and need not. The density is the same at -phi, and HMC commutes with the flip, since momenta are symmetric. So
a chain whose fields are given independent signs afterwards has the law of a chain in which a flip, always accepted,
is proposed with probability one half after every trajectory: it leaves the target exactly invariant. Even observables
(|m|, the action, the two-point function) do not notice, and odd ones have the exact mean zero.

Standard errors are ArviZ's, from chains of each observable. Blocks of trajectories are kept in the cache folder, so an
interrupted run goes on. The exit status is 1 if a goal fails.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Array

import scoresample as ss
from scoresample.diagnostics import magnetisation, radial_spectrum, two_point_function
from tests.benchmarks.report import machine, table

KAPPAS = (0.32, 0.34, 0.36)
CRITICAL_RATIO = 1.1679229
"""<m^4>/<m^2>^2 at the transition of the Ising class on large square lattices."""
PUBLISHED: dict[int, tuple[float, float]] = {16: (0.6097694, 1.394495), 32: (0.6071420, 1.261811)}
"""For lam = .1 and a lattice of L x L: the beta at which <m^4>/<m^2>^2 is that ratio, and L^2 <m^2> / L^(7/4) there.

Source: Kaupuzs and Melnik 2025, Commun. Theor. Phys. 77, 065601, table 1; the standard errors are below .0001.
"""
PUBLISHED_LAM = 0.1
MOST_ERRORS, MOST_R_HAT = 5.0, 1.05


@dataclass(frozen=True)
class Setting:
    """How long the chains are, and how they move.

    Attributes:
        num_chains: from independent starts, each in either phase.
        step_size: of the leapfrog integrator.
        num_integration_steps: leapfrog steps, or score evaluations, of a trajectory.
        num_burn_in: trajectories that are left out.
        num_blocks: blocks that are kept.
        block_length: trajectories of a block.
        thinning: one field in so many trajectories is kept for training; observables are of every one.
    """

    num_chains: int = 16
    step_size: float = 0.09
    num_integration_steps: int = 200
    num_burn_in: int = 100
    num_blocks: int = 20
    block_length: int = 100
    thinning: int = 10

    def __post_init__(self) -> None:
        """Check that blocks hold whole numbers of fields."""
        if self.block_length % self.thinning or min(asdict(self).values()) <= 0:
            raise ValueError(f"`block_length` must be a multiple of `thinning`, and all settings positive, got {self}.")


QUICK = Setting(num_chains=10, step_size=0.11, num_integration_steps=120, num_burn_in=50, num_blocks=12)


@dataclass(frozen=True)
class Estimate:
    """An observable with ArviZ's standard error, and how far apart in the chains its values are independent.

    Attributes:
        value: the mean over all chains.
        standard_error: of that mean.
        steps: integrated autocorrelation time, in trajectories: draws over ArviZ's effective size.
        evaluations: the same in score evaluations.
        r_hat: ArviZ's rank-normalised split R-hat.
    """

    value: float
    standard_error: float
    steps: float
    evaluations: float
    r_hat: float


@dataclass(frozen=True)
class Reference:
    """What a long run found.

    Attributes:
        fields: (fields, H, W) thinned draws, with independent random signs.
        series: (chain, draw, ...) values of each observable, at every trajectory.
        estimates: the observables that are numbers.
        curves: value and standard error of the two-point function at each distance, and of the power in each ring.
        wavenumbers: of those rings.
        acceptance: mean acceptance rate.
        num_evaluations: score evaluations of the blocks, without the burn-in.
        seconds: wall clock of the blocks when they were run, compilation not included.
    """

    fields: np.ndarray
    series: dict[str, np.ndarray]
    estimates: dict[str, Estimate]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    wavenumbers: np.ndarray
    acceptance: float
    num_evaluations: int
    seconds: float


# ---------------------------------------------------------------------------------------------------------------------
# Chains
# ---------------------------------------------------------------------------------------------------------------------


@eqx.filter_jit
def _stein(target: ss.LatticePhi4, fields: Array) -> Array:
    """The mean over sites of ``phi_x dS/dphi_x``, whose expectation is one."""
    scores = jax.vmap(jax.vmap(target))(fields)
    return -jnp.mean(fields * scores, axis=tuple(range(2, fields.ndim)))


def observables(target: ss.LatticePhi4, fields: Array) -> dict[str, np.ndarray]:
    """The observables of fields (chain, draw, H, W), each (chain, draw) or with one more axis."""
    m = magnetisation(fields)
    return {
        "m": m,
        "|m|": np.abs(m),
        "m^2": m**2,
        "m^4": m**4,
        "phi^2": np.mean(np.asarray(fields, np.float64) ** 2, axis=(2, 3)),
        "action per site": np.asarray(target.action_density(fields), np.float64),
        "phi dS/dphi": np.asarray(_stein(target, fields), np.float64),
        "two-point function": two_point_function(fields),
        "spectrum": radial_spectrum(fields)[1],
    }


def _block(
    target: ss.LatticePhi4, setting: Setting, start: np.ndarray | None, num_samples: int, key: Array
) -> dict[str, np.ndarray]:
    """Some trajectories of all chains: observables, thinned fields and where the chains end."""
    sampler = ss.HMC(num_integration_steps=setting.num_integration_steps, step_size=setting.step_size)
    draws = ss.sample(
        target, sampler, key=key, num_samples=num_samples, num_chains=setting.num_chains, num_warmup=0,
        initial_position=start, progress=False,
    )  # fmt: skip
    fields = jnp.asarray(draws.position)
    return {
        **observables(target, fields),
        "acceptance": np.asarray(draws.stats["acceptance_rate"], np.float64),
        "seconds": np.asarray(draws.seconds - draws.info["compile_seconds"]),
        "fields": np.asarray(fields[:, setting.thinning - 1 :: setting.thinning]),
        "end": np.asarray(fields[:, -1]),
    }


def _kept(path: Path | None, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a file; made and written if it is not there yet, all at once or not at all."""
    if path is not None and path.exists():
        with np.load(path) as found:
            return dict(found)
    arrays = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, allow_pickle=False, **arrays)
        os.replace(unfinished, path)
    return arrays


def name_of(target: ss.LatticePhi4, key: Array, setting: Setting) -> str:
    """A folder's name for a target, a key and a setting; the number of blocks may be raised later."""
    said = {**asdict(setting), "num_blocks": 0, "lam": float(target.lam), "key": jax.random.key_data(key).tolist()}
    shape = "x".join(map(str, target.structure.shape))
    code = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    return f"phi4_{shape}_kappa{float(target.kappa):.7g}_{code}"


def hmc_reference(
    target: ss.LatticePhi4, key: Array, *, setting: Setting | None = None, cache: Path | None = None
) -> Reference:
    """A long HMC run on a two-dimensional model: fields for training, and observables with their errors.

    Arguments:
        target: the model.
        key: random key. The same key and setting give the same draws, interrupted or not.
        setting: how long the chains are; by default what suits 32 x 32 sites near the transition.
        cache: where blocks are kept; nothing is kept if None.

    Returns:
        The `Reference`. Its fields have independent random signs, which the symmetry of the model makes exact.
    """
    setting = Setting() if setting is None else setting
    folder = None if cache is None else cache / name_of(target, key, setting)
    key_signs, key_chains = jax.random.split(key)

    def run(name: str, number: int, start: np.ndarray | None, length: int) -> dict[str, np.ndarray]:
        return _kept(
            None if folder is None else folder / f"{name}.npz",
            lambda: _block(target, setting, start, length, jax.random.fold_in(key_chains, number)),
        )

    burnt = run("burn-in", 0, None, setting.num_burn_in)
    end, blocks = burnt["end"], []
    for number in range(1, setting.num_blocks + 1):
        blocks.append(run(f"block{number:04d}", number, end, setting.block_length))
        end = blocks[-1].pop("end")
    series = {
        name: np.concatenate([block[name] for block in blocks], axis=1)
        for name in blocks[0]
        if name not in ("fields", "seconds")
    }
    fields = np.concatenate([block["fields"] for block in blocks], axis=1)
    fields = fields.reshape(-1, *fields.shape[2:])
    signs = np.asarray(jax.random.rademacher(key_signs, (len(fields), 1, 1), fields.dtype))
    return Reference(
        fields=fields * signs,
        series=series,
        estimates=estimates(series, target.structure.size, setting.num_integration_steps),
        curves={name: _mean_and_error(series[name]) for name in ("two-point function", "spectrum")},
        wavenumbers=radial_spectrum(fields[:1])[0],
        acceptance=float(series["acceptance"].mean()),
        num_evaluations=series["m"].size * setting.num_integration_steps,
        seconds=float(sum(block["seconds"] for block in blocks)),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Estimates
# ---------------------------------------------------------------------------------------------------------------------


def _statistic(statistic: Callable[..., object], values: np.ndarray, **settings: str) -> float:
    """One of ArviZ's numbers of (chain, draw) values."""
    return float(np.asarray(statistic(values, **settings)))


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    errors = [_statistic(array_stats.mcse, values[..., k], method="mean") for k in range(values.shape[-1])]
    return values.mean(axis=(0, 1)), np.array(errors)


def estimate(values: np.ndarray, value: float, evaluations: int) -> Estimate:
    """From the (chain, draw) values whose mean is, to first order in its error, what is estimated."""
    steps = values.size / _statistic(array_stats.ess, values, method="mean")
    return Estimate(
        value=value,
        standard_error=_statistic(array_stats.mcse, values, method="mean"),
        steps=steps,
        evaluations=steps * evaluations,
        r_hat=_statistic(array_stats.rhat, values),
    )


def estimates(series: dict[str, np.ndarray], num_sites: int, evaluations: int) -> dict[str, Estimate]:
    """The observables that are numbers. Ratios and squares of means have the errors of their linearisations."""
    found = {
        name: estimate(series[name], float(series[name].mean()), evaluations)
        for name in ("|m|", "phi^2", "action per site", "phi dS/dphi")
    }
    size, square, fourth = (series[name] for name in ("|m|", "m^2", "m^4"))
    mean, second, ratio = size.mean(), square.mean(), fourth.mean() / square.mean() ** 2
    derived = {
        "susceptibility": (num_sites * square, num_sites * second),
        "connected susceptibility": (
            num_sites * (square - 2 * mean * size), num_sites * (second - mean**2),
        ),
        "<m^4>/<m^2>^2": (fourth / second**2 - 2 * ratio * square / second, ratio),
        "Binder cumulant": (-(fourth / second**2 - 2 * ratio * square / second) / 3, 1 - ratio / 3),
    }  # fmt: skip
    return found | {name: estimate(values, float(value), evaluations) for name, (values, value) in derived.items()}


# ---------------------------------------------------------------------------------------------------------------------
# The tables
# ---------------------------------------------------------------------------------------------------------------------


def with_error(value: float, error: float) -> str:
    """A number with one standard error in units of its last digits: ``0.6012(23)``."""
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 6
    return f"{value:.{digits}f}({round(error * 10**digits)})"


def sign_changes(reference: Reference) -> float:
    """How often the sign of the mean field changed in a thousand trajectories, without our signs."""
    return 1000 * float(np.mean(np.diff(np.sign(reference.series["m"]), axis=1) != 0))


def run_all(
    setting: Setting, length: int, cache: Path | None
) -> tuple[dict[float, Reference], Reference, tuple[float, float]]:
    """The reference at each kappa with lam = 1, and the run at the published coupling."""
    found = {}
    for number, kappa in enumerate(KAPPAS):
        started = time.perf_counter()
        target = ss.LatticePhi4((length, length), kappa)
        found[kappa] = hmc_reference(target, jax.random.key(number), setting=setting, cache=cache)
        print(f"kappa={kappa}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    beta, susceptibility = PUBLISHED[length]
    target = ss.LatticePhi4((length, length), beta / 2, PUBLISHED_LAM)
    control = hmc_reference(target, jax.random.key(len(KAPPAS)), setting=setting, cache=cache)
    return found, control, (susceptibility * length**-0.25 * length**2, CRITICAL_RATIO)


def report(
    found: dict[float, Reference], control: Reference, expected: tuple[float, float], setting: Setting, length: int
) -> tuple[list[str], list[str]]:
    """The parts of the report, and the goals that were missed."""
    missed = []
    names = list(next(iter(found.values())).estimates)
    rows = [
        [name, *[with_error(e.value, e.standard_error) for e in (r.estimates[name] for r in found.values())]]
        for name in names
    ]
    header = ["mean and standard error", *[f"kappa = {kappa:g}" for kappa in found]]
    times = [
        [name, *[f"{e.steps:.1f} / {e.evaluations:.0f}" for e in (r.estimates[name] for r in found.values())]]
        for name in ("|m|", "susceptibility", "action per site", "phi^2")
    ]
    times += [
        ["acceptance rate", *[f"{r.acceptance:.2f}" for r in found.values()]],
        ["changes of sign in 1000", *[f"{sign_changes(r):.1f}" for r in found.values()]],
        ["largest R-hat", *[f"{max(e.r_hat for e in r.estimates.values()):.3f}" for r in found.values()]],
        ["evaluations, millions", *[f"{r.num_evaluations / 1e6:.1f}" for r in found.values()]],
        ["microseconds an evaluation", *[f"{1e6 * r.seconds / r.num_evaluations:.1f}" for r in found.values()]],
    ]
    checks = []
    for kappa, reference in found.items():
        identity = reference.estimates["phi dS/dphi"]
        checks.append((f"phi dS/dphi at kappa = {kappa:g}", identity, 1.0))
        for name, each in reference.estimates.items():
            if not each.r_hat <= MOST_R_HAT:
                missed.append(f"R-hat of {name} at kappa={kappa:g} is {each.r_hat:.3f}, beyond {MOST_R_HAT:g}")
    for name, value in zip(("susceptibility", "<m^4>/<m^2>^2"), expected, strict=True):
        checks.append((f"{name}, lam = {PUBLISHED_LAM:g}, published", control.estimates[name], value))
    lines = []
    for name, each, value in checks:
        z = (each.value - value) / each.standard_error
        lines.append([name, with_error(each.value, each.standard_error), f"{value:.6g}", f"{z:+.1f}"])
        if not abs(z) < MOST_ERRORS:
            missed.append(f"{name}: {each.value:.5g}, should be {value:.6g}")
    return [
        f"Fields on {length} x {length} sites, lam = 1: {setting.num_chains} chains of "
        f"{setting.num_blocks * setting.block_length} trajectories of {setting.num_integration_steps} steps of "
        f"{setting.step_size:g}, after {setting.num_burn_in} that are left out.",
        table(header, rows),
        "Integrated autocorrelation times, in trajectories / score evaluations, and what the chains cost:",
        table([header[0].replace("mean and standard error", "of"), *header[1:]], times),
        "Against what is known:",
        table(["", "found", "known", "z"], lines),
    ], missed


def main() -> int:
    """Run the chains, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 x 16 sites and short chains")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "scoresample-papers")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    setting, length = (QUICK, 16) if options.quick else (Setting(), 32)
    found, control, expected = run_all(setting, length, options.cache)
    parts, missed = report(found, control, expected, setting, length)
    print("\n\n".join([*parts, machine()]))
    if options.json:
        written = {
            f"{kappa:g}": {name: asdict(each) for name, each in reference.estimates.items()}
            for kappa, reference in found.items()
        }
        options.json.write_text(json.dumps(written))
    for name in missed:
        print("missed:", name, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
