"""Who may be a judge: a model of the workspace, a GGUF file, or a model behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli.served import find_model
from nomoat.cli.talkers import cores
from nomoat.errors import DataError

if TYPE_CHECKING:
    from nomoat.engine.openai import OpenAIEngine, Spent
    from nomoat.evaluate.judge import Ask, Mode

KeyVariableOption = Annotated[
    str, typer.Option("--key-variable", metavar="NAME", help="Environment variable with the endpoint's key.")
]
PriceInOption = Annotated[
    float, typer.Option("--price-in", metavar="DOLLARS", min=0, help="For a million tokens read.")
]
PriceOutOption = Annotated[
    float, typer.Option("--price-out", metavar="DOLLARS", min=0, help="For a million tokens written.")
]
ATTEMPTS = 4
N_PARALLEL = 4


@dataclass(frozen=True)
class Endpoint:
    """How a model behind an endpoint is reached, and its prices."""

    model: str | None
    key_variable: str
    dollars_per_million_prompt_tokens: float
    dollars_per_million_completion_tokens: float


@dataclass(frozen=True)
class OpenJudge:
    """A judge that can be asked; `spent` says what it has cost so far, None for a local one."""

    name: str
    identity: str
    ask: Ask
    n_parallel: int
    spent: Callable[[], Spent | None]


@contextmanager
def open_judge(
    which: str,
    *,
    workspace: Path,
    mode: Mode,
    endpoint: Endpoint,
    tokenizer: Path | None,
    most_context: int,
) -> Iterator[OpenJudge]:
    """`which` is an address (http...), a file (....gguf, with its `tokenizer` folder), or a model of the workspace.

    Raises DataError where what it needs was not said, and as loading and `find_model` do.
    """
    if which.startswith(("http://", "https://")):
        with _behind(which, endpoint, mode) as judge:
            yield judge
        return
    if which.lower().endswith(".gguf"):
        gguf, name, identity = Path(which), Path(which).name, None
        if tokenizer is None:
            raise DataError(
                f"{which}: the folder with the judge's tokenizer and chat template is not said",
                hint="Give the transformers folder that the file was made from: --tokenizer DIR",
            )
    else:
        served = find_model(workspace, which)
        gguf, name, identity, tokenizer = served.gguf, served.name, served.model, served.tokenizer_dir
    with _local(gguf, name, identity, tokenizer, mode, most_context) as judge:
        yield judge


def open_endpoint(url: str, endpoint: Endpoint, what_for: str) -> OpenAIEngine:
    """A model behind an endpoint. Raises DataError where it was not said which, for what it is to do."""
    from nomoat.engine.openai import OpenAIEngine

    if endpoint.model is None:
        raise DataError(f"{url}: which of its models is to {what_for}? Give its name: --model NAME")
    return OpenAIEngine(
        url,
        endpoint.model,
        key_variable=endpoint.key_variable,
        attempts=ATTEMPTS,
        dollars_per_million_prompt_tokens=endpoint.dollars_per_million_prompt_tokens,
        dollars_per_million_completion_tokens=endpoint.dollars_per_million_completion_tokens,
    )


@contextmanager
def _behind(url: str, endpoint: Endpoint, mode: Mode) -> Iterator[OpenJudge]:
    from nomoat.evaluate.judge import ask_endpoint

    with open_endpoint(url, endpoint, "judge") as engine:
        assert endpoint.model is not None
        identity = f"{url.rstrip('/')} {endpoint.model}"
        yield OpenJudge(
            endpoint.model, identity, ask_endpoint(engine, mode), N_PARALLEL, lambda: engine.spent
        )


@contextmanager
def _local(
    gguf: Path, name: str, identity: str | None, tokenizer: Path, mode: Mode, most_context: int
) -> Iterator[OpenJudge]:
    from nomoat.engine.cmodel import CModel
    from nomoat.engine.gguf_file import check_gguf
    from nomoat.engine.llamaserver import LlamaServerEngine
    from nomoat.evaluate.judge import ask_engine
    from nomoat.ledger.files import hash_file

    check_gguf(gguf)
    with CModel(gguf, vocab_only=True) as model:
        n_ctx = min(most_context, model.context_length)
    with LlamaServerEngine(
        gguf, tokenizer_dir=tokenizer, n_ctx=n_ctx, n_parallel=N_PARALLEL, n_threads=cores()
    ) as engine:
        # within a workspace a file's name is a hash of its making; any other is known by its bytes
        yield OpenJudge(name, identity or hash_file(gguf), ask_engine(engine, mode), N_PARALLEL, lambda: None)
