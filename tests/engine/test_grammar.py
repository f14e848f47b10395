"""Schemas are checked before llama.cpp sees them: one that it could not follow it would leave out in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nomoat.engine.grammar import checked, json_grammar, json_rule, text_rule
from nomoat.errors import DataError


def test_a_schema_becomes_a_grammar_of_compact_json() -> None:
    grammar = json_grammar({"type": "object", "properties": {"a": {"type": "integer"}}}, "schema")
    first, second = grammar.splitlines()
    assert first == "%llguidance {}"
    schema = json.loads(second.removeprefix("start: %json "))
    assert schema["x-guidance"]["whitespace_flexible"] is False


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "foo"}, "schema: Invalid type: foo"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"anyOf": "x"}, "schema: anyOf must be an array"),
        ({"not": {"type": "integer"}}, 'schema: Unimplemented keys: ["not"]'),
        ({"enum": []}, "Unsatisfiable schema"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "is not present in a registry"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        json_grammar(schema, "schema")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_rules_of_texts_and_schemas() -> None:
    rule = f"start: {text_rule(chr(10) + '<call>')} {json_rule({'const': 1})} {text_rule('“”')}"
    assert checked(rule, "here").count("start:") == 1
    with pytest.raises(DataError, match="^here: "):
        checked("start: [", "here")
