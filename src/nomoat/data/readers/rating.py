"""{prompt, completion, label}: an answer and whether it was found good (KTO). The answer may also be the last
turn of `messages`."""

from __future__ import annotations

from nomoat.chat.conversation import shown
from nomoat.data.readers.fields import PROMPT_FIELDS, Fields, Format, talk
from nomoat.data.readers.sharegpt import TURN_COLUMNS
from nomoat.data.rows import RatingRow
from nomoat.errors import DataError

_TRUTH = {"true": True, "false": False, "1": True, "0": False}
"""CSV has only text. In other files a number is no label, because it may as well be a class."""


def _build(fields: Fields) -> RatingRow:
    label = _label(fields.get("label"))
    if label is None:
        raise DataError(f"{fields.at('label')}: got {shown(fields.get('label'))}; expected true or false.")
    prompt = fields.prompt()
    if fields.get("completion") is not None:
        return RatingRow(fields.where, talk(prompt, fields), fields.answer("completion"), label)
    if prompt[-1].role != "assistant" or len(prompt) < 2:
        raise DataError(f"{fields.at('conversations')}: expected the rated answer as the last turn.")
    return RatingRow(fields.where, talk(prompt[:-1], fields), prompt[-1:], label)


def _label(value: object) -> bool | None:
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    return value if isinstance(value, bool) else None


RATING = Format(
    name="rating",
    shape='{"prompt": "...", "completion": "...", "label": true}',
    fields=PROMPT_FIELDS
    | {
        "conversations": TURN_COLUMNS,
        "completion": ("completion", "response", "answer", "output"),
        "label": ("label", "kto_tag"),
    },
    needs=(frozenset({"label", "prompt", "completion"}), frozenset({"label", "conversations"})),
    build=_build,
    fits=lambda fields: _label(fields.get("label")) is not None,
)
