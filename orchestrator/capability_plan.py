"""From a study to the cells that ask what its checkpoints can do."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.capability_spec import LocalIndex, PicoIndex, PublishedIndex
from jobs.capability_work import (
    AblationWork,
    ChatsWork,
    EvalWork,
    ForeignIndex,
    GenerateWork,
    IndexWork,
    InfinigramWork,
    MemorizationWork,
)
from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError, nearest
from jobs.identity import FileHashes
from jobs.posttrain_work import PicoRecords
from jobs.questions import HarnessQuestions, HubData, PicoQuestions, Questions
from jobs.sources import Folder, Produced, Source, TextFiles
from jobs.spec import Study
from jobs.task_spec import HARNESS_REPOSITORIES, HarnessTask, PicoTask, Task
from jobs.work import LossWork
from orchestrator.hub_index import HubIndex
from orchestrator.named_inputs import corpus_of, named_path, text_files
from orchestrator.named_records import NamedRecords
from orchestrator.suites import VOCABULARIES

_HEAD_BYTES = 2**20

CapabilityWork = EvalWork | LossWork | AblationWork | MemorizationWork | GenerateWork


@dataclass(frozen=True)
class Lookups:
    """The cells of one tokenizer that look answers up in an ∞-gram index.

    Attributes:
        cells: The cells, the index's own first if it is built here.
        answers: The cell of each task, by the study's name for the task.
    """

    cells: tuple[Cell, ...] = ()
    answers: Mapping[str, str] | None = None


def questions_in_use(
    study: Study, corpora: Mapping[str, str], hashes: FileHashes, index: HubIndex
) -> dict[str, Questions]:
    """Returns the tasks that some measurement asks, by the study's names for them.

    Raises:
        StudyError: A task or suite that the study doesn't define, a file that is missing, a task
            whose records' place isn't known, a repository that is not there.
    """
    names = dict.fromkeys(
        [
            *(study.evals.tasks if study.evals else ()),
            *(study.ablation.tasks if study.ablation else ()),
            *(study.memorization.tasks if study.memorization else ()),
        ]
    )
    for name in names:
        if name not in study.tasks:
            raise StudyError(
                f"study {study.name} asks task '{name}', which it doesn't define"
                f"{nearest(name, tuple(study.tasks))}",
                f"add [tasks.{name}], or use one of {', '.join(study.tasks) or '(none)'}",
            )
    return {name: _questions(name, study.tasks[name], corpora, hashes, index) for name in names}


def lookups(
    study: Study,
    checkpoint: Checkpoint,
    questions: Mapping[str, Questions],
    corpora: Mapping[str, str],
    hashes: FileHashes,
) -> Lookups:
    """Returns the cells that look answers up in the tokens of a checkpoint's tokenizer.

    Raises:
        StudyError: The index's tokens are not those of the tokenizer, or its files are missing.
    """
    asked = study.memorization
    if asked is None:
        return Lookups()
    tokenizer, suite = checkpoint.tokenizer, checkpoint.suite
    needed = _made_by(tokenizer)
    cells: list[Cell] = []
    index: Produced | ForeignIndex
    if isinstance(asked.corpus, PublishedIndex):
        index = _published(asked.corpus, tokenizer, suite, hashes)
    else:
        text = _indexed_text(asked.corpus, corpora, tokenizer, suite, hashes)
        built = Cell(IndexWork(text, tokenizer), (*_made_by(text), *needed), suite=suite)
        cells.append(built)
        index = Produced(built.id, "")
    answers = {}
    for name in asked.tasks:
        work = InfinigramWork(questions[name], index, tokenizer)
        needs = dict.fromkeys([*_made_by(index), *_corpora_of(questions[name]), *needed])
        cells.append(Cell(work, tuple(needs), suite=suite))
        answers[name] = cells[-1].id
    return Lookups(tuple(cells), answers)


def chat_cells(
    study: Study, checkpoint: Checkpoint, records: Mapping[str, NamedRecords]
) -> dict[str, Cell]:
    """Returns the cells that tokenize chats with a checkpoint's tokenizer, by the chats' names."""
    asked = study.evals.chats if study.evals else None
    if asked is None:
        return {}
    tokenizer = checkpoint.tokenizer
    cells = {}
    for name in asked.data:
        chats = records[name].records
        needs = (*((chats.corpus,) if isinstance(chats, PicoRecords) else ()), *_made_by(tokenizer))
        work = ChatsWork(name, chats, asked, tokenizer)
        cells[name] = Cell(work, tuple(dict.fromkeys(needs)), suite=checkpoint.suite)
    return cells


def capability_works(
    study: Study,
    questions: Mapping[str, Questions],
    sequences: Mapping[str, Cell],
    chats: Mapping[str, Cell],
    found: Lookups,
) -> list[tuple[CapabilityWork, tuple[str, ...]]]:
    """Returns what is asked of each checkpoint of a tokenizer, and the cells that it needs."""
    dtype = study.forward.dtype
    works: list[tuple[CapabilityWork, tuple[str, ...]]] = [
        (EvalWork(questions[name], dtype), _corpora_of(questions[name]))
        for name in (study.evals.tasks if study.evals else ())
    ]
    works += [(LossWork(name, cell.id, dtype), (cell.id,)) for name, cell in chats.items()]
    if study.ablation is not None:
        drawn = sequences[study.ablation.dataset].id
        for name in study.ablation.tasks:
            ablation = AblationWork(
                study.ablation.dataset,
                drawn,
                questions[name],
                tuple(sorted(set(study.ablation.ranks))),
                study.ablation.mean,
                dtype,
            )
            works.append((ablation, (drawn, *_corpora_of(questions[name]))))
    for name, answers in (found.answers or {}).items():
        works.append((MemorizationWork(name, answers, dtype), (answers,)))
    if study.generate is not None:
        generate = GenerateWork(study.generate.all_prompts, study.generate.new_tokens, dtype)
        works.append((generate, ()))
    return works


def _questions(
    name: str,
    task: Task,
    corpora: Mapping[str, str],
    hashes: FileHashes,
    index: HubIndex,
) -> Questions:
    where = f"task '{name}'"
    if isinstance(task, PicoTask) and task.form != "sum":
        corpus = corpus_of(where, task.suite, corpora)
        return PicoQuestions(name, corpus, task.form, task.questions, task.limit)
    if isinstance(task, HarnessTask):
        return harness_questions(name, task, hashes, index)
    raise StudyError(f"{where} is for fine-tuning and can't be asked", "use it in [finetune]")


def harness_questions(
    name: str, task: HarnessTask, hashes: FileHashes, index: HubIndex
) -> HarnessQuestions:
    """Returns a task of lm-eval, with its records known by their contents.

    Raises:
        StudyError: A file that is missing, a task whose records' place isn't known, a repository
            that is not there.
    """
    where = f"task '{name}'"
    config = None
    if task.config is not None:
        path = named_path(where, task.config)
        if not path.is_file():
            raise StudyError(f"{where}: there is no file {path}", "check the path")
        config = TextFiles(((str(path.resolve()), hashes.sha256(path)),), "", "")
    called = None if config else task.task or name
    data: TextFiles | HubData
    if task.data:
        data = text_files(where, task.data, "", "", hashes)
    else:
        repository = task.repository or HARNESS_REPOSITORIES.get(str(called))
        if repository is None:
            raise StudyError(
                f"{where}: it isn't known here where lm-eval finds the records of '{called}'",
                f"set tasks.{name}.repository, as lm-eval's task file names it, or give `data`",
            )
        data = HubData(repository, index.dataset_commit(repository, task.revision))
    return HarnessQuestions(name, called, config, data, task.shots, task.limit)


def _indexed_text(
    corpus: PicoIndex | LocalIndex,
    corpora: Mapping[str, str],
    tokenizer: Source,
    suite: str,
    hashes: FileHashes,
) -> TextFiles | Produced:
    if isinstance(corpus, LocalIndex):
        return text_files(
            "memorization.corpus", corpus.paths, corpus.field, corpus.separator, hashes
        )
    made = corpus_of("memorization.corpus", corpus.suite, corpora)
    if tokenizer != Produced(made, "tokenizer"):
        raise StudyError(
            f"memorization.corpus is in the tokens of suite '{corpus.suite}', and suite '{suite}' "
            "has another tokenizer",
            'index its text instead (kind = "local"), or measure that suite in a study of its own',
        )
    return Produced(made, "train.safetensors")


def _published(
    corpus: PublishedIndex, tokenizer: Source, suite: str, hashes: FileHashes
) -> ForeignIndex:
    folder = named_path("memorization.corpus", corpus.path)
    files = sorted(p for p in folder.glob("*") if p.name.partition(".")[0] in _INDEX_FILES)
    if not {"tokenized", "table", "offset"} <= {p.name.partition(".")[0] for p in files}:
        raise StudyError(
            f"memorization.corpus: {folder} holds no ∞-gram index",
            "name a folder with tokenized.*, table.* and offset.*",
        )
    given = named_path("memorization.corpus", corpus.tokenizer)
    if not _same_tokenizer(given, tokenizer, hashes):
        raise StudyError(
            f"memorization.corpus is an index in the tokens of {given}, and suite '{suite}' has "
            "another tokenizer",
            "name an index in the suite's own tokens",
        )
    about = tuple((p.name, p.stat().st_size, _head_sha256(p)) for p in files)
    return ForeignIndex(str(folder.resolve()), about, corpus.token_bytes)


_INDEX_FILES = frozenset({"tokenized", "table", "offset", "metadata", "metaoff", "unigram"})


def _same_tokenizer(given: Path, tokenizer: Source, hashes: FileHashes) -> bool:
    """Tells whether a folder's vocabulary is a tokenizer's, which may be on the hub."""
    if isinstance(tokenizer, Produced):
        return False
    names = [name for name in VOCABULARIES if (given / name).is_file()]
    if isinstance(tokenizer, Folder):
        there = dict(tokenizer.files)
        common = [name for name in names if name in there]
        return bool(common) and all(hashes.sha256(given / n) == there[n] for n in common)
    listed = {Path(file.path).name: file for file in tokenizer.files}
    common = [name for name in names if name in listed]
    return bool(common) and all(
        (hashes.sha256(given / name) == listed[name].sha256)
        if listed[name].sha256
        else (_git_oid(given / name) == listed[name].oid)
        for name in common
    )


def _git_oid(path: Path) -> str:
    """Returns the hash by which git, and so the hub, knows a small file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _head_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()


def _corpora_of(questions: Questions) -> tuple[str, ...]:
    return (questions.corpus,) if isinstance(questions, PicoQuestions) else ()


def _made_by(source: Source | TextFiles | ForeignIndex) -> tuple[str, ...]:
    return (source.cell_id,) if isinstance(source, Produced) else ()
