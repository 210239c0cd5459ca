"""Training data, problems, instructions and chats of a study, as cells know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import StudyError, nearest
from jobs.identity import FileHashes
from jobs.pico_spec import PicoCorpus
from jobs.posttrain_spec import HubExamples, LocalExamples, PicoExamples, TrainingData
from jobs.posttrain_work import FileRecords, HubRecords, PicoRecords, Records
from jobs.sources import TextFiles
from jobs.spec import Study
from orchestrator.hub_index import HubIndex
from orchestrator.named_inputs import corpus_of, named_path
from workers.json_text import read_json


@dataclass(frozen=True)
class NamedRecords:
    """Records of a study.

    Attributes:
        records: What they are.
        count: How many there are at most; None where only a run can tell.
        remedy: What makes the count known.
    """

    records: Records
    count: int | None
    remedy: str = ""

    @property
    def counted(self) -> int:
        """How many there are at most.

        Raises:
            StudyError: Only a run can tell.
        """
        if self.count is None:
            raise StudyError(
                f"how many records '{self.records.name}' has isn't known before the run",
                self.remedy,
            )
        return self.count


def records_in_use(
    study: Study,
    corpora: Mapping[str, str],
    curricula: Mapping[str, PicoCorpus],
    hashes: FileHashes,
    index: HubIndex,
) -> dict[str, NamedRecords]:
    """Returns what chains train on, what is sampled for and what losses are measured on, by name.

    Args:
        study: The study.
        corpora: The corpus cell of each pico suite.
        curricula: What each pico suite's corpus holds.
        hashes: The hashes of files.
        index: What is known of the hub.

    Raises:
        StudyError: A name that the study doesn't define, a file that is missing or holds no
            records, a repository that is not there.
    """
    asked = [(f"chain '{c.name}'", s.data) for c in study.posttrain for s in c.stages]
    asked += [("passk.problems", name) for name in (study.passk.problems if study.passk else ())]
    asked += [("winrates.instructions", study.winrates.instructions)] if study.winrates else []
    chats = study.evals.chats if study.evals else None
    asked += [("evals.chats", name) for name in (chats.data if chats else ())]
    found: dict[str, NamedRecords] = {}
    for where, name in asked:
        if name not in study.training:
            raise StudyError(
                f"{where} names '{name}', which the study doesn't define"
                f"{nearest(name, tuple(study.training))}",
                f"add [training.{name}], or use one of {', '.join(study.training) or '(none)'}",
            )
        if name not in found:
            found[name] = _named(name, study.training[name], corpora, curricula, hashes, index)
    return found


def _named(
    name: str,
    given: TrainingData,
    corpora: Mapping[str, str],
    curricula: Mapping[str, PicoCorpus],
    hashes: FileHashes,
    index: HubIndex,
) -> NamedRecords:
    match given:
        case PicoExamples():
            corpus = corpus_of(f"training data '{name}'", given.suite, corpora)
            curriculum = curricula[given.suite]
            there = {
                "problems": curriculum.training_problems,
                "heldout_problems": curriculum.heldout_problems,
            }.get(given.form)
            return NamedRecords(
                PicoRecords(name, corpus, given.form, given.limit),
                _least(given.limit, there),
                f"set training.{name}.limit",
            )
        case LocalExamples():
            files, there = _files(name, given.paths, hashes)
            return NamedRecords(FileRecords(name, files, given.limit), _least(given.limit, there))
        case HubExamples():
            hub = HubRecords(
                name,
                given.repository,
                given.config,
                given.split,
                index.dataset_commit(given.repository, given.revision),
                given.limit,
                given.files,
                tuple(sorted(given.where.items())),
                given.records,
            )
            remedy = f"set training.{name}.records to their number, or training.{name}.limit"
            return NamedRecords(hub, _least(given.limit, given.records), remedy)


def _least(*counts: int | None) -> int | None:
    """Returns the smallest of some numbers, as far as they are known."""
    return min((count for count in counts if count is not None), default=None)


def _files(name: str, paths: Sequence[str], hashes: FileHashes) -> tuple[TextFiles, int]:
    """Returns the files of some records, and how many records they hold."""
    found: list[tuple[str, str]] = []
    count = 0
    for given in paths:
        path = named_path(f"training data '{name}'", given)
        if not path.is_file():
            raise StudyError(f"training data '{name}': there is no file {path}", "check the path")
        if path.suffix not in {".json", ".jsonl"}:
            raise StudyError(
                f"training data '{name}': {path.name} is neither .json nor .jsonl",
                "convert it to one",
            )
        try:
            text = path.read_text(encoding="utf-8")
            lines = [line for line in text.split("\n") if line.strip()]
            count += len(read_json(text.encode())) if path.suffix == ".json" else len(lines)
        except (OSError, ValueError, TypeError) as error:
            raise StudyError(
                f"training data '{name}': {path.name} is no list of records: {error}", "mend it"
            ) from error
        found.append((str(path.resolve()), hashes.sha256(path)))
    if not count:
        raise StudyError(f"training data '{name}' holds no records", "add some")
    return TextFiles(tuple(found), "", ""), count
