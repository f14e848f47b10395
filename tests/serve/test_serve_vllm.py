"""`nomoat serve --engine vllm`, over the stand-in for vLLM: llama.cpp's answers, through the same API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from helpers import tiny_models
from helpers.standin import standing_in
from nomoat.cli.serve import EngineName
from nomoat.errors import ServeError
from nomoat.model.load import Machine
from nomoat.quantize.convert import to_gguf
from nomoat.serve import run
from nomoat.serve.models import ModelName, ServedModel

GIB = 2**30
CHAT = {"messages": [{"role": "user", "content": "Lily"}], "max_tokens": 12, "temperature": 0}


class Folder:
    """One folder under two names, and as a base."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[ModelName]:
        return [ModelName(name) for name in ("gen-0002", "gen-0001", "base")]

    def resolve(self, name: str) -> str | None:
        return name if name in [one.name for one in self.names()] else None

    def weights_of(self, resolved: str) -> str:
        return resolved

    def find(self, resolved: str) -> ServedModel:
        gguf = self._folder / "model.gguf"
        return ServedModel(resolved, gguf, self._folder, 256, is_base=resolved == "base")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("standin")


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory, place: Path) -> Iterator[dict[str, TestClient]]:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    with standing_in(place), pytest.MonkeyPatch.context() as patch:
        patch.setattr("nomoat.engine.vllm.card_bytes", lambda: 80 * GIB)
        patch.setattr("nomoat.engine.torchserver.choose_machine", lambda: Machine("cpu", torch.float32))
        made = {}
        for engine in run.ENGINES:
            settings = run.Settings(
                most_context=256,
                n_parallel=2,
                n_threads=1,
                budget_bytes=run.budget_bytes(engine, None if engine == run.VLLM else 1),
                idle_s=600,
                most_waiting=8,
                engine=engine,
            )
            made[engine] = TestClient(run.make_app(Folder(folder), settings, None), "http://localhost")
        with made[run.LLAMACPP], made[run.TORCH], made[run.VLLM]:
            yield made


def asked(app: TestClient, path: str, **body: Any) -> Any:
    answer = app.post(path, json={"model": "gen-0001", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_api_gives_the_same_answers(apps: dict[str, TestClient]) -> None:
    found, logprobs = [], []
    for engine in run.ENGINES:
        app = apps[engine]
        chat = asked(app, "/v1/chat/completions", **CHAT, logprobs=True, top_logprobs=2)
        text = asked(
            app, "/v1/completions", prompt="a ball", max_tokens=4, temperature=0, echo=True, logprobs=2
        )
        response = asked(app, "/v1/responses", input="the dog", max_output_tokens=8, temperature=0)
        tokens = chat["choices"][0]["logprobs"]["content"]
        found.append((
            chat["choices"][0]["message"],
            chat["choices"][0]["finish_reason"],
            {key: chat["usage"][key] for key in ("prompt_tokens", "completion_tokens")},
            [token["token"] for token in tokens[:3]],  # then a character begins of which llama.cpp tells nothing
            text["choices"][0]["text"],
            text["choices"][0]["logprobs"]["tokens"][:4],
            response["output"][0]["content"][0]["text"],
        ))  # fmt: skip
        logprobs.append([token["logprob"] for token in tokens[:3]])
    assert found[0] == found[1] == found[2]
    for others in logprobs[1:]:
        assert logprobs[0] == pytest.approx(others, abs=1e-2)


def test_a_schema_holds_torchs_answer_as_it_does_llama_cpps(apps: dict[str, TestClient]) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    found = [
        asked(apps[engine], "/v1/chat/completions", **CHAT, response_format=form)["choices"][0]["message"]
        for engine in (run.LLAMACPP, run.TORCH)
    ]
    assert found[0] == found[1]
    assert found[0]["content"].startswith('{"n": ')


def test_a_model_that_has_no_weights_here_is_told_of(apps: dict[str, TestClient]) -> None:
    refused = apps[run.TORCH].post("/v1/chat/completions", json={"model": "base", **CHAT})
    assert refused.status_code == 503
    assert "base: its weights in transformers' form are not in this workspace" in refused.text


def test_a_chat_is_streamed_and_a_schema_passed_on(apps: dict[str, TestClient], place: Path) -> None:
    whole = asked(apps[run.VLLM], "/v1/chat/completions", **CHAT)["choices"][0]["message"]["content"]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    body = {"model": "gen-0001", **CHAT, "stream": True, "response_format": schema}
    lines = apps[run.VLLM].post("/v1/chat/completions", json=body).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == whole
    sent = json.loads((place / "requests.jsonl").read_text().splitlines()[-1])
    assert sent["structured_outputs"]["grammar"].startswith("%llguidance {}\nstart: %json {")


def test_one_model_at_a_time_has_the_card(apps: dict[str, TestClient], place: Path) -> None:
    app, first = apps[run.VLLM], asked(apps[run.VLLM], "/v1/chat/completions", **CHAT)
    other = asked(app, "/v1/chat/completions", **{**CHAT, "model": "gen-0002"})
    assert other["choices"] == first["choices"]
    assert json.loads((place / "options").read_text())["gpu_memory_utilization"] == 0.9
    sizes = [
        line.split()
        for line in app.get("/metrics").text.splitlines()
        if line.startswith("nomoat_model_bytes{")
    ]
    assert [(name, float(size)) for name, size in sizes] == [
        ('nomoat_model_bytes{model="gen-0002"}', int(0.9 * 80 * GIB))
    ]


def test_what_it_cannot_do_is_said(apps: dict[str, TestClient]) -> None:
    app = apps[run.VLLM]
    asked(app, "/v1/chat/completions", **CHAT)
    base = app.post("/v1/chat/completions", json={**CHAT, "model": "base"})
    assert base.status_code == 503
    assert "nomoat_model_bytes{" in app.get("/metrics").text, "nobody gave way to it"
    assert (
        "base: its weights in transformers' form are not in this workspace" in base.json()["error"]["message"]
    )
    vectors = app.post("/v1/embeddings", json={"model": "gen-0002", "input": "Lily"})
    assert vectors.status_code == 400
    assert "a vLLM that writes answers gives no embeddings" in vectors.json()["error"]["message"]


def test_budgets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(run.ENGINES) == [name.value for name in EngineName]
    monkeypatch.setattr("nomoat.engine.vllm.card_bytes", lambda: 24 * GIB)
    assert run.budget_bytes(run.VLLM, None) == int(0.9 * 24 * GIB)
    assert run.budget_bytes(run.VLLM, 10) == 10 * GIB
    with pytest.raises(ServeError, match="--memory: got 30; expected at most the 24.0 GiB of this GPU"):
        run.budget_bytes(run.VLLM, 30)
