"""OpenAI's {messages: [{role, content}]}, with tool calls, tool results and tools."""

from __future__ import annotations

from nomoat.data.readers.fields import Fields, Format, talk
from nomoat.data.readers.turns import is_turns
from nomoat.data.rows import ChatRow


def _build(fields: Fields) -> ChatRow:
    return ChatRow(fields.where, talk(fields.with_system(fields.turns("messages")), fields))


MESSAGES = Format(
    name="messages",
    shape='{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
    fields={
        "messages": ("messages", "conversations", "conversation"),
        "system": ("system", "system_prompt"),
        "tools": ("tools", "functions"),
    },
    needs=(frozenset({"messages"}),),
    build=_build,
    fits=lambda fields: is_turns(fields.get("messages"), "role"),
)
