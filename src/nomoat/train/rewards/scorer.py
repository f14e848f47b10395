"""A reward model as a source of rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from nomoat.chat.conversation import Conversation, Message, parse_messages
from nomoat.chat.mask import Rendered, render_batch
from nomoat.chat.template import ChatTemplate
from nomoat.data.functions import Asked, Failed, Question, finite
from nomoat.data.pack import fill, pack
from nomoat.errors import DataError
from nomoat.model.load import Machine, load_tokenizer, read_shape
from nomoat.model.memory import in_batches_that_fit
from nomoat.model.scorer import load_scorer, scores
from nomoat.train.loop import autocast

BATCH_TOKENS = 2048


@final
class Scorer:
    """Scores of the reward model in `folder`, in logits: the conversation and its answer as the folder's own chat
    template renders them, which need not be the trained model's."""

    def __init__(self, folder: Path, machine: Machine, *, name: str) -> None:
        """ModelError where the folder holds no decoder with a scalar head."""
        self.name = name
        self._model, self._machine = load_scorer(folder, machine), machine
        self._template = ChatTemplate.of(load_tokenizer(folder))
        self._most = read_shape(folder).context

    def score(self, asked: Asked) -> list[float | Failed]:
        """A score for every answer that can be rendered and fits the reward model."""
        rendered = render_batch(self._template, [_talk(*pair) for pair in asked], train_on="last")
        failed = [self._failed(each) for each in rendered]
        rows = [each for each, why in zip(rendered, failed, strict=True) if why is None]
        found = iter(self._scores(rows) if rows else [])
        return [finite(next(found)) if why is None else why for why in failed]

    def close(self) -> None: ...

    def _failed(self, rendered: Rendered | DataError) -> Failed | None:
        if isinstance(rendered, DataError):
            return Failed("not rendered", rendered.message)
        if (length := len(rendered.tokens)) > self._most:
            return Failed("too long", f"{length} tokens; the reward model reads {self._most}")
        return None

    @torch.no_grad()
    def _scores(self, rendered: list[Any]) -> list[float]:
        rows = [_row(each) for each in rendered]
        lengths = np.array([len(tokens) for tokens, _ in rows])

        def read(batch_tokens: int) -> list[float]:
            found: list[float] = []
            for batch in fill(range(len(rows)), lengths, batch_tokens):
                packed = pack([rows[i] for i in batch], self._machine.device)
                with autocast(self._machine.device, self._machine.bf16):
                    found += scores(self._model, packed).tolist()
            return found

        return in_batches_that_fit(read, BATCH_TOKENS, int(lengths.max()))


def _talk(question: Question, text: str) -> Conversation:
    asked = parse_messages(list(question.messages), question.id)
    return Conversation((*asked, Message("assistant", text)))


def _row(rendered: Rendered) -> tuple[Any, Any]:
    """Up to the last token of the answer, as the reward model was trained: what a template writes behind it is left
    out."""
    end = int(np.flatnonzero(rendered.trained)[-1]) + 1
    return np.array(rendered.tokens[:end], dtype=np.uint32), np.array(rendered.trained[:end])
