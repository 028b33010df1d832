"""Score-based models detect manifolds: does a score know the manifold of its data, and has it memorised its points?

Pidstrigach 2022, arXiv 2206.01018. Run it as
`python -m examples.papers.manifolds [--quick] [--json FILE] [--out FOLDER]`.

A circle in 20 dimensions, whose noised score is known in closed form; a cube of three dimensions and a sphere of five,
known by their points. The Ornstein-Uhlenbeck process up to T = 5, the exponential integrator on steps
``kappa min(1, T - t)`` with kappa = .1, stopped at ``T - delta``. The exit status is 1 if a goal fails.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array

import scoresample as ss
from tests.benchmarks.report import keep, table

DOCS = Path(__file__).parent.parent.parent / "docs"
SIZE, HORIZON, KAPPA = 20, 5.0, 0.1
PROCESS = ss.OU(HORIZON)
DISTANCE_DELTAS = (1e-2, 1e-3, 1e-5)
DISTANCE_BAND = 0.07
LEVELS = (0.2, 0.1, 0.05)
DIMENSION_BAND = 0.3
MANIFOLDS = {"circle": (1, 4000), "cube": (3, 20_000), "sphere": (5, 40_000)}
"""Dimension, and number of points behind the score."""
HELD_FAST = {("circle", 0.2), ("cube", 0.2), ("sphere", 0.2), ("circle", 0.1), ("cube", 0.1)}
"""Where the estimate of the dimension has to be right; elsewhere it is shown."""
THEOREM_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5)
TILT, RELATIVE = 0.5, -0.25
"""The size of the bounded error, and that of the error in proportion to the score."""
MEMORY_POINTS = 200
MEMORY_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
MEMORISED, ABOVE_CHANCE = 0.9, 0.05
STANDARD_ERRORS = 4.0
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


class Goal(NamedTuple):
    """A claim, what was measured, what is asked, and whether it holds."""

    claim: str
    measured: str
    goal: str
    holds: bool


def made(name: str, num: int, seed: int) -> np.ndarray:
    """Points on a manifold in the first of 20 coordinates."""
    rng, points = np.random.default_rng(seed), np.zeros((num, SIZE), np.float32)
    if name == "circle":
        angle = rng.uniform(0, 2 * np.pi, num)
        points[:, 0], points[:, 1] = np.cos(angle), np.sin(angle)
    elif name == "cube":
        points[:, :3] = rng.uniform(-1, 1, (num, 3))
    else:
        directions = rng.normal(size=(num, 6))
        points[:, :6] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return points


def circle_score(z: Array, t: Array, tilt: Array, relative: Array) -> Array:
    """The score of the noised uniform law on the circle, and two errors: one bounded, one in proportion to it.

    With r the radius in the plane, it is ``(alpha I1(a)/I0(a) x/r - x)/sigma^2`` there, ``a = alpha r/sigma^2``, and
    ``-x/sigma^2`` in the other coordinates.
    """
    alpha, variance = PROCESS.alpha(t), PROCESS.variance(t)
    radius = jnp.sqrt(jnp.sum(z[:2] ** 2) + 1e-30)
    ratio = i1e(alpha * radius / variance) / i0e(alpha * radius / variance)
    pull = jnp.zeros_like(z).at[:2].set(alpha * ratio * z[:2] / radius)
    return (1 + relative) * (pull - z) / variance + tilt * jnp.zeros_like(z).at[0].set(1.0)


def circle_path(tilt: float = 0.0, relative: float = 0.0) -> ss.PerturbedScore:
    """The score of the circle with its errors, from T down to a time of 5e-10."""
    lowest = float(PROCESS.log_snr(jnp.asarray(1.0)))
    return ss.PerturbedScore(
        circle_score, PROCESS, structure=jnp.zeros(SIZE), args=(jnp.asarray(tilt), jnp.asarray(relative)),
        log_snr_range=(lowest, -0.5 * float(np.log(np.expm1(2 * 5e-10)))),
    )  # fmt: skip


def sampler(delta: float) -> ss.ReverseSDE:
    """The exponential integrator on the paper's grid: each step is kappa times the lesser of 1 and the time left."""
    left = [HORIZON]
    while left[-1] > delta * (1 + 1e-9):
        left.append(max(left[-1] - KAPPA * min(1.0, left[-1]), delta))
    return ss.ReverseSDE(solver="exponential-integrator", grid=np.array(left) / HORIZON, denoise=False)


def drawn(path: Any, delta: float, num: int, seed: int) -> tuple[ss.Draws, np.ndarray]:
    """Draws of the law noised up to a time, in the scale of the data, and the same as rows."""
    draws = ss.sample(
        path, sampler(delta), key=jax.random.key(seed), num_samples=num, num_chains=1, batch_size=500, progress=False
    )
    return draws, np.asarray(draws.position, np.float64)[0]


def distance_ratio(rows: np.ndarray, delta: float) -> tuple[float, float]:
    """Root mean square distance to the circle, and over what noise alone makes of it, sqrt(2 delta (D - 1))."""
    squares = (np.linalg.norm(rows[:, :2], axis=1) - 1) ** 2 + np.sum(rows[:, 2:] ** 2, axis=1)
    distance = float(np.sqrt(np.mean(squares)))
    return distance, distance / np.sqrt(2 * delta * (SIZE - 1))


def distances(num: int, points: int) -> list[dict[str, float]]:
    """How far draws are from the circle, with the closed form and with the score of many points."""
    many, rows = ss.perturb(made("circle", points, 1), PROCESS), []
    for number, delta in enumerate(DISTANCE_DELTAS):
        row: dict[str, float] = {"delta": delta, "N": np.size(sampler(delta).grid) - 1}
        for name, path in (("closed form", circle_path()), ("points", many)):
            row[name], row[f"{name} ratio"] = distance_ratio(drawn(path, delta, num, number)[1], delta)
        rows.append(row)
    return rows


def dimensions(sizes: dict[str, tuple[int, int]], num: int) -> dict[str, dict[str, Any]]:
    """The dimension of each manifold by noise level, of the exact score of its points."""
    found = {}
    process = ss.VE(sigma_min=1e-3, sigma_max=50.0)
    for name, (k, number) in sizes.items():
        training, held_out = made(name, number, 2), made(name, num, 3)
        score = ss.perturb(training, process)
        times = [float(process.time(-jnp.log(jnp.asarray(level)))) for level in LEVELS]
        health = ss.manifold_health(
            score, held_out, key=jax.random.key(4), training=training, dimension=k, levels=times, num_points=num
        )
        found[name] = {
            "k": k, "n": number, "spacing": health.spacing, "noise": health.noise.tolist(),
            "flipd": health.flipd.tolist(), "se": health.flipd_se.tolist(),
            "training": np.asarray(health.flipd_training).tolist(),
            "codimension": health.blow_up.tolist(), "codimension se": health.blow_up_se.tolist(),
        }  # fmt: skip
    return found


def theorem(num: int, deltas: tuple[float, ...], num_points: int) -> dict[str, dict[str, Any]]:
    """Three scores of the circle: what their errors do to the support, to frequencies, and to the integral."""
    errors = {"true score": (0.0, 0.0), "bounded error": (TILT, 0.0), "error like 1/sigma": (0.0, RELATIVE)}
    held_out, found = made("circle", num_points, 5), {}
    for number, (name, (tilt, relative)) in enumerate(errors.items()):
        path = circle_path(tilt, relative)
        rows = []
        for place, delta in enumerate(deltas):
            rows.append((delta, *distance_ratio(points := drawn(path, delta, num, 10 * number + place)[1], delta)))
        share = float(np.mean(points[:, 0] > 0))
        health = ss.manifold_health(
            path, held_out, key=jax.random.key(6), exact=circle_path(), dimension=1, num_points=num_points
        )
        found[name] = {
            "rows": rows, "share": share, "z": (share - 0.5) / (0.5 / np.sqrt(num)),
            "verdict": health.energy.verdict, "energy": health.energy.total,
            "rate": np.asarray(health.energy.rate).tolist(), "noise": health.noise.tolist(),
        }  # fmt: skip
    return found


def memories(num: int, deltas: tuple[float, ...]) -> dict[str, Any]:
    """The memorised fraction of the true score, of the score of 200 points, and of the same smoothed."""
    training, held_out = made("circle", MEMORY_POINTS, 7), made("circle", 10 * num, 8)
    points = ss.perturb(training, PROCESS)
    scores: dict[str, Any] = {
        "true score": circle_path(),
        "score of the points": points,
        "the same, smoothed": ss.perturb(training, PROCESS, bandwidth="spacing"),
    }
    found: dict[str, Any] = {"spacing": float(points.spacing), "rows": [], "verdicts": {}}
    runs, last = {}, {}
    neighbours = np.sort(np.linalg.norm(training[:, None, :2] - training[None, :, :2], axis=2), axis=1)[:, 1]
    for place, delta in enumerate(deltas):
        row: dict[str, Any] = {"delta": delta, "noise": float(np.sqrt(np.expm1(2 * delta)))}
        # A copy at the distance r = noise sqrt(D - 1) counts if its second nearest point is beyond 3 r.
        row["copies"] = float(np.mean(neighbours > np.sqrt(8 * (SIZE - 1)) * row["noise"]))
        for number, (name, path) in enumerate(scores.items()):
            if float(path.log_snr_range[1]) < -np.log(row["noise"]):
                continue
            runs[name], rows = drawn(path, delta, num, 100 + 10 * place + number)
            last[name] = ss.memorisation(rows, training, held_out, scale="none", num_draws=10 * num)
            row[name], row[f"{name} se"] = last[name].fraction, last[name].fraction_se
            row["chance"], row["chance se"] = last[name].chance, last[name].chance_se
        found["rows"].append(row)
    shown = {name: runs[name] for name in ("true score", "score of the points")}
    verdicts = ss.compare(shown, memorisation={name: last[name] for name in shown}).verdicts
    found["verdicts"] = {name: str(verdict) for name, verdict in verdicts.items()}
    found["levels"] = {name: verdict.level for name, verdict in verdicts.items()}
    found["training"] = training[:, :2].tolist()
    found["draws"] = {name: np.asarray(runs[name].position)[0, :400, :2].tolist() for name in shown}
    return found


def frozen(relative: float) -> float:
    """What steps of kappa make of the distance, at all small delta, with the score times 1 + `relative`.

    Across the circle, in the direction of one coordinate, ``y' = (1 - (1 + b) kappa) y + sqrt(2 kappa tau) z``.
    """
    return float(np.sqrt(KAPPA / (1 - KAPPA - (1 - (1 + relative) * KAPPA) ** 2)))


def goals(cells: dict[str, Any]) -> list[Goal]:
    """What the paper and its diagnostics promise."""
    found = []
    for row in cells["distances"]:
        for name in ("closed form", "points"):
            ratio = row[f"{name} ratio"]
            found.append(
                Goal(
                    f"distance to the circle at delta = {row['delta']:g}, {name}, over sqrt(2 delta (D-1))",
                    f"{ratio:.3f}", f"1 +- {DISTANCE_BAND}", abs(ratio - 1) <= DISTANCE_BAND,
                )
            )  # fmt: skip
    for name, result in cells["dimensions"].items():
        for level, value in zip(LEVELS, result["flipd"], strict=True):
            if (name, level) in HELD_FAST:
                found.append(
                    Goal(
                        f"local dimension of the {name} at sigma = {level}", f"{value:.2f}",
                        f"{result['k']} +- {DIMENSION_BAND}", abs(value - result["k"]) <= DIMENSION_BAND,
                    )
                )  # fmt: skip
    for name, result in cells["theorem"].items():
        ratio, leaves = result["rows"][-1][2], name == "error like 1/sigma"
        off = abs(ratio - 1) > DISTANCE_BAND
        found.append(
            Goal(
                f"{name}: distance ratio at delta = {result['rows'][-1][0]:g}", f"{ratio:.3f}",
                f"{'not within' if leaves else 'within'} 1 +- {DISTANCE_BAND}", off == leaves,
            )
        )  # fmt: skip
        wanted = "infinite" if leaves else "finite"
        found.append(Goal(f"{name}: finite-energy verdict", result["verdict"], wanted, result["verdict"] == wanted))
    true, bounded = cells["theorem"]["true score"], cells["theorem"]["bounded error"]
    found += [
        Goal(
            "true score: share of draws in the right half", f"{true['share']:.3f} ({true['z']:+.1f} se from .5)",
            f"|z| < {STANDARD_ERRORS:g}", abs(true["z"]) < STANDARD_ERRORS,
        ),
        Goal(
            "bounded error: the same", f"{bounded['share']:.3f} ({bounded['z']:+.1f} se from .5)",
            f"|z| > {STANDARD_ERRORS:g}", abs(bounded["z"]) > STANDARD_ERRORS,
        ),
    ]  # fmt: skip
    rows, last = cells["memories"]["rows"], cells["memories"]["rows"][-1]
    worst = max(rows, key=lambda row: row["true score"] - row["chance"])
    points, levels = last["score of the points"], cells["memories"]["levels"]
    found += [
        Goal(
            "true score: memorised fraction at any delta", f"{worst['true score']:.3f} (chance {worst['chance']:.3f})",
            f"<= chance + {ABOVE_CHANCE}", worst["true score"] <= worst["chance"] + ABOVE_CHANCE,
        ),
        Goal(
            f"score of the points: memorised fraction at delta = {last['delta']:g}", f"{points:.3f}",
            f">= {MEMORISED}", points >= MEMORISED,
        ),
        Goal(
            "verdicts of compare()", " / ".join(levels.values()), "not the same",
            levels["true score"] != levels["score of the points"] == "do not use",
        ),
    ]  # fmt: skip
    return found


def report(cells: dict[str, Any], picture: str) -> tuple[list[str], bool]:
    """The page's parts, and whether every goal holds."""
    checked = goals(cells)
    memory = cells["memories"]
    names = ("true score", "score of the points", "the same, smoothed")
    parts = [
        "What [Pidstrigach 2022](https://arxiv.org/abs/2206.01018) proves about scores and manifolds, as numbers. If "
        "the error of a score stays bounded as the noise goes to zero, its draws have the support of the data, "
        "whatever they do to frequencies; near a manifold the true score has to grow like 1/sigma; and a network that "
        "learns the score of its training points exactly gives them back. "
        "`python -m examples.papers.manifolds` makes this page. "
        "The diagnostics are [`manifold_health`][scoresample.manifold_health] and "
        "[`memorisation`][scoresample.memorisation]; when a trained network does which is "
        "[the subject of another page](memorisation.md), how to use them "
        "[that of a guide](../guides/manifolds-and-memorisation.md).",
        picture,
        "## Goals",
        table(
            ["claim", "measured", "goal", "holds"],
            [[g.claim, g.measured, g.goal, "yes"] if g.holds else [g.claim, f"**{g.measured}**", g.goal, "**no**"]
             for g in checked],
        ),
        "## Distance to a circle in 20 dimensions",
        "Root mean square distance of draws to the circle, with the score in closed form and with that of 20,000 "
        "points. Noise of the time delta alone makes it sqrt(2 delta (D-1)). A score that is frozen over steps of "
        f"kappa = {KAPPA} makes that {frozen(0.0):.3f} times as large: across the circle the variance c tau goes over "
        "into c (1 - kappa)^2 tau + 2 kappa tau with each step, so c = 2/(1 - kappa).",
        table(
            ["delta", "N", "closed form", "points", "sqrt(2 delta (D-1))"],
            [[f"{r['delta']:g}", f"{r['N']:.0f}", f"{r['closed form']:.4f}", f"{r['points']:.4f}",
              f"{np.sqrt(2 * r['delta'] * (SIZE - 1)):.4f}"] for r in cells["distances"]],
        ),
        "## The dimension that a score sees",
        "FLIPD, ``D + sigma^2 (tr grad s + |s|^2)``, of the exact score of n points: at held-out points, and at the "
        "points themselves. Below their spacing it leaves the dimension, upwards at held-out points and towards 0 at "
        "its own: there the score is that of the points and no longer of the manifold. Last, the codimension by the "
        "blow-up ``sigma^2 E|s|^2`` at noised held-out points.",
        table(
            ["manifold", "k", "n", "spacing", "sigma", "held out", "at its points", "D - blow-up"],
            [[name, f"{r['k']}", f"{r['n']:,}", f"{r['spacing']:.3g}", f"{level}", f"{r['flipd'][i]:.2f} ± "
              f"{r['se'][i]:.2f}", f"{r['training'][i]:.2f}",
              f"{SIZE - r['codimension'][i]:.2f} ± {r['codimension se'][i]:.2f}"]
             for name, r in cells["dimensions"].items() for i, level in enumerate(LEVELS)],
        ),
        "## Three scores of one circle",
        f"The true score; the same with {TILT} added to its first coordinate at all levels; and the same times "
        f"{1 + RELATIVE:g}, whose error grows like 1/sigma. Across the circle the last leaves a variance of "
        f"``2 tau/(1 + 2b)`` at time tau, with b = {RELATIVE}, instead of ``2 tau``: a ratio of "
        f"{(1 + 2 * RELATIVE) ** -0.5:.3f} (with these steps {frozen(RELATIVE):.3f}), however small delta is: the "
        "draws come near the circle as delta goes to 0, but with the noise of another law, so that no integral vouches "
        "for the support. The energy is the KL divergence between the paths, over the levels that samplers use.",
        table(
            ["score", *(f"ratio at {row[0]:g}" for row in next(iter(cells["theorem"].values()))["rows"]),
             "share right", "energy", "verdict"],
            [[name, *(f"{row[2]:.3f}" for row in r["rows"]), f"{r['share']:.3f}", f"{r['energy']:.3g}", r["verdict"]]
             for name, r in cells["theorem"].items()],
        ),
        "## Memorised fraction",
        f"Draws of which the nearest of {MEMORY_POINTS} points is three times nearer than the second nearest. On a "
        "curve that happens to a third of all new points; noise that is large against the spacing "
        f"({memory['spacing']:.3g}) hides it, also that of copies: one with noise of the size s in all {SIZE} "
        f"directions is s sqrt({SIZE - 1}) from its point, and counts only if that point's neighbour is sqrt(8) times "
        "as far. The "
        "last column is the share of the points for which that is so: what the score of the points is to reach, and "
        "why it is .9 only at a smaller delta than 1e-7.",
        table(
            ["delta", "noise/spacing", *names, "chance", "copies that can be seen"],
            [[f"{r['delta']:g}", f"{r['noise'] / memory['spacing']:.3g}",
              *(f"{r[n]:.3f} ± {r[f'{n} se']:.3f}" if n in r else "-" for n in names), f"{r['chance']:.3f}",
              f"{r['copies']:.3f}"] for r in memory["rows"]],
        ),
        "What `compare()` says of both at the last delta:",
        "\n".join(f"- {name}: {verdict}" for name, verdict in memory["verdicts"].items()),
    ]  # fmt: skip
    return parts, all(goal.holds for goal in checked)


def draw(cells: dict[str, Any], out: Path) -> None:
    """The draws of both scores, the memorised fraction, the distances of three scores and the dimensions."""
    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(2, 2, figsize=(9.5, 7.6), layout="constrained")
    memory = cells["memories"]
    points = np.array(memory["training"])
    axes = panels[0, 0]
    for place, (name, rows) in enumerate(memory["draws"].items()):
        x, y = np.array(rows).T
        axes.plot(x * (1 - 0.06 * place), y * (1 - 0.06 * place), "o", ms=2, color=COLOURS[place], label=name)
    axes.plot(*(1.06 * points.T), "k|", ms=5, label="the points")
    axes.set(
        title=f"draws at delta = {memory['rows'][-1]['delta']:g}, set apart",
        xlim=(0.1, 1.15),
        ylim=(-0.1, 0.95),
        aspect=1,
    )
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes = panels[0, 1]
    for place, name in enumerate(("true score", "score of the points", "the same, smoothed")):
        rows = [row for row in memory["rows"] if name in row]
        ratio = [row["noise"] / memory["spacing"] for row in rows]
        axes.errorbar(ratio, [row[name] for row in rows], [2 * row[f"{name} se"] for row in rows],
                      marker="o", ms=4, color=COLOURS[place], label=name)  # fmt: skip
    axes.axhline(memory["rows"][-1]["chance"], color="0.5", lw=1, ls="--", label="chance")
    axes.set(xscale="log", xlabel="noise left / spacing of the points", title="memorised fraction", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=8)
    axes = panels[1, 0]
    for place, (name, result) in enumerate(cells["theorem"].items()):
        axes.plot([r[0] for r in result["rows"]], [r[2] for r in result["rows"]], "o-", ms=4, color=COLOURS[place],
                  label=f"{name}: {result['verdict']}")  # fmt: skip
    axes.axhspan(1 - DISTANCE_BAND, 1 + DISTANCE_BAND, color="0.9", zorder=0)
    axes.set(xscale="log", xlabel="delta", title="distance to the circle / that of noise alone", ylim=(0.8, 1.6))
    axes.legend(frameon=False, fontsize=8, loc="center")
    axes = panels[1, 1]
    for place, (name, result) in enumerate(cells["dimensions"].items()):
        held = np.array(result["flipd"])
        axes.errorbar(result["noise"], held, 2 * np.array(result["se"]), marker="o", ms=4, color=COLOURS[place],
                      label=f"{name}, k = {result['k']}")  # fmt: skip
        axes.plot(result["noise"], result["training"], "x--", ms=4, color=COLOURS[place])
        axes.axhline(result["k"], color=COLOURS[place], lw=0.6, alpha=0.6)
    axes.set(xscale="log", xlabel="sigma", title="local dimension, held out (o) and at the points (x)")
    axes.set_xticks(LEVELS, [str(level) for level in LEVELS])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "manifolds.png", dpi=110)
    plt.close(figure)


def main() -> int:
    """Measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer manifolds, levels and draws")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the page and picture; with --quick nothing is kept")
    options = parser.parse_args()
    quick = options.quick
    num = 1000 if quick else 4000
    manifolds = {name: MANIFOLDS[name] for name in ("circle", "cube")} if quick else MANIFOLDS
    measures: dict[str, Callable[[], Any]] = {
        "distances": lambda: distances(600, 5000) if quick else distances(num, 20_000),
        "dimensions": lambda: dimensions(manifolds, 2048),
        "theorem": lambda: theorem(num, THEOREM_DELTAS[1::2] if quick else THEOREM_DELTAS, 2048),
        "memories": lambda: memories(num, MEMORY_DELTAS[2::3] if quick else MEMORY_DELTAS),
    }
    cells = {}
    for name, measure in measures.items():
        start = time.perf_counter()
        cells[name] = measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        options.json.write_text(json.dumps(cells))
    kept = options.out is not None or not quick
    images = options.out or DOCS / "images"
    if kept:
        draw(cells, images)
    place = "" if options.out else "../images/"
    picture = (
        "![Draws of the true score fill the circle, those of the score of 200 points are these points; memorised "
        "fraction against the noise that is left; distance to the circle of three scores; local dimension by noise "
        f"level.]({place}manifolds.png)"
    )
    parts, passed = report(cells, picture)
    if kept:
        keep("manifolds", "Scores and manifolds", *parts, out=options.out or DOCS / "papers")
    else:
        print("\n\n".join(parts))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
