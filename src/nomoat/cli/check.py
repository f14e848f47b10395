"""`nomoat check`: what a night would read and train on, before it does."""

from __future__ import annotations

import sys

from nomoat.cli.check_view import check_json, print_check
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, command, console, print_json
from nomoat.cli.progress import watching
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.recipes import BaseOption, DataOption, WordsArgument, load_words, said_of
from nomoat.cli.workspaces import ready_workspace

EPILOG = """
\b
Examples:
  nomoat check
  nomoat check --data mine.jsonl
  nomoat check night.yaml sft.max_seq_len=1024

Ends with exit code 2 and the reason where a night would be refused.
"""


def check(
    words: WordsArgument = None,
    base: BaseOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Look at the data as a night would: format, counts, lengths, bad rows, and what is trained on.

    Three rows are shown as the model would see them, coloured by what is trained on.
    """
    loaded = load_words(words or [], base, data or [])
    print(said_of(loaded), file=sys.stderr)
    ready_workspace(workspace)
    with console(stderr=True).status("Getting ready …"):
        quiet_libraries()
        from nomoat.night.check import check_data

    with watching(plain=as_json) as watcher:
        watcher.stage_started("data", "reading")
        result = check_data(loaded, workspace, watcher)
    shorthand = [*(["--base", base] if base else []), *(f"--data={file}" for file in data or [])]
    following = command("nomoat", "run", *(words or []), *shorthand, workspace=workspace)
    if as_json:
        print_json(check_json(result, following))
    else:
        print_check(result, following, console())
