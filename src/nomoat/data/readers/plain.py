"""Plain text files as documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nomoat.data.readers.source import MAX_VALUE_CHARS, OnBytes, text_chunks
from nomoat.data.rows import TextRow, Where

DIVIDERS = ("<|endoftext|>", "\f")
PASSAGE_CHARS = 8_000
"""A file without dividers is one document: it is read in passages of this length, about 2,000 tokens, so that
some of them can be held out, and so that it need not fit in memory."""
_LOOK_CHARS = 1 << 22


def look(path: Path) -> str:
    """The divider that the first four million characters have, '' where there is none."""
    seen = ""
    for chunk in text_chunks(path):
        seen += chunk
        if len(seen) >= _LOOK_CHARS:
            break
    return next((divider for divider in DIVIDERS if divider in seen[:_LOOK_CHARS]), "")


def documents(path: Path, divider: str, on_bytes: OnBytes | None = None) -> Iterator[TextRow]:
    """The documents between dividers, without white space at their edges. Without a divider: passages of one
    document, cut at blank lines where there are any, and only the last of them `ends`."""
    limit = MAX_VALUE_CHARS if divider else PASSAGE_CHARS
    document = _Document(str(path), limit, line=1)
    for text in _with_unix_line_ends(text_chunks(path, on_bytes)):
        document.held += text
        *done, rest = document.held.split(divider) if divider else [document.held]
        for whole in done:
            document.held = whole
            yield from document.passages()
            yield from document.rest()
            line = document.line + whole.count("\n") + divider.count("\n")
            document = _Document(str(path), limit, line)
        document.held = rest
        yield from document.passages()
    yield from document.passages()
    yield from document.rest()


@dataclass
class _Document:
    """A document that is being read: the text not yet given out, and the line where that starts."""

    file: str
    limit: int
    line: int
    held: str = ""
    begun: bool = False

    def passages(self) -> Iterator[TextRow]:
        """Passages off the front, while more than two of them are held. Where they are cut depends on the
        text alone, not on the pieces in which it was read."""
        start = 0
        while len(self.held) - start > 2 * self.limit:
            end = _place_to_cut(self.held, start, self.limit)
            yield from self._row(self.held[start:end], ends=False)
            start = end
        self.held = self.held[start:]

    def rest(self) -> Iterator[TextRow]:
        """What is held, as the end of the document."""
        yield from self._row(self.held, ends=True)

    def _row(self, text: str, *, ends: bool) -> Iterator[TextRow]:
        body = text if self.begun else text.lstrip()
        line = self.line + text.count("\n", 0, len(text) - len(body))
        if body.strip():
            yield TextRow(Where(self.file, line), body.rstrip() if ends else body, ends)
            self.begun = True
        if not ends:
            self.line += text.count("\n")


def _with_unix_line_ends(chunks: Iterator[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        text = held + chunk
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n")
    yield held


def _place_to_cut(text: str, start: int, limit: int) -> int:
    """Behind the last blank line, else line, else word within `limit` of `start`, but not before a quarter."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, start + limit // 4, start + limit)
        if found >= 0:
            return found + len(mark)
    return start + limit
