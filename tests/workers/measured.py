"""A tiny checkpoint that is measured, and the same by transformers alone."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.columns import KEYS
from jobs.records import TABLES
from jobs.work import GeometryWork, HeadWork
from tests.references import Array
from tests.workers.models import random_sequences, silent, token_sequences
from workers.features import ForwardPass, forward_pass
from workers.hub import LoadedCheckpoint
from workers.sequences import TokenSequences

GEOMETRY = GeometryWork("sample", "0" * 64, "all", "float32")
HEAD = HeadWork("sample", "0" * 64, 5, False)
COUNT = 200
SEQUENCES = token_sequences(random_sequences(COUNT, vocabulary=250), 12)
OPTIONAL = {
    "unigram_dataset",
    "unigram_fingerprint",
    "pearson_norm_unigram",
    "spearman_norm_unigram",
}
ERRORS = {
    "rankme_se",
    "rankme_extrapolated",
    "rankme_logits",
    "alpha_req_se",
    "se_reliable",
    "spectrum_half",
    "spectrum_logits",
}


def measure_pass(checkpoint: LoadedCheckpoint, sequences: TokenSequences) -> ForwardPass:
    return forward_pass(
        checkpoint.model, sequences, batch_size=16, layers=True, loss=True, report=silent
    )


def own(table: str) -> set[str]:
    return set(TABLES[table].names) - {key.name for key in KEYS}


def by_hand(folder: Path) -> tuple[list[Array], Array]:
    """Features of each layer, the last one at the end, and the head, from transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    before: list[torch.Tensor] = []
    model.gpt_neox.final_layer_norm.register_forward_pre_hook(
        lambda _, args: before.append(args[0][0, -1])
    )
    layers = []
    with torch.no_grad():
        for ids in SEQUENCES.ids.split(SEQUENCES.lengths.tolist()):
            hidden = model(input_ids=ids[None], output_hidden_states=True).hidden_states
            layers.append([*(h[0, -1] for h in hidden[:-1]), before[-1], hidden[-1][0, -1]])
    rows = len(AutoTokenizer.from_pretrained(folder))
    head = model.get_output_embeddings().weight.detach()[:rows]
    return (
        [torch.stack(layer).double().numpy() for layer in zip(*layers, strict=True)],
        head.double().numpy(),
    )
