from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nomoat.train.checkpoint import CheckpointFolder
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
