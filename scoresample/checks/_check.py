"""A `Check`: one fact, the limit it was held against, and what to do when it is over the limit."""

import math
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fail", "warn"]
"""What a check that is not passed does to a verdict: "fail" forbids the draws, "warn" asks for care."""


@dataclass(frozen=True)
class Check:
    """One fact about a score, an input or a set of draws.

    Attributes:
        name: what was measured, in a few words.
        value: what was found.
        threshold: the limit that `value` was held against.
        passed: whether the fact is as it should be.
        cause: why it matters, as a sentence: what is wrong if the check did not pass.
        remedy: what to do about it, as a sentence.
        severity: what the check does to a verdict when it is not passed: "fail" or "warn".

    Examples:
        >>> check = Check("R-hat of tau", 1.2, 1.05, False, "The chains disagree.", "Run longer.")
        >>> print(check)
        R-hat of tau: 1.2 (limit 1.05), failed. The chains disagree. Run longer.
    """

    name: str
    value: float
    threshold: float
    passed: bool
    cause: str
    remedy: str
    severity: Severity = "fail"

    def __post_init__(self) -> None:
        """Refuse a severity that no verdict understands."""
        if self.severity not in ("fail", "warn"):
            raise ValueError(f'`severity` must be "fail" or "warn", but {self.severity!r} came.')

    def __str__(self) -> str:
        """The check on one line, with its cause and remedy if it did not pass."""
        fact = f"{self.name}: {self.value:.4g} (limit {self.threshold:.4g})"
        if self.passed:
            return f"{fact}, passed."
        outcome = "failed" if self.severity == "fail" else "warning"
        return f"{fact}, {outcome}. {self.cause} {self.remedy}"


def graded_check(
    name: str, value: float, *, warn: float, fail: float, cause: str, remedy: str, smaller_is_better: bool = True
) -> Check:
    """Hold a value against two limits, one for a warning and one for a failure.

    A value that is not a number could not be computed, so it is a failure.

    Arguments:
        name: what was measured, in a few words.
        value: what was found.
        warn: the last value without a warning.
        fail: the last value without a failure.
        cause: what is wrong if a limit is crossed.
        remedy: what to do then.
        smaller_is_better: False for quantities such as an effective sample size, where the limits bound from below.

    Returns:
        A `Check` whose threshold is the limit that was crossed (`warn` if none was).

    Examples:
        >>> graded_check("R-hat", 1.02, warn=1.01, fail=1.05, cause="", remedy="").severity
        'warn'
        >>> graded_check("ESS", 900.0, warn=400.0, fail=100.0, cause="", remedy="", smaller_is_better=False).passed
        True
    """
    sign = 1.0 if smaller_is_better else -1.0
    if math.isnan(value) or sign * value > sign * fail:
        return Check(name, value, fail, False, cause, remedy, "fail")
    return Check(name, value, warn, sign * value <= sign * warn, cause, remedy, "warn")
