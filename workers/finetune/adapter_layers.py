"""One adapter around one linear layer: what it starts as, and how far it moves the layer's weight.

The layer itself is PEFT's; for the head, whose rows are tokens, its B can be scaled by token or
meet an A for each group of tokens.
"""

import math
from collections.abc import Iterator

import torch
from peft import LoraConfig
from peft.tuners import lora
from peft.tuners.lora.dora import DoraLinearLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from jobs.errors import DataError
from jobs.finetune_work import Recipe

_NAME = "default"


class FactoredRows(nn.Module):
    """B of a head whose rows are scaled, or meet an A of their own.

    Row i of the matrix that multiplies A's output is fᵢ₁Bᵢ, …, fᵢ_G Bᵢ, side by side, so that
    Δwᵢ = (α/r) Σ_g fᵢ_g Bᵢ A_g for an A that is A₁ … A_G on top of each other.

    Args:
        weight: B, (rows of the head, r), the parameter.
        factors: f, (rows of the head, G), constant.
    """

    factors: Tensor

    def __init__(self, weight: nn.Parameter, factors: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("factors", factors, persistent=False)

    def rows(self) -> Tensor:
        """Returns the matrix, (rows of the head, G·r)."""
        return (self.factors[:, :, None] * self.weight[:, None, :]).flatten(1)

    def forward(self, reduced: Tensor) -> Tensor:
        """Maps A's output, (..., G·r), to logits, (..., rows of the head)."""
        return nn.functional.linear(reduced, self.rows())


class Adapter:
    """A linear layer with LoRA's or DoRA's adapter around it, not yet part of the model.

    A is uniform as PEFT draws it, B is zero, and DoRA's magnitudes are the norms of the weight's
    rows; all float32 whatever the layer is, and A depends on the generator alone.

    Args:
        name: The layer's name in the model.
        module: The linear layer; not written to.
        recipe: Method, rank, α and dropout are what counts.
        factors: Factors of B's rows, (output size, G) float32; None for B as it is.
        generator: On the CPU.

    Raises:
        DataError: For DoRA, a row of the weight is zero.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        recipe: Recipe,
        factors: Tensor | None,
        generator: torch.Generator,
    ) -> None:
        transposed = isinstance(module, Conv1D)
        config = LoraConfig(
            r=recipe.rank,
            lora_dropout=recipe.dropout,
            use_dora=recipe.method == "dora",
            fan_in_fan_out=transposed,
        )
        # PEFT draws an A, too, but rounds it to the precision of the layer. Its draws are taken
        # from a copy of the global stream, which stays where it is.
        with torch.random.fork_rng(devices=[]):
            self.layer = lora.Linear(
                module, _NAME, config, r=recipe.rank, is_target_conv_1d_layer=transposed
            )
        self.scaling = recipe.alpha / recipe.rank
        self.layer.scaling[_NAME] = self.scaling
        outputs, inputs = _shape(self.layer)
        groups = 1 if factors is None else factors.shape[1]
        drawn = torch.empty(groups, recipe.rank, inputs)
        for group in drawn:
            nn.init.kaiming_uniform_(group, a=math.sqrt(5), generator=generator)
        device = self.layer.weight.device
        self.a = nn.Parameter(drawn.flatten(0, 1).to(device))
        self.b = nn.Parameter(torch.zeros(outputs, recipe.rank, device=device))
        self.layer.lora_A[_NAME].weight = self.a
        self.layer.lora_B[_NAME].weight = self.b
        if factors is not None:
            self.layer.lora_B[_NAME] = FactoredRows(self.b, factors)
        self.magnitudes = None
        if recipe.method == "dora":
            norms = self._norms()
            _check_rows(name, norms)
            self.magnitudes = nn.Parameter(norms)
            self._dora.weight = self.magnitudes
        self.train(False)

    def train(self, mode: bool) -> None:
        """Switches the adapter's dropout; the layer inside stays in evaluation mode."""
        # DoRA reads the adapter's own flag as well as its dropout's.
        self.layer.train(mode).get_base_layer().eval()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields A, B and, for DoRA, the magnitudes."""
        yield from (self.a, self.b)
        if self.magnitudes is not None:
            yield self.magnitudes

    @torch.no_grad()
    def update(self) -> Tensor:
        """Returns ΔW of a layer whose weight has shape (outputs, inputs), in float32."""
        b = self.layer.lora_B[_NAME]
        product = (b.rows() if isinstance(b, FactoredRows) else self.b) @ self.a
        if self.magnitudes is None:
            return self.scaling * product
        scale = (self.magnitudes / self._norms())[:, None]
        return (scale - 1) * self.layer.weight.float() + scale * self.scaling * product

    @property
    def _dora(self) -> DoraLinearLayer:
        dora = self.layer.lora_magnitude_vector[_NAME]
        assert isinstance(dora, DoraLinearLayer)
        return dora

    @torch.no_grad()
    def _norms(self) -> Tensor:
        """Returns the norms of W + (α/r)BA that DoRA's forward pass divides by, to the last bit."""
        product = self._dora.get_lora_weight(self.layer.lora_A[_NAME], self.layer.lora_B[_NAME])
        weight = self.layer.weight.to(product.dtype)
        return self._dora.get_weight_norm(weight, product, self.scaling)


def _shape(layer: lora.Linear) -> tuple[int, int]:
    outputs, inputs = layer.out_features, layer.in_features
    assert outputs is not None
    assert isinstance(inputs, int)
    return outputs, inputs


def _check_rows(name: str, norms: Tensor) -> None:
    zero = torch.nonzero(norms == 0).flatten().tolist()
    if zero:
        raise DataError(
            f"{len(zero)} rows of {name} are zero, first {zero[0]}, and DoRA divides by norms",
            "use another method or other targets",
        )
