"""Documents of a text: of files, which are read as they were planned, or of the hub."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jobs.errors import DataError
from jobs.sources import TextFiles
from jobs.streams import HubStream
from workers.hub_text import streamed_documents
from workers.json_text import read_json


def read_documents(
    text: TextFiles | Path | HubStream, report: Callable[[int, int], None]
) -> Iterable[str]:
    """Returns the documents of a text, in the order of the files.

    Args:
        text: Files of the user's, a JSONL file of ours with the field `text`, or a dataset on the
            hub.
        report: Called with (documents so far, all documents) of a dataset on the hub.

    Raises:
        DataError: Files that cannot be read or changed since they were planned; a dataset that
            isn't as the study says.
        OSError: The hub cannot be reached.
    """
    if isinstance(text, HubStream):
        return streamed_documents(text, report)
    if isinstance(text, Path):
        with text.open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines]
    documents: list[str] = []
    for name, sha256 in text.files:
        path = Path(name)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            found = None
        if found != sha256:
            raise DataError(f"{path} changed since it was planned", "run the command again")
        if path.suffix == ".txt":
            documents += _of_text(path, text.separator)
        else:
            documents += _of_json(path, text.field)
    return documents


def _of_text(path: Path, separator: str) -> list[str]:
    # Imported here: it takes a second, and only text on disk needs it.
    import datasets

    datasets.disable_progress_bars()
    with TemporaryDirectory() as cache:
        # Under a name of ours, since the library takes brackets in a path for a pattern.
        link = Path(cache) / "text.txt"
        link.symlink_to(path.absolute())
        try:
            loaded = datasets.load_dataset(
                "text", data_files=[str(link)], split="train", cache_dir=cache, sample_by="document"
            )
            return [part for document in loaded["text"] for part in document.split(separator)]
        except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as text: {error.__cause__ or error}",
                "check its encoding (UTF-8) and format",
            ) from error


def _of_json(path: Path, field: str) -> list[str]:
    """Returns what a field of JSON records holds, but for nulls.

    Not by the library, whose parsers end the process on some malformed files.
    """
    values: list[str] = []
    names: dict[str, None] = {}
    try:
        for number, record in enumerate(_records(path), start=1):
            if not isinstance(record, dict):
                raise ValueError(f"record {number} is no table of names and values")
            names |= dict.fromkeys(record)
            value = record.get(field)
            if isinstance(value, str):
                values.append(value)
            elif value is not None:
                raise DataError(
                    f"{path}: field '{field}' holds {type(value).__name__}, not text, in record "
                    f"{number}",
                    "give the dataset's `field`",
                )
    except (ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as JSON lines: {error}", "check its encoding (UTF-8) and format"
        ) from error
    if names and field not in names:
        raise DataError(
            f"{path} has no field '{field}', only {', '.join(names)}", "give the dataset's `field`"
        )
    return values


def _records(path: Path) -> Iterator[Any]:
    """Yields the records of a file: of a list in `.json`, else one a line."""
    if path.suffix == ".json":
        try:
            found = read_json(path.read_bytes())
        except ValueError:  # Lines may have that name, too.
            found = None
        if found is not None:
            yield from found if isinstance(found, list) else [found]
            return
    with path.open("rb") as lines:
        yield from (read_json(line) for line in lines if line.strip())
