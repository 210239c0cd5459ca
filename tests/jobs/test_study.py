"""Studies: what is wrong with one is said in a line, and any field can be overridden."""

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jobs.errors import StudyError
from jobs.hub_spec import HubSuite
from jobs.pico_spec import PicoSuite
from jobs.spec import Study
from jobs.study import load_study, schema, shipped_studies

LOCAL = """
name = "mine"
[[suites]]
kind = "local"
name = "series"
path = "models"
"""


def _pico(study: Study) -> PicoSuite:
    suite = study.suites[0]
    assert isinstance(suite, PicoSuite)
    return suite


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_load_and_fit_the_schema(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    assert study.description
    text = (resources.files("jobs.studies") / f"{name}.toml").read_text("utf-8")
    jsonschema.validate(tomllib.loads(text), schema())


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x"},
        {"name": "x", "suites": []},
        {"name": "x", "suites": [{"kind": "pico"}], "geometri": {}},
        {"name": "x", "suites": [{"kind": "pico", "corpus": {"seeds": 1}}]},
        {"name": "x", "suites": [{"use": "pythia-71m"}]},
        {"name": "x", "suites": [{"use": "pythia-70m", "schedules": [0]}]},
    ],
)
def test_the_schema_refuses_what_loading_refuses(document: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_a_study_is_read_from_a_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(LOCAL)
    study = load_study(str(path), ["suites.series.tokens_per_step=512"])
    assert study.suites[0].model_dump()["tokens_per_step"] == 512


def test_overrides_reach_tables_lists_and_defaults() -> None:
    study = load_study(
        "smoke",
        [
            "suites.pico.models.pico-32.last_step=64",
            "suites.0.models.0.learning_rate=0.5",
            "datasets.heldout.sequences = 200",
            "forward.dtype=bfloat16",
            'geometry.datasets=["heldout", "other"]',
            "geometry.datasets.1=another",
            "description=two words",
        ],
    )
    model = _pico(study).models[0]
    assert (model.last_step, model.learning_rate, model.hidden_size) == (64, 0.5, 32)
    assert study.datasets["heldout"].sequences == 200
    assert (study.forward.dtype, study.forward.batch_size) == ("bfloat16", 32)
    assert study.geometry is not None
    assert study.geometry.datasets == ("heldout", "another")
    assert study.description == "two words"


def test_overrides_reach_members_that_the_study_leaves_out() -> None:
    usual = _pico(load_study("pico")).models
    changed = _pico(load_study("pico", ["suites.pico.models.pico-128.last_step=16"])).models
    assert [m.last_step for m in changed if m.name == "pico-128"] == [16]
    assert [m for m in changed if m.name != "pico-128"] == [
        m for m in usual if m.name != "pico-128"
    ]


def test_overrides_reach_suites_that_ship(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\n[[suites]]\nuse = "pythia-410m"\n[[suites]]\nuse = "olmo2-1b"\n')
    changes = [
        "suites.pythia-410m.schedule=[0, 512]",
        "suites.olmo2-1b.more.0.schedule=[1000]",
        "suites.1.model=olmo",
    ]
    pythia, olmo = load_study(str(path), changes).suites
    assert isinstance(pythia, HubSuite)
    assert (pythia.repository, pythia.schedule) == ("EleutherAI/pythia-410m", (0, 512))
    assert isinstance(olmo, HubSuite)
    assert (olmo.model, olmo.more[0].schedule) == ("olmo", (1000,))
    unchanged = load_study(str(path)).suites[1]
    assert isinstance(unchanged, HubSuite)
    assert [series.pattern for series in olmo.more] == [s.pattern for s in unchanged.more]
    (other,) = load_study(str(path), ['suites=[{use="gpt2"}]']).suites
    assert other.name == "gpt2"
    (other, _) = load_study(str(path), ["suites.0.use=pythia-70m"]).suites
    assert other.name == "pythia-70m"
    (other, _) = load_study("norms", ["suites.pythia-1.4b-deduped.schedule=[7]"]).suites[::-1]
    assert isinstance(other, HubSuite)
    assert (other.name, other.schedule) == ("pythia-1.4b-deduped", (7,))
    for wrong, said in {
        "suites.pythia-41m.schedule=[0]": "no member 'pythia-41m' (did you mean 'pythia-410m'?)",
        "suites.0.use=pythia-41m": "no suite 'pythia-41m' ships (did you mean 'pythia-410m'?)",
        "suites.0.schedul=[0]": "unknown key 'suites.0.schedul'",
        'suites.0.schedule=["0:9"]': "'suites.0' in study",
        "suites.0.stage=sftt": "did you mean 'sft'?",
    }.items():
        with pytest.raises(StudyError, match=re.escape(said)) as caught:
            load_study(str(path), [wrong])
        assert "\n" not in str(caught.value)


def test_what_is_no_toml_is_text() -> None:
    for text in ("[" * 5_000, "9" * 5_000, "two words", "]"):
        assert load_study("smoke", [f"description={text}"]).description == text


def test_an_override_leaves_other_loads_alone() -> None:
    load_study("smoke", ["datasets.heldout.sequences=7"])
    assert load_study("smoke").datasets["heldout"].sequences == 400


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("geometri.layers=all", ["'geometri'", "did you mean 'geometry'"]),
        ("geometry.layer=all", ["'geometry.layer'", "did you mean 'layers'"]),
        ("suites.0.corpus.sed=1", ["'suites.0.corpus.sed'", "did you mean 'seed'"]),
        ("datasets.heldout.sequence=9", ["'datasets.heldout.sequence'", "'sequences'"]),
        ("suites.0.models.pico-23.layers=1", ["no member 'pico-23'", "did you mean 'pico-32'"]),
        ("suites.7.name=x", ["no member '7'", "a number below 1"]),
        ("geometry.layers=al", ["'geometry.layers'", '"al"', "did you mean 'all'"]),
        ("suites.0.kind=picoo", ["'suites.0.kind'", "'picoo'", "did you mean 'pico'"]),
        ("datasets.extra.sequences=8", ["lacks 'datasets.extra.kind'"]),
        ("suites.0.kind=local", ["lacks 'suites.0.name'"]),
        ("forward.batch_size=0", ["'forward.batch_size'", "is 0", "greater than or equal to 1"]),
        ("forward.batch_size=many", ["'forward.batch_size'", '"many"', "integer"]),
        ("suites.0.models.0.learning_rate=inf", ["learning_rate'", "Infinity", "finite"]),
        ("suites.0.models.0.learning_rate=nan", ["learning_rate'", "NaN", "finite"]),
        ("suites.0.models.0.heads=7", ["'suites.0.models.0'", "32 over 7 heads"]),
        ("suites=[]", ["'suites'", "at least 1"]),
        ("geometry=3", ["'geometry'", "is 3"]),
        ("name.x=3", ["'name' is a value, not a table"]),
        ("geometry.datasets.0.x=3", ["'0' is a value"]),
        ("geometry", ["not of the form path=value"]),
        ("=3", ["not of the form path=value"]),
        ("a..b=3", ["not of the form path=value"]),
        ("suites." + "9" * 5000 + ".name=x", ["no member '999", "a number below 1"]),
        (".".join(["suites", *["a"] * 20_000]) + "=x", ["no member 'a'"]),
        ("forward.batch_size=" + "9" * 5000, ["'forward.batch_size'", "integer"]),
        ("forward.batch_size=0x" + "f" * 5000, ["'forward.batch_size'", "integer"]),
        (".".join(["forward", *["a"] * 20_000]) + "=1", ["'forward.a'"]),
        (".".join(["datasets", *["a"] * 20_000]) + "=1", ["lacks 'datasets.a.kind'"]),
        (".".join(["a"] * 20_000) + "=1", ["unknown key 'a'"]),
        ("description=\udcff", ["is not UTF-8"]),
        ("forward.batch_size=" + "x" * 50_000, ["'forward.batch_size'", "xx … xx"]),
        ("suites.0.models.0.last_step=9007199254740991", ["more than 10000"]),
        ("memorization.corpus=[1]", ["'memorization.corpus'"]),
        ("suites.0=[[1]]", ["'suites.0'"]),
    ],
)
def test_a_wrong_override_gets_one_clear_line(override: str, said: list[str]) -> None:
    with pytest.raises(StudyError) as caught:
        load_study("smoke", [override])
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 2_500
    assert [part for part in said if part not in text] == []
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smok", "did you mean 'smoke'"),
        ("", "unknown study ''"),
        ("nowhere.toml", "cannot read the study nowhere.toml"),
    ],
)
def test_an_unknown_study_gets_one_clear_line(name: str, said: str) -> None:
    with pytest.raises(StudyError, match="study") as caught:
        load_study(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = ", "not valid TOML"),
        (b"\xff\xfe", "cannot read the study"),
        (b'name = "x"\nsuites = [{kind = "pico"}, {kind = "pico", nme = 1}]', "'suites.1.nme'"),
        (b"suites = [{kind = 'pico'}]", "lacks 'name'"),
        (b"name = " + b"[" * 100_000, "too deep within each other"),
        (b"name = " + b"9" * 5_000, "not valid TOML"),
        (b"name = 0x" + b"f" * 5_000, "20000 bits, and TOML's have 64"),
        (b"[winrates]\nseed = -9223372036854775809", "64 bits, and TOML's have 64"),
        (b".".join([b"a"] * 5_000) + b" = 1", "too deep"),
        (b".".join([b"a"] * 900) + b" = 1", "lacks 'name'"),
    ],
)
def test_a_damaged_study_gets_one_clear_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "study.toml"
    path.write_bytes(content)
    with pytest.raises(StudyError) as caught:
        load_study(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_faults_are_counted() -> None:
    with pytest.raises(StudyError, match=r"\(and 1 more\)"):
        load_study("smoke", ["forward.batch_size=0", "forward.dtype=int8"])


def test_the_schema_is_json_and_documents_every_key() -> None:
    document = json.loads(json.dumps(schema()))
    fields = [
        (model, name, field)
        for model, about in document["$defs"].items()
        for name, field in about["properties"].items()
        if name != "kind" and "const" not in field
    ]
    assert len(fields) > 40
    undocumented = [f"{m}.{n}" for m, n, f in fields if "description" not in f]
    # A narrowed default keeps the description of the model that it narrows.
    assert undocumented == ["PicoText.mode"]


def test_a_byte_order_mark_is_no_mistake_and_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(LOCAL, encoding="utf-8-sig")
    assert load_study(str(path)).name == "mine"
    path.write_text(LOCAL, encoding="utf-16")
    with pytest.raises(StudyError, match=r"is not UTF-8.*save it so"):
        load_study(str(path))
