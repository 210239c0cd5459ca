"""Tasks: questions with answers, as a study asks for them; each is run by lm-eval."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jobs.frozen import Frozen

HARNESS_REPOSITORIES = {
    "arc_challenge": "allenai/ai2_arc",
    "arc_easy": "allenai/ai2_arc",
    "hellaswag": "Rowan/hellaswag",
    "lambada_openai": "EleutherAI/lambada_openai",
    "openbookqa": "allenai/openbookqa",
    "piqa": "baber/piqa",
    "sciq": "allenai/sciq",
    "triviaqa": "mandarjoshi/trivia_qa",
    "winogrande": "allenai/winogrande",
}
"""Where lm-eval 0.4.13 finds the data of some of its tasks, so that a plan can pin its commit."""


class HarnessTask(Frozen):
    """A task as lm-eval defines it, by name or by a task file of the user's."""

    kind: Literal["harness"] = "harness"
    task: str | None = None
    """lm-eval's name of it, as in `arc_easy`; the study's own name where it is left out."""
    config: str | None = None
    """Instead of a name: a task file (YAML) for lm-eval, without includes and without code."""
    data: tuple[str, ...] = ()
    """JSONL files with the records of the task, in place of its data on the hub."""
    repository: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository of its data on the hub; known for common tasks."""
    revision: str = "main"
    """Branch, tag or commit of that repository; the plan pins its commit."""
    shots: int = Field(0, ge=0)
    """Solved examples before each question."""
    limit: int | None = Field(None, ge=1)
    """Ask only the first questions; all where it is left out."""
    training_data: tuple[str, ...] = ()
    """JSONL files with the records to fine-tune on, where `data` has those to validate on."""

    @model_validator(mode="after")
    def _data_is_known(self) -> "HarnessTask":
        if self.config is not None and self.task is not None:
            raise ValueError("give either `task`, lm-eval's name, or `config`, a file, not both")
        if self.config is not None and not self.data:
            raise ValueError("a `config` of your own needs `data`: the JSONL files of its records")
        return self


class PicoTask(Frozen):
    """Questions about the invented facts of a pico corpus."""

    kind: Literal["pico"] = "pico"
    suite: str = "pico"
    """The pico suite whose corpus tells the facts."""
    form: Literal["choice", "open", "last_word", "sum"] = "choice"
    """The likeliest of four options; an answer in free text; the last word of a statement; or a
    sum of the curriculum, for fine-tuning alone."""
    questions: Literal["heldout", "train"] = "heldout"
    """Facts that training states and never asks for, or those that it asks for as well."""
    limit: int | None = Field(None, ge=1)
    """Ask only so many questions, spread over all frequencies; all where it is left out."""


class PairsTask(Frozen):
    """Prompts and answers of the user's, for fine-tuning."""

    kind: Literal["pairs"] = "pairs"
    training: tuple[str, ...] = Field(min_length=1)
    """JSONL files of the examples to train on."""
    validation: tuple[str, ...] = Field(min_length=1)
    """JSONL files of those that the loss is measured on."""
    prompt: str = "prompt"
    """Field of a record that holds the prompt."""
    answer: str = "answer"
    """Field that holds the answer; a space is put before it where neither side has one."""


Task = Annotated[HarnessTask | PicoTask | PairsTask, Field(discriminator="kind")]
