"""Studies that use what those that ship leave out, and the files that they name."""

import json
from pathlib import Path

HAND_MADE = {
    "everything": """
name = "everything"
description = "Every section, on files"

[[suites]]
kind = "local"
name = "series"
path = "checkpoints"
tokens_per_step = 100
stage = "pretrain"

[[suites]]
kind = "local"
name = "listed"
model = "other"
paths = ["checkpoints/step1", "checkpoints/step2"]
steps = [5, 6]
tokenizer = "checkpoints/step1"
measure_duplicates = true

[datasets.words]
kind = "local"
paths = ["sample.jsonl", "sample.txt"]
sequences = 60
sequence_length = 24
minimum_length = 2
field = "text"
separator = "\\n\\n"
special_tokens = true
seed = 3

[forward]
dtype = "bfloat16"
batch_size = 16

[geometry]
datasets = ["words"]
layers = "all"
sample_counts = [20, 40]
sequence_lengths = [8, 16]

[head]
unigram_dataset = "words"
extreme_tokens = 10
drop_zero_rows = true

[tasks.asked]
kind = "harness"
task = "arc_easy"
data = ["records.jsonl"]
training_data = ["records.jsonl"]
shots = 1
limit = 5

[tasks.own]
kind = "harness"
config = "own.yaml"
data = ["records.jsonl"]

[tasks.pairs]
kind = "pairs"
training = ["pairs.jsonl"]
validation = ["pairs.jsonl"]
prompt = "prompt"
answer = "completion"

[evals]
tasks = ["asked", "own"]

[evals.loss]
datasets = ["words"]

[evals.chats]
data = ["chats"]
sequences = 4
sequence_length = 32
seed = 1

[ablation]
tasks = ["asked"]
dataset = "words"
ranks = [1, 2]
mean = "drop"

[memorization]
tasks = ["asked"]
corpus = { kind = "local", paths = ["sample.txt"] }

[generate]
prompts = ["Once upon a time"]
paper_prompts = false
new_tokens = 8

[sensitivity]
dataset = "words"
dataset_sequences = 8
scales = [0.1, 0.2]
seeds = [0]

[finetune]
tasks = ["pairs"]
models = ["series"]
steps = [1, 2]
seeds = [0, 1]
learning_rate = 1e-3
epochs = 4
template = "Q: {prompt} A:"
dataset = "words"
arms = [
    { ranks = [2, 4], search = true },
    { intervention = "clip", clip = 0.1 },
    { method = "norm_group_lora", targets = ["attention", "head"], groups = 3 },
]

[finetune.search]
learning_rates = [1e-3, 1e-2, 1e-4]
steps = [2]

[training.chats]
kind = "local"
paths = ["chats.jsonl"]

[training.problems]
kind = "local"
paths = ["problems.jsonl"]
limit = 3

[[posttrain]]
name = "tuned"
suite = "series"
models = ["series"]
steps = [2]
seeds = [0, 1]
stages = [
    { method = "sft", data = "chats", steps = 8, save_steps = [2], batch_size = 4 },
    { method = "dpo", data = "chats", epochs = 1.5, batch_size = 2, adapters = { rank = 4 } },
    { method = "rlvr", data = "problems", steps = 4, batch_size = 8, completions = 4 },
]

[[posttrain]]
name = "again"
suite = "series"
models = ["series"]
steps = [1, 2]
seeds = [0, 1]
stages = [{ method = "sft", data = "chats", steps = 8, save_steps = [2], learning_rate = 2e-4 }]

[passk]
problems = ["problems"]
suites = ["series", "tuned"]
samples = 16
k = [1, 4, 16]
batch = 2
new_tokens = 8
temperature = 0.8
top_p = 0.9

[winrates]
instructions = "chats"
pairs = [["tuned", "again"]]
new_tokens = 8

[winrates.judge]
kind = "endpoint"
base_url = "https://127.0.0.1:1/v1"
model = "judge"
input_price = 1.0
most_cost = 5.0

[[toy]]
name = "skewed"
classes = 5
examples = 40
skews = [0.0, 1.0]
widths = [2, 3]
scales = [0.1]
learning_rates = [0.01, 0.02]
seeds = 10
last_step = 100
points = 10
keep = 2
start = "balanced"
""",
    "indexed": """
name = "indexed"

[[suites]]
kind = "local"
name = "series"
path = "checkpoints"

[[suites]]
kind = "hub"
name = "hub"
repository = "someone/model"
pattern = "step{step}"
schedule = [0, "2:10:4"]
first_step = 5
tokens_per_step = 7
tokenizer = "someone/tokenizer@main"

[[suites.more]]
repository = "someone/early"
revisions = ["step10", "step20"]
steps = [1, 2]

[datasets.web]
kind = "hub"
repository = "someone/text"
split = "train"
sequences = 50
sequence_length = 32
documents = 500
mode = "packed"

[geometry]
datasets = ["web"]

[training.asked]
kind = "hub"
repository = "someone/chats"
files = ["a.jsonl", "b.jsonl"]
where = { dataset = ["x"] }
records = 100
limit = 10

[[posttrain]]
name = "one"
suite = "series"
steps = [1, 2]
stages = [{ method = "sft", data = "asked", epochs = 2 }]

[[posttrain]]
name = "two"
suite = "series"
steps = [1, 2]
stages = [{ use = "tulu3-sft", data = "asked" }]

[winrates]
instructions = "asked"
against_last = ["one"]
pairs = [["one", "two"]]
judge = { kind = "local", checkpoint = "checkpoints/step2" }
""",
    "foreign": """
name = "foreign"

[[suites]]
kind = "local"
name = "series"
path = "checkpoints"
tokenizer = "checkpoints/step1"

[tasks.asked]
kind = "harness"
task = "sciq"
data = ["records.jsonl"]

[memorization]
tasks = ["asked"]
corpus = { kind = "published", path = "index", tokenizer = "checkpoints/step1", token_bytes = 4 }
""",
}


def write_inputs(folder: Path) -> None:
    """Writes what the studies name: enough to be planned, nothing that could be measured."""
    for step in (1, 2):
        checkpoint = folder / "checkpoints" / f"step{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "model.safetensors").write_bytes(b"weights of step %d" % step)
        (checkpoint / "tokenizer.json").write_text('{"version": "1.0"}')
    records = [{"text": f"the {n} birds", "question": f"{n}?", "answer": str(n)} for n in range(5)]
    for name in ("sample", "records", "pairs", "chats", "problems"):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "sample.txt").write_text("one\n\ntwo\n\nthree\n")
    (folder / "own.yaml").write_text("task: own\n")
    for name in ("tokenized.0", "table.0", "offset.0"):
        (folder / "index").mkdir(exist_ok=True)
        (folder / "index" / name).write_bytes(b"\0" * 8)
