"""Works of win rates, for the tests of identity."""

from jobs.posttrain_work import FileRecords
from jobs.sources import Folder, TextFiles
from jobs.winrate_spec import EndpointJudge
from jobs.winrate_work import JudgeCheckpoint, RespondWork, Side, WinrateWork

A, B = "a" * 64, "b" * 64
RECORDS = FileRecords("asked", TextFiles((("/asked.json", A),), "", ""), None)
RESPOND = RespondWork(RECORDS, 1024, 0.0, 0, "float32")
ENDPOINT = EndpointJudge(base_url="https://api.example.com/v1", model="judge")
LOCAL = JudgeCheckpoint(Folder("/judge", (("w", A),)), Folder("/judge", (("t", A),)), "float32")
SIDES = (
    Side("af", "tiny", "sft-step8", 8, "sft", 10),
    Side("hh", "tiny", "sft-step8", 8, "sft", 10),
)
WINRATE = WinrateWork("pair", "asked", SIDES, (A, B), ENDPOINT, None)
WINRATE_WORKS = (RESPOND, WINRATE)
