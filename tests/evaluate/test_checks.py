"""Checks of one answer: what passes, what fails and why, and what a broken check is told."""

from __future__ import annotations

import time

import pytest

from nomoat.evaluate.checks import KINDS, count_words, parse_checks, run_checks, sentences


def outcome(text: str, /, **check: object) -> tuple[bool, str]:
    (result,) = run_checks(text, parse_checks([check]))
    assert result.kind == check["kind"]
    return result.passed, result.detail


SCHEMA = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "check", "passed", "detail"),
    [
        ("A Kite flew.", {"kind": "includes", "words": ["kite"]}, True, "has: kite"),
        ("A kite's tail.", {"kind": "includes", "words": ["kite"]}, True, "has: kite"),
        ("Two kites.", {"kind": "includes", "words": ["kite", "river"]}, False, "missing: kite, river"),
        ("Two kites.", {"kind": "includes", "words": ["kite"], "inflect": True}, True, "has: kite"),
        ("A kitestring.", {"kind": "includes", "words": ["kite"], "inflect": True}, False, "missing: kite"),
        ("Six ponies ran.", {"kind": "includes", "words": ["pony"], "inflect": True}, True, "has: pony"),
        ("It was C++.", {"kind": "includes", "words": ["c++"]}, True, "has: c++"),
        ("No cat here.", {"kind": "excludes", "words": ["cat", "dog"]}, False, "present: cat"),
        ("A category.", {"kind": "excludes", "words": ["cat"]}, True, "without: cat"),
        (
            "Milo ran. Milo's hat.",
            {"kind": "name", "name": "Milo"},
            True,
            "Milo occurs 2 times, at least 2 asked",
        ),
        (
            "milo ran. Milo hid.",
            {"kind": "name", "name": "Milo"},
            False,
            "Milo occurs 1 time, at least 2 asked",
        ),
        ("\n Once upon", {"kind": "starts_with", "text": "Once upon"}, True, "starts with: Once upon"),
        ("One day", {"kind": "starts_with", "text": "Once"}, False, "starts with: One"),
        ('He said, "The end."\n', {"kind": "ends_with", "text": "The end."}, True, "ends with: The end."),
        ("At the end", {"kind": "ends_with", "text": "The end."}, False, "ends with: the end"),
        ("Hello", {"kind": "ends_with", "text": '"'}, False, "ends with: o"),
        ("one two - three", {"kind": "words", "min": 3, "max": 3}, True, "3 words"),
        ("one two", {"kind": "words", "min": 3}, False, "2 words, at least 3 asked"),
        ("one two", {"kind": "words", "max": 1}, False, "2 words, at most 1 asked"),
        ("One. Two! Three?", {"kind": "sentences", "min": 3, "max": 3}, True, "3 sentences"),
        ("", {"kind": "sentences", "min": 1}, False, "0 sentences, at least 1 asked"),
        ("abc 42", {"kind": "regex", "pattern": r"\d"}, True, r"matches: \d"),
        ("abc", {"kind": "regex", "pattern": r"^\d+ .*x$"}, False, r"no match: ^\d+ .*x$"),
        ('{"a": [1]}\n', {"kind": "json"}, True, "is JSON"),
        ("NaN", {"kind": "json"}, False, "not JSON: NaN is not allowed in JSON"),
        ('{"a": 1}', {"kind": "json_schema", "schema": SCHEMA}, True, "follows the schema"),
        (
            '{"a": "x"}',
            {"kind": "json_schema", "schema": SCHEMA},
            False,
            'not by the schema: "x" is not of type "integer"',
        ),
        (
            "a: 1",
            {"kind": "json_schema", "schema": SCHEMA},
            False,
            "not JSON: Expecting value: line 1 column 1 (char 0)",
        ),
        (" yes\n", {"kind": "equals", "text": "yes"}, True, "equal"),
        ("no", {"kind": "equals", "text": "yes"}, False, "got: no"),
    ],
)
def test_outcomes(text: str, check: dict[str, object], passed: bool, detail: str) -> None:
    assert outcome(text, **check) == (passed, detail)


def test_every_kind_survives_strange_text() -> None:
    checks = parse_checks(
        [
            {"kind": "includes", "words": ["a"]},
            {"kind": "excludes", "words": ["a"]},
            {"kind": "name", "name": "A"},
            {"kind": "starts_with", "text": "a"},
            {"kind": "ends_with", "text": "a"},
            {"kind": "words", "max": 3},
            {"kind": "sentences", "max": 3},
            {"kind": "regex", "pattern": "a+b*c"},
            {"kind": "json"},
            {"kind": "json_schema", "schema": SCHEMA},
            {"kind": "equals", "text": "a"},
        ]
    )
    assert {check.kind for check in checks} == {*KINDS} - {"function"}  # test_checker.py
    for text in ("", "\x00", "\ud800", "[" * 100_000, "." * 50_000, "\u201cYes.\u201d \u4f60\u597d"):
        assert len(run_checks(text, checks)) == len(checks)


def test_long_detail_is_shortened() -> None:
    passed, detail = outcome("x" * 500, kind="equals", text="y")
    assert not passed and len(detail) < 80 and detail.endswith("...")


@pytest.mark.parametrize("pattern", ["(a+)+$x", "(a|aa)*b"])
def test_a_pattern_that_backtracks_for_ever_fails_in_time(pattern: str) -> None:
    start = time.monotonic()
    passed, detail = outcome("a" * 20_000, kind="regex", pattern=pattern)
    assert (passed, detail) == (False, f"pattern gave no answer within 2 s: {pattern}")
    assert time.monotonic() - start < 20  # seconds; a machine under load starts the child late


def test_a_pattern_sees_only_the_bounded_text() -> None:
    assert outcome("a" * 20_000 + "b", kind="regex", pattern="b") == (False, "no match: b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two.", ("One.", "Two.")),
        ('"Stop!" cried Tom. He ran.', ('"Stop!" cried Tom.', "He ran.")),
        ('"Why?" Mia asked. "I see."', ('"Why?" Mia asked.', '"I see."')),
        ('"I did it. I am sorry." Tom wept.', ('"I did it.', 'I am sorry."', "Tom wept.")),
        ("Mr. Fox slept.\nHe snored", ("Mr. Fox slept.", "He snored")),
        ("It cost 3.50 coins.", ("It cost 3.50 coins.",)),
    ],
)
def test_sentences(text: str, expected: tuple[str, ...]) -> None:
    assert sentences(text) == expected


def test_dots_without_an_end_are_counted_in_time() -> None:
    start = time.monotonic()
    assert len(sentences("." * 20_000 + "x. Yes.")) == 2
    assert time.monotonic() - start < 10  # seconds; it took a minute


def test_words_are_blocks_with_a_letter_or_digit() -> None:
    assert count_words('"Well," she said - "2 kites!" ...') == 5


KIND_LIST = (
    "includes, excludes, name, starts_with, ends_with, words, sentences, regex, json, json_schema, equals or "
    "function"
)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kind": "json"}, 'checks: got {"kind": "json"}; expected a list of objects'),
        (["json"], 'checks[0]: got "json"; expected an object such as {"kind": "json"}'),
        ([{}], f"checks[0].kind: got nothing; expected {KIND_LIST}."),
        (
            [{"kind": "json"}, {"kind": "includs", "words": ["a"]}],
            f'checks[1].kind: got "includs"; expected {KIND_LIST}. Did you mean "includes"?',
        ),
        (
            [{"kind": "includes", "word": ["a"]}],
            'checks[0].word: "includes" takes kind, words and inflect only. Did you mean "words"?',
        ),
        (
            [{"kind": "includes"}],
            'checks[0].words: got nothing; "includes" expects a list of one or more non-empty strings',
        ),
        (
            [{"kind": "includes", "words": "kite"}],
            'checks[0].words: got "kite"; expected a list of one or more non-empty strings',
        ),
        (
            [{"kind": "name", "name": "milo"}],
            'checks[0].name: got "milo"; expected a non-empty string that starts with a capital letter',
        ),
        ([{"kind": "words", "min": True}], "checks[0].min: got true; expected a whole number, 0 or more"),
        ([{"kind": "words"}], 'checks[0]: "words" expects min, max or both; got neither'),
        (
            [{"kind": "words", "min": 9, "max": 3}],
            "checks[0].min: got 9, above max 3; expected min to be at most max",
        ),
        (
            [{"kind": "json_schema", "schema": 3}],
            "checks[0].schema: got 3; expected a JSON schema, which is an object",
        ),
        (
            [{"kind": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/x.json"}}],
            "checks[0].schema: no JSON schema: Resource 'http://127.0.0.1:9/x.json' is not present in a registry and "
            "retrieving it failed: Retrieval is disabled, ca...",
        ),
        (
            [{"kind": "function", "function": "rules.py:f", "time_limit_s": 1e10}],
            "checks[0].time_limit_s: got 10000000000.0; expected a number of seconds above 0 and at most 3600",
        ),
        (
            [{"kind": "regex", "pattern": "(a"}],
            'checks[0].pattern: got "(a"; expected a regular expression that compiles '
            "(missing ), unterminated subpattern at position 0)",
        ),
    ],
)
def test_broken_checks_are_told_where_and_what(raw: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_checks(raw)
    assert str(caught.value) == message
