"""From the owner's files to token stores: read, check, drop duplicates, split, render, tokenise, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.mask import Rendered, TrainOn, TurnsRewrittenError, one_row_per_answer, render_batch
from nomoat.chat.template import ChatTemplate, adds_bos
from nomoat.data.readers import open_rows
from nomoat.data.report import DataReport, Piece, RowCounts, Tally, check_bad, check_kept, lengths_of, pieces
from nomoat.data.rows import BadRow, ChatRow, PreferenceRow, RatingRow, Row, TextRow, excerpt
from nomoat.data.split import ASKED, asked_keys, place
from nomoat.data.store import TokenStoreWriter
from nomoat.errors import DataError

_BATCH_ROWS, _BATCH_CHARS = 256, 1 << 22
_EXAMPLES = 3

Progress = Callable[[int, int], None]
"""Called now and then with bytes read and bytes in all."""


@dataclass(frozen=True)
class _Kept:
    """A row that goes on, the hash of its content, where it is in the split and why, and the keys of what it asks."""

    row: ChatRow | TextRow
    content_hash: str
    split_hash: str
    place: float
    asked: tuple[str, ...]


@dataclass(frozen=True)
class _Sequence:
    """A row of a token store; `stops` where its stop token is trained."""

    tokens: list[int]
    trained: list[bool]
    stops: bool = True


def prepare(
    files: Sequence[str | Path],
    *,
    tokenizer: Any,
    template: ChatTemplate,
    out: Path,
    max_seq_len: int,
    context: int | None = None,
    format: str = "auto",
    conversations: Sequence[str | Path] = (),
    held_out_share: float = 0.1,
    split_by: Literal["prompt", "content"] = "prompt",
    max_bad_rows: float = 0.02,
    max_truncated: float = 0.5,
    dedup: bool = True,
    train_on: TrainOn = "all",
    use_preferred: bool = False,
    keep_out: Collection[str] = (),
    leave_out: Collection[str] = (),
    progress: Progress | None = None,
) -> DataReport:
    """Write `train/` and `held_out/` (token stores), `held_out.jsonl` (the held-out conversations, for answers
    to them), `asked.bin` (keys of what the rows to train on ask) and `report.json` to `out`. The same files give
    the same bytes. `conversations` are files of messages, whatever `format` says of the others.

    Conversations longer than `max_seq_len` tokens are cut at their end; text is split into pieces instead,
    each beginning with the last token of the one before, so that every token is predicted once. Advice to
    raise it stops at `context`, the longest row that the base can read. Rows are held out by a hash: of their
    prompt, so that no prompt is on both sides, or of their whole `content`; and always where they ask one of
    `keep_out` (keys of `split.asked_keys`). Rows whose content's hash is in `leave_out` are left out.

    Memory does not grow with the files, but for duplicates: about 100 bytes a row (16 of hash, the rest
    Python's) to know them again, 1 GB for ten million rows; none with dedup=False.

    Raises DataError where a file cannot be used, or the rows as a whole cannot make a night."""
    assert split_by in ("prompt", "content"), split_by
    sources = [*((file, format) for file in files), *((file, "messages") for file in conversations)]
    out.mkdir(parents=True, exist_ok=True)
    tally, said = Tally(), list[str]()
    examples: list[list[Piece]] = []
    read = _read(sources, max_bad_rows, use_preferred, tally, said, progress)
    kept = _kept(read, dedup, split_by, frozenset(keep_out), frozenset(leave_out), tally)
    to_tokens = _Tokeniser(tokenizer, template, train_on, max_seq_len, tally)
    with (
        TokenStoreWriter(out / "train") as train,
        TokenStoreWriter(out / "held_out") as held_out,
        (out / "held_out.jsonl").open("w", encoding="utf-8", newline="\n") as talks,
        (out / ASKED).open("wb") as asked,
    ):
        for batch in _batches(kept):
            for item, sequences in zip(batch, to_tokens(batch), strict=True):
                if not sequences:
                    continue
                tally.add_place(item.place)
                is_held_out = item.place < held_out_share
                tally.counts["held_out" if is_held_out else "train"] += 1
                store = held_out if is_held_out else train
                for sequence in sequences:
                    store.append(sequence.tokens, sequence.trained, item.split_hash)
                if is_held_out:
                    _write_talk(talks, item)
                    continue
                asked.writelines(map(bytes.fromhex, item.asked))
                tally.stops_trained += any(sequence.stops for sequence in sequences)
                if len(examples) < _EXAMPLES:
                    examples.append(pieces(tokenizer, sequences[0].tokens, sequences[0].trained))
    check_bad(tally, max_bad_rows)
    check_kept(
        tally,
        share=held_out_share,
        max_seq_len=max_seq_len,
        max_truncated=max_truncated,
        context=context,
    )
    report = _report(said, template, max_seq_len, tally, train, held_out, examples)
    text = json.dumps(report.to_dict(), ensure_ascii=False, indent=1)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    return report


def _read(
    sources: Sequence[tuple[str | Path, str]],
    max_bad_rows: float,
    use_preferred: bool,
    tally: Tally,
    said: list[str],
    progress: Progress | None,
) -> Iterator[ChatRow | TextRow]:
    """The rows to train on, of all files in order; the others are counted."""
    sizes = [Path(file).stat().st_size if Path(file).is_file() else 0 for file, _ in sources]
    for i, (file, format) in enumerate(sources):
        on_bytes = None if progress is None else partial(onwards, progress, sum(sizes[:i]), sum(sizes))
        detected, rows = open_rows(file, format=format, on_bytes=on_bytes)
        said.append(detected.said)
        if detected.format in ("preference", "rating") and not use_preferred:
            raise _judged(str(file), detected.format)
        for row in rows:
            tally.counts["read"] += 1
            if isinstance(row, BadRow):
                tally.add_bad(row)
                check_bad(tally, max_bad_rows, so_far=True)
            elif (isinstance(row, RatingRow) and not row.label) or (
                isinstance(row, PreferenceRow) and row.tie
            ):
                tally.counts["not_preferred"] += 1
            else:
                yield answered(row)


def onwards(progress: Progress, done_before: int, total: int, done: int) -> None:
    progress(done_before + done, total)


def _judged(file: str, format: str) -> DataError:
    what = "the chosen answers" if format == "preference" else "the answers that were rated good"
    return DataError(
        f"{file}: holds {format} rows, and the stage `sft` learns from answers alone.",
        hint=f"To train on {what} as they stand: data.use_preferred: true. To learn from the judgements "
        "themselves: name the file in prefer.train, and take it out here or set sft: null.",
    )


def answered(row: Row) -> ChatRow | TextRow:
    """A judged row as a conversation that is trained on its good answer only."""
    if isinstance(row, ChatRow | TextRow):
        return row
    answer = row.chosen if isinstance(row, PreferenceRow) else row.completion
    asked = tuple(_untrained(message) for message in row.prompt.messages)
    return ChatRow(row.where, Conversation((*asked, *answer), row.prompt.tools))


def _untrained(message: Message) -> Message:
    return replace(message, loss=False) if message.role == "assistant" else message


def _kept(
    rows: Iterable[ChatRow | TextRow],
    dedup: bool,
    split_by: str,
    keep_out: frozenset[str],
    leave_out: frozenset[str],
    tally: Tally,
) -> Iterator[_Kept]:
    """The first of all rows that are the same, with where they belong in the split; without those to leave out."""
    seen: set[bytes] = set()
    for row in rows:
        content_hash = row.content_hash()
        if content_hash in leave_out:
            tally.counts["contaminated"] += 1
            continue
        if dedup:
            digest = bytes.fromhex(content_hash[:32])
            if digest in seen:
                tally.counts["duplicate"] += 1
                continue
            seen.add(digest)
        split_hash = content_hash
        if isinstance(row, ChatRow) and split_by == "prompt":
            split_hash = row.prompt_hash()
        asked = tuple(asked_keys(row.conversation)) if isinstance(row, ChatRow) else ()
        where = place(split_hash) if keep_out.isdisjoint(asked) else 0.0
        yield _Kept(row, content_hash, split_hash, where, asked)


def _batches(rows: Iterable[_Kept]) -> Iterator[list[_Kept]]:
    batch: list[_Kept] = []
    chars = 0
    for item in rows:
        batch.append(item)
        row = item.row
        texts = [row.text] if isinstance(row, TextRow) else [m.content for m in row.conversation.messages]
        chars += sum(map(len, texts))
        if len(batch) == _BATCH_ROWS or chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class _Tokeniser:
    """Rows to the sequences that are stored of them: none where nothing is left to train."""

    tokenizer: Any
    template: ChatTemplate
    train_on: TrainOn
    max_seq_len: int
    tally: Tally

    def __call__(self, batch: list[_Kept]) -> list[list[_Sequence]]:
        rows = [item.row for item in batch]
        chats = iter(self._chats([row for row in rows if isinstance(row, ChatRow)]))
        texts = iter(self._texts([row for row in rows if isinstance(row, TextRow)]))
        return [next(chats) if isinstance(row, ChatRow) else next(texts) for row in rows]

    def _chats(self, rows: list[ChatRow]) -> list[list[_Sequence]]:
        talks = [row.conversation for row in rows]
        results = render_batch(self.template, talks, train_on=self.train_on)
        return [self._chat(row, result) for row, result in zip(rows, results, strict=True)]

    def _chat(self, row: ChatRow, result: Rendered | DataError) -> list[_Sequence]:
        results: list[Rendered | DataError] = [result]
        if isinstance(result, TurnsRewrittenError):
            results = render_batch(
                self.template, one_row_per_answer(row.conversation, train_on=self.train_on)
            )
            self.tally.counts["divided"] += 1
        rendered = [result for result in results if isinstance(result, Rendered)]
        error = next((result for result in results if isinstance(result, DataError)), None)
        if error is not None:
            bad = BadRow(row.where, error.message, excerpt(row.conversation.to_dict()))
            self.tally.add_bad(bad, error.hint)
            return []
        supervised = [each for each in rendered if any(each.trained)]
        if not supervised:
            self.tally.counts["without_answer"] += 1
            return []
        self.tally.chats += 1
        cut = [self._cut(each) for each in supervised]
        if any(len(each.tokens) > self.max_seq_len for each in supervised):
            self.tally.counts["truncated"] += 1
        sequences = [sequence for sequence in cut if any(sequence.trained)]
        if not sequences:
            self.tally.counts["cut_to_nothing"] += 1
        return sequences

    def _cut(self, rendered: Rendered) -> _Sequence:
        self.tally.lengths[len(rendered.tokens)] += 1
        tokens, trained = rendered.tokens[: self.max_seq_len], rendered.trained[: self.max_seq_len]
        stops = set(self.template.stop_token_ids)
        return _Sequence(
            tokens, trained, any(t in stops for t, on in zip(tokens, trained, strict=True) if on)
        )

    def _texts(self, rows: list[TextRow]) -> list[list[_Sequence]]:
        if not rows:
            return []
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise DataError("The tokenizer has no eos token, so a document could not end.")
        start = [self.tokenizer.bos_token_id] if adds_bos(self.tokenizer) else []
        encoded = self.template.encode_texts([row.text for row in rows])
        return [
            self._split([*start, *ids, *([eos] if row.ends else [])])
            for row, ids in zip(rows, encoded, strict=True)
        ]

    def _split(self, tokens: list[int]) -> list[_Sequence]:
        self.tally.lengths[len(tokens)] += 1
        starts = range(0, len(tokens) - 1, self.max_seq_len - 1)
        parts = [tokens[start : start + self.max_seq_len] for start in starts]
        return [_Sequence(part, [False, *[True] * (len(part) - 1)]) for part in parts]


def _write_talk(file: TextIO, item: _Kept) -> None:
    if isinstance(item.row, ChatRow):
        row = {**item.row.conversation.to_dict(), "where": str(item.row.where), "hash": item.content_hash}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _report(
    said: list[str],
    template: ChatTemplate,
    max_seq_len: int,
    tally: Tally,
    train: TokenStoreWriter,
    held_out: TokenStoreWriter,
    examples: list[list[Piece]],
) -> DataReport:
    rows = tally.rows()
    stops = list(template.stop_texts) if tally.chats else []
    return DataReport(
        files=said,
        template={"origin": template.origin, "sha256": template.fingerprint, "stop_tokens": stops},
        max_seq_len=max_seq_len,
        rows=rows,
        sequences={"train": train.rows, "held_out": held_out.rows},
        tokens={
            "train": train.tokens,
            "held_out": held_out.tokens,
            "train_supervised": train.supervised_tokens,
            "held_out_supervised": held_out.supervised_tokens,
        },
        lengths=lengths_of(tally.lengths),
        bad=[{"where": str(row.where), "reason": row.reason, "excerpt": row.excerpt} for row in tally.bad],
        examples=examples,
        said=_sentence(rows, train),
    )


def _sentence(rows: RowCounts, train: TokenStoreWriter) -> str:
    left_out = {
        "bad": rows.bad,
        "duplicate": rows.duplicate,
        "contaminated": rows.contaminated,
        "not preferred": rows.not_preferred,
        "without an answer": rows.without_answer,
        "too long": rows.cut_to_nothing,
    }
    parts = [f"{rows.train:,} rows to train on", f"{rows.held_out:,} held out"]
    parts += [f"{count:,} {what}" for what, count in left_out.items() if count]
    trained = f"{train.tokens:,} tokens, {train.supervised_tokens:,} of them trained"
    return f"{', '.join(parts)}; {trained}" + (f"; {rows.truncated:,} rows cut" if rows.truncated else "")
