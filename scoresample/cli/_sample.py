"""The commands ``scoresample sample`` and ``scoresample resume``: one sampler on one model, in a store."""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax

from scoresample.cli._choices import chosen_samplers
from scoresample.cli._models import BUILT_IN, load_model
from scoresample.inference import note_of, noted, sample
from scoresample.paths import VP, perturb
from scoresample.report import compare
from scoresample.samplers import AbstractParticleSampler, TemperedSMC
from scoresample.scores import AbstractExactDensity, AbstractScore

_SAMPLE = """\
Draw from MODEL with one sampler, into a store that is right at any moment: a run that was killed goes on with
`scoresample resume`, to the same bits. ArviZ and scoresample.load read the store, also while the run goes on.

MODEL is a built-in name or path/to/file.py:function, as in `scoresample compare`. Samplers that follow a path from
noise to data need a model that is such a path, or a density in closed form.
"""

_RESUME = """\
Go on with a run that `scoresample sample` began, where it stopped, on any number of devices.

A store is data and runs nothing. If the model was a file of yours, name it again with --model: it is run.
"""


def add_sample(commands: Any) -> None:
    """Add both commands to a parser.

    Arguments:
        commands: what `add_subparsers` returned.
    """
    parser = commands.add_parser(
        "sample",
        help="run one sampler into a store that survives",
        description=_SAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a built-in name, or path/to/file.py:function")
    parser.add_argument("--sampler", default="nuts", metavar="NAME", help="its name (%(default)s)")
    parser.add_argument("--store", type=Path, default=Path("run.zarr"), metavar="DIR", help="the store (%(default)s)")
    parser.add_argument("--num-samples", type=int, default=1000, metavar="N", help="draws of each chain (%(default)s)")
    parser.add_argument("--num-chains", type=int, default=4, metavar="N", help="number of chains (%(default)s)")
    parser.add_argument("--num-warmup", type=int, default=1000, metavar="N", help="warm-up steps (%(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="chains or particles of a block")
    parser.add_argument(
        "--target-acceptance", type=float, default=0.9, metavar="RATE", help="what NUTS and HMC tune to (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    _add_common(parser)
    parser = commands.add_parser(
        "resume",
        help="go on with a run in a store",
        description=_RESUME,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=Path, metavar="DIR", help="the store")
    parser.add_argument("--model", metavar="MODEL", help="path/to/file.py:function, if the model is a file of yours")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/report.html")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run_sample(options: argparse.Namespace) -> int:
    """Run ``scoresample sample``.

    Arguments:
        options: what the parser read.

    Returns:
        The exit status.
    """
    names = ("model", "sampler", "num_samples", "num_chains", "num_warmup", "batch_size", "target_acceptance", "seed")
    return _run({name: getattr(options, name) for name in names}, options.store, options.out)


def run_resume(options: argparse.Namespace) -> int:
    """Run ``scoresample resume``.

    Arguments:
        options: what the parser read.

    Returns:
        The exit status.
    """
    note = note_of(options.store)
    if note is None or "model" not in note:
        raise ValueError(
            f"{options.store} was not begun by `scoresample sample`. In Python, call sample(..., store=) with the same "
            "arguments as before."
        )
    if options.model is None and note["model"] not in BUILT_IN:
        raise ValueError(
            f"the model of {options.store} is '{note['model']}', a file, which runs only if you name it: "
            f"scoresample resume {options.store} --model {note['model']}"
        )
    return _run(note | ({} if options.model is None else {"model": options.model}), options.store, options.out)


def _run(asked: dict[str, Any], store: Path, out: Path | None) -> int:
    ((name, sampler),) = chosen_samplers(asked["sampler"], asked["target_acceptance"], only_one=True).items()
    target: Any = load_model(asked["model"])
    if isinstance(sampler, AbstractParticleSampler) and isinstance(target, AbstractScore):
        if not isinstance(target, AbstractExactDensity) or isinstance(sampler, TemperedSMC):
            raise ValueError(
                f"`--sampler {name}` follows a path from noise to data, and '{asked['model']}' is none. Take a sampler "
                "of chains, such as nuts, or `scoresample compare`, which learns a score."
            )
        target = perturb(target, VP())
    settings = {key: asked[key] for key in ("num_samples", "num_chains", "num_warmup", "batch_size")}
    with noted(**asked):
        draws = sample(target, sampler, key=jax.random.key(asked["seed"]), store=store, **settings)
    comparison = compare({name: draws}, title=f"{name} on {asked['model']}")
    print(comparison)
    print(f"\nThe draws are in {store}", file=sys.stderr)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        print(f"The report is at {comparison.save(out / 'report.html')}")
    return 0
