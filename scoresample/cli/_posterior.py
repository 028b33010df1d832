"""The command ``scoresample posterior``: learn the posteriors of a simulator, and report on those of the data."""

import argparse
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scoresample.cli._observations import as_observations, names_of, read_arrays
from scoresample.cli._simulators import BUILT_IN_SIMULATORS, load_simulator
from scoresample.scores import AbstractSimulator
from scoresample.workflows import Calibration, analyse_posterior, calibrate, fit_posterior

_MOST_OBSERVATIONS = 10
"""Analysed without being named: each has a report of its own."""
_NUM_SIMULATIONS = 10_000
_GAP_SIMULATIONS = 1000
"""In which numbers must be missing at least once, if they are in the data."""

_SIMULATORS = "\n".join(
    textwrap.fill(f"{name}: {(build.__doc__ or '').strip()}", 100, initial_indent="  ", subsequent_indent="    ")
    for name, build in BUILT_IN_SIMULATORS.items()
)

_DESCRIPTION = f"""\
Learn the posteriors of a simulator from simulations, draw from that of the data, and write DIR/report.html and
DIR/draws/posterior.nc (and nuts.nc).

Where the simulator has a likelihood, the draws are certified by the exact density, and NUTS runs beside them. Where it
has none, calibration on fresh simulations says whether posteriors are right on average.

built-in simulators, with data of their own:
{_SIMULATORS}

your own simulator: path/to/file.py:NAME, where NAME is a simulator (what scoresample.simulator returns), a function
without arguments that returns one or a pair (simulator, observation), or a NumPyro model that draws its observations,
whose names are then those in the file of data. The file is run: name only files that you trust.

data: .npz or .json, arrays by name; .npy, one array; .csv, whose first line names the columns (x[0], x[1], ... are one
array). NaN, null and empty cells are missing numbers. A leading axis holds several observations: the posteriors are
trained once, and each observation gets a report in DIR/observation-K.
Of more than {_MOST_OBSERVATIONS}, --rows names some.

exit status: 0 if the report was written, whatever it says; 1 if sampling failed; 2 if the command was wrong.
"""


def add_posterior(commands: Any) -> None:
    """Add the command to a parser.

    Arguments:
        commands: what `add_subparsers` returned.
    """
    parser = commands.add_parser(
        "posterior",
        help="learn the posteriors of a simulator and report on that of the data",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a built-in name, or path/to/file.py:NAME")
    parser.add_argument("--observed", type=Path, metavar="FILE", help="the data (built-in: those of the simulator)")
    parser.add_argument("--rows", metavar="K,K", help="which of several observations, counted from 0 (all)")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="folder of the report")
    parser.add_argument("--simulations", type=int, metavar="N", help=f"simulations to train on ({_NUM_SIMULATIONS})")
    parser.add_argument("--fresh", action="store_true", help="new simulations in every epoch, where they cost little")
    parser.add_argument("--informed", action="store_true", help="show the network the gradient of the exact density")
    parser.add_argument("--exchangeable", action="store_true", help="the first axis of the data holds alike parts")
    parser.add_argument(
        "--epochs", type=int, default=200, metavar="N", help="passes over the simulations (%(default)s)"
    )
    parser.add_argument("--num-samples", type=int, default=2000, metavar="N", help="draws (%(default)s)")
    parser.add_argument(
        "--calibrate", type=int, default=200, metavar="N", help="observations to calibrate on, 0 for none (%(default)s)"
    )
    parser.add_argument("--no-nuts", action="store_true", help="do not run NUTS on the exact density")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run_posterior(options: argparse.Namespace) -> int:
    """Run the command.

    Arguments:
        options: what the parser read.

    Returns:
        The exit status.
    """
    _check_options(options)
    arrays = None if options.observed is None else read_arrays(options.observed)
    model, own = load_simulator(options.model, names_of(arrays))
    if arrays is not None:
        observations = as_observations(arrays, model, str(options.observed))
    elif own is not None:
        observations = [own]
    else:
        raise ValueError(f"`--observed` is needed: '{options.model}' brings no data of its own.")
    chosen = _rows(options.rows, len(observations))
    _check_gaps(model, [observations[k] for k in chosen], str(options.observed or options.model))
    if options.informed and not model.has_likelihood():
        raise ValueError("`--informed` needs the density of observations, which this simulator does not have.")
    options.out.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        print(f"... {line}", file=sys.stderr, flush=True)

    key_fit, key_calibrate, key_analyse = jax.random.split(jax.random.key(options.seed), 3)
    tell("simulating and training")
    posterior = fit_posterior(
        model,
        key=key_fit,
        num_simulations=None if options.fresh else (options.simulations or _NUM_SIMULATIONS),
        num_epochs=options.epochs,
        informed=options.informed,
        exchangeable=options.exchangeable,
    )
    calibration: Calibration | int = 0
    if options.calibrate:
        tell(f"calibrating on {options.calibrate} simulated observations")
        calibration = calibrate(posterior, key=key_calibrate, num_simulations=options.calibrate)
    for k in chosen:
        alone = len(observations) == 1
        if not alone:
            tell(f"observation {k}")
        found = analyse_posterior(
            posterior,
            observations[k],
            key=jax.random.fold_in(key_analyse, k),
            num_samples=options.num_samples,
            nuts=not options.no_nuts,
            calibration=calibration,
            title=f"Posterior of {options.model}" + ("" if alone else f", observation {k}"),
            reproduce=_command(options),
            report=tell,
        )
        folder = options.out if alone else options.out / f"observation-{k}"
        print(found)
        print(f"\nThe report is at {found.save(folder)}")
    return 0


def _check_options(options: argparse.Namespace) -> None:
    if options.fresh and options.simulations is not None:
        raise ValueError("`--fresh` simulates anew in every epoch: leave `--simulations` out.")
    if options.calibrate and options.calibrate < 100:
        raise ValueError(f"`--calibrate` must be at least 100, or 0 for none, got {options.calibrate}.")
    if options.num_samples < 100:
        raise ValueError(f"`--num-samples` must be at least 100, got {options.num_samples}.")


def _rows(rows: str | None, number: int) -> list[int]:
    """Which observations to analyse."""
    if rows is None:
        if number > _MOST_OBSERVATIONS:
            raise ValueError(
                f"`--observed` holds {number} observations, each of which gets a report of its own, at most "
                f"{_MOST_OBSERVATIONS} of them. Name some: --rows 0,1,2."
            )
        return list(range(number))
    try:
        chosen = [int(row) for row in rows.split(",")]
    except ValueError:
        chosen = [-1]
    if not all(0 <= row < number for row in chosen):
        raise ValueError(f"`--rows` must be numbers from 0 to {number - 1}, separated by commas, got {rows!r}.")
    return list(dict.fromkeys(chosen))


def _check_gaps(model: AbstractSimulator, observations: list[Any], source: str) -> None:
    """Raise, before a long training, where numbers are missing that the simulator never leaves out."""
    missing = sum(int(np.isnan(leaf).sum()) for one in observations for leaf in jax.tree.leaves(one))
    if not missing:
        return
    simulated = model.simulate(jax.random.key(0), _GAP_SIMULATIONS)[1]
    if not any(bool(np.isnan(np.asarray(leaf)).any()) for leaf in jax.tree.leaves(simulated)):
        raise ValueError(
            f"`--observed`: {missing} numbers of '{source}' are missing, but the simulator leaves out none. Let it "
            "leave numbers out (NaN) as often as the data do."
        )


def _command(options: argparse.Namespace) -> str:
    """The command that makes the report again."""
    words = ["scoresample", "posterior", options.model]
    names = ("observed", "rows", "out", "simulations", "epochs", "num_samples", "calibrate", "seed")
    for name in names:
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    flags = ("fresh", "informed", "exchangeable", "no_nuts")
    return shlex.join([*words, *(f"--{name.replace('_', '-')}" for name in flags if getattr(options, name))])
