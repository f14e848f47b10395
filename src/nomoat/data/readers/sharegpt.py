"""{conversations: [{from, value}]}, with function calls and their results, system and tools."""

from __future__ import annotations

from nomoat.data.readers.fields import Fields, Format, talk
from nomoat.data.readers.turns import is_turns
from nomoat.data.rows import ChatRow

TURN_COLUMNS = ("conversations", "conversation", "messages")


def _build(fields: Fields) -> ChatRow:
    return ChatRow(fields.where, talk(fields.with_system(fields.turns("conversations")), fields))


SHAREGPT = Format(
    name="sharegpt",
    shape='{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    fields={
        "conversations": TURN_COLUMNS,
        "system": ("system", "system_prompt"),
        "tools": ("tools", "functions"),
    },
    needs=(frozenset({"conversations"}),),
    build=_build,
    fits=lambda fields: is_turns(fields.get("conversations"), "from"),
)
