"""How correlations, differences and their uncertainty are written."""

from collections.abc import Callable, Mapping
from typing import Any

from dashboards.correlation_statistics import Estimate


def number(value: float | None, digits: int = 3) -> str:
    """Formats a number to some significant digits, with its sign; a dash where there is none."""
    # Without the sign that a zero may have.
    return "–" if value is None else f"{value + 0.0:+.{digits}g}".replace("-", "−")


def size(value: float | None) -> str:
    """Formats a number that can't be negative to three digits."""
    return number(value).removeprefix("+")


def coefficient(value: float | None) -> str:
    """Formats a correlation: one that is nearly 1 doesn't read as 1."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


Shown = Callable[[float | None], str]


def interval(low: float | None, high: float | None, shown: Shown = number) -> str:
    """Formats a 95 % interval; empty where there is none."""
    return "" if low is None or high is None else f" [{shown(low)}, {shown(high)}]"


def pvalue(value: float | None) -> str:
    """Formats a p, empty where there is none."""
    if value is None:
        return ""
    return ", p < 0.001" if value < 0.001 else f", p = {value:.2g}"


def effect(found: Estimate | None, of: str = "seeds") -> str:
    """Formats a mean with interval, p and number of values."""
    if found is None:
        return "not measured"
    return (
        f"{number(found.mean)}{interval(found.low, found.high)}{pvalue(found.pvalue)}, "
        f"{found.n} {of.removesuffix('s') if found.n == 1 else of}"
    )


def column(row: Mapping[str, Any], name: str, shown: Shown = number) -> str:
    """Formats an estimate that `with_interval` made columns of."""
    ends = interval(row[f"{name}_low"], row[f"{name}_high"], shown)
    return f"{shown(row[name])}{ends}"


def correlation(row: Mapping[str, Any] | None) -> str:
    """Formats Pearson's r with interval, p and n, and says where p doesn't hold."""
    if row is None or row["pearson"] is None:
        return "r not defined"
    trending = "" if row["independent"] else ", both trend"
    ends = interval(row["pearson_low"], row["pearson_high"], coefficient)
    return (
        f"r = {coefficient(row['pearson'])}{ends}"
        f"{pvalue(row['pearson_pvalue'])}, n = {row['n']}{trending}"
    )
