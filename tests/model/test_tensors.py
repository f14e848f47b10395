"""Tensors written without a copy are safetensors like the library's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from nomoat.model.tensors import write_tensors


def test_tensors_of_any_type_and_shape_come_back_through_the_library(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.0),
        "moments": torch.arange(7, dtype=torch.uint8),
        "halves": torch.randn(3, 5).bfloat16(),
        "more halves": torch.randn(2).half(),
        "counts": torch.tensor([[2**40]]),
        "nothing": torch.zeros(0, 4),
        "ключ": torch.randn(2, 3),
    }
    write_tensors(tmp_path / "t.safetensors", tensors)
    found = load_file(tmp_path / "t.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(tensors)


WRITES = """
import sys
from pathlib import Path
import torch
from nomoat.model.tensors import write_tensors
def most():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
tensors = {name: torch.ones(32 << 20) for name in "ab"}
before = most()
write_tensors(Path(sys.argv[1]), tensors)
print(most() - before)
"""


def test_writing_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    """Of 256 MB."""
    command = [sys.executable, "-c", WRITES, str(tmp_path / "t.safetensors")]
    grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (tmp_path / "t.safetensors").stat().st_size > 256 << 20
    assert int(grown) < 32


def test_the_bytes_are_the_librarys(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5),
        "a": torch.randn(2).bfloat16(),
        "c": torch.zeros(4),
        "A": torch.ones(1),
    }
    write_tensors(tmp_path / "t.safetensors", tensors)
    assert (tmp_path / "t.safetensors").read_bytes() == save(tensors)
    write_tensors(tmp_path / "t.safetensors", tensors, {"format": "pt"})
    assert (tmp_path / "t.safetensors").read_bytes() == save(tensors, metadata={"format": "pt"})


def test_metadata_is_in_order(tmp_path: Path) -> None:
    told = {str(i): "x" for i in range(20, 0, -1)}
    write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(1)}, told)
    head = (tmp_path / "t.safetensors").read_bytes()
    assert [head.index(f'"{key}":"x"'.encode()) for key in sorted(told)] == sorted(
        head.index(f'"{key}":"x"'.encode()) for key in told
    )
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert file.metadata() == told
