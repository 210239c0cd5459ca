"""From a suite to its checkpoints, in the order of their steps, known by hashes or producers."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError
from jobs.identity import FileHashes
from jobs.pico_spec import PicoSuite
from jobs.sources import TOKENIZER_FILES, Folder, Produced, Source
from jobs.spec import LocalSuite
from jobs.work import CorpusWork, PretrainWork
from orchestrator.named_inputs import named_path
from workers.corpus import source_fingerprint
from workers.json_text import read_json

_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter|iteration)s?[-_.=]?(\d+)|^(\d+)$")
_WEIGHTS = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?"
)
VOCABULARIES = {"tokenizer.json", "tokenizer.model", "vocab.json"}


def pico_cells(suite: PicoSuite) -> tuple[list[Cell], list[Checkpoint]]:
    """Returns the corpus cell, the pretraining cells, and the checkpoints that they make."""
    corpus = Cell(CorpusWork(suite.corpus, source_fingerprint()), suite=suite.name)
    cells = [corpus]
    checkpoints = []
    for model in suite.models:
        training = Cell(
            PretrainWork(model, corpus.id), (corpus.id,), suite=suite.name, model=model.name
        )
        cells.append(training)
        checkpoints += [
            Checkpoint(
                suite=suite.name,
                model=model.name,
                revision=f"step{step}",
                step=step,
                tokens=step * model.tokens_per_step,
                stage="pretrain",
                source=Produced(training.id, f"step{step}"),
                tokenizer=Produced(corpus.id, "tokenizer"),
            )
            for step in model.checkpoint_steps
        ]
    return cells, checkpoints


def local_checkpoints(
    suite: LocalSuite, hashes: FileHashes
) -> tuple[tuple[Checkpoint, ...], dict[Source, str]]:
    """Lists the checkpoints of a suite on disk, in the order of their steps.

    Returns:
        The checkpoints, those without whole weights included, and what is wrong with a source that
        the names of its files don't show.

    Raises:
        StudyError: A folder that cannot be read or is no checkpoint, steps that cannot be told or
            are there twice, no tokenizer.
    """
    try:
        return _checkpoints(suite, hashes)
    except OSError as error:
        raise StudyError(
            f"suite '{suite.name}' cannot be listed: {error}", "check the folder"
        ) from error


def _checkpoints(
    suite: LocalSuite, hashes: FileHashes
) -> tuple[tuple[Checkpoint, ...], dict[Source, str]]:
    folders = _checkpoint_folders(suite)
    steps = _steps(suite, folders)
    where = f"suite '{suite.name}'"
    tokenizer = _tokenizer(named_path(where, suite.tokenizer), hashes) if suite.tokenizer else None
    checkpoints = []
    damage: dict[Source, str] = {}
    for folder, step in sorted(
        zip(folders, steps, strict=True), key=lambda pair: -1 if pair[1] is None else pair[1]
    ):
        batch = suite.tokens_per_step
        names, wrong = _weight_files(folder)
        source = _folder(folder, names, hashes)
        if wrong is not None:
            damage[source] = wrong
        checkpoints.append(
            Checkpoint(
                suite=suite.name,
                model=suite.model or suite.name,
                revision=folder.name,
                step=step,
                tokens=None if step is None or batch is None else step * batch,
                stage=suite.stage,
                source=source,
                tokenizer=tokenizer or _tokenizer(folder, hashes),
            )
        )
    return tuple(checkpoints), damage


def _checkpoint_folders(suite: LocalSuite) -> list[Path]:
    where = f"suite '{suite.name}'"
    if (suite.path is None) == (not suite.paths):
        raise StudyError(f"{where} needs either `path` or `paths`", "give one of them")
    given = [suite.path] if suite.path is not None else suite.paths
    # Absolute, so that a folder given as `.` has a name.
    named = [named_path(where, path).absolute() for path in given]
    for path in named:
        if not path.is_dir():
            raise StudyError(f"{where}: there is no folder {path}", "check the path")
    if suite.path is None or (named[0] / "config.json").is_file():
        folders = named
    else:
        folders = [folder for folder in sorted(named[0].iterdir()) if _is_checkpoint(folder)]
    if not folders or not all(_is_checkpoint(folder) for folder in folders):
        bad = next((folder for folder in folders if not _is_checkpoint(folder)), named[0])
        raise StudyError(
            f"{where}: {bad} holds no transformers checkpoint (no config.json)",
            "name a folder that save_pretrained() wrote, or a folder of such folders",
        )
    return folders


def _is_checkpoint(folder: Path) -> bool:
    """Returns whether a folder is meant to be a checkpoint, be it whole or not."""
    return folder.is_dir() and any(
        path.name == "config.json" or _WEIGHTS.fullmatch(path.name) for path in folder.iterdir()
    )


def _steps(suite: LocalSuite, folders: Sequence[Path]) -> list[int | None]:
    """Returns the training step of each folder, from the study or from the folder's name."""
    if suite.steps is not None:
        if suite.path is not None and len(folders) > 1:
            raise StudyError(
                f"suite '{suite.name}' gives `steps` for the folders in `path`, in no set order",
                "list the folders in `paths`, one for each step",
            )
        if len(suite.steps) != len(folders):
            raise StudyError(
                f"suite '{suite.name}' gives {len(suite.steps)} steps for {len(folders)} folders",
                "give one step per folder",
            )
        found: list[int | None] = list(suite.steps)
    else:
        found = [step_of(folder.name) for folder in folders]
    if None in found and len(folders) > 1:
        raise StudyError(
            f"suite '{suite.name}': cannot tell the training step of "
            f"'{folders[found.index(None)].name}'",
            "name folders like step1000 or checkpoint-1000, or give `paths` and `steps`",
        )
    if len(set(found)) < len(found):
        twice = next(step for step in found if found.count(step) > 1)
        raise StudyError(
            f"suite '{suite.name}' has two checkpoints at step {twice}",
            "give `paths` and `steps`, or make two suites",
        )
    return found


def step_of(name: str) -> int | None:
    """Reads the training step off a folder's name: the number after step, checkpoint or iter.

    A name that is nothing but a number is a step, too; any other number may be anything, such as
    the model's size or the stage of its training.
    """
    match = _STEP.search(name.lower())
    return int(match[1] or match[2]) if match else None


def _weight_files(folder: Path) -> tuple[list[str], str | None]:
    """Returns the files of the model that are there: config, and the weights that would be loaded.

    Those are the single file, the shards of the index, or else whatever looks like weights. What is
    wrong with the index comes second.
    """
    with os.scandir(folder) as listed:
        there = {entry.name for entry in listed if entry.is_file()}
    config = ["config.json"] if "config.json" in there else []
    if "model.safetensors" in there:
        return [*config, "model.safetensors"], None
    weights = sorted(name for name in there if _WEIGHTS.fullmatch(name))
    index = "model.safetensors.index.json"
    if index not in there:
        return [*config, *weights], None
    try:
        content = read_json((folder / index).read_bytes())
        shards = {str(shard) for shard in content["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [*config, index, *weights], f"its {index} is malformed: {error}"
    lacking = sorted(shards - there)
    wrong = f"it lacks {lacking[0]}, which its index names" if lacking else None
    return [*config, index, *sorted(shards & there)], wrong


def _tokenizer(path: Path, hashes: FileHashes) -> Folder:
    listed = {file.name for file in path.iterdir()} if path.is_dir() else set()
    found = [name for name in TOKENIZER_FILES if name in listed and (path / name).is_file()]
    if not VOCABULARIES.intersection(found):
        raise StudyError(
            f"{path} holds no tokenizer",
            "give the suite's `tokenizer`, a folder with tokenizer.json",
        )
    return _folder(path, found, hashes)


def _folder(path: Path, names: Iterable[str], hashes: FileHashes) -> Folder:
    """Returns a folder by the hashes of the named files."""
    files = tuple(sorted((name, hashes.sha256(path / name)) for name in names))
    return Folder(str(hashes.resolve(path)), files)
