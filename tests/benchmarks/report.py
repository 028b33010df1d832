"""Tables of benchmarks: printed, and kept as pages of the documentation."""

import json
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

FOLDER = Path(__file__).parent.parent.parent / "docs" / "benchmarks"


def machine() -> str:
    """Where and with what a table was measured."""
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("scoresample", "jax", "diffrax", "blackjax", "numpyro"))
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {platform.machine()}, {jax.device_count()} x {device.platform} "
        f"({device.device_kind}); Python {platform.python_version()}, {versions}."
    )


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, with columns wide enough to be read as plain text."""
    # A bar inside a cell would end it.
    header, *lines = ([cell.replace("|", "\\|") for cell in line] for line in [header, *lines])
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([row(header), row(["-" * width for width in widths]), *(row(line) for line in lines)])


def snippet(name: str, text: str) -> str:
    """A part of a page that other pages of the documentation show too."""
    return f"<!-- --8<-- [start:{name}] -->\n\n{text}\n\n<!-- --8<-- [end:{name}] -->"


def against_goal(value: float, goal: float | None, text: str) -> str:
    """A cell, marked where it misses its goal."""
    return text if goal is None or value <= goal else f"**{text}** (goal {goal:.3g})"


def cached(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A cell's numbers, measured if they are not there yet: a long benchmark that was interrupted goes on."""
    path = folder / f"{name.replace(' ', '_').replace('+', 'and')}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def keep(name: str, title: str, *parts: str, out: Path | None = None) -> None:
    """Print a report, and write it to the documentation's folder of benchmarks (or to a folder of your own)."""
    text = "\n\n".join([f"# {title}", *parts, machine()]) + "\n"
    print(text)
    folder = FOLDER if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text)
