"""Places: the same files on disk and behind a URL, and nothing that is only half there."""

import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import StoreError
from jobs.place import Place
from tests.orchestrator.object_store import ObjectStore


@pytest.fixture(params=["folder", "URL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(tmp_path / "results")
    return Place(f"s3://{request.getfixturevalue('bucket')}/some/prefix")


def test_files_come_back(place: Place) -> None:
    assert not place.exists("a/one")
    assert (place.names("a"), place.sizes("a"), place.entries("a")) == ([], {}, set())
    place.write("a/one", b"1")
    place.write("a/two", b"22")
    place.write("a/below/three", b"333")
    place.write("empty", b"")
    assert place.exists("a/one")
    assert not place.exists("a/below")
    assert place.names("a") == ["one", "two"]
    assert place.sizes("a") == {"one": 1, "two": 2}
    assert place.entries("a") == {"one", "two", "below"}
    assert place.entries("") == {"a", "empty"}
    assert (place.read("a/two"), place.read("empty")) == (b"22", b"")
    place.write("a/two", b"other")
    assert place.read("a/two") == b"other"
    place.delete("a/two")
    place.delete("a/two")
    assert place.names("a") == ["one"]
    with pytest.raises(FileNotFoundError):
        place.read("a/two")


def test_a_pickled_place_is_the_same_place(place: Place) -> None:
    place.write("a", b"1")
    again = pickle.loads(pickle.dumps(place))
    assert (str(again), again.read("a")) == (str(place), b"1")


def test_files_are_carried_both_ways(place: Place, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    # Larger than one part of an upload.
    content = bytes(range(256)) * 80_000
    source.write_bytes(content)
    place.upload(source, "a/b")
    place.download("a/b", target)
    assert target.read_bytes() == content
    with pytest.raises(FileNotFoundError):
        place.download("a/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("size", [0, 10, 12_000_000])
def test_an_error_in_the_middle_of_a_file_leaves_none(place: Place, size: int) -> None:
    def torn() -> None:
        with place.writer("a/torn") as stream:
            stream.write(bytes(size))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torn()
    assert place.entries("") <= {"a"}
    assert place.entries("a") == set()


@pytest.mark.parametrize("last", [1, 2, 5])
def test_a_refused_part_leaves_no_object(object_store: ObjectStore, bucket: str, last: int) -> None:
    place = Place(f"s3://{bucket}/results")
    parts = 0

    def refuses(method: str, path: str) -> tuple[int, str] | None:
        nonlocal parts
        parts += method == "PUT"
        return (403, "AccessDenied") if method == "PUT" and parts >= last else None

    object_store.refuses = refuses
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        place.write("large", bytes(45_000_000))
    assert parts >= last
    assert object_store.names(bucket) == []


def test_a_small_file_is_one_request(object_store: ObjectStore, bucket: str) -> None:
    Place(f"s3://{bucket}/results").write("evals/a.parquet", b"rows")
    assert object_store.requests[1:] == [("PUT", f"/{bucket}/results/evals/a.parquet")]


def test_a_folder_of_many_objects_is_listed_by_the_page(
    object_store: ObjectStore, bucket: str
) -> None:
    place = Place(f"s3://{bucket}/results")
    numbers = range(1100)
    for number in numbers:
        object_store.put(bucket, f"results/evals/{number:04}", b"x")
    object_store.requests.clear()
    assert place.sizes("evals") == {f"{number:04}": 1 for number in numbers}
    assert [method for method, _ in object_store.requests] == ["GET"] * 2


def test_a_url_may_name_its_server(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for server in (
        f"endpoint_override={object_store.address}&scheme=http",
        f"endpoint_override={quote(f'http://{object_store.address}/')}&region=eu-west-1",
    ):
        place = Place(f"s3://{bucket}//deep/er/?{server}")
        assert str(place) == f"s3://{bucket}/deep/er?{server}"
        assert place.at("a/b") == f"s3://{bucket}/deep/er/a/b?{server}"
        assert place.within("a/b") == f"{bucket}/deep/er/a/b"
        Place(str(place)).write("a/b", b"1")
        assert place.read("a/b") == b"1"
        assert place.names("a") == ["b"]
    assert object_store.names(bucket) == ["deep/er/a/b"]


def test_the_service_of_its_own_variable_comes_first(
    object_store: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{object_store.address}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert Place(f"s3://{bucket}").entries("") == set()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/x", "nothing is known of ftp://"),
        ("s3:/bucket/x", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3://a bucket/x", "names no bucket"),
        ("s3://bucket/x#y", "has a fragment"),
        ("s3://[/x", "is no URL"),
        ("s3://bucket/x?endpoint_override", "not made of name=value"),
        ("s3://bucket/x?endpoint=y", "nothing is known of endpoint"),
        ("gs://bucket/x?region=y", "nothing is known of region"),
    ],
)
def test_a_malformed_url_is_refused(address: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        Place(address)
    assert caught.value.remedy


def test_a_url_with_credentials_is_refused_without_showing_them() -> None:
    with pytest.raises(StoreError, match="holds no credentials") as caught:
        Place("s3://AKIA123:topsecret@bucket/x")
    assert "topsecret" not in str(caught.value)
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy


@given(st.text(max_size=30) | st.from_regex(r"(s3|gs)://\w*[/?#@:&=a-z]*"))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    try:
        place = Place(text)
    except StoreError:
        return
    assert str(Place(str(place))) == str(place)


def test_the_home_of_nobody_is_no_place() -> None:
    with pytest.raises(StoreError, match="~nobody-of-this-name/x cannot hold results") as caught:
        Place("~nobody-of-this-name/x")
    assert caught.value.remedy


def test_an_address_of_a_file_scheme_is_a_folder(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/results")
    assert place.path == tmp_path / "results"
    assert place.at("a/b") == f"{tmp_path}/results/a/b"
    with pytest.raises(ValueError, match="is no folder"):
        _ = Place("s3://bucket/x").path


def test_a_google_bucket_is_a_place() -> None:
    place = Place("gs://bucket/prefix/")
    assert (place.is_local, str(place)) == (False, "gs://bucket/prefix")
    assert place.within("a") == "bucket/prefix/a"
