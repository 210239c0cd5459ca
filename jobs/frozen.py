"""What every configuration model is built on: immutable, and strict about its keys."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Stage = Literal["pretrain", "sft", "dpo", "rlvr"]
DType = Literal["float32", "bfloat16", "float16"]


class Frozen(BaseModel):
    """Base of every configuration model: immutable, and strict about its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
