"""When and where: plan, schedule, store, and the executors that run cells."""

import os

# Ray reads these while it is imported, by whichever module: access by token, and no telemetry.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
