"""When and where: plan, schedule, store, and the executors that run cells."""

import os

# Dependencies read these while they are imported, by whichever module, in workers too: access to
# Ray by token, and nothing that reports home. What is set already stays; the last switch is for
# whoever knows none of the others, and outdoes them where it is known.
for _name, _value in {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)
