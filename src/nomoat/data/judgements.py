"""From files of judged answers to groups of tokens: read, check, drop duplicates, split, render, report."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.mask import Rendered, render_batch
from nomoat.chat.template import ChatTemplate
from nomoat.data.judged import Group, JudgedWriter
from nomoat.data.prepare import Progress, answered, onwards
from nomoat.data.readers import open_rows
from nomoat.data.report import DataReport, Piece, Tally, check_bad, check_kept, lengths_of, pieces
from nomoat.data.rows import BadRow, ChatRow, PreferenceRow, RatingRow, excerpt
from nomoat.data.split import ASKED, asked_keys, place
from nomoat.data.store import TokenStoreWriter
from nomoat.errors import DataError

Wanted = Literal["pairs", "comparisons", "any"]
_BATCH_ROWS = 128
_EXAMPLES = 3
_ANSWERS = {"preference": 2, "rating": 1}


@dataclass(frozen=True)
class _Judged:
    """A row that goes on, with its answers (the preferred one first), where it is in the split and why, and the keys
    of what it asks."""

    row: PreferenceRow | RatingRow
    talks: tuple[Conversation, ...]
    good: tuple[bool, ...]
    content_hash: str
    split_hash: str
    place: float
    asked: tuple[str, ...]


def prepare_judgements(
    files: Sequence[str | Path],
    *,
    tokenizer: Any,
    template: ChatTemplate,
    out: Path,
    wanted: Wanted,
    max_seq_len: int,
    context: int | None = None,
    held_out_share: float = 0.1,
    split_by: Literal["prompt", "content"] = "prompt",
    max_bad_rows: float = 0.02,
    max_truncated: float = 0.5,
    dedup: bool = True,
    keep_out: Collection[str] = (),
    leave_out: Collection[str] = (),
    section: str = "prefer",
    progress: Progress | None = None,
) -> DataReport:
    """Write `judged/train` and `judged/held_out` (judged answers), and of the held-out rows what evaluation reads:
    `held_out/` (a token store of their good answers) and `held_out.jsonl`; `asked.bin` (keys of what the rows to train
    on ask) and `report.json` besides.

    `wanted` "pairs" takes preference rows only, "comparisons" ties among them too, "any" rated ones but no ties; not
    both kinds in one night. `section` is the recipe's that names the files. A row is held
    out by the same hash as in `prepare`, so that a prompt is on the same side of both, and always where it asks one of
    `keep_out` (keys of `split.asked_keys`); rows whose content's hash is in `leave_out` are left out. Prompt and
    answer together are cut to `max_seq_len` tokens. Rows whose answers are empty or the same are bad rows; so are those
    whose template does not show both answers behind the same prompt.

    Raises DataError where a file cannot be used, or the rows as a whole cannot make a night."""
    out.mkdir(parents=True, exist_ok=True)
    tally, said = Tally(), list[str]()
    examples: list[list[Piece]] = []
    answers = _answers_of(files, wanted, section)
    train, held_out = (JudgedWriter(out / "judged" / side, answers) for side in ("train", "held_out"))
    with (
        TokenStoreWriter(out / "held_out") as good_rows,
        (out / "held_out.jsonl").open("w", encoding="utf-8", newline="\n") as talks,
        (out / ASKED).open("wb") as asked,
    ):
        ties = wanted == "comparisons"
        rows = _read(
            files,
            split_by,
            dedup,
            ties,
            frozenset(keep_out),
            frozenset(leave_out),
            max_bad_rows,
            tally,
            said,
            progress,
        )
        while batch := list(islice(rows, _BATCH_ROWS)):
            for item, group in zip(batch, _groups(batch, template, max_seq_len, tally), strict=True):
                if group is None:
                    continue
                tally.add_place(item.place)
                is_held_out = item.place < held_out_share
                tally.counts["held_out" if is_held_out else "train"] += 1
                (held_out if is_held_out else train).append(group, item.split_hash)
                stops = set(template.stop_token_ids)
                if is_held_out:
                    _keep_good(good_rows, group, item)
                    talks.write(_talk(item))
                    continue
                asked.writelines(map(bytes.fromhex, item.asked))
                tally.stops_trained += any(stops & set(tokens[on].tolist()) for tokens, on in group.answers)
                if len(examples) < _EXAMPLES:
                    examples += [_shown(tokenizer, group, answer) for answer in range(answers)]
    train.close()
    held_out.close()
    check_bad(tally, max_bad_rows)
    check_kept(
        tally,
        share=held_out_share,
        max_seq_len=max_seq_len,
        max_truncated=max_truncated,
        context=context,
        section=section,
    )
    report = _report(said, template, max_seq_len, tally, train, held_out, examples, answers)
    (out / "report.json").write_text(
        json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n", "utf-8"
    )
    return report


def _answers_of(files: Sequence[str | Path], wanted: Wanted, section: str) -> int:
    """How many answers a group has: all files must be of one kind, and of the kind that is learned from."""
    kinds: dict[str, str] = {}
    for file in files:
        format = open_rows(file)[0].format
        if format not in _ANSWERS:
            raise DataError(
                f"{section}.train: {file} holds {format} rows; expected judged answers: "
                '{"prompt": "...", "chosen": "...", "rejected": "..."} or '
                '{"prompt": "...", "completion": "...", "label": true}.',
                hint="Answers that nobody has judged belong under data.train. "
                "To learn from votes alone: prefer.votes: only.",
            )
        kinds.setdefault(format, str(file))
    if len(kinds) > 1:
        raise DataError(
            f"{section}.train: {kinds['preference']} holds pairs and {kinds['rating']} rated answers; expected "
            "one kind.",
            hint="Run two nights, or write the pairs as rated answers, two rows each.",
        )
    (format,) = kinds
    if format == "rating" and wanted == "pairs":
        raise DataError(
            f"prefer.train: {kinds[format]} holds rated answers, and prefer.loss_type learns from pairs.",
            hint="To learn from ratings: prefer.loss_type: kto",
        )
    if format == "rating" and wanted == "comparisons":
        raise DataError(
            f"{section}.train: {kinds[format]} holds rated answers; expected pairs of answers to one prompt.",
            hint='Expected rows such as {"prompt": "...", "chosen": "...", "rejected": "..."}.',
        )
    return _ANSWERS[format]


def _read(
    files: Sequence[str | Path],
    split_by: str,
    dedup: bool,
    ties: bool,
    keep_out: frozenset[str],
    leave_out: frozenset[str],
    max_bad_rows: float,
    tally: Tally,
    said: list[str],
    progress: Progress | None,
) -> Iterator[_Judged]:
    """The judged rows of all files in order, the first of those that are the same; others are counted."""
    sizes = [Path(file).stat().st_size if Path(file).is_file() else 0 for file in files]
    seen: set[bytes] = set()
    for i, file in enumerate(files):
        on_bytes = None if progress is None else partial(onwards, progress, sum(sizes[:i]), sum(sizes))
        detected, rows = open_rows(file, on_bytes=on_bytes)
        said.append(detected.said)
        for row in rows:
            tally.counts["read"] += 1
            if isinstance(row, BadRow):
                tally.add_bad(row)
                check_bad(tally, max_bad_rows, so_far=True)
                continue
            assert isinstance(row, PreferenceRow | RatingRow), row
            if isinstance(row, PreferenceRow) and row.tie and not ties:
                tally.counts["not_preferred"] += 1
                continue
            judged = _judged(row, split_by, keep_out)
            if judged.content_hash in leave_out:
                tally.counts["contaminated"] += 1
                continue
            digest = bytes.fromhex(judged.content_hash[:32])
            if dedup and digest in seen:
                tally.counts["duplicate"] += 1
                continue
            seen.add(digest)
            yield judged


def _judged(row: PreferenceRow | RatingRow, split_by: str, keep_out: frozenset[str]) -> _Judged:
    as_answer = answered(row)
    assert isinstance(as_answer, ChatRow)
    sides: tuple[tuple[Message, ...], ...]
    good: tuple[bool, ...]
    if isinstance(row, PreferenceRow):
        sides, good = (row.chosen, row.rejected), (True, row.tie)
    else:
        sides, good = (row.completion,), (row.label,)
    asked = as_answer.conversation.messages[: len(row.prompt.messages)]
    content_hash = row.content_hash()
    split_hash = as_answer.prompt_hash() if split_by == "prompt" else content_hash
    talks = tuple(Conversation((*asked, *side), row.prompt.tools) for side in sides)
    keys = tuple(asked_keys(as_answer.conversation))
    where = place(split_hash) if keep_out.isdisjoint(keys) else 0.0
    return _Judged(row, talks, good, content_hash, split_hash, where, keys)


def _groups(
    batch: Sequence[_Judged], template: ChatTemplate, max_seq_len: int, tally: Tally
) -> Iterator[Group | None]:
    """The batch as tokens; None for a row that is left out, which is counted."""
    rendered = iter(render_batch(template, [talk for item in batch for talk in item.talks]))
    for item in batch:
        found = [next(rendered) for _ in item.talks]
        try:
            group = _group(item, found)
        except DataError as error:
            tally.add_bad(BadRow(item.row.where, error.message, _quoted(item)), error.hint)
            yield None
            continue
        longest = len(group.prompt) + max(len(tokens) for tokens, _ in group.answers)
        tally.chats += 1
        tally.lengths[longest] += 1
        tally.counts["truncated"] += longest > max_seq_len
        cut = _cut(group, max_seq_len)
        tally.counts["cut_to_nothing"] += cut is None
        yield cut


def _group(item: _Judged, found: Sequence[Rendered | DataError]) -> Group:
    """Prompt and answers of one row. DataError where they cannot be told apart exactly."""
    tokens, trained = [], []
    for each in found:
        if isinstance(each, DataError):
            raise each
        tokens.append(np.array(each.tokens, dtype=np.uint32))
        trained.append(np.array(each.trained, dtype=np.bool_))
        if not any(each.trained):
            raise DataError("an answer has no token to train on.")
    start = int(trained[0].argmax())
    if any(
        int(on.argmax()) != start or (row[:start] != tokens[0][:start]).any()
        for row, on in zip(tokens, trained, strict=True)
    ):
        raise DataError(
            "the chat template renders the prompt differently before the two answers.",
            hint="Give another template: data.chat_template: my_template.jinja",
        )
    # what a template writes behind the last stop token (a line break) nobody learns from
    ends = [int(np.flatnonzero(on)[-1]) + 1 for on in trained]
    answers = tuple(
        (row[start:end], on[start:end]) for row, on, end in zip(tokens, trained, ends, strict=True)
    )
    if len(answers) == 2 and np.array_equal(answers[0][0], answers[1][0]):
        raise DataError("rejected: is the same as the chosen answer, once both are rendered.")
    margin = item.row.margin if isinstance(item.row, PreferenceRow) else 0.0
    return Group(tokens[0][:start], answers, item.good, margin)


def _cut(group: Group, max_seq_len: int) -> Group | None:
    """Prompt and answer within `max_seq_len`; None where nothing is left that tells the answers apart."""
    room = max_seq_len - len(group.prompt)
    if room < 1:
        return None
    answers = tuple((tokens[:room], on[:room]) for tokens, on in group.answers)
    same = len(answers) == 2 and np.array_equal(answers[0][0], answers[1][0])
    return None if same else replace(group, answers=answers)


def _keep_good(store: TokenStoreWriter, group: Group, item: _Judged) -> None:
    """What a held-out row says a model should answer, if it does."""
    for (tokens, trained), good in zip(group.answers, group.good, strict=True):
        if good:
            whole = np.concatenate((group.prompt, tokens))
            mask = np.concatenate((np.zeros(len(group.prompt), dtype=np.bool_), trained))
            store.append(whole, mask, item.split_hash)


def _talk(item: _Judged) -> str:
    talk = {**item.talks[0].to_dict(), "where": str(item.row.where), "hash": item.content_hash}
    return json.dumps(talk, ensure_ascii=False) + "\n"


def _quoted(item: _Judged) -> str:
    return excerpt(item.talks[0].to_dict())


def _shown(tokenizer: Any, group: Group, answer: int) -> list[Piece]:
    tokens, trained = group.answers[answer]
    mask = [False] * len(group.prompt) + trained.tolist()
    return pieces(tokenizer, [*group.prompt.tolist(), *tokens.tolist()], mask)


def _report(
    said: list[str],
    template: ChatTemplate,
    max_seq_len: int,
    tally: Tally,
    train: JudgedWriter,
    held_out: JudgedWriter,
    examples: list[list[Piece]],
    answers: int,
) -> DataReport:
    rows = tally.rows()
    kind = "pairs" if answers == 2 else "rated answers"
    left_out = {
        "bad": rows.bad,
        "duplicate": rows.duplicate,
        "ties": rows.not_preferred,
        "contaminated": rows.contaminated,
        "too long": rows.cut_to_nothing,
    }
    parts = [f"{rows.train:,} {kind} to learn from", f"{rows.held_out:,} held out"]
    parts += [f"{count:,} {what}" for what, count in left_out.items() if count]
    return DataReport(
        files=said,
        template={
            "origin": template.origin,
            "sha256": template.fingerprint,
            "stop_tokens": list(template.stop_texts),
        },
        max_seq_len=max_seq_len,
        rows=rows,
        sequences={"train": rows.train * answers, "held_out": rows.held_out * answers},
        tokens={
            "train": train.tokens,
            "held_out": held_out.tokens,
            "train_supervised": train.supervised_tokens,
            "held_out_supervised": held_out.supervised_tokens,
        },
        lengths=lengths_of(tally.lengths),
        bad=[{"where": str(row.where), "reason": row.reason, "excerpt": row.excerpt} for row in tally.bad],
        examples=examples,
        said=f"{', '.join(parts)}; {train.tokens:,} tokens, every prompt once"
        + (f"; {rows.truncated:,} rows cut" if rows.truncated else ""),
    )
