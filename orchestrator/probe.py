"""A probe for a user's own training: a callback that measures every so many steps.

Invariant: nothing that goes wrong after the first step ends the training, or changes a number of
it; what cannot work at all is refused before that step.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import TrainerCallback

from jobs.cells import Cell, Checkpoint
from jobs.errors import UsageError
from jobs.events import Event, Failed, Finished
from jobs.frozen import Stage
from jobs.identity import digest
from jobs.place import Place
from jobs.sources import Produced
from jobs.text_spec import Sequences
from jobs.work import GeometryWork, HeadWork
from orchestrator.store import Store
from workers.probe import (
    bare_model,
    check_model,
    measurable,
    measure,
    precision_of,
    probe_sequences,
    probe_texts,
    tokenizer_of,
    undisturbed,
)
from workers.sequences import TokenSequences
from workers.telling import Task, finished, reporting_failure

_LOG = logging.getLogger("eigentrace")
_STAGES: dict[str, Stage] = {"SFTConfig": "sft", "DPOConfig": "dpo", "GRPOConfig": "rlvr"}
_EXTREME_TOKENS = 20

When = Literal["always", "ends", "never"]


class GeometryProbe(TrainerCallback):
    """Measures the last layer's geometry and the LM head of a model while it is trained.

    Rows of the tables `geometry`, `influences` and `head` are written at step 0, every `every`
    steps and after the last one, each as soon as it is measured. Works in transformers' Trainer and
    in TRL's, with PEFT's adapters, on one device or with DDP, where the first process measures.

    The weights in a training have no hash to be known by. What identifies a row's cell is the
    suite, the model's name, the step, and what is measured on which tokens. A training that is
    resumed goes on with the same series, and steps that it repeats are written anew; one that
    begins at step 0 under a name that has rows already is refused before its first step, so that
    no rows are lost and no two trainings are mixed.

    A measurement that fails is told in the log, once for each reason, and becomes a row of
    `failures`; the training goes on.

    Args:
        texts: What to measure on: strings, or a `.txt` file (one document per paragraph block) or a
            `.jsonl` file (field `text`). Each gives one sequence, in a seeded random order, as in a
            study.
        results: Folder or URL of the results; it may hold those of studies.
        suite: Name of the series, in every row.
        every: Steps between two measurements.
        model: Name of the model, in every row; else the trainer's `run_name`, else the name that
            the model was loaded by, else its architecture.
        stage: Kind of training; else by the trainer's arguments: `sft`, `dpo` or `rlvr` for TRL's
            SFT, DPO and GRPO, else `pretrain`.
        dataset: Name of the texts, in every row of the geometry.
        sequences: Number of sequences M. Its standard errors are validated where M is at least ten
            times the model's width (`se_reliable`).
        sequence_length: Where a sequence is cut, in tokens. M · L tokens pass the model each time.
        overlaps: When to measure the head's overlaps, whose cost grows with the square of the
            vocabulary: `always`, at the `ends` of the training, or `never`.
        tokenizer: The tokenizer, for a trainer that has none.

    Raises:
        UsageError: A wrong argument, or a place that holds no results or cannot be written.
        DataError: A file of texts that cannot be read.
    """

    def __init__(
        self,
        texts: str | Path | Sequence[str],
        *,
        results: str | Path | Place,
        suite: str,
        every: int = 50,
        model: str | None = None,
        stage: Stage | None = None,
        dataset: str = "probe",
        sequences: int = 256,
        sequence_length: int = 10,
        overlaps: When = "ends",
        tokenizer: Any = None,
    ) -> None:
        for name, text in {"suite": suite, "model": model, "dataset": dataset}.items():
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise UsageError(f"{name} is {text!r}", "give it a name")
        least = {"every": (every, 1), "sequences": (sequences, 4)}
        least["sequence_length"] = (sequence_length, 1)
        for name, (number, lowest) in least.items():
            if type(number) is not int or number < lowest:
                raise UsageError(f"{name} is {number!r}", f"give a whole number from {lowest} on")
        for name, value, known in (
            ("stage", stage, (None, *get_args(Stage))),
            ("overlaps", overlaps, get_args(When)),
        ):
            if value not in known:
                names = ", ".join(word for word in known if word)
                raise UsageError(f"{name} is {value!r}", f"give one of {names}")
        self._texts = probe_texts(texts)
        if len(self._texts) < sequences:
            raise UsageError(
                f"there are only {len(self._texts)} texts for {sequences} sequences",
                "give more texts, or lower `sequences`",
            )
        self._given = None if tokenizer is None else tokenizer_of(tokenizer)
        self._draw = Sequences(sequences=sequences, sequence_length=sequence_length)
        self._suite, self._model, self._stage, self._dataset = suite, model, stage, dataset
        self._every, self._overlaps = every, overlaps
        # Only the first process writes; the place need not be within reach of the others.
        self._store = Store(results) if os.environ.get("RANK", "0") == "0" else None
        self._sequences: TokenSequences | None = None
        self._last: int | None = None
        self._told: set[str] = set()

    def on_init_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Refuses what cannot be probed as soon as there is a trainer."""
        if given.get("model") is not None:
            check_model(given["model"], args)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Draws the sequences and measures the model as it is before the first step.

        Raises:
            UsageError: The model cannot be probed, there is no tokenizer, or the name is taken.
            DataError: The tokenizer cannot make the sequences.
        """
        check_model(given["model"], args)
        if not state.is_world_process_zero or self._store is None:
            return
        if state.global_step == 0:
            self._refuse_taken(self._store, self._name(args, given["model"]))
        tokenizer = self._tokenizer(given)
        self._sequences = probe_sequences(self._texts, self._draw, tokenizer)
        self._last = None
        if state.global_step % self._every == 0:
            self._probe(args, state, given, end=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measures after every so many steps, and after the last one."""
        # Not when training has ended: the trainer may have put the best weights back by then.
        end = control.should_training_stop or state.global_step >= state.max_steps
        if end or state.global_step % self._every == 0:
            self._probe(args, state, given, end=end)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measures the last step, where something else than their number ended the steps."""
        if not args.load_best_model_at_end:
            self._probe(args, state, given, end=True)

    def _probe(self, args: Any, state: Any, given: dict[str, Any], *, end: bool) -> None:
        if self._sequences is None or state.global_step == self._last:
            return
        self._last = state.global_step
        try:
            model = bare_model(given["model"])
            checkpoint = self._checkpoint(args, state, model)
            self._measure(model, checkpoint, self._tokenizer(given), end)
        except Exception as error:  # noqa: BLE001 (The training is worth more than its probe.)
            self._warn(f"{type(error).__name__}: {error}")

    def _measure(self, model: Any, checkpoint: Checkpoint, tokenizer: Any, end: bool) -> None:
        assert self._sequences is not None
        fingerprint, dtype = self._sequences.fingerprint, precision_of(model)
        with_overlaps = self._overlaps == "always" or (self._overlaps == "ends" and end)
        works = (
            GeometryWork(self._dataset, fingerprint, "last", dtype),  # type: ignore[arg-type]
            HeadWork(None, None, _EXTREME_TOKENS, True, with_overlaps),
        )
        cells = tuple(Cell(work, (), checkpoint) for work in works)
        device = str(next(model.parameters()).device)
        task = Task(cells, device, 0, 0)
        with undisturbed(model), reporting_failure(cells, self._recorder(cells)):
            loaded = measurable(model, tokenizer)
            for cell in cells:
                record, started = self._recorder((cell,)), time.perf_counter()
                with reporting_failure([cell], record):
                    tables = dict(measure(cell, loaded, self._sequences))
                    record(finished(cell, tables, task, time.perf_counter() - started))

    def _recorder(self, cells: tuple[Cell, ...]) -> Any:
        by_id = {cell.id: cell for cell in cells}

        def record(event: Event) -> None:
            assert self._store is not None
            match event:
                case Finished():
                    self._store.commit(by_id[event.cell_id], event)
                case Failed():
                    remedy = f" → {event.remedy}" if event.remedy else ""
                    self._warn(f"{by_id[event.cell_id].work.kind}: {event.message}{remedy}")
                    self._store.fail(by_id[event.cell_id], event, 1)

        return record

    def _warn(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _LOG.warning("a probe could not measure; the training goes on: %s", what)

    def _checkpoint(self, args: Any, state: Any, model: Any) -> Checkpoint:
        name, step = self._name(args, model), state.global_step
        seen = state.num_input_tokens_seen
        tracked = seen > 0 or args.include_num_input_tokens_seen != "no"
        run = digest({"training": {"suite": self._suite, "model": name}})
        return Checkpoint(
            suite=self._suite,
            model=name,
            revision=f"step{step}",
            step=step,
            tokens=int(seen) if tracked else None,
            stage=self._stage or _stage_of(args),
            # As of checkpoints that a cell produces: known by who makes them, and when.
            source=Produced(run, f"step{step}"),
            tokenizer=Produced(run, "tokenizer"),
        )

    def _name(self, args: Any, model: Any) -> str:
        bare = bare_model(model)
        loaded = Path(getattr(bare.config, "_name_or_path", "") or "").name
        return str(self._model or args.run_name or loaded or type(bare).__name__)

    def _tokenizer(self, given: dict[str, Any]) -> Any:
        return self._given or tokenizer_of(given.get("processing_class"))

    def _refuse_taken(self, store: Store, name: str) -> None:
        # Imported here: only the beginning of a training reads.
        from dashboards.query import load

        for table in ("geometry", "head"):
            rows = load(table, store.place, columns=["suite", "model", "step"]).to_pylist()
            if any((row["suite"], row["model"]) == (self._suite, name) for row in rows):
                raise UsageError(
                    f"{store.place} has rows of suite '{self._suite}', model '{name}' already",
                    "give the probe another `model` or `suite`, or resume that training",
                )


def _stage_of(args: Any) -> Stage:
    names = (parent.__name__ for parent in type(args).__mro__)
    return next((_STAGES[name] for name in names if name in _STAGES), "pretrain")
