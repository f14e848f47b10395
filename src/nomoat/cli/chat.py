"""`nomoat chat`: talk to what came out of a night."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json, visible
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.served import BASE, CHAMPION, find_base, find_model
from nomoat.cli.session import ChatSession
from nomoat.cli.terminal import TerminalChat
from nomoat.errors import EngineError

if TYPE_CHECKING:
    from nomoat.cli.talkers import Talker
    from nomoat.engine.base import Sampling
    from nomoat.serve.models import ServedModel

EPILOG = """
\b
Examples:
  nomoat chat                          # the champion; the newest generation where there is none yet
  nomoat chat latest                   # the newest generation
  nomoat chat gen-0001
  nomoat chat base                     # the base it was trained from
  nomoat chat --engine torch           # a generation's own weights, before any quantisation
  echo "Tell me a story." | nomoat chat --temperature 0

\b
In the chat:
  /undo  /retry  /system TEXT  /save FILE  /base  /new  /history WORDS  /open N  /help  /quit

What is said at a terminal is kept in the workspace, where the chat page of nomoat serve shows it too.
Ctrl-C stops an answer, Ctrl-D leaves. From a pipe, each line is a message and each answer goes to stdout.
"""

KEYS = {"messages": "the whole conversation as {role, content}, in OpenAI's form"}
"""Keys of `nomoat chat --json`, for docs/cli.md."""

_PROMPT = "> "


class ChatEngine(StrEnum):
    """What computes."""

    LLAMACPP = "llama.cpp"
    TORCH = "torch"


def chat(
    generation: Annotated[
        str,
        typer.Argument(
            metavar="GENERATION",
            help="A generation, such as gen-0001, latest, or base.",
            show_default="the champion",
        ),
    ] = CHAMPION,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="System text.", show_default=False)
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", metavar="NUMBER", min=0, help="0: always the likeliest word.")
    ] = 0.7,
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p",
            metavar="NUMBER",
            min=0,
            max=1,
            help="Leave out the least likely words beyond this share.",
        ),
    ] = 0.95,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="The same seed gives the same answers.")
    ] = 0,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest answer.")
    ] = 512,
    engine: Annotated[
        ChatEngine,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="llama.cpp (the GGUF file) or torch (the weights it was made from).",
        ),
    ] = ChatEngine.LLAMACPP,
    context: Annotated[
        int,
        typer.Option(
            "--context", metavar="N", min=16, help="Most tokens of a conversation; more takes more memory."
        ),
    ] = 4096,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Talk to the champion, or another model, in the terminal."""
    from nomoat.cli.talkers import GgufTalker, WeightsTalker

    with console(stderr=True).status("Loading the model …"):
        served = find_model(workspace, generation)
        quiet_libraries()
        opened = WeightsTalker if engine is ChatEngine.TORCH else GgufTalker
        talker: Talker = opened.open(served, context)

    def open_base() -> Talker:
        if generation == BASE:
            raise EngineError("This is the base already.")
        return GgufTalker.open(find_base(workspace, generation), context)

    from nomoat.engine.base import Sampling

    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    session = ChatSession(system)
    try:
        if sys.stdin.isatty():
            talk(served, talker, open_base, session, sampling, workspace, as_json=as_json)
        else:
            answer_lines(sys.stdin, talker, session, sampling, is_silent=as_json)
    finally:
        talker.close()
    if as_json:
        print_json(session.to_row())


def talk(
    served: ServedModel,
    talker: Talker,
    open_base: Callable[[], Talker],
    session: ChatSession,
    sampling: Sampling,
    workspace: Path,
    *,
    as_json: bool,
) -> None:
    """A chat at a terminal; with `as_json` it goes to stderr, for stdout belongs to the result."""
    to = console(stderr=as_json)
    known = [*(["champion"] if served.is_champion else []), *([served.verdict] if served.verdict else [])]
    judged = f" ({', '.join(known)})" if known else ""
    to.print(
        f"{served.name}{judged}, {talker.n_ctx} tokens of context. /help lists the commands.", style="dim"
    )

    def read() -> str:
        if as_json:
            to.print(_PROMPT, end="")
            return input()
        return input(_PROMPT)

    from nomoat.cli.history import History
    from nomoat.ledger.artifacts import HOUSE
    from nomoat.serve.web.chats import Chats, Manner

    _use_line_editing()
    manner = Manner("", sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.seed)
    history = History(Chats(workspace / HOUSE / "ledger.db"), manner)
    TerminalChat(talker, open_base, session, sampling, history, read=read, to=to).run()


def answer_lines(
    lines: Iterable[str], talker: Talker, session: ChatSession, sampling: Sampling, *, is_silent: bool
) -> None:
    """Answer each line that is not empty, on stdout. Raises EngineError when the context is full."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        conversation = session.ask(line.strip())
        used = talker.prompt_tokens(conversation)
        if used >= talker.n_ctx:
            raise EngineError(
                f"line {number}: with it the conversation has {used} tokens; this model's context holds "
                f"{talker.n_ctx}",
                hint="Give fewer lines at a time, or a larger --context where the model has one.",
            )
        pieces = []
        for piece in talker.stream(conversation, sampling):
            pieces.append(piece)
            if not is_silent:
                print(visible(piece), end="", flush=True)
        session.keep("".join(pieces))
        if not is_silent:
            print(flush=True)


def _use_line_editing() -> None:
    """Arrow keys and history at the prompt, where Python was built with them."""
    try:
        import readline  # noqa: F401 - importing it is what switches it on
    except ImportError:
        return
