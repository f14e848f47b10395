"""What became of the owner's rows: counts, lengths and examples, and the reasons to refuse them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nomoat.data.rows import BadRow
from nomoat.errors import DataError

QUOTED = 20
"""Bad rows that are quoted; the others are counted."""
Piece = tuple[str, bool]
"""Text of a rendered row, and whether its tokens are trained on."""


@dataclass(frozen=True)
class RowCounts:
    """Rows of the files. `read` is the sum of all the others but `truncated` and `divided`, which are among
    the kept ones."""

    read: int = 0
    bad: int = 0
    duplicate: int = 0
    contaminated: int = 0
    not_preferred: int = 0
    without_answer: int = 0
    cut_to_nothing: int = 0
    train: int = 0
    held_out: int = 0
    truncated: int = 0
    divided: int = 0


@dataclass(frozen=True)
class Lengths:
    """Tokens a row (before any cut), of train and held-out rows. `histogram` is [[n, rows], ...]: rows of at
    most n tokens, but more than the n before."""

    p50: int
    p90: int
    p99: int
    longest: int
    histogram: list[list[int]]


@dataclass(frozen=True)
class DataReport:
    """Everything `nomoat check` shows. `sequences` are the rows of the token stores: a long document is split
    into several, and so is a conversation whose template rewrites earlier turns."""

    files: list[str]
    template: dict[str, Any]
    max_seq_len: int
    rows: RowCounts
    sequences: dict[str, int]
    tokens: dict[str, int]
    lengths: Lengths
    bad: list[dict[str, str]]
    examples: list[list[Piece]]
    said: str

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return asdict(self)


@dataclass
class Tally:
    """Counts while the rows are read."""

    counts: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    advice: str | None = None
    """What to do about the first bad row for which that is known."""
    chats: int = 0
    stops_trained: int = 0
    places: tuple[float, float] = (1.0, 0.0)
    """Lowest and highest place of a kept row in the split: which shares would hold out some but not all."""

    def add_bad(self, row: BadRow, advice: str | None = None) -> None:
        self.counts["bad"] += 1
        self.advice = self.advice or advice
        if len(self.bad) < QUOTED:
            self.bad.append(row)

    def add_place(self, place: float) -> None:
        self.places = (min(self.places[0], place), max(self.places[1], place))

    def rows(self) -> RowCounts:
        return RowCounts(**self.counts)


def check_bad(tally: Tally, max_bad_rows: float, *, so_far: bool = False) -> None:
    """DataError where more than `max_bad_rows` of the rows read are bad. `so_far`: while reading, only where
    most are, so that a file of a wrong kind is not read to its end."""
    read, bad = tally.counts["read"], tally.counts["bad"]
    if so_far and (read < 1000 or bad <= max(0.5, max_bad_rows) * read):
        return
    if bad <= max_bad_rows * read:
        return
    lines = [f"{row.where}: {row.reason}" for row in tally.bad]
    if bad > len(lines):
        lines.append(f"... and {bad - len(lines)} more")
    if tally.advice is not None:
        lines.append(tally.advice)
    raise DataError(
        f"{bad} of {read} rows cannot be used ({bad / read:.1%}); data.max_bad_rows allows {max_bad_rows:.1%}.",
        hint="\n  ".join(lines),
    )


def check_kept(
    tally: Tally,
    *,
    share: float,
    max_seq_len: int,
    max_truncated: float,
    context: int | None,
    section: str = "sft",
) -> None:
    """DataError where the rows that are left cannot make a night. `context` is the longest row that the base
    can read, in tokens; None where that is not known. `section` is where the recipe says `max_seq_len`."""
    length_key = f"{section}.max_seq_len"
    rows = tally.rows()
    if rows.truncated > max_truncated * tally.chats:
        raise DataError(
            f"{rows.truncated} of {tally.chats} rows are longer than {max_seq_len} tokens and would be cut "
            f"({rows.truncated / tally.chats:.0%}); data.max_truncated allows {max_truncated:.0%}.",
            hint=_more_room(tally.lengths, max_seq_len, context, length_key),
        )
    if rows.train + rows.held_out == 0:
        raise DataError(
            f"No row is left to train on: of {rows.read} rows, {rows.bad} are bad, {rows.duplicate} duplicates, "
            f"{rows.contaminated} hold what is evaluated, {rows.not_preferred} not preferred, {rows.without_answer} "
            f"without an answer, and {rows.cut_to_nothing} too long for any of their answer to fit.",
            hint="Expected conversations with answers of the assistant, or text."
            if rows.without_answer
            else None,
        )
    if rows.held_out == 0 or rows.train == 0:
        raise _one_sided(rows, tally.places, share)
    if tally.chats and not tally.stops_trained:
        raise DataError(
            f"The stop token is never trained: every row is longer than {max_seq_len} tokens and loses its end, "
            "so the model would never stop.",
            hint=_more_room(tally.lengths, max_seq_len, context, length_key),
        )


def _more_room(lengths: Counter[int], max_seq_len: int, context: int | None, length_key: str) -> str:
    """What to do about rows that are cut, within what the base can read."""
    fits, held = percentile(lengths, 0.95), "95 of 100 rows"
    if fits <= max_seq_len:
        fits, held = max(lengths), "every row"
    if context is None or fits <= context:
        return f"Raise {length_key}: {fits} tokens would hold {held} whole."
    otherwise = f"choose a base with a longer context ({fits} tokens would hold {held} whole)."
    if max_seq_len >= context:
        return f"The base reads no more than that. Shorten or split the longer rows, or {otherwise}"
    whole = sum(count for length, count in lengths.items() if length <= context) / lengths.total()
    return (
        f"Raise {length_key} to {context}, which is all that the base reads and would hold {whole:.0%} of the "
        f"rows whole; beyond that, shorten or split rows, or {otherwise}"
    )


def _one_sided(rows: RowCounts, places: tuple[float, float], share: float) -> DataError:
    kept = rows.train + rows.held_out
    if kept == 1:
        found = "Only one row is left"
        advice = "Add rows: one row cannot be trained on and held out at once."
    elif rows.held_out == 0:
        found = f"None of {kept} rows is held out with data.held_out: {share:g}"
        advice = f"Set data.held_out to {math.ceil(places[0] * 1000 + 1e-9) / 1000:g} or more, or add rows."
    else:
        found = f"All {kept} rows are held out with data.held_out: {share:g}"
        advice = f"Set data.held_out to {math.floor(places[1] * 1000) / 1000:g} or less, or add rows."
    if kept > 1 and places[0] == places[1]:
        advice = (
            "All rows ask the same, and rows with the same prompt stay on one side, so that no trained prompt is "
            "evaluated. To split them all the same: data.split_by: content"
        )
    return DataError(
        f"{found}. A night trains on some rows and compares the models on others, so each side needs one at "
        "least (which side a row is on depends on its content alone).",
        hint=advice,
    )


def percentile(lengths: Counter[int], share: float) -> int:
    """The smallest length that at least `share` of the rows do not exceed; 0 where there are none."""
    below, total = 0, lengths.total()
    for length, count in sorted(lengths.items()):
        below += count
        if below >= share * total:
            return length
    return 0


def lengths_of(lengths: Counter[int]) -> Lengths:
    longest = max(lengths, default=0)
    histogram: list[list[int]] = []
    low, high = 0, 16
    while low < longest:
        histogram.append([high, sum(count for length, count in lengths.items() if low < length <= high)])
        low, high = high, 2 * high
    p50, p90, p99 = (percentile(lengths, share) for share in (0.5, 0.9, 0.99))
    return Lengths(p50, p90, p99, longest, histogram)


def pieces(tokenizer: Any, tokens: Sequence[int], trained: Sequence[bool]) -> list[Piece]:
    """The tokens as text, in runs of trained and untrained ones. Decoded from the start each time: many
    tokenizers drop the space before the first token."""
    runs: list[Piece] = []
    start, before = 0, ""
    for end in range(1, len(tokens) + 1):
        if end == len(tokens) or trained[end] != trained[start]:
            text = tokenizer.decode(list(tokens[:end]), skip_special_tokens=False)
            runs.append((text[len(before) :], bool(trained[start])))
            start, before = end, text
    return runs
