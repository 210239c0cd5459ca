"""From a study to its cells, in natural order. Reads no weights, imports neither torch nor Ray."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.cells import Cell, Checkpoint
from jobs.errors import StudyError
from jobs.findings import AuditWork
from jobs.finetune_work import SensitivityWork
from jobs.identity import FileHashes
from jobs.pico_spec import PicoCorpus, PicoSuite
from jobs.sources import Produced, Source, TextFiles
from jobs.spec import Study
from jobs.streams import HubStream
from jobs.text_spec import Dataset, HubText, PicoText
from jobs.toy_work import ToyWork
from jobs.work import CheckpointWork, GeometryWork, HeadWork, LossWork, SequencesWork, StageName
from orchestrator.audits import audit_cells, audit_suite
from orchestrator.capability_plan import (
    CapabilityWork,
    capability_works,
    chat_cells,
    lookups,
    questions_in_use,
)
from orchestrator.finetune_plan import check_finetuned, examples_in_use, finetune_cells
from orchestrator.hub_index import HubIndex
from orchestrator.named_inputs import text_files
from orchestrator.named_records import records_in_use
from orchestrator.posttrain_plan import chain_cells, sample_cells, sampled
from orchestrator.suites import pico_cells
from orchestrator.winrate_plan import winrate_cells

_DOCUMENTS_PER_SEQUENCE = 4

Works = list[
    tuple[
        CheckpointWork | GeometryWork | HeadWork | LossWork | SensitivityWork | CapabilityWork,
        tuple[str, ...],
    ]
]
"""What is done to a checkpoint, and the cells that it needs."""


@dataclass(frozen=True)
class Plan:
    """The cells of a study.

    Attributes:
        study: The study.
        cells: Every cell once, each after those that it needs.
    """

    study: Study
    cells: tuple[Cell, ...]

    @property
    def audits(self) -> tuple[tuple[str, AuditWork], ...]:
        """The audit of each suite that has one, with the suite's name."""
        return tuple((c.suite, c.work) for c in self.cells if isinstance(c.work, AuditWork))

    def only(self, stages: Iterable[StageName]) -> "Plan":
        """Returns the plan of some stages: their cells and all that those need."""
        by_id = {cell.id: cell for cell in self.cells}
        wanted: set[str] = set()
        waiting = [cell.id for cell in self.cells if cell.work.stage in set(stages)]
        while waiting:
            cell_id = waiting.pop()
            if cell_id not in wanted:
                wanted.add(cell_id)
                waiting.extend(by_id[cell_id].needs)
        return Plan(self.study, tuple(cell for cell in self.cells if cell.id in wanted))


def make_plan(study: Study, index: HubIndex | None = None) -> Plan:
    """Lists every cell of a study, those that record the audits of its suites first.

    Args:
        study: The study.
        index: What is known of the hub; the user's own memory of it where it is left out.

    Raises:
        StudyError: A dataset or suite that the study doesn't define, a folder that is missing
            or no checkpoint, steps that cannot be told from the names; a repository that is not
            there, or that is not remembered while the hub cannot be reached.
    """
    hashes = FileHashes()
    try:
        cells = _cells(study, hashes, index or HubIndex())
        return Plan(study, tuple({cell.id: cell for cell in cells}.values()))
    finally:
        hashes.save()


def _cells(study: Study, hashes: FileHashes, index: HubIndex) -> list[Cell]:
    """Returns the cells of a study, some of them twice where labels alone tell them apart."""
    audits: list[Cell] = []
    cells: list[Cell] = []
    tuned: list[Cell] = []
    corpora: dict[str, str] = {}
    curricula: dict[str, PicoCorpus] = {}
    checkpoints: list[Checkpoint] = []
    for suite in study.suites:
        if isinstance(suite, PicoSuite):
            supply, made = pico_cells(suite)
            corpora[suite.name] = supply[0].id
            curricula[suite.name] = suite.corpus
            cells += supply
            checkpoints += made
        else:
            audit = audit_suite(suite, hashes, index)
            audits += audit_cells(suite.name, audit)
            checkpoints += audit.checkpoints
    _check_datasets(study)
    in_use = _datasets_in_use(study)
    # The unused are looked at, too, since a mistake in them is one; but nobody asks the hub for it.
    texts = {
        name: _text(name, dataset, corpora, hashes, index)
        for name, dataset in study.datasets.items()
        if name in in_use or not isinstance(dataset, HubText)
    }
    used = {name: text for name, text in texts.items() if name in in_use}
    questions = questions_in_use(study, corpora, hashes, index)
    examples = examples_in_use(study, corpora, hashes, index)
    check_finetuned(study, checkpoints)
    records = records_in_use(study, corpora, curricula, hashes, index)
    for chain in study.posttrain:
        stages, made = chain_cells(study, chain, checkpoints, records)
        cells += stages
        checkpoints += made
    judged = winrate_cells(study, checkpoints, cells, records, hashes)
    drawn_from = set(sampled(study.passk, checkpoints)) if study.passk else set()
    by_tokenizer: dict[str, tuple[Works, dict[str, Cell]]] = {}
    for checkpoint in checkpoints:
        tokenizer = str(checkpoint.tokenizer.identity)
        if tokenizer not in by_tokenizer:
            sequences = _sequences(study, checkpoint, used)
            found = lookups(study, checkpoint, questions, corpora, hashes)
            chats = chat_cells(study, checkpoint, records)
            cells += [*sequences.values(), *chats.values(), *found.cells]
            asked = capability_works(study, questions, sequences, chats, found)
            by_tokenizer[tokenizer] = [*_works(study, sequences), *asked], sequences
        works, sequences = by_tokenizer[tokenizer]
        producer = _made_by(checkpoint.source)
        cells += [
            Cell(work, tuple(dict.fromkeys([*producer, *needs])), checkpoint)
            for work, needs in works
        ]
        tuned += finetune_cells(study, checkpoint, examples, sequences)
        if checkpoint in drawn_from:
            tuned += sample_cells(study, checkpoint, records)
    toys = [Cell(ToyWork(sweep), suite="toy", model=sweep.name) for sweep in study.toy]
    return [*audits, *cells, *tuned, *judged, *toys]


def _sequences(
    study: Study, checkpoint: Checkpoint, texts: Mapping[str, TextFiles | Produced | HubStream]
) -> dict[str, Cell]:
    """Returns the cells that draw the sequences of each text with a checkpoint's tokenizer."""
    return {
        name: Cell(
            SequencesWork(name, text, study.datasets[name], checkpoint.tokenizer),
            needs=tuple(s.cell_id for s in (text, checkpoint.tokenizer) if isinstance(s, Produced)),
            suite=checkpoint.suite,
        )
        for name, text in texts.items()
    }


def _works(study: Study, sequences: dict[str, Cell]) -> Works:
    """Returns what is measured on each checkpoint of a tokenizer, and the cells that it needs."""
    works: Works = [(CheckpointWork(), ())]
    if study.head is not None:
        name = study.head.unigram_dataset
        counted = sequences[name].id if name is not None else None
        head = HeadWork(name, counted, study.head.extreme_tokens, study.head.drop_zero_rows)
        works.append((head, (counted,) if counted else ()))
    if study.geometry is not None:
        for name in study.geometry.datasets:
            geometry = GeometryWork(
                name,
                sequences[name].id,
                study.geometry.layers,
                study.forward.dtype,
                study.geometry.sample_counts,
                study.geometry.sequence_lengths,
            )
            works.append((geometry, (geometry.sequences,)))
    for name in study.evals.loss.datasets if study.evals and study.evals.loss else ():
        drawn = sequences[name].id
        works.append((LossWork(name, drawn, study.forward.dtype), (drawn,)))
    if study.sensitivity is not None:
        noise = study.sensitivity
        sensitivity = SensitivityWork(
            noise.dataset,
            sequences[noise.dataset].id,
            noise.dataset_sequences,
            noise.scales,
            noise.seeds,
            study.forward.dtype,
        )
        works.append((sensitivity, (sensitivity.sequences,)))
    return works


def _made_by(source: Source) -> tuple[str, ...]:
    return (source.cell_id,) if isinstance(source, Produced) else ()


def _datasets_in_use(study: Study) -> set[str]:
    """Returns the names of the datasets that some measurement reads."""
    used = set(study.geometry.datasets if study.geometry else ())
    used.update(study.evals.loss.datasets if study.evals and study.evals.loss else ())
    if study.head is not None and study.head.unigram_dataset is not None:
        used.add(study.head.unigram_dataset)
    if study.ablation is not None:
        used.add(study.ablation.dataset)
    if study.finetune is not None and study.finetune.dataset is not None:
        used.add(study.finetune.dataset)
    if study.sensitivity is not None:
        used.add(study.sensitivity.dataset)
    return used


def _check_datasets(study: Study) -> None:
    for name in sorted(_datasets_in_use(study) - set(study.datasets)):
        raise StudyError(
            f"study {study.name} measures on dataset '{name}', which it doesn't define",
            f"add [datasets.{name}], or use one of {', '.join(study.datasets) or '(none)'}",
        )


def _text(
    name: str, dataset: Dataset, corpora: dict[str, str], hashes: FileHashes, index: HubIndex
) -> TextFiles | Produced | HubStream:
    """Returns where a dataset's text comes from."""
    if isinstance(dataset, PicoText):
        if dataset.suite not in corpora:
            raise StudyError(
                f"dataset '{name}' reads the pico suite '{dataset.suite}', which the study lacks",
                f'name one of {", ".join(corpora) or "(none)"}, or use kind = "local"',
            )
        return Produced(corpora[dataset.suite], "heldout.jsonl")
    if isinstance(dataset, HubText):
        return HubStream(
            dataset.repository,
            dataset.config,
            dataset.split,
            index.dataset_commit(dataset.repository, dataset.revision),
            dataset.field,
            dataset.documents or _DOCUMENTS_PER_SEQUENCE * dataset.sequences,
        )
    return text_files(f"dataset '{name}'", dataset.paths, dataset.field, dataset.separator, hashes)
