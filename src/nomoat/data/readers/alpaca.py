"""{instruction, input, output}, with system and history where there are any."""

from __future__ import annotations

from nomoat.data.readers.fields import PROMPT_FIELDS, Fields, Format, talk
from nomoat.data.rows import ChatRow


def _build(fields: Fields) -> ChatRow:
    return ChatRow(fields.where, talk((*fields.prompt(), *fields.answer("output")), fields))


ALPACA = Format(
    name="alpaca",
    shape='{"instruction": "...", "input": "...", "output": "..."}',
    fields=PROMPT_FIELDS
    | {"prompt": ("instruction",), "output": ("output", "response", "answer", "completion")},
    needs=(frozenset({"prompt", "output"}),),
    build=_build,
)
