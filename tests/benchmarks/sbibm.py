"""Posteriors from simulators, beside the reference draws of the benchmark of simulation-based inference.

Run it as `python -m tests.benchmarks.sbibm [--simulations N] [--small N] [--tasks A,B] [--observations 1,2,3,4,5]
[--informed free,informed] [--draws N] [--peers] [--quick] [--cache FOLDER] [--json FILE] [--out FOLDER]`. It needs the
extra `bench` (the package `sbibm-jax`).

Every task is trained twice with the default settings: from simulations alone, and with the gradient of the likelihood
("informed"). C2ST is that of the benchmark: 10,000 draws against 10,000 reference draws, on inputs scaled by the
reference. Corrected draws are those that the certificate says to use, by weights or by moves that leave the exact
posterior invariant. A second training on `--small` simulations gives worse posteriors for the certificates to judge:
none may say "use" of draws that a classifier tells apart. With `--peers` the package `sbi` runs beside it, where it
and torch are installed (see `sbibm_peers`). Cells are kept in the cache as they are made, so an
interrupted run goes on. Nothing is chosen by the references. The exit status is 1 if a goal fails.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scoresample as ss
from scoresample.diagnostics import c2st
from tests.benchmarks.report import cached, keep, table
from tests.benchmarks.sbibm_peers import PEERS, peers_are_here, train_and_draw_peer
from tests.benchmarks.sbibm_tasks import TASKS, of_package

GOALS = {
    "two_moons": 0.53,
    "gaussian_mixture": 0.53,
    "gaussian_linear": 0.515,
    "gaussian_linear_uniform": 0.53,
    "bernoulli_glm": 0.62,
    "slcp": 0.70,
    "sir": 0.62,
}
INFORMED_GOALS = {"bernoulli_glm": 0.56, "slcp": 0.65}
CORRECTED_GOAL = 0.52
TRAINING_GOAL, DRAWING_GOAL = 180.0, 1.5
NUM_DRAWS = 10_000
HONEST_GOAL, MISLED = 0.53, 0.6
FEWEST_PAIRS = 40
"""Certificates: largest C2ST under "use", the one at which "use" is a lie, and how many must be looked at."""
CORRECTED_OBSERVATIONS = (1, 2)
USABLE = ("use", "use weighted", "use polished")
VERDICTS = (*USABLE, "do not use")


def reference(task: str, observation: int) -> tuple[np.ndarray, np.ndarray]:
    """The observation and the reference draws."""
    package = of_package(task)
    return np.asarray(package.get_observation(observation)).reshape(TASKS[task]().shape), np.asarray(
        package.get_reference_posterior_samples(observation)
    )


def parameters(draws: ss.Draws) -> np.ndarray:
    """Draws as a matrix of parameters."""
    flat = jnp.asarray(draws.position).reshape(-1, draws.position.shape[-1])
    return np.asarray(jax.vmap(draws.constrain)(flat)["theta"])


def name_of(task: str, informed: bool) -> str:
    """What a cell is called."""
    return f"{task}_{'informed' if informed else 'free'}"


def train_and_draw(
    task: str, informed: bool, simulations: int, observations: list[int], folder: Path, num_draws: int
) -> dict[str, Any]:
    """Train, draw under all observations, certify under some, and keep the draws beside the cell."""
    made = TASKS[task]()
    started = time.process_time()
    posterior = ss.fit_posterior(
        made.simulator(),
        key=jax.random.key(1),
        num_simulations=simulations,
        exchangeable=made.exchangeable,
        informed=informed,
        progress=False,
    )
    result: dict[str, Any] = {"training": time.process_time() - started, "observations": {}}
    sampler = ss.ProbabilityFlowODE(num_steps=20, solver="dpm-solver++2m")
    for observation in observations:
        x, _ = reference(task, observation)
        path, key = posterior.given(x), jax.random.key(100 + observation)
        settings: dict[str, Any] = {"key": key, "num_samples": num_draws, "num_chains": 1, "progress": False}
        draws = ss.sample(path, sampler, **settings)
        started = time.process_time()
        draws = ss.sample(path, sampler, **settings)
        cell: dict[str, Any] = {"drawing": time.process_time() - started, "nfe": draws.nfe}
        arrays = {"raw": parameters(draws)}
        if observation in CORRECTED_OBSERVATIONS:
            with_density = ss.sample(path, ss.WithDensity(sampler), **settings)
            target = posterior.density(x)
            certificate = ss.certify(with_density, target, key=key)
            found = certificate.draws
            # A two-sample test counts repetitions of resampled draws: weighted draws are moved as well.
            mended = (
                found if found.log_weights is None else ss.polish(ss.reweight(with_density, target), target, key=key)
            )
            cell |= {
                "verdict": certificate.verdict,
                "total_variation": certificate.total_variation,
                "pareto_k": certificate.pareto_k,
                "ess": certificate.ess_share,
                "log_evidence": certificate.log_evidence,
            }
            arrays["corrected"] = parameters(mended)
        np.savez(folder / f"{name_of(task, informed)}_{observation}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        result["observations"][str(observation)] = cell
    # Programs of one training serve no other, and a process has room for only so many.
    jax.clear_caches()
    return result


def scored(name: str, task: str, observation: int, kind: str, folder: Path, num_draws: int) -> dict[str, float]:
    """C2ST of draws of a kind, "raw" or "corrected", in the file of that name."""
    _, exact = reference(task, observation)
    with np.load(folder / f"{name}_{observation}.npz") as arrays:
        return {kind: c2st(exact[:num_draws], arrays[kind], num_processes=2)}


def folder_of(simulations: int, args: argparse.Namespace) -> Path:
    """Where the cells of one budget are kept."""
    folder = Path(args.cache) / f"{simulations}-{args.draws}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def trained(
    task: str, informed: bool, simulations: int, observations: list[int], args: argparse.Namespace
) -> dict[str, Any]:
    """One training with its draws, from the cache or made now."""
    folder = folder_of(simulations, args)
    return cached(
        folder,
        name_of(task, informed),
        lambda: train_and_draw(task, informed, simulations, observations, folder, args.draws),
    )


def cells(simulations: int, observations: list[int], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything at one budget, from the cache or made now."""
    folder = folder_of(simulations, args)
    found = []
    for task, informed, observation in itertools.product(args.tasks, args.informed, observations):
        run = trained(task, informed, simulations, observations, args)
        name = name_of(task, informed)
        cell = {"task": task, "informed": informed, "observation": observation, "simulations": simulations}
        cell |= {"training": run["training"]} | run["observations"][str(observation)]
        # What the certificate refuses has no corrected draws to score.
        for kind in ("raw", "corrected") if cell.get("verdict") in USABLE else ("raw",):
            cell |= cached(
                folder,
                f"{name}_{observation}_{kind}",
                lambda n=name, t=task, o=observation, k=kind: scored(n, t, o, k, folder, args.draws),
            )
        found.append(cell)
        print(json.dumps(cell), flush=True)
    return found


def peers_trained(peer: str, task: str, args: argparse.Namespace) -> dict[str, Any]:
    """One training of a peer with its draws, from the cache or made now."""
    folder = folder_of(args.simulations, args)
    return cached(
        folder,
        f"{peer}_{task}",
        lambda: train_and_draw_peer(peer, task, args.simulations, CORRECTED_OBSERVATIONS, folder, args.draws),
    )


def beside_peers(found: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table of this package beside `sbi`, under the first observations."""
    folder, lines = folder_of(args.simulations, args), []
    for task in args.tasks:
        ours = [c for c in found if (c["task"], c["informed"]) == (task, False) and "verdict" in c]
        runs = {"scoresample, free": [(c["raw"], c["drawing"], c["training"]) for c in ours]}
        for peer in PEERS:
            run = peers_trained(peer, task, args)
            runs[f"sbi, {peer}"] = [
                (
                    cached(
                        folder,
                        f"{peer}_{task}_{o}_raw",
                        lambda n=f"{peer}_{task}", t=task, o=o: scored(n, t, o, "raw", folder, args.draws),
                    )["raw"],
                    run["observations"][str(o)]["drawing"],
                    run["training"],
                )
                for o in CORRECTED_OBSERVATIONS
            ]
        for name, of in runs.items():
            if of:
                value, drawing, training = np.array(of).T
                each = " ".join(f"{v:.3f}" for v in value)
                lines.append([task, name, f"{value.mean():.3f}", each, f"{training[0]:.0f}", f"{drawing.mean():.2f}"])
    header = ["task", "method", "C2ST", "observations 1, 2", "training, CPU s", f"{args.draws:,} draws, CPU s"]
    return table(header, lines)


def honesty(found: list[dict[str, Any]]) -> tuple[str, bool]:
    """All certificates beside C2ST: a line for each verdict and budget, and whether none is misled."""
    certified = [cell for cell in found if "verdict" in cell]
    lines = []
    for simulations in sorted({cell["simulations"] for cell in certified}):
        for verdict in VERDICTS:
            of = [c for c in certified if (c["simulations"], c["verdict"]) == (simulations, verdict)]
            if of:
                mended = f"{max(c['corrected'] for c in of):.3f}" if verdict in USABLE else "-"
                lines.append(
                    [
                        f"{simulations:,}",
                        verdict,
                        str(len(of)),
                        f"{min(c['raw'] for c in of):.3f}",
                        f"{max(c['raw'] for c in of):.3f}",
                        mended,
                    ]
                )
    used = [cell["raw"] for cell in certified if cell["verdict"] == "use"]
    holds = all(value <= HONEST_GOAL for value in used)
    enough = len(certified) >= FEWEST_PAIRS
    text = (
        f'{len(certified)} certificates{"" if enough else " (**fewer than meant**)"}; {len(used)} say "use", '
        f"{sum(value > HONEST_GOAL for value in used)} of them of draws with C2ST above {HONEST_GOAL:g}, "
        f"{sum(value > MISLED for value in used)} above {MISLED:g}."
    )
    header = ["simulations", "verdict", "pairs", "least C2ST as drawn", "largest", "largest after correction"]
    return f"{text}\n\n{table(header, lines)}", holds and enough


def rows(found: list[dict[str, Any]]) -> tuple[list[list[str]], bool]:
    """The table, a line for each task and kind, and whether all goals hold."""
    lines, holds = [], True
    for task in TASKS:
        for informed in (False, True):
            of_task = [cell for cell in found if (cell["task"], cell["informed"]) == (task, informed)]
            if not of_task:
                continue
            goal = (INFORMED_GOALS if informed else GOALS).get(task)
            mean = float(np.mean([cell["raw"] for cell in of_task]))
            usable = [cell for cell in of_task if cell.get("verdict") in USABLE]
            corrected = [cell["corrected"] for cell in usable]
            training, drawing = of_task[0]["training"], float(np.median([cell["drawing"] for cell in of_task]))
            missed = [
                goal is not None and mean > goal,
                bool(corrected) and float(np.mean(corrected)) > CORRECTED_GOAL,
                training > TRAINING_GOAL,
                drawing > DRAWING_GOAL,
            ]
            holds = holds and not any(missed)
            certified = [cell for cell in of_task if "verdict" in cell]
            corrected_text = [f"{cell['corrected']:.3f}" if "corrected" in cell else "-" for cell in certified]
            lines.append(
                [
                    task,
                    "informed" if informed else "free",
                    marked(f"{mean:.3f}", missed[0]),
                    "" if goal is None else f"{goal:g}",
                    " ".join(f"{cell['raw']:.3f}" for cell in of_task),
                    ", ".join(cell["verdict"] for cell in certified),
                    " ".join(f"{cell['pareto_k']:.2f}" for cell in certified),
                    " ".join(f"{cell['ess']:.0%}" for cell in certified),
                    marked(" ".join(corrected_text), missed[1]),
                    marked(f"{training:.0f}", missed[2]),
                    marked(f"{drawing:.2f}", missed[3]),
                ]
            )
    return lines, holds


def marked(text: str, missed: bool) -> str:
    """A cell, in bold where it misses its goal."""
    return f"**{text}** (missed)" if missed else text


HEADER = [
    "task", "network", "C2ST", "goal", "each observation", "certificate (1, 2)", "k", "ESS", "corrected (1, 2)",
    "training, CPU s", "10,000 draws, CPU s",
]  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--small", type=int, default=1_000, help="of the certificates' second trainings, 0 for none")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS))
    parser.add_argument("--observations", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2, 3, 4, 5])
    parser.add_argument("--informed", type=lambda t: [k == "informed" for k in t.split(",")], default=[False, True])
    parser.add_argument("--draws", type=int, default=NUM_DRAWS)
    parser.add_argument("--cache", default=str(Path(tempfile.gettempdir()) / "scoresample-sbibm"))
    parser.add_argument("--peers", action="store_true", help="run sbi's NPSE and NPE too, if torch and sbi are here")
    parser.add_argument("--json")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="one cheap task, one observation")
    args = parser.parse_args()
    if args.peers and not peers_are_here():
        print("torch and sbi are not installed here: going on without them (see tests/benchmarks/sbibm_peers.py).")
        args.peers = False
    if args.quick:
        args.tasks, args.observations, args.informed = ["gaussian_linear"], [1], [False]
        args.cache, args.small = tempfile.mkdtemp(), 0
        args.out = args.out or Path(tempfile.mkdtemp())
    budgets = {args.simulations: args.observations}
    if args.small:
        budgets[args.small] = [o for o in args.observations if o in CORRECTED_OBSERVATIONS]
    # All that is timed comes first, so that nothing else need wait for the classifiers.
    for simulations, observations in budgets.items():
        for task, informed in itertools.product(args.tasks, args.informed):
            run = trained(task, informed, simulations, observations, args)
            print(f"{simulations} simulations, {name_of(task, informed)}: {json.dumps(run)}", flush=True)
    for task, peer in itertools.product(args.tasks if args.peers else (), PEERS):
        print(f"{peer}, {task}: {json.dumps(peers_trained(peer, task, args))}", flush=True)
    found = cells(args.simulations, args.observations, args)
    lines, holds = rows(found)
    parts = [f"{args.simulations:,} simulations, {args.draws:,} draws of each posterior.", table(HEADER, lines)]
    if args.small:
        found += cells(args.small, budgets[args.small], args)
        text, honest = honesty(found)
        holds, parts = holds and honest, [*parts, "## Are the certificates honest?", text]
    if args.peers:
        parts = [
            *parts,
            f"## Beside sbi {version('sbi')}",
            "With its defaults, on as many simulations.",
            beside_peers(found, args),
        ]
    keep("sbibm", "Posteriors from simulators", *parts, out=args.out)
    if args.json:
        Path(args.json).write_text(json.dumps(found))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
