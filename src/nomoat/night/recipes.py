"""Where the recipe stops: its sections as the plain keywords that the rooms take."""

from __future__ import annotations

from nomoat.recipe import Optimiser
from nomoat.train.run import TrainingKeys


def training_keys(section: Optimiser, seed: int) -> TrainingKeys:
    """The training keys of `sft` or `pretrain`."""
    return TrainingKeys(
        learning_rate=section.learning_rate,
        num_train_epochs=section.num_train_epochs,
        max_steps=section.max_steps,
        tokens_per_step=section.tokens_per_step,
        micro_batch_tokens=max(section.micro_batch_tokens, section.max_seq_len),
        lr_scheduler_type=section.lr_scheduler_type,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        adam_beta2=section.adam_beta2,
        max_grad_norm=section.max_grad_norm,
        eval_steps=section.eval_steps,
        save_steps=section.save_steps,
        seed=seed,
    )
