"""{prompt, chosen, rejected}: two answers, of which the first was preferred; by how much, `margin` may say, a number
in logits, and `tie: true` says that neither was.

The prompt may be text, turns, or implicit: the turns with which both answers begin. Anthropic's HH-RLHF
writes whole transcripts as text, with '\\n\\nHuman:' and '\\n\\nAssistant:' before every turn."""

from __future__ import annotations

import math
import re

from nomoat.chat.conversation import Message, check_text, shown
from nomoat.data.readers.fields import PROMPT_FIELDS, Fields, Format, talk, truth
from nomoat.data.readers.sharegpt import TURN_COLUMNS
from nomoat.data.readers.turns import is_turns
from nomoat.data.rows import PreferenceRow
from nomoat.errors import DataError

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def _build(fields: Fields) -> PreferenceRow:
    chosen, rejected = _side(fields, "chosen"), _side(fields, "rejected")
    if chosen[0].role == "assistant" and rejected[0].role == "assistant":
        prompt = fields.prompt()
    else:
        shared = _shared(chosen, rejected)
        prompt = fields.with_system(chosen[:shared]) if shared else ()
        chosen, rejected = chosen[shared:], rejected[shared:]
    for field, side in (("chosen", chosen), ("rejected", rejected)):
        if not prompt or not side or side[0].role != "assistant":
            raise DataError(
                f"{fields.at(field)}: expected an answer of the assistant, after a prompt that chosen and "
                "rejected have in common."
            )
    if chosen == rejected:
        raise DataError(f"{fields.at('rejected')}: is the same as the chosen answer.")
    margin, tie = _margin(fields), _tie(fields)
    if margin and tie:
        raise DataError(f"{fields.at('margin')}: got {margin:g} in a tie, which nobody wins by anything.")
    return PreferenceRow(fields.where, talk(prompt, fields), chosen, rejected, margin, tie)


def _margin(fields: Fields) -> float:
    value = fields.get("margin")
    if value is None or value == "":
        return 0.0
    try:
        margin = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        margin = math.nan
    if not 0 <= margin < math.inf:
        raise DataError(f"{fields.at('margin')}: got {shown(value)}; expected a number, 0 or more.")
    return margin


def _tie(fields: Fields) -> bool:
    value = fields.get("tie")
    tie = False if value is None or value == "" else truth(value)
    if tie is None:
        raise DataError(f"{fields.at('tie')}: got {shown(value)}; expected true or false.")
    return tie


def _side(fields: Fields, field: str) -> tuple[Message, ...]:
    value = fields.get(field)
    if _is_transcript(value):
        return _transcript(check_text(value, fields.at(field)), fields.at(field))
    return fields.answer(field)


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and _SPEAKER.match(value) is not None


def _transcript(text: str, where: str) -> tuple[Message, ...]:
    _, *parts = _SPEAKER.split(text)
    messages = []
    for i in range(0, len(parts), 2):
        role, said = "user" if parts[i] == "Human" else "assistant", parts[i + 1].strip()
        if not said:
            raise DataError(f"{where}: turn {i // 2 + 1} ({parts[i]}) is empty; expected text.")
        messages.append(Message(role, said))
    return tuple(messages)


def _shared(chosen: tuple[Message, ...], rejected: tuple[Message, ...]) -> int:
    """How many turns both begin with, but for the last turn of either, which is its answer."""
    most = min(len(chosen), len(rejected)) - 1
    return next((i for i in range(most) if chosen[i] != rejected[i]), most)


def _fits(fields: Fields) -> bool:
    chosen = fields.get("chosen")
    has_prompt = fields.get("prompt") is not None or fields.get("conversations") is not None
    return has_prompt or is_turns(chosen, "role", "from") or _is_transcript(chosen)


PREFERENCE = Format(
    name="preference",
    shape='{"prompt": "...", "chosen": "...", "rejected": "..."}',
    fields=PROMPT_FIELDS
    | {
        "conversations": TURN_COLUMNS,
        "chosen": ("chosen",),
        "rejected": ("rejected",),
        "margin": ("margin",),
        "tie": ("tie",),
    },
    needs=(frozenset({"chosen", "rejected"}),),
    build=_build,
    fits=_fits,
)
