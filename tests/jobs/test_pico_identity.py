"""What identifies a pico model, its corpus and a draw: every field but their names."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.cells import Cell
from jobs.pico_spec import PicoCorpus, PicoModel
from jobs.sources import Folder, TextFiles
from jobs.text_spec import LocalText, PicoText
from jobs.work import CorpusWork, PretrainWork, SequencesWork, Work

A = "a" * 64
TOKENIZER = Folder("/one", (("tokenizer.json", A),))
TEXT = TextFiles((("/text.txt", A),), "text", "\n\n")


def _id(work: Work) -> str:
    return Cell(work).id


_MODELS = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([64, 128]),
        "layers": st.integers(1, 3),
        "heads": st.integers(1, 2),
        "sequence_length": st.integers(8, 10),
        "batch_size": st.integers(1, 3),
        "last_step": st.integers(1, 3),
        "checkpoint_every": st.integers(1, 3),
        "learning_rate": st.sampled_from([1e-3, 2e-3]),
        "warmup_steps": st.integers(0, 2),
        "schedule": st.sampled_from(["cosine", "constant"]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "gradient_clip": st.sampled_from([0.5, 1.0]),
        "seed": st.integers(0, 2),
        "threads": st.integers(1, 2),
        "target_weights": st.sampled_from(["equal", "inverse_frequency"]),
    }
)
_CORPORA = st.fixed_dictionaries(
    {
        "vocabulary_size": st.integers(300, 302),
        "training_tokens": st.integers(10_000, 10_002),
        "english_share": st.sampled_from([0.4, 0.5]),
        "arithmetic_share": st.sampled_from([0.3, 0.4]),
        "heldout_share": st.sampled_from([0.1, 0.2]),
        "heldout_problems": st.integers(1, 3),
        "training_problems": st.sampled_from([1000, 1001]),
        "subjects": st.integers(1, 3),
        "seed": st.integers(0, 2),
    }
)
_DRAWS = st.fixed_dictionaries(
    {
        "sequences": st.integers(4, 6),
        "sequence_length": st.integers(1, 3),
        "mode": st.sampled_from(["document", "packed"]),
        "special_tokens": st.booleans(),
        "minimum_length": st.integers(1, 3),
        "seed": st.integers(0, 2),
    }
)


@given(_MODELS, _CORPORA, _DRAWS)
def test_the_strategies_name_every_field(
    model: dict[str, Any], corpus: dict[str, Any], draw: dict[str, Any]
) -> None:
    # A field that is added must be drawn above too, or be left out of the identity on purpose.
    assert set(model) == set(PicoModel.model_fields) - {"name"}
    assert set(corpus) == set(PicoCorpus.model_fields)
    assert set(draw) == set(PicoText.model_fields) - {"kind", "suite"}


@given(_MODELS, _MODELS, st.text(max_size=3), st.text(max_size=3))
def test_models_have_one_id_exactly_when_all_but_their_names_agree(
    one: dict[str, Any], two: dict[str, Any], name: str, other: str
) -> None:
    ids = [_id(PretrainWork(PicoModel(name=n, **m), A)) for n, m in ((name, one), (other, two))]
    assert (ids[0] == ids[1]) == (one == two)


@given(_MODELS, st.data())
def test_every_field_of_a_model_changes_the_id(one: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(one)))
    two = one | {field: data.draw(_MODELS)[field]}
    ids = [_id(PretrainWork(PicoModel(**m), A)) for m in (one, two)]
    assert (ids[0] == ids[1]) == (one == two)


@given(_CORPORA, st.data())
def test_every_field_of_a_corpus_changes_the_id(one: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(one)))
    two = one | {field: data.draw(_CORPORA)[field]}
    ids = [_id(CorpusWork(PicoCorpus(**c), A)) for c in (one, two)]
    assert (ids[0] == ids[1]) == (one == two)


@given(_DRAWS, st.data())
def test_every_field_of_a_draw_changes_the_id(one: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(one)))
    two = one | {field: data.draw(_DRAWS)[field]}
    ids = [_id(SequencesWork("x", TEXT, PicoText(**d), TOKENIZER)) for d in (one, two)]
    assert (ids[0] == ids[1]) == (one == two)


@given(_DRAWS)
def test_the_kind_of_a_dataset_is_no_part_of_an_id(draw: dict[str, Any]) -> None:
    ours, theirs = PicoText(**draw), LocalText(paths=("x",), **draw)
    assert _id(SequencesWork("x", TEXT, ours, TOKENIZER)) == (
        _id(SequencesWork("x", TEXT, theirs, TOKENIZER))
    )
