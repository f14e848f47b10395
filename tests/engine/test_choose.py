"""Next token and growing text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from helpers import tiny_models
from nomoat.engine.base import GREEDY, Sampling
from nomoat.engine.choose import Answer, choose, special_ids


def logits(size: int = 600, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32) * 3


def test_greedy_takes_the_first_of_equals() -> None:
    values = np.array([0.0, 5.0, 1.0, 5.0], dtype=np.float32)
    assert choose(values, GREEDY, np.random.default_rng(0)) == 1


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, 0, 1.0),
        (0.7, 5, 1.0),
        (1.5, 0, 0.9),
        (0.5, 40, 0.8),
        (2.0, 599, 0.999),
        (3.0, 0, 0.99),
        (1.0, 10**6, 0.5),
    ],
)
def test_draws_follow_transformers_distribution(temperature: float, top_k: int, top_p: float) -> None:
    """5 000 draws against the probabilities that transformers' own warpers leave: the same support, and
    each frequency within five standard errors."""
    values = logits()
    scores = TemperatureLogitsWarper(temperature)(None, torch.tensor(values)[None].double())
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    expected = scores.softmax(-1)[0].numpy()
    rng = np.random.default_rng(1)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    draws = 5_000
    counts = np.bincount([choose(values, sampling, rng) for _ in range(draws)], minlength=len(values))
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))
    error = np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(counts / draws - expected) <= 5 * error + 1 / draws)


def test_top_k_of_one_is_greedy_at_any_temperature() -> None:
    values = logits()
    rng = np.random.default_rng(0)
    assert {choose(values, Sampling(temperature=9.0, top_k=1), rng) for _ in range(50)} == {values.argmax()}


def test_the_same_generator_draws_the_same() -> None:
    sampling = Sampling(temperature=1.0, top_p=0.95)
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        runs.append([choose(logits(seed=i), sampling, rng) for i in range(20)])
    assert runs[0] == runs[1]


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    tokenizer = tiny_models.byte_level()
    answer = Answer(tokenizer, special_ids(tokenizer), tokenizer.convert_tokens_to_ids("<|im_start|>"), stop)
    found = []
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        answer.add(token)
        found.append(answer.take())
        if answer.stopped:
            break
    return [*found, answer.finish()], answer.stopped


@pytest.mark.parametrize("text", ["Lily played.", "naïve 你好 🦙🚀 мир", " leading", "two\n\nlines\n"])
def test_pieces_are_whole_characters_and_lose_nothing(text: str) -> None:
    found, stopped = pieces(text)
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)
    assert not stopped


def test_an_unfinished_character_comes_out_at_the_end() -> None:
    tokenizer = tiny_models.byte_level()
    answer = Answer(tokenizer, special_ids(tokenizer), 0, ())
    first_byte = tokenizer("🦙", add_special_tokens=False).input_ids[0]
    answer.add(first_byte)
    assert answer.take() == ""
    assert answer.finish() == "\ufffd"


def test_stop_texts_end_the_answer_and_are_not_shown() -> None:
    assert pieces("one STOP two", ("STOP",))[1] is True
    assert "".join(pieces("one STOP two", ("STOP",))[0]) == "one "
    assert "".join(pieces("one STOP two", ("two", "STO"))[0]) == "one "


def test_what_only_begins_like_a_stop_text_is_shown_in_the_end() -> None:
    found, stopped = pieces("one STO", ("STOP",))
    assert ("".join(found), stopped) == ("one STO", False)
    assert "S" not in "".join(found[:-1])


def test_special_tokens_are_not_text() -> None:
    assert "".join(pieces("a<|im_start|>b<|im_end|>")[0]) == "ab"


def test_a_sentencepiece_answer_keeps_the_space_that_continues_the_prompt() -> None:
    tokenizer = tiny_models.sentencepiece()
    prompt, (whole,) = tokenizer("Lily").input_ids, [tokenizer("Lily played with her").input_ids]
    answer = Answer(tokenizer, special_ids(tokenizer), prompt[-1], ())
    for token in whole[len(prompt) :]:
        answer.add(token)
    assert answer.finish() == " played with her"
