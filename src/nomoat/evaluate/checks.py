"""Programmatic checks of one answer: does it hold the asked words, the name, the ending, the length?

A check is a small JSON object with a `kind`; `parse_checks` turns a list of them into frozen values, once,
and `run_checks` applies them to as many answers as one likes; `checker.Checker` does so for those of kind `function`
too, which are the owner's own. Parsing raises `ValueError` (the caller knows the file and the line, and turns it into a
`DataError`); running never raises, whatever the model wrote.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nomoat.data.functions import Failed
from nomoat.errors import nearest

MAX_TEXT_CHARS = 20_000  # a pattern sees no more of an answer than this
REGEX_LIMIT_S = 2.0  # for patterns that may backtrack; an answer that needs longer fails the check
_QUOTES = "\"'\u201c\u201d\u2018\u2019"
_SPEECH_VERBS = "said|asked|cried|shouted|replied|yelled|called|exclaimed|whispered|laughed|answered|thought"
# possessive (++, *+): given back one by one, thousands of dots that end nothing would take minutes
_SENTENCE_END = re.compile(
    rf"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)[.!?]++[{_QUOTES})]*+"
    rf"(?=\s*$|\s*\n|\s+[{_QUOTES}(]?[A-Z0-9])"
    rf"(?!(?<=[{_QUOTES}])\s+(?:\w+ ){{1,3}}(?:{_SPEECH_VERBS})\b)"
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One parsed check; only the fields its kind uses are set."""

    kind: str
    words: tuple[str, ...] = ()
    name: str = ""
    text: str = ""
    pattern: str = ""
    schema: str = ""
    function: str = ""
    file: Path | None = None
    time_limit_s: float = 10.0
    minimum: int | None = None
    maximum: int | None = None
    inflect: bool = False


@dataclass(frozen=True)
class CheckResult:
    """What one check says about one answer; `detail` is for people ('missing: river'). Of an owner's function `kind` is
    its name, and `failed` why it could not tell: it is not passed then."""

    kind: str
    passed: bool
    detail: str
    failed: Failed | None = None


def sentences(text: str) -> tuple[str, ...]:
    """Split text into sentences. `"Stop!" said Tom.` is one: a speech tag goes with what was said."""
    parts, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        parts.append(text[start : match.end()].strip())
        start = match.end()
    parts.append(text[start:].strip())
    return tuple(part for part in parts if re.search(r"\w", part))


def count_words(text: str) -> int:
    """Count blocks of characters between white space that hold a letter or a digit."""
    return sum(1 for block in text.split() if re.search(r"\w", block))


def _occurs(word: str, text: str, *, inflect: bool = False, flags: int = re.IGNORECASE) -> int:
    """How often `word` stands in `text` as a whole word (or, with `inflect`, as a simple form of it)."""
    forms = re.escape(word)
    if inflect:
        forms += r"(?:s|es|d|ed|ing)?"
        if word.endswith("y"):
            forms += "|" + re.escape(word[:-1]) + "ie[sd]"
        elif word.endswith("e"):
            forms += "|" + re.escape(word[:-1]) + "ing"
    return len(re.findall(rf"(?<!\w)(?:{forms})(?!\w)", text, flags))


def _includes(text: str, check: Check) -> tuple[bool, str]:
    missing = [word for word in check.words if not _occurs(word, text, inflect=check.inflect)]
    return not missing, f"missing: {', '.join(missing)}" if missing else f"has: {', '.join(check.words)}"


def _excludes(text: str, check: Check) -> tuple[bool, str]:
    present = [word for word in check.words if _occurs(word, text, inflect=check.inflect)]
    return not present, f"present: {', '.join(present)}" if present else f"without: {', '.join(check.words)}"


def _name(text: str, check: Check) -> tuple[bool, str]:
    count = _occurs(check.name, text, flags=0)
    return count >= 2, f"{check.name} occurs {count} {'time' if count == 1 else 'times'}, at least 2 asked"


def _starts_with(text: str, check: Check) -> tuple[bool, str]:
    text = text.lstrip()
    passed = text.startswith(check.text.lstrip())
    return passed, f"starts with: {_shorten(text[: len(check.text)])}"


def _ends_with(text: str, check: Check) -> tuple[bool, str]:
    text, wanted = (part.rstrip().rstrip(_QUOTES).rstrip() for part in (text, check.text))
    wanted = wanted or check.text  # an ending that is nothing but quotes is never met, not always
    return text.endswith(wanted), f"ends with: {_shorten(text[-len(wanted) :])}"


def _between(count: int, check: Check, unit: str) -> tuple[bool, str]:
    if check.minimum is not None and count < check.minimum:
        return False, f"{count} {unit}, at least {check.minimum} asked"
    if check.maximum is not None and count > check.maximum:
        return False, f"{count} {unit}, at most {check.maximum} asked"
    return True, f"{count} {unit}"


def _words(text: str, check: Check) -> tuple[bool, str]:
    return _between(count_words(text), check, "words")


def _sentences(text: str, check: Check) -> tuple[bool, str]:
    return _between(len(sentences(text)), check, "sentences")


def _regex(text: str, check: Check) -> tuple[bool, str]:
    found = _search(check.pattern, text[:MAX_TEXT_CHARS])
    if found is None:
        return False, f"pattern gave no answer within {REGEX_LIMIT_S:g} s: {_shorten(check.pattern)}"
    return found, f"{'matches' if found else 'no match'}: {_shorten(check.pattern)}"


def _json(text: str, check: Check) -> tuple[bool, str]:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        return False, f"not JSON: {problem}"
    return True, "is JSON"


def _json_schema(text: str, check: Check) -> tuple[bool, str]:
    is_json, said = _json(text, check)
    if not is_json:
        return False, said
    try:
        error = next(_validator(check.schema).iter_errors(json.loads(text)), None)
    except ValueError as problem:  # such as a pattern that backtracks for too long
        return False, f"not decided: {_shorten(str(problem))}"
    if error is not None:
        return False, f"not by the schema: {_shorten(error.message)}"
    return True, "follows the schema"


@cache
def _validator(schema: str) -> Any:
    """Of a JSON schema as text. Raises ValueError where it is none."""
    import jsonschema_rs

    return jsonschema_rs.validator_for(json.loads(schema), offline=True)


def _equals(text: str, check: Check) -> tuple[bool, str]:
    passed = text.strip() == check.text.strip()
    return passed, "equal" if passed else f"got: {_shorten(text.strip())}"


def _function(text: str, check: Check) -> tuple[bool, str]:
    raise AssertionError(f"{check.function} runs in a process of its own, which a Checker has")


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not allowed in JSON")


def _shorten(text: str, limit: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _search(pattern: str, text: str) -> bool | None:
    """Search a pattern; None when it took too long.

    Python cannot interrupt its own regex engine, and a pattern with two repeats, or one over alternatives, can
    need longer than the night on a degenerate answer ('aaaa...'). So only patterns with no repeat, or with one
    and neither alternatives nor references back, whose cost is bounded by the square of the text, run in this
    process; the others run in a child that can be ended.
    """
    repeats = len(re.findall(r"[*+?{]", pattern))
    if repeats == 0 or (repeats == 1 and not re.search(r"\||\\[1-9]", pattern)):
        return re.search(pattern, text) is not None
    code = "import json, re, sys; p, t = json.load(sys.stdin); print(int(re.search(p, t) is not None))"
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code],
            input=json.dumps([pattern, text]),
            capture_output=True,
            text=True,
            timeout=REGEX_LIMIT_S,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return child.stdout.strip() == "1"


@dataclass(frozen=True)
class Kind:
    """How one kind is read and run: what it asks for, its function, fields it needs, and fields it may have."""

    meaning: str
    run: Callable[[str, Check], tuple[bool, str]]
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "includes": Kind(
        "has each of the words; with `inflect: true` simple forms of them count",
        _includes,
        needs=("words",),
        may=("inflect",),
    ),
    "excludes": Kind("has none of the words", _excludes, needs=("words",), may=("inflect",)),
    "name": Kind("has the name at least twice", _name, needs=("name",)),
    "starts_with": Kind("starts with the text", _starts_with, needs=("text",)),
    "ends_with": Kind("ends with the text, quotes aside", _ends_with, needs=("text",)),
    "words": Kind("has so many words", _words, may=("min", "max")),
    "sentences": Kind("has so many sentences", _sentences, may=("min", "max")),
    "regex": Kind("holds what the pattern describes", _regex, needs=("pattern",)),
    "json": Kind("is JSON", _json),
    "json_schema": Kind("is JSON that follows the schema", _json_schema, needs=("schema",)),
    "equals": Kind("is the text", _equals, needs=("text",)),
    "function": Kind(
        "passes a Python function of yours, within `time_limit_s` seconds (10)",
        _function,
        needs=("function",),
        may=("time_limit_s",),
    ),
}
_ATTRIBUTES = {"min": "minimum", "max": "maximum"}  # JSON says min, max; Python keeps its built-ins


def parse_checks(raw: object, folder: Path = Path()) -> tuple[Check, ...]:
    """Read a row's `checks`; the files of functions are in `folder`.

    Raises:
        ValueError: the value is not a list of objects; a kind is unknown; a field is missing, unknown or of
            the wrong type; `min` is above `max`; a pattern does not compile; the file of a function
            is not there. Each message names index and field.
    """
    if not isinstance(raw, list):
        raise ValueError(f"checks: got {_show(raw)}; expected a list of objects")
    return tuple(_parse_check(entry, f"checks[{index}]", folder) for index, entry in enumerate(raw))


def run_checks(text: str, checks: Sequence[Check]) -> tuple[CheckResult, ...]:
    """Apply every check to one answer, in order; none is of kind `function`."""
    return tuple(CheckResult(check.kind, *KINDS[check.kind].run(text, check)) for check in checks)


def _parse_check(entry: object, where: str, folder: Path) -> Check:
    if not isinstance(entry, dict):
        raise ValueError(f'{where}: got {_show(entry)}; expected an object such as {{"kind": "json"}}')
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        got = "nothing" if kind is None else _show(kind)
        raise ValueError(
            f"{where}.kind: got {got}; expected {_listed([*KINDS])}.{nearest(str(kind), [*KINDS])}"
        )
    known: list[str] = ["kind", *KINDS[kind].needs, *KINDS[kind].may]
    for field in entry:
        if field not in known:
            expected = f'"{kind}" takes {_listed(known, "and")} only'
            raise ValueError(f"{where}.{field}: {expected}.{nearest(str(field), known)}")
    for field in KINDS[kind].needs:
        if field not in entry:
            raise ValueError(f'{where}.{field}: got nothing; "{kind}" expects {_EXPECTED[field]}')
    given = [field for field in known[1:] if field in entry]
    values = {_ATTRIBUTES.get(f, f): _field(f, entry[f], f"{where}.{f}") for f in given}
    if kind == "function":
        values["file"] = _file(values["function"], f"{where}.function", folder)
    return _agree(Check(kind, **values), where)


def _file(function: str, where: str, folder: Path) -> Path:
    """The file of a function. What a row of data names to be run lies beside that data: rows from elsewhere cannot run
    what is somewhere on this machine."""
    name, folder = function.rpartition(":")[0], folder.resolve()
    file = (folder / name).resolve()  # a link may lead elsewhere too
    if not file.is_relative_to(folder):
        raise ValueError(f"{where}: {name} is outside of the folder of the prompts; expected a file in it")
    if not file.is_file():
        raise ValueError(f"{where}: {name} is not there; expected it beside the prompts, in {folder}")
    return file


_EXPECTED = {
    "words": "a list of one or more non-empty strings",
    "name": "a non-empty string that starts with a capital letter",
    "text": "a non-empty string",
    "pattern": "a regular expression that compiles",
    "schema": "a JSON schema, which is an object",
    "function": "file and name of a Python function, such as rules.py:polite",
    "time_limit_s": "a number of seconds above 0 and at most 3600",
    "min": "a whole number, 0 or more",
    "max": "a whole number, 0 or more",
    "inflect": "true or false",
}


def _field(field: str, value: object, where: str) -> Any:
    """Validate one field and give it the type that `Check` has for it."""
    if not _is_valid(field, value):
        raise ValueError(f"{where}: got {_show(value)}; expected {_EXPECTED[field]}")
    if field == "pattern":
        try:
            re.compile(str(value))
        except (re.error, OverflowError, RecursionError) as problem:
            message = f"{where}: got {_show(value)}; expected {_EXPECTED[field]} ({problem})"
            raise ValueError(message) from problem
    if field == "schema":
        text = json.dumps(value, sort_keys=True)
        try:
            _validator(text)
        except ValueError as problem:
            raise ValueError(f"{where}: no JSON schema: {_shorten(str(problem), 120)}") from problem
        return text
    return tuple(word.strip() for word in value) if isinstance(value, list) else value


def _is_valid(field: str, value: object) -> bool:
    if field == "words":
        if not isinstance(value, list) or not value:
            return False
        return all(isinstance(word, str) and word.strip() for word in value)
    if field in ("min", "max"):
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if field == "time_limit_s":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 3_600
    if field == "inflect":
        return isinstance(value, bool)
    if field == "schema":
        return isinstance(value, dict)
    if not isinstance(value, str) or not value.strip():
        return False
    if field == "function":
        return re.fullmatch(r".+\.py:[A-Za-z_]\w*", value) is not None
    return field != "name" or value[0] == value[0].upper()


def _agree(check: Check, where: str) -> Check:
    """What holds between fields: a range has at least one bound, and its bounds are in order."""
    if check.kind in ("words", "sentences"):
        low, high = check.minimum, check.maximum
        if low is None and high is None:
            raise ValueError(f'{where}: "{check.kind}" expects min, max or both; got neither')
        if low is not None and high is not None and low > high:
            raise ValueError(f"{where}.min: got {low}, above max {high}; expected min to be at most max")
    return check


def _show(value: object) -> str:
    try:
        return _shorten(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError):
        return _shorten(repr(value))


def _listed(names: Sequence[str], joiner: str = "or") -> str:
    *most, last = names
    return f"{', '.join(most)} {joiner} {last}" if most else last
