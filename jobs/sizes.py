"""Sizes in bytes, as people write them: decimal units, as disks are sold and hubs count."""

import re

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Returns the bytes of a size such as `200GB`, `1.5T` or `64GiB`.

    Raises:
        ValueError: It is no size, or none above 0.
    """
    match = _SIZE.fullmatch(text)
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text} is no size such as 200GB or 64GiB")
    units = _BINARY if match[3] else _UNITS
    size = int(float(match[1]) * units[match[2].upper()])
    if size < 1:
        raise ValueError(f"{text} is no size above 0")
    return size


def readable_size(size: int) -> str:
    """Returns a size for people, as in `1.5 GB`."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if round(value, 1) < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
