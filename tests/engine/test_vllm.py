"""vLLM as a program of ours, played by a stand-in that computes with transformers: there is no GPU here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import tiny_models
from helpers.serving import wait_until
from helpers.standin import STANDIN, environment, standing_in
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine import vllm
from nomoat.engine.base import Engine, Sampling
from nomoat.engine.cmodel import CModel
from nomoat.engine.grammar import json_grammar
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.prompts import token_bytes
from nomoat.engine.request import Piece, Request, ServingEngine, whole_answer
from nomoat.engine.vllm import VllmEngine
from nomoat.errors import EngineError, ServeError
from nomoat.model.load import load_tokenizer
from nomoat.quantize.convert import to_gguf

OPEN_AND_WAIT = """
import sys, time
from pathlib import Path
from nomoat.engine.vllm import VllmEngine
engine = VllmEngine(Path(sys.argv[1]), n_ctx=256, n_parallel=1, memory_share=0.5)
print("open", flush=True)
time.sleep(600)
"""
SHORT = Sampling(max_new_tokens=12)


def say(text: str) -> Conversation:
    return Conversation((Message("user", text),))


TALKS = [say(text) for text in ("Lily", "the dog", "a ball", "мир")]


def group_of(place: Path) -> int:
    """The process group of the stand-in that left its child's id here."""
    return os.getpgid(int((place / "child").read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the stand-in leaves behind."""
    with standing_in(tmp_path_factory.mktemp("standin")) as place:
        yield place


@pytest.fixture(scope="module")
def engine(folder: Path, place: Path) -> Iterator[VllmEngine]:
    with VllmEngine(folder, n_ctx=256, n_parallel=3, memory_share=0.45) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[LlamaCppEngine]:
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True) as engine:
        yield engine


def last_request(place: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((place / "requests.jsonl").read_text().splitlines()[-1])
    return found


def processes() -> dict[int, int]:
    """Every process and its group, zombies left out."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
            if state != "Z":
                found[int(stat.parent.name)] = int(group)
    return found


def running(group: int) -> int:
    """How many processes of a group there are."""
    return list(processes().values()).count(group)


def test_it_is_an_engine_that_serves_as_it_was_told(engine: VllmEngine, place: Path) -> None:
    as_engine: Engine = engine
    as_serving: ServingEngine = engine
    assert (as_serving.n_ctx, as_serving.n_parallel) == (256, 3)
    assert as_engine.render(TALKS[0]).endswith("<|im_start|>assistant\n")
    told = json.loads((place / "options").read_text())
    assert (told["max_model_len"], told["max_num_seqs"], told["gpu_memory_utilization"]) == (256, 3, 0.45)
    assert Path(told["uds"]).parent.stat().st_mode & 0o777 == 0o700


def test_it_reads_the_bytes_and_writes_the_words_of_the_other_engine(
    engine: VllmEngine, plain: LlamaCppEngine, place: Path
) -> None:
    assert [engine.render(talk) for talk in TALKS] == [plain.render(talk) for talk in TALKS]
    found, expected = engine.generate(TALKS, SHORT), plain.generate(TALKS, SHORT)
    assert [c.prompt_tokens for c in found] == [c.prompt_tokens for c in expected]
    # Other rounding may turn a near tie.
    same = sum(a.text == b.text and a.tokens == b.tokens for a, b in zip(found, expected, strict=True))
    assert same >= len(TALKS) - 1
    engine.generate(TALKS[:1], SHORT)
    assert last_request(place)["prompt"] == plain.template.encode(TALKS[0], add_generation_prompt=True)


def test_a_stream_is_the_answer_in_pieces_and_tells_its_end(engine: VllmEngine) -> None:
    (whole,) = engine.generate([TALKS[0]], SHORT)
    pieces = list(engine.stream(TALKS[0], SHORT))
    assert len(pieces) > 3
    assert "".join(pieces) == whole.text
    prompt = tuple(engine.encode(TALKS[0]))
    _, ending = whole_answer(engine, Request(prompt, SHORT))
    assert (ending.finish_reason, ending.prompt_tokens, ending.cached_tokens, ending.completion_tokens) == (
        "length", len(prompt), 3, 12,
    )  # fmt: skip


def test_a_stop_text_and_a_stop_token_end_the_answer(engine: VllmEngine) -> None:
    prompt = tuple(engine.encode(TALKS[0]))
    whole = "".join(piece.text for piece in whole_answer(engine, Request(prompt, SHORT))[0])
    stop = whole[4:7]
    cut, ending = whole_answer(engine, Request(prompt, Sampling(max_new_tokens=12, stop=(stop,))))
    assert ("".join(piece.text for piece in cut), ending.finish_reason) == (
        whole[: whole.index(stop)],
        "stop",
    )
    (end,) = engine.tokenize("<|im_end|>")
    forced = Request(prompt, SHORT, logit_bias=((end, 100.0),), top_logprobs=1)
    pieces, ending = whole_answer(engine, forced)
    assert (ending.finish_reason, ending.completion_tokens) == ("stop", 1)
    assert [(piece.text, piece.tokens) for piece in pieces] == [("", ())]  # a stop token has no text


def test_log_probabilities_are_those_of_the_model(engine: VllmEngine, plain: LlamaCppEngine) -> None:
    """Against llama.cpp's logits in float32."""
    prompt = engine.encode(TALKS[0])
    pieces, _ = whole_answer(engine, Request(tuple(prompt), SHORT, top_logprobs=3))
    written = [token for piece in pieces for token in piece.tokens]
    tokens = [w.chosen.token for w in written]
    logits = plain._model.logits([*prompt, *tokens]).astype(float)[len(prompt) - 1 : -1]
    assert len(written) == 12
    for place, token in zip(logits, written, strict=True):
        total = math.log(sum(map(math.exp, place - place.max()))) + place.max()
        assert token.chosen.logprob == pytest.approx(place[token.chosen.token] - total, abs=1e-3)
        assert [one.token for one in token.top] == (-place).argsort()[:3].tolist()
    assert b"".join(w.chosen.raw for w in written).decode(errors="replace") == "".join(p.text for p in pieces)


def test_given_texts_are_weighed_and_scored(engine: VllmEngine, plain: LlamaCppEngine) -> None:
    (greedy,) = plain.generate([TALKS[0]], Sampling(max_new_tokens=3))
    answers = [greedy.text, "zzz qqq"]
    assert engine.score(TALKS[0], answers) == pytest.approx(plain.score(TALKS[0], answers), abs=1e-3)
    weighed = engine.weigh(engine.tokenize("a ball"), 2)
    assert (weighed[0].chosen.logprob, weighed[0].top) == (None, ())
    assert all(len(w.top) == 2 and w.top[0].logprob >= w.top[1].logprob for w in weighed[1:])
    assert b"".join(w.chosen.raw for w in weighed) == b"a ball"


def test_what_a_request_says_reaches_vllm(engine: VllmEngine, place: Path) -> None:
    grammar = json_grammar({"type": "object"}, "schema")
    sampling = Sampling(max_new_tokens=300, temperature=0.7, top_p=0.9, top_k=5, seed=2**63 + 7, stop=("x",))
    request = Request(
        tuple(engine.encode(TALKS[0])),
        sampling,
        min_p=0.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        logit_bias=((9, -1.5),),
        grammar=grammar,
    )
    engine.answer(request, lambda piece: False)
    sent = last_request(place)
    for name, value in {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["x"],
        "frequency_penalty": 0.2,
        "presence_penalty": 0.3,
        "repetition_penalty": 1.0,
        "logit_bias": {"9": -1.5},
        "structured_outputs": {"grammar": grammar},
        "max_tokens": 256 - len(request.prompt),
        "stop_token_ids": list(engine._prompts.template.stop_token_ids),
    }.items():
        assert sent[name] == value, name


def test_seeds_repeat_and_differ(engine: VllmEngine) -> None:
    def drawn(seed: int) -> str:
        return engine.generate([TALKS[0]], Sampling(max_new_tokens=12, temperature=1.0, seed=seed))[0].text

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) == 4


def test_a_reader_who_goes_ends_the_generation(engine: VllmEngine, place: Path) -> None:
    taken: list[Piece] = []
    request = Request(tuple(engine.encode(TALKS[0])), Sampling(max_new_tokens=200))
    assert engine.answer(request, lambda piece: len(taken.append(piece) or taken) < 4) is None
    wait_until(lambda: (place / "aborted").exists())
    assert int((place / "aborted").read_text().split()[-1]) < 20

    def take(piece: Piece) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.answer(request, take)


def test_answers_beside_one_another_do_not_mix(engine: VllmEngine) -> None:
    alone = [engine.generate([talk], SHORT)[0] for talk in TALKS]
    assert engine.generate(TALKS, SHORT) == alone


def test_what_does_not_fit_is_refused_and_disturbs_nobody(engine: VllmEngine) -> None:
    with pytest.raises(EngineError, match="the prompt has 300 tokens and the context 256"):
        engine.answer(Request((5,) * 300, SHORT), lambda piece: True)
    with pytest.raises(EngineError, match="vLLM: Token id 1000000 is out of vocabulary"):
        engine.answer(Request((5, 10**6), SHORT), lambda piece: True)
    with pytest.raises(EngineError, match="the text has 256 tokens; vLLM weighs 1 to 255 at once"):
        engine.weigh((5,) * 256, 1)
    with pytest.raises(EngineError, match="gives no embeddings"):
        engine.embed(["Lily"])
    assert engine.generate([TALKS[0]], SHORT)[0].text


def test_one_that_dies_says_why_and_is_started_anew(engine: VllmEngine, place: Path) -> None:
    before, group = engine.generate([TALKS[0]], SHORT), group_of(place)
    with pytest.raises(
        ServeError, match=r"(?s)vLLM has ended; .*EngineCore encountered.*ended with status 1"
    ):
        engine.answer(Request((5, 5, 5), SHORT), lambda piece: True)
    wait_until(lambda: not running(group))
    assert engine.generate([TALKS[0]], SHORT) == before


def test_closing_ends_it_and_what_it_started(folder: Path, place: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANDIN_DIR", str(tmp_path))
        engine = VllmEngine(folder, n_ctx=256, n_parallel=1, memory_share=0.5)
    group = group_of(tmp_path)
    files = Path(engine._server._temporary.name)
    assert running(group) == 3 and files.exists()
    engine.close()
    assert not running(group) and not files.exists()
    with pytest.raises(EngineError, match="this engine has been closed"):
        engine.answer(Request((5,), SHORT), lambda piece: True)


def test_a_killed_parent_leaves_no_process(folder: Path, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment(tmp_path)},
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "open\n"
        group = group_of(tmp_path)
        assert running(group) == 3  # the keeper, the program, and what that has started
        assert group != os.getpgid(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not running(group))


@pytest.mark.parametrize(("fails", "start_s", "said"), [
    ("die", 60, r"vLLM could not start; .*INFO starting.*ValueError: No available memory for the cache blocks\."),
    ("hang", 8, r"vLLM was not ready after 8 s; the last it wrote:.*INFO starting"),
])  # fmt: skip
def test_one_that_does_not_start_says_why(
    folder: Path, tmp_path: Path, fails: str, start_s: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environment(tmp_path), "STANDIN_FAILS": fails}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServeError, match=f"(?s){said}"):
        VllmEngine(folder, n_ctx=256, n_parallel=1, memory_share=0.5, start_s=start_s)
    assert int((tmp_path / "child").read_text()) not in processes()


def test_where_it_cannot_run_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ServeError, match=r'vLLM is not installed\n  Install it: pip install "nomoat\[vllm\]"'
    ):
        vllm.card_bytes()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(STANDIN)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ServeError, match="vLLM needs a GPU, and PyTorch sees none here"):
        vllm.card_bytes()


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_bytes_of_tokens_are_llama_cpps(tmp_path: Path, family: str) -> None:
    folder = tiny_models.build(tmp_path, family)
    to_gguf(folder, tmp_path / "model.gguf", type="F32")
    tokenizer = load_tokenizer(folder)
    bytes_of = token_bytes(tokenizer)
    with CModel(tmp_path / "model.gguf", vocab_only=True) as model:
        assert {t: bytes_of(t) for t in range(len(tokenizer))} == {
            t: model.text_of(t) for t in range(len(tokenizer))
        }
