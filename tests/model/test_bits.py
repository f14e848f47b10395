from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers.families import FAMILIES, save_tiny
from nomoat.data.pack import pack
from nomoat.errors import ModelError
from nomoat.model.adapters import add_lora
from nomoat.model.bits import NF4_BYTES, require_bitsandbytes
from nomoat.model.fused.parts import below
from nomoat.model.load import Machine, count_parameters, count_vocabulary, load_model
from nomoat.model.logprobs import token_logprobs
from parity.test_logprobs import random_rows

CPU = Machine("cpu", torch.float32)
HINT = 'Install it with pip install "nomoat[gpu]", or take sft.load_in_4bit out.'


def bitsandbytes() -> Any:
    return pytest.importorskip(
        "bitsandbytes", reason='bitsandbytes is not installed: pip install "nomoat[gpu]"'
    )


def adapted(base: Path, *, four_bit: bool, lora_layers: int | None = None) -> Any:
    model = add_lora(
        load_model(base, CPU, four_bit=four_bit),
        lora_r=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=0,
        lora_layers=lora_layers,
    )
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def round_to_four_bits(model: Any, like: Any) -> int:
    """Put what the layers of `like` hold in four bits into `model`; returns how many there are."""
    functional = bitsandbytes().functional
    layers = {name: module for name, module in like.named_modules() if type(module).__name__ == "Linear4bit"}
    count = 0
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and name in layers:
            weight = layers[name].weight
            module.weight.data.copy_(functional.dequantize_4bit(weight.data, weight.quant_state))
            count += 1
    return count


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_on_four_bits_is_one_on_the_rounded_weights(family: str, tmp_path: Path) -> None:
    """The generic path over packed bytes, and ours over the numbers that they stand for."""
    bitsandbytes()
    base = save_tiny(family, tmp_path)
    packed_bits, rounded = adapted(base, four_bit=True), adapted(base, four_bit=False)
    exact = token_logprobs(rounded, packed := pack(random_rows(7))).detach()
    assert round_to_four_bits(rounded, packed_bits) == (8 if family == "phi3" else 14)
    got, expected = token_logprobs(packed_bits, packed), token_logprobs(rounded, packed)
    assert (expected - exact).abs().max() > 1e-2, "rounding is seen"
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    got.mean().backward()
    expected.mean().backward()
    trained = {name: p for name, p in packed_bits.named_parameters() if p.requires_grad}
    reference = {name: p for name, p in rounded.named_parameters() if p.requires_grad}
    assert trained.keys() == reference.keys()
    for name, parameter in trained.items():
        assert "lora" in name
        torch.testing.assert_close(
            parameter.grad,
            reference[name].grad,
            atol=1e-4,
            rtol=1e-3,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def test_blocks_below_the_adapter_can_be_known(tmp_path: Path) -> None:
    bitsandbytes()
    model = adapted(save_tiny("llama", tmp_path), four_bit=True, lora_layers=1)
    packed = pack(random_rows(7))
    known = replace(packed, below_TH=below(model, packed))
    torch.testing.assert_close(token_logprobs(model, known), token_logprobs(model, packed), atol=1e-6, rtol=0)


def test_the_base_is_as_small_as_is_said(tmp_path: Path) -> None:
    bitsandbytes()
    base = save_tiny("llama", tmp_path, hidden_size=256, intermediate_size=512)
    vocabulary = load_model(base, CPU).config.vocab_size
    model = load_model(base, CPU, four_bit=True)
    held = 0.0
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            state = module.weight.quant_state
            held += module.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    whole = count_vocabulary(base, vocabulary)
    norms = 5 * 256
    assert whole == 2 * vocabulary * 256, "embeddings and output layer"
    assert held == pytest.approx(NF4_BYTES * (count_parameters(base) - whole - norms), rel=0.01)


def test_without_bitsandbytes_it_is_refused_and_the_extra_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "bitsandbytes.functional", raising=False)
    with pytest.raises(ModelError) as caught:
        require_bitsandbytes("sft.load_in_4bit", "cpu")
    assert caught.value.message == "sft.load_in_4bit needs bitsandbytes, which is not installed"
    assert caught.value.hint == HINT


@pytest.mark.parametrize("breaks", [True, False], ids=["breaks", "lies"])
def test_where_bitsandbytes_does_not_compute_it_is_refused(
    breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    functional: Any = ModuleType("bitsandbytes.functional")

    def quantize(tensor: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
        if breaks:
            raise RuntimeError("no kernel image is available\nfor this device")
        return tensor, None

    functional.quantize_4bit = quantize
    functional.dequantize_4bit = lambda tensor, _: tensor * 0.5
    package = ModuleType("bitsandbytes")
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", functional)
    with pytest.raises(ModelError) as caught:
        require_bitsandbytes("sft.load_in_4bit", "cpu")
    reason = (
        "does not run on this machine (cpu): no kernel image is available" if breaks else "computes wrongly"
    )
    assert reason in caught.value.message
    assert caught.value.hint == HINT
