"""Wavelet score-based generation: steps that do not grow with the field, and a cost linear in its sites.

Guth, Coste, De Bortoli and Mallat 2022, arXiv 2208.05003. Run it as
`python -m examples.papers.wavelets [--quick] [--json FILE] [--out FOLDER]`.

Periodic Gaussian fields of L x L sites with the power spectrum ``1/(xi^2 + |w|^2)``, xi = pi/L; the wavelet `db2`, each
band divided by its standard deviation, down to 2 x 2 sites. The reverse Ornstein-Uhlenbeck process from N(0, I) with
the exponential integrator, whose law is an affine recursion for each eigenvalue of a covariance. The steps are the
fewest, over the horizon T too, that bring the Kullback-Leibler divergence of every mode to .01. The exit status is 1 if
a goal fails.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import scoresample as ss
from scoresample.wavelets import low_pass_field
from tests.benchmarks.report import keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
SIZES, COUNTED, TIMED = (8, 16, 32, 64), (8, 16, 32, 64, 128, 256), (64, 128, 256)
EXPONENT = 2.0
MOST_NATS = 0.01
HORIZONS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
OFFSET = 0.05
"""Of the geometric grid: times left are geometric in time left plus this."""
END = 1e-6
"""The time left where sampling stops."""
GRIDS = ("uniform", "geometric")
CONDITION, GROWTH, DIRECT_GROWTH, SLOPE = 5.5, 1.3, 2.5, (1.0, 0.1)
PUBLISHED = {
    "direct": {8: 53, 16: 209, 32: 831, 64: 3321},
    "conditional": {8: 3.6, 16: 4.2, 32: 4.8},
    ("direct", "uniform"): {8: 29, 16: 60, 32: 86, 64: 134},
    ("direct", "geometric"): {8: 13, 16: 15, 32: 17, 64: 21},
}
DRAWN_SIZE, DRAWN, STANDARD_ERRORS = 32, 2000, 4.0
TIMED_FIELDS, REPEATS = 256, 5


class Goal(NamedTuple):
    """A claim, what was measured, what is asked, and whether it holds."""

    claim: str
    measured: str
    goal: str
    holds: bool


class Modes(NamedTuple):
    """Independent normal coordinates: variances, mean squares of their conditional means, and how many are alike."""

    variances: np.ndarray
    squared_means: np.ndarray
    counts: np.ndarray


def field(size: int) -> ss.GaussianField:
    """The law of the fields, with unit variance of a site."""
    return ss.GaussianField(ss.power_law_spectrum((size, size), EXPONENT))


def direct_modes(size: int) -> Modes:
    """Those of the field itself."""
    with jax.enable_x64(True):
        variances, counts = np.unique(np.asarray(field(size).spectrum, np.float64), return_counts=True)
    return Modes(variances, np.zeros_like(variances), counts)


@cache
def scale_modes(size: int) -> tuple[Modes, ...]:
    """Those of the coarsest field, and of the details of each scale given the coarser field, coarse to fine."""
    with jax.enable_x64(True):
        law = field(size)
        path = ss.perturb_wavelets(law, ss.OU(1.0))
        found = []
        for stage in reversed(path.stages[1:]):
            law = low_pass_field(law, path.transform.wavelet)
            low = np.asarray(law.spectrum, np.float64)[..., : law.spectrum.shape[-1] // 2 + 1]
            vectors, slope = np.asarray(stage.eigenvectors), np.asarray(stage.regression)
            projected = np.einsum("be...,b...->e...", vectors.conj(), slope)
            values = np.asarray(stage.eigenvalues)
            # Of a real field, the columns inside the half grid of frequencies stand for two modes each.
            columns = np.where(np.isin(np.arange(values.shape[-1]), [0, low.shape[0] // 2]), 1, 2)
            counts = np.broadcast_to(columns, values.shape)
            found.append(Modes(values.ravel(), (np.abs(projected) ** 2 * low).ravel(), counts.ravel()))
        spectrum = np.asarray(path.stages[0].density.spectrum, np.float64).ravel()
    return (Modes(spectrum, np.zeros_like(spectrum), np.ones(spectrum.size)), *reversed(found))


def times_left(horizon: float, num_steps: int, grid: str) -> np.ndarray:
    """From T to the end."""
    if grid == "uniform":
        left = np.linspace(horizon, 0.0, num_steps + 1)
    else:
        left = np.geomspace(horizon + OFFSET, OFFSET, num_steps + 1) - OFFSET
    return np.concatenate([left[:-1], [END]])


def mean_squares(modes: Modes, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the draws over the variance of every mode: their variance, and their mean's distance from the right one.

    From N(0, 1), by the recursion of the exponential integrator in Ornstein-Uhlenbeck time: the noised data's mean
    ``m e^-t`` moves as the draws' mean does, so what the start has missed of it is all that is missing.
    """
    law, missed = np.ones_like(modes.variances), np.full(modes.variances.size, np.exp(-left[0]))
    for now, after in pairwise(left):
        step, fade = now - after, np.exp(-2 * now)
        factor = np.exp(step) - 2 * np.expm1(step) / (modes.variances * fade + 1 - fade)
        law, missed = factor**2 * law + np.expm1(2 * step), missed * factor
    return law / modes.variances, missed**2 * modes.squared_means / modes.variances


def divergences(modes: Modes, left: np.ndarray) -> np.ndarray:
    """KL(draws || data) of every mode, its conditional mean's part averaged over the coarser fields."""
    ratio, missed = mean_squares(modes, left)
    return 0.5 * (ratio - 1 - np.log(ratio) + missed)


def fewest_steps(modes: Modes, grid: str) -> tuple[int, float]:
    """The fewest steps that bring every mode to `MOST_NATS`, and the horizon that they go with."""

    def good(horizon: float, num_steps: int) -> bool:
        return bool(np.max(divergences(modes, times_left(horizon, num_steps, grid))) <= MOST_NATS)

    best = (np.inf, 0.0)
    for horizon in HORIZONS:
        upper = 4
        while not good(horizon, upper) and upper < min(best[0], 4096):
            upper *= 2
        if not good(horizon, upper):
            continue
        lower = upper // 2 if upper > 4 else 0
        while upper - lower > 1:
            middle = (lower + upper) // 2
            lower, upper = (lower, middle) if good(horizon, middle) else (middle, upper)
        best = min(best, (upper, horizon))
    return int(best[0]), best[1]


def pooled(scales: tuple[Modes, ...]) -> Modes:
    """The modes of all scales together: what one number of steps has to serve."""
    return Modes(*(np.concatenate(parts) for parts in zip(*scales, strict=True)))


def conditions_and_steps(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Condition numbers, and the fewest steps, of the field and of its scales."""
    cells: dict[str, Any] = {}
    for size in sizes:
        direct, scales = direct_modes(size), scale_modes(size)
        cells[str(size)] = {
            "direct": float(np.ptp(direct.variances) / direct.variances.min() + 1),
            "by scale": [float(modes.variances.max() / modes.variances.min()) for modes in scales],
        }
        for grid in GRIDS:
            cells[str(size)][f"direct {grid}"] = fewest_steps(direct, grid)
            cells[str(size)][f"by scale {grid}"] = [fewest_steps(modes, grid) for modes in scales]
            cells[str(size)][f"one for all {grid}"] = fewest_steps(pooled(scales), grid)
    return cells


def to_the_end(path: Any) -> Any:
    """A path, or each stage of one, that is valid from T to the end of sampling."""
    ends = jnp.asarray([-np.inf, -0.5 * np.log(np.expm1(2 * END))])
    if isinstance(path, ss.WaveletPath):
        return eqx.tree_at(lambda p: p.stages, path, tuple(to_the_end(stage) for stage in path.stages))
    first = path.process.log_snr(jnp.ones(()))
    return eqx.tree_at(lambda p: p.log_snr_range, path, jnp.asarray(ends).at[0].set(first))


def sampler_for(horizon: float, num_steps: int, grid: str) -> ss.ReverseSDE:
    """The sampler that the recursion describes."""
    left = times_left(horizon, num_steps, grid) / horizon
    return ss.ReverseSDE(solver="exponential-integrator", grid=left, denoise=False)


def drawn(size: int, num_fields: int) -> list[dict[str, Any]]:
    """Fields drawn with the fewest steps: is the mean log density of each scale what the recursion says it is?

    It is minus half the sum of ``log(2 pi variance) + mean square over variance``, given the coarser fields as drawn.
    """
    rows = []
    for grid in GRIDS:
        scales = scale_modes(size)
        num_steps, horizon = fewest_steps(pooled(scales), grid)
        path = to_the_end(ss.perturb_wavelets(field(size), ss.OU(horizon)))
        sampler, key = sampler_for(horizon, num_steps, grid), jax.random.key(0)
        draws = ss.sample(path, sampler, key=key, num_samples=num_fields, num_chains=1)
        of_all = eqx.filter_jit(eqx.filter_vmap(ss.CascadedDensity(path).by_stage))
        log_p = np.asarray(of_all(draws.position[0]), np.float64)
        for index, (name, modes) in enumerate(zip(path.stage_names(), scales, strict=True)):
            ratio, missed = mean_squares(modes, times_left(horizon, num_steps, grid))
            terms = np.log(2 * np.pi * modes.variances) + ratio + missed
            volume = float(path.stages[index].frame.log_volume(path.stages[index].structure))
            expected = -0.5 * float(modes.counts @ terms) - volume
            error = float(log_p[:, index].std() / np.sqrt(num_fields))
            exact = -0.5 * float(modes.counts @ (terms - ratio - missed + 1)) - volume
            rows.append(
                {"grid": grid, "steps": num_steps, "stage": name, "mean": float(log_p[:, index].mean())}
                | {"error": error, "expected": expected, "exact": exact}
            )
    return rows


def counters(cells: dict[str, Any], grid: str) -> dict[str, dict[int, float]]:
    """Evaluations of the score times the sites that they are taken at, with the fewest steps."""
    sizes = [int(size) for size in cells]
    wavelet = {}
    for size in sizes:
        steps = [steps for steps, _ in cells[str(size)][f"by scale {grid}"]]
        sites = [4, *(3 * 4**k for k in range(1, len(steps)))]
        wavelet[size] = float(np.dot(steps, sites))
    direct = {size: float(cells[str(size)][f"direct {grid}"][0] * size**2) for size in sizes}
    return {"wavelet": wavelet, "direct": direct}


def slope(values: dict[int, float]) -> float:
    """Of the logarithm against that of the number of sites."""
    sizes = np.array(list(values), float)
    return float(np.polyfit(2 * np.log(sizes), np.log(list(values.values())), 1)[0])


def timed(sizes: tuple[int, ...], cells: dict[str, Any], repeats: int) -> dict[str, float]:
    """Seconds of a run, compiled before: the median over interleaved repeats."""
    runs: dict[int, Callable[[int], float]] = {}
    for size in sizes:
        num_steps, horizon = cells[str(size)]["one for all geometric"]
        path = to_the_end(ss.perturb_wavelets(field(size), ss.OU(horizon)))
        sampler = sampler_for(horizon, num_steps, "geometric")

        def run(seed: int, path: Any = path, sampler: Any = sampler) -> float:
            draws = ss.sample(path, sampler, key=jax.random.key(seed), num_samples=TIMED_FIELDS, num_chains=1)
            return draws.seconds - draws.info["compile_seconds"]

        runs[size] = run
    for run in runs.values():
        run(0)
    seconds: dict[int, list[float]] = {size: [] for size in runs}
    for repeat in range(repeats):
        for size, run in runs.items():
            seconds[size].append(run(repeat))
    return {str(size): float(np.median(values)) for size, values in seconds.items()}


def report(cells: dict[str, Any], picture: str) -> tuple[list[str], bool]:
    """The parts of the page, and whether all goals hold."""
    by_size, rows = cells["conditions"], cells["drawn"]
    sizes = [size for size in SIZES if str(size) in by_size]
    largest = {size: max(by_size[str(size)]["by scale"][1:]) for size in by_size and map(int, by_size)}
    steps = {
        (kind, grid): {
            size: by_size[str(size)][f"{kind} {grid}"][0] if kind != "by scale"
            else max(n for n, _ in by_size[str(size)][f"by scale {grid}"][1:])
            for size in map(int, by_size)
        }
        for kind in ("direct", "by scale", "one for all")
        for grid in GRIDS
    }  # fmt: skip
    last = max(size for size in sizes if size <= 32)
    grown = {key: values[last] / values[8] for key, values in steps.items()}
    count = {grid: counters(by_size, grid) for grid in GRIDS}
    slopes = {grid: slope(count[grid]["wavelet"]) for grid in GRIDS}
    worst = max(abs(row["mean"] - row["expected"]) / row["error"] for row in rows)
    power = max(abs(row["exact"] - row["expected"]) / row["error"] for row in rows)
    goals = [
        Goal(
            f"Largest condition number given the coarser field, L = {', '.join(map(str, sizes))}",
            ", ".join(f"{largest[size]:.2f}" for size in sizes),
            f"<= {CONDITION}",
            all(largest[size] <= CONDITION for size in sizes),
        ),
        *(
            Goal(
                f"Steps of a scale, {grid} grid, L = {last} over L = 8",
                f"{steps['by scale', grid][8]} to {steps['by scale', grid][last]}: {grown['by scale', grid]:.2f}",
                f"<= {GROWTH}",
                grown["by scale", grid] <= GROWTH,
            )
            for grid in GRIDS
        ),
        *(
            [
                Goal(
                    f"Steps of the field itself, uniform grid, L = {last} over L = 8",
                    f"{steps['direct', 'uniform'][8]} to {steps['direct', 'uniform'][last]}: "
                    f"{grown['direct', 'uniform']:.2f}",
                    f">= {DIRECT_GROWTH}",
                    grown["direct", "uniform"] >= DIRECT_GROWTH,
                )
            ]
            if last == 32
            else []
        ),
        *(
            Goal(
                f"Slope of the evaluations times sites in the sites, {grid} grid, L = 8 to {max(map(int, by_size))}",
                f"{slopes[grid]:.3f}",
                f"{SLOPE[0]:g} +- {SLOPE[1]}",
                abs(slopes[grid] - SLOPE[0]) <= SLOPE[1],
            )
            for grid in GRIDS
        ),
        Goal(
            f"Draws by `sample`, mean log density of each scale against the recursion (L = {cells['drawn size']})",
            f"largest |z| {worst:.1f}",
            f"<= {STANDARD_ERRORS:g} standard errors",
            worst <= STANDARD_ERRORS,
        ),
    ]
    parts = [(__doc__ or "").split("\n\n")[2]]
    if "seconds" in cells:
        seconds = {int(size): value for size, value in cells["seconds"].items()}
        time_slope = slope(seconds)
        goals.append(
            Goal(
                f"Slope of the time in the sites, L = {', '.join(map(str, seconds))}",
                f"{time_slope:.3f}",
                f"{SLOPE[0]:g} +- {SLOPE[1]}",
                abs(time_slope - SLOPE[0]) <= SLOPE[1],
            )
        )
        shown = ", ".join(f"{value:.2f} s at L = {size}" for size, value in seconds.items())
        timing = (
            f"{TIMED_FIELDS} fields with one number of steps for all scales, geometric grid, compiled before: {shown}."
            " Of so many, since a tenth of a second does not depend on their size."
        )
    else:
        timing = ""
    parts.append(
        table(
            ("claim", "measured", "goal", "holds"), [[*goal[:3], "yes" if goal.holds else "**no**"] for goal in goals]
        )
    )
    parts.append(picture)
    every = sorted(map(int, by_size))

    def row(label: str, values: dict[int, Any], form: str, published: dict[int, Any] | None) -> list[list[str]]:
        lines = [[label, *(format(values[size], form) for size in every)]]
        if published:
            lines.append([f"{label}, expected", *(str(published.get(size, "-")) for size in every)])
        return lines

    lines = row(
        "condition number, field", {size: by_size[str(size)]["direct"] for size in every}, ".0f", PUBLISHED["direct"]
    )
    lines += row("condition number, largest given the coarser field", largest, ".2f", PUBLISHED["conditional"])
    for grid in GRIDS:
        lines += row(f"steps, field, {grid} grid", steps["direct", grid], "d", PUBLISHED["direct", grid])
        lines += row(f"steps, the scale that needs most, {grid} grid", steps["by scale", grid], "d", None)
        lines += row(f"steps, one number for all scales, {grid} grid", steps["one for all", grid], "d", None)
        lines += row(f"evaluations x sites, wavelets, {grid} grid", count[grid]["wavelet"], ".3g", None)
        lines += row(f"evaluations x sites, field, {grid} grid", count[grid]["direct"], ".3g", None)
    parts.append("## Condition numbers, steps and cost\n\n" + table(["", *(f"L = {size}" for size in every)], lines))
    parts.append(
        "`expected` are the numbers of an independent computation, made before this one. The coarsest field, of four "
        "sites, is a stage of its own, without a coarser one to be given: its steps count "
        "in the number for all scales. A geometric grid closes most of the gap in steps, for it spends them where the "
        "noise is as small as the variance of the small scales."
    )
    scales = by_size[str(max(sizes))]
    names = [f"{2**k} x {2**k}" for k in range(1, len(scales["by scale"]))]
    lines = [
        [name, f"{scales['by scale'][k + 1]:.2f}", *(str(scales[f"by scale {grid}"][k + 1][0]) for grid in GRIDS)]
        for k, name in enumerate(names)
    ]
    parts.append(
        f"## Scale by scale, L = {max(sizes)}\n\n"
        + table(["details", "condition number", *(f"steps, {grid} grid" for grid in GRIDS)], lines)
    )
    lines = [
        [
            row["grid"],
            str(row["steps"]),
            row["stage"],
            *(f"{row[key]:.3f}" for key in ("mean", "error", "expected", "exact")),
        ]
        for row in rows
    ]
    parts.append(
        f"## Draws against the recursion, L = {cells['drawn size']}\n\n"
        + table(
            ["grid", "steps", "stage", "mean log density", "standard error", "by the recursion", "of the data"], lines
        )
        + f"\n\nThe draws' own bias, which the recursion predicts, is as large as {power:.0f} standard errors."
    )
    if timing:
        parts.append(f"## Time\n\n{timing}")
    return parts, all(goal.holds for goal in goals)


def draw(cells: dict[str, Any], out: Path) -> None:
    """The fields, the spectra of draws, and the steps against the size."""
    by_size = cells["conditions"]
    sizes = sorted(map(int, by_size))
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    size = cells["drawn size"]
    num_steps, horizon = by_size[str(size)]["one for all geometric"]
    path = to_the_end(ss.perturb_wavelets(field(size), ss.OU(horizon)))
    draws = ss.sample(
        path, sampler_for(horizon, num_steps, "geometric"), key=jax.random.key(2), num_samples=1, num_chains=1
    )
    panels[0].imshow(np.asarray(draws.position[0, 0]), cmap="RdBu_r", interpolation="nearest")
    panels[0].set(title=f"Drawn with {num_steps} steps a scale", xticks=[], yticks=[])
    panels[1].loglog(sizes, [by_size[str(n)]["direct"] for n in sizes], "o-", color="#D55E00", label="field")
    panels[1].loglog(
        sizes,
        [max(by_size[str(n)]["by scale"][1:]) for n in sizes],
        "o-",
        color="#0072B2",
        label="given the coarser field",
    )
    panels[1].set(title="Condition number", xlabel="L")
    for grid, style in zip(GRIDS, ("-", "--"), strict=True):
        panels[2].loglog(
            sizes,
            [by_size[str(n)][f"direct {grid}"][0] for n in sizes],
            f"o{style}",
            color="#D55E00",
            label=f"field, {grid} grid",
        )
        panels[2].loglog(
            sizes,
            [max(k for k, _ in by_size[str(n)][f"by scale {grid}"][1:]) for n in sizes],
            f"o{style}",
            color="#0072B2",
            label=f"a scale, {grid} grid",
        )
    panels[2].set(title=f"Steps to {MOST_NATS} nats in every mode", xlabel="L")
    for panel in panels[1:]:
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.minorticks_off()
        panel.legend(frameon=False, fontsize=8)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "wavelets.png", dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller fields, and no times")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    quick = options.quick
    cells: dict[str, Any] = {"drawn size": 16 if quick else DRAWN_SIZE}
    measures: dict[str, Callable[[], Any]] = {
        "conditions": lambda: conditions_and_steps((8, 16, 32) if quick else COUNTED),
        "drawn": lambda: drawn(cells["drawn size"], 500 if quick else DRAWN),
    }
    if not quick:
        measures["seconds"] = lambda: timed(TIMED, cells["conditions"], REPEATS)
    for name, measure in measures.items():
        start = time.perf_counter()
        cells[name] = measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(cells))
    kept = options.out is not None or not quick
    if kept:
        draw(cells, options.out or DOCS / "images")
    place = "" if options.out else "../images/"
    picture = (
        "![A Gaussian field drawn scale by scale; condition numbers and steps against the size, of the field and of "
        f"its scales.]({place}wavelets.png)"
    )
    parts, passed = report(cells, picture)
    title = "Wavelet score-based generation"
    if kept:
        keep("wavelets", title, *parts, out=options.out or DOCS / "papers")
    else:
        print("\n\n".join([*parts]))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
