"""One greedy answer, five ways: torch, the F16 file, the terminal, the page and the API, from the same rendered
bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import nomoat
from helpers.serving import Names, serving
from nomoat.chat.conversation import Conversation
from nomoat.chat.mask import render_trained
from nomoat.chat.template import ChatTemplate
from nomoat.cli import talkers
from nomoat.cli.talkers import GgufTalker
from nomoat.engine.base import Sampling
from nomoat.engine.llamacpp import LlamaCppEngine
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.engine.request import Ending, Request
from nomoat.evaluate.prompts import read_prompts
from nomoat.model.load import load_tokenizer
from nomoat.quantize.convert import to_gguf
from nomoat.serve.limits import UNLIMITED, Ration
from nomoat.serve.metrics import Metrics
from nomoat.serve.models import ServedModel
from nomoat.serve.pool import Pool
from nomoat.serve.turns import Desk
from nomoat.serve.web.chats import Chat, Chats, Manner, Turn
from nomoat.serve.web.writing import Writer

ASSETS = Path(nomoat.__file__).parent / "assets"
BASE = ASSETS / "base"
PROMPTS, TOKENS = 50, 12
GREEDY = Sampling(max_new_tokens=TOKENS)


class Overheard:
    """An engine, and the prompts that came to it."""

    def __init__(self, inner: LlamaServerEngine) -> None:
        self._inner = inner
        self.prompts: list[list[int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def answer(self, request: Request, take) -> Ending | None:  # type: ignore[no-untyped-def]
        self.prompts.append(list(request.prompt))
        return self._inner.answer(request, take)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base-F16.gguf"
    to_gguf(BASE, path, type="F16")
    return path


@pytest.fixture(scope="module")
def talks() -> list[Conversation]:
    return [p.conversation for p in read_prompts(ASSETS / "starter" / "heldout.jsonl", most=PROMPTS)]


@pytest.mark.slow
def test_torch_file_terminal_page_and_api_say_the_same(
    gguf: Path, talks: list[Conversation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate.of(load_tokenizer(BASE))
    prompts = [template.encode(talk, add_generation_prompt=True) for talk in talks]
    assert len({tuple(prompt) for prompt in prompts}) == PROMPTS
    expected = by_torch(template, prompts)

    with LlamaCppEngine(gguf, tokenizer_dir=BASE, exact=True) as engine:
        assert [answer.text for answer in engine.generate(talks, GREEDY)] == expected

    monkeypatch.setattr(talkers, "cores", lambda: 1)
    talker = GgufTalker.open(ServedModel("base", gguf, BASE, 512), 512)
    assert ["".join(talker.stream(talk, GREEDY)) for talk in talks] == expected
    talker.close()

    # one at a time, so that nothing but the model decides
    engines: list[Overheard] = []

    def open_engine() -> Overheard:
        engines.append(Overheard(LlamaServerEngine(gguf, tokenizer_dir=BASE, n_parallel=1)))
        return engines[-1]

    with serving({"base": open_engine}) as running, running.client() as client:
        found = []
        for talk in talks:
            body = {"model": "base", "temperature": 0, "max_tokens": TOKENS, **talk.to_dict()}
            found.append(
                client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            )
        assert found == expected
    assert asyncio.run(by_page(open_engine, tmp_path, talks)) == expected
    assert [engine.prompts for engine in engines] == [prompts, prompts]


async def by_page(open_engine: Callable[[], Overheard], folder: Path, talks: list[Conversation]) -> list[str]:
    """What the chat page keeps of its answers: its buttons ask this writer."""
    pool = Pool(
        Names(["base"]),
        lambda model: open_engine(),
        lambda model: 1,
        budget_bytes=1,
        idle_s=600,
        metrics=Metrics(),
    )
    writer = Writer(Desk(pool, Metrics(), most_waiting=1), Chats(folder / "ledger.db"), Ration(UNLIMITED))
    manner = Manner(temperature=0, top_p=1, max_tokens=TOKENS)
    texts = []
    for talk in talks:
        asked = talk.messages[0].content
        chat = replace(Chat.new(asked, "base"), manner=manner, turns=(Turn(asked),))
        writing = await writer.start(chat, None)
        assert writing.task is not None
        await writing.task
        answer = writing.so_far().turns[0].answer
        assert answer is not None, writing.error
        texts.append(answer.text)
    await pool.close()
    return texts


def test_what_is_served_is_what_was_trained(gguf: Path) -> None:
    """With an answer behind it, the served prompt is the untrained beginning of a training row."""
    rows = [p.conversation for p in read_prompts(ASSETS / "starter" / "heldout.jsonl", most=5)]
    template = ChatTemplate.of(load_tokenizer(BASE))
    with LlamaServerEngine(gguf, tokenizer_dir=BASE, n_parallel=1) as engine:
        for asked in rows:
            served = engine.encode(asked)
            whole = Conversation((*asked.messages, type(asked.messages[0])("assistant", "Once upon a time.")))
            trained = render_trained(template, whole)
            assert trained.tokens[: len(served)] == served
            assert trained.trained[: len(served) + 1] == [False] * len(served) + [True]


def by_torch(template: ChatTemplate, prompts: list[list[int]]) -> list[str]:
    """Greedy answers of transformers, eager and in float32, all at once; shorter prompts are filled up in front."""
    model = AutoModelForCausalLM.from_pretrained(
        BASE, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    longest = max(map(len, prompts))
    output = model.generate(
        input_ids=torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts]),
        attention_mask=torch.tensor(
            [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        ),
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=list(template.stop_token_ids),
        pad_token_id=template.stop_token_ids[0],
    )
    return template.tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
