import math

import pytest

from scoresample.checks import Check, graded_check


def graded(value: float, **settings: bool) -> Check:
    return graded_check("R-hat", value, warn=1.01, fail=1.05, cause="Cause.", remedy="Remedy.", **settings)


@pytest.mark.parametrize(
    ("value", "passed", "severity", "threshold"),
    [
        (1.0, True, "warn", 1.01),
        (1.01, True, "warn", 1.01),
        (1.03, False, "warn", 1.01),
        (1.2, False, "fail", 1.05),
        (math.inf, False, "fail", 1.05),
        (math.nan, False, "fail", 1.05),
    ],
)
def test_limits_grade_the_value(value: float, passed: bool, severity: str, threshold: float) -> None:
    check = graded(value)
    assert (check.passed, check.severity, check.threshold) == (passed, severity, threshold)


@pytest.mark.parametrize(
    ("value", "passed", "severity"), [(900.0, True, "warn"), (300.0, False, "warn"), (9.0, False, "fail")]
)
def test_limits_from_below(value: float, passed: bool, severity: str) -> None:
    check = graded_check("ESS", value, warn=400.0, fail=100.0, cause="", remedy="", smaller_is_better=False)
    assert (check.passed, check.severity) == (passed, severity)


def test_a_check_prints_on_one_line_with_its_remedy_only_if_missed() -> None:
    assert str(graded(1.0)) == "R-hat: 1 (limit 1.01), passed."
    assert str(graded(1.02)) == "R-hat: 1.02 (limit 1.01), warning. Cause. Remedy."
    assert str(graded(1.2)) == "R-hat: 1.2 (limit 1.05), failed. Cause. Remedy."


def test_an_unknown_severity_is_refused() -> None:
    with pytest.raises(Exception, match="severity"):
        Check("name", 0.0, 0.0, True, "", "", "fatal")  # pyright: ignore[reportArgumentType]
