"""From a suite to its checkpoints, in the order of their steps, known by hashes or producers."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError
from jobs.identity import FileHashes
from jobs.spec import LocalSuite, PicoSuite
from jobs.work import TOKENIZER_FILES, CorpusWork, Folder, PretrainWork, Produced
from workers.corpus import source_fingerprint

_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter|iteration)s?[-_.=]?(\d+)|^(\d+)$")
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


def local_checkpoints(suite: LocalSuite, hashes: FileHashes) -> list[Checkpoint]:
    """Returns the checkpoints of a suite on disk, in the order of their steps."""
    folders = _checkpoint_folders(suite)
    steps = _steps(suite, folders)
    tokenizer = _tokenizer(Path(suite.tokenizer).expanduser(), hashes) if suite.tokenizer else None
    checkpoints = []
    for folder, step in sorted(
        zip(folders, steps, strict=True), key=lambda pair: -1 if pair[1] is None else pair[1]
    ):
        batch = suite.tokens_per_step
        checkpoints.append(
            Checkpoint(
                suite=suite.name,
                model=suite.model or suite.name,
                revision=folder.name,
                step=step,
                tokens=None if step is None or batch is None else step * batch,
                stage=suite.stage,
                source=_folder(folder, _weight_files(folder), hashes),
                tokenizer=tokenizer or _tokenizer(folder, hashes),
            )
        )
    _refuse_twins(suite, checkpoints)
    return checkpoints


def _refuse_twins(suite: LocalSuite, checkpoints: Sequence[Checkpoint]) -> None:
    """Raises StudyError where two steps hold the same weights, as published series sometimes do."""
    seen: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        twin = seen.setdefault(str(checkpoint.source.identity), checkpoint)
        if twin is not checkpoint:
            raise StudyError(
                f"suite '{suite.name}': steps {twin.step} and {checkpoint.step} hold the same "
                f"weights ('{checkpoint.revision}')",
                "find out which one is right, and list only that one in `paths`",
            )


def _checkpoint_folders(suite: LocalSuite) -> list[Path]:
    where = f"suite '{suite.name}'"
    if (suite.path is None) == (not suite.paths):
        raise StudyError(f"{where} needs either `path` or `paths`", "give one of them")
    given = [suite.path] if suite.path is not None else suite.paths
    # Absolute, so that a folder given as `.` has a name.
    named = [Path(path).expanduser().absolute() for path in given]
    for path in named:
        if not path.is_dir():
            raise StudyError(f"{where}: there is no folder {path}", "check the path")
    if suite.path is None or (named[0] / "config.json").is_file():
        folders = named
    else:
        folders = [f for f in sorted(named[0].iterdir()) if (f / "config.json").is_file()]
    if not folders or not all((f / "config.json").is_file() for f in folders):
        bad = next((f for f in folders if not (f / "config.json").is_file()), named[0])
        raise StudyError(
            f"{where}: {bad} holds no transformers checkpoint (no config.json)",
            "name a folder that save_pretrained() wrote, or a folder of such folders",
        )
    return folders


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


def _weight_files(folder: Path) -> tuple[str, ...]:
    """Returns the files that transformers loads: config, and the single file or the shards."""
    if (folder / "model.safetensors").is_file():
        return ("config.json", "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise StudyError(
            f"{folder} holds no weights in safetensors (no model.safetensors)",
            "convert them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
        )
    try:
        shards = sorted({str(s) for s in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{index} is malformed: {error}", "save the checkpoint again") from error
    for shard in shards:
        if not (folder / shard).is_file():
            raise StudyError(f"{folder} lacks {shard}, which its index names", "fetch it again")
    return ("config.json", index.name, *shards)


def _tokenizer(path: Path, hashes: FileHashes) -> Folder:
    found = [name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not VOCABULARIES.intersection(found):
        raise StudyError(
            f"{path} holds no tokenizer",
            "give the suite's `tokenizer`, a folder with tokenizer.json",
        )
    return _folder(path, found, hashes)


def _folder(path: Path, names: Iterable[str], hashes: FileHashes) -> Folder:
    """Returns a folder by the hashes of the named files."""
    files = tuple(sorted((name, hashes.sha256(path / name)) for name in names))
    return Folder(str(path.resolve()), files)
