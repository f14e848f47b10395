"""What a night has trained on, read back from its tokens: the owner's files may have changed since."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import ChatTemplate
from nomoat.data.rows import ChatRow, Where
from nomoat.data.store import TokenStore

_MARK = "question"


def trained_rows(folder: Path, tokenizer: Any, template: ChatTemplate) -> Iterator[ChatRow]:
    """The rows to train on in a folder that `prepare` or `prepare_judgements` has written: what is not trained as the
    user's turns and the rest as the assistant's, without special tokens and what the template writes around a question.
    Of judged answers every one is a row. Raises ArtifactError where a store is damaged."""
    before, after = _around(tokenizer, template)
    for store in (folder / "train", folder / "judged" / "train" / "rows"):
        if not store.is_dir():
            continue
        rows = TokenStore.open(store)
        for index in range(len(rows)):
            messages = [
                message
                if is_trained
                else Message("user", message.content.removeprefix(before).removesuffix(after))
                for is_trained, message in _turns(tokenizer, *rows[index])
            ]
            yield ChatRow(Where(folder.name, index + 1), Conversation(tuple(messages)))


def _turns(tokenizer: Any, tokens: Any, trained: Any) -> Iterator[tuple[bool, Message]]:
    """Runs of tokens that are trained or are not. The first token never is, even where all is text."""
    is_trained = np.array(trained)
    is_trained[:1] = is_trained[1:2]
    edges = [0, *(np.flatnonzero(np.diff(is_trained)) + 1).tolist(), len(tokens)]
    for start, end in pairwise(edges):
        text = tokenizer.decode(tokens[start:end].tolist(), skip_special_tokens=True).strip()
        if text:  # behind the last answer there may be a line break
            yield bool(is_trained[start]), Message("assistant" if is_trained[start] else "user", text)


def _around(tokenizer: Any, template: ChatTemplate) -> tuple[str, str]:
    asked = template.encode(Conversation((Message("user", _MARK),)), add_generation_prompt=True)
    before, _, after = tokenizer.decode(asked, skip_special_tokens=True).strip().rpartition(_MARK)
    return before, after
