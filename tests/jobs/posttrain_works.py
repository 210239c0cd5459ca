"""Works of post-training, for the tests of identity."""

from jobs.capability_spec import ChatLoss
from jobs.capability_work import ChatsWork
from jobs.posttrain_spec import TrainingStage
from jobs.posttrain_work import (
    FileRecords,
    PassKWork,
    PicoRecords,
    PosttrainWork,
    SampleWork,
    Sampling,
)
from jobs.sources import Folder, TextFiles

A, B = "a" * 64, "b" * 64
SUMS = PicoRecords("sums", A, "problems", None)
FILES = FileRecords("mine", TextFiles((("/mine.json", A),), "", ""), None)
STAGE = TrainingStage(method="sft", data="sums", steps=8)
SAMPLING = Sampling(16, 1.0, 1.0, 9, 0, "vllm", 1, 5.0, "float32")
POSTTRAIN = PosttrainWork(STAGE, SUMS, 0, 1, "float32")
SAMPLE = SampleWork(SUMS, 0, 32, SAMPLING)
PASSK = PassKWork("sums", (A,), (1, 2))
CHATS = ChatsWork(
    "chats", FILES, ChatLoss(data=("chats",)), Folder("/one", (("tokenizer.json", A),))
)
POSTTRAIN_WORKS = (POSTTRAIN, SAMPLE, PASSK, CHATS)
