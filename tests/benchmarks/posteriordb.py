"""How far samplers are from the reference draws of posteriordb, at what cost, and whether their own checks notice.

Run it as `python -m tests.benchmarks.posteriordb --posteriordb PATH [--samplers nuts,mclmc] [--models arK,garch11]
[--out FOLDER] [--json FILE] [--quick]`, where PATH is a folder of posteriordb's posteriors.

Every sampler starts from the same key with its default settings. The moments of each of the reference's parameters are
held against those of its 10,000 draws. Where they are too far away, a check that needs no reference should have said
so. The exit status is 1 if NUTS misses a goal.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss
from scoresample.diagnostics import effective_sizes, normalized_weights, rank_r_hat
from scoresample.samplers import available_samplers
from tests.benchmarks.posteriordb_models import MODELS, parameters
from tests.benchmarks.report import against_goal, keep, table

MEAN_GOAL = 0.1
"""In standard deviations of the reference."""
SD_GOAL = 0.07
"""Distance of the ratio of standard deviations from one."""

SAMPLERS = ("nuts", "mclmc", "adjusted-mclmc", "tempered-smc")
SETTINGS: dict[str, dict[str, Any]] = {"mclmc": {"steps_per_draw": 10}}
"""What is not left at its default."""
NUM_CHAINS, NUM_SAMPLES, NUM_WARMUP = 4, 2_500, 1_000
NUM_PARTICLES = 2_000
PILOT_SAMPLES, INFLATION = 250, 4.0

QUICK_MODELS, QUICK_SAMPLERS = ("eight_schools", "kidscore_interaction"), ("nuts",)

STANDING_CAUTION = "compared with a trusted reference"
"""The check that warns of every sampler that is not exact or has no chains, whatever it drew."""


@dataclass(frozen=True)
class Row:
    """One sampler on one model.

    Attributes:
        model: the posterior's model.
        sampler: the sampler's name.
        mean_error: distance from the reference's mean in its standard deviations, by parameter.
        sd_ratio: standard deviation over the reference's, by parameter.
        evaluations: score evaluations, the warm-up's and the pilot run's among them.
        seconds: wall clock of the same, without compilation.
        ess: smallest effective sample size of a parameter.
        r_hat: largest R-hat of a parameter, or None without chains.
        divergences: number of divergent transitions, or None where there is no such record.
        flags: checks of the run by itself that it did not pass.
        cautioned: whether the caution that stands for this kind of sampler was given.
    """

    model: str
    sampler: str
    mean_error: dict[str, float]
    sd_ratio: dict[str, float]
    evaluations: int
    seconds: float
    ess: float
    r_hat: float | None
    divergences: int | None
    flags: tuple[str, ...]
    cautioned: bool

    @property
    def worst_mean(self) -> float:
        return float(np.max(list(self.mean_error.values())))

    @property
    def sd_range(self) -> tuple[float, float]:
        ratios = list(self.sd_ratio.values())
        return float(np.min(ratios)), float(np.max(ratios))

    @property
    def worst_sd(self) -> float:
        return float(np.max(np.abs(np.array(self.sd_range) - 1)))

    @property
    def met(self) -> bool:
        """Whether both goals are met; numbers that are not finite meet none."""
        return self.worst_mean <= MEAN_GOAL and self.worst_sd <= SD_GOAL

    @property
    def noticed(self) -> str:
        """Whether a miss was flagged."""
        if self.met:
            return "no miss"
        return "yes" if self.flags else "caution only" if self.cautioned else "**no**"

    def cells(self) -> list[str]:
        low, high = self.sd_range
        return [
            self.model,
            self.sampler,
            against_goal(self.worst_mean, MEAN_GOAL, f"{self.worst_mean:.3f}"),
            against_goal(self.worst_sd, SD_GOAL, f"{low:.3f} to {high:.3f}"),
            f"{self.evaluations:,}",
            f"{self.seconds:.1f}",
            f"{self.ess / self.seconds:,.0f}",
            "-" if self.r_hat is None else f"{self.r_hat:.3f}",
            "-" if self.divergences is None else f"{self.divergences:,}",
            "; ".join(self.flags) or "none",
            self.noticed,
        ]


HEADER = [
    "model",
    "sampler",
    "mean error",
    "sd ratio",
    "evaluations",
    "seconds",
    "ESS/s",
    "R-hat",
    "divergences",
    "flags",
    "miss flagged",
]


@dataclass(frozen=True)
class Start:
    """Where particles come from, and what it cost to find out."""

    reference: ss.Gaussian
    evaluations: int
    seconds: float


def seconds_of(draws: ss.Draws) -> float:
    """Wall clock without compilation."""
    return max(draws.seconds - draws.info["compile_seconds"], 1e-3)


def wide_gaussian(score: ss.DensityScore, key: Any) -> Start:
    """A normal density that covers the target: moments of a short run of NUTS, variances inflated."""
    pilot = ss.sample(
        score, ss.NUTS(), key=key, num_samples=PILOT_SAMPLES, num_chains=NUM_CHAINS, num_warmup=NUM_WARMUP
    )
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=(0, 1)), pilot.position)
    variance = jax.tree.map(lambda x: INFLATION * jnp.var(x, axis=(0, 1)), pilot.position)
    return Start(ss.Gaussian(mean, variance), pilot.info["num_evaluations"], seconds_of(pilot))


def measure(model: str, name: str, score: ss.DensityScore, reference: dict[str, np.ndarray], seed: int) -> Row:
    """Run one sampler on one model."""
    sampler = available_samplers()[name](**SETTINGS.get(name, {}))
    key_pilot, key = jax.random.split(jax.random.key(seed))
    target: Any = score
    evaluations, seconds, num_samples = 0, 0.0, NUM_SAMPLES
    if isinstance(sampler, ss.AbstractParticleSampler):
        start = wide_gaussian(score, key_pilot)
        target, evaluations, seconds = ss.TemperedPath(start.reference, score), start.evaluations, start.seconds
        num_samples = NUM_PARTICLES // NUM_CHAINS
    draws = ss.sample(
        target,
        sampler,
        key=key,
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        num_warmup=NUM_WARMUP,
        throw=False,
    )
    values, weights = parameters(draws, list(reference)), normalized_weights(draws)
    mean_error, sd_ratio = {}, {}
    for parameter, truth in reference.items():
        value = values[parameter].reshape(-1)
        mean = np.average(value, weights=weights)
        sd = np.sqrt(np.average((value - mean) ** 2, weights=weights))
        mean_error[parameter] = float(abs(mean - truth.mean()) / truth.std())
        sd_ratio[parameter] = float(sd / truth.std())
    missed = [check for check in ss.compare({name: draws}).checks[name] if not check.passed]
    severity = {"fail": "failed", "warn": "warning"}
    return Row(
        model=model,
        sampler=name,
        mean_error=mean_error,
        sd_ratio=sd_ratio,
        evaluations=evaluations + draws.info["num_evaluations"],
        seconds=seconds + seconds_of(draws),
        ess=float(np.min(list(effective_sizes(draws, values).values()))),
        r_hat=float(np.max([rank_r_hat(value) for value in values.values()])) if draws.kind == "chains" else None,
        divergences=int(draws.stats["diverging"].sum()) if "diverging" in draws.stats else None,
        flags=tuple(
            f"{check.name.replace(', worst of all quantities', '')}: {check.value:.3g}, {severity[check.severity]}"
            for check in missed
            if check.name != STANDING_CAUTION
        ),
        cautioned=any(check.name == STANDING_CAUTION for check in missed),
    )


def chosen(
    parser: argparse.ArgumentParser, what: str, text: str | None, known: list[str], default: list[str]
) -> list[str]:
    """The names in a list with commas, all of them known."""
    names = default if text is None else [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        parser.error(f"--{what}: {', '.join(unknown) or 'no name was given'}; there are {', '.join(known)}")
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--posteriordb", type=Path, required=True, metavar="PATH", help="folder of posteriors")
    parser.add_argument("--samplers", help=f"names with commas between them; by default {','.join(SAMPLERS)}")
    parser.add_argument("--models", help=f"names with commas between them; by default all: {','.join(MODELS)}")
    parser.add_argument("--out", type=Path, help="folder for the page, instead of the documentation's")
    parser.add_argument("--json", type=Path, help="file for all figures, parameter by parameter")
    parser.add_argument("--quick", action="store_true", help="NUTS on two models, unless others are named")
    parser.add_argument("--seed", type=int, default=0, help="of the random key")
    options = parser.parse_args()
    if not options.posteriordb.is_dir():
        parser.error(f"--posteriordb: there is no folder {options.posteriordb}")
    known = list(available_samplers())
    existing = [name for name in (QUICK_SAMPLERS if options.quick else SAMPLERS) if name in known]
    samplers = chosen(parser, "samplers", options.samplers, known, existing)
    models = chosen(parser, "models", options.models, list(MODELS), list(QUICK_MODELS if options.quick else MODELS))

    rows: list[Row] = []
    for model in models:
        posterior = MODELS[model]
        score, reference = posterior.score(options.posteriordb), posterior.reference(options.posteriordb)
        for name in samplers:
            rows.append(measure(model, name, score, reference, options.seed))
            print(rows[-1].cells(), flush=True)
        jax.clear_caches()
    lines = table(HEADER, [row.cells() for row in rows])
    # A page of a part of the table would take the place of the whole in the documentation.
    if options.out is None and (options.quick or options.models or options.samplers):
        print(lines)
    else:
        keep(
            "posteriordb",
            "Accuracy against posteriordb",
            f"{NUM_CHAINS} chains of {NUM_SAMPLES:,} draws after {NUM_WARMUP:,} steps of warm-up, or {NUM_PARTICLES:,} "
            "particles, with one fixed key and default settings in single precision, against 10,000 reference draws. "
            "Mean error: the largest distance of a parameter's mean from the reference's, in the reference's standard "
            f"deviations; goal: at most {MEAN_GOAL}. Sd ratio: the smallest and the largest; goal: at most {SD_GOAL} "
            "away from 1. Evaluations and seconds are of the whole run with its warm-up, and with the pilot run that "
            "gives particles their start; compilation is left out. ESS/s: smallest bulk ESS of a parameter (of the "
            "weights, where draws are weighted) a second.",
            "Flags are the checks that `compare` makes of a run by itself and that it did not pass. Samplers that are "
            "not exact in the limit, or have no chains, get a caution besides, whatever they drew: where a miss met "
            "nothing but that, the last column says so.",
            "Linear regressions move in standard errors around least squares. The models are in "
            "`tests/benchmarks/posteriordb_models.py`.",
            lines,
            out=options.out,
        )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    failed = [row.model for row in rows if row.sampler == "nuts" and not row.met]
    if failed:
        print(f"NUTS missed a goal on {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
