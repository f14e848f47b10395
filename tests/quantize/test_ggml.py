"""ggml's quantisers through ctypes, against the gguf package's own NumPy ones."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Ggml

from nomoat.quantize.ggml import block_size, quantize_rows, row_bytes


def rows(n_rows: int = 8, row_len: int = 512) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n_rows, row_len), dtype=np.float32) * 0.1


@pytest.mark.parametrize("kind", [Ggml.F32, Ggml.F16, Ggml.BF16, Ggml.Q8_0, Ggml.Q5_0, Ggml.Q5_1])
def test_bytes_equal_the_gguf_packages(kind: Ggml) -> None:
    expected = gguf.quants.quantize(rows(), kind).view(np.uint8)
    assert np.array_equal(quantize_rows(rows(), kind), expected.reshape(8, -1))


# Relative root mean square error on normally distributed weights. The lower bound tells a type that is not
# the one asked for; the values lie between the squares of neighbouring bit widths.
@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (Ggml.Q8_0, 0.004, 0.007),
        (Ggml.Q6_K, 0.014, 0.022),
        (Ggml.Q5_K, 0.03, 0.045),
        (Ggml.Q4_K, 0.06, 0.085),
    ],
)
def test_error_is_that_of_the_bit_width(kind: Ggml, least: float, most: float) -> None:
    source = rows()
    restored = gguf.quants.dequantize(quantize_rows(source, kind), kind)
    error = np.sqrt(np.mean((restored - source) ** 2) / np.mean(source**2))
    assert least < error < most


@pytest.mark.parametrize(
    ("kind", "block", "bytes_512"),
    [(Ggml.F16, 1, 1024), (Ggml.Q8_0, 32, 544), (Ggml.Q4_K, 256, 288), (Ggml.Q6_K, 256, 420)],
)
def test_sizes(kind: Ggml, block: int, bytes_512: int) -> None:
    assert block_size(kind) == block
    assert row_bytes(kind, 512) == bytes_512
    assert gguf.quant_shape_to_byte_shape((3, 512), kind) == (3, bytes_512)


def test_rows_that_are_no_copy_of_their_memory_are_read_right() -> None:
    source = rows(8, 1024)
    assert np.array_equal(
        quantize_rows(source[::2, ::2], Ggml.Q8_0), quantize_rows(source[::2, ::2].copy(), Ggml.Q8_0)
    )
