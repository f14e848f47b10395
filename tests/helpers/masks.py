"""What is trained of a conversation, as text."""

from __future__ import annotations

from itertools import groupby

import pytest

from helpers.chat_templates import CHATML
from helpers.tiny_tokenizers import tiny
from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.mask import (
    Rendered,
    render_trained,
)
from nomoat.chat.template import ChatTemplate
from nomoat.errors import DataError

TWO_TURNS = Conversation(
    (
        Message("user", "Who are you?"),
        Message("assistant", "A fox."),
        Message("user", "And now?"),
        Message("assistant", "Still a fox."),
    )
)


def chatml(template: str = CHATML) -> ChatTemplate:
    return ChatTemplate.of(tiny("<|im_start|>", "<|im_end|>", eos="<|im_end|>", template=template))


def runs(template: ChatTemplate, rendered: Rendered) -> list[str]:
    """The text of every unbroken run of trained tokens."""
    pairs = groupby(zip(rendered.tokens, rendered.trained, strict=True), key=lambda pair: pair[1])
    return [template.tokenizer.decode([token for token, _ in run]) for on, run in pairs if on]


def refusal(template: ChatTemplate, conversation: Conversation) -> str:
    with pytest.raises(DataError) as error:
        render_trained(template, conversation)
    return error.value.message
