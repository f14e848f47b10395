"""From scratch: a byte-level BPE tokenizer and a Llama-architecture model, trained by the same loop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from nomoat.chat.template import ChatTemplate
from nomoat.data.prepare import prepare
from nomoat.data.readers import read_rows
from nomoat.data.rows import TextRow
from nomoat.data.split import held_out
from nomoat.data.store import TokenStore
from nomoat.errors import ModelError
from nomoat.model.load import Machine
from nomoat.model.merge import save_model
from nomoat.train.hooks import Hooks
from nomoat.train.loop import TrainResult
from nomoat.train.new_model import new_llama, train_tokenizer
from nomoat.train.run import TrainingKeys, run_training


def pretrain(
    out: Path,
    scratch: Path,
    *,
    files: list[str],
    held_out_share: float,
    vocab_size: int,
    max_seq_len: int,
    keys: TrainingKeys,
    machine: Machine,
    hooks: Hooks,
    gradient_checkpointing: bool | Literal["auto"] = "auto",
    **shape: int,
) -> TrainResult:
    """Train tokenizer and model on plain text and write a transformers model folder to `out`.

    `shape` is hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and
    num_key_value_heads. The tokenizer sees the training documents only. Tokens and checkpoints live in
    `scratch`.
    """
    tokenizer = train_tokenizer(
        _documents(files, held_out_share), vocab_size=vocab_size, max_seq_len=max_seq_len
    )
    prepare(
        files=files,
        tokenizer=tokenizer,
        template=ChatTemplate.of(tokenizer),
        out=scratch / "data",
        format="text",
        split_by="content",
        held_out_share=held_out_share,
        max_seq_len=max_seq_len,
    )
    model = new_llama(
        vocab_size=len(tokenizer),
        max_seq_len=max_seq_len,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=keys.seed,
        **shape,
    ).to(machine.device)
    result = run_training(
        model,
        TokenStore.open(scratch / "data" / "train"),
        TokenStore.open(scratch / "data" / "held_out"),
        scratch / "checkpoints",
        keys=keys,
        machine=machine,
        hooks=hooks,
        gradient_checkpointing=gradient_checkpointing,
    )
    check_learned(result)
    save_model(model, tokenizer, out)
    return result


def check_learned(result: TrainResult) -> None:
    """ModelError where the best weights are those the run began with: a base of random numbers."""
    if result.best_step == 0:
        raise ModelError(
            f"pre-training changed nothing for the better: the held-out loss was {result.first_loss:.4f} before the "
            "first step and never lower after it",
            hint="Lower pretrain.learning_rate, or give more text.",
        )


def _documents(files: list[str], held_out_share: float) -> Iterable[str]:
    for file in files:
        for row in read_rows(file, format="text"):
            if isinstance(row, TextRow) and not held_out(row.content_hash(), held_out_share):
                yield row.text
