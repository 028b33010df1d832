"""One verdict out of many checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from scoresample.checks import Check
from scoresample.report._format import counted

Level = Literal["use", "use with care", "do not use"]
"""What a verdict may say."""


@dataclass(frozen=True)
class Verdict:
    """Whether draws can be trusted, and why.

    Attributes:
        level: "use", "use with care" or "do not use".
        sentence: the weightiest reason, in words.
        checks: every check behind the verdict.
    """

    level: Level
    sentence: str
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        """The level and the reason, on one line."""
        return f"{self.level}. {self.sentence}"

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that were not passed, failures before warnings."""
        missed = [check for check in self.checks if not check.passed]
        return tuple(sorted(missed, key=lambda check: check.severity != "fail"))

    @property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """Cause and remedy of each of `failures`; a remedy that was named before is left empty."""
        remedies = [check.remedy for check in self.failures]
        return tuple(
            (check.cause, "" if check.remedy in remedies[:place] else check.remedy)
            for place, check in enumerate(self.failures)
        )


def form_verdict(checks: Iterable[Check]) -> Verdict:
    """Form the verdict: one failure forbids the draws, one warning asks for care.

    Arguments:
        checks: facts about a run, the weightiest first.

    Returns:
        The `Verdict`. Without a single check there is no ground for trust: "use with care".

    Examples:
        >>> from scoresample.checks import Check
        >>> disagree = Check("R-hat", 1.3, 1.05, False, "The chains disagree.", "Run longer.")
        >>> print(form_verdict([disagree, Check("divergences", 0.0, 0.0, True, "", "")]))
        do not use. The chains disagree. (1 of 2 checks failed.)
    """
    checks = tuple(checks)
    if not checks:
        return Verdict("use with care", "Nothing about these draws could be checked.", checks)
    failed = [check for check in checks if not check.passed and check.severity == "fail"]
    warned = [check for check in checks if not check.passed and check.severity == "warn"]
    of_all = f"of {counted(len(checks), 'check')}"
    if failed:
        return Verdict("do not use", f"{failed[0].cause} ({len(failed)} {of_all} failed.)", checks)
    if warned:
        return Verdict("use with care", f"{warned[0].cause} ({len(warned)} {of_all} gave a warning.)", checks)
    return Verdict("use", "Its one check passed." if len(checks) == 1 else f"All {len(checks)} checks passed.", checks)
