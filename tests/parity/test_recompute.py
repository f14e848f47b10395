"""Blocks computed again in backward give the gradients of blocks that were kept, bit for bit, in every family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from helpers.families import FAMILIES, tiny_model
from helpers.live import LiveBytes
from nomoat.data.pack import Packed, pack
from nomoat.model.adapters import add_lora
from nomoat.model.attention import PACKED, packed_attention
from nomoat.model.fused import blocks
from nomoat.model.fused.families import fuse
from nomoat.model.fused.parts import below
from nomoat.model.logprobs import token_logprobs
from nomoat.model.recompute import can_recompute, recompute_blocks
from parity.test_fused import FUSED
from parity.test_logprobs import VOCABULARY, random_rows


def model_of(family: str, *, lora: bool, dropout: float = 0.0, **special: Any) -> Any:
    """The same weights at every call, as the loop has them: fused where that is possible, and training."""
    model = tiny_model(family, VOCABULARY, attention=PACKED, **special)
    fuse(model)
    if lora:
        model = add_lora(
            model, lora_r=4, lora_alpha=8.0, lora_dropout=dropout, target_modules="all-linear", seed=0
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def backward(model: Any, packed: Packed) -> torch.Tensor:
    """The log-probabilities, after the gradient of their mean was made."""
    torch.manual_seed(11)  # dropout draws the same numbers in both models
    logp_S = token_logprobs(model, packed)
    logp_S.mean().backward()
    return logp_S.detach()


def assert_equal_gradients(kept: Any, again: Any) -> None:
    reference = dict(kept.named_parameters())
    made = 0
    for name, parameter in again.named_parameters():
        expected = reference[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            assert torch.equal(parameter.grad, expected), name
            made += bool(expected.abs().max() > 0)
    assert made > 10


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bits(family: str, lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, again = model_of(family, lora=lora), model_of(family, lora=lora)
    recompute_blocks(again)
    packed = pack(random_rows(7))
    runs = counted_blocks(monkeypatch, family)
    expected = backward(kept, packed)
    assert runs() == 2
    got = backward(again, packed)
    assert runs() == 2 + 4, "two blocks, each forward and again in backward"
    assert torch.equal(got, expected)
    assert_equal_gradients(kept, again)


def counted_blocks(monkeypatch: pytest.MonkeyPatch, family: str) -> Callable[[], int]:
    """How often a block's attention was computed, by whichever path the family takes."""
    calls = [0]

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            calls[0] += 1
            return real(*args, **keys)

        return call

    # Mistral's window is shorter than the rows here, so that its blocks take the plain path
    if family in FUSED and family != "mistral":
        monkeypatch.setattr(blocks.Attend, "forward", staticmethod(counting(blocks.Attend.forward)))
    else:
        monkeypatch.setitem(AttentionInterface._global_mapping, PACKED, counting(packed_attention))
    return lambda: calls[0]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_dropout_draws_the_same_numbers_again(family: str) -> None:
    kept, again = (model_of(family, lora=True, dropout=0.3) for _ in range(2))
    recompute_blocks(again)
    packed = pack(random_rows(7))
    assert torch.equal(backward(again, packed), backward(kept, packed))
    assert_equal_gradients(kept, again)


def test_under_autocast_too() -> None:
    kept, again = (model_of("llama", lora=False) for _ in range(2))
    recompute_blocks(again)
    packed = pack(random_rows(7))
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = token_logprobs(kept, packed), token_logprobs(again, packed)
    # as in the loop, backward is outside of autocast
    expected.mean().backward()
    got.mean().backward()
    assert torch.equal(got, expected)
    assert_equal_gradients(kept, again)


def test_above_frozen_blocks_that_are_known() -> None:
    kept, again = (model_of("llama", lora=True) for _ in range(2))
    for model in (kept, again):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("layers.1" in name and "lora" in name)
    recompute_blocks(again)
    packed = pack(random_rows(7))
    known = replace(packed, below_TH=below(kept, packed).bfloat16())
    assert torch.equal(backward(again, known), backward(kept, known))
    reference = dict(kept.named_parameters())
    for name, parameter in again.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, reference[name].grad), name


def peak_bytes(model: Any, packed: Packed) -> int:
    with LiveBytes() as live:
        backward(model, packed)
    return live.peak


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["llama", "gemma2"], ids=["fused", "plain"])
def test_memory_grows_by_the_inputs_of_the_blocks_alone(family: str, lora: bool) -> None:
    """Eight more blocks: kept, each holds many times its input; computed again, it holds little more than that."""
    rows = [row for seed in range(8) for row in random_rows(seed)]
    packed = pack(rows)
    grown = {}
    for again in (False, True):
        peaks = []
        for layers in (4, 12):
            model = model_of(family, lora=lora, num_hidden_layers=layers)
            if again:
                recompute_blocks(model)
            peaks.append(peak_bytes(model, packed))
        gradients = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad) * 8 / 12
        grown[again] = (peaks[1] - peaks[0] - gradients) / 8
    one_input = 4 * len(packed.tokens_T) * 64
    assert grown[False] > 6 * one_input
    assert grown[True] < 2 * one_input


def test_where_nothing_is_told_to_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", lora=True)
    assert can_recompute(model)
    assert not can_recompute(torch.nn.Linear(2, 2))
    recompute_blocks(model)
    runs = counted_blocks(monkeypatch, "llama")
    with torch.no_grad():
        token_logprobs(model, pack(random_rows(7)))
    token_logprobs(model.eval(), pack(random_rows(7))).mean().backward()
    assert runs() == 4, "neither without gradient nor while evaluating"
