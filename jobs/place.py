"""Places for files: a folder on disk, or a prefix behind a URL. A file appears whole or not at all.

On disk a file is written under a temporary name, flushed and renamed; an object store shows an
object only once its upload is complete, so no upload begins before all of its bytes are there.
"""

import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from jobs import url
from jobs.errors import StoreError
from jobs.folders import flush_folder, listed_files, size_of

TEMPORARY = ".tmp"
"""Suffix of files that are still being written."""

_SLICE_BYTES = 32 * 2**20


class Place:
    """Files below one folder or URL. Names are relative and use slashes.

    Args:
        address: A path, or a URL such as `s3://bucket/prefix`. Credentials come from where the
            process runs (environment, profile, role), never from the address. An S3 service
            other than AWS is named by `AWS_ENDPOINT_URL`, or by the URL's query:
            `s3://bucket/prefix?endpoint_override=host:port&scheme=http`.

    Raises:
        StoreError: The URL is malformed, or its scheme is not known.
    """

    def __init__(self, address: "str | Path | Place") -> None:
        text = str(address).removeprefix("file://")
        self._url = None if re.match(r"[A-Za-z]\w*:/", text) is None else url.parse(text)
        self.is_local = self._url is None
        self.address = str(_expanded(text).absolute()) if self._url is None else self._url.geturl()

    def __str__(self) -> str:
        return self.address

    def __reduce__(self) -> tuple[type["Place"], tuple[str]]:
        return Place, (self.address,)

    @property
    def path(self) -> Path:
        """The folder of a local place."""
        if not self.is_local:
            raise ValueError(f"{self.address} is no folder")
        return Path(self.address)

    @cached_property
    def filesystem(self) -> Any:
        """The pyarrow file system of the place.

        Raises:
            StoreError: The object store cannot be reached.
        """
        # Imported late: it brings the clients of all object stores along.
        from pyarrow import fs

        if self._url is None:
            return fs.LocalFileSystem()
        try:
            return url.connect(self._url)
        except (OSError, pa.ArrowException) as error:
            raise self.failure("cannot use", error, "check the address") from error

    def within(self, name: str) -> str:
        """Returns the path of a name in `filesystem`."""
        if self._url is None:
            return str(self.path / name)
        return f"{self._url.netloc}{self._url.path}/{name}".rstrip("/")

    def at(self, name: str) -> str:
        """Returns the address of a name, for messages."""
        if self._url is None:
            return str(self.path / name)
        return self._url._replace(path=f"{self._url.path}/{name}").geturl()

    def failure(self, what: str, error: Exception, remedy: str, name: str = "") -> StoreError:
        """Puts an error of the place in the user's words.

        Args:
            what: What could not be done, up to the address: "cannot write to".
            error: The error.
            remedy: What to do, where the error itself doesn't tell.
            name: The file.
        """
        file = getattr(error, "filename", None) or (self.at(name) if name else self.address)
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        told = re.sub(r"\s*\(Request ID: [^)]*\)", "", told.splitlines()[0]).rstrip(".")
        return StoreError(f"{what} {file}: {told}", url.remedy(error) or remedy)

    def is_there(self) -> bool:
        """Tells whether the folder, or the bucket of the prefix, exists.

        Raises:
            OSError: The place cannot be asked.
        """
        if self._url is None:
            return self.path.is_dir()
        # An empty prefix can't be told from a missing one.
        return str(self.filesystem.get_file_info(self._url.netloc).type.name) != "NotFound"

    def exists(self, name: str) -> bool:
        """Tells whether there is a file of that name.

        Raises:
            OSError: The place cannot be asked.
        """
        if self.is_local:
            return (self.path / name).is_file()
        return bool(self.filesystem.get_file_info(self.within(name)).is_file)

    def entries(self, folder: str) -> set[str]:
        """Returns the names of all files and folders directly within a folder.

        Raises:
            OSError: The place cannot be asked.
        """
        if self.is_local:
            try:
                return set(os.listdir(self.path / folder))  # noqa: PTH208
            except FileNotFoundError:
                return set()
        return {info.base_name for info in self._listed(folder, below=False)}

    def names(self, folder: str) -> list[str]:
        """Returns the names of the files directly within a folder, sorted; none if it is missing.

        Raises:
            OSError: The place cannot be asked.
        """
        if not self.is_local:
            return list(self.sizes(folder))
        return sorted(entry.name for entry in listed_files(self.path / folder))

    def sizes(self, folder: str, *, below: bool = False) -> dict[str, int]:
        """Returns the sizes of the files within a folder by name, sorted; none if it is missing.

        Args:
            folder: Its name.
            below: Also those in folders within it, in an object store, named from `folder` on.

        Raises:
            OSError: The place cannot be asked.
        """
        if self.is_local:
            found = {entry.name: size_of(entry) for entry in listed_files(self.path / folder)}
        else:
            start = f"{self.within(folder)}/"
            listed = self._listed(folder, below)
            found = {i.path.removeprefix(start): int(i.size) for i in listed if i.is_file}
        return dict(sorted(found.items()))

    def _listed(self, folder: str, below: bool) -> list[Any]:
        from pyarrow import fs

        selector = fs.FileSelector(self.within(folder), allow_not_found=True, recursive=below)
        return list(self.filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """Returns a file's bytes.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """
        if self.is_local:
            return (self.path / name).read_bytes()
        with self.filesystem.open_input_stream(self.within(name)) as stream:
            found: bytes = stream.read()
        return found

    def write(self, name: str, data: "bytes | pa.Buffer | mmap.mmap") -> None:
        """Writes a file so that it appears whole or, should power fail, not at all.

        Raises:
            OSError: It cannot be written.
        """
        if self.is_local:
            with self.writer(name) as stream:
                stream.write(data)
            return
        filesystem, path = self.filesystem, self.within(name)

        def put() -> None:
            with memoryview(data) as view, filesystem.open_output_stream(path) as stream:
                for start in range(0, len(view), _SLICE_BYTES):
                    if start:
                        stream.flush()  # It keeps copies of what is still to be sent.
                    stream.write(view[start : start + _SLICE_BYTES])

        # Unless a request failed, pyarrow publishes what a stream was given, however it ends.
        # Signals reach the main thread alone, so in another one none comes between two writes.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(put).result()

    @contextmanager
    def writer(self, name: str) -> Iterator[Any]:
        """Gives a stream whose file appears when the block ends without an error.

        Raises:
            OSError: It cannot be written.
        """
        if not self.is_local:
            with tempfile.TemporaryFile() as file:
                yield file
                file.flush()
                self._send(file, name)
            return
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            with temporary.open("wb") as local:
                yield local
                local.flush()
                os.fsync(local.fileno())
            temporary.replace(target)
            flush_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _send(self, file: IO[bytes], name: str) -> None:
        if os.fstat(file.fileno()).st_size == 0:  # It cannot be mapped.
            self.write(name, b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self.write(name, data)

    def delete(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            OSError: It cannot be removed.
        """
        if self.is_local:
            (self.path / name).unlink(missing_ok=True)
            return
        try:
            self.filesystem.delete_file(self.within(name))
        except FileNotFoundError:
            return

    def download(self, name: str, target: Path) -> None:
        """Copies one of the place's files to a path on this machine.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read or written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.filesystem.open_input_file(self.within(name)) as source:
            source.size()  # A missing object is found out here, before the file is made.
            with target.open("wb") as file:
                shutil.copyfileobj(source, file, 2**22)

    def upload(self, source: Path, name: str) -> None:
        """Copies a file of this machine into the place.

        Raises:
            OSError: It cannot be read or written.
        """
        with source.open("rb") as file:
            if self.is_local:
                with self.writer(name) as target:
                    shutil.copyfileobj(file, target, 2**22)
            else:
                self._send(file, name)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # `~` of a user whom nobody knows.
        raise StoreError(f"{text} cannot hold results: {error}", "correct the path") from error
