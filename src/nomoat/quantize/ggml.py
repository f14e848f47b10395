"""ggml's own quantisers: float32 rows in, the bytes of a GGUF tensor out."""

from __future__ import annotations

import ctypes

import numpy as np
from gguf import GGMLQuantizationType

from nomoat.engine.library import library

FLOAT_TYPES = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


def block_size(kind: GGMLQuantizationType) -> int:
    """How many values of a row are stored together; a row must be a whole number of blocks."""
    return int(library().ggml_blck_size(int(kind)))


def row_bytes(kind: GGMLQuantizationType, row_len: int) -> int:
    """The bytes of a stored row of `row_len` values (a multiple of the block size)."""
    return int(library().ggml_row_size(int(kind), row_len))


def quantize_rows(rows: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Store rows in a ggml type.

    Args:
        rows: float32 [n_rows, row_len], finite; row_len a multiple of `block_size(kind)`.
        kind: a type that needs no importance matrix.

    Returns:
        uint8 [n_rows, row_bytes(kind, row_len)]
    """
    lib = library()
    assert rows.dtype == np.float32 and rows.ndim == 2, (rows.dtype, rows.shape)
    n_rows, row_len = rows.shape
    assert row_len % block_size(kind) == 0, (row_len, kind)
    assert not lib.ggml_quantize_requires_imatrix(int(kind)), kind
    source = np.ascontiguousarray(rows)
    stored = np.empty((n_rows, row_bytes(kind, row_len)), dtype=np.uint8)
    if kind == GGMLQuantizationType.F32:
        stored[...] = source.view(np.uint8)
    elif kind == GGMLQuantizationType.F16:
        lib.ggml_fp32_to_fp16_row(_pointer(source), _pointer(stored), source.size)
    elif kind == GGMLQuantizationType.BF16:
        lib.ggml_fp32_to_bf16_row(_pointer(source), _pointer(stored), source.size)
    else:
        lib.ggml_quantize_init(int(kind))
        written = lib.ggml_quantize_chunk(
            int(kind), _pointer(source), _pointer(stored), 0, n_rows, row_len, None
        )
        assert written == stored.nbytes, (written, stored.nbytes)
    return stored


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
