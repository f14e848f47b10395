"""One value, one key; and nothing that JSON cannot hold."""

import enum
import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.ledger.canonical import canonical_key, check_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def test_the_key_is_the_sha256_of_sorted_compact_json() -> None:
    text = '{"a":[1,2.5,null,true],"b":"\\u00e9"}'
    assert canonical_key({"b": "é", "a": (1, 2.5, None, True)}) == hashlib.sha256(text.encode()).hexdigest()


@given(plain)
def test_a_key_survives_json_and_any_order_of_the_names(value: object) -> None:
    assert canonical_key(json.loads(json.dumps(value))) == canonical_key(value)
    if isinstance(value, dict):
        assert canonical_key(dict(reversed(value.items()))) == canonical_key(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0, None), ("1", 1), ([], {}), (0.1, math.nextafter(0.1, 1)), ([1, [2]], [[1], 2])],
)
def test_values_that_differ_have_keys_that_differ(one: object, other: object) -> None:
    assert canonical_key(one) != canonical_key(other)


class Method(enum.StrEnum):
    LORA = "lora"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"data": [Path("/tmp/x")]},
            "key.data[0]: got PosixPath('/tmp/x') (PosixPath); "
            "expected a dict, list, tuple, str, int, float, bool or None",
        ),
        ({"lr": math.nan}, "key.lr: got nan; expected a finite number (JSON has no other)"),
        ({"lr": -math.inf}, "key.lr: got -inf; expected a finite number (JSON has no other)"),
        ({"a": {1: 2}}, "key.a: got the key 1 (int); expected a str"),
        (
            [Method.LORA],
            "key[0]: got <Method.LORA: 'lora'> (Method); "
            "expected a dict, list, tuple, str, int, float, bool or None",
        ),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: object, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        canonical_key(value)
    assert str(caught.value) == text


def test_check_json_names_the_place_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"^nights\.plan\.loss: got nan; "):
        check_json({"loss": math.nan}, "nights.plan")
