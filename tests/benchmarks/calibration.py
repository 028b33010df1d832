"""Are learned posteriors calibrated under the default sampler, and are wrong ones caught?

Run it as `python -m tests.benchmarks.calibration [--tasks A,B] [--simulations N] [--quick] [--json FILE]
[--out FOLDER]`. It needs the extra `bench`.

Two tasks of the benchmark of simulation-based inference are learned with default settings and calibrated on fresh
simulations; then the same posteriors with draws 30% too far from their centre, and with draws shifted by half a
standard deviation of what a regression leaves over. The exit status is 1 if a learned one fails or a wrong one passes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import scoresample as ss
from scoresample.nn import Encoded
from scoresample.paths import CentredScore
from tests.benchmarks.report import keep, table
from tests.benchmarks.sbibm_tasks import TASKS

STRETCH, SHIFT = 1.3, 0.5


class Moved(eqx.Module):
    """A centre, moved by a vector.

    Attributes:
        centre: condition -> position.
        by: the vector.
    """

    centre: Any
    by: jax.Array

    def __call__(self, condition: Encoded) -> jax.Array:
        """The moved centre."""
        return self.centre(condition) + self.by


def mixing_of(posterior: ss.AmortisedPosterior) -> jax.Array:
    """The matrix from residuals to positions."""
    mixing = posterior.score.frame.mixing
    assert mixing is not None
    return mixing


def stretched(posterior: ss.AmortisedPosterior) -> ss.AmortisedPosterior:
    """Draws too far from the centre."""
    score, mixing = posterior.score, mixing_of(posterior)
    wide = CentredScore(score.inner, score.centre, STRETCH * mixing, constrain=score.constrain)
    return eqx.tree_at(lambda p: p.score, posterior, wide)


def shifted(posterior: ss.AmortisedPosterior) -> ss.AmortisedPosterior:
    """Draws that are all off in the same direction."""
    score, mixing = posterior.score, mixing_of(posterior)
    by = SHIFT * jnp.sqrt(jnp.diag(mixing @ mixing.T))
    moved = CentredScore(score.inner, Moved(score.centre, by), mixing, constrain=score.constrain)
    return eqx.tree_at(lambda p: p.score, posterior, moved)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=["gaussian_linear", "two_moons"])
    parser.add_argument("--simulations", type=int, default=1_000, help="of each calibration")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="one task, little of everything")
    args = parser.parse_args()
    settings: dict[str, Any] = {}
    if args.quick:
        args.tasks, args.simulations = ["gaussian_linear"], 100
        settings = {"num_simulations": 1000, "num_epochs": 3}
        args.out = args.out or Path(tempfile.mkdtemp())
    found, lines, holds = [], [], True
    for task in args.tasks:
        made = TASKS[task]()
        posterior = ss.fit_posterior(
            made.simulator(informed=False), key=jax.random.key(1), exchangeable=made.exchangeable, progress=False,
            **settings,
        )  # fmt: skip
        kinds = {"as learned": posterior, "too wide": stretched(posterior), "shifted": shifted(posterior)}
        for kind, tested in kinds.items():
            result = ss.calibrate(tested, key=jax.random.key(2), num_simulations=args.simulations, progress=False)
            failed = [check.name for check in result.checks if not check.passed]
            right = bool(failed) == (kind != "as learned")
            holds = holds and right
            found.append({"task": task, "posterior": kind, "failed": failed, "seconds": result.seconds})
            print(result, flush=True)
            of = {word: sum(word in name for name in failed) for word in ("SBC", "coverage", "TARP")}
            lines.append(
                [
                    task,
                    kind,
                    *(str(n) if n else "passed" for n in of.values()),
                    f"{result.seconds:.0f}",
                    "" if right else "**wrong**",
                ]
            )
    text = (
        f"Default training and sampler, {args.simulations:,} fresh simulations each. Too wide: draws {STRETCH:g} times "
        f"as far from their centre. Shifted: by {SHIFT:g} standard deviations of the residuals. A number counts the "
        "checks that failed."
    )
    header = ["task", "posterior", "ranks (SBC)", "coverage", "TARP", "s", ""]
    keep("calibration", "Calibration of learned posteriors", text, table(header, lines), out=args.out)
    if args.json:
        args.json.write_text(json.dumps(found))
    sys.exit(0 if holds or args.quick else 1)


if __name__ == "__main__":
    main()
