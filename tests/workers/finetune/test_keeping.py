"""What a stage keeps beside its weights."""

import shutil
from pathlib import Path

import pytest

from tests.workers.finetune.staging import RECORDS, records_in, stage_work, toy_grader
from workers.artifacts import SharedFiles
from workers.finetune.chats import CHAT_TEMPLATE
from workers.finetune.stages import run_stage


def test_the_template_that_a_chain_has_learnt_goes_on_with_it(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.finetune.stages.grader", toy_grader)
    checkpoint, begun = tiny_series / "step100", tmp_path / "begun"
    shutil.copytree(checkpoint, begun)
    (begun / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    records = records_in(tmp_path, RECORDS["rlvr"])
    for learnt in (False, True):
        folder = tmp_path / f"made-{learnt}"
        folder.mkdir()
        files = SharedFiles(folder / "results")
        work = stage_work(records, "rlvr", steps=1, save_steps=())
        run_stage(work, begun, checkpoint, files, folder, "cpu", lambda *_: None, learnt)
        assert (folder / "step1" / "chat_template.jinja").is_file() == learnt
