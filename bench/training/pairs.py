"""TRL's DPOTrainer on the same pairs, base and adapter as nomoat's DPO."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from training.material import BETA, PairMaterial
from training.peers import Metered, peer_model, peer_settings, run_peer
from training.process import Job, Meter


def train(job: Job, meter: Meter) -> None:
    """Train as the job says; ends when the meter does."""

    class Judged(Metered, DPOTrainer):
        marks, unmarked = "completion_mask", 0

        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset  # the rows are tokens already

    Judged.job, Judged.meter = job, meter
    settings, tokenizer = peer_settings(job)
    longest_first = settings.get("train_sampling_strategy") == "sequential"
    trainer = Judged(
        model=peer_model(job),
        args=DPOConfig(max_length=job.case.max_tokens, beta=BETA, loss_type=["sigmoid"], **settings),
        train_dataset=_rows(job, longest_first=longest_first),
        processing_class=tokenizer,
    )
    run_peer(trainer, meter)


def _rows(job: Job, *, longest_first: bool) -> Dataset:
    """The pairs of a pass as tokens; in their own order for the curve, whose steps name them."""
    material = job.material
    assert isinstance(material, PairMaterial)
    pairs, longest_N = material.pairs, material.real_tokens().max(1)
    order = list(range(len(pairs)))
    if longest_first and job.curve_steps is None:
        order.sort(key=lambda pair: -longest_N[pair])
    groups = [pairs.groups[pair] for pair in order]
    return Dataset.from_list(
        [
            {
                "prompt_ids": group.prompt.tolist(),
                "chosen_ids": group.answers[0][0].tolist(),
                "rejected_ids": group.answers[1][0].tolist(),
            }
            for group in groups
        ]
    )
