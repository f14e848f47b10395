"""Checkpoints: everything the loop needs to go on with the same bytes. Safetensors and JSON, no pickle."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nomoat.errors import ArtifactError
from nomoat.ledger.files import atomic_write
from nomoat.model.tensors import write_tensors

Named = dict[str, torch.nn.Parameter]
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class State:
    """What a checkpoint holds beside weights and optimiser: JSON only."""

    step: int
    payload: dict[str, Any]


class CheckpointFolder:
    """`step-00000100/` folders, newest last, at most two; and `best-00000080.safetensors` beside them.

    A folder is complete when its `state.json` is there: it is written last, after everything else is on
    the disk. Best weights carry their step in the name, so that a run resumed from an older checkpoint
    never ends with the best weights of a future that it did not reach again.

    `device` is where the model is: dropout draws from the generator there, so its state is kept too.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path, self._on_cuda = path, torch.device(device).type == "cuda"
        path.mkdir(parents=True, exist_ok=True)

    def save(
        self, step: int, named: Named, optimizer: torch.optim.Optimizer, payload: dict[str, Any]
    ) -> None:
        """Write the checkpoint of `step`, then drop all but the newest two."""
        folder = self.path / f"step-{step:08d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_tensors(folder / "weights.safetensors", _contiguous(named))
        write_tensors(folder / "optimizer.safetensors", _optimizer_tensors(named, optimizer))
        write_tensors(folder / "rng.safetensors", self._random_states())
        atomic_write(folder / "state.json", json.dumps(payload).encode())
        *olds, _ = self._complete()
        for old in olds[:-1]:
            shutil.rmtree(old)
        kept = {json.loads((folder / "state.json").read_text())["best_step"] for folder in self._complete()}
        for best in self.path.glob("best-*.safetensors"):
            if int(best.stem.removeprefix("best-")) not in kept:
                best.unlink()

    def load(self, named: Named, optimizer: torch.optim.Optimizer) -> State | None:
        """Put the newest whole checkpoint into weights, optimiser and random generators; None if none. The
        optimiser's state must be there (as `adamw` makes it): it is written over in place."""
        complete = self._complete()
        if not complete:
            return None
        folder = complete[-1]
        _copy_into(named, load_file(folder / "weights.safetensors"), folder)
        _restore_optimizer(named, optimizer, load_file(folder / "optimizer.safetensors"))
        self._set_random_states(load_file(folder / "rng.safetensors"))
        return State(int(folder.name.removeprefix("step-")), json.loads((folder / "state.json").read_text()))

    def save_best(self, step: int, named: Named) -> None:
        """Keep these weights as the best so far, reached at `step`."""
        write_tensors(self._best(step), _contiguous(named))

    def load_best(self, step: int, named: Named) -> None:
        """Put the best weights so far, reached at `step`, into the model."""
        _copy_into(named, load_file(self._best(step)), self.path)

    def _random_states(self) -> dict[str, torch.Tensor]:
        states = {"cpu": torch.get_rng_state()}
        return states | {"cuda": torch.cuda.get_rng_state()} if self._on_cuda else states

    def _set_random_states(self, states: dict[str, torch.Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._on_cuda:
            torch.cuda.set_rng_state(states["cuda"])

    def _best(self, step: int) -> Path:
        return self.path / f"best-{step:08d}.safetensors"

    def _complete(self) -> list[Path]:
        return sorted(
            folder
            for folder in self.path.iterdir()
            if _NAME.fullmatch(folder.name) and (folder / "state.json").exists()
        )


def _contiguous(named: Named) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().contiguous().cpu() for name, parameter in named.items()}


def _copy_into(named: Named, stored: dict[str, torch.Tensor], source: Path) -> None:
    if stored.keys() != named.keys():
        raise ArtifactError(
            f"{source}: the checkpoint is of another model: it holds {len(stored)} tensors, "
            f"the model trains {len(named)}",
            hint="Remove the folder to start this stage anew.",
        )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(stored[name])


_TABLES = ("qmap1", "qmap2")
"""bitsandbytes' numbers that eight bits stand for: always the same, and one tensor for all weights."""


def _optimizer_tensors(named: Named, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{key}/{name}": torch.as_tensor(value).detach().contiguous().cpu()
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if key not in _TABLES
    }


def _restore_optimizer(
    named: Named, optimizer: torch.optim.Optimizer, stored: dict[str, torch.Tensor]
) -> None:
    for key_name, value in stored.items():
        key, name = key_name.split("/", 1)
        state = optimizer.state[named[name]]
        if isinstance(state[key], torch.Tensor):
            state[key].copy_(value)
        else:  # bitsandbytes counts its steps in a plain number
            state[key] = value.item()
