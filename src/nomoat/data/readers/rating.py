"""{prompt, completion, label}: an answer and whether it was found good (KTO). The answer may also be the last
turn of `messages`."""

from __future__ import annotations

from nomoat.chat.conversation import shown
from nomoat.data.readers.fields import PROMPT_FIELDS, Fields, Format, talk, truth
from nomoat.data.readers.sharegpt import TURN_COLUMNS
from nomoat.data.rows import RatingRow
from nomoat.errors import DataError


def _build(fields: Fields) -> RatingRow:
    label = truth(fields.get("label"))
    if label is None:
        raise DataError(f"{fields.at('label')}: got {shown(fields.get('label'))}; expected true or false.")
    prompt = fields.prompt()
    if fields.get("completion") is not None:
        return RatingRow(fields.where, talk(prompt, fields), fields.answer("completion"), label)
    if prompt[-1].role != "assistant" or len(prompt) < 2:
        raise DataError(f"{fields.at('conversations')}: expected the rated answer as the last turn.")
    return RatingRow(fields.where, talk(prompt[:-1], fields), prompt[-1:], label)


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
    fits=lambda fields: truth(fields.get("label")) is not None,
)
