"""The command line with little patience: a hang is noticed in seconds instead of a minute."""

import sys

from orchestrator import schedule, slots
from orchestrator.run import main

if __name__ == "__main__":
    slots.SILENCE_SECONDS = 12.0
    schedule._FIRST_BACKOFF_SECONDS = 0.5
    sys.exit(main())
