"""Adapters on one base: each answers as PEFT does, and beside the others as it does alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import tiny_models
from helpers.adapters import adapted
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import Engine, Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.request import Piece, Request, ServingEngine, whole_answer
from nomoat.engine.turnstile import Turnstile
from nomoat.errors import EngineError
from nomoat.quantize.adapter import adapter_to_gguf
from nomoat.quantize.convert import to_gguf

NAMES = ("poet", "chef")
SHORT = Sampling(max_new_tokens=12)
TALKS = [Conversation((Message("user", f"{word} {i}"),)) for i, word in enumerate(["Lily", "the dog", "42"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose weights are float16's, `base.gguf` of it in F16, and an adapter and its GGUF of each name."""
    folder = tmp_path_factory.mktemp("adapters")
    base = tiny_models.build(folder / "base", "llama", max_position_embeddings=1024)
    weights = {name: tensor.half().float() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    to_gguf(base, folder / "base.gguf", type="F16")
    return folder


@pytest.fixture(scope="module")
def peft_models(folder: Path) -> dict[str, Any]:
    models = {}
    for seed, name in enumerate(NAMES, 1):
        models[name] = adapted(folder / "base", folder / name, seed=seed)
        adapter_to_gguf(folder / name, folder / "base", folder / f"{name}.gguf")
    return models


@pytest.fixture(scope="module")
def engine(folder: Path, peft_models: dict[str, Any]) -> Iterator[LlamaServerEngine]:
    with LlamaServerEngine(
        folder / "base.gguf",
        tokenizer_dir=folder / "base",
        exact=True,
        n_parallel=3,
        adapters={name: folder / f"{name}.gguf" for name in NAMES},
    ) as engine:
        yield engine


@pytest.fixture(scope="module")
def alone(folder: Path, peft_models: dict[str, Any]) -> dict[str | None, list[str]]:
    """What each answers in an engine of its own."""
    found = {}
    for name in (None, *NAMES):
        adapter = None if name is None else folder / f"{name}.gguf"
        with LlamaCppEngine(
            folder / "base.gguf", tokenizer_dir=folder / "base", exact=True, adapter=adapter
        ) as plain:
            found[name] = [_words(c.text) for c in plain.generate(TALKS, SHORT)]
    assert len({tuple(texts) for texts in found.values()}) == 3
    return found


def _words(text: str) -> str:
    """Up to the first character that is not whole, of which llama.cpp's server tells nothing certain."""
    return text.partition("\ufffd")[0]


def chosen(engine: LlamaServerEngine, name: str | None) -> ServingEngine:
    return engine if name is None else engine.adapted(name)


@torch.no_grad()
def test_greedy_answers_are_those_of_peft(folder: Path, peft_models: dict[str, Any]) -> None:
    same = 0
    for name, peft_model in peft_models.items():
        with LlamaCppEngine(
            folder / "base.gguf", tokenizer_dir=folder / "base", exact=True, adapter=folder / f"{name}.gguf"
        ) as engine:
            for talk, found in zip(TALKS, engine.generate(TALKS, SHORT), strict=True):
                prompt = engine.template.encode(talk, add_generation_prompt=True)
                expected = peft_model.generate(
                    torch.tensor([prompt]),
                    max_new_tokens=12,
                    do_sample=False,
                    eos_token_id=list(engine.template.stop_token_ids),
                    pad_token_id=0,
                )
                same += tuple(expected[0, len(prompt) :].tolist()) == found.tokens
    assert same >= 2 * len(TALKS) - 1  # half precision may turn a near tie


def test_a_view_of_an_engine_is_an_engine_that_serves(engine: LlamaServerEngine) -> None:
    as_engine: Engine = engine.adapted("poet")
    as_serving: ServingEngine = engine.adapted("poet")
    assert (as_serving.n_ctx, as_serving.n_parallel) == (engine.n_ctx, 3)
    assert as_engine.render(TALKS[0]) == engine.render(TALKS[0])
    assert "".join(as_engine.stream(TALKS[0], SHORT)) == as_engine.generate([TALKS[0]], SHORT)[0].text


def test_adapters_and_base_in_turn_are_what_each_is_alone(
    engine: LlamaServerEngine, alone: dict[str | None, list[str]]
) -> None:
    """The same prompts, so that what one remembers of a prompt would be wrong for the next."""
    for name in ("poet", None, "chef", "poet", "chef", None, "poet"):
        assert [_words(c.text) for c in chosen(engine, name).generate(TALKS, SHORT)] == alone[name], name


def test_adapters_and_base_beside_one_another_are_what_each_is_alone(
    engine: LlamaServerEngine, alone: dict[str | None, list[str]]
) -> None:
    wrong: list[object] = []

    def ask(name: str | None) -> None:
        for _ in range(4):
            for talk, expected in zip(TALKS, alone[name], strict=True):
                (found,) = chosen(engine, name).generate([talk], SHORT)
                if _words(found.text) != expected:
                    wrong.append((name, found.text, expected))

    threads = [threading.Thread(target=ask, args=(name,)) for name in (None, *NAMES, None, *NAMES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) <= 2, wrong  # of 72; answers that share a forward pass are rounded otherwise


def test_scores_and_embeddings_are_the_adapters(
    engine: LlamaServerEngine, folder: Path, peft_models: dict[str, Any]
) -> None:
    vectors = {name: chosen(engine, name).embed(["Lily"])[0] for name in (None, *NAMES)}
    for name, vector in vectors.items():
        assert all(other == name or vector != pytest.approx(vectors[other], abs=1e-2) for other in vectors)
        assert chosen(engine, name).embed(["Lily"])[0] == pytest.approx(vector, abs=1e-5)
    for name in NAMES:
        with LlamaCppEngine(
            folder / "base.gguf", tokenizer_dir=folder / "base", exact=True, adapter=folder / f"{name}.gguf"
        ) as plain:
            expected = plain.score(TALKS[0], ["a ball", "zzz"])
        assert engine.adapted(name).score(TALKS[0], ["a ball", "zzz"]) == pytest.approx(expected)
        assert engine.score(TALKS[0], ["a ball", "zzz"]) != pytest.approx(expected, rel=1e-2)


def test_who_comes_first_is_served_first(engine: LlamaServerEngine) -> None:
    """llama.cpp itself lets an answer with the weights that are in use pass one with others."""
    order: list[tuple[str | None, int]] = []

    def go(name: str | None, tokens: int) -> threading.Thread:
        def ask() -> None:
            prompt, never_ends = tuple(engine.encode(TALKS[0])), ((engine.tokenize("a")[0], 100.0),)
            whole_answer(chosen(engine, name), Request(prompt, Sampling(tokens), logit_bias=never_ends))
            order.append((name, tokens))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.1)
        return thread

    for _ in range(3):
        order.clear()
        for thread in [go(None, 900), go("poet", 8), go(None, 8)]:
            thread.join()
        assert order == [(None, 900), ("poet", 8), (None, 8)]


def test_nobody_passes_and_who_has_gone_does_not_hold_up() -> None:
    turnstile = Turnstile()
    order: list[str] = []
    free = threading.Event()

    def go(kind: str, name: str, wanted: bool = True, wait: bool = False) -> threading.Thread:
        def walk() -> None:
            with turnstile.through(kind, lambda: wanted) as may_go:
                order.append(name if may_go else f"{name} has gone")
                if wait:
                    assert free.wait(30)

        thread = threading.Thread(target=walk)
        thread.start()
        time.sleep(0.05)
        return thread

    threads = [
        go("a", "first", wait=True),
        go("a", "beside it", wait=True),
        go("b", "impatient", wanted=False),
        go("b", "second"),
        go("a", "third"),
    ]
    assert order == ["first", "beside it", "impatient has gone"]
    free.set()
    for thread in threads:
        thread.join(30)
    assert order[3:] == ["second", "third"]


def test_a_reader_who_leaves_while_he_waits(engine: LlamaServerEngine) -> None:
    stream = engine.stream(TALKS[0], Sampling(max_new_tokens=900))
    next(stream)
    asked: list[Piece] = []
    request = Request(tuple(engine.encode(TALKS[0])), SHORT)
    assert engine.adapted("chef").answer(request, lambda piece: bool(asked.append(piece))) is None
    assert asked == [Piece("")]
    stream.close()


def test_a_file_that_is_no_adapter_of_the_base(folder: Path, peft_models: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="llama.cpp cannot load it with .*base.gguf"):
        LlamaServerEngine(
            folder / "base.gguf", tokenizer_dir=folder / "base", adapters={"poet": folder / "base.gguf"}
        )
    with pytest.raises(EngineError, match="gone.gguf: no such file"):
        LlamaCppEngine(folder / "base.gguf", tokenizer_dir=folder / "base", adapter=folder / "gone.gguf")
