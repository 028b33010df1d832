"""What is known of the calibration of a posterior."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scoresample.checks import Check
from scoresample.diagnostics import SBC, TARP, ExpectedCoverage

_DPI = 150
_JOINT_ONLY = (
    "Every quantity by itself is calibrated: correlations are wrong, or the posterior does not follow the observation, "
    "as one that returns the prior."
)


@dataclass(frozen=True, repr=False, eq=False)
class Calibration:
    """What `calibrate` found.

    `print` shows the verdict and every test; `save` writes a figure of the ranks, the coverage and TARP.

    Attributes:
        sbc: ranks of the truths, quantity by quantity.
        coverage: of the central intervals of each quantity.
        tarp: test of the joint law, with references that depend on the observations.
        level: the probability that a calibrated posterior fails any of the checks; each test has a third of it.
        num_simulations: how many truths and observations were simulated.
        num_draws: draws of each posterior.
        sampler: the sampler's name.
        nfe: score evaluations per draw.
        seconds: wall clock of the call, simulation, compilation and tests included.
        sampling_seconds: of the sampling alone, compilation included.
        truths: the simulated positions, flattened, shape (num_simulations, dimension). With `conditions` and `draws`
            they are what [`local_c2st`][scoresample.diagnostics.local_c2st] takes.
        conditions: the simulated observations, flattened, shape (num_simulations, features).
        draws: the posteriors' draws, flattened, shape (num_simulations, num_draws, dimension).
    """

    sbc: SBC
    coverage: ExpectedCoverage
    tarp: TARP
    level: float
    num_simulations: int
    num_draws: int
    sampler: str
    nfe: float
    seconds: float
    sampling_seconds: float
    truths: np.ndarray
    conditions: np.ndarray
    draws: np.ndarray

    @property
    def checks(self) -> list[Check]:
        """The checks of all tests."""
        return [*self.sbc.checks, *self.coverage.checks, *self.tarp.checks]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed for check in self.checks)

    def figure(self) -> Figure:
        """Ranks against their bands for up to twelve quantities, those that failed first; coverage; TARP."""
        from scoresample.workflows._calibration_figure import calibration_figure

        return calibration_figure(self.sbc, self.coverage, self.tarp)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure.

        Arguments:
            path: where to write; its ending names the format, such as ``calibration.png``. Missing folders are made; an
                existing file is replaced.

        Returns:
            The path.

        Raises:
            ValueError: if the path is a folder, or its ending names no format that can be written.
        """
        target = Path(path)
        figure = self.figure()
        formats = figure.canvas.get_supported_filetypes()
        if target.is_dir() or target.suffix.lower().lstrip(".") not in formats:
            raise ValueError(f"`path` must be a file with an ending such as .png or .svg, but {str(target)!r} came.")
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=_DPI, facecolor="white")
        return target

    def __repr__(self) -> str:
        """As printed."""
        return str(self)

    def __str__(self) -> str:
        """The verdict, the tests, and what is wrong."""
        failed = [check for check in self.checks if not check.passed]
        verdict = "calibrated, as far as these tests see"
        if failed:
            verdict = f"not calibrated ({len(failed)} of {len(self.checks)} checks failed)"
        lines = [
            f"Posterior by {self.sampler}: {verdict}",
            "",
            str(self.sbc),
            str(self.coverage),
            str(self.tarp),
            "",
            *(f"- {check.name}: {check.value:.2g}. {check.cause}" for check in failed),
            *([_JOINT_ONLY] if failed == self.tarp.checks else []),
            *([failed[0].remedy, ""] if failed else []),
            f"A calibrated posterior fails with probability {self.level:g} at most. These are averages over all "
            "observations: a posterior that passes may still be wrong at yours, for which see "
            "scoresample.diagnostics.local_c2st.",
            f"Cost: {self.nfe:.4g} score evaluations a draw; {self.seconds:.1f} s, of which "
            f"{self.sampling_seconds:.1f} s of sampling.",
        ]
        return "\n".join(lines)
