"""Learning from judged answers: an adapter or full weights, trained further against what they were."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nomoat.data.judged import Groups, JudgedRows, Mismatched
from nomoat.data.pack import Rows, fill
from nomoat.errors import BudgetError, ModelError
from nomoat.ledger.files import atomic_write
from nomoat.model.load import Machine
from nomoat.model.logprobs import token_logprobs
from nomoat.model.memory import in_batches_that_fit
from nomoat.model.merge import check_saved, probe_logits, probe_rows, save_model
from nomoat.model.modes import evaluating
from nomoat.train.finetune import keep_adapter
from nomoat.train.hooks import Hooks, Interrupted
from nomoat.train.judged_loss import JudgedLoss, judged_loss
from nomoat.train.loop import TrainResult, autocast
from nomoat.train.objectives import Objective
from nomoat.train.objectives.answers import answer_logps
from nomoat.train.objectives.dpo import dpo, hinge, ipo, robust
from nomoat.train.objectives.kto import kto
from nomoat.train.objectives.reference_free import orpo, simpo
from nomoat.train.opened import open_to_train
from nomoat.train.run import COMPASS_TOKENS, TrainingKeys, run_loop


@dataclass(frozen=True)
class PreferenceKeys:
    """The recipe's keys of the loss under their own names (docs/recipe.md says what each is)."""

    loss_type: str
    beta: float
    label_smoothing: float
    simpo_gamma: float
    desirable_weight: float
    undesirable_weight: float

    @property
    def needs_reference(self) -> bool:
        return self.loss_type not in ("simpo", "orpo")

    @property
    def needs_kl(self) -> bool:
        return self.loss_type == "kto"

    def objective(self, kl: float) -> Objective:
        """The objective; `kl` as in `kto`, which alone reads it."""
        beta, smoothing = self.beta, self.label_smoothing
        return {
            "sigmoid": partial(dpo, beta=beta, label_smoothing=smoothing),
            "robust": partial(robust, beta=beta, label_smoothing=smoothing),
            "hinge": partial(hinge, beta=beta),
            "ipo": partial(ipo, beta=beta),
            "simpo": partial(simpo, beta=beta, gamma=self.simpo_gamma, label_smoothing=smoothing),
            "orpo": partial(orpo, beta=beta),
            "kto": partial(
                kto,
                beta=beta,
                kl=kl,
                desirable_weight=self.desirable_weight,
                undesirable_weight=self.undesirable_weight,
            ),
        }[self.loss_type]


def prefer(
    base: Path,
    tokenizer: Any,
    rows: Groups,
    held_out: Groups,
    probes: Rows,
    out: Path,
    scratch: Path,
    *,
    adapter: Path | None,
    after_sft: bool,
    base_name: str,
    base_sha256: str,
    method: str,
    lora_r: int,
    lora_alpha: float,
    lora_dropout: float,
    lora_target_modules: str | list[str],
    lora_layers: int | None,
    load_in_4bit: bool,
    loss: PreferenceKeys,
    keys: TrainingKeys,
    machine: Machine,
    hooks: Hooks,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
) -> TrainResult:
    """Train further and write `out/adapter/` (method "lora") or `out/model/` (method "full").

    Training starts from `adapter` on `base`, from a fresh adapter where that is None, or from all weights of `base`;
    the model as it then is, is the reference. Its log-probabilities are computed before the first step and kept in
    `scratch`, with the checkpoints that a run is resumed from, so that there is never a second model in memory. On
    `probes` a model folder is compared with what it was written from. `after_sft` says that what training starts from
    was made by `sft`.

    Raises ModelError when training never beat a base, since such a night would serve the base under another name; what
    `sft` made is kept as it is where nothing was better.
    """
    model = open_to_train(
        base,
        machine,
        adapter=adapter,
        base_sha256=base_sha256,
        method=method,
        lora_r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        lora_target_modules=lora_target_modules,
        lora_layers=lora_layers,
        load_in_4bit=load_in_4bit,
        seed=keys.seed,
    )
    result = _train(
        model,
        rows,
        held_out,
        scratch,
        loss=loss,
        keys=keys,
        gradient_checkpointing=gradient_checkpointing,
        machine=machine,
        hooks=hooks,
    )
    if result.best_step == 0 and not after_sft:
        lowest = min(point["loss"] for point in result.curve.held_out[1:])
        raise ModelError(
            f"learning from judgements changed nothing for the better: their held-out loss was {result.first_loss:.4f} "
            f"before the first step and never lower after it (best {lowest:.4f})",
            hint="Lower prefer.learning_rate, look at the rows with `nomoat check`, or give more of them.",
        )
    if method == "lora":
        keep_adapter(model, tokenizer, out / "adapter", base_name=base_name, base_sha256=base_sha256)
    else:
        trained_TV = probe_logits(model.eval(), probe_rows(probes), machine.device)
        save_model(model, tokenizer, out / "model")
        del model
        check_saved(trained_TV, out / "model", probe_rows(probes), machine, torch.float32)
    return result


def _train(
    model: Any,
    rows: Groups,
    held_out: Groups,
    scratch: Path,
    *,
    loss: PreferenceKeys,
    keys: TrainingKeys,
    gradient_checkpointing: bool | Literal["auto"],
    machine: Machine,
    hooks: Hooks,
) -> TrainResult:
    """Compute the reference, then train, leaving the weights of the lowest held-out loss in the model."""
    reader = _Reader(model, machine, keys.micro_batch_tokens)
    measure = reader.kept_in(scratch, hooks)
    judged = _Side.of(measure, rows, "train", loss)
    compass = _Side.of(measure, _compass(held_out), "held_out", loss)

    def objective_of(which: Sequence[int], micro_tokens: int) -> Objective:
        return loss.objective(judged.kl(reader, which, micro_tokens))

    return run_loop(
        model,
        judged.rows,
        objective_of,
        lambda tokens: reader.held_out_loss(compass, loss, tokens),
        scratch,
        keys=keys,
        gradient_checkpointing=gradient_checkpointing,
        machine=machine,
        hooks=hooks,
    )


def _compass(held_out: Groups) -> Groups:
    """The held-out groups that steer training: as many from the top as hold `COMPASS_TOKENS`, at least one."""
    count = max(1, int((held_out.lengths.cumsum() <= COMPASS_TOKENS).sum()))
    return JudgedRows(held_out).first(count).groups


Measure = Callable[[Groups, str], NDArray[np.float32]]
"""log p of all answers of some groups as the model now is, under a name of theirs."""


@dataclass(frozen=True)
class _Side:
    """Groups with their reference; where a loss needs it, also their prompts with the answers to others."""

    rows: JudgedRows
    mismatched: JudgedRows | None

    @staticmethod
    def of(measure: Measure, groups: Groups, name: str, loss: PreferenceKeys) -> _Side:
        rows = JudgedRows(groups, measure(groups, name) if loss.needs_reference else None)
        if not loss.needs_kl:
            return _Side(rows, None)
        others = Mismatched(groups)
        return _Side(rows, JudgedRows(others, measure(others, f"{name}-mismatched")))

    def kl(self, reader: _Reader, which: Sequence[int], batch_tokens: int) -> float:
        """How far the model has gone from the reference: the mean log-ratio of answers to other prompts, in nats."""
        if self.mismatched is None:
            return 0.0
        ratios = [ratio for ratio, _ in reader.log_ratios(self.mismatched, which, batch_tokens)]
        return float(np.concatenate(ratios).mean())


@dataclass(frozen=True)
class _Reader:
    """Reads groups without gradient, in the precision of training."""

    model: Any
    machine: Machine
    batch_tokens: int

    def kept_in(self, scratch: Path, hooks: Hooks) -> Measure:
        """A `Measure` that keeps its files in `scratch` and finds them there again."""

        def measure(groups: Groups, name: str) -> NDArray[np.float32]:
            file = scratch / f"reference-{name}.npy"
            if not file.exists():
                found = in_batches_that_fit(
                    lambda tokens: self._reference(JudgedRows(groups), tokens, hooks),
                    self.batch_tokens,
                    int(groups.lengths.max()),
                )
                buffer = io.BytesIO()
                np.save(buffer, found)
                atomic_write(file, buffer.getvalue())
            kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
            return kept

        return measure

    def _reference(self, rows: JudgedRows, batch_tokens: int, hooks: Hooks) -> NDArray[np.float32]:
        parts = []
        for part, done in self.log_ratios(rows, range(len(rows)), batch_tokens):
            parts.append(part)
            left_s = hooks.seconds_left()
            if left_s is not None and left_s <= 0:
                raise BudgetError(
                    f"the time was over when the reference had read {done} of {len(rows)} judged rows",
                    hint="Give the night more time, or fewer rows.",
                )
            if hooks.stop_asked():
                raise Interrupted("stopped before the first step, while computing the reference")
            hooks.on_preparation(done / len(rows))
        return np.concatenate(parts)

    @torch.no_grad()
    def log_ratios(
        self, rows: JudgedRows, which: Sequence[int], batch_tokens: int
    ) -> Iterator[tuple[NDArray[np.float32], int]]:
        """log p of the answers minus that of their reference (0 where there is none yet), batch by batch, each with how
        many groups are done."""
        done = 0
        with evaluating(self.model):
            for batch in fill(which, rows.lengths, batch_tokens):
                packed = rows.pack(batch, self.machine.device)
                with autocast(self.machine.device, self.machine.bf16):
                    logp_N = answer_logps(token_logprobs(self.model, packed), packed)
                assert packed.judged is not None
                done += len(batch)
                yield (logp_N - packed.judged.reference_N).float().cpu().numpy(), done

    @torch.no_grad()
    def held_out_loss(self, side: _Side, loss: PreferenceKeys, batch_tokens: int) -> JudgedLoss:
        """The loss of all groups of a side, in batches of so many tokens, or of half as many where those do not fit."""
        longest = int(side.rows.lengths.max())
        with evaluating(self.model):
            return in_batches_that_fit(lambda tokens: self._loss(side, loss, tokens), batch_tokens, longest)

    def _loss(self, side: _Side, loss: PreferenceKeys, batch_tokens: int) -> JudgedLoss:
        objective = loss.objective(side.kl(self, range(len(side.rows)), batch_tokens))
        return judged_loss(self.model, side.rows, objective, batch_tokens=batch_tokens, machine=self.machine)
