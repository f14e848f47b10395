"""Preference objectives on packs that share their prompts equal TRL's on padded batches: values and gradients.

TRL's own trainers compute the loss of a batch, with their own collators. fp32: sums of a dozen log-probabilities in
another order, hence 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import tiny_model, tiny_tokenizer
from helpers.judged import ListedGroups, random_groups
from nomoat.data.judged import Groups, JudgedRows, Mismatched
from nomoat.model.attention import PACKED
from nomoat.model.logprobs import token_logprobs
from nomoat.train.objectives import Loss
from nomoat.train.objectives.dpo import dpo, hinge, ipo, robust
from nomoat.train.objectives.kto import kto
from nomoat.train.objectives.reference_free import orpo, simpo

VOCABULARY = 96
GROUPS = 6


def policy(attention: str) -> Any:
    return tiny_model("llama", VOCABULARY, seed=1, attention=attention)


def answer_logps(model: Any, groups: Groups) -> np.ndarray[Any, Any]:
    """Summed log p of every answer, from a plain forward of each alone."""
    sums = []
    for index in range(len(groups)):
        group = groups[index]
        for tokens, trained in group.answers:
            whole = torch.from_numpy(np.concatenate((group.prompt, tokens)).astype(np.int64))
            logp = model(input_ids=whole[None]).logits[0, :-1].float().log_softmax(-1)
            own = logp.gather(1, whole[1:, None])[-len(tokens) :, 0]
            sums.append(own[torch.from_numpy(trained)].sum())
    return torch.stack(sums)  # type: ignore[return-value]


def reference(groups: Groups) -> np.ndarray[Any, np.dtype[np.float32]]:
    with torch.no_grad():
        return answer_logps(tiny_model("llama", VOCABULARY, seed=2), groups).numpy()  # type: ignore[attr-defined]


def ours(groups: Groups, objective: Callable[..., Loss]) -> tuple[float, dict[str, torch.Tensor], Loss]:
    model = policy(PACKED)
    packed = JudgedRows(groups, reference(groups)).pack(range(len(groups)), "cpu")
    loss = objective(token_logprobs(model, packed), packed)
    mean = loss.total / loss.weight
    mean.backward()
    return mean.item(), gradients(model), loss


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(
    left: tuple[float, dict[str, torch.Tensor]], right: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert left[0] == pytest.approx(right[0], abs=1e-4)
    assert left[1].keys() == right[1].keys()
    for name, gradient in left[1].items():
        torch.testing.assert_close(
            gradient, right[1][name], atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


def trainer(folder: Path, kind: str, rows: list[dict[str, Any]], **keys: Any) -> Any:
    """One of TRL's trainers around the policy; its data set only serves to make it."""
    import trl
    from datasets import Dataset
    from trl.experimental import orpo as experimental

    room = experimental if kind == "ORPO" else trl
    config = getattr(room, f"{kind}Config")(
        output_dir=str(folder), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **keys
    )
    model = policy("eager")
    extra = {} if kind == "ORPO" else {"ref_model": tiny_model("llama", VOCABULARY, seed=2)}
    tokenizer = tiny_tokenizer()
    return getattr(room, f"{kind}Trainer")(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **extra
    )


def lists(groups: Groups) -> list[tuple[list[int], list[list[int]], tuple[bool, ...]]]:
    return [
        (g.prompt.tolist(), [tokens.tolist() for tokens, _ in g.answers], g.good)
        for g in (groups[i] for i in range(len(groups)))
    ]


PAIR_ROW = {"prompt": "the cat", "chosen": " sat", "rejected": " looked"}


def trl_dpo(folder: Path, groups: Groups, **keys: Any) -> tuple[float, dict[str, torch.Tensor]]:
    made = trainer(folder, "DPO", [PAIR_ROW] * 2, **keys)
    batch = made.data_collator(
        [
            {"prompt_ids": prompt, "chosen_ids": answers[0], "rejected_ids": answers[1]}
            for prompt, answers, _ in lists(groups)
        ]
    )
    made.model.train(False)
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), gradients(made.model)


@pytest.mark.parametrize(
    ("loss_type", "objective", "smoothing"),
    [
        ("sigmoid", partial(dpo, beta=0.2), 0.0),
        ("hinge", partial(hinge, beta=0.2), 0.0),
        ("ipo", partial(ipo, beta=0.2), 0.0),
        ("robust", partial(robust, beta=0.2, label_smoothing=0.1), 0.1),
    ],
    ids=["sigmoid", "hinge", "ipo", "robust"],
)
def test_pairs_equal_trl(
    tmp_path: Path, loss_type: str, objective: Callable[..., Loss], smoothing: float
) -> None:
    groups = random_groups(GROUPS, VOCABULARY, seed=3)
    value, gradient, loss = ours(groups, objective)
    theirs = trl_dpo(tmp_path, groups, loss_type=[loss_type], beta=0.2, label_smoothing=smoothing)
    assert_equal((value, gradient), theirs)
    assert loss.weight.item() == GROUPS


def test_metrics_equal_trls(tmp_path: Path) -> None:
    groups = random_groups(GROUPS, VOCABULARY, seed=3)
    _, _, loss = ours(groups, partial(dpo, beta=0.2))
    made = trainer(tmp_path, "DPO", [PAIR_ROW] * 2, loss_type=["sigmoid"], beta=0.2)
    rows = [{"prompt_ids": p, "chosen_ids": a[0], "rejected_ids": a[1]} for p, a, _ in lists(groups)]
    made.model.train(False)
    made.compute_loss(made.model, made.data_collator(rows))
    found = made._metrics["eval"]
    assert loss.metrics["margin"].item() / GROUPS == pytest.approx(found["rewards/margins"][0], abs=1e-4)
    assert loss.metrics["accuracy"].item() / GROUPS == pytest.approx(found["rewards/accuracies"][0])


def test_label_smoothing_is_the_mixture_of_both_judgements() -> None:
    """TRL's sigmoid loss takes no label smoothing any more: ε of the pairs turned round, written out."""
    groups = random_groups(GROUPS, VOCABULARY, seed=3)
    turned = ListedGroups(
        [type(g)(g.prompt, g.answers[::-1], g.good) for g in (groups[i] for i in range(len(groups)))]
    )
    value, gradient, _ = ours(groups, partial(dpo, beta=0.2, label_smoothing=0.3))
    straight, back = (ours(each, partial(dpo, beta=0.2)) for each in (groups, turned))
    mixed = {name: 0.7 * straight[1][name] + 0.3 * back[1][name] for name in straight[1]}
    assert_equal((value, gradient), (0.7 * straight[0] + 0.3 * back[0], mixed))


def test_kto_equals_trl(tmp_path: Path) -> None:
    groups = random_groups(GROUPS, VOCABULARY, seed=4, answers=1)
    assert {g.good for g in (groups[i] for i in range(len(groups)))} == {(True,), (False,)}
    mismatched = Mismatched(groups)
    with torch.no_grad():
        model = policy(PACKED)
        packed = JudgedRows(mismatched).pack(range(len(groups)), "cpu")
        sums = torch.zeros(len(groups)).index_add(0, packed.row_S, token_logprobs(model, packed))
    kl = float((sums - torch.from_numpy(reference(mismatched))).mean())
    assert kl > 0, "a term that is clamped to zero would test nothing"
    keys = {"beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.7}
    value, gradient, _ = ours(groups, partial(kto, kl=kl, **keys))

    rated = [{"prompt": "the cat", "completion": " sat", "label": True}] * 4
    made = trainer(
        tmp_path, "KTO", rated, train_sampling_strategy="sequential", per_device_train_batch_size=2, **keys
    )
    plain = lists(groups)
    batch = made.data_collator(
        [
            {
                "prompt_ids": prompt,
                "completion_ids": answers[0],
                "KL_completion_ids": plain[i - 1][1][0],
                "label": good[0],
            }
            for i, (prompt, answers, good) in enumerate(plain)
        ]
    )
    made.model.train(False)
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    assert made._metrics["eval"]["kl"][0] == pytest.approx(kl, abs=1e-3)
    assert_equal((value, gradient), (loss.item(), gradients(made.model)))


def test_orpo_equals_trl(tmp_path: Path) -> None:
    """TRL's likelihood term counts the prompt's tokens too, and is a mean over tokens: with prompts of one token, which
    nothing predicts, and preferred answers of one length both are the paper's."""
    groups = random_groups(GROUPS, VOCABULARY, seed=5, prompt=1, first=7)
    value, gradient, _ = ours(groups, partial(orpo, beta=0.2))

    made = trainer(tmp_path, "ORPO", [PAIR_ROW] * 2, beta=0.2, max_length=64)
    batch: dict[str, torch.Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        rows = [(prompt, answers[side]) for prompt, answers, _ in lists(groups)]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        for key, fill, row_of in (
            ("input_ids", 0, lambda p, a: p + a),
            ("attention_mask", 0, lambda p, a: [1] * len(p + a)),
            ("labels", -100, lambda p, a: [-100] * len(p) + a),
        ):
            padded = [row_of(p, a) + [fill] * (width - len(p + a)) for p, a in rows]
            batch[f"{name}_{key}"] = torch.tensor(padded)
    made.model.train(False)
    loss, _ = made.get_batch_loss_metrics(made.model, batch, train_eval="eval")
    loss.backward()
    assert_equal((value, gradient), (loss.item(), gradients(made.model)))


def test_orpo_of_a_certain_answer_is_finite() -> None:
    groups = random_groups(1, VOCABULARY, seed=6)
    packed = JudgedRows(groups).pack([0], "cpu")
    certain_S = torch.zeros(len(packed.targets_S), requires_grad=True)
    loss = orpo(certain_S, packed, beta=0.1)
    loss.total.backward()
    assert math.isfinite(loss.total.item())
    assert torch.isfinite(certain_S.grad).all()  # type: ignore[arg-type]


def test_simpo_equals_its_equation() -> None:
    groups = random_groups(GROUPS, VOCABULARY, seed=7)
    value, gradient, _ = ours(groups, partial(simpo, beta=2.0, gamma=0.8))

    model = policy("eager")
    sums: Any = answer_logps(model, groups)
    lengths = torch.tensor([len(answer) for _, answers, _ in lists(groups) for answer in answers])
    mean = sums / lengths
    expected = -torch.log(torch.sigmoid(2.0 * mean[0::2] - 2.0 * mean[1::2] - 0.8)).mean()
    expected.backward()
    assert_equal((value, gradient), (expected.item(), gradients(model)))
