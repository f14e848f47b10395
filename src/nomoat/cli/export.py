"""`nomoat export`: take a model to another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.served import BASE, CHAMPION, find_model

EPILOG = """
\b
Examples:
  nomoat export ollama                       # the champion: a Modelfile and the GGUF file
  nomoat export llamacpp gen-0001 --out mine
  nomoat export vllm                         # weights as safetensors, for vLLM and transformers

\b
Chat template and stop tokens go with the model. Ollama's Modelfile has them in Ollama's own language, without
tool calls; a template that cannot be said in it is refused.
"""

KEYS = {
    "program": "for which it was written",
    "model": "the generation's name",
    "folder": "what was written",
    "files": "list of files in it",
    "next": "the command that opens it",
}
"""Keys of `nomoat export --json`, for docs/cli.md."""


class Program(StrEnum):
    """Who is to open it."""

    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    LMSTUDIO = "lmstudio"
    VLLM = "vllm"
    TRANSFORMERS = "transformers"


def export(
    program: Annotated[
        Program, typer.Argument(metavar="PROGRAM", help="ollama, llamacpp, lmstudio, vllm or transformers.")
    ],
    generation: Annotated[
        str,
        typer.Argument(
            metavar="GENERATION",
            help="A generation, such as gen-0001, latest, or base.",
            show_default="the champion",
        ),
    ] = CHAMPION,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A new folder.", show_default="GENERATION-PROGRAM"),
    ] = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Write a model as a folder for Ollama, llama.cpp, LM Studio, vLLM or transformers."""
    served = find_model(workspace, generation)
    quiet_libraries()
    from nomoat.share import export as share

    name = BASE if served.is_base else served.name
    source = share.Source(
        name,
        served.gguf,
        served.tokenizer_dir,
        served.context_length,
        served.weights_dir,
    )
    with console(stderr=True).status("Writing …"):
        made = share.export(source, program, out or Path(f"{name}-{program}"))
    if as_json:
        print_json(
            {
                "program": str(program),
                "model": name,
                "folder": made.folder,
                "files": made.files,
                "next": made.next,
            }
        )
        return
    console().print(f"{name} for {program}: {made.folder} ({', '.join(made.files)})")
    console().print(made.next)
