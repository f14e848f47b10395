"""Conversations answered by llama.cpp in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from helpers import tiny_models
from nomoat.chat.conversation import Conversation, Message
from nomoat.engine.base import GREEDY, Engine, Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.errors import EngineError
from nomoat.quantize.convert import to_gguf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.build(tmp_path_factory.mktemp("llama"), "llama")
    to_gguf(folder, folder / "model.gguf", type="F32")
    return folder


@pytest.fixture
def engine(folder: Path) -> Iterator[LlamaCppEngine]:
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True) as engine:
        yield engine


def say(text: str) -> Conversation:
    return Conversation((Message("user", text),))


TALKS = [
    say(f"{word} {i}") for i, word in enumerate(["Lily", "the dog", "a ball", "мир", "42", "old tree"] * 2)
]
SHORT = Sampling(max_new_tokens=12)


def test_it_is_an_engine(engine: LlamaCppEngine) -> None:
    as_engine: Engine = engine
    assert [c.prompt_tokens for c in as_engine.generate(TALKS[:2], SHORT)] == [
        len(engine.template.encode(talk, add_generation_prompt=True)) for talk in TALKS[:2]
    ]


def test_greedy_answers_are_transformers(folder: Path, engine: LlamaCppEngine) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for talk, completion in zip(TALKS, engine.generate(TALKS, SHORT), strict=True):
        prompt = engine.template.encode(talk, add_generation_prompt=True)
        output = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=list(engine.template.stop_token_ids),
            pad_token_id=0,
        )
        assert list(completion.tokens) == output[0, len(prompt) :].tolist()
        text = engine.template.tokenizer.decode(completion.tokens, skip_special_tokens=True)
        assert completion.text == text


def test_answers_do_not_depend_on_what_was_asked_before(engine: LlamaCppEngine) -> None:
    forward = engine.generate(TALKS, SHORT)
    backward = engine.generate(TALKS[::-1], SHORT)[::-1]
    alone = [engine.generate([talk], SHORT)[0] for talk in TALKS]
    assert forward == backward == alone


def test_several_at_once_keep_their_order(folder: Path, engine: LlamaCppEngine) -> None:
    expected = engine.generate(TALKS, SHORT)
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, exact=True, n_parallel=5) as parallel:
        found = parallel.generate(TALKS, SHORT)
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    assert same >= len(TALKS) - 2  # other rounding may turn a near tie


def test_as_many_as_fit_at_once_do_not_depend_on_what_was_asked_before(folder: Path) -> None:
    """What a stage relies on that asks a prompt's answers together and goes on after a stop."""
    drawn = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, n_parallel=4) as engine:
        first = engine.generate([TALKS[0]] * 4, drawn)
        for talk in TALKS[1:5]:
            engine.generate([talk] * 4, drawn)
        assert engine.generate([TALKS[0]] * 4, drawn) == first
    assert len({completion.tokens for completion in first}) == 4


def test_a_stop_token_ends_the_answer_and_is_not_text(folder: Path, tmp_path: Path) -> None:
    """Every choice is the stop token: its row of the output matrix is the final state's direction times ten."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    stop = tokenizer.eos_token_id
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.lm_head.weight.zero_()
        model.model.norm.weight[0] = 1
        model.lm_head.weight[stop, 0] = 10
        model.lm_head.weight[stop + 1, 0] = -10
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    file = to_gguf(tmp_path, tmp_path / "model.gguf", type="F32")
    with LlamaCppEngine(file.path, tokenizer_dir=tmp_path) as engine:
        completions = engine.generate(TALKS, SHORT)
    ended = [c for c in completions if c.finish_reason == "stop"]
    assert len(ended) >= 3
    for completion in ended:
        assert completion.tokens[-1] == stop
        assert stop not in completion.tokens[:-1]
        assert "<|im_end|>" not in completion.text


def test_a_stop_text_ends_the_answer(engine: LlamaCppEngine) -> None:
    (whole,) = engine.generate([TALKS[0]], SHORT)
    stop = whole.text[3:5]
    (cut,) = engine.generate([TALKS[0]], Sampling(max_new_tokens=12, stop=(stop,)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert whole.finish_reason == "length" and len(whole.tokens) == 12


def test_sampling_is_repeatable_and_every_place_has_its_own_seed(engine: LlamaCppEngine) -> None:
    sampling = Sampling(max_new_tokens=8, temperature=1.0, top_p=0.95, seed=3)
    first = engine.generate([TALKS[0]] * 4, sampling)
    assert engine.generate([TALKS[0]] * 4, sampling) == first
    assert len({c.tokens for c in first}) == 4
    (shifted,) = engine.generate([TALKS[0]], Sampling(max_new_tokens=8, temperature=1.0, top_p=0.95, seed=5))
    assert shifted == first[2]


def test_a_stream_is_the_answer_in_pieces(engine: LlamaCppEngine) -> None:
    for talk in TALKS[:6]:
        (expected,) = engine.generate([talk], SHORT)
        pieces = list(engine.stream(talk, SHORT))
        assert "".join(pieces) == expected.text
        assert all(pieces) and len(pieces) > 1


def test_a_closed_stream_stops_and_the_next_takes_up_what_they_share(engine: LlamaCppEngine) -> None:
    long = say("Lily loved to play outside. " * 6)
    expected = engine.generate([long], SHORT)[0].text
    stream = engine.stream(long, Sampling(max_new_tokens=100))
    next(stream)
    stream.close()
    assert "".join(engine.stream(long, SHORT)) == expected
    other = say("Lily loved to play outside. " * 5 + "Tom")
    assert "".join(engine.stream(other, SHORT)) == engine.generate([other], SHORT)[0].text


def test_a_later_call_ends_an_open_stream(engine: LlamaCppEngine) -> None:
    stream = engine.stream(TALKS[0], Sampling(max_new_tokens=100))
    next(stream)
    engine.generate([TALKS[1]], SHORT)
    with pytest.raises(EngineError, match="a later call to this engine has ended this stream"):
        next(stream)


def test_a_long_conversation_is_computed_in_parts(folder: Path, tmp_path: Path) -> None:
    long = tiny_models.build(tmp_path, "qwen2", max_position_embeddings=2048)
    file = to_gguf(long, tmp_path / "model.gguf", type="F32")
    with LlamaCppEngine(file.path, tokenizer_dir=long, exact=True) as engine:
        talk = say("Lily and the dog saw a ball near the old tree. " * 80)
        prompt = engine.template.encode(talk, add_generation_prompt=True)
        assert len(prompt) > 1100
        (completion,) = engine.generate([talk], Sampling(max_new_tokens=4))
    model = transformers.AutoModelForCausalLM.from_pretrained(long)
    output = model.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert list(completion.tokens) == output[0, len(prompt) :].tolist()


def test_what_does_not_fit_the_context(folder: Path) -> None:
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder, n_ctx=64) as engine:
        talk = say("Lily " * 80)
        length = len(engine.template.encode(talk, add_generation_prompt=True))
        for call in (lambda: engine.generate([TALKS[0], talk], GREEDY), lambda: engine.stream(talk, GREEDY)):
            with pytest.raises(EngineError) as caught:
                call()
            assert str(caught.value) == (
                f"the conversation has {length} tokens and the context 64; an answer needs one more at least\n"
                "  shorten the conversation, or open the engine with a larger n_ctx"
            )
        (cut,) = engine.generate([TALKS[0]], GREEDY)
        assert cut.finish_reason == "length" or len(cut.tokens) + cut.prompt_tokens < 64
        assert len(cut.tokens) + cut.prompt_tokens <= 64


def test_a_context_that_the_model_does_not_have(folder: Path) -> None:
    path = folder / "model.gguf"
    for n_ctx in (0, 257):
        with pytest.raises(EngineError) as caught:
            LlamaCppEngine(path, tokenizer_dir=folder, n_ctx=n_ctx)
        assert caught.value.message == f"{path}: n_ctx: got {n_ctx}; this model's context has 1 to 256 tokens"


def test_a_missing_file_and_a_closed_engine(folder: Path) -> None:
    with pytest.raises(EngineError, match="no such file; expected a GGUF file"):
        LlamaCppEngine(folder / "none.gguf", tokenizer_dir=folder)
    engine = LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="this engine has been closed"):
        engine.generate([TALKS[0]], SHORT)


def open_sockets() -> set[str]:
    files = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return {target for target in files if target.startswith("socket:")}


def test_it_prints_nothing_and_opens_no_socket(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    threads, sockets = threading.active_count(), open_sockets()  # other tests' servers may still be up
    with LlamaCppEngine(folder / "model.gguf", tokenizer_dir=folder) as engine:
        engine.generate(TALKS[:2], SHORT)
        assert not open_sockets() - sockets
        assert threading.active_count() <= threads
    assert capfd.readouterr() == ("", "")
