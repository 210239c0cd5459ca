"""Which table and figure of both papers stands where on the page, or what would measure it."""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dashboards.published import NORM, TRACING


@dataclass(frozen=True)
class Entry:
    """A table or figure of a paper.

    Attributes:
        paper: `NORM` or `TRACING`.
        name: What the paper calls it.
        shows: What it shows.
        parts: Its parts on the page: what each is called, patterns of element ids, and the stages
            that measure it.
        reason: Why it can't be on any page; empty where it can.
    """

    paper: str
    name: str
    shows: str
    parts: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Placed:
    """An entry with its places on this page.

    Attributes:
        entry: The entry.
        places: Name and id of each part that is on the page; the first element that fits.
        missing: Parts that aren't, with what would measure them.
    """

    entry: Entry
    places: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


_FINETUNE = "finetune, over several checkpoints"
_GEOMETRY = "geometry"
_POSTTRAIN = "posttrain, and geometry of its checkpoints"
_TOY = "toy"

INDEX = (
    Entry(NORM, "Table 1", "correlations of norm CV and overlaps with fine-tunability", (
        ("table", ("paper-norm-1",), _FINETUNE),
        ("beside null models", ("finetune-correlations",), _FINETUNE))),
    Entry(NORM, "Table 2", "fine-tunability with all norms made equal", (
        ("table", ("paper-norm-2",), "finetune with intervention equalize"),
        ("with damage and net gain", ("finetune-causal",), "finetune with intervention equalize"))),
    Entry(NORM, "Table 3", "ranks", (
        ("table", ("paper-norm-3",), "finetune with several ranks"),
        ("with slopes", ("finetune-ranks",), "finetune with several ranks"))),
    Entry(NORM, "Section 4.6", "norm range, norms and BPE index", (
        ("table", ("paper-norm-text",), "head"),
        ("tokens", ("finetune-semantics",), "head and finetune of one model"))),
    Entry(NORM, "Section 4.7", "norm CV across tasks", (
        ("table", ("finetune-tasks",), "finetune on several tasks"),)),
    Entry(NORM, "Figure 1", "overlaps · √d over training tokens", (
        ("mean", ("title-overlap",), "head"), ("spread", ("title-overlap-spread",), "head"))),
    Entry(NORM, "Figure 2", "norm CV over training; fine-tunability against norm CV and overlaps", (
        ("(a) norm CV", ("title-norm-cv",), "head"),
        ("(b) against norm CV", ("title-finetune-norm-cv",), f"head and {_FINETUNE}"),
        ("(c) against overlaps", ("title-finetune-overlap-std",), f"head and {_FINETUNE}"))),
    Entry(NORM, "Figure 3", "equal and shuffled norms", (
        ("(a) by checkpoint", ("title-causal-finetunability-*",), "finetune with interventions"),
        ("(b) by norm CV", ("title-causal-change",), "head and finetune with interventions"))),
    Entry(TRACING, "Table 1", "suffix lengths of the ∞-gram model", (
        ("table", ("paper-tracing-1",), "memorization"),)),
    Entry(TRACING, "Table 2", "accuracy without, and with only, the top eigenvectors", (
        ("table", ("paper-tracing-2",), "ablation"),
        ("figure", ("title-ablation-*",), "ablation"))),
    Entry(TRACING, "Tables 3 to 8", "settings", (
        ("table", ("paper-settings",), "any stage that loads checkpoints"),)),
    Entry(TRACING, "Table 9", "accuracy against α-ReQ and RankMe", (
        ("table", ("paper-tracing-9",),
         "geometry and evals, over at least three checkpoints with different accuracies"),)),
    Entry(TRACING, "Figure 1", "the method and a sketch of the phases",
          reason="it is a drawing; the phases that were measured stand under Phases"),
    Entry(TRACING, "Figure 2", "loss, gradient norm, learning rate; RankMe and α-ReQ", (
        ("(B) loss", ("title-training-loss", "title-loss"), "evals with a loss"),
        ("gradient norm", ("title-gradient-norm",), "a suite with a training log"),
        ("learning rate", ("title-learning-rate",), "a suite with a training log"),
        ("(C, E) RankMe", ("title-rankme",), _GEOMETRY),
        ("(D, F) α-ReQ", ("title-alpha-req",), _GEOMETRY),
        ("phases", ("title-phases",), "geometry of several checkpoints"))),
    Entry(TRACING, "Figure 3", "geometry layer by layer", (
        ("RankMe", ("title-layers-rankme-*",), 'geometry with layers = "all"'),
        ("α-ReQ", ("title-layers-alpha-req-*",), 'geometry with layers = "all"'))),
    Entry(TRACING, "Figure 4", "memorization and α-ReQ; accuracies", (
        ("(A) memorization", ("title-memorization-*",), "memorization"),
        ("α-ReQ", ("title-alpha-req",), _GEOMETRY),
        ("(B) accuracies", ("title-task-*",), "evals with tasks"))),
    Entry(TRACING, "Figure 5", "the tractable model", (
        ("features", ("title-toy-features",), _TOY), ("classifier", ("title-toy-weights",), _TOY),
        ("singular values", ("title-toy-singular-values",), _TOY),
        ("how many seeds show it", ("toy",), _TOY))),
    Entry(TRACING, "Figure 6", "post-training: RankMe by stage, losses and win rates, pass@k", (
        ("(A) RankMe", ("title-posttrain-rankme-*",), _POSTTRAIN),
        ("(B) loss of answers", ("title-start-answer-loss",),
         "posttrain from several checkpoints, and evals with losses of chats"),
        ("win rates", ("title-start-win-rate-pair",),
         "win rates of two chains from several checkpoints"),
        ("(C) pass@k", ("title-passk-*",), "passk"))),
    Entry(TRACING, "Figure 7", "what early and late checkpoints say", (
        ("generations", ("generations",), "generate"),)),
    Entry(TRACING, "Figure 8", "fewer and shorter sequences", (
        ("RankMe", ("title-sweep-rankme-*",), "geometry with sample_counts or sequence_lengths"),
        ("α-ReQ", ("title-sweep-alpha-req-*",),
         "geometry with sample_counts or sequence_lengths"))),
    Entry(TRACING, "Figures 9 and 10", "text by text", (
        ("RankMe", ("title-text-rankme-*",), "geometry on several texts"),
        ("α-ReQ", ("title-text-alpha-req-*",), "geometry on several texts"))),
    Entry(TRACING, "Figure 11", "models below 1B parameters", (
        ("RankMe", ("title-rankme",), "geometry of models below 1B parameters"),
        ("α-ReQ", ("title-alpha-req",), "geometry of models below 1B parameters"))),
    Entry(TRACING, "Figures 12 and 13", "controls of the tractable model", (
        ("features", ("title-toy-features",), _TOY),
        ("fractions", ("title-toy-fractions",), "toy with sweeps of one setting"))),
    Entry(TRACING, "Figure 14", "loss and win rates after SFT", (
        ("loss of answers", ("title-start-answer-loss",),
         "posttrain from several checkpoints, and evals with losses of chats"),
        ("against the other chain", ("title-start-length-controlled-pair",
                                     "title-start-win-rate-pair"),
         "win rates of two chains from several checkpoints"),
        ("against the last start", ("title-start-length-controlled-last",
                                    "title-start-win-rate-last"),
         "win rates against the last start"))),
)  # fmt: skip
"""Every table and figure of both papers, in their order."""


_SMALL = "Figure 11"


def paper_index(ids: Collection[str], small_models: bool) -> list[Placed]:
    """Finds every table and figure of both papers on a page.

    Args:
        ids: Ids of the page's elements, in its order.
        small_models: Whether a model with fewer than 10⁹ parameters was measured.

    Returns:
        All of `INDEX`, each with its places and with what would measure the rest.
    """
    return [
        _placed(entry, () if entry.name == _SMALL and not small_models else ids) for entry in INDEX
    ]


def _placed(entry: Entry, ids: Collection[str]) -> Placed:
    places: list[tuple[str, str]] = []
    missing: dict[str, list[str]] = {}
    for name, patterns, stages in entry.parts:
        fits = (i for pattern in patterns for i in ids if fnmatchcase(i, pattern))
        if (found := next(fits, None)) is not None:
            places.append((name, found))
        else:
            missing.setdefault(stages, []).append(name)
    told = (f"{', '.join(names)} (needs {stages})" for stages, names in missing.items())
    return Placed(entry, tuple(places), tuple(told))
