"""`nomoat`: the verbs. Heavy libraries are imported inside the verb that needs them, so that `nomoat --help`
answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nomoat import __version__
from nomoat.cli import (
    arena,
    chat,
    check,
    evaluate,
    export,
    gate,
    init_verb,
    judge,
    keys,
    log,
    peer,
    promote,
    rollback,
    run,
    serve,
    status,
    votes,
)
from nomoat.cli.errors import Verb
from nomoat.cli.output import survive_encoding

EPILOG = """
\b
A first night:
  nomoat run        # a few minutes on two cores, nothing to download
  nomoat chat       # talk to what came out
With your own rows:
  nomoat init mine.jsonl && nomoat check && nomoat run
"""

app = typer.Typer(
    name="nomoat",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: quick, and the same in a terminal, a pipe and docs/cli.md
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"nomoat {__version__}")
        raise typer.Exit


@app.callback()
def nomoat(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Your own open model, better every morning."""


for _name, _verb, _epilog in (
    ("run", run.run, run.EPILOG),
    ("check", check.check, check.EPILOG),
    ("status", status.status, status.EPILOG),
    ("log", log.log, log.EPILOG),
    ("chat", chat.chat, chat.EPILOG),
    ("arena", arena.arena, arena.EPILOG),
    ("votes", votes.votes, votes.EPILOG),
    ("judge", judge.judge, judge.EPILOG),
    ("evaluate", evaluate.evaluate, evaluate.EPILOG),
    ("peer", peer.peer, peer.EPILOG),
    ("gate", gate.gate, gate.EPILOG),
    ("promote", promote.promote, promote.EPILOG),
    ("rollback", rollback.rollback, rollback.EPILOG),
    ("serve", serve.serve, serve.EPILOG),
    ("keys", keys.keys, keys.EPILOG),
    ("export", export.export, export.EPILOG),
    ("init", init_verb.init, init_verb.EPILOG),
):
    app.command(_name, cls=Verb, epilog=_epilog)(_verb)


def main() -> None:
    """The program's entry."""
    survive_encoding(sys.stdin, sys.stdout, sys.stderr)
    app(prog_name="nomoat")


if __name__ == "__main__":
    main()
