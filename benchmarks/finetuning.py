"""A trial of fine-tuning beside a bare training loop on the same batches."""

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.limits import Figure
from benchmarks.peers import Sides, beside
from benchmarks.trials import STEPS, bare_loop, make_trial


def figures() -> list[Figure]:
    """Ratios of the loop's time to the trial's, the checkpoint loaded already for both."""
    with TemporaryDirectory(prefix="eigentrace-bench-") as folder:
        trial = make_trial(Path(folder))
        bare = bare_loop(trial)
        what = f"a trial of {STEPS} steps of LoRA, against a bare loop that measures"
        # At most 10 % more than the loop is 1/1.1 of its time.
        return beside(
            [
                Sides(f"{what} as often", trial.run, lambda: bare(True), "≥ 0.909"),
                Sides(f"{what} nothing", trial.run, lambda: bare(False), "", rounds=3),
            ]
        )
