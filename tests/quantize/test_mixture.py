"""Tensor types, against llama-quant.cpp read by hand."""

from __future__ import annotations

import pytest
from gguf import GGMLQuantizationType as Ggml

from nomoat.quantize.mixture import MIXTURES, tensor_type

# use_more_bits(i, 32): i < 4, i >= 28, or (i - 4) % 3 == 2
MORE_BITS_OF_32 = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}


def kind(name: str, kind: str, *, row: int = 4096, layers: int = 32, tied: bool = False) -> Ggml:
    return tensor_type(name, (4096, row), MIXTURES[kind], n_layers=layers, tied=tied)


@pytest.mark.parametrize("part", ["attn_v", "attn_qkv", "ffn_down"])
@pytest.mark.parametrize(("file", "most"), [("Q4_K_M", Ggml.Q4_K), ("Q5_K_M", Ggml.Q5_K)])
def test_half_of_the_layers_get_more_bits(part: str, file: str, most: Ggml) -> None:
    for layer in range(32):
        expected = Ggml.Q6_K if layer in MORE_BITS_OF_32 else most
        assert kind(f"blk.{layer}.{part}.weight", file) == expected, layer


@pytest.mark.parametrize("part", ["attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"])
def test_the_others_get_the_files_type(part: str) -> None:
    assert {kind(f"blk.{i}.{part}.weight", "Q4_K_M") for i in range(32)} == {Ggml.Q4_K}


def test_the_output_matrix_gets_six_bits_and_a_tied_embedding_does_its_work() -> None:
    assert kind("output.weight", "Q4_K_M") == Ggml.Q6_K
    assert kind("token_embd.weight", "Q4_K_M", tied=True) == Ggml.Q6_K
    assert kind("token_embd.weight", "Q4_K_M") == Ggml.Q4_K
    assert kind("output.weight", "Q8_0") == Ggml.Q8_0
    assert kind("output.weight", "Q6_K") == Ggml.Q6_K


@pytest.mark.parametrize(
    ("file", "row", "expected"),
    [
        ("Q4_K_M", 64, Ggml.Q5_0),
        ("Q5_K_M", 64, Ggml.Q5_1),
        ("Q6_K", 64, Ggml.Q8_0),
        ("Q4_K_M", 172, Ggml.F16),
        ("Q8_0", 172, Ggml.F16),
    ],
)
def test_rows_that_are_not_whole_blocks_fall_back(file: str, row: int, expected: Ggml) -> None:
    assert kind("blk.1.ffn_up.weight", file, row=row) == expected


def test_sensitive_tensors_and_the_output_fall_back_to_eight_bits() -> None:
    assert kind("blk.0.attn_v.weight", "Q4_K_M", row=64, layers=2) == Ggml.Q5_0  # 0 < 2 // 8 is false
    assert kind("blk.1.attn_v.weight", "Q4_K_M", row=64, layers=2) == Ggml.Q8_0
    assert kind("output.weight", "Q4_K_M", row=64) == Ggml.Q8_0


@pytest.mark.parametrize("file", sorted(MIXTURES))
def test_norms_and_biases_stay_float32(file: str) -> None:
    assert tensor_type("blk.0.attn_norm.weight", (64,), MIXTURES[file], n_layers=2, tied=False) == Ggml.F32
    assert tensor_type("blk.0.attn_q.bias", (64,), MIXTURES[file], n_layers=2, tied=False) == Ggml.F32


@pytest.mark.parametrize(("file", "expected"), [("F32", Ggml.F32), ("F16", Ggml.F16), ("BF16", Ggml.BF16)])
def test_float_files_hold_one_type(file: str, expected: Ggml) -> None:
    assert kind("output.weight", file) == expected
    assert kind("blk.0.ffn_down.weight", file, row=33) == expected
