"""The command line: ``scoresample compare``, ``posterior``, ``sample``, ``resume`` and ``samplers``."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import jax

from scoresample._version import __version__
from scoresample.cli._choices import chosen_samplers
from scoresample.cli._models import BUILT_IN, load_model
from scoresample.cli._posterior import add_posterior, run_posterior
from scoresample.cli._sample import add_sample, run_resume, run_sample
from scoresample.inference import SamplingError
from scoresample.samplers import (
    AbstractSampler,
    available_samplers,
)
from scoresample.workflows import compare_samplers

_DEFAULT_SAMPLERS = "nuts,reverse-sde,probability-flow,predictor-corrector,annealed-langevin"
_USER_ERROR, _RUN_FAILED = 2, 1

_DESCRIPTION = """\
Sample a posterior, or learn the posteriors of a simulator, and write one report that says what can be trusted.

examples:
  scoresample compare eight_schools --out report/
  scoresample compare mixture --samplers nuts,reverse-sde --out report/
  scoresample compare my_model.py:posterior --samplers nuts,hmc --out report/
  scoresample posterior two_moons --out report/
  scoresample posterior my_simulator.py:simulator --observed data.npz --out report/
  scoresample sample eight_schools --num-samples 100000 --store run.zarr
  scoresample resume run.zarr
  scoresample samplers
"""

_MODELS = "\n".join(
    textwrap.fill(f"{name}: {(build.__doc__ or '').strip()}", 100, initial_indent="  ", subsequent_indent="    ")
    for name, build in BUILT_IN.items()
)

_COMPARE = f"""\
Draw from MODEL with each sampler, compare the draws with a reference, and write DIR/report.html.

The reference is a NUTS run, or exact draws where the density is known in closed form. Samplers that follow a path from
noise to data (see `scoresample samplers`) run on a score learned from a separate pilot run.

built-in models:
{_MODELS}

your own model: path/to/file.py:function, a function without arguments that returns a score or a path, or is a NumPyro
model with its data inside. The file is run: name only files that you trust.

exit status: 0 if the report was written, whatever it says; 1 if a sampler failed; 2 if the command was wrong.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="scoresample", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"scoresample {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="run samplers on one model and write a report",
        description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("model", metavar="MODEL", help="a built-in name, or path/to/file.py:function")
    compare.add_argument(
        "--samplers",
        default=_DEFAULT_SAMPLERS,
        metavar="NAMES",
        help="names separated by commas (default: %(default)s)",
    )
    compare.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="folder of the report")
    compare.add_argument("--num-samples", type=int, default=1000, metavar="N", help="draws of each chain (%(default)s)")
    compare.add_argument("--num-chains", type=int, default=4, metavar="N", help="number of chains (%(default)s)")
    compare.add_argument("--num-warmup", type=int, default=1000, metavar="N", help="warm-up steps (%(default)s)")
    compare.add_argument("--epochs", type=int, metavar="N", help="passes over the draws in training a score")
    compare.add_argument(
        "--target-acceptance", type=float, default=0.9, metavar="RATE", help="what NUTS and HMC tune to (%(default)s)"
    )
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    compare.add_argument("--save-draws", action="store_true", help="also write each run as DIR/draws/NAME.nc")
    compare.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_posterior(commands)
    add_sample(commands)
    commands.add_parser("samplers", help="list the samplers", description="List the samplers by name.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Arguments:
        arguments: the words after the program's name; those of the process if None.

    Returns:
        The exit status.
    """
    options = build_parser().parse_args(arguments)
    if options.command == "samplers":
        print(samplers_table())
        return 0
    try:
        return _COMMANDS[options.command](options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        failed = isinstance(error, SamplingError)
        print(f"scoresample: {'a run failed' if failed else 'error'}: {error}", file=sys.stderr)
        print("Run again with --debug for the traceback.", file=sys.stderr)
        return _RUN_FAILED if failed else _USER_ERROR


def samplers_table() -> str:
    """The samplers by name, with what each runs on and where it comes from."""
    rows = [("name", "runs on", "source")]
    for name, sampler in available_samplers().items():
        if issubclass(sampler, AbstractSampler):
            needs = "a density" if sampler.needs_density else "any score"
        else:
            needs = "a path from noise to data"
        rows.append((name, needs, sampler.reference))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _compare(options: argparse.Namespace) -> int:
    samplers = chosen_samplers(options.samplers, options.target_acceptance)
    target = load_model(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    comparison = compare_samplers(
        target,
        samplers,
        key=jax.random.key(options.seed),
        num_samples=options.num_samples,
        num_chains=options.num_chains,
        num_warmup=options.num_warmup,
        title=f"Samplers on {options.model}",
        report=lambda line: print(f"... {line}", file=sys.stderr, flush=True),
        **({} if options.epochs is None else {"num_epochs": options.epochs}),
    )
    print(comparison)
    report = comparison.save(options.out / "report.html")
    if options.save_draws:
        folder = options.out / "draws"
        folder.mkdir(exist_ok=True)
        for name, run in comparison.runs.items():
            run.draws.to_arviz().to_netcdf(folder / f"{name.replace(' ', '_')}.nc", engine="h5netcdf")
    print(f"\nThe report is at {report}")
    return 0


_COMMANDS = {"compare": _compare, "posterior": run_posterior, "sample": run_sample, "resume": run_resume}
