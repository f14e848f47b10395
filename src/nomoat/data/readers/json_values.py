"""JSON files: an array, lines of values, or values one after the other, decoded as they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from nomoat.data.readers.source import OnBytes, Unreadable, check_length, lines, text_chunks
from nomoat.data.rows import excerpt
from nomoat.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_IN_NUMBER = ("", *"0123456789.eE+-")


def json_lines(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, object]]:
    """(line, value) of every line that is not blank. A bad line is Unreadable; DataError where the file ends
    in the middle of a value, because then more is lost than a row."""
    for line in lines(path, on_bytes):
        if not line.text.strip():
            continue
        try:
            value: object = json.loads(line.text)
        except RecursionError:
            value = Unreadable("is nested too deeply", excerpt(line.text))
        except ValueError as error:
            cut = isinstance(error, json.JSONDecodeError) and _needs_more(error, line.text)
            if cut and not line.ended:
                raise _cut_short(path, line.number, line.text) from None
            at = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            reason = "ends in the middle of a value" if cut else f"is not JSON: {_said(error)}{at}"
            value = Unreadable(reason, excerpt(line.text))
        yield line.number, value


def json_array(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, object]]:
    """(number, value) of every element of the array, or of every value where there is no array, from 1.
    DataError where the file is cut short or is not JSON: nothing after that point can be trusted."""
    return _ArrayReader(path, text_chunks(path, on_bytes)).values()


class _ArrayReader:
    """A window of text that slides over the file, and the line at which it starts."""

    def __init__(self, path: Path, chunks: Iterator[str]) -> None:
        self.path = path
        self.chunks = chunks
        self.held, self.at, self.line = "", 0, 1

    def values(self) -> Iterator[tuple[int, object]]:
        is_array = self._next_char() == "["
        if is_array:
            self.at += 1
            if self._next_char() == "]":
                return
        number = 0
        while self._next_char():
            number += 1
            yield number, self._value()
            if is_array and not self._goes_on():
                return
        if is_array:
            raise _cut_short(self.path, self._line_at(self.at), self.held)

    def _goes_on(self) -> bool:
        """Past the comma after an element; False at the end of the array."""
        char = self._next_char()
        if char == ",":
            self.at += 1
            return True
        if char == "]":
            self.at += 1
            if self._next_char():
                raise self._broken("more text after the end of the array", self.at)
            return False
        if not char:
            raise _cut_short(self.path, self._line_at(self.at), self.held)
        raise self._broken(f"expected a comma or ] after a row, got {char!r}", self.at)

    def _value(self) -> object:
        while True:
            try:
                value, end = _DECODER.raw_decode(self.held, self.at)
            except RecursionError:
                raise self._broken("a value is nested too deeply", self.at) from None
            except json.JSONDecodeError as error:
                if not _needs_more(error, self.held):
                    raise self._broken(_said(error), error.pos) from None
                if not self._read_more():
                    raise _cut_short(self.path, self._line_at(len(self.held)), self.held) from None
                continue
            # A number at the end of what is held may go on in the next chunk.
            if self.held[end : end + 1] not in _IN_NUMBER or not self._read_more():
                self.at = end
                return value

    def _next_char(self) -> str:
        """The next character that is not white space, '' at the end of the file."""
        while True:
            match = _SPACE.match(self.held, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.held):
                return self.held[self.at]
            if not self._read_more():
                return ""

    def _read_more(self) -> bool:
        chunk = next(self.chunks, "")
        if not chunk:
            return False
        self.line = self._line_at(self.at)
        self.held, self.at = self.held[self.at :] + chunk, 0
        check_length(self.path, self.line, self.held)
        return True

    def _line_at(self, at: int) -> int:
        return self.line + self.held.count("\n", 0, at)

    def _broken(self, what: str, at: int) -> DataError:
        return DataError(
            f"{self.path}:{self._line_at(at)}: is not JSON: {what}.",
            hint="A file with one row a line should be named .jsonl.",
        )


def _needs_more(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the text is right as far as it goes and only ends too early."""
    rest = text[error.pos :].strip()
    if error.msg == "Extra data":
        return False
    if error.msg.startswith("Invalid \\u"):
        return '"' not in rest
    in_string = error.msg.startswith("Unterminated string")
    in_word = any(word.startswith(rest) for word in ("true", "false", "null", "NaN", "Infinity", "-Infinity"))
    return in_string or in_word or re.fullmatch(r"[.eE][+-]?", rest) is not None


def _said(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:].strip(': ')}"
    return str(error)


def _cut_short(path: Path, line: int, text: str) -> DataError:
    return DataError(
        f"{path}:{line}: ends in the middle of a value: {text.rstrip()[-40:]!r}.",
        hint="The file is cut short: copy or download it again, or delete its last row.",
    )
