"""The slash commands of `nomoat chat`: reading a line that the owner typed."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.errors import nearest

HELP = {
    "/undo": "take your last message and its answer back",
    "/retry": "answer your last message anew",
    "/system TEXT": "tell the model who it is; without TEXT: show it; /system none: take it away",
    "/save FILE": "add this conversation to FILE as a JSONL row that `nomoat run --data` reads",
    "/base": "answer by the base as well, side by side; again: stop that",
    "/new": "start another conversation",
    "/history WORDS": "list the newest conversations, those of the chat page too; with WORDS: those that have them",
    "/open N": "go on with number N of that list",
    "/help": "show this list",
    "/quit": "leave (so does Ctrl-D)",
}
_NAMES = [entry.split()[0] for entry in HELP]


@dataclass(frozen=True)
class Say:
    """A message to the model."""

    text: str


@dataclass(frozen=True)
class Command:
    """A slash command with what follows it."""

    name: str
    argument: str


@dataclass(frozen=True)
class Unknown:
    """Something after a slash that is no command; `said` is the line to show."""

    said: str


def read_line(line: str) -> Say | Command | Unknown | None:
    """What a typed line means; None for an empty one. `//` sends a message that begins with a slash."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Say(text[1:])
    if not text.startswith("/"):
        return Say(text)
    name, _, argument = text.partition(" ")
    if name in _NAMES:
        return Command(name, argument.strip())
    return Unknown(
        f"{name} is no command.{nearest(name, _NAMES)} /help lists them; "
        "to send a message that begins with a slash, type two: //"
    )


def help_lines() -> list[str]:
    """The list that /help shows."""
    width = max(map(len, HELP))
    return [f"  {entry:<{width}}  {text}" for entry, text in HELP.items()]
