"""`nomoat serve`: the workspace's models behind an API that every tool already speaks."""

from __future__ import annotations

import getpass
import signal
import sys
import tempfile
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json
from nomoat.cli.quiet import quiet_libraries
from nomoat.errors import ServeError

if TYPE_CHECKING:
    from nomoat.ledger.keys import Holder
    from nomoat.ledger.store import Ledger

EPILOG = """
\b
Examples:
  nomoat serve
  curl -s localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "champion", "messages": [{"role": "user", "content": "Hello"}]}'
  nomoat keys add laptop && nomoat serve --host 0.0.0.0
  nomoat serve --engine vllm --parallel 64     # a generation's weights on a GPU: pip install "nomoat[vllm]"
  nomoat serve --adapter poet=adapters/poet    # a LoRA adapter in PEFT's layout on the base, as the model poet

\b
Models: champion (the newest generation where there is none yet), gen-0001 and so on, base, and each --adapter, which
shares the weights of the model it is for. Answers with one adapter are computed side by side, those with another
after them, in the order they came.
torch and vLLM serve generations only. torch computes with the weights that training left, before any quantisation;
vLLM serves one model at a time in the memory it is given, and gives no embeddings.
Ctrl-C stops taking requests and finishes running answers; a second one ends at once.
"""

KEYS = {
    "url": "where it listens; OpenAI's clients take this with /v1 behind it",
    "models": "list of names",
    "demands_key": "whether requests need a key",
}
"""Keys of `nomoat serve --json`, for docs/cli.md. Printed when it starts to listen."""


class EngineName(StrEnum):
    """What computes."""

    LLAMACPP = "llama.cpp"
    TORCH = "torch"
    VLLM = "vllm"


def serve(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen. Beyond this machine, keys are needed."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any free one.")
    ] = 8000,
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="llama.cpp (GGUF files), torch (the weights) or vllm (the weights, on a GPU).",
        ),
    ] = EngineName.LLAMACPP,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME[@MODEL]=DIR",
            help="Serve a LoRA adapter (PEFT) on the base, or on MODEL; may be repeated.",
        ),
    ] = None,
    context: Annotated[
        int,
        typer.Option(
            "--context", metavar="N", min=16, help="Most tokens of a conversation; more takes more memory."
        ),
    ] = 4096,
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=256, help="Answers a model writes at once.")
    ] = 4,
    memory_gib: Annotated[
        float | None,
        typer.Option(
            "--memory",
            metavar="GIB",
            min=0.01,
            help="What loaded models may take together.",
            show_default="half of this machine's, 90% of the GPU's where that computes",
        ),
    ] = None,
    idle_s: Annotated[
        float,
        typer.Option("--idle", metavar="SECONDS", min=1, help="Close a model that nobody used for so long."),
    ] = 600,
    queue: Annotated[
        int, typer.Option("--queue", metavar="N", min=1, help="Requests that may wait for their turn.")
    ] = 64,
    key_at_once: Annotated[
        int | None,
        typer.Option(
            "--key-at-once", metavar="N", min=1, help="Requests of one key that run or wait at once."
        ),
    ] = None,
    key_per_minute: Annotated[
        int | None,
        typer.Option("--key-per-minute", metavar="N", min=1, help="Requests of one key within a minute."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A name that leads to this machine; may be repeated."
        ),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Serve the models over OpenAI's API."""
    from nomoat.cli.adapters import read_adapters
    from nomoat.cli.catalogue import WorkspaceModels
    from nomoat.cli.talkers import cores

    models = WorkspaceModels(workspace)
    models.names()
    if adapter and engine is not EngineName.LLAMACPP:
        raise ServeError("--adapter: only llama.cpp serves adapters", hint="Leave out --engine or --adapter.")
    quiet_libraries()
    with ExitStack() as held:
        with console(stderr=True).status("Starting …"):
            from nomoat.ledger.artifacts import HOUSE
            from nomoat.serve import run
            from nomoat.serve.limits import Limits
            from nomoat.serve.web.arena import Votes

            settings = run.Settings(
                most_context=context,
                n_parallel=parallel,
                n_threads=cores(),
                budget_bytes=run.budget_bytes(engine, memory_gib),
                idle_s=idle_s,
                most_waiting=queue,
                limits=Limits(key_at_once, key_per_minute),
                hosts=frozenset(name.lower() for name in allow_host or ()),
                chats=workspace / HOUSE / "ledger.db",
                votes=Votes(workspace / HOUSE / "ledger.db", _voter),
                engine=engine,
            )
            if adapter:
                signal.signal(signal.SIGTERM, _leave)  # Python ends at once otherwise, and the folder stays
                place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="nomoat-")))
                models = WorkspaceModels(workspace, read_adapters(adapter, models, place))
            listening = held.enter_context(run.listen(host, port))
        keys = None if run.is_loopback(listening) else _keys_of(workspace)
        if keys is None and (key_at_once or key_per_minute):
            raise ServeError(
                "--key-at-once and --key-per-minute limit keys, and on this machine alone none is demanded",
                hint="Leave them out, or listen beyond this machine: --host 0.0.0.0",
            )
        url, names = run.url_of(listening), [model.name for model in models.names()]
        if as_json:
            print_json({"url": url, "models": names, "demands_key": keys is not None})
        else:
            console().print(f"Listening on {url}/v1, for {', '.join(names)}. Ctrl-C stops it.")
            console().print(f"Chat in the browser: {url}/, vote blindly: {url}/arena/")
        run.serve(listening, models, settings, keys)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _voter(holder: Holder | None) -> str:
    """Whose votes these are: the key's, or where none is demanded the user's of this machine."""
    return holder.name if holder else getpass.getuser()


def _keys_of(workspace: Path) -> Ledger:
    """The ledger, which has a key in use."""
    from nomoat.ledger.artifacts import HOUSE
    from nomoat.ledger.keys import list_keys
    from nomoat.ledger.store import Ledger

    path = workspace / HOUSE / "ledger.db"
    ledger = Ledger.open(path) if path.is_file() else None
    if ledger is None or all(row.revoked_at for row in list_keys(ledger)):
        raise ServeError(
            "beyond this machine the server demands keys, and there is none",
            hint=f"Make one first: {command('nomoat', 'keys', 'add', 'NAME', workspace=workspace)}",
        )
    return ledger
