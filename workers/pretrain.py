"""Pretraining of a pico model, from scratch, into a series of checkpoints.

Invariant: the weights after step s depend on the model's parameters and the corpus alone. A run
that is killed and called again resumes from its last checkpoint and ends in the same bytes as one
that was left alone, since the batches follow from (seed, step) and the optimizer's moments are
kept exactly.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from jobs.errors import DataError, DivergedError
from jobs.pico_spec import PicoModel
from workers.corpus import END_OF_TEXT
from workers.tally import phase
from workers.threads import fixed_threads

_BETAS = (0.9, 0.95)
_EPSILON = 1e-8
_REPORT_EVERY = 16
_MOMENTS = ("exp_avg", "exp_avg_sq")
_LOG = ("loss", "gradient_norm", "learning_rate")


def learning_rate(model: PicoModel, step: int) -> float:
    """Returns the learning rate of an optimizer step, counted from 1.

    Linear warm-up to the peak, then constant, or a cosine from the peak to a tenth of it.
    """
    if step <= model.warmup_steps:
        return model.learning_rate * step / model.warmup_steps
    if model.schedule == "constant":
        return model.learning_rate
    progress = (step - model.warmup_steps) / max(1, model.last_step - model.warmup_steps)
    return model.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def batch(tokens: NDArray[np.uint16], model: PicoModel, step: int) -> torch.Tensor:
    """Returns the sequences of an optimizer step, counted from 1.

    The stream is cut into sequences; each epoch visits all of them in an order of its own that
    follows from (seed, epoch).

    Returns:
        int64, shape (batch_size, sequence_length + 1): inputs, and targets one place later.
    """
    length = model.sequence_length
    sequences = (len(tokens) - 1) // length
    places = np.arange((step - 1) * model.batch_size, step * model.batch_size)
    rows = []
    for epoch in np.unique(places // sequences).tolist():
        order = np.random.default_rng([model.seed, epoch]).permutation(sequences)
        rows.append(order[places[places // sequences == epoch] % sequences])
    starts = np.concatenate(rows) * length
    return torch.from_numpy(tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def target_weights(
    tokens: NDArray[np.uint16], model: PicoModel, vocabulary_size: int
) -> torch.Tensor | None:
    """Returns each token's weight in the loss: 1/count, scaled to a mean of 1 over the stream.

    Returns:
        float32, shape (vocabulary_size,), 0 for tokens that don't occur; None for equal weights.
    """
    if model.target_weights == "equal":
        return None
    counts = np.bincount(tokens, minlength=vocabulary_size)
    occurring = counts > 0
    weights = np.zeros(vocabulary_size, dtype=np.float32)
    weights[occurring] = len(tokens) / (occurring.sum() * counts[occurring])
    return torch.from_numpy(weights)


def _initialize(model: PicoModel, vocabulary_size: int, end_of_text: int) -> GPTNeoXForCausalLM:
    """Returns the untrained network: weights N(0, 0.02²), biases 0, as in GPT-2 and GPT-NeoX."""
    config = GPTNeoXConfig(
        vocab_size=vocabulary_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        intermediate_size=4 * model.hidden_size,
        # Rotary positions need no table; generation wants room behind a full-length prompt.
        max_position_embeddings=2 * model.sequence_length,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        # All of a head turns, not a quarter: sums need their digits told apart by position, and a
        # quarter of a head this narrow is 8 places.
        rotary_pct=1.0,
        tie_word_embeddings=False,
        architectures=["GPTNeoXForCausalLM"],
        use_cache=True,
        dtype="float32",
        # At this size sdpa was no faster on a CPU.
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(model.seed)
        return GPTNeoXForCausalLM(config)


def _optimizer(network: GPTNeoXForCausalLM, model: PicoModel) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on the matrices, not on biases and gains."""
    matrices = [p for p in network.parameters() if p.ndim >= 2]
    vectors = [p for p in network.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": model.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=model.learning_rate, betas=_BETAS, eps=_EPSILON, fused=True)


def _publish_checkpoint(network: GPTNeoXForCausalLM, tokenizer: Path, target: Path) -> None:
    """Writes a transformers folder under a temporary name and renames it."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    network.config.save_pretrained(temporary)
    save_file(network.state_dict(), temporary / "model.safetensors", metadata={"format": "pt"})
    for file in sorted(tokenizer.iterdir()):
        shutil.copyfile(file, temporary / file.name)
    if target.exists():
        # A run that was killed before it could save its state: it will write the same bytes.
        shutil.rmtree(target)
    temporary.rename(target)


def _save_state(
    path: Path,
    step: int,
    optimizer: torch.optim.AdamW,
    names: dict[torch.Tensor, str],
    log: list[list[float]],
) -> None:
    """Replaces the state in one go: the moments by parameter, and the log so far."""
    tensors = {"log": torch.tensor(log, dtype=torch.float64).reshape(-1, len(_LOG))}
    for parameter, moments in optimizer.state.items():
        for moment in _MOMENTS:
            tensors[f"{moment}.{names[parameter]}"] = moments[moment]
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"step": str(step)})
    temporary.replace(path)


def _resume(
    path: Path,
    network: GPTNeoXForCausalLM,
    optimizer: torch.optim.AdamW,
    names: dict[torch.Tensor, str],
) -> tuple[int, list[list[float]]]:
    """Restores weights and moments of the last saved step and returns that step and its log."""
    with safe_open(path, framework="pt") as state:
        step = int(state.metadata()["step"])
        weights = load_weights(path.parents[1] / f"step{step}" / "model.safetensors")
        with torch.no_grad():
            for parameter, name in names.items():
                parameter.copy_(weights[name])
                if step:
                    optimizer.state[parameter] = {
                        "step": torch.tensor(float(step)),
                        **{moment: state.get_tensor(f"{moment}.{name}") for moment in _MOMENTS},
                    }
        return step, state.get_tensor("log").tolist()


def _optimizer_step(
    network: GPTNeoXForCausalLM,
    optimizer: torch.optim.AdamW,
    model: PicoModel,
    weights: torch.Tensor | None,
    sequences: torch.Tensor,
    step: int,
) -> list[float]:
    """Takes one optimizer step and returns its row of the log."""
    rate = learning_rate(model, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # The body and the head apart: the causal-LM class would cast and copy the logits.
    hidden = network.gpt_neox(sequences[:, :-1], use_cache=False).last_hidden_state
    logits = network.get_output_embeddings()(hidden)
    loss = cross_entropy(logits.flatten(0, 1), sequences[:, 1:].flatten(), weight=weights)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), model.gradient_clip, foreach=True)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise DivergedError(
            f"{model.name}: loss {loss.item()} and gradient norm {norm.item()} at step {step}, "
            f"learning rate {rate:.3g}",
            "lower the model's learning_rate or raise its warmup_steps",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return [loss.item(), norm.item(), rate]


@phase("train")
def pretrain(
    model: PicoModel, corpus: Path, folder: Path, report: Callable[[int, int], None]
) -> list[dict[str, object]]:
    """Pretrains a model and writes its checkpoints.

    Each `folder/step{N}/` is a transformers folder with its tokenizer, and appears whole. While
    the run lasts, `folder/state/` holds what a second call needs to go on from the last
    checkpoint.

    Args:
        model: The model and how it is trained.
        corpus: Folder of a built corpus.
        folder: Where the checkpoints go; that of an earlier, killed call is resumed.
        report: Called with (steps done, last step).

    Returns:
        One row per optimizer step s = 1 … last_step: `step`, `tokens` seen after it, `stage`,
        and the own columns of table `training_log`, the loss in nats per token before the step.

    Raises:
        DataError: The training stream is shorter than one sequence.
        DivergedError: Loss or gradient is no longer finite.
    """
    with fixed_threads(model.threads):
        log = _train(model, corpus, folder, report)
    shutil.rmtree(folder / "state")
    return [
        {
            "step": step,
            "tokens": step * model.tokens_per_step,
            "stage": "pretrain",
            **dict(zip(_LOG, row, strict=True)),
        }
        for step, row in enumerate(log, start=1)
    ]


def _train(
    model: PicoModel, corpus: Path, folder: Path, report: Callable[[int, int], None]
) -> list[list[float]]:
    """Trains from the last saved step, or from the start, and returns the log."""
    tokens = load_file(corpus / "train.safetensors")["tokens"]
    if len(tokens) <= model.sequence_length:
        raise DataError(
            f"{corpus} holds {len(tokens)} training tokens, a sequence {model.sequence_length}",
            "raise the corpus' training_tokens",
        )
    tokenizer = Tokenizer.from_file(str(corpus / "tokenizer" / "tokenizer.json"))
    network = _initialize(
        model, tokenizer.get_vocab_size(), tokenizer.get_vocab()[END_OF_TEXT]
    ).train()
    optimizer = _optimizer(network, model)
    weights = target_weights(tokens, model, tokenizer.get_vocab_size())
    names: dict[torch.Tensor, str] = {
        parameter: name for name, parameter in network.named_parameters()
    }
    state = folder / "state" / "state.safetensors"
    done, log = _resume(state, network, optimizer, names) if state.exists() else (-1, [])
    kept = frozenset(model.checkpoint_steps)
    for step in range(done + 1, model.last_step + 1):
        if step:
            sequences = batch(tokens, model, step)
            log.append(_optimizer_step(network, optimizer, model, weights, sequences, step))
        if step in kept:
            _publish_checkpoint(network, corpus / "tokenizer", folder / f"step{step}")
            _save_state(state, step, optimizer, names, log)
        if step % _REPORT_EVERY == 0 or step == model.last_step:
            report(step, model.last_step)
    return log
