"""`nomoat run`: one night."""

from __future__ import annotations

import sys

from nomoat.cli.errors import Stopped
from nomoat.cli.night_view import night_json, print_night
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json
from nomoat.cli.progress import draws_bar, watching
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.recipes import BaseOption, DataOption, WordsArgument, load_words, said_of
from nomoat.cli.signals import StopRequest
from nomoat.cli.workspaces import ready_workspace

EPILOG = """
\b
Examples:
  nomoat run                              # nomoat.yaml, or the embedded base on the starter data
  nomoat run --data mine.jsonl            # the embedded base on your rows
  nomoat run --base ./model --data a.jsonl --data b.csv
  nomoat run night.yaml sft.learning_rate=1e-4 budget.until=07:00

Ctrl-C stops at the next checkpoint. The same command goes on from there, and a stage whose inputs have not
changed is not done again. A model that is not better than its base is an honest result: exit code 0.
"""


def run(
    words: WordsArgument = None,
    base: BaseOption = None,
    data: DataOption = None,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Run a night: train, quantise, compare with the base, report.

    Says where the model is, whether it beats its base, and what it cost.
    """
    loaded = load_words(words or [], base, data or [])
    print(said_of(loaded), file=sys.stderr)
    ready_workspace(workspace)
    with console(stderr=True).status("Getting ready …"):
        quiet_libraries()
        from nomoat.night.night import run_night
        from nomoat.night.runner import NightInterrupted

    stop = StopRequest(announces=not draws_bar(plain=as_json))
    with watching(plain=as_json, is_stopping=stop.asked) as watcher, stop.listening():
        try:
            summary = run_night(loaded, workspace, watcher=watcher, stop_asked=stop.asked)
        except NightInterrupted as stopped:
            said = str(stopped)
            raise Stopped(
                f"{said[:1].upper()}{said[1:]}. Run the same command again to go on from there."
            ) from stopped
    confidence = loaded.recipe.evaluate.confidence
    if as_json:
        print_json(night_json(summary, workspace, confidence))
    else:
        print_night(summary, workspace, confidence, console())
