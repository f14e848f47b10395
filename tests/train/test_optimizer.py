from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nomoat.errors import BudgetError
from nomoat.plan.cost import MOMENT_BYTES
from nomoat.train.optimizer import adamw

BETAS = (0.9, 0.99)


def weights() -> dict[str, torch.nn.Parameter]:
    torch.manual_seed(3)
    return {name: torch.nn.Parameter(torch.randn(size)) for name, size in {"w": (6, 4), "b": (4,)}.items()}


def train(optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter], steps: int = 5) -> None:
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2
        for parameter in named.values():
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
        optimizer.step()


def test_it_is_torchs_own_adamw_bit_for_bit() -> None:
    ours, theirs = weights(), weights()
    optimizer = adamw(ours, weight_decay=0.1, betas=BETAS)
    own = torch.optim.AdamW(
        [{"params": [theirs["w"]], "weight_decay": 0.1}, {"params": [theirs["b"]], "weight_decay": 0.0}],
        betas=BETAS,
        fused=True,
    )
    train(optimizer, ours)
    train(own, theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name])
        made, expected = optimizer.state[ours[name]], own.state[theirs[name]]
        assert made.keys() == expected.keys()
        for key in made:
            assert made[key].dtype == expected[key].dtype
            assert torch.equal(made[key], expected[key])


def with_a_large_one() -> dict[str, torch.nn.Parameter]:
    """Large enough for eight bits."""
    return weights() | {"large": torch.nn.Parameter(torch.randn(256, 256))}


@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_8bit"])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_in_eight_bits_it_stays_near_and_is_as_small_as_is_said(optim: str) -> None:
    pytest.importorskip("bitsandbytes", reason='bitsandbytes is not installed: pip install "nomoat[gpu]"')
    ours, theirs, before = with_a_large_one(), with_a_large_one(), with_a_large_one()
    optimizer = adamw(ours, weight_decay=0.1, betas=BETAS, optim=optim)
    kept = sum(
        value.nbytes
        for key, value in optimizer.state[ours["large"]].items()
        if isinstance(value, torch.Tensor) and not key.startswith("qmap")
    )
    assert kept == MOMENT_BYTES[optim] * 256 * 256
    train(optimizer, ours)
    train(adamw(theirs, weight_decay=0.1, betas=BETAS), theirs)
    for name in ours:
        moved = (theirs[name] - before[name]).abs().mean()
        assert (ours[name] - theirs[name]).abs().mean() < 0.1 * moved, name
    assert not torch.equal(ours["large"], theirs["large"])


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("no room")


def failing_after(calls: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = iter(range(calls))
    return lambda *args, **keys: full() if next(left, None) is None else real(*args, **keys)


def test_a_step_makes_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    named = weights()
    optimizer = adamw(named, weight_decay=0.1, betas=BETAS)
    monkeypatch.setattr(torch, "zeros_like", full)
    monkeypatch.setattr(torch, "zeros", full)
    train(optimizer, named, steps=1)
    assert optimizer.state[named["w"]]["step"].item() == 1


@pytest.mark.parametrize("calls", [0, 3])
def test_a_state_that_does_not_fit_is_said_before_the_first_step(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = weights() | {"large": torch.nn.Parameter(torch.zeros(1 << 19))}
    monkeypatch.setattr(torch, "zeros_like", failing_after(calls, torch.zeros_like))
    with pytest.raises(BudgetError) as caught:
        adamw(named, weight_decay=0.1, betas=BETAS)
    assert caught.value.message == (
        "the optimiser does not fit into memory beside the model: for 524,316 trained weights it keeps 4.0 MiB"
    )
    assert caught.value.hint == (
        "Train fewer weights: sft.method: lora instead of full, a lower sft.lora_r, or a smaller base (of your own: "
        "a smaller pretrain.hidden_size)."
    )
