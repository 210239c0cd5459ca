"""What has work at hand waits for an object store; what else goes wrong is told at once."""

import time
from collections.abc import Callable

import pytest

from jobs import outage
from jobs.errors import StoreError
from jobs.outage import outlast
from jobs.place import Place
from jobs.url import is_outage
from tests.orchestrator.object_store import ObjectStore


def _refusing(status: int, code: str, times: int) -> Callable[[str, str], tuple[int, str] | None]:
    left = times

    def refuse(_method: str, _path: str) -> tuple[int, str] | None:
        nonlocal left
        left -= 1
        return (status, code) if left >= 0 else None

    return refuse


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError")]
)
def test_an_outage_is_waited_for(
    bucket: str, object_store: ObjectStore, status: int, code: str
) -> None:
    place = Place(f"s3://{bucket}/run")
    place.write("file", b"here")
    object_store.refuses = _refusing(status, code, 5)
    assert outlast(lambda: place.read("file")) == b"here"


def test_an_outage_that_lasts_is_told(
    bucket: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "OUTAGE_SECONDS", 0.0)
    object_store.refuses = _refusing(503, "SlowDown", 1000)
    with pytest.raises(OSError, match="HTTP status 503"):
        outlast(lambda: Place(f"s3://{bucket}/run").read("file"))


def test_a_refusal_is_told_at_once(bucket: str, object_store: ObjectStore) -> None:
    object_store.refuses = _refusing(403, "AccessDenied", 1000)
    place, began = Place(f"s3://{bucket}/run"), time.monotonic()
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        outlast(lambda: place.read("file"))
    assert time.monotonic() - began < outage.OUTAGE_SECONDS / 20


def test_an_outage_is_known_by_what_an_error_came_of(bucket: str) -> None:
    place = Place(f"s3://{bucket}/run?endpoint_override=127.0.0.1:9&scheme=http")
    with pytest.raises(OSError, match="NETWORK_CONNECTION") as caught:
        place.read("file")
    assert is_outage(caught.value)
    told = StoreError("cannot read it", "mend it")
    assert not is_outage(told)
    told.__cause__ = caught.value
    assert is_outage(told)
