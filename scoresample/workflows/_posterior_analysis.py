"""What is known of one posterior, and its report."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scoresample.diagnostics import PosteriorPredictiveCheck
from scoresample.inference import Draws
from scoresample.paths import TrainingRecord
from scoresample.report import (
    CalibrationPart,
    Comparison,
    PosteriorPage,
    Verdict,
    WeighedDraws,
    counted,
    form_verdict,
    human,
    parameter_columns,
    parameter_table,
    parameter_text,
    percent,
    verdict_lines,
)
from scoresample.workflows._calibration import Calibration
from scoresample.workflows._certify import Certificate

_MOST_ROWS = 30
"""Parameters in a terminal."""


@dataclass(frozen=True, repr=False, eq=False)
class PosteriorAnalysis:
    """One posterior with all that is known of it; made by [`analyse_posterior`][scoresample.analyse_posterior].

    `print` shows the verdict and the parameters; `save` writes a report and the draws.

    Attributes:
        title: heading of the report.
        verdict: whether `draws` can be trusted, with every check behind it.
        headline: the same in one sentence.
        remarks: what the verdict leaves open.
        name: what `draws` are called in the report.
        draws: what to use: as they came, weighted or polished, as the certificate says; as they came where there is
            none, or where none should be used.
        learned: the draws of the learned posterior as they came.
        nuts: draws of NUTS on the exact density, or None.
        certificate: what the exact density says about `learned`, or None where there is none.
        log_weights: log weights of `learned` by the exact density, or None, as `certificate`.
        calibration: whether the posteriors are calibrated on average, or None if that was not looked at.
        predictive: whether the model makes data like these, or None if that could not be looked at.
        comparison: statistics of `draws` and `nuts`, in the model's own parameters.
        record: the history of the training, where there is one.
        settings: what was chosen, by name.
        seconds: wall clock of each stage, by name.
        reproduce: the command that makes this again, or "".
    """

    title: str
    verdict: Verdict
    headline: str
    remarks: tuple[str, ...]
    name: str
    draws: Draws
    learned: Draws
    nuts: Draws | None
    certificate: Certificate | None
    log_weights: np.ndarray | None
    calibration: Calibration | None
    predictive: PosteriorPredictiveCheck | None
    comparison: Comparison
    record: TrainingRecord | None
    settings: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    reproduce: str = ""

    def __str__(self) -> str:
        """The verdict and the parameters, for a terminal."""
        table = parameter_table(self.comparison, self.name)
        lines = [self.title, "=" * len(self.title), "", self.headline]
        lines += [*verdict_lines(self.name, self.verdict), ""]
        if table.empty:
            return "\n".join([*lines, "The draws are not finite: there is nothing to show.", *self.remarks])
        lines += parameter_text(table, parameter_columns(self.comparison), _MOST_ROWS)
        return "\n".join([*lines, "", *self.remarks])

    __repr__ = __str__

    def to_html(self) -> str:
        """The whole report as one HTML page that loads nothing from anywhere."""
        return self._page.to_html()

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the report, and the draws as NetCDF files that ArviZ reads.

        Weighted draws are resampled by their weights, and the file says so (`resampled`).

        Arguments:
            folder: where to write ``report.html``, ``draws/posterior.nc`` and, with NUTS, ``draws/nuts.nc``. Missing
                folders are made; existing files are replaced.

        Returns:
            The path of the report.

        Raises:
            ValueError: if the folder is a file.
        """
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise ValueError(f"`folder` must be a folder, but {str(target)!r} is a file.")
        (target / "draws").mkdir(parents=True, exist_ok=True)
        for name, draws in {"posterior": self.draws, "nuts": self.nuts}.items():
            if draws is not None:
                tree = draws.to_arviz()
                tree.attrs["verdict"] = self.verdict.level if name == "posterior" else self._nuts_level
                tree.to_netcdf(target / "draws" / f"{name}.nc", engine="h5netcdf")
        report = target / "report.html"
        report.write_text(self.to_html(), encoding="utf-8")
        return report

    @property
    def _nuts_level(self) -> str:
        return self.comparison.verdicts[str(self.comparison.reference)].level

    @property
    def _page(self) -> PosteriorPage:
        number = self.learned.num_chains * self.learned.num_draws
        return PosteriorPage(
            title=self.title,
            subtitle=f"{counted(number, 'draw')} of a learned posterior of one observation.",
            verdict=self.verdict,
            headline=self.headline,
            remarks=self.remarks,
            shown=self.name,
            comparison=self.comparison,
            certificate=self._weighed,
            calibration=self._calibrated,
            predictive=self.predictive,
            record=self.record,
            settings=self.settings,
            seconds=self.seconds,
            reproduce=self.reproduce,
        )

    @property
    def _weighed(self) -> WeighedDraws | None:
        found = self.certificate
        if found is None or self.log_weights is None:
            return None
        facts = (
            (
                "total variation",
                f"{found.total_variation:.3f} ± {found.total_variation_se:.3f}",
                "The largest difference between the probabilities that the draws, as they came, and the exact "
                "posterior give to anything. At most 0.05 is as good as exact.",
            ),
            (
                "Pareto k",
                human(found.pareto_k, 2),
                "The tail of the weights. Above 0.7 weighted averages settle too slowly, from 1 on they never do.",
            ),
            (
                "effective size",
                f"{human(found.ess, 3)} ({percent(found.ess_share)})",
                "The number of equal draws that the weighted ones are worth.",
            ),
            (
                "log evidence",
                f"{found.log_evidence:.3f} ± {found.log_evidence_se:.3f}",
                "The logarithm of the probability of the data under the model, as far as the likelihood has its "
                "constants. Its error means little where k is above 0.7.",
            ),
        )
        words = f"Its verdict: {found.verdict}. No weight tells of a part of the posterior where no draw is."
        return WeighedDraws(words, facts, self.log_weights)

    @property
    def _calibrated(self) -> CalibrationPart | None:
        found = self.calibration
        if found is None:
            return None
        remark = (
            f"{counted(found.num_simulations, 'simulated observation')}, {counted(found.num_draws, 'draw')} of each "
            f"posterior; a calibrated posterior fails with probability {found.level:g} at most. An average over all "
            "observations: a posterior that passes may still be wrong at this one."
        )
        if self.certificate is not None:
            remark += " The verdict on these draws rests on their weights, not on this."
        return CalibrationPart(form_verdict(found.checks), remark, found.figure())
