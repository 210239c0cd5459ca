"""Scrubbing: paths and addresses go, names and what was measured stay."""

import pyarrow as pa
import pytest

from dashboards.atlas_scrub import scrubbed, scrubbed_text
from jobs.records import TABLES


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/home/carol/models/tiny", "tiny"),
        ("/home/carol/models/tiny/", "tiny"),
        ("~/models/tiny", "tiny"),
        ("~carol/tiny", "tiny"),
        ("../carol/tiny", "tiny"),
        ("./runs/tiny", "tiny"),
        (r"C:\Users\carol\tiny", "tiny"),
        ("file:///home/carol/tiny", "tiny"),
        ("s3://carols-bucket/runs/tiny", "tiny"),
        ("http://gpu-7.lab.example:8000/v1/judge", "judge"),
        ("ask http://gpu-7.lab.example:8000", "ask address"),
        ("in /home/carol/ or /Users/carol", "in home or home"),
        (r"C:\Users\carol", "home"),
        ("cannot read /home/carol/a b: it's gone", "cannot read a b: it's gone"),
        (
            "shard '/scratch/carol/x.safetensors' lacks lm_head",
            "shard 'x.safetensors' lacks lm_head",
        ),
        ("(/home/carol/x, /home/carol/y)", "(x, y)"),
    ],
)
def test_paths_and_urls_are_cut_down(text: str, left: str) -> None:
    assert scrubbed_text(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "EleutherAI/pythia-70m@step512",
        "pico/pico-64",
        "input/output ratio, 3/4 and a / b",
        "lora of rank 8 on qkv+head",
        "step1000-tokens5B",
        "1.5e-3",
        "attention.q_proj",
    ],
)
def test_names_stay(text: str) -> None:
    assert scrubbed_text(text) == text


def test_tables_keep_their_types_and_what_models_said() -> None:
    schema = TABLES["finetunes"]
    rows = [
        {"suite": "/home/carol/runs/a", "template": "/bin/sh is", "clip": 0.5},
        {"suite": None, "adapted_modules": ["model.q", None, "/home/carol/v"]},
        {"suite": "b", "adapted_modules": []},
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    found = scrubbed(pa.concat_tables([table.slice(0, 1), table.slice(1)]))
    assert found.schema.equals(schema, check_metadata=True)
    assert found["suite"].to_pylist() == ["a", None, "b"]
    assert found["adapted_modules"].to_pylist() == [None, ["model.q", None, "v"], []]
    assert found["template"].to_pylist() == ["/bin/sh is", None, None]
    assert found["clip"].to_pylist() == [0.5, None, None]
