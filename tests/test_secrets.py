"""A secret that was given in the environment, or by mistake elsewhere, is shown and kept nowhere.

Each case is a run that fails, by the command line, on the path of an error that has the secret at
hand. The judge's paths are in `tests/workers/test_judge.py` and `test_winrate.py`.
"""

from pathlib import Path

import pytest

from tests.conftest import Texts
from tests.hub.repositories import files_in
from tests.hub.server import LocalHub
from tests.orchestrator.local_study import Outcome, inline, run_here, run_process, write_study
from tests.orchestrator.object_store import ObjectStore

SECRET = "s3cr3tS3CR3Ts3cr3t"
REPOSITORY = "maker/model"


def _assert_unseen(outcome: Outcome, *folders: Path) -> None:
    """Asserts that a run failed, and that the secret is in nothing that it left."""
    assert outcome.code in {1, 2}
    assert SECRET not in outcome.out + outcome.err
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture
def hub_study(local_hub: LocalHub, tiny_series: Path, texts: Texts, tmp_path: Path) -> Path:
    """A study of a model of the local hub, to be gated by a test."""
    model = local_hub.model(REPOSITORY)
    model.commit("step0", files_in(tiny_series / "step0"))
    study = write_study(tmp_path, tiny_series, texts.txt)
    local = f'kind = "local"\nname = "series"\npath = "{tiny_series}"'
    hub = f'kind = "hub"\nname = "s"\nrepository = "{REPOSITORY}"\npattern = "step{{step}}"'
    assert local in study.read_text()
    study.write_text(study.read_text().replace(local, hub, 1))
    return study


@pytest.mark.parametrize("token", [SECRET, f"{SECRET}\x01x", f"{SECRET} x", f"{SECRET}ü"])
@pytest.mark.parametrize("when", ["before the plan", "after it"])
def test_a_token_that_the_hub_refuses(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    local_hub: LocalHub,
    hub_study: Path,
    tmp_path: Path,
    token: str,
    when: str,
) -> None:
    results = tmp_path / "results"
    if when == "after it":
        assert run_here(capsys, "plan", "--study", str(hub_study), "--json").code == 0
    local_hub.model(REPOSITORY).gate("another")
    monkeypatch.setenv("HF_TOKEN", token)
    _assert_unseen(run_here(capsys, *inline("full", hub_study, results)), results)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:1"),
        ("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:port"),
        ("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:1"),
    ],
)
def test_an_address_that_holds_a_password(
    monkeypatch: pytest.MonkeyPatch, hub_study: Path, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("EIGENTRACE_CACHE", str(tmp_path / "cache"))
    quick = "from orchestrator import hub_questions\nhub_questions.TRIES = 1"
    outcome = run_process(*inline("full", hub_study, tmp_path / "results"), before=quick)
    _assert_unseen(outcome, tmp_path / "results", tmp_path / "cache")


@pytest.mark.parametrize(
    "address",
    [
        f"s3://key:{SECRET}@bucket/run",
        f"s3://key:{SECRET}@[bucket/run",
        f"gs://{SECRET}@bucket/run",
        f"s3://bucket/run?secret_key={SECRET}",
        f"s3://bucket/run?{SECRET}",
        f"s3://bucket/run#{SECRET}",
        f"s3://bucket/run?endpoint_override=key:{SECRET}@127.0.0.1:1",
        f"https://key:{SECRET}@host/run",
    ],
)
@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_secret_in_the_address_of_the_results(
    capsys: pytest.CaptureFixture[str], address: str, command: str
) -> None:
    _assert_unseen(run_here(capsys, command, "--results", address))


def test_a_password_in_the_endpoint_of_the_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, object_store: ObjectStore
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://key:{SECRET}@{object_store.address}")
    outcome = run_here(capsys, "status", "--results", "s3://bucket/run")
    _assert_unseen(outcome)
    assert "AWS_ENDPOINT_URL" in outcome.err


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_a_key_that_the_object_store_refuses(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    object_store: ObjectStore,
    bucket: str,
    code: str,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    object_store.refuses = lambda _method, _path: (403, code)
    _assert_unseen(run_here(capsys, "report", "--results", f"s3://{bucket}/run"))


@pytest.mark.parametrize(
    "override",
    [
        f'winrates.judge.api_key_env="sk-{SECRET}"',
        f'winrates.judge.base_url="https://user:{SECRET}@judge/v1"',
        f'winrates.judge.base_url="https://judge/v1?key={SECRET}"',
    ],
)
def test_a_key_in_a_study(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, override: str
) -> None:
    study = tmp_path / "study.toml"
    assert run_here(capsys, "init", str(study)).code == 0
    judge = '{kind="endpoint", base_url="https://judge/v1", model="m"}'
    choices = (f'winrates={{instructions="a", judge={judge}}}', override)
    chosen = [word for choice in choices for word in ("--set", choice)]
    outcome = run_here(capsys, "plan", "--study", str(study), *chosen)
    _assert_unseen(outcome)
    assert "winrates.judge" in outcome.err


def test_a_key_in_an_override_that_has_no_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Only the path of an override is shown, not what it was to be set to."""
    for path in ("name.api_key_env", "suites.nobody.key"):
        outcome = run_here(capsys, "plan", "--study", "pico", "--set", f"{path}={SECRET}")
        _assert_unseen(outcome, tmp_path)
        assert path in outcome.err
