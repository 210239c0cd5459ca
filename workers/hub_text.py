"""Data from the hub: a dataset at a commit, streamed, never kept on disk.

Nothing but data is read: a dataset that needs code of its own is refused.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

from jobs.errors import DataError
from jobs.posttrain_work import HubRecords
from jobs.streams import HubStream

_REPORT_EVERY = 256
_PIECE_BYTES = 2**20
_PAUSES = (1.0, 4.0)
"""Seconds after which the hub is asked again; the library itself retries what it streams."""


def streamed_documents(
    text: HubStream,
    report: Callable[[int, int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Returns the first documents of a dataset on the hub, in its order.

    Args:
        text: The dataset, its commit, and how many documents are wanted.
        report: Called with (documents so far, all documents).
        sleep: Waits so many seconds.

    Raises:
        DataError: The dataset isn't there, may not be seen, or lacks the subset, the split or the
            field; or it cannot be read.
        OSError: The hub cannot be reached.
    """
    documents = []
    with _opened(text, lambda cache: _split(text, cache, pieces=True), sleep) as stream:
        for count, value in enumerate(_values(stream, text), start=1):
            if value is not None:
                documents.append(value)
            if count % _REPORT_EVERY == 0:
                report(count, text.documents)
    return documents


def streamed_records(
    records: HubRecords, sleep: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Yields the records of a dataset on the hub, in its order.

    Raises:
        DataError: The dataset isn't there, may not be seen, or lacks the subset, the split or a
            file; or it cannot be read.
        OSError: The hub cannot be reached.
    """

    def stream(cache: str) -> Any:
        if records.files:
            return _named_files(records, cache)
        return _split(records, cache, pieces=False)

    with _opened(records, stream, sleep) as found:
        yield from (dict(record) for record in found)


@contextmanager
def _opened(
    data: HubStream | HubRecords, stream: Callable[[str], Any], sleep: Callable[[float], None]
) -> Iterator[Any]:
    """Gives a stream, opened anew where that fails for a while; tells its errors in our words."""
    # Imported here: they take a second, and only what is on the hub needs them.
    import datasets
    import httpx

    datasets.disable_progress_bars()
    with TemporaryDirectory() as cache:
        try:
            for pause in (*_PAUSES, None):
                try:
                    found = stream(cache)
                    break
                except (httpx.TransportError, OSError) as error:
                    if pause is None or not _passes(error):
                        raise
                    sleep(pause)
            yield found
        except datasets.exceptions.DatasetNotFoundError as error:
            raise DataError(
                f"{error}",
                "for a dataset that is private or gated, set HF_TOKEN on every node",
            ) from error
        except (datasets.exceptions.DatasetsError, ValueError, RuntimeError, EOFError) as error:
            raise DataError(
                f"{data.repository} at {data.commit[:8]} cannot be read: "
                f"{error.__cause__ or error}",
                "see its page on the hub; datasets that need code of their own are refused",
            ) from error
        except (httpx.HTTPError, OSError) as error:
            raise ConnectionError(
                f"{data.repository} cannot be streamed from the hub: {error}"
            ) from error


def _named_files(records: HubRecords, cache: str) -> Any:
    """Returns the stream of some files of a repository, whatever else is in it.

    Raises:
        DataError: A file isn't there.
    """
    import datasets

    place = f"hf://datasets/{records.repository}@{records.commit}"
    kind = "parquet" if records.files[0].endswith(".parquet") else "json"
    files = [f"{place}/{name}" for name in records.files]
    try:
        builder = datasets.load_dataset_builder(kind, data_files=files, cache_dir=cache)
    except FileNotFoundError as error:
        raise DataError(
            f"{records.repository} at {records.commit[:8]} lacks one of {', '.join(records.files)}",
            "see its files on the hub, and correct the dataset's `files`",
        ) from error
    return builder.as_streaming_dataset()["train"]


def _split(text: HubStream | HubRecords, cache: str, pieces: bool) -> Any:
    """Returns the stream of a split; in small pieces where only its beginning is wanted.

    Raises:
        DataError: The subset or the split isn't there.
    """
    import datasets
    import pyarrow as pa
    from datasets.packaged_modules.parquet.parquet import ParquetConfig
    from pyarrow.dataset import ParquetFragmentScanOptions

    # With this prefix no folder of the same name is taken for the dataset.
    source = f"hf://datasets/{text.repository}"
    try:
        builder = datasets.load_dataset_builder(
            source, text.config, revision=text.commit, cache_dir=cache
        )
    except ValueError as error:
        configs = datasets.get_dataset_config_names(source, revision=text.commit)
        if text.config in configs:
            raise
        wrong = f"no config '{text.config}', only" if text.config else "several configs:"
        raise DataError(
            f"{text.repository} has {wrong} {', '.join(configs)}", "give the dataset's `config`"
        ) from error
    if pieces and isinstance(builder.config, ParquetConfig):
        # Else many row groups are fetched ahead, though the first may have all that is wanted.
        options = pa.CacheOptions(range_size_limit=_PIECE_BYTES, lazy=True)
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(cache_options=options)
    splits = builder.as_streaming_dataset()
    if text.split not in splits:
        raise DataError(
            f"{text.repository} has no split '{text.split}', only {', '.join(splits)}",
            "give the dataset's `split`",
        )
    return splits[text.split]


def _values(stream: Any, text: HubStream) -> Iterator[str | None]:
    """Yields the field of each record that is wanted.

    Raises:
        DataError: The field isn't there, or isn't text.
    """
    for record in islice(stream, text.documents):
        if text.field not in record:
            raise DataError(
                f"{text.repository} has no field '{text.field}', only {', '.join(record)}",
                "give the dataset's `field`",
            )
        value = record[text.field]
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{text.repository}: field '{text.field}' holds {type(value).__name__}, not text",
                "give the dataset's `field`",
            )
        yield value


def _passes(error: Exception) -> bool:
    """Whether an error may pass by itself: no connection, too many requests, a server's fault."""
    from datasets.exceptions import DatasetsError

    status = getattr(getattr(error, "response", None), "status_code", 500)
    return not isinstance(error, DatasetsError) and (status == 429 or status >= 500)
