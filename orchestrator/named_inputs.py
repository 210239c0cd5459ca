"""What a study names by path or by suite, as cells know it: by contents, or by what makes it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from jobs.errors import StudyError, shortened
from jobs.identity import FileHashes
from jobs.sources import TextFiles


def named_path(where: str, text: str) -> Path:
    """Returns the path that a study gives; there may be nothing at it.

    Args:
        where: What gives it, for the message.
        text: The path; `~` stands for the home folder.

    Raises:
        StudyError: There can be no such path, or it may not be looked at.
    """
    try:
        path = Path(text).expanduser()
        path.is_file()
    except (OSError, RuntimeError) as error:  # A name that is too long; a user whom nobody knows.
        why = getattr(error, "strerror", None) or error
        raise StudyError(
            f"{where}: the path {shortened(text)} is of no use: {why}", "correct it"
        ) from error
    return path


def text_files(
    where: str, paths: Iterable[str], field: str, separator: str, hashes: FileHashes
) -> TextFiles:
    """Returns text on disk by the hashes of its files.

    Args:
        where: What reads it, for the messages.
        paths: The files.
        field: Field of a JSONL record that holds the text.
        separator: What stands between documents of a text file.
        hashes: The hashes of files.

    Raises:
        StudyError: A file that is missing, or that is neither text nor JSON lines.
    """
    found = [named_path(where, path) for path in paths]
    for path in found:
        if not path.is_file():
            raise StudyError(f"{where}: there is no file {path}", "check the path")
        if path.suffix not in {".txt", ".jsonl", ".json"}:
            raise StudyError(
                f"{where}: {path.name} is neither .txt nor .jsonl", "convert it to one"
            )
    files = tuple((str(path.resolve()), hashes.sha256(path)) for path in found)
    return TextFiles(files, field, separator)


def corpus_of(where: str, suite: str, corpora: Mapping[str, str]) -> str:
    """Returns the corpus cell of a pico suite.

    Raises:
        StudyError: The study has no such suite.
    """
    if suite not in corpora:
        raise StudyError(
            f"{where} reads the pico suite '{suite}', which the study lacks",
            f"name one of {', '.join(corpora) or '(none)'}, or use another kind",
        )
    return corpora[suite]
