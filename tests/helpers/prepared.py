"""Rows, and what `prepare` makes of them with a tiny ChatML tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.chat_templates import CHATML
from helpers.tiny_tokenizers import tiny
from nomoat.chat.template import ChatTemplate
from nomoat.data.prepare import prepare
from nomoat.data.report import DataReport
from nomoat.data.store import TokenStore
from nomoat.errors import DataError


def chatml(template: str = CHATML) -> ChatTemplate:
    return ChatTemplate.of(tiny("<|im_start|>", "<|im_end|>", eos="<|im_end|>", template=template))


def pair(i: int, answer: str = "An answer") -> dict[str, str]:
    return {"prompt": f"Question {i}?", "completion": f"{answer} {i}."}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(
    tmp_path: Path, rows: list[Any] | Path, template: ChatTemplate | None = None, **keys: Any
) -> DataReport:
    path = rows if isinstance(rows, Path) else write(tmp_path / "rows.jsonl", rows)
    template = template or chatml()
    keys = {"max_seq_len": 200, "held_out_share": 0.2} | keys
    return prepare([path], tokenizer=template.tokenizer, template=template, out=tmp_path / "out", **keys)


def refused(
    tmp_path: Path, rows: list[Any] | Path, template: ChatTemplate | None = None, **keys: Any
) -> DataError:
    with pytest.raises(DataError) as error:
        run(tmp_path, rows, template, **keys)
    return error.value


def stored(out: Path, template: ChatTemplate) -> list[tuple[str, str]]:
    """(text, trained text) of every sequence of a store."""
    store, decode = TokenStore.open(out), template.tokenizer.decode
    return [
        (decode(tokens.tolist()), decode(tokens[trained].tolist()))
        for tokens, trained in map(store.__getitem__, range(len(store)))
    ]
