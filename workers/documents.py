"""Documents of a text: of files, which are read as they were planned, or of the hub."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.errors import DataError
from jobs.sources import TextFiles
from jobs.streams import HubStream
from workers.hub_text import streamed_documents


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
        documents += _read_file(path, text)
    return documents


def _read_file(path: Path, text: TextFiles) -> list[str]:
    # Imported here: it takes a second, and only text on disk needs it.
    import datasets

    datasets.disable_progress_bars()
    whole = path.suffix == ".txt"
    with TemporaryDirectory() as cache:
        # Under a name of ours, since the library takes brackets in a path for a pattern.
        link = Path(cache) / f"text{path.suffix}"
        link.symlink_to(path.absolute())
        try:
            loaded = datasets.load_dataset(
                "text" if whole else "json",
                data_files=[str(link)],
                split="train",
                cache_dir=cache,
                **({"sample_by": "document"} if whole else {}),
            )
            if whole:
                return [
                    part for document in loaded["text"] for part in document.split(text.separator)
                ]
            if text.field not in loaded.column_names:
                raise DataError(
                    f"{path} has no field '{text.field}', only {', '.join(loaded.column_names)}",
                    "give the dataset's `field`",
                )
            values = [value for value in loaded[text.field] if value is not None]
            for value in values:
                if not isinstance(value, str):
                    raise DataError(
                        f"{path}: field '{text.field}' holds {type(value).__name__}, not text",
                        "give the dataset's `field`",
                    )
            return values
        except StopIteration:  # A JSONL file without a record.
            return []
        except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as {'text' if whole else 'JSON lines'}: "
                f"{error.__cause__ or error}",
                "check its encoding (UTF-8) and format",
            ) from error
