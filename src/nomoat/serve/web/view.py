"""What a conversation looks like on the page: pure functions from what is kept to what is shown."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.serve.models import Catalogue
from nomoat.serve.web.chats import Answer, Chat, Turn

CHAMPION = "champion"
# A browser is slow at a megabyte of markdown; the rest is kept, and exported.
MOST_SHOWN = 40_000
_NOTHING = "*(no answer)*"
_THUMBS = {"up": "Like", "down": "Dislike"}


def talk(chat: Chat, *, base: bool = False) -> list[dict[str, str]]:
    """The messages of a column: the conversation, or with `base` the base's answers to the same."""
    found = []
    for turn in chat.turns:
        found.append({"role": "user", "content": cut(turn.user)})
        answer = turn.base if base else turn.answer
        if answer is not None:
            found.append({"role": "assistant", "content": cut(answer.text) or _NOTHING})
        elif turn is not chat.turns[-1]:  # each turn has two messages, for the page counts them
            found.append({"role": "assistant", "content": _NOTHING})
    return found


def thumbs(chat: Chat) -> list[str | None]:
    """What the reader said of each answer that `talk` shows, by Gradio's names."""
    answered = (turn for turn in chat.turns if turn.answer is not None or turn is not chat.turns[-1])
    return [_THUMBS[turn.answer.thumb] if turn.answer and turn.answer.thumb else None for turn in answered]


def cut(text: str) -> str:
    if len(text) <= MOST_SHOWN:
        return text
    return f"{text[:MOST_SHOWN]}\n\n… *({len(text) - MOST_SHOWN:,} more characters: Export has them)*"


def pace(chat: Chat) -> str:
    """Who wrote the last answers, and how fast."""
    if not chat.turns:
        return ""
    last: Turn = chat.turns[-1]
    return " · beside it ".join(_pace(answer) for answer in (last.answer, last.base) if answer is not None)


def _pace(answer: Answer) -> str:
    if not answer.tokens:
        return f"{answer.model}, stopped"
    said = f"{answer.model}, {answer.tokens} tokens"
    if answer.tokens > 1 and answer.seconds > 0:
        said += f", {(answer.tokens - 1) / answer.seconds:.1f} tokens/s"
    return f"{said}, cut at its limit" if answer.ended == "length" else said


def model_choices(catalogue: Catalogue) -> list[tuple[str, str]]:
    """(label, name) of each model; the champion's label has a star and says which one it is."""
    champion = catalogue.resolve(CHAMPION)
    return [(_label(one.name, champion), one.name) for one in catalogue.names()]


def _label(name: str, champion: str | None) -> str:
    return f"★ {name} ({champion})" if name == CHAMPION and champion else name


def past_choices(chats: Sequence[Chat]) -> list[tuple[str, str]]:
    """(title, id) of each conversation."""
    return [(chat.title, chat.id) for chat in chats]
