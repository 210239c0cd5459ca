"""What a stage of post-training keeps: checkpoints, and the state that a killed one goes on from.

Invariant: a checkpoint and a state appear whole, and a state after the checkpoints before it.
"""

import copy
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, TrainerCallback

from jobs.errors import DivergedError
from jobs.posttrain_work import PosttrainWork
from jobs.sources import CHAT_TEMPLATE_FILE, TOKENIZER_FILES
from workers.finetune import chats, group, sharded
from workers.finetune.trainers import adapter_config

_STATE_EVERY_SECONDS = 300.0


@dataclass(frozen=True)
class Publisher:
    """Writes checkpoints: transformers folders with their tokenizer, adapters merged.

    Attributes:
        work: The stage.
        weights: Folder of the checkpoint that it begins from.
        tokenizer: Folder of the tokenizer.
        config: The model's, as it was before a trainer had it, with the precision to save.
        words: The loaded tokenizer.
        had_template: Whether the tokenizer has a chat template of its own.
        folder: Where the checkpoints go.
    """

    work: PosttrainWork
    weights: Path
    tokenizer: Path
    config: Any
    words: Any
    had_template: bool
    folder: Path

    def publish(self, trained: Any, step: int) -> None:
        """Writes the checkpoint of a step; each process of a group calls it, and the first writes.

        Args:
            trained: The model in training.
            step: The step.
        """
        if isinstance(trained, FSDPModule):
            trained = self._gathered(trained)
        if not group.first():
            return
        with _published(self.folder / f"step{step}") as target:
            _plain(trained, self.config.dtype).save_pretrained(target)
            self.config.save_pretrained(target)
            _copy(self.weights, target, ("generation_config.json",))
            _copy(self.tokenizer, target, TOKENIZER_FILES)
            if self.words.chat_template and not self.had_template:
                (target / CHAT_TEMPLATE_FILE).write_text(chats.CHAT_TEMPLATE, encoding="utf-8")

    def _gathered(self, split: Any) -> Any:
        """Returns the model in one piece in the first process; None in the others."""
        state = sharded.whole_state(split)
        if not group.first():
            return None
        # Without weights of its own, so that there is no second copy of them.
        with torch.device("meta"):
            config = copy.deepcopy(self.config)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            adapters = adapter_config(self.work, model)
            if adapters is not None:
                model = get_peft_model(model, adapters)
        model.load_state_dict(state, assign=True)
        model.tie_weights()
        return model


class Keeper(TrainerCallback):
    """Keeps checkpoints and the trainer's state, tells the progress and sees divergence.

    Args:
        work: The stage.
        state: Folder of the states; the last whole one is in a folder step{N}.
        publish: Writes a checkpoint, given the model and its step.
        report: Called with (steps done, all steps).
    """

    def __init__(
        self,
        work: PosttrainWork,
        state: Path,
        publish: Callable[[Any, int], None],
        report: Callable[[int, int], None],
    ) -> None:
        self._work, self._state = work, state
        self._publish, self._report = publish, report
        self._saved = time.monotonic()

    def last_state(self) -> Path | None:
        """Returns the folder of the last whole state."""
        found = self._state.glob("step*")
        return max(found, key=lambda path: int(path.name.removeprefix("step")), default=None)

    def on_step_end(self, _args: Any, state: Any, control: Any, **_others: Any) -> Any:
        """Asks for the state to be saved: it isn't any more once all is done."""
        step, training = state.global_step, self._work.training
        self._report(step, training.steps)
        # Of a group, all save if one asks for it: their clocks differ.
        late = group.in_any(time.monotonic() - self._saved > _STATE_EVERY_SECONDS)
        if step < training.steps and (late or step in training.kept_steps):
            control.should_save = True
        return control

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_others: Any
    ) -> None:
        """Ends a stage whose loss or gradient is no longer finite; it comes before saving."""
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            training = self._work.training
            raise DivergedError(
                f"{training.method} on '{training.data}': loss {loss} and gradient norm {norm} at "
                f"step {state.global_step}, learning rate {training.learning_rate:g}",
                "lower the stage's learning_rate or raise its warmup_share",
            )

    def on_save(
        self, _args: Any, state: Any, _control: Any, model: Any = None, **_others: Any
    ) -> None:
        """Publishes a checkpoint that is kept, then lets the saved state take the last one's place.

        In this order, a resumed stage never lacks a checkpoint from before its state.
        """
        step = state.global_step
        if step in self._work.training.kept_steps:
            self._publish(model, step)
        group.in_any(False)  # Each process of a group has written its part by now.
        if group.first():
            before = self.last_state()
            (self._state / "trainer" / f"checkpoint-{step}").rename(self._state / f"step{step}")
            if before is not None:
                shutil.rmtree(before)
        self._saved = time.monotonic()


def _plain(model: Any, dtype: torch.dtype) -> Any:
    """Returns the model without adapters, merged into its weights, in the precision to save."""
    if not isinstance(model, PeftModel) and model.dtype == dtype:
        return model
    model = copy.deepcopy(model)  # Merging and unmerging would change the last bits.
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    return model.to(dtype)


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Gives a folder of a temporary name, and renames it in the end."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    # A run that was killed before it could save its state wrote the same bytes there.
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copies those of some files that are there, and lets no others of these names stay."""
    for name in names:
        (target / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
