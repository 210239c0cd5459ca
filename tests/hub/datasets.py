"""Known data sets, a few records of each, in the very files in which they are published."""

import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCRIPT = b"raise RuntimeError('code of a data set was run')"
SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)
_ASKED = "\n\nHuman: Is it raining?\n\nAssistant: No.\n\nHuman: And there?\n\nAssistant:"
HH = {"chosen": f"{_ASKED} Yes.", "rejected": f"{_ASKED} Go away."}
TALK = [{"content": "Say it.", "role": "user"}, {"content": "It.", "role": "assistant"}]
OTHER = [TALK[0], {"content": "No.", "role": "assistant"}]
JUDGED = {"instruction": "Say it.", "output_1": "No.", "output_2": "It.", "preference": 2}
ANNOTATED = JUDGED | {
    **{"annotator_index": 3, "dataset": "koala", "datasplit": "eval"},
    **{"generator": "davinci", "sample_mode": "temp"},
}
GSM8K = {"question": "How many clips?", "answer": "She sold 48+24 = <<48+24=72>>72.\n#### 72"}
MATH = {
    "problem": "Halve one.",
    "level": "Level 1",
    "type": "Algebra",
    "solution": r"It is $\boxed{\frac{1}{2}}$.",
}
RLVR: list[dict[str, Any]] = [
    {
        "messages": [{"content": "Question: 1+1?\nAnswer:", "role": "user"}],
        "ground_truth": "2",
        "dataset": "gsm8k",
        "constraint_type": None,
        "constraint": None,
    },
    {
        "messages": [{"content": "Speak softly.", "role": "user"}],
        "ground_truth": '{"func_name": "validate_lowercase"}',
        "dataset": "ifeval",
        "constraint_type": "All Lowercase",
        "constraint": "Your entire response should be in lowercase letters.",
    },
    {
        "messages": [{"content": "Problem:\nHalve one.", "role": "user"}],
        "ground_truth": r"\frac{1}{2}",
        "dataset": "MATH",
        "constraint_type": None,
        "constraint": None,
    },
]


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(*records: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue()


def listed(*records: dict[str, Any]) -> bytes:
    """As these files are: one indented list."""
    return json.dumps(records, indent=2).encode()


_HH_FILES = {
    f"{part}/{split}.jsonl.gz": gzip.compress(jsonl(HH), mtime=0)
    for part in ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
    for split in ("train", "test")
} | {"red-team-attempts/red_team_attempts.jsonl.gz": gzip.compress(jsonl({"transcript": "x"}))}
_GSM8K_CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""
_GSM8K_FILES = {
    "README.md": _GSM8K_CARD,
    "main/train-00000-of-00001.parquet": parquet(GSM8K, GSM8K),
    "main/test-00000-of-00001.parquet": parquet(GSM8K),
    "socratic/train-00000-of-00001.parquet": parquet({"question": "no", "answer": "no"}),
}
_ULTRAFEEDBACK_CARD = b"""---
configs:
- config_name: default
  data_files:
  - {split: train_prefs, path: data/train_prefs-*}
  - {split: train_sft, path: data/train_sft-*}
---
"""
_PREFERRED = {"prompt": "Say it.", "chosen": TALK, "rejected": OTHER}
_ULTRAFEEDBACK = _PREFERRED | {
    "prompt_id": "a",
    "messages": TALK,
    "score_chosen": 8.0,
    "score_rejected": 2.0,
}
_ALPACA_EVAL_FILES = {
    "alpaca_eval.py": SCRIPT,
    "alpaca_eval.json": listed({"instruction": "another reference", "output": "x"}),
    "alpaca_eval_gpt4_baseline.json": listed(
        {"instruction": "Say it.", "output": "It.", "generator": "gpt4", "dataset": "koala"}
    ),
    "alpaca_farm_human_annotations.json": listed(ANNOTATED, ANNOTATED | {"preference": 1}),
}
FILES: dict[str, dict[str, bytes]] = {
    "anthropic-hh": _HH_FILES,
    "anthropic-hh-test": _HH_FILES,
    "alpaca-farm": _ALPACA_EVAL_FILES,
    "alpaca-eval": _ALPACA_EVAL_FILES,
    "alpaca-farm-preferences": {
        "alpaca_farm.py": SCRIPT,
        "alpaca_human_preference.json": listed(
            JUDGED | {"input": "", "raw_preference": 2},
            JUDGED | {"input": "Loud.", "preference": 1},
        ),
        "alpaca_gpt4_preference.json": listed(JUDGED),
        "alpaca_instructions/sft.json": listed({"instruction": "no", "output": "no"}),
    },
    "ultrafeedback": {
        "README.md": _ULTRAFEEDBACK_CARD,
        "data/train_prefs-00000-of-00001.parquet": parquet(_ULTRAFEEDBACK),
        "data/train_sft-00000-of-00001.parquet": parquet({"prompt": "no"}),
    },
    "tulu3-sft": {
        "data/train-00000-of-00001.parquet": parquet({"id": "a", "messages": TALK, "source": "x"})
    },
    "tulu3-preferences": {
        "data/train-00000-of-00001.parquet": parquet({"id": "a", "source": "x", **_PREFERRED})
    },
    "tulu3-rlvr": {"data/train-00000-of-00001.parquet": parquet(*RLVR)},
    "gsm8k": _GSM8K_FILES,
    "gsm8k-test": _GSM8K_FILES,
    "math": {
        "hendrycks_math.py": SCRIPT,
        **{
            f"{subject}/{split}-00000-of-00001.parquet": parquet(MATH | {"type": subject})
            for subject in SUBJECTS
            for split in ("train", "test")
        },
    },
    "math-500": {"test.jsonl": jsonl(MATH | {"answer": r"\frac{1}{2}", "subject": "Algebra"})},
    "amc23": {
        "test-00000-of-00001.parquet": parquet(
            {"id": 0, "question": "How far?", "answer": "27", "url": "u"}
        )
    },
}
COUNTS = {
    **dict.fromkeys(FILES, 1),
    **{"anthropic-hh": 4, "anthropic-hh-test": 4, "gsm8k": 2, "math": 7},
    **{"alpaca-farm": 2, "alpaca-farm-preferences": 2, "tulu3-rlvr": 2},
}
