"""The fused path equals transformers' plain padded forward and backward, for every family it is for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import FAMILIES, tiny_model
from nomoat.data.pack import Packed, pack, pack_groups
from nomoat.model.adapters import add_lora
from nomoat.model.attention import PACKED
from nomoat.model.fused import blocks, frozen_output, output
from nomoat.model.fused.families import fuse
from nomoat.model.fused.parts import OUTPUT_STEP, below
from nomoat.model.logprobs import states_and_logprobs, token_logprobs
from nomoat.train.new_model import new_llama
from parity.test_logprobs import VOCABULARY, padded_logprobs, random_rows

FUSED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "smollm3")


def with_adapter(model: Any) -> Any:
    """An adapter that does something, the same for the same family."""
    adapted = add_lora(model, lora_r=4, lora_alpha=8.0, lora_dropout=0.0, target_modules="all-linear", seed=0)
    torch.manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def both(family: str, *, lora: bool) -> tuple[Any, Any]:
    """The family's plain model, and the fused one with the same weights."""
    special = {"sliding_window": 64} if family == "mistral" else {}
    plain = tiny_model(family, VOCABULARY, attention="eager", **special)
    ours = tiny_model(family, VOCABULARY, attention=PACKED, **special)
    ours.load_state_dict(plain.state_dict())
    fuse(ours)
    return (with_adapter(plain), with_adapter(ours)) if lora else (plain, ours)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the fused attention half was computed."""
    calls, real = [0], blocks.Attend.forward

    def forward(*args: Any) -> Any:
        calls[0] += 1
        return real(*args)

    monkeypatch.setattr(blocks.Attend, "forward", staticmethod(forward))
    return calls


def assert_same_gradients(ours: Any, plain: Any) -> None:
    reference = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = reference[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(
                parameter.grad, expected, atol=1e-4, rtol=1e-3, msg=lambda t, n=name: f"{n}: {t}"
            )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FUSED)
def test_fused_equals_padded(family: str, lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    plain, ours = both(family, lora=lora)
    rows = random_rows(7)
    expected, got = padded_logprobs(plain, rows), token_logprobs(ours, pack(rows))
    assert calls == [2], "two layers, both fused"
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    weights = torch.linspace(0.5, 1.5, len(expected))
    (expected * weights).mean().backward()
    (got * weights).mean().backward()
    assert_same_gradients(ours, plain)


def as_rows(groups: list[tuple[np.ndarray, list[np.ndarray]]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every answer after a copy of its prompt, as a row of its own."""
    return [
        (np.concatenate((prompt, answer)), np.arange(len(prompt) + len(answer)) >= len(prompt))
        for prompt, answers in groups
        for answer in answers
    ]


def random_groups(seed: int) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    rng = np.random.default_rng(seed)

    def tokens(length: int) -> np.ndarray:
        return rng.integers(3, VOCABULARY, length).astype(np.uint32)

    return [
        (tokens(20), [tokens(5), tokens(1), tokens(12)]),
        (tokens(1), [tokens(7)]),
        (tokens(9), [tokens(9), tokens(9)]),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_that_share_a_prompt_equal_rows_of_their_own(family: str) -> None:
    """Values and gradients; the families that are not fused take the packed attention's own way."""
    plain, ours = both(family, lora=True)
    groups = random_groups(1)
    expected, got = padded_logprobs(plain, as_rows(groups)), token_logprobs(ours, pack_groups(groups))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    weights = torch.linspace(0.5, 1.5, len(expected))
    (expected * weights).mean().backward()
    (got * weights).mean().backward()
    assert_same_gradients(ours, plain)


def test_an_adapter_that_is_switched_off_is_not_seen() -> None:
    plain, ours = both("llama", lora=True)
    packed = pack(random_rows(7))
    with torch.no_grad(), ours.disable_adapter(), plain.disable_adapter():
        off = token_logprobs(ours, packed)
        torch.testing.assert_close(off, padded_logprobs(plain, random_rows(7)), atol=1e-4, rtol=0)
    with torch.no_grad():
        assert (token_logprobs(ours, packed) - off).abs().max() > 1e-2


def plainly(change: Callable[[Any], None], packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    _, ours = both("llama", lora=True)
    _, other = both("llama", lora=True)
    change(other)
    token_logprobs(ours, packed)
    assert calls == [2]
    token_logprobs(other, packed)
    assert calls == [2], "not fused"


def test_what_the_halves_do_not_do_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(random_rows(7))

    def dropout(model: Any) -> None:
        model.train()
        for block in model.get_decoder().layers:
            block.self_attn.config.attention_dropout = 0.1

    def window(model: Any) -> None:
        model.get_decoder().layers[0].self_attn.config.sliding_window = 16

    def merged(model: Any) -> None:
        model.merge_adapter()

    for change in (dropout, window, merged):
        plainly(change, packed, monkeypatch)


def test_below_the_first_trained_block_nothing_is_kept_or_computed_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, ours = both("llama", lora=True)
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_("layers.1" in name and "lora" in name)
    seen: list[bool] = []
    real = blocks.Attend.backward

    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        seen.append(ctx.needs_input_grad[0])
        return real(ctx, grad)

    monkeypatch.setattr(blocks.Attend, "backward", staticmethod(backward))
    token_logprobs(ours, pack(random_rows(7))).mean().backward()
    assert seen == [False], "one block's backward, and it makes no gradient for what is below"


def test_above_frozen_blocks_the_last_makes_only_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second half, and the end of its first; by transformers' own path the same is picked from all."""
    plain, ours = both("llama", lora=True)
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_("layers.1" in name and "lora" in name)
    rows = random_rows(7)
    packed, seen, real = pack(rows), [], blocks.Feed.forward
    packed = replace(packed, below_TH=below(ours, packed))

    def forward(ctx: Any, x: torch.Tensor, *args: Any) -> torch.Tensor:
        seen.append(len(x))
        return real(ctx, x, *args)

    monkeypatch.setattr(blocks.Feed, "forward", staticmethod(forward))
    expected, fused = padded_logprobs(plain, rows), token_logprobs(ours, packed)
    assert seen == [len(packed.source_S)]
    assert len(packed.source_S) < len(packed.tokens_T)
    ours.get_decoder().layers[1].self_attn.config.attention_dropout = 1e-9
    unfused = token_logprobs(ours.train(), packed)
    assert len(seen) == 1, "not fused"
    torch.testing.assert_close(fused, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(unfused, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("learns", ["", "foreseen", "otherwise"])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("pieces", [1, 4])
def test_the_output_layer_is_a_log_softmax(
    softcap: float | None, pieces: int, learns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it learns, and the loss is not the one that its gradient was made for beforehand."""
    torch.manual_seed(0)
    hidden = torch.randn(10, 6).requires_grad_()
    weight = torch.randn(50, 6).mul_(2).requires_grad_()
    targets, weights = torch.randint(0, 50, (10,)), torch.linspace(-1, 2, 10)
    logits = hidden @ weight.T
    logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    expected = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    of_hidden, of_weight = torch.autograd.grad((expected * weights).sum(), (hidden, weight))

    weight.requires_grad_(bool(learns))
    monkeypatch.setattr(output, "PIECE_BYTES", 4 * 50 * (10 // pieces))
    monkeypatch.setattr(frozen_output, "ROWS", 10 // pieces)
    monkeypatch.setattr(frozen_output, "COLUMNS", 50 // pieces)
    second_times, real = [0], output._of_weight

    def counted(*args: Any, **keys: Any) -> torch.Tensor:
        second_times[0] += 1
        return real(*args, **keys)

    monkeypatch.setattr(output, "_of_weight", counted)
    expected_S = weights * 0.5 if learns == "otherwise" else weights
    arguments: dict[str, Any] = {"expected_S": expected_S, "softcap": softcap}
    got = output.logprobs(hidden, weight, targets, **arguments)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    (got * weights).sum().backward()
    assert second_times == [1 if learns == "otherwise" else 0]
    torch.testing.assert_close(hidden.grad, of_hidden, atol=1e-5, rtol=1e-4)
    if learns:
        torch.testing.assert_close(weight.grad, of_weight, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert torch.equal(output.logprobs(hidden, weight, targets, **arguments), got)


def test_a_frozen_output_layer_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As near to the exact gradient as bfloat16 logits let it be, and the same bits without a gradient, as rollouts
    have them, and by any number of threads."""
    monkeypatch.setattr(frozen_output, "ROWS", 64)
    monkeypatch.setattr(frozen_output, "COLUMNS", 128)
    torch.manual_seed(0)
    hidden = torch.randn(130, 32).bfloat16().requires_grad_()
    weight, targets = torch.randn(700, 32).bfloat16() / 2, torch.randint(0, 700, (130,))
    logits_SV = (hidden.detach() @ weight.T).double()
    with torch.no_grad():
        targets[::2] = logits_SV[::2].argmax(1)
    exact = logits_SV.log_softmax(-1)
    to_hidden = weight[targets].double() - exact.exp() @ weight.double()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got = output.logprobs(hidden, weight, targets, expected_S=torch.zeros(130))
            (gradient,) = torch.autograd.grad(got.sum(), hidden)
            with torch.no_grad():
                found += [
                    (got, gradient),
                    (output.logprobs(hidden, weight, targets, expected_S=got), gradient),
                ]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))
    torch.testing.assert_close(got.double(), exact.gather(1, targets[:, None])[:, 0], atol=1e-4, rtol=1e-5)
    error = (gradient.double() - to_hidden).norm(dim=1) / to_hidden.norm(dim=1)
    assert error.max() < 2 * 2.0**-8


def test_an_output_layer_that_learns_in_float32_of_bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient adds up over pieces of rows and of columns."""
    monkeypatch.setattr(output, "PIECE_ROWS", 64)
    monkeypatch.setattr(output, "COLUMNS", 128)
    torch.manual_seed(0)
    hidden, weight = torch.randn(130, 32).bfloat16(), (torch.randn(700, 32) / 2).requires_grad_()
    targets, weights = torch.randint(0, 700, (130,)), torch.linspace(0.5, 1.5, 130)
    got = output.logprobs(hidden, weight, targets, expected_S=weights)
    (of_weight,) = torch.autograd.grad(got, weight, weights)
    assert of_weight.dtype == torch.float32

    rounded = weight.detach().bfloat16().double()
    shares = (hidden.double() @ rounded.T).softmax(-1)
    to_logits = (torch.nn.functional.one_hot(targets, 700) - shares) * weights[:, None]
    expected = to_logits.T @ hidden.double()
    assert (of_weight - expected).norm() < 2 * 2.0**-8 * expected.norm()


def test_states_beside_the_log_probabilities_are_theirs() -> None:
    """In bfloat16 there are rows more that nobody asked for."""
    _, ours = both("llama", lora=True)
    ours, packed = ours.bfloat16(), pack(random_rows(7))
    assert len(packed.source_S) % OUTPUT_STEP
    states_SH, logp_S = states_and_logprobs(ours, packed)
    assert torch.equal(logp_S, token_logprobs(ours, packed))
    assert not states_SH.requires_grad
    weight = ours.get_output_embeddings().weight
    expected = (states_SH @ weight.T).float().log_softmax(-1).gather(1, packed.targets_S[:, None])[:, 0]
    torch.testing.assert_close(logp_S, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("learns", [False, True])
def test_the_output_layer_of_no_token_is_nothing(learns: bool) -> None:
    hidden, weight = torch.randn(0, 6).requires_grad_(), torch.randn(50, 6).requires_grad_(learns)
    got = output.logprobs(hidden, weight, torch.zeros(0, dtype=torch.long), expected_S=torch.zeros(0))
    assert got.shape == (0,)
    got.sum().backward()
    if learns:
        assert weight.grad is not None
        assert not weight.grad.any()


def test_bfloat16_weights_with_float32_adapters_stay_near() -> None:
    _, exact = both("llama", lora=True)
    _, rounded = both("llama", lora=True)
    for name, parameter in rounded.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    packed = pack(random_rows(7))
    expected, got = token_logprobs(exact, packed), token_logprobs(rounded, packed)
    assert got.dtype == torch.float32
    assert (got - expected).abs().mean() < 0.1
    got.mean().backward()
    for name, parameter in rounded.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32 == parameter.grad.dtype, name
            assert parameter.grad.abs().max() > 0 or "embed" in name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3"])
def test_float32_weights_under_autocast_are_computed_in_bfloat16_like_transformers_own(family: str) -> None:
    """Full fine-tuning where the hardware has bfloat16: weights and residual sums stay float32."""
    plain, ours = both(family, lora=False)
    rows = random_rows(7)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = padded_logprobs(plain, rows), token_logprobs(ours, pack(rows))
    exact = token_logprobs(ours, pack(rows)).detach()
    error, theirs = (got - exact).abs().mean(), (expected - exact).abs().mean()
    assert 0 < error < 1.5 * theirs
    got.mean().backward()
    expected.mean().backward()
    reference = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad.dtype == torch.float32, name
        near = torch.nn.functional.cosine_similarity(
            parameter.grad.flatten(), reference[name].grad.flatten(), 0
        )
        assert near > 0.99, (name, near)


def test_a_fused_model_that_is_let_go_is_gone() -> None:
    model = tiny_model("llama", VOCABULARY, attention=PACKED)
    fuse(model)
    weight = weakref.ref(model.get_decoder().layers[0].mlp.up_proj.weight)
    gc.collect()
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_a_model_from_scratch_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    model = new_llama(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_seq_len=64,
        eos_token_id=2,
        pad_token_id=0,
        seed=0,
    )
    token_logprobs(model, pack(random_rows(7)))
    assert calls == [2]
