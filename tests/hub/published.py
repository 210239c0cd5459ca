"""What studies name on the hub, given to the local hub: names and hashes alone count there."""

from jobs.hub_spec import HubSeries, HubSuite
from jobs.posttrain_spec import HubExamples
from jobs.spec import Study
from jobs.task_spec import HARNESS_REPOSITORIES
from jobs.text_spec import HubText
from tests.hub.server import LocalHub

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def publish_series(hub: LocalHub, series: HubSeries, every: bool = False) -> None:
    """Gives the local hub some revisions that fit a series, each with weights of its own."""
    steps = series.scheduled_steps or (1000, 2000)
    names = series.revisions or ("main",)
    if series.pattern is not None:
        pattern = series.pattern.replace("*", "9B")
        chosen = steps if every else steps[:2] + steps[-1:]
        names = tuple(pattern.replace("{step}", str(step)) for step in chosen)
    for name in (*names, "main"):
        own = f"weights of {series.repository} {name}".encode()
        hub.model(series.repository).commit(name, FILES | {"model.safetensors": own})
    if isinstance(series, HubSuite) and series.tokenizer is not None:
        hub.model(series.tokenizer.partition("@")[0]).commit("main", FILES)


def publish_study(hub: LocalHub, study: Study, every: bool = False) -> None:
    """Gives the local hub all that a study's suites, texts, tasks and training data name there."""
    for suite in study.suites:
        if isinstance(suite, HubSuite):
            for series in (suite, *suite.more):
                publish_series(hub, series, every)
    named = (
        data.repository
        for data in (*study.training.values(), *study.datasets.values())
        if isinstance(data, HubExamples | HubText)
    )
    for name in (*HARNESS_REPOSITORIES.values(), *named):
        hub.dataset(name).commit("main", {"README.md": b""})
