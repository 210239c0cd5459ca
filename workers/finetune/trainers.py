"""TRL's trainers, set up for one stage: what is trained on what, without a word to the network."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from jobs.errors import DataError
from jobs.posttrain_work import PosttrainWork
from workers.finetune import chats, rlvr, sharded
from workers.finetune.targets import adapted_layers
from workers.grade import Grader
from workers.records import Record

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}

# Bars and remarks for every stage would tear the run's own progress apart.
datasets.disable_progress_bars()
for _library in ("trl", "accelerate"):
    logging.getLogger(_library).setLevel(logging.ERROR)


class _Apart:
    """A trainer that tells the hub nothing and finds all of its weights again."""

    model: Any
    is_fsdp_enabled: bool

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_args: Any, **_options: Any) -> None:
        pass

    def _load_from_checkpoint(self, folder: str, model: Any = None) -> None:
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled:
            super()._load_from_checkpoint(folder, model)  # type: ignore[misc]
            return
        # The trainer's own way skips tensors that are stored under another name than their
        # module's, such as the head of GPT-NeoX. States of a group have the modules' names.
        stored = type(self.model).from_pretrained(folder, dtype=self.model.dtype)
        self.model.load_state_dict(stored.state_dict())


class _Sft(_Apart, SFTTrainer):
    pass


class _SummedSft(_Sft):
    """Adds the token losses of an optimizer step up, where the trainer takes their mean."""

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        del num_items_in_batch  # What the sum would be divided by.
        one = torch.tensor(1)
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=one)


class _Dpo(_Apart, DPOTrainer):
    pass


class _Grpo(_Apart, GRPOTrainer):
    pass


def trainer_of(
    work: PosttrainWork,
    model: Any,
    tokenizer: Any,
    records: Sequence[Record],
    grade: Grader,
    device: str,
    output: Path,
    callback: TrainerCallback,
) -> Any:
    """Returns the trainer of a stage.

    Args:
        work: The stage.
        model: What is trained, loaded from a folder that stays: its first weights are the
            reference of DPO, and of RLVR with β > 0. A group's is on the CPU, and each process
            gives its own.
        tokenizer: Its tokenizer; one without a chat template gets one if the records are chats.
        records: The training data.
        grade: Judges completions, for RLVR.
        device: `cpu`, `cuda` or `mps`.
        output: Where the trainer keeps its state.
        callback: Told of every step.

    Raises:
        DataError: Records that the method cannot learn from, a chat template that refuses them, or
            no example that fits into the longest length; adapters on what can't have them.
    """
    training = work.training
    longest = getattr(model.config, "max_position_embeddings", None) or training.max_length
    length = min(training.max_length, longest)
    options = _options(work, device, output)
    grouped = work.processes > 1
    if grouped and training.method != "sft":
        # Else TRL would spread each process's reference over all GPUs that it sees.
        options["model_init_kwargs"] = {"device_map": None}

    def ready(arguments: Any) -> Any:
        return sharded.prepare(arguments) if grouped else arguments

    common: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": adapter_config(work, model),
        "callbacks": [callback],
    }
    try:
        match training.method:
            case "sft":
                examples = chats.supervised(records, training.data, tokenizer)
                trainer = (_SummedSft if training.loss_reduction == "sum" else _Sft)(
                    args=ready(
                        SFTConfig(
                            **options,
                            max_length=length,
                            assistant_only_loss="messages" in examples[0],
                        )
                    ),
                    train_dataset=datasets.Dataset.from_list(examples),
                    **common,
                )
            case "dpo":
                examples = chats.preferences(records, training.data, tokenizer)
                beta = 0.1 if training.beta is None else training.beta
                trainer = _Dpo(
                    args=ready(
                        DPOConfig(
                            **options,
                            max_length=length,
                            beta=beta,
                            loss_type="sigmoid_norm" if training.length_normalized else "sigmoid",
                        )
                    ),
                    train_dataset=datasets.Dataset.from_list(examples),
                    **common,
                )
            case "rlvr":
                examples = chats.problems(records, training.data, tokenizer)
                order = rlvr.schedule(examples, work, tokenizer, length)
                trainer = _Grpo(
                    args=ready(
                        GRPOConfig(
                            **options,
                            beta=training.beta or 0.0,
                            num_generations=training.completions,
                            max_completion_length=training.completion_tokens,
                            temperature=training.temperature,
                            shuffle_dataset=False,
                        )
                    ),
                    reward_funcs=rlvr.reward(grade, training.completions),
                    train_dataset=datasets.Dataset.from_list(order),
                    **common,
                )
    except TemplateError as error:
        raise DataError(
            f"the chat template refuses '{training.data}': {error}",
            "bring the chats into the form that the model expects",
        ) from error
    if not len(trainer.train_dataset):
        raise DataError(
            f"no example of '{training.data}' has an answer within {length} tokens",
            "raise the stage's max_length",
        )
    trainer.remove_callback(PrinterCallback)
    if grouped:
        sharded.gather_precisely(trainer)
    return trainer


def _options(work: PosttrainWork, device: str, output: Path) -> dict[str, Any]:
    training = work.training
    summed = training.method == "sft" and training.loss_reduction == "sum"
    return {
        "output_dir": str(output),
        "max_steps": training.steps,
        "per_device_train_batch_size": training.batch_size // work.processes,
        "gradient_accumulation_steps": training.accumulation,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _SCHEDULES[training.schedule],
        "warmup_steps": math.ceil(training.warmup_share * training.steps),
        "weight_decay": training.weight_decay,
        # The usual limit is one for the gradient of a mean; a sum would hit it in every step.
        "max_grad_norm": 0.0 if summed else 1.0,
        # What the random generators take.
        "seed": work.seed % 2**32,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        # TRL's own defaults are for GPUs. On a CPU, bfloat16 took three times as long, and there
        # is memory enough to keep activations.
        "bf16": work.dtype == "bfloat16",
        "gradient_checkpointing": device != "cpu",
        **(sharded.options(work.processes) if work.processes > 1 else {}),
    }


def adapter_config(work: PosttrainWork, model: Any) -> LoraConfig | None:
    """Returns the adapters of a stage for a model; None where it trains the weights themselves.

    Raises:
        DataError: Targets that the model lacks, or can't have adapters.
    """
    adapters = work.training.adapters
    if adapters is None:
        return None
    layers = adapted_layers(model, adapters.targets, adapters.rank)
    if any(layer is model.get_output_embeddings() for layer in layers.values()):
        raise DataError(
            "the output embedding can't have adapters: the trainer's loss would not see them",
            "leave `head` out of adapters.targets",
        )
    return LoraConfig(
        r=adapters.rank,
        lora_alpha=adapters.alpha,  # type: ignore[arg-type]
        lora_dropout=adapters.dropout,
        target_modules=list(layers),
        task_type="CAUSAL_LM",
    )
