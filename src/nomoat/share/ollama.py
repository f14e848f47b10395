"""A chat template in Ollama's language. Ollama does not read jinja, so what the template does is found out by
rendering, written as a Go template, and compared with the original on conversations of every shape."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nomoat.chat.conversation import Conversation, Message
from nomoat.chat.template import ChatTemplate
from nomoat.errors import DataError

Turns = Sequence[tuple[str, str]]
_SYSTEM, _USER, _ANSWER = "system words", "user words", "answer words"
_OTHER = "export it for llama.cpp or LM Studio, which read the template from the file itself"


@dataclass(frozen=True)
class Wrapping:
    """A conversation as a head, each turn between its two texts, and an opening for the answer.

    Attributes:
        head: what stands before the turns where there is a system text.
        head_alone: the same where there is none; some templates put words of their own there.
        around: role -> the texts before and behind a turn; no 'system' where the template refuses one.
        opening: what the answer follows.
    """

    head: str
    head_alone: str
    around: dict[str, tuple[str, str]]
    opening: str

    def render(self, turns: Turns) -> str:
        """As the Go template does it."""
        has_system = any(role == "system" for role, _ in turns)
        body = "".join(self.around[role][0] + text + self.around[role][1] for role, text in turns)
        return (self.head if has_system else self.head_alone) + body + self.opening

    def go_template(self) -> str:
        """In Go's template language, on one line: all text is in quoted strings."""
        branches = [
            f"{{{{ {'if' if i == 0 else 'else if'} eq .Role {_quoted(role)} }}}}"
            f"{_text(before)}{{{{ .Content }}}}{_text(behind)}"
            for i, (role, (before, behind)) in enumerate(self.around.items())
        ]
        head = f"{{{{ if .System }}}}{_text(self.head)}{{{{ else }}}}{_text(self.head_alone)}{{{{ end }}}}"
        if self.head == self.head_alone:
            head = _text(self.head)
        turns = f"{{{{ range .Messages }}}}{''.join(branches)}{{{{ end }}}}{{{{ end }}}}"
        return head + turns + _text(self.opening)


def wrapping_of(template: ChatTemplate) -> Wrapping:
    """What a template does, where it does the same to every turn.

    Raises:
        DataError: it does more than that, and Ollama's language could only do something else.
    """

    def render(turns: Turns, *, opens: bool) -> str:
        messages = tuple(Message(role, text) for role, text in turns)
        return template.render(Conversation(messages), add_generation_prompt=opens)

    found = _probe(render)
    for turns in _conversations(with_system="system" in found.around):
        if found.render(turns) != render(turns, opens=True):
            roles = " ".join(role for role, _ in turns)
            raise DataError(
                f"chat template ({template.origin}): treats a conversation ({roles}) otherwise than turn by turn, "
                "which Ollama's templates cannot say",
                hint=f"Instead, {_OTHER}.",
            )
    return found


def modelfile(file: str, template: ChatTemplate, *, n_ctx: int) -> str:
    """A Modelfile for the GGUF file beside it. Tool calls are left out."""
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{wrapping_of(template).go_template()}"""',
        *(f"PARAMETER stop {_quoted(text)}" for text in template.stop_texts),
        f"PARAMETER num_ctx {n_ctx}",
    ]
    return "\n".join(lines) + "\n"


def _probe(render: Callable[..., str]) -> Wrapping:
    one = render([("user", _USER)], opens=False)
    opened = render([("user", _USER)], opens=True)
    long = render([("user", _USER), ("assistant", _ANSWER), ("user", _USER)], opens=False)
    opening = opened.removeprefix(one)
    # Between the first words and the answer stands the user's end and the answer's opening.
    first, answer = long.find(_USER), long.find(_ANSWER)
    second = long.rfind(_USER)
    if not opened.startswith(one) or not 0 <= first < answer < second:
        raise DataError("chat template: does not show the turns in their order", hint=f"Instead, {_OTHER}.")
    behind_user = one[one.find(_USER) + len(_USER) :]
    before_answer = long[first + len(_USER) + len(behind_user) : answer]
    between = long[answer + len(_ANSWER) : second]
    # The same text stands before each user turn; what is left at the front is the head.
    before_user = _shared_end(long[:first], between)
    around = {
        "user": (before_user, behind_user),
        "assistant": (before_answer, between[: len(between) - len(before_user)]),
    }
    head_alone = long[: first - len(before_user)]
    try:
        with_system = render([("system", _SYSTEM), ("user", _USER)], opens=False)
    except DataError:
        return Wrapping(head_alone, head_alone, around, opening)
    start = with_system.find(_SYSTEM)
    end = with_system.find(before_user + _USER, start)
    if start < 0 or end < 0:
        raise DataError(
            "chat template: puts the system text inside another turn, which Ollama's templates cannot say",
            hint=f"Instead, {_OTHER}.",
        )
    system = "", with_system[start + len(_SYSTEM) : end]
    return Wrapping(with_system[:start], head_alone, {"system": system, **around}, opening)


def _shared_end(left: str, right: str) -> str:
    """The longest end that two texts share."""
    pairs = zip(reversed(left), reversed(right), strict=False)
    count = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return left[len(left) - count :]


def _conversations(*, with_system: bool) -> list[Turns]:
    """One to five turns, with and without a system text; no text has white space at its edges."""
    talk = [
        ("user", "a"),
        ("assistant", "b c"),
        ("user", "Дa <x> {{y}}"),
        ("assistant", "2\n3"),
        ("user", "z"),
    ]
    alone: list[Turns] = [talk[:1], talk[:3], talk]
    return alone + [[("system", "s t"), *turns] for turns in alone if with_system]


def _text(text: str) -> str:
    return f"{{{{ {_quoted(text)} }}}}" if text else ""


def _quoted(text: str) -> str:
    """As Go's strings and JSON's are both written."""
    return json.dumps(text, ensure_ascii=False)
