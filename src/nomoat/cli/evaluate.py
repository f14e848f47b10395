"""`nomoat evaluate`: lm-eval's tasks against a model that would be served."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli.chat import ChatEngine
from nomoat.cli.judges import Endpoint, KeyVariableOption, PriceInOption, PriceOutOption, open_endpoint
from nomoat.cli.ledgers import open_ledger
from nomoat.cli.output import HERE, JsonOption, WorkspaceOption, console, print_json, table
from nomoat.cli.quiet import quiet_libraries
from nomoat.cli.served import CHAMPION, find_model
from nomoat.cli.talkers import cores
from nomoat.errors import DataError, ModelError
from nomoat.serve.models import ServedModel, weights_of

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.data.overlap import Question
    from nomoat.evaluate.harness import TaskRun
    from nomoat.evaluate.harness_models import Weighing

EPILOG = """
\b
Examples:
  nomoat evaluate --tasks arc_easy,hellaswag --limit 200
  nomoat evaluate gen-0003 --against base --tasks mine --task-files ./tasks
  nomoat evaluate ./Qwen3-0.6B --tasks arc_easy     # a folder of weights, which needs no GGUF file
  nomoat evaluate https://api.openai.com/v1 --model NAME --tasks gsm8k --chat --limit 50

\b
An endpoint does the tasks whose answers are written (generate_until), as chats; what it has answered is kept, so that
none is paid for twice.

\b
Tasks are lm-eval's (lm-eval ls tasks), or YAML files in its form in --task-files, which work without a network when
their data files are here. Both models of --against answer the same documents, and their difference is paired. Needs the
extra eval: pip install "nomoat[eval]"

The rows that a generation was trained on are held against the tasks' documents, as against suites: what shares 13 words
in a row with one, or asks nearly the same, is listed. To take such rows out of the next night, put the documents into a
file of evaluate.prompts, with data.decontaminate: remove.
"""

KEYS = {
    "model": "the model asked for",
    "against": "null, or the model it was compared with",
    "confidence": "confidence of every interval, 0 to 1",
    "scores": "list of {task, metric, filter, higher_is_better, score, against, difference}; the last three are "
    "{value, low, high, n}; the last two null without --against, difference also where it cannot "
    "be told; low and high are null where lm-eval tells no error, as of a perplexity",
    "asked": "requests answered, by both",
    "cut": "requests whose context was cut at its beginning to fit",
    "spent": "null, or {prompt_tokens, completion_tokens, dollars} of what endpoints were asked now",
    "contamination": "{generation: null or {rows, of_rows, documents, of, found}}: how many of its rows to train on "
    "hold a text of how many of the tasks' documents, word for word or nearly, and the first of them as {where, row, "
    "suite, prompt, how}; null where its night's rows are not here any more. Bases are not in it",
}
"""Keys of `nomoat evaluate --json`, for docs/cli.md."""

CONFIDENCE = 0.95
N_PARALLEL = 4
ANSWERS = "tasks.jsonl"
_QUOTED = 5


@dataclass(frozen=True)
class Subject:
    """A model that can be evaluated; `open` loads it with a context of so many tokens at most. One behind an endpoint
    has an `identity`, and no tokenizer here."""

    name: str
    tokenizer_dir: Path | None
    open: Callable[[int], Any]
    identity: str | None = None


def evaluate(
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="NAMES", help="Names of tasks, with commas between.")
    ],
    one: Annotated[
        str,
        typer.Argument(
            metavar="GEN",
            help="A generation, base, a folder of weights, or an endpoint's address.",
            show_default="the champion, or the newest",
        ),
    ] = CHAMPION,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="GEN", help="Compare with another of these.", show_default=False),
    ] = None,
    task_files: Annotated[
        Path | None,
        typer.Option("--task-files", metavar="DIR", help="A folder of task files.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=2, help="Documents of each task.", show_default="all"),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(
            "--num-fewshot", metavar="N", min=0, help="Examples in a prompt.", show_default="as the task says"
        ),
    ] = None,
    engine: Annotated[
        ChatEngine | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="llama.cpp (the GGUF file) or torch (the weights it was made from).",
            show_default="llama.cpp, and torch for a folder of weights",
        ),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask as it is served, with the chat template.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="A model's name at its endpoint.", show_default=False),
    ] = None,
    key_variable: KeyVariableOption = "OPENAI_API_KEY",
    price_in: PriceInOption = 0.0,
    price_out: PriceOutOption = 0.0,
    context: Annotated[
        int, typer.Option("--context", metavar="N", min=16, help="Most tokens of a prompt with its answer.")
    ] = 4096,
    workspace: WorkspaceOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on lm-eval's tasks, alone or beside another."""
    if find_spec("lm_eval") is None:
        raise ModelError(
            "nomoat evaluate --tasks needs lm-eval, which is not installed",
            hint='Install it: pip install "nomoat[eval]"',
        )
    endpoint = Endpoint(model, key_variable, price_in, price_out)
    subjects = [
        _endpoint(which, endpoint, chat=chat)
        if which.startswith(("http://", "https://"))
        else find_subject(workspace, which, engine)
        for which in (one, against)
        if which is not None
    ]
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    quiet_libraries()
    runs = [
        _run(
            subject,
            names,
            context,
            chat,
            workspace,
            task_files=task_files,
            limit=limit,
            num_fewshot=num_fewshot,
        )
        for subject in subjects
    ]
    with console(stderr=True).status("Holding what was trained on against the documents …"):
        contamination = _contamination(workspace, subjects, runs[0].questions)
    result = _result(subjects, runs) | {"contamination": contamination}
    if as_json:
        print_json(result)
    else:
        _print(result, console())


def find_subject(workspace: Path, which: str, engine: ChatEngine | None) -> Subject:
    """A folder of weights in transformers' form, which needs no GGUF file, or a model of the workspace.

    Raises DataError where llama.cpp is asked for a folder, ArtifactError where torch is for a model whose weights are
    not kept, and as `find_model` does.
    """
    if (Path(which) / "config.json").is_file():
        if engine is ChatEngine.LLAMACPP:
            raise DataError(
                f"{which} is a folder of weights, and llama.cpp reads GGUF files",
                hint="Take --engine torch, or leave it out.",
            )
        return Subject(Path(which).resolve().name, Path(which), lambda most: _weights(Path(which), most))
    served = find_model(workspace, which)
    if engine is ChatEngine.TORCH:
        folder = weights_of(served)
        return Subject(served.name, folder, lambda most: _weights(folder, most))
    return Subject(served.name, served.tokenizer_dir, lambda most: _file(served, most))


def _file(model: ServedModel, most_context: int) -> Weighing:
    from nomoat.engine.llamaserver import LlamaServerEngine

    return LlamaServerEngine(
        model.gguf,
        tokenizer_dir=model.tokenizer_dir,
        n_ctx=min(most_context, model.context_length),
        n_parallel=N_PARALLEL,
        n_threads=cores(),
    )


def _weights(folder: Path, most_context: int) -> Weighing:
    from nomoat.engine.torchserver import TorchEngine
    from nomoat.model.load import read_shape, set_threads

    set_threads(cores())
    n_ctx = min(most_context, read_shape(folder).context)
    return TorchEngine(folder, n_ctx=n_ctx, n_parallel=N_PARALLEL)


def _endpoint(url: str, endpoint: Endpoint, *, chat: bool) -> Subject:
    """A model behind an endpoint. Raises DataError where it is not asked as it is served, or not said which it is."""
    if not chat:
        raise DataError(
            f"{url}: an endpoint answers chats only, by its own template",
            hint="Add --chat, which asks a model of yours as it is served too.",
        )
    engine = open_endpoint(url, endpoint, "do the tasks")
    name = str(endpoint.model)
    return Subject(name, None, lambda _: engine, identity=f"{url.rstrip('/')} {name}")


def _run(
    subject: Subject, tasks: list[str], context: int, chat: bool, workspace: Path, **keys: Any
) -> TaskRun:
    """One model on the tasks."""
    from nomoat.evaluate.harness import run_tasks
    from nomoat.evaluate.harness_models import EndpointModel, EngineModel
    from nomoat.ledger.artifacts import HOUSE

    with (
        console(stderr=True).status(f"{subject.name}: loading …") as status,
        closing(subject.open(context)) as engine,
    ):

        def progress(done: int) -> None:
            status.update(f"{subject.name}: {done:,} requests answered …")

        model: EngineModel | EndpointModel
        if subject.identity is not None:
            file = workspace / HOUSE / ANSWERS
            model = EndpointModel(engine, identity=subject.identity, file=file, progress=progress)
        else:
            model = EngineModel(engine, chat=chat, progress=progress)
        return run_tasks(model, tasks, confidence=CONFIDENCE, **keys)


def _result(subjects: list[Subject], runs: list[TaskRun]) -> dict[str, Any]:
    """What was found, under `KEYS`."""
    from nomoat.evaluate.harness import paired_difference

    theirs = {(s.task, s.metric, s.filter): s for s in runs[1].scores} if len(runs) > 1 else {}
    scores = []
    for score in runs[0].scores:
        other = theirs.get((score.task, score.metric, score.filter))
        difference = paired_difference(score, other, CONFIDENCE) if other else None
        row = asdict(score) | {"against": asdict(other.score) if other else None}
        row["difference"] = asdict(difference) if difference else None
        del row["by_item"]
        scores.append(row)
    return {
        "model": subjects[0].name,
        "against": subjects[1].name if len(subjects) > 1 else None,
        "confidence": CONFIDENCE,
        "scores": scores,
        "asked": sum(run.asked for run in runs),
        "cut": sum(run.cut for run in runs),
        "spent": _spent(runs),
    }


def _spent(runs: list[TaskRun]) -> dict[str, Any] | None:
    spent = [asdict(run.spent) for run in runs if run.spent is not None]
    return {key: sum(one[key] for one in spent) for key in spent[0]} if spent else None


def _contamination(workspace: Path, subjects: list[Subject], questions: list[Question]) -> dict[str, Any]:
    """Of each generation among the models by its name, as in `KEYS`."""
    from nomoat.evaluate.contamination import contamination_of
    from nomoat.ledger.artifacts import ArtifactStore

    found: dict[str, Any] = {}
    with open_ledger(workspace) as ledger:
        generations = {one.name: one for one in ledger.generations()} if ledger else {}
        for subject in subjects:
            if ledger is not None and subject.tokenizer_dir is not None and subject.name in generations:
                told = contamination_of(
                    ledger,
                    ArtifactStore(workspace),
                    generations[subject.name],
                    subject.tokenizer_dir,
                    questions,
                )
                found[subject.name] = None if told is None else asdict(told)
    return found


def _print(result: dict[str, Any], to: Console) -> None:
    """The same for people."""
    others = [result["against"], "difference"] if result["against"] else []
    made = table("task", "metric", result["model"], *others, "documents", right=("documents",))
    for row in result["scores"]:
        metric = row["metric"] if row["filter"] == "none" else f"{row['metric']} ({row['filter']})"
        found = [row["score"], *([row["against"], row["difference"]] if others else [])]
        made.add_row(row["task"], metric, *map(_interval, found), f"{row['score']['n']:,}")
    to.print(made)
    if result["cut"]:
        said = f"{result['cut']:,} of {result['asked']:,} requests were cut at their beginning to fit (--context)"
        to.print(said, style="yellow")
    if result["spent"]:
        tokens = "{prompt_tokens:,} tokens read, {completion_tokens:,} written, ${dollars:.4f}"
        to.print(tokens.format(**result["spent"]), style="dim")
    for name, told in result["contamination"].items():
        _print_contamination(name, told, to)


def _print_contamination(name: str, told: dict[str, Any] | None, to: Console) -> None:
    if told is None:
        to.print(
            f"{name}: the rows it was trained on are not here any more, so they were not checked",
            style="yellow",
        )
        return
    said = f"{told['rows']:,} of {told['of_rows']:,} rows that {name} was trained on hold"
    to.print(
        f"{said} {told['documents']:,} of {told['of']:,} documents, word for word or nearly",
        style="yellow" if told["rows"] else "dim",
    )
    for one in told["found"][:_QUOTED]:
        to.print(
            f"  {one['where']} holds {one['suite']} {one['prompt']}: {one['how']}", style="dim", markup=False
        )


def _interval(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not known"
    if math.isnan(found["low"]):
        return f"{found['value']:.3f} (interval not known)"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
