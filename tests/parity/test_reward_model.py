"""The objective of the reward model on packs that share their prompts equals TRL's RewardTrainer on padded batches, and
scores equal transformers' own. fp32: a forward in another order, hence 1e-4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.families import FAMILIES, save_tiny, tiny_tokenizer
from helpers.judged import ListedGroups, random_groups
from nomoat.data.judged import JudgedRows
from nomoat.model.load import Machine, load_tokenizer
from nomoat.model.scorer import load_scorer, new_scorer, scores
from nomoat.train.objectives.bradley_terry import bradley_terry

CPU = Machine("cpu", torch.float32)
VOCABULARY = 96


def saved_scorer(folder: Path, family: str = "llama", **special: Any) -> Path:
    """A tiny base with a head that is not zero, as a folder."""
    base = save_tiny(family, folder / "base", **special)
    model = new_scorer(base, load_tokenizer(base), CPU, weights=torch.float32)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder / "scorer")
    return folder / "scorer"


def plain(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()


def pairs(count: int = 6, margins: tuple[float, ...] = ()) -> ListedGroups:
    groups = random_groups(count, VOCABULARY, seed=3)
    margins = margins or (0.0,) * count
    return ListedGroups([replace(groups[i], margin=margin) for i, margin in enumerate(margins)])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("margins", [(), (0.0, 1.0, 0.5, 2.0, 0.0, 3.0)], ids=["plain", "margins"])
def test_values_and_gradients_equal_trls(tmp_path: Path, margins: tuple[float, ...]) -> None:
    import trl
    from datasets import Dataset

    folder, groups = saved_scorer(tmp_path), pairs(margins=margins)
    model = load_scorer(folder, CPU).requires_grad_(True)
    loss = bradley_terry(
        *(lambda packed: (scores(model, packed), packed))(JudgedRows(groups).pack(range(6), "cpu"))
    )
    mean = loss.total / loss.weight
    mean.backward()

    config = trl.RewardConfig(
        output_dir=str(tmp_path / "trl"),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    row = {"prompt": "the cat", "chosen": " sat", "rejected": " looked"}
    made = trl.RewardTrainer(
        model=plain(folder),
        args=config,
        train_dataset=Dataset.from_list([row] * 2),
        processing_class=tiny_tokenizer(),
    )
    rows = []
    for i in range(6):
        prompt = groups[i].prompt.tolist()
        chosen, rejected = (prompt + tokens.tolist() for tokens, _ in groups[i].answers)
        rows.append({"chosen_ids": chosen, "rejected_ids": rejected, "margin": groups[i].margin})
    theirs = made.compute_loss(made.model.train(False), made.data_collator(rows))
    theirs.backward()
    assert mean.item() == pytest.approx(theirs.item(), abs=1e-4)
    assert loss.metrics["accuracy"].item() / 6 == pytest.approx(made._metrics["eval"]["accuracy"][0])
    assert loss.metrics["margin"].item() / 6 == pytest.approx(made._metrics["eval"]["margin"][0], abs=1e-4)
    ours, gradient = gradients(model), gradients(made.model)
    assert ours.keys() == gradient.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], gradient[name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_tie_is_half_a_win_of_each() -> None:
    groups = pairs(1)
    tie = ListedGroups([replace(groups[0], good=(True, True))])
    score_N = torch.tensor([1.5, -0.25], requires_grad=True)
    loss = bradley_terry(score_N, JudgedRows(tie).pack([0], "cpu"))
    one, other = (
        bradley_terry(each, JudgedRows(groups).pack([0], "cpu")).total for each in (score_N, score_N.flip(0))
    )
    assert loss.total.item() == pytest.approx((0.5 * (one + other)).item())
    loss.total.backward()
    assert score_N.grad is not None
    # the gradient of the first score is σ(d) - 1/2
    assert score_N.grad[0].item() == pytest.approx(torch.sigmoid(torch.tensor(1.75)).item() - 0.5)
    assert loss.metrics["accuracy"].item() == 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_transformers(tmp_path: Path, family: str) -> None:
    """With a prompt that is shared, and with the stop token as padding, of which answers have some at their end."""
    folder = saved_scorer(tmp_path, family)
    groups = random_groups(4, VOCABULARY, seed=5, prompt=7)
    model, theirs = load_scorer(folder, CPU), plain(folder)
    pad = model.config.pad_token_id
    for tokens, count in ((groups[1].answers[0][0], 1), (groups[2].answers[1][0], 99)):
        tokens[-count:] = pad
    packed = JudgedRows(groups).pack(range(4), "cpu")
    rows = [
        [*groups[i].prompt.tolist(), *tokens.tolist()] for i in range(4) for tokens, _ in groups[i].answers
    ]
    width = max(map(len, rows))
    batch = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        expected = theirs(input_ids=batch, attention_mask=mask).logits[:, 0]
        torch.testing.assert_close(scores(model, packed), expected, atol=1e-4, rtol=1e-4)
