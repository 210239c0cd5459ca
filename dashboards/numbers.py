"""How numbers are written: to the digits that their errors leave."""

import math


def with_error(value: float | None, error: float | None) -> str:
    """Formats a value ± its standard error, to two digits of the error."""
    usable = error is not None and math.isfinite(error) and error > 0
    if value is None or not math.isfinite(value) or error is None or not usable:
        return plain(value)
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{places}f} ± {error:,.{places}f}"


def plain(value: float | None) -> str:
    """Formats a number to four digits; says so where there is none, or none that is finite."""
    if value is None:
        return "–"
    return _digits(value, 4) if math.isfinite(value) else "not finite"


def count(value: int | None) -> str:
    """Formats a count, from a million on with M, B or T."""
    if value is None:
        return "–"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if value >= size:
            return f"{_digits(value / size, 3)} {unit}"
    return f"{value:,}"


def _digits(value: float, digits: int) -> str:
    # "#" keeps trailing zeros, so that columns line up, and with them a bare point.
    return format(value, f"#.{digits}g").rstrip(".")
