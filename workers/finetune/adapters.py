"""Adapters on a loaded checkpoint, and other norms of its head before them; both are undone.

Invariant: after the block of either context manager, left by an exception or not, the model holds
the very modules and parameters it held before, and none of their bytes was written to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import DataError
from jobs.finetune_work import Recipe
from workers.finetune.adapter_layers import Adapter
from workers.finetune.targets import adapted_layers
from workers.hub import LoadedCheckpoint, float64_device
from workers.kernels.head import row_norms
from workers.kernels.head_norms import intervened, norm_groups, token_rates


@dataclass(frozen=True)
class Adapted:
    """A model with adapters in place, which its decoder and its head both go through.

    Attributes:
        model: The transformers model; adapters' dropout is off, see `train`.
        parameters: What is trained, float32, module after module: A, B, and DoRA's magnitudes.
        modules: Names of the adapted modules, the head last.
        head_untied: Whether the head was the input embedding and no longer acts as it does: its
            norms were changed, or its adapter acts on the output alone.
        head: The head's rows of real tokens that training begins with, (V, d) float32.
        adapters: The adapter of each module.
        head_adapter: That of the head; None if it isn't adapted.
    """

    model: Any
    parameters: list[nn.Parameter]
    modules: tuple[str, ...]
    head_untied: bool
    head: Tensor
    adapters: tuple[Adapter, ...]
    head_adapter: Adapter | None

    def train(self, mode: bool) -> None:
        """Switches the adapters' dropout, and no other: the model's own stays off."""
        for adapter in self.adapters:
            adapter.train(mode)

    def head_update(self) -> Tensor | None:
        """Returns how far the head's rows of real tokens have moved so far.

        Returns:
            ΔW, (V, d) float32, such that the head gives states · (W + ΔW)ᵀ; None if the head isn't
            adapted.
        """
        return None if self.head_adapter is None else self.head_adapter.update()[: len(self.head)]


@contextmanager
def intervened_head(loaded: LoadedCheckpoint, recipe: Recipe) -> Iterator[bool]:
    """Changes the norms of the head's rows of real tokens for the length of the block.

    The changed matrix is a parameter of its own, so that a tied input embedding stays as it is.

    Args:
        loaded: The checkpoint.
        recipe: Its intervention, clip and seed are what counts.

    Yields:
        Whether the head was tied and isn't for the time being.

    Raises:
        DataError: A zero row, which has no direction.
    """
    if recipe.intervention == "none":
        yield False
        return
    head = loaded.model.get_output_embeddings()
    original = head.weight
    changed = original.detach().clone()
    rows = changed[: loaded.vocabulary_size]
    exact = rows.to(float64_device(rows.device))
    try:
        rows.copy_(intervened(exact, recipe.intervention, recipe.clip, recipe.seed))
    except ValueError as error:
        raise _refused(loaded, error) from error
    head.weight = nn.Parameter(changed, requires_grad=False)
    try:
        yield loaded.tied
    finally:
        head.weight = original


@contextmanager
def adapted(loaded: LoadedCheckpoint, recipe: Recipe) -> Iterator[Adapted]:
    """Puts adapters on a checkpoint for the length of the block, inside `intervened_head`'s.

    They are float32 whatever the precision of the model, with A drawn on the CPU from the seed
    alone and B zero: at first the model is what it was. The same modules get the same A whether or
    not the head is adapted too. A tied head's adapter acts on the output alone; the matrix that it
    shares with the input embedding is frozen, so it needs no copy.

    On the head, `norm_lr` and `inverse_norm_lr` multiply row i of B by a constant sᵢ, of mean 1
    over the real tokens: Δwᵢ = (α/r) sᵢBᵢA. Adam's steps don't know the size of a gradient, which
    sᵢ multiplies as well, so that Bᵢ moves as ever and sᵢBᵢ moves sᵢ times as far: a learning rate
    of sᵢ per token, up to Adam's ε. AdamW's decay acts on Bᵢ, so on sᵢBᵢ, at the same pace for all
    tokens; under plain gradient descent the rate would be sᵢ². `norm_group_lora` gives each group
    of tokens of like norm an A of its own: Δwᵢ = (α/r) BᵢA_g(i). Padding rows have rate 1 and are
    in the first group. Rates of one and a single group are plain LoRA to the last bit.

    Args:
        loaded: The checkpoint, its model in evaluation mode and frozen.
        recipe: Method, rank, targets, groups, α, dropout and seed are what counts.

    Yields:
        The model with its adapters.

    Raises:
        DataError: Targets that fit no module or one that isn't linear, a rank above a layer's
            size, a zero row of the head where its norm counts, more groups than tokens; for DoRA, a
            zero row of any adapted layer.
    """
    model, head = loaded.model, loaded.model.get_output_embeddings()
    found = adapted_layers(model, recipe.targets, recipe.rank)
    rows, with_padding = head.weight.detach()[: loaded.vocabulary_size].float(), len(head.weight)
    generator = torch.Generator().manual_seed(recipe.seed)
    adapters: dict[str, Adapter] = {}
    for name, module in found.items():
        try:
            factors = _factors(rows, with_padding, recipe) if module is head else None
        except ValueError as error:
            raise _refused(loaded, error) from error
        adapters[name] = Adapter(name, module, recipe, factors, generator)
    on_head = [adapters[name] for name, module in found.items() if module is head]
    embedding = model.get_input_embeddings().weight
    places = [(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in found]
    try:
        for (parent, child), adapter in zip(places, adapters.values(), strict=True):
            setattr(parent, child, adapter.layer)
        yield Adapted(
            model=model,
            parameters=[p for adapter in adapters.values() for p in adapter.parameters()],
            modules=tuple(adapters),
            head_untied=loaded.tied and (bool(on_head) or head.weight is not embedding),
            head=rows,
            adapters=tuple(adapters.values()),
            head_adapter=on_head[0] if on_head else None,
        )
    finally:
        for (parent, child), module in zip(places, found.values(), strict=True):
            setattr(parent, child, module)


def _factors(rows: Tensor, with_padding: int, recipe: Recipe) -> Tensor | None:
    """Returns the factors of B's rows, (rows with padding, G) float32; None for B as it is.

    Raises:
        ValueError: A zero row where rates are asked for, or more groups than tokens.
    """
    padding = with_padding - len(rows)
    if recipe.method == "norm_group_lora":
        groups = 1 if recipe.groups is None else recipe.groups
        found = norm_groups(row_norms(rows.to(float64_device(rows.device))), groups)
        factors = nn.functional.one_hot(nn.functional.pad(found, (0, padding), value=0), groups)
    elif recipe.method in ("norm_lr", "inverse_norm_lr"):
        rates = token_rates(row_norms(rows.to(float64_device(rows.device))), recipe.method)
        factors = nn.functional.pad(rates, (0, padding), value=1)[:, None]
    else:
        return None
    return factors.to(torch.float32).to(rows.device)


def _refused(loaded: LoadedCheckpoint, error: ValueError) -> DataError:
    return DataError(
        f"{loaded.path}: {error}",
        "leave the checkpoint out, or use an arm that doesn't need that",
    )
