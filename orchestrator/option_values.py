"""The values of options, from text; one that won't do is a mistake that names what would."""

import argparse
from typing import Any

from jobs.sizes import parse_size
from jobs.work import KINDS


def positive(text: str) -> int:
    """Reads a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """Reads a port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 1 to 65535")
    return int(text)


def width(text: str) -> float:
    """Reads a width in cm, from the narrowest that has room for an axis."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 4 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a width from 4 to 100 cm")
    return value


def size(text: str) -> int:
    """Reads a size in bytes, as in 200GB."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def amount(text: str) -> float:
    """Reads a finite number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def fraction(text: str) -> float:
    """Reads a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to below 1")
    return value


def share(text: str) -> float:
    """Reads a share of a GPU, or a number of whole ones."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0.01 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text} is neither a number from 0.01 to 1 nor a whole number above"
        )
    return value


class Limit(argparse.Action):
    """Gathers KIND=SECONDS."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option: Any = None) -> None:
        """Adds one to those that were given before."""
        kind, _, seconds = value.partition("=")
        if kind not in KINDS or not seconds.isdecimal() or int(seconds) < 1:
            parser.error(f"{option} {value} is not KIND=SECONDS with a kind of {', '.join(KINDS)}")
        limits = {**getattr(namespace, self.dest), kind: float(seconds)}
        setattr(namespace, self.dest, limits)
