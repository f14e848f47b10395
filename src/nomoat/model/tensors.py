"""Writing safetensors: the same tensors as the same bytes, and without a copy of them in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from nomoat.ledger.files import atomic_file

_TYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Contiguous tensors on the processor, straight from where they lie. safetensors' own `save` makes two copies of
    all of them first, and of the moments of all weights a machine may not have room for one; it also writes metadata
    from a hash map, in another order each time. Raises as `atomic_file`."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    # as the library does: the widest first, so that each is aligned
    names, end = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)), 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns its data to 8 bytes
    with atomic_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
