from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nomoat.train.checkpoint import CheckpointFolder, write_tensors
from nomoat.train.optimizer import adamw


def named() -> dict[str, torch.nn.Parameter]:
    return {"w": torch.nn.Parameter(torch.ones(3, 2))}


def optimizer_of(weights: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
    return adamw(weights, weight_decay=0.0, betas=(0.9, 0.99))


def test_weights_moments_and_payload_come_back_in_place(tmp_path: Path) -> None:
    trained = named()
    optimizer = optimizer_of(trained)
    trained["w"].grad = torch.full((3, 2), 0.5)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    CheckpointFolder(tmp_path).save(7, trained, optimizer, {"best_step": 0, "x": [1]})

    fresh = named()
    other = optimizer_of(fresh)
    before = dict(other.state[fresh["w"]])
    state = CheckpointFolder(tmp_path).load(fresh, other)
    assert state is not None
    assert (state.step, state.payload) == (7, {"best_step": 0, "x": [1]})
    assert torch.equal(fresh["w"], trained["w"])
    for key, value in optimizer.state[trained["w"]].items():
        assert torch.equal(other.state[fresh["w"]][key], value)
        assert other.state[fresh["w"]][key] is before[key]  # a second copy might not fit beside the first


def test_the_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    weights = named()
    torch.manual_seed(4)
    torch.rand(5)
    CheckpointFolder(tmp_path).save(1, weights, optimizer_of(weights), {"best_step": 0})
    expected = torch.rand(5)
    torch.manual_seed(99)
    CheckpointFolder(tmp_path).load(weights, optimizer_of(weights))
    assert torch.equal(torch.rand(5), expected)


class Generator:
    """Stands for the generator of a GPU, which this test has not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = torch.tensor([1, 2, 3], dtype=torch.uint8)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.state.clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: setattr(self, "state", state))


@pytest.mark.parametrize(("device", "kept"), [("cuda", [1, 2, 3]), ("cuda:0", [1, 2, 3]), ("cpu", [9, 9, 9])])
def test_on_a_gpu_its_generator_is_kept_too(
    device: str, kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, weights = Generator(monkeypatch), named()
    CheckpointFolder(tmp_path, device).save(1, weights, optimizer_of(weights), {"best_step": 0})
    gpu.state = torch.tensor([9, 9, 9], dtype=torch.uint8)
    CheckpointFolder(tmp_path, device).load(weights, optimizer_of(weights))
    assert gpu.state.tolist() == kept


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
from nomoat.train.checkpoint import write_tensors
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
