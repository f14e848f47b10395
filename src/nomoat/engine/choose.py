"""From logits to the next token, and from tokens to text: what every engine that sees logits does alike."""
# V vocabulary

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, final

import numpy as np

from nomoat.engine.base import Sampling

_UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character


def choose(logits: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> int:
    """The next token for float32 logits [V]: the likeliest (the first of equals) at temperature 0, otherwise
    a draw in the order transformers has: temperature, top_k, top_p."""
    if sampling.temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits.astype(np.float64) - logits.max()) / sampling.temperature)
    kept = np.arange(len(weights))
    if 0 < sampling.top_k < len(weights):
        kept = _largest(weights, sampling.top_k)
    if sampling.top_p < 1:
        kept = _nucleus(weights, kept, sampling.top_p)
    cumulated = np.cumsum(weights[kept])
    drawn = np.searchsorted(cumulated[:-1], rng.random() * cumulated[-1], side="right")
    return int(kept[drawn])


def _largest(weights: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest, largest first; of equals the lower index."""
    found = np.argpartition(-weights, count - 1)[:count]
    order: np.ndarray = found[np.lexsort((found, -weights[found]))]
    return order


def _nucleus(weights: np.ndarray, kept: np.ndarray, top_p: float) -> np.ndarray:
    """Those of `kept` that together first reach the share `top_p` of it, largest first."""
    wanted = top_p * weights[kept].sum()
    count = min(256, len(kept))  # sorting a whole vocabulary takes longer than a small model's forward pass
    while True:
        order = kept[_largest(weights[kept], count)]
        cumulated = np.cumsum(weights[order])
        if cumulated[-1] >= wanted or count == len(kept):
            return order[: int(np.searchsorted(cumulated, wanted)) + 1]
        count = min(8 * count, len(kept))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens of a transformers tokenizer that are no text: turn marks, end of text and the like."""
    return frozenset(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)


@final
class Answer:
    """The text of a growing answer. It holds back what may still change: the bytes of an unfinished
    character, and the beginning of what may become a stop text.

    Args:
        tokenizer: a transformers tokenizer.
        special: its tokens that are no text, from `special_ids`.
        last_prompt_token: decides whether the answer begins with a space.
        stop: texts that end the answer.
    """

    def __init__(
        self, tokenizer: Any, special: AbstractSet[int], last_prompt_token: int, stop: Sequence[str]
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._ids = [last_prompt_token]
        self._skip = len(self._decode())
        self._given = 0
        self._stop = stop
        self.stopped = False  # a stop text has come

    def add(self, token: int) -> None:
        if token not in self._special:
            self._ids.append(token)

    def take(self) -> str:
        """The text that has become certain since the last call."""
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
