"""{prompt, completion}: text, or turns. The prompt becomes the user's turn, the completion the answer."""

from __future__ import annotations

from nomoat.data.readers.fields import PROMPT_FIELDS, Fields, Format, talk
from nomoat.data.rows import ChatRow


def _build(fields: Fields) -> ChatRow:
    return ChatRow(fields.where, talk((*fields.prompt(), *fields.answer("completion")), fields))


COMPLETION = Format(
    name="prompt-completion",
    shape='{"prompt": "...", "completion": "..."}',
    fields=PROMPT_FIELDS
    | {
        "prompt": ("prompt", "question", "query", "input"),
        "input": (),
        "completion": ("completion", "response", "answer", "output"),
    },
    needs=(frozenset({"prompt", "completion"}),),
    build=_build,
)
