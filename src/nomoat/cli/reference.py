"""Writes docs/cli.md from the verbs themselves: `python -m nomoat.cli.reference [FOLDER]`, or `make docs`.

A test compares the page with what this module makes, so neither can change alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import typer.main
from typer.core import TyperGroup

from nomoat.cli import (
    arena,
    chat,
    check_view,
    evaluate,
    export,
    gate,
    init_verb,
    judge,
    keys,
    log,
    night_view,
    peer,
    promote,
    rollback,
    serve,
    status,
    votes,
)
from nomoat.cli.main import app

WIDTH_COLUMNS = 100
_MARGIN_COLUMNS = 2  # that help leaves free on a terminal

INTRO = """\
# The command line

<!-- Made by `make docs` from src/nomoat/cli; change the verbs there. -->

```
{help}
```

Results go to stdout; progress, warnings and errors to stderr. With `--json`, stdout holds one JSON object with the
keys below and nothing else; keys are added in later versions, but neither renamed nor taken away. Times are
UTC, ISO 8601; lengths of time seconds, energy joules, money dollars. A number that is not known is null.

| exit code | meaning |
| --- | --- |
| 0 | done; for `nomoat run` also when the model is not better than its base |
| 1 | a fault in nomoat; `NOMOAT_DEBUG=1` shows the traceback |
| 2 | something to mend: the message says where, what was found, what was expected and what to do |
| 130 | stopped by Ctrl-C or SIGTERM; the same command goes on from there |
"""

JSON_KEYS: dict[str, dict[str, Mapping[str, str]]] = {
    "run": {"nomoat run --json": night_view.KEYS},
    "check": {"nomoat check --json": check_view.KEYS},
    "status": {"nomoat status --json": status.KEYS},
    "log": {"nomoat log --json": log.KEYS, "nomoat log NIGHT --json": log.NIGHT_KEYS},
    "chat": {"nomoat chat --json": chat.KEYS},
    "arena": {"nomoat arena --json": arena.KEYS, "nomoat arena --standings --json": arena.STANDINGS_KEYS},
    "votes": {"nomoat votes --json": votes.KEYS},
    "judge": {"nomoat judge --json": judge.KEYS},
    "evaluate": {"nomoat evaluate --json": evaluate.KEYS},
    "peer": {"nomoat peer --json": peer.KEYS},
    "gate": {"nomoat gate --json": gate.KEYS},
    "promote": {"nomoat promote --json": promote.KEYS},
    "rollback": {"nomoat rollback --json": rollback.KEYS},
    "serve": {"nomoat serve --json": serve.KEYS},
    "keys": {"nomoat keys --json": keys.KEYS},
    "export": {"nomoat export --json": export.KEYS},
    "init": {"nomoat init --json": init_verb.KEYS},
}
"""verb -> command -> key -> meaning."""


def cli_page() -> str:
    """docs/cli.md: the help of every verb, and the keys of its JSON."""
    parts = [INTRO.format(help=help_of())]
    for verb, commands in JSON_KEYS.items():
        parts.append(f"## nomoat {verb}\n\n```\n{help_of(verb)}\n```\n")
        for command, meanings in commands.items():
            rows = [f"| `{key}` | {meaning.replace('|', '&#124;')} |" for key, meaning in meanings.items()]
            parts.append("\n".join([f"`{command}`:\n", "| key | meaning |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def help_of(verb: str | None = None) -> str:
    """What `nomoat [VERB] --help` prints on a terminal of WIDTH_COLUMNS."""
    width = WIDTH_COLUMNS - _MARGIN_COLUMNS
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup), group
    with group.make_context("nomoat", [], resilient_parsing=True, terminal_width=width) as context:
        if verb is None:
            return group.get_help(context).rstrip()
        command = group.commands[verb]
        with command.make_context(
            verb, [], parent=context, resilient_parsing=True, terminal_width=width
        ) as inner:
            return command.get_help(inner).rstrip()


def main() -> None:
    """Write the page into the folder named on the command line, or docs/."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs") / "cli.md"
    path.write_text(cli_page(), encoding="utf-8")
    print(f"{path}: {len(cli_page().splitlines())} lines")


if __name__ == "__main__":
    main()
