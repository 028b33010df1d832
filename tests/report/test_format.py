import math

import pytest

from scoresample.report._format import counted, human, listed, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (300.0000000000001, "300"),
        (4000.0, "4,000"),
        (1.2345, "1.23"),
        (-0.04567, "-0.0457"),
        (123.6, "124"),
        (1e-6, "1.00e-06"),
        (3e12, "3.00e+12"),
        (math.nan, "–"),
        (None, "–"),
        (-math.inf, "-infinite"),
    ],
)
def test_numbers_as_people_write_them(value: float | None, text: str) -> None:
    assert human(value) == text


def test_words() -> None:
    assert percent(0.125) == "12.5%"
    assert percent(1.0) == "100%"
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdef"), 3) == "a, b, c and 3 more"
    assert counted(0, "draw") == "0 draws"
