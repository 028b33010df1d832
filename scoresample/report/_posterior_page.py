"""What the report of one posterior is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from scoresample.diagnostics import PosteriorPredictiveCheck
from scoresample.paths import TrainingRecord
from scoresample.report._comparison import Comparison
from scoresample.report._verdict import Verdict


@dataclass(frozen=True, eq=False)
class WeighedDraws:
    """What the exact density says about draws.

    Attributes:
        sentence: what to do with them, and what weights cannot see.
        facts: name, value and meaning of each fact, in words.
        log_weights: log weights of the draws as they came, of any shape.
    """

    sentence: str
    facts: tuple[tuple[str, str, str], ...]
    log_weights: np.ndarray


@dataclass(frozen=True, eq=False)
class CalibrationPart:
    """What is known of the calibration of all posteriors.

    Attributes:
        verdict: what its tests say.
        remark: how it was found, and what it leaves open.
        figure: its ranks and coverages.
    """

    verdict: Verdict
    remark: str
    figure: Figure


@dataclass(frozen=True, eq=False)
class PosteriorPage:
    """The content of the report of one posterior; `to_html` writes it.

    Attributes:
        title: heading of the report.
        subtitle: a line on what was observed and drawn.
        verdict: whether the draws can be trusted.
        headline: the verdict in one sentence.
        remarks: what the verdict leaves open.
        shown: the name of the draws that the report is about.
        comparison: their statistics, beside a reference where there is one.
        certificate: what the exact density says, or None where there is none.
        calibration: what is known of the calibration, or None.
        predictive: the posterior-predictive check, or None.
        record: the history of the training, or None.
        settings: what was chosen, by name.
        seconds: wall clock of each stage, by name.
        reproduce: the command that makes the report again, or "".
    """

    title: str
    subtitle: str
    verdict: Verdict
    headline: str
    remarks: tuple[str, ...]
    shown: str
    comparison: Comparison
    certificate: WeighedDraws | None = None
    calibration: CalibrationPart | None = None
    predictive: PosteriorPredictiveCheck | None = None
    record: TrainingRecord | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    reproduce: str = ""

    def to_html(self) -> str:
        """The whole report as one HTML page that loads nothing from anywhere."""
        from scoresample.report._posterior_html import render_posterior

        return render_posterior(self)
