"""Models whose weights, gradients and optimizer state are split among the processes of a group.

The splitting is PyTorch's FSDP2, as Accelerate applies it: block by block, gathered for as long as
a block computes. Accelerate knows it for accelerators alone; here CPUs do the same, over gloo.
"""

from typing import Any

import torch
from accelerate.parallelism_config import ParallelismConfig
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from trl.trainer import dpo_trainer, grpo_trainer


def options(processes: int) -> dict[str, Any]:
    """Returns what a trainer's arguments say of it."""
    return {
        "fsdp": True,
        # Each process saves what it has: resuming needs as many, which the identity fixes.
        "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"},
        # Else PyTorch would take GPUs, where it knows of such, also for what trains on CPUs.
        "parallelism_config": ParallelismConfig(dp_shard_size=processes),
    }


def prepare(arguments: Any) -> Any:
    """Returns a trainer's arguments, with `options`, and has the trainer split what it is given."""
    if arguments.device.type == "cpu":
        # Making the arguments, Accelerate has set itself up for a group of CPUs. Making the
        # trainer, it looks here whether models may be split; the device is settled by now.
        PartialState().distributed_type = DistributedType.MULTI_GPU
    for module in (dpo_trainer, grpo_trainer):
        module.prepare_fsdp = _split_reference
    return arguments


def gather_precisely(trainer: Any) -> None:
    """Has gradients added up in float32 where passes are in bfloat16, before training begins."""
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.bfloat16
        )


def whole_state(model: Any) -> dict[str, Any]:
    """Returns all weights, on the CPU of the first process; of the others, which must call too, {}.

    Their names are those of the model as it was before it was split.
    """
    form = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found: dict[str, Any] = get_model_state_dict(model, options=form)
    return found


def _split_reference(model: Any, accelerator: Any) -> Any:
    """Splits a frozen model block by block; TRL's own way gathers all of it for each pass."""
    return fsdp2_prepare_model(accelerator, model).eval()
