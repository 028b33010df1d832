"""Numbers and lists as people write them."""

import math
from collections.abc import Sequence

NOTHING = "–"
"""What stands where there is no number: an en dash."""


def human(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, and commas from ten thousand on.

    Arguments:
        value: any number; None and nan become a dash.
        digits: significant digits to keep.

    Examples:
        >>> human(0.012345), human(1234567.0), human(12.0), human(float("inf"))
        ('0.0123', '1,234,567', '12', 'infinite')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if abs(value) >= 10 ** (digits - 1) or math.isclose(value, round(value), rel_tol=1e-9):
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.{digits - 1}e}"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{decimals}f}"


def percent(fraction: float) -> str:
    """A fraction as a percentage.

    Arguments:
        fraction: a number from 0 to 1.

    Examples:
        >>> percent(0.1234), percent(0.00004), percent(0.0)
        ('12.3%', '0.004%', '0%')
    """
    written = human(100 * fraction)
    return (written.rstrip("0").rstrip(".") if "." in written and "e" not in written else written) + "%"


def listed(words: Sequence[str], limit: int = 4) -> str:
    """Words in a row, the last joined by "and"; those beyond the limit only counted.

    Arguments:
        words: what to list.
        limit: how many to spell out.

    Examples:
        >>> listed(["a", "b", "c"]), listed(list("abcdef"), limit=2)
        ('a, b and c', 'a, b and 4 more')
    """
    shown = list(words[:limit])
    if len(words) > limit:
        shown.append(f"{len(words) - limit} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it needs to be.

    Arguments:
        number: how many.
        noun: the noun in the singular; an s makes its plural.

    Examples:
        >>> counted(1, "check"), counted(2000, "draw")
        ('1 check', '2,000 draws')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
