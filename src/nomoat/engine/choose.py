"""From logits to the next token, and from tokens to text: what every engine that sees logits does alike."""
# V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from nomoat.engine.base import Sampling

_UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character


def choose(logits: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token for float32 logits [V]: the likeliest (the first of equals) at temperature 0, otherwise
    a draw in the order transformers has: temperature, top_k, top_p."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    weights = np.exp(scaled[order] - scaled[order[0]])
    cumulated = np.cumsum(weights / weights.sum())
    kept = int(np.searchsorted(cumulated, sampling.top_p)) + 1  # the one that reaches top_p is kept
    cumulated = cumulated[:kept]
    drawn = np.searchsorted(cumulated[:-1], rng.random() * cumulated[-1], side="right")
    return int(order[drawn])


@final
class Answer:
    """The text of a growing answer. It holds back what may still change: the bytes of an unfinished
    character, and the beginning of what may become a stop text.

    Args:
        tokenizer: a transformers tokenizer.
        last_prompt_token: decides whether the answer begins with a space.
        stop: texts that end the answer.
    """

    def __init__(self, tokenizer: Any, last_prompt_token: int, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        self._ids = [last_prompt_token]
        self._skip = len(self._decode())
        self._given = 0
        self._stop = stop
        self.stopped = False  # a stop text has come

    def add(self, token: int) -> str:
        """The text that has become certain with this token."""
        if token not in self._special:
            self._ids.append(token)
        text = self._text()
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._give(text[: min(found)])
        certain = text.rstrip(_UNFINISHED)
        return self._give(certain[: len(certain) - self._held_back(certain)])

    def finish(self) -> str:
        """What was held back, once nothing follows."""
        return "" if self.stopped else self._give(self._text())

    def _text(self) -> str:
        return self._decode()[self._skip :]

    def _give(self, text: str) -> str:
        piece = text[self._given :]
        self._given = max(self._given, len(text))
        return piece

    def _held_back(self, text: str) -> int:
        return max(
            (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
        )

    def _decode(self) -> str:
        decoded: str = self._tokenizer.decode(
            self._ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return decoded
