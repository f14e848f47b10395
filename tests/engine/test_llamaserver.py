"""Many answers at once from llama.cpp's server in this process."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import tiny_models
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import Engine, Sampling
from nomoat.engine.grammar import json_grammar
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.request import Piece, Request, ServingEngine
from nomoat.errors import EngineError
from nomoat.quantize.convert import to_gguf

SOURCE = str(Path(__file__).parents[2] / "src")
OPEN_AND_CLOSE = """
import subprocess, sys
from pathlib import Path
from nomoat.engine.llamaserver import LlamaServerEngine
folder = Path(sys.argv[1])
rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    for _ in range(6):
        LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder).close()
finally:
    for rival in rivals:
        rival.kill()
print("closed")
"""
SHORT = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LlamaServerEngine]:
    with LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True, n_parallel=3) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[LlamaCppEngine]:
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True) as engine:
        yield engine


def say(text: str) -> Conversation:
    return Conversation((Message("user", text),))


TALKS = [say(f"{word} {i}") for i, word in enumerate(["Lily", "the dog", "a ball", "мир", "42", "old tree"])]


def answer(engine: LlamaServerEngine, request: Request) -> str:
    pieces: list[str] = []
    assert engine.answer(request, lambda piece: not pieces.append(piece.text)) is not None
    return "".join(pieces)


def test_it_is_an_engine_that_serves(engine: LlamaServerEngine) -> None:
    as_engine: Engine = engine
    as_serving: ServingEngine = engine
    assert (as_serving.n_ctx, as_serving.n_parallel) == (256, 3)
    assert as_engine.render(TALKS[0]).endswith("<|im_start|>assistant\n")


def test_it_reads_the_bytes_and_writes_the_words_of_the_other_engine(
    engine: LlamaServerEngine, plain: LlamaCppEngine
) -> None:
    assert [engine.render(talk) for talk in TALKS] == [plain.render(talk) for talk in TALKS]
    found, expected = engine.generate(TALKS, SHORT), plain.generate(TALKS, SHORT)
    assert [c.prompt_tokens for c in found] == [c.prompt_tokens for c in expected]
    # llama.cpp leaves the first bytes of an unfinished character out. Other rounding may turn a near tie.
    same = sum(
        a.text.rstrip("\ufffd") == b.text.rstrip("\ufffd") for a, b in zip(found, expected, strict=True)
    )
    assert same >= len(TALKS) - 1


def test_a_stream_is_the_answer_in_pieces(engine: LlamaServerEngine) -> None:
    (whole,) = engine.generate([TALKS[0]], SHORT)
    pieces = list(engine.stream(TALKS[0], SHORT))
    assert len(pieces) > 3
    assert "".join(pieces) == whole.text


def test_a_closed_stream_frees_its_place(engine: LlamaServerEngine) -> None:
    for _ in range(4):  # more than there are places
        stream = engine.stream(TALKS[0], Sampling(max_new_tokens=200))
        next(stream)
        stream.close()
    assert engine.generate([TALKS[1]], SHORT)[0].text


def test_a_reader_who_says_stop_is_given_no_more(engine: LlamaServerEngine) -> None:
    taken: list[Piece] = []
    request = Request(tuple(engine.encode(TALKS[0])), Sampling(max_new_tokens=200))
    assert engine.answer(request, lambda piece: len(taken.append(piece) or taken) < 6) is None
    assert len(taken) == 6


def test_what_a_reader_raises_comes_out(engine: LlamaServerEngine) -> None:
    def take(piece: Piece) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.answer(Request(tuple(engine.encode(TALKS[0])), SHORT), take)


def test_answers_beside_one_another_do_not_mix(engine: LlamaServerEngine) -> None:
    alone = [answer(engine, Request(tuple(engine.encode(talk)), SHORT)) for talk in TALKS]
    found: dict[int, str] = {}

    def ask(i: int) -> None:
        found[i] = answer(engine, Request(tuple(engine.encode(TALKS[i])), SHORT))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(TALKS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found[i] == text for i, text in enumerate(alone)) >= len(TALKS) - 1


def test_seeds_repeat_and_differ(engine: LlamaServerEngine) -> None:
    def drawn(seed: int) -> str:
        sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=seed)
        return answer(engine, Request(tuple(engine.encode(TALKS[0])), sampling))

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) == 5


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(engine: LlamaServerEngine) -> None:
    whole = answer(engine, Request(tuple(engine.encode(TALKS[0])), SHORT))
    stop = whole[4:7]
    cut = answer(engine, Request(tuple(engine.encode(TALKS[0])), Sampling(max_new_tokens=12, stop=(stop,))))
    assert cut == whole[: whole.index(stop)]


def test_a_bias_forbids_and_forces_tokens(engine: LlamaServerEngine) -> None:
    prompt = tuple(engine.encode(TALKS[0]))
    (token,) = engine.tokenize("a")
    assert answer(engine, Request(prompt, SHORT, logit_bias=((token, 100.0),))) == "a" * 12
    penalised = Request(prompt, SHORT, logit_bias=((token, 100.0),), presence_penalty=2.0)
    assert answer(engine, penalised).startswith("a")


def test_log_probabilities_are_those_of_the_model(engine: LlamaServerEngine, plain: LlamaCppEngine) -> None:
    """On the tokens before the first that only begins a character, which llama.cpp does not tell."""
    prompt = engine.encode(TALKS[0])
    pieces: list[Piece] = []
    engine.answer(Request(tuple(prompt), SHORT, top_logprobs=3), lambda p: not pieces.append(p))
    written = [token for piece in pieces for token in piece.tokens][:4]
    tokens = [w.chosen.token for w in written]
    assert tuple(tokens) == plain.generate([TALKS[0]], SHORT)[0].tokens[:4]
    expected = plain._model.logits([*prompt, *tokens]).astype(np.float64)[len(prompt) - 1 : -1]
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    for place, token in zip(expected, written, strict=True):
        assert token.chosen.logprob == pytest.approx(place[token.chosen.token], abs=1e-3)
        assert [top.token for top in token.top] == np.argsort(-place)[:3].tolist()
        assert token.top[0].logprob == pytest.approx(place.max(), abs=1e-3)
        assert token.chosen.raw.decode() == token.chosen.text


def test_a_grammar_holds_the_answer_to_a_schema(engine: LlamaServerEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Lily", "Max"]}, "is_old": {"type": "boolean"}},
        "required": ["name", "is_old"],
        "additionalProperties": False,
    }
    for temperature in (0.0, 1.5):
        sampling = Sampling(max_new_tokens=60, temperature=temperature)
        request = Request(tuple(engine.encode(TALKS[0])), sampling, grammar=json_grammar(schema, "schema"))
        found = json.loads(answer(engine, request))
        assert found.keys() == {"name", "is_old"}
        assert found["name"] in ("Lily", "Max")


def test_each_model_follows_a_grammar_by_its_own_vocabulary(folder: Path, tmp_path: Path) -> None:
    """llama.cpp tells vocabularies apart by their address, which a model may have from one that is gone."""
    other = tiny_models.build(tmp_path / "other", "smollm")
    to_gguf(other, other / "model.gguf", type="F32")
    grammar = json_grammar({"enum": ["a little cat", "the old dog"]}, "schema")
    for i in range(24):
        home = (folder, other)[i % 2]
        with LlamaServerEngine(home / "model.gguf", tokenizer_dir=home) as engine:
            request = Request(tuple(engine.encode(TALKS[0])), Sampling(max_new_tokens=60), grammar=grammar)
            assert json.loads(answer(engine, request)) in ("a little cat", "the old dog")


def test_scores_are_log_probabilities_of_whole_answers(
    engine: LlamaServerEngine, plain: LlamaCppEngine
) -> None:
    (greedy,) = plain.generate([TALKS[0]], Sampling(max_new_tokens=3))
    likely, unlikely = engine.score(TALKS[0], [greedy.text, "zzz qqq"])
    assert unlikely < likely < 0
    assert plain.score(TALKS[0], [greedy.text, "zzz qqq"]) == pytest.approx([likely, unlikely])
    tokens = engine.encode(TALKS[0]) + engine.tokenize("zzz qqq")
    weighed = engine.weigh(tokens, 2)
    assert weighed[0].chosen.logprob is None
    assert b"".join(w.chosen.raw for w in weighed[-5:]).endswith(b"qqq")
    assert sum(w.chosen.logprob or 0 for w in weighed[len(engine.encode(TALKS[0])) :]) == pytest.approx(
        unlikely
    )
    assert all(
        w.top[0].logprob >= w.top[1].logprob >= w.chosen.logprob or w.chosen in w.top for w in weighed[1:]
    )


def test_embeddings_have_length_one_and_tell_texts_apart(engine: LlamaServerEngine) -> None:
    vectors = engine.embed(["Lily", "the dog", "Lily"])
    assert [len(vector) for vector in vectors] == [64, 64, 64]
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1.0, 1.0, 1.0])
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-2)


def test_what_does_not_fit_is_refused_and_disturbs_nobody(engine: LlamaServerEngine) -> None:
    with pytest.raises(EngineError, match="the prompt has 300 tokens and the context 256"):
        engine.answer(Request((5,) * 300, SHORT), lambda piece: True)
    with pytest.raises(EngineError, match="invalid tokens"):
        engine.answer(Request((5, 10**6), SHORT), lambda piece: True)
    with pytest.raises(EngineError, match=r"input\[1\] has 0 tokens; expected 1 to 256"):
        engine.embed(["Lily", ""])
    assert engine.generate([TALKS[0]], SHORT)[0].text


def test_its_socket_is_for_nobody(engine: LlamaServerEngine) -> None:
    assert stat.S_IMODE(engine._folder.stat().st_mode) == 0o700
    assert all(path.is_socket() for path in engine._folder.iterdir())


def test_two_models_live_side_by_side_and_one_may_go(folder: Path, engine: LlamaServerEngine) -> None:
    before = engine.generate([TALKS[0]], SHORT)
    with LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, n_ctx=64) as other:
        assert other.generate([TALKS[0]], SHORT)[0].text
        place = other._folder
    assert not place.exists()
    assert engine.generate([TALKS[0]], SHORT) == before
    with pytest.raises(EngineError, match="this engine has been closed"):
        other.answer(Request((5,), SHORT), lambda piece: True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process on one core")
def test_one_that_is_closed_at_once_ends_on_a_busy_core(folder: Path) -> None:
    """llama.cpp's loop that is stopped before it has begun runs for ever."""
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_CLOSE, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        start_new_session=True,
    )
    os.sched_setaffinity(process.pid, {core})
    try:
        assert process.communicate(timeout=240) == ("closed\n", None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def test_a_file_that_is_none(tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((folder / "model.gguf").read_bytes()[:-1000])
    with pytest.raises(EngineError, match="a GGUF file cut short or damaged"):
        LlamaServerEngine(cut, tokenizer_dir=folder)
    with pytest.raises(EngineError, match="n_ctx: got 257; this model's context has 1 to 256 tokens"):
        LlamaServerEngine(folder / "model.gguf", tokenizer_dir=folder, n_ctx=257)
    assert capfd.readouterr() == ("", "")
