"""What engines that are given token ids do with text: render, tokenize, and find out how tools are called."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

from nomoat.chat.conversation import Conversation
from nomoat.chat.template import ChatTemplate, adds_bos
from nomoat.chat.tools import CallForm
from nomoat.engine.choose import special_ids
from nomoat.model.load import load_tokenizer


@final
class Prompts:
    """The chat template and tokenizer of a transformers folder, for many threads."""

    def __init__(self, tokenizer_dir: Path) -> None:
        self.template = ChatTemplate.of(load_tokenizer(tokenizer_dir))
        self._adds_bos = adds_bos(self.template.tokenizer)
        self._tokenizing = threading.Lock()  # a tokenizer that is in use may not be set up, as each call does

    def render(self, conversation: Conversation) -> str:
        """See `Engine.render`."""
        return self.template.render(conversation, add_generation_prompt=True)

    def tokenize(self, text: str, *, begins: bool = False) -> list[int]:
        """See `ServingEngine.tokenize`."""
        first = [self.template.tokenizer.bos_token_id] if begins and self._adds_bos else []
        return first + self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts."""
        with self._tokenizing:
            return self.template.encode_texts(texts)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """See `ServingEngine.detokenize`."""
        text: str = self.template.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    @functools.cached_property
    def call_form(self) -> CallForm | None:
        """See `ServingEngine.call_form`. None as well where special tokens announce a call, which servers do
        not show."""
        form = CallForm.of(
            lambda talk, answers: self.template.render(talk, add_generation_prompt=answers),
            self.template.stop_texts,
        )
        hidden = [t.content for t in self.template.tokenizer.added_tokens_decoder.values() if t.special]
        if form is not None and any(t in form.opening + form.between + form.closing for t in hidden):
            return None
        return form


class ByPrompts:
    """What serving engines that have `Prompts` do with text, which is what these do; see `ServingEngine`."""

    _prompts: Prompts

    @property
    def template(self) -> ChatTemplate:
        return self._prompts.template

    def render(self, conversation: Conversation) -> str:
        return self._prompts.render(conversation)

    def encode(self, conversation: Conversation) -> list[int]:
        return self.tokenize(self.render(conversation))

    def tokenize(self, text: str, *, begins: bool = False) -> list[int]:
        return self._prompts.tokenize(text, begins=begins)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._prompts.detokenize(tokens)

    @property
    def call_form(self) -> CallForm | None:
        return self._prompts.call_form


def token_bytes(tokenizer: Any) -> Callable[[int], bytes]:
    """What tells the bytes that a token of this transformers tokenizer stands for; none for special tokens."""
    special = special_ids(tokenizer)
    added = tokenizer.added_tokens_decoder
    is_byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)

    def bytes_of(token: int) -> bytes:
        if token in special:
            return b""
        if token in added:
            return str(added[token].content).encode()
        piece: str | None = tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # a row of the embedding that no token has
            return b""
        if is_byte_level:
            return bytes(_BYTE_OF[letter] for letter in piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("▁", " ").encode()

    return bytes_of


def _byte_of() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others for 256 and on, in order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of()
