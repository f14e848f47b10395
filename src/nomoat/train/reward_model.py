"""A reward model: a base with a scalar head, taught to score answers as people judged them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nomoat.data.judged import Groups, JudgedRows, Some
from nomoat.data.pack import fill
from nomoat.errors import ModelError
from nomoat.model.adapters import add_lora
from nomoat.model.load import Machine, count_parameters
from nomoat.model.memory import in_batches_that_fit
from nomoat.model.merge import PROBE_ROWS, TOLERANCE, merge_dtype, save_model
from nomoat.model.modes import evaluating
from nomoat.model.scorer import load_scorer, new_scorer, scores
from nomoat.train.hooks import Hooks
from nomoat.train.judged_loss import JudgedLoss, judged_loss
from nomoat.train.loop import TrainResult, autocast
from nomoat.train.objectives.bradley_terry import bradley_terry
from nomoat.train.run import COMPASS_TOKENS, TrainingKeys, run_loop


@dataclass(frozen=True)
class Measured:
    """What the reward model makes of held-out pairs that neither trained nor steered it: score of the first answer
    minus that of the second, before it is calibrated, float64 [P]; which pairs are ties; which have the same prompt."""

    difference_P: NDArray[np.float64]
    tie_P: NDArray[np.bool_]
    prompt_P: NDArray[np.int64]


def reward_model(
    base: Path,
    tokenizer: Any,
    rows: Groups,
    held_out: Groups,
    out: Path,
    scratch: Path,
    *,
    method: str,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: str | list[str],
    keys: TrainingKeys,
    temperature_of: Callable[[Measured], float],
    machine: Machine,
    hooks: Hooks,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
) -> tuple[TrainResult, Measured]:
    """Train and write `out/model/`, a transformers folder for sequence classification with one label.

    Half of the prompts of `held_out` steer training, the rest is measured. The head is divided by the temperature that
    `temperature_of` finds there, so that σ of a difference of two scores is a calibrated probability. A run is resumed
    from the checkpoints in `scratch`. Raises ModelError when training never beat chance, or where the folder does not
    read back as the model.
    """
    torch.manual_seed(keys.seed)
    dtype = torch.float32 if method == "full" else merge_dtype(count_parameters(base), machine.dtype)
    model = new_scorer(base, tokenizer, machine, weights=dtype)
    if method == "full":
        model.requires_grad_(True)
    else:
        model = add_lora(
            model,
            lora_r=lora_r,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules=lora_target_modules,
            seed=keys.seed,
            task_type="SEQ_CLS",
        )
    steering, judged = halves(held_out)
    result = _train(
        model,
        JudgedRows(rows),
        JudgedRows(steering),
        scratch,
        keys=keys,
        gradient_checkpointing=gradient_checkpointing,
        machine=machine,
        hooks=hooks,
    )
    if result.best_step == 0:
        lowest = min(point["loss"] for point in result.curve.held_out[1:])
        raise ModelError(
            f"the reward model learned nothing that holds: the loss of held-out pairs was {result.first_loss:.4f} "
            f"before the first step, which is chance, and never lower after it (best {lowest:.4f})",
            hint="Lower reward.learning_rate, look at the rows with `nomoat check`, or give more of them.",
        )
    model = model.eval() if method == "full" else model.eval().merge_and_unload()
    measured = _measure(model, judged, keys.micro_batch_tokens, machine)
    with torch.no_grad():
        model.score.weight /= temperature_of(measured)
    probes = JudgedRows(held_out).first(PROBE_ROWS)
    trained_N = _scores(model, probes, keys.micro_batch_tokens, machine)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    save_model(model, tokenizer, out / "model")
    del model
    _check_saved(trained_N, out / "model", probes, dtype, keys.micro_batch_tokens, machine)
    return result, measured


def _train(
    model: Any,
    rows: JudgedRows,
    steering: JudgedRows,
    scratch: Path,
    *,
    keys: TrainingKeys,
    gradient_checkpointing: bool | Literal["auto"],
    machine: Machine,
    hooks: Hooks,
) -> TrainResult:
    """Leave the weights of the lowest loss of the steering rows in the model."""
    return run_loop(
        model,
        rows,
        lambda *_: bradley_terry,
        lambda tokens: _held_out_loss(model, steering, tokens, machine),
        scratch,
        keys=keys,
        gradient_checkpointing=gradient_checkpointing,
        machine=machine,
        hooks=hooks,
        reads=scores,
    )


def halves(held_out: Groups) -> tuple[Groups, Groups]:
    """The held-out groups that steer training, of at most `COMPASS_TOKENS` where they are more than one prompt's, and
    those that say what came of it. Prompts are drawn by chance: files are often sorted by what they are about, and a
    prompt on both sides would make the steered look good. Pairs of one prompt alone are parted as they are."""
    groups_of: dict[bytes, list[int]] = {}
    for index in range(len(held_out)):
        groups_of.setdefault(held_out[index].prompt.tobytes(), []).append(index)
    prompts = [*groups_of.values()] if len(groups_of) > 1 else [[index] for index in range(len(held_out))]
    order = np.random.default_rng(0).permutation(len(prompts))
    steering: list[int] = []
    for place in order[: max(1, len(prompts) // 2)]:
        more = [*steering, *prompts[place]]
        if steering and held_out.lengths[more].sum() > COMPASS_TOKENS:
            break
        steering = more
    return Some(held_out, sorted(steering)), Some(held_out, sorted({*range(len(held_out))} - {*steering}))


def _held_out_loss(model: Any, rows: JudgedRows, batch_tokens: int, machine: Machine) -> JudgedLoss:
    with evaluating(model), torch.no_grad():
        return in_batches_that_fit(
            lambda tokens: judged_loss(
                model, rows, bradley_terry, batch_tokens=tokens, machine=machine, reads=scores
            ),
            batch_tokens,
            int(rows.lengths.max()),
        )


def _measure(model: Any, groups: Groups, batch_tokens: int, machine: Machine) -> Measured:
    score_N = _scores(model, JudgedRows(groups), batch_tokens, machine).double().numpy()
    read = [groups[i] for i in range(len(groups))]
    prompts: dict[bytes, int] = {}
    prompt_P = [prompts.setdefault(group.prompt.tobytes(), len(prompts)) for group in read]
    return Measured(
        score_N[0::2] - score_N[1::2], np.array([all(group.good) for group in read]), np.array(prompt_P)
    )


@torch.no_grad()
def _scores(model: Any, rows: JudgedRows, batch_tokens: int, machine: Machine) -> torch.Tensor:
    """Scores of all answers, float32 [N] on the processor."""

    def read(tokens: int) -> torch.Tensor:
        parts = []
        for batch in fill(range(len(rows)), rows.lengths, tokens):
            with autocast(machine.device, machine.bf16):
                parts.append(scores(model, rows.pack(batch, machine.device)).cpu())
        return torch.cat(parts)

    return in_batches_that_fit(read, batch_tokens, int(rows.lengths.max()))


def _check_saved(
    trained_N: torch.Tensor,
    folder: Path,
    rows: JudgedRows,
    dtype: torch.dtype,
    batch_tokens: int,
    machine: Machine,
) -> None:
    found_N = _scores(load_scorer(folder, machine, weights=dtype), rows, batch_tokens, machine)
    difference = (found_N - trained_N).abs().max().item()
    if not difference <= TOLERANCE[dtype]:
        raise ModelError(
            f"the saved reward model is not the trained one: scores differ by up to {difference:.3g} (rounding "
            f"explains {TOLERANCE[dtype]:g})",
            hint="This is a fault of nomoat or of the base's architecture; please report it with the base's name.",
        )
