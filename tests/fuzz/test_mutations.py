"""Mutations: the same for the same seed, seldom nothing, and writable as TOML."""

import json
import random
import tomllib

import pytest

from jobs.study import load_study, shipped_studies
from tests.fuzz.mutants import bases, resolved
from tests.fuzz.mutations import NUMBERS, TEXTS, mutate_bytes, mutate_tree
from tests.fuzz.planned import differences
from tests.fuzz.toml import to_toml


def test_equal_seeds_make_equal_mutants() -> None:
    texts = [base.text for base in bases()]
    for text in texts:
        changed = 0
        for seed in range(30):
            twice = [mutate_bytes(text.encode(), random.Random(seed)) for _ in range(2)]
            assert twice[0] == twice[1]
            tree = tomllib.loads(text)
            trees = [mutate_tree(tree, random.Random(seed)) for _ in range(2)]
            assert repr(trees[0]) == repr(trees[1])
            assert tree == tomllib.loads(text)
            changed += (twice[0] != text.encode()) + (repr(trees[0]) != repr(tree))
        assert changed > 45


@pytest.mark.parametrize("name", shipped_studies())
def test_documents_come_back_from_toml(name: str) -> None:
    document = resolved(load_study(name))
    again = tomllib.loads(to_toml(document))
    assert differences(json.loads(json.dumps(again)), _without_null(document)) == []


def test_every_value_has_its_toml() -> None:
    texts = [text for text in TEXTS if max(text, default="") < "\ud800" or max(text) > "\udfff"]
    document = {"numbers": [n for n in NUMBERS if n == n], "texts": texts, "a.b c": {"\n": [[]]}}
    assert tomllib.loads(to_toml(document)) == document


def _without_null(document: object) -> object:
    if isinstance(document, dict):
        return {k: _without_null(v) for k, v in document.items() if v is not None}
    if isinstance(document, list):
        return [_without_null(member) for member in document]
    return document


def test_differences_name_their_paths() -> None:
    first = {"a": [1, {"b": 2}], "c": 3}
    assert differences(first, {"a": [1, {"b": 2}], "c": 3}) == []
    assert differences(first, {"a": [1, {"b": 4}], "c": 3.0}) == ["a.1.b", "c"]
    assert differences(first, {"a": [1], "c": 3}) == ["a"]
    assert differences(first, {"a": [1, {"b": 2}]}) == ["c"]
    assert differences(first, {"a": [1, {"b": 2, "d": 5}], "c": 3}) == ["a.1.d"]
    assert differences(first, {"c": 3, "a": [1, {"b": 2}]}) == []
