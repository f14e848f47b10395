"""Many answers at once from PyTorch: transformers' own words, whoever is beside whom."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers import tiny_models
from helpers.live import LiveBytes
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import Engine, Sampling
from nomoat.engine.grammar import json_grammar
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.request import Piece, Request, ServingEngine, whole_answer
from nomoat.engine.torchserver import TorchEngine, footprint_bytes
from nomoat.errors import EngineError
from nomoat.model.fused import compiled
from nomoat.model.fused.decode import read_step
from nomoat.model.load import Machine, load_model
from nomoat.quantize.convert import to_gguf

HERE = Machine("cpu", torch.float32)
SHORT = Sampling(max_new_tokens=12)


def say(text: str) -> Conversation:
    return Conversation((Message("user", text),))


TALKS = [say(f"{word} {i}") for i, word in enumerate(["Lily", "the dog", "a ball", "мир", "42", "old tree"])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TorchEngine]:
    with TorchEngine(folder, n_parallel=3, machine=HERE) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[LlamaCppEngine]:
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True) as engine:
        yield engine


def answer(engine: TorchEngine, request: Request) -> str:
    return "".join(piece.text for piece in whole_answer(engine, request)[0])


def prompt(engine: TorchEngine, talk: Conversation = TALKS[0]) -> tuple[int, ...]:
    return tuple(engine.encode(talk))


def test_it_is_an_engine_that_serves(engine: TorchEngine) -> None:
    as_engine: Engine = engine
    as_serving: ServingEngine = engine
    assert (as_serving.n_ctx, as_serving.n_parallel) == (256, 3)
    assert as_engine.render(TALKS[0]).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3-long"])
def test_greedy_answers_are_those_of_transformers_generate(family: str, tmp_path: Path) -> None:
    """More of them than rows, and prompts of different lengths; one family has a window, one takes its own step."""
    folder = tiny_models.build(tmp_path, family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with TorchEngine(folder, n_ctx=200, n_parallel=4, machine=HERE) as engine:
        stops = list(engine._stop_ids)
        for talk, found in zip(TALKS, engine.generate(TALKS, Sampling(max_new_tokens=24)), strict=True):
            ids = torch.tensor([engine.encode(talk)])
            said = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=0,
            )[0, ids.shape[1] :].tolist()
            special = engine._special_ids
            assert [t for t in found.tokens if t not in special] == [t for t in said if t not in special]
            assert found.finish_reason == ("stop" if said[-1] in stops else "length")
            assert found.prompt_tokens == ids.shape[1]


def test_it_writes_the_words_of_llama_cpp(engine: TorchEngine, plain: LlamaCppEngine) -> None:
    assert [c.text for c in engine.generate(TALKS, SHORT)] == [c.text for c in plain.generate(TALKS, SHORT)]


def test_a_stream_is_the_answer_in_pieces_and_may_be_closed(engine: TorchEngine) -> None:
    (whole,) = engine.generate([TALKS[0]], SHORT)
    pieces = list(engine.stream(TALKS[0], SHORT))
    assert len(pieces) > 3 and "".join(pieces) == whole.text
    for _ in range(4):  # more than there are rows
        stream = engine.stream(TALKS[0], Sampling(max_new_tokens=200))
        next(stream)
        stream.close()
    assert engine.generate([TALKS[1]], SHORT)[0].text


def test_what_a_reader_says_and_raises(engine: TorchEngine) -> None:
    taken: list[Piece] = []
    request = Request(prompt(engine), Sampling(max_new_tokens=200))
    assert engine.answer(request, lambda piece: len(taken.append(piece) or taken) < 6) is None
    assert len(taken) == 6

    def take(piece: Piece) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.answer(request, take)


def test_samples_are_their_own_whoever_is_beside_them(engine: TorchEngine) -> None:
    def drawn(seed: int) -> str:
        return answer(engine, Request(prompt(engine), Sampling(12, temperature=1.0, top_p=0.9, seed=seed)))

    alone = [drawn(seed) for seed in range(6)]
    assert len(set(alone)) == 6
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda s=seed: found.update({s: drawn(s)})) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(6)] == alone


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(engine: TorchEngine) -> None:
    whole = answer(engine, Request(prompt(engine), SHORT))
    stop = whole[4:7]
    pieces, ending = whole_answer(engine, Request(prompt(engine), Sampling(12, stop=(stop,))))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert (ending.finish_reason, ending.completion_tokens < 12) == ("stop", True)


def test_biases_penalties_and_min_p(engine: TorchEngine) -> None:
    (token,) = engine.tokenize("a")
    assert answer(engine, Request(prompt(engine), SHORT, logit_bias=((token, 100.0),))) == "a" * 12
    penalised = answer(
        engine, Request(prompt(engine), SHORT, logit_bias=((token, 100.0),), frequency_penalty=60.0)
    )
    assert penalised[:2] == "aa" != penalised[1:3]  # 100 - 60 is still the most, 100 - 120 is not
    sampling = Sampling(12, temperature=1.5, seed=3)
    assert answer(engine, Request(prompt(engine), sampling, min_p=1.0)) == answer(
        engine, Request(prompt(engine), SHORT)
    )


@torch.no_grad()
def test_log_probabilities_are_those_of_the_model(engine: TorchEngine, folder: Path) -> None:
    pieces, ending = whole_answer(
        engine, Request(prompt(engine), Sampling(12, temperature=0.7), top_logprobs=3)
    )
    written = [token for piece in pieces for token in piece.tokens]
    tokens = [w.chosen.token for w in written]
    assert len(tokens) == ending.completion_tokens == 12
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[*prompt(engine), *tokens]])
    expected = model(ids).logits[0, len(prompt(engine)) - 1 : -1].log_softmax(-1)
    for place, token in zip(expected, written, strict=True):
        assert token.chosen.logprob == pytest.approx(place[token.chosen.token].item(), abs=1e-4)
        assert [top.token for top in token.top] == place.topk(3).indices.tolist()
        assert token.top[0].logprob == pytest.approx(place.max().item(), abs=1e-4)


def test_scores_and_embeddings_are_those_of_llama_cpp(
    engine: TorchEngine, folder: Path, plain: LlamaCppEngine
) -> None:
    texts = ["a ball", "zzz qqq"]
    assert engine.score(TALKS[0], texts) == pytest.approx(plain.score(TALKS[0], texts), abs=1e-3)
    with LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True, n_parallel=1) as other:
        expected = other.embed(["Lily", "the dog"])
    found = engine.embed(["Lily", "the dog"])
    assert [math.hypot(*vector) for vector in found] == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(found, expected, atol=5e-3)
    weighed = engine.weigh(engine.tokenize("Lily met Max"), 2)
    assert weighed[0].chosen.logprob is None
    assert b"".join(w.chosen.raw for w in weighed) == b"Lily met Max"


def test_what_does_not_fit_is_refused_and_disturbs_nobody(engine: TorchEngine, folder: Path) -> None:
    with pytest.raises(EngineError, match="the prompt has 300 tokens and the context 256"):
        engine.answer(Request((5,) * 300, SHORT), lambda piece: True)
    for request in (Request((5, 10**6), SHORT), Request((5,), SHORT, logit_bias=((10**6, 1.0),))):
        with pytest.raises(EngineError, match="invalid tokens; the vocabulary has ids 0 to"):
            engine.answer(request, lambda piece: True)
    with pytest.raises(EngineError, match="llguidance: "):
        engine.answer(Request((5,), SHORT, grammar="%llguidance {}\nstart: ["), lambda piece: True)
    with pytest.raises(EngineError, match=r"input\[1\] has 0 tokens; expected 1 to 256"):
        engine.embed(["Lily", ""])
    with pytest.raises(EngineError, match="n_ctx: got 257; this model's context has 1 to 256 tokens"):
        TorchEngine(folder, n_ctx=257)
    assert engine.generate([TALKS[0]], SHORT)[0].text


def test_one_that_cannot_compute_a_step_is_refused_when_it_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody must wait for answers that cannot come."""

    def fails(model: object) -> None:
        raise RuntimeError("no memory for copies")

    monkeypatch.setattr("nomoat.engine.torchserver.step_of", fails)
    with pytest.raises(RuntimeError, match="no memory for copies"):
        TorchEngine(folder, machine=HERE)


def test_closing_ends_what_is_being_written(folder: Path) -> None:
    engine = TorchEngine(folder, n_parallel=1, machine=HERE)
    stream = engine.stream(TALKS[0], Sampling(max_new_tokens=200))
    next(stream)
    threading.Timer(0.1, engine.close).start()
    with pytest.raises(EngineError, match="this engine has been closed"):
        for _ in range(50):
            list(stream)
            stream = engine.stream(TALKS[0], Sampling(max_new_tokens=200))


@pytest.mark.parametrize("family", ["llama", "smollm"])
@pytest.mark.parametrize("copied", ["blocks and output layer", "blocks", "nothing"])
def test_what_it_takes_is_the_weights_their_copies_and_the_cache(
    family: str, copied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.decoding() is None:
        pytest.skip("no C compiler, and oneDNN does not tell the size of its copy")
    folder = tiny_models.build(tmp_path, family, vocab_size=2_048)
    monkeypatch.setattr("nomoat.engine.torchserver.choose_machine", lambda: HERE)
    limit = {"blocks and output layer": 1 << 30, "blocks": 4 * 2_000 * 64, "nothing": 0}[copied]
    for module in ("engine.torchserver", "model.fused.decode"):
        monkeypatch.setattr(f"nomoat.{module}.FOLDED_BYTES", limit)
    model = load_model(folder, HERE)
    with LiveBytes() as live, torch.no_grad():
        step = read_step(model)
    assert step is not None
    weights = sum(parameter.nbytes for parameter in model.parameters())
    # norms are not copied
    assert footprint_bytes(folder, n_tokens=0) - weights == pytest.approx(live.now, rel=0.01)
    assert (
        footprint_bytes(folder, n_tokens=10) - footprint_bytes(folder, n_tokens=0) == 10 * 4 * 2 * 2 * 2 * 16
    )


SCHEMAS = [
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "é"]}},
        "required": ["a", "b"],
    },
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {"const": {"name": "Lily"}},
]


def held(engine: ServingEngine, schema: dict[str, Any], **more: Any) -> Request:
    prompt = tuple(engine.encode(TALKS[0]))
    return Request(prompt, Sampling(**{"max_new_tokens": 64} | more), grammar=json_grammar(schema, "schema"))


def test_a_form_holds_the_answers_that_llama_cpp_gives_too(engine: TorchEngine, folder: Path) -> None:
    with LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True, n_parallel=1) as other:
        for schema in SCHEMAS:
            request = held(engine, schema)
            pieces, ending = whole_answer(engine, request)
            text = "".join(piece.text for piece in pieces)
            assert text == "".join(piece.text for piece in whole_answer(other, request)[0])
            if ending.finish_reason == "stop":
                jsonschema_rs.validate(schema, json.loads(text))


def test_each_of_many_answers_is_held_to_its_own_form(engine: TorchEngine) -> None:
    alone = answer(engine, Request(tuple(engine.encode(TALKS[1])), SHORT))
    requests = [
        held(engine, schema, temperature=1.0, seed=seed, max_new_tokens=200)
        for seed in range(3)
        for schema in SCHEMAS[1:]
    ]
    found: dict[int, str] = {}

    def ask(index: int) -> None:
        found[index] = answer(engine, requests[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    assert answer(engine, Request(tuple(engine.encode(TALKS[1])), SHORT)) == alone
    for thread in threads:
        thread.join()
    for index, text in found.items():
        jsonschema_rs.validate(SCHEMAS[1:][index % 2], json.loads(text))
    assert len(found) == len(requests)


def test_a_form_goes_before_what_min_p_and_biases_ask_for(engine: TorchEngine) -> None:
    (unwanted,) = engine.tokenize("a")
    request = held(engine, {"const": 7}, temperature=1.0)
    request = replace(request, min_p=0.99, logit_bias=((unwanted, 100.0),))
    assert answer(engine, request) == "7"


def test_a_stop_token_that_the_tokenizer_takes_for_text_is_none_in_a_form(
    folder: Path, tmp_path: Path
) -> None:
    """Else an answer might end within a string."""
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = token["content"] not in ("<|im_end|>", "<|im_start|>")
    path.write_text(json.dumps(tokenizer))
    config = tmp_path / "model" / "tokenizer_config.json"
    told = json.loads(config.read_text())
    for key in ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder"):
        told.pop(key, None)
    told["eos_token"] = "<|endoftext|>"
    config.write_text(json.dumps(told))
    with TorchEngine(tmp_path / "model", n_parallel=1, machine=HERE) as engine:
        (end,) = engine.tokenize("<|im_end|>")
        request = held(engine, {"type": "string", "minLength": 8}, max_new_tokens=200)
        request = replace(request, logit_bias=((end, 100.0),))
        assert len(json.loads(answer(engine, request))) >= 8
