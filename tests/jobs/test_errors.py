"""Errors: one tree, a message with its remedy, and a way through a process boundary."""

import copy
from typing import get_args

import pytest

from jobs.errors import (
    Cause,
    CellError,
    DataError,
    DivergedError,
    EigentraceError,
    StoreError,
    StudyError,
    UsageError,
)


@pytest.mark.parametrize(
    "kind", [UsageError, StudyError, StoreError, CellError, DataError, DivergedError]
)
def test_errors_say_what_and_what_to_do(kind: type[EigentraceError]) -> None:
    error = kind("7 is odd", "use 8")
    assert str(error) == "7 is odd → use 8"
    assert str(kind("7 is odd")) == "7 is odd"
    # Copies are made as between processes: from what the error's constructor took.
    twin = copy.deepcopy(error)
    assert (type(twin), twin.message, twin.remedy) == (kind, "7 is odd", "use 8")


def test_a_message_leaves_out_the_middle_of_what_nobody_reads() -> None:
    error = StudyError("begin " + "x" * 50_000 + " end", "y" * 50_000)
    assert len(str(error)) < 2_500
    assert error.message.startswith("begin xx")
    assert error.message.endswith("xx end")
    assert copy.deepcopy(error).message == error.message
    assert StudyError("x" * 900).message == "x" * 900


def test_users_mistakes_and_cells_that_fail_are_apart() -> None:
    assert issubclass(StudyError, UsageError)
    assert issubclass(StoreError, UsageError)
    assert not issubclass(DataError, UsageError)


@pytest.mark.parametrize("kind", [CellError, DataError, DivergedError])
def test_every_cell_error_has_a_known_cause(kind: type[CellError]) -> None:
    assert kind.cause in get_args(Cause)
