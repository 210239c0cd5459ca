"""Studies of all kinds of work in small: measuring, fine-tunes, chains, samples, and poison."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

_SUITE = """
name = "chaos"
[[suites]]
kind = "pico"
[suites.corpus]
vocabulary_size = 1024
training_tokens = {tokens}
[[suites.models]]
name = "a"
hidden_size = 32
layers = 1
heads = 1
last_step = {last}
[[suites.models]]
name = "b"
hidden_size = 32
layers = 2
heads = 1
last_step = {last}
[[suites]]
kind = "local"
name = "poisoned"
path = "{poisoned}"
tokens_per_step = 100
[datasets.heldout]
kind = "pico"
sequences = 200
sequence_length = 32
[datasets.words]
kind = "local"
paths = ["{words}"]
sequences = 60
sequence_length = 24
minimum_length = 2
[geometry]
datasets = ["heldout", "words"]
layers = "all"
[head]
unigram_dataset = "heldout"
[evals.loss]
datasets = ["heldout"]
[tasks.facts]
kind = "pico"
form = "open"
limit = 16
[finetune]
tasks = ["facts"]
models = {tuned}
steps = [0, {last}]
epochs = 2
learning_rate = 1e-2
training_examples = 32
validation_examples = 16
dataset = "heldout"
dataset_sequences = 16
arms = [{{ search = true }}, {{ targets = ["attention", "head"] }}]
[finetune.search]
learning_rates = [1e-2, 1e-4, 1e25]
"""

_CHAIN = """
[training.instructions]
kind = "pico"
form = "instructions"
[training.sums]
kind = "pico"
form = "problems"
[[posttrain]]
name = "tuned"
suite = "pico"
models = ["b"]
[[posttrain.stages]]
method = "sft"
data = "instructions"
steps = 8
save_steps = [2]
batch_size = 8
learning_rate = 1e-3
[[posttrain.stages]]
method = "dpo"
data = "preferences"
steps = 4
batch_size = 8
learning_rate = 5e-5
[[posttrain.stages]]
method = "rlvr"
data = "sums"
steps = 96
save_steps = [2]
batch_size = 16
completion_tokens = 9
learning_rate = 1e-4
schedule = "constant"
warmup_share = 0.0
"""

_MORE = """
[training.preferences]
kind = "pico"
form = "preferences"
[training.heldout-sums]
kind = "pico"
form = "heldout_problems"
limit = 8
[tasks.choices]
kind = "pico"
form = "choice"
limit = 32
[evals]
tasks = ["choices"]
[ablation]
tasks = ["choices"]
dataset = "heldout"
[memorization]
tasks = ["facts"]
corpus = {{ kind = "local", paths = ["{words}"] }}
[generate]
new_tokens = 8
[passk]
suites = ["tuned"]
problems = ["heldout-sums"]
samples = 64
k = [1, 8]
new_tokens = 9
"""


def small(folder: Path, series: Path, words: Path) -> Path:
    """Writes a study of less than a minute: measuring and fine-tunes alone."""
    suite = _SUITE.format(
        tokens=100_000, last=8, tuned='["a"]', poisoned=_poisoned(folder, series), words=words
    )
    return _written(folder, suite)


def large(folder: Path, series: Path, words: Path) -> Path:
    """Writes a study of more than two hundred cells of every kind."""
    suite = _SUITE.format(
        tokens=400_000, last=64, tuned='["a", "b"]', poisoned=_poisoned(folder, series), words=words
    )
    return _written(folder, suite + _CHAIN + _MORE.format(words=words))


def _poisoned(folder: Path, series: Path) -> Path:
    """Copies a series of checkpoints of which one is not numbers."""
    copy = folder / "poisoned"
    shutil.copytree(series, copy)
    weights = copy / "step10" / "model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, weights, {"format": "pt"})
    return copy


def _written(folder: Path, text: str) -> Path:
    path = folder / "chaos.toml"
    path.write_text(text)
    return path
