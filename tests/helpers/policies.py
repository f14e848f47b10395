"""Keys of reinforcement for tiny models, which tests take with `dataclasses.replace`."""

from __future__ import annotations

from nomoat.train.run import TrainingKeys
from nomoat.train.sampled import PolicyKeys

POLICY = PolicyKeys(
    method="grpo",
    num_generations=6,
    max_new_tokens=8,
    beta=0.01,
    epsilon=0.2,
    epsilon_high=0.28,
    loss_type="dapo",
    scale_rewards=True,
    overlong="keep",
    entropy_coef=0.0,
    importance_cap=2.0,
    num_iterations=1,
    gae_lambda=0.95,
    value_coef=0.5,
    max_kl=10.0,
    max_length_growth=100.0,
    max_pass_drop=1.0,
)
KEYS = TrainingKeys(
    learning_rate=1e-2,
    num_train_epochs=100,
    max_steps=12,
    tokens_per_step=4 * 6 * 8,
    micro_batch_tokens=120,
    lr_scheduler_type="constant",
    warmup_ratio=0.0,
    weight_decay=0.0,
    adam_beta2=0.99,
    optim="adamw_torch",
    max_grad_norm=1.0,
    eval_steps=4,
    save_steps=3,
    seed=3,
)
