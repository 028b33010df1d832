"""What `compare` returns: a table, a verdict for every run, and a report to read."""

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scoresample.checks import Check
from scoresample.diagnostics import ManifoldHealth, Memorisation, ModeWeights, SamplingBudget, ScoreHealth
from scoresample.report._budgets import BUDGET_COLUMNS, budget_content
from scoresample.report._fields import FieldStatistics
from scoresample.report._memorisation import MEMORISATION_COLUMNS, memorisation_content
from scoresample.report._statistics import Deviation, RunStatistics
from scoresample.report._table import NO_BREAK, shown, shown_columns
from scoresample.report._verdict import Verdict, form_verdict


@dataclass(frozen=True, repr=False)
class Comparison:
    """Runs beside each other, with a verdict for each.

    `print` shows the table and the verdicts; `save` writes the whole report as one HTML file.

    Attributes:
        title: heading of the report.
        reference: name of the run that the others were held against, or None.
        verdicts: whether each run can be trusted, by name.
        table: one row a run, one column a statistic; `ess_bulk_of` and the like name the quantity that is meant.
        notes: what a reader should know about how this was computed.
        runs: statistics of every run, by name.
        deviations: statistics of every run against the reference, by name; empty without one.
        modes: the modes' positions, shape (modes, dimension), or None.
        expected_modes: weights that the modes should have, with standard errors where a reference gave them.
        scores: what was found about the scores behind the runs, by name.
        manifolds: what was found about their manifolds, by name of the score.
        budgets: bounds on the divergence of the data from the draws, by name of the run.
        memorisation: whether draws are copies of the training set, by name of the run.
        fields: spectra and pictures of draws that are fields or images, by name of the run.
        seed: seed of every subsample, projection and split.
    """

    title: str
    reference: str | None
    verdicts: dict[str, Verdict]
    table: pd.DataFrame
    notes: tuple[str, ...]
    runs: dict[str, RunStatistics]
    deviations: dict[str, Deviation]
    modes: np.ndarray | None = field(default=None)
    expected_modes: np.ndarray | ModeWeights | None = field(default=None)
    scores: dict[str, ScoreHealth] = field(default_factory=dict)
    manifolds: dict[str, ManifoldHealth] = field(default_factory=dict)
    budgets: dict[str, SamplingBudget] = field(default_factory=dict)
    memorisation: dict[str, Memorisation] = field(default_factory=dict)
    fields: dict[str, FieldStatistics] = field(default_factory=dict)
    seed: int = 0

    @property
    def score_verdicts(self) -> dict[str, Verdict]:
        """Whether each score can be trusted, by name."""
        checks: dict[str, list[Check]] = {}
        for found in (self.scores, self.manifolds):
            for name, health in found.items():
                checks[name] = [*checks.get(name, []), *health.checks]
        return {name: form_verdict(each) for name, each in checks.items()}

    @property
    def checks(self) -> dict[str, tuple[Check, ...]]:
        """Every check behind every verdict, by name of the run."""
        return {name: verdict.checks for name, verdict in self.verdicts.items()}

    def __str__(self) -> str:
        """The verdicts and the table, for a terminal."""
        lines = [self.title, "=" * len(self.title), ""]
        for name, verdict in self.verdicts.items():
            lines += verdict_lines(f"{name}{' (reference)' if name == self.reference else ''}", verdict)
        lines += ["", _text_table(self.table), "", *self.notes]
        if self.score_verdicts:
            lines += ["", "Learned scores", "--------------"]
        for name, verdict in self.score_verdicts.items():
            lines += verdict_lines(name, verdict)
            if name in self.scores:
                health = self.scores[name]
                lines += [] if health.record is None else [f"  Training: {health.record}"]
                lines += ["", health.levels_text(), ""]
            if name in self.manifolds:
                manifold = self.manifolds[name]
                lines += ["", manifold.levels_text(), ""]
                lines += [f"{heading}: {text}" for heading, text in manifold.paragraphs().items()]
        if self.budgets:
            lines += ["", "Sampling budgets", "----------------"]
        for name, budget in self.budgets.items():
            lines += [f"{name}: {budget}", ""]
        if self.memorisation:
            lines += ["", "Copies of the training set", "--------------------------"]
        for name, found in self.memorisation.items():
            lines += [f"{name}: {found.meaning}", ""]
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> str:
        """Verdicts, checks and table as JSON; numbers that are not finite become null (infinities too).

        Returns:
            A JSON object with the keys ``title``, ``reference``, ``verdicts``, ``table``, ``modes``, ``scores``,
            ``notes`` and ``seed``, and ``budgets``, ``memorisation`` and ``fields`` where there are any.
        """
        content = {
            "title": self.title,
            "reference": self.reference,
            "verdicts": {name: _verdict_content(verdict) for name, verdict in self.verdicts.items()},
            "table": self.table.to_dict(orient="index"),
            "modes": {
                name: {"fractions": run.modes.fractions, "standard_errors": run.modes.standard_errors}
                for name, run in self.runs.items()
                if run.modes is not None
            },
            "scores": {
                name: _verdict_content(verdict)
                | (_score_content(self.scores[name]) if name in self.scores else {})
                | ({"manifold": _manifold_content(self.manifolds[name])} if name in self.manifolds else {})
                for name, verdict in self.score_verdicts.items()
            },
            "notes": self.notes,
            "seed": self.seed,
        }
        if self.budgets:
            content["budgets"] = {name: budget_content(budget) for name, budget in self.budgets.items()}
        if self.memorisation:
            content["memorisation"] = {name: memorisation_content(found) for name, found in self.memorisation.items()}
        if self.fields:
            content["fields"] = {name: found.content for name, found in self.fields.items()}
        return json.dumps(_plain(content), indent=2, ensure_ascii=False)

    def to_html(self) -> str:
        """The whole report as one HTML page that loads nothing from anywhere."""
        from scoresample.report._html import render

        return render(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one HTML file that loads nothing from anywhere.

        Arguments:
            path: where to write. Missing folders are made; an existing file is replaced.

        Returns:
            The path.

        Raises:
            ValueError: if the path is a folder.
        """
        target = Path(path)
        if target.is_dir():
            raise ValueError(f"`path` must be a file, but {str(target)!r} is a folder. Add a name: 'report.html'.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.to_html(), encoding="utf-8")
        return target


def verdict_lines(name: str, verdict: Verdict) -> list[str]:
    """A verdict with every cause and remedy, as lines."""
    lines = [f"{name}: {verdict}"]
    for place, (cause, remedy) in enumerate(verdict.reasons):
        lines += [f"  - {cause}"] if place else []
        lines += [f"    -> {remedy}"] if remedy else []
    return lines


def _verdict_content(verdict: Verdict) -> dict[str, Any]:
    checks = [asdict(check) for check in verdict.checks]
    return {"level": verdict.level, "sentence": verdict.sentence, "checks": checks}


def _score_content(health: ScoreHealth) -> dict[str, Any]:
    training = None if health.record is None else asdict(health.record)
    return {"levels": health.table.to_dict(orient="list"), "points": health.num_points, "training": training}


def _manifold_content(health: ManifoldHealth) -> dict[str, Any]:
    """Numbers and words, and the levels column by column."""
    energy = asdict(health.energy)
    return {
        "levels": health.table.to_dict(orient="list"),
        "points": health.num_points,
        "training_points": health.num_training,
        "dimensions": {name: {"value": value, "se": se} for name, (value, se) in health.dimensions.items()},
        "plateau_noise": health.spectrum_noise,
        "break_noise": health.break_noise,
        "spacing": health.spacing,
        "spectrum": health.spectrum,
        "stopping_drop": health.stopping_drop,
        "stopping_drop_se": health.stopping_drop_se,
        "energy": {name: value for name, value in energy.items() if name not in ("rate", "rate_se")},
        "paragraphs": health.paragraphs(),
    }


def _text_table(table: pd.DataFrame) -> str:
    """The table with one column a run, so that it fits a terminal."""
    names = [str(name) for name in table.index]
    cells = [["", *names]]
    for column in shown_columns(table, (*BUDGET_COLUMNS, *MEMORISATION_COLUMNS)):
        pairs = [shown(table, name, column) for name in names]
        cells.append([column.heading, *(value for value, _ in pairs)])
        if any(below for _, below in pairs):
            cells.append(["", *(below.replace("\n", ", ").replace(NO_BREAK, " ") for _, below in pairs)])
    widths = [max(len(row[place]) for row in cells) for place in range(len(names) + 1)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _plain(value: Any) -> Any:
    """The same content in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
