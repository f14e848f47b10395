"""`nomoat serve --adapter`: adapters under names of their own, on weights that are loaded once."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from helpers import forked
from helpers.adapters import adapted
from helpers.generations import workspace_with_generation
from nomoat.chat.conversation import Conversation, Message
from nomoat.cli.adapters import read_adapters
from nomoat.cli.catalogue import WorkspaceModels
from nomoat.cli.main import app
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.llamaserver import footprint_bytes
from nomoat.errors import ModelError, ServeError
from nomoat.serve import run
from nomoat.serve.metrics import Metrics
from nomoat.serve.pool import Pool
from nomoat.serve.turns import Desk
from nomoat.serve.web.arena import Arena, Votes

SOURCE = str(Path(__file__).parents[2] / "src")
BODY = {"messages": [{"role": "user", "content": "Lily"}], "max_tokens": 12, "temperature": 0}
NAMES = ["base", "gen-0001", "poet", "chef", "guest"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, and beside it adapters `poet` and `chef` of its base and `guest` of its generation."""
    folder = tmp_path_factory.mktemp("adapters")
    workspace = workspace_with_generation(folder)
    generation = WorkspaceModels(workspace).find("gen-0001").weights_dir
    assert generation is not None
    for seed, (name, on) in enumerate(
        {"poet": folder / "base", "chef": folder / "base", "guest": generation}.items()
    ):
        adapted(on, folder / name, seed=seed + 1)
    return workspace


@pytest.fixture(scope="module")
def models(workspace: Path) -> WorkspaceModels:
    folder = workspace.parent
    words = [f"poet={folder}/poet", f"chef@base={folder}/chef", f"guest@gen-0001={folder}/guest"]
    (folder / "files").mkdir()
    return WorkspaceModels(workspace, read_adapters(words, WorkspaceModels(workspace), folder / "files"))


def settings(budget_bytes: int) -> run.Settings:
    return run.Settings(
        most_context=256,
        n_parallel=2,
        n_threads=1,
        budget_bytes=budget_bytes,
        idle_s=600,
        most_waiting=64,
        hosts=frozenset({"testserver"}),
    )


@pytest.fixture(scope="module")
def client(models: WorkspaceModels) -> Iterator[TestClient]:
    with TestClient(run.make_app(models, settings(2**30), None)) as client:
        yield client


@dataclass(frozen=True)
class Alone:
    """What each answers to a question in an engine of its own."""

    question: str
    answers: dict[str, str]


@pytest.fixture(scope="module")
def alone(models: WorkspaceModels) -> Alone:
    """The first question that all answer with whole characters, and differently."""
    questions = [f"{word} {number}" for word in ("Lily", "dog", "ball", "42") for number in range(8)]
    talks = [Conversation((Message("user", question),)) for question in questions]
    found = {}
    for name in NAMES:
        model = models.find(models.resolve(name) or "")
        adapter = dict(model.adapters)[name] if model.adapter else None
        with LlamaCppEngine(model.gguf, tokenizer_dir=model.tokenizer_dir, adapter=adapter) as engine:
            answers = engine.generate(talks, Sampling(max_new_tokens=12))
        found[name] = [_whole(completion.text) for completion in answers]
    for question, answers in zip(questions, zip(*found.values(), strict=True), strict=True):
        if min(map(len, answers)) > 3 and len(set(answers)) == len(NAMES):
            return Alone(question, dict(zip(NAMES, answers, strict=True)))
    raise AssertionError(found)


def _whole(text: str) -> str:
    """Up to the first character that is not whole, of which llama.cpp's server tells nothing certain."""
    return text.partition("\ufffd")[0]


def answer(client: TestClient, name: str, question: str = "Lily") -> str:
    messages = [{"role": "user", "content": question}]
    response = client.post("/v1/chat/completions", json=BODY | {"model": name, "messages": messages})
    assert response.status_code == 200, response.text
    return _whole(response.json()["choices"][0]["message"]["content"])


def test_each_is_a_model_and_weights_are_loaded_once(client: TestClient, alone: Alone) -> None:
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert listed == ["champion", "gen-0001", "base", "poet", "chef", "guest"]
    assert {name: answer(client, name, alone.question) for name in NAMES} == alone.answers
    assert client.get("/health").json()["loaded"] == ["base of gen-0001", "gen-0001"]


def test_requests_beside_one_another_get_their_own(client: TestClient, alone: Alone) -> None:
    names = NAMES * 6
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda name: answer(client, name, alone.question), names))
    wrong = [(name, text) for name, text in zip(names, found, strict=True) if text != alone.answers[name]]
    assert len(wrong) <= 1, wrong  # answers that share a forward pass are rounded otherwise


def test_embeddings_and_given_texts_are_the_adapters(client: TestClient) -> None:
    def embedding(name: str) -> Any:
        return client.post("/v1/embeddings", json={"model": name, "input": "Lily"}).json()["data"][0][
            "embedding"
        ]

    assert embedding("poet") != pytest.approx(embedding("base"), abs=1e-2)
    body = {"prompt": "Once upon", "echo": True, "logprobs": 1, "max_tokens": 1}
    poet, base = (
        client.post("/v1/completions", json={"model": name, **body}).json() for name in ("poet", "base")
    )
    assert poet["choices"][0]["logprobs"]["token_logprobs"][1:] != pytest.approx(
        base["choices"][0]["logprobs"]["token_logprobs"][1:], abs=1e-2
    )


def test_the_budget_counts_the_base_once(models: WorkspaceModels) -> None:
    base = models.find("base of gen-0001")
    assert [name for name, _ in base.adapters] == ["poet", "chef"]
    needed = footprint_bytes(base.gguf, n_tokens=2 * 256) + sum(
        file.stat().st_size for _, file in base.adapters
    )
    with TestClient(run.make_app(models, settings(needed), None)) as client:
        for name in ("poet", "base", "chef"):
            answer(client, name)
        assert client.get("/health").json()["loaded"] == ["base of gen-0001"]
        assert (
            f'nomoat_model_bytes{{model="base of gen-0001"}} {float(needed)}' in client.get("/metrics").text
        )
    with TestClient(run.make_app(models, settings(needed - 1), None)) as client:
        refused = client.post("/v1/chat/completions", json={"model": "poet", **BODY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_too_large")


def test_votes_tell_an_adapter_from_its_base_and_the_arena_leaves_it_out(
    models: WorkspaceModels, workspace: Path
) -> None:
    poet, base = models.find("poet"), models.find("base of gen-0001")
    assert poet.model != base.model
    again = workspace.parent / "again"
    again.mkdir()
    (other,) = read_adapters([f"poet={workspace.parent}/poet"], WorkspaceModels(workspace), again)
    assert WorkspaceModels(workspace, [other]).find("poet").model == poet.model  # in every run of the server
    pool = Pool(
        models, *run.ENGINES["llama.cpp"](settings(2**30)), budget_bytes=1, idle_s=1, metrics=Metrics()
    )
    arena = Arena(Desk(pool, Metrics(), most_waiting=1), Votes(workspace / "x.db", lambda holder: "ada"))
    assert [one.name for one in arena._contestants()] == ["gen-0001", base.name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["poet"], "--adapter: got 'poet'; expected NAME=DIR, or NAME@MODEL=DIR"),
        (["base={}/poet"], "--adapter base={}/poet: the name base is taken"),
        (["gen-0007={}/poet"], "--adapter gen-0007={}/poet: the name gen-0007 is taken"),
        (["a={}/poet", "a={}/chef"], "--adapter a={}/chef: the name a is taken"),
        (
            ["a@gen-0009={}/poet"],
            "--adapter a@gen-0009={}/poet: there is no model gen-0009; this workspace has champion, gen-0001, base",
        ),
    ],
)
def test_what_cannot_be_served(words: list[str], said: str, workspace: Path, tmp_path: Path) -> None:
    folder = str(workspace.parent)
    with pytest.raises(ServeError) as caught:
        read_adapters([word.format(folder) for word in words], WorkspaceModels(workspace), tmp_path)
    assert caught.value.message == said.format(folder)


def test_an_adapter_that_was_trained_here_knows_its_base(workspace: Path, tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    adapted(workspace.parent / "base", bound)
    weights = load_file(bound / "adapter_model.safetensors")
    save_file(weights, bound / "adapter_model.safetensors", metadata={"base_sha256": "f" * 64})
    with pytest.raises(ModelError, match="this adapter was trained on another base"):
        read_adapters([f"a@gen-0001={bound}"], WorkspaceModels(workspace), tmp_path)


def test_the_command_line_says_what_is_wrong(workspace: Path) -> None:
    for words, said in (
        (
            ("--adapter", "poet=nowhere"),
            "nowhere: no adapter_config.json; expected an adapter as PEFT saves it",
        ),
        (("--adapter", "poet=x", "--engine", "vllm"), "--adapter: only llama.cpp serves adapters"),
    ):
        result = CliRunner().invoke(app, ["serve", "--workspace", str(workspace), "--port", "0", *words])
        assert result.exit_code == 2
        assert said in result.stderr


@pytest.mark.slow
def test_what_was_written_goes_with_the_server(workspace: Path, tmp_path: Path) -> None:
    process = forked.Popen(
        [
            *(sys.executable, "-m", "nomoat.cli.main", "serve", "--port", "0", "--json"),
            *("--workspace", str(workspace), "--adapter", f"poet={workspace.parent}/poet"),
        ],
        env={**os.environ, "PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    told = ""
    while not told.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.wait()
        told += line
    assert json.loads(told)["models"][-1] == "poet"
    assert len(list(tmp_path.rglob("poet.gguf"))) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(tmp_path.rglob("*.gguf")) == []
