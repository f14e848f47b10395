"""{text}: one document a row."""

from __future__ import annotations

from nomoat.data.readers.fields import Fields, Format
from nomoat.data.rows import TextRow


def _build(fields: Fields) -> TextRow:
    return TextRow(fields.where, fields.text("text"))


TEXT = Format(
    name="text",
    shape='{"text": "..."}',
    fields={"text": ("text", "content")},
    needs=(frozenset({"text"}),),
    build=_build,
    fits=lambda fields: isinstance(fields.get("text"), str),
)
