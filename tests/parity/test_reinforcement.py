"""GRPO, RLOO and PPO on packs that share their prompts equal TRL's on padded batches: values and gradients.

TRL's own trainers compute the loss of a batch where they have the formula; PPO and the corrections for sampling are
written out over a plain padded forward. fp32: sums in another order, hence 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.families import tiny_model, tiny_tokenizer
from nomoat.data.pack import Packed, pack_groups
from nomoat.model.attention import PACKED
from nomoat.model.fused.families import fuse
from nomoat.model.logprobs import states_and_logprobs, token_logprobs
from nomoat.train.objectives import Loss
from nomoat.train.objectives.advantages import best_of, gae, group_relative, leave_one_out, overlong_penalty
from nomoat.train.objectives.policy import Rolled, best_of_n, grpo, ppo, rloo, telemetry, value_loss
from nomoat.train.objectives.sft import sft

VOCABULARY, PROMPTS, ANSWERS, MOST = 96, 3, 4, 14
Groups = list[tuple[np.ndarray, list[np.ndarray]]]


def groups() -> Groups:
    rng = np.random.default_rng(4)

    def tokens(length: int) -> np.ndarray:
        return rng.integers(3, VOCABULARY, length).astype(np.uint32)

    return [
        (tokens(int(rng.integers(2, 9))), [tokens(int(rng.integers(1, MOST))) for _ in range(ANSWERS)])
        for _ in range(PROMPTS)
    ]


def policy(attention: str) -> Any:
    model = tiny_model("llama", VOCABULARY, seed=1, attention=attention)
    if attention == PACKED:
        fuse(model)
    return model


def known(advantage_N: torch.Tensor, packed: Packed, *, seed: int = 0) -> Rolled:
    """log-probabilities around the policy's own: ratios on both sides of every clip."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        logp_S = token_logprobs(policy(PACKED), packed)

    def near(scale: float) -> torch.Tensor:
        return logp_S + scale * torch.randn(len(logp_S), generator=generator)

    old_S, sampled_S, reference_S = near(0.3), near(0.4), near(0.5)
    return Rolled(advantage_N[packed.row_S], sampled_S, old_S, reference_S)


def ours(objective: Callable[[torch.Tensor, Packed], Loss], packed: Packed) -> tuple[float, dict[str, Any]]:
    model = policy(PACKED)
    loss = objective(token_logprobs(model, packed), packed)
    mean = loss.total / loss.weight
    mean.backward()
    return mean.item(), gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(left: tuple[float, dict[str, Any]], right: tuple[float, dict[str, Any]]) -> None:
    assert left[0] == pytest.approx(right[0], abs=1e-4)
    assert left[1].keys() == right[1].keys()
    assert max(float(g.abs().max()) for g in right[1].values()) > 1e-3, "a gradient to compare"
    for name, gradient in left[1].items():
        torch.testing.assert_close(
            gradient, right[1][name], atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )


def padded(made: Groups) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, answers on the right, as TRL has them."""
    flat = [(prompt, answer) for prompt, answers in made for answer in answers]
    longest_prompt = max(len(p) for p, _ in flat)
    longest = max(len(a) for _, a in flat)
    batch = {
        name: torch.zeros(len(flat), width, dtype=torch.long)
        for name, width in (
            ("prompt_ids", longest_prompt),
            ("prompt_mask", longest_prompt),
            ("completion_ids", longest),
            ("completion_mask", longest),
        )
    }
    for row, (prompt, answer) in enumerate(flat):
        batch["prompt_ids"][row, longest_prompt - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        batch["prompt_mask"][row, longest_prompt - len(prompt) :] = 1
        batch["completion_ids"][row, : len(answer)] = torch.from_numpy(answer.astype(np.int64))
        batch["completion_mask"][row, : len(answer)] = 1
    return batch


def spread(values_S: torch.Tensor, mask_NL: torch.Tensor) -> torch.Tensor:
    """[S] as a padded [N, L]."""
    spread_NL = torch.zeros(mask_NL.shape)
    spread_NL[mask_NL.bool()] = values_S
    return spread_NL


def trl_loss(
    folder: Path, kind: str, batch: dict[str, Any], *, beta: float = 0.0, **keys: Any
) -> tuple[float, dict[str, Any]]:
    import trl
    from datasets import Dataset

    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_completion_length=MOST,
        num_generations=ANSWERS,
        per_device_train_batch_size=ANSWERS,
        gradient_accumulation_steps=1,
        beta=0.0,
        **keys,
    )
    made = getattr(trl, f"{kind}Trainer")(
        model=policy("eager"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 4),
        processing_class=tiny_tokenizer(),
    )
    made.current_gradient_accumulation_steps = 1
    made.beta = beta  # given at once it would look for a reference model; its log p are in the batch
    made.model.train(True)
    loss = made._compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), gradients(made.model)


ADVANTAGE = torch.linspace(-1.5, 1.2, PROMPTS * ANSWERS)
GRPO_CASES = {
    "grpo": ("answer", {"beta": 0.3}),
    "dapo": ("token", {"beta": 0.0, "epsilon_high": 0.28}),
    "dr_grpo": ("constant", {"beta": 0.1}),
}


@pytest.mark.parametrize("loss_type", GRPO_CASES)
def test_grpo_equals_trl(loss_type: str, tmp_path: Path) -> None:
    mean, keys = GRPO_CASES[loss_type]
    made = groups()
    packed = pack_groups(made)
    rolled = known(ADVANTAGE, packed)
    batch: dict[str, Any] = padded(made)
    mask = batch["completion_mask"]
    assert rolled.old_S is not None
    assert rolled.reference_S is not None
    correction_S = torch.exp(rolled.old_S - rolled.sampled_S).clamp(max=2.0)
    batch |= {
        "advantages": ADVANTAGE,
        "old_per_token_logps": spread(rolled.old_S, mask),
        "ref_per_token_logps": spread(rolled.reference_S, mask),
        "num_items_in_batch": mask.sum(),
    }
    # rollouts of the trainer's own engine: nothing to correct, as in TRL without vLLM
    same = Rolled(rolled.advantage_S, rolled.old_S, rolled.old_S, rolled.reference_S)
    found = ours(lambda logp, p: grpo(logp, p, same, mean=mean, max_new_tokens=MOST, **keys), packed)  # type: ignore[arg-type]
    theirs = {"loss_type": loss_type, "epsilon": 0.2, **keys}
    assert_equal(found, trl_loss(tmp_path, "GRPO", batch, **theirs))
    corrected = ours(lambda logp, p: grpo(logp, p, rolled, mean=mean, max_new_tokens=MOST, **keys), packed)  # type: ignore[arg-type]
    assert corrected[0] != pytest.approx(found[0], abs=1e-4)
    assert (correction_S == 2.0).any(), "something was truncated"


def test_rloo_equals_trl(tmp_path: Path) -> None:
    made = groups()
    packed = pack_groups(made)
    rolled = known(ADVANTAGE, packed)
    assert rolled.old_S is not None
    small = Rolled(rolled.advantage_S, rolled.old_S, rolled.old_S)
    batch: dict[str, Any] = padded(made)
    batch |= {
        "advantages": ADVANTAGE,
        "old_logps": spread(rolled.old_S, batch["completion_mask"]).sum(1),
    }
    found = ours(lambda logp, p: rloo(logp, p, small), packed)
    assert_equal(found, trl_loss(tmp_path, "RLOO", batch, epsilon=0.2))


def plain_logps(model: Any, made: Groups) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """log p of every answer's tokens and the last hidden states that predict them, each row alone."""
    found = []
    for prompt, answers in made:
        for answer in answers:
            whole = torch.from_numpy(np.concatenate((prompt, answer)).astype(np.int64))
            output = model(input_ids=whole[None], output_hidden_states=True)
            logp = output.logits[0, :-1].log_softmax(-1).gather(1, whole[1:, None])[:, 0]
            found.append((logp[-len(answer) :], output.hidden_states[-1][0, -len(answer) - 1 : -1]))
    return found


def test_ppo_with_its_values_equals_the_formula_written_out() -> None:
    made = groups()
    packed = pack_groups(made)
    rolled = known(ADVANTAGE, packed)
    generator = torch.Generator().manual_seed(9)
    head = torch.randn(64, generator=generator) * 0.1
    value_S, return_S = (torch.randn(len(packed.targets_S), generator=generator) * 0.3 for _ in range(2))
    rolled = Rolled(
        torch.randn(len(value_S), generator=generator),
        rolled.sampled_S,
        rolled.old_S,
        None,
        value_S,
        return_S,
    )
    assert rolled.old_S is not None

    def of_ours() -> tuple[float, dict[str, Any]]:
        model, w = policy(PACKED), head.clone().requires_grad_()
        states_SH, logp_S = states_and_logprobs(model, packed)
        assert not states_SH.requires_grad
        loss, values = ppo(logp_S, packed, rolled, entropy=0.05), value_loss(states_SH @ w, packed, rolled)
        mean = loss.total / loss.weight + 0.5 * values.total / values.weight
        mean.backward()
        assert w.grad is not None
        return mean.item(), gradients(model) | {"head": w.grad}

    def written_out() -> tuple[float, dict[str, Any]]:
        model, w = policy("eager"), head.clone().requires_grad_()
        total, at, count = torch.zeros(()), 0, len(value_S)
        for logp_L, states_LH in plain_logps(model, made):
            for logp, state in zip(logp_L, states_LH, strict=True):
                old, sampled = rolled.old_S[at], rolled.sampled_S[at]  # type: ignore[index]
                a, ratio = rolled.advantage_S[at], torch.exp(logp - old)
                gain = torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a)
                total = total - gain * min(2.0, float(torch.exp(old - sampled)))
                total = total + 0.05 * logp.detach() * logp
                v, r, before = state.detach() @ w, return_S[at], value_S[at]
                kept = before + torch.clamp(v - before, -0.2, 0.2)
                total = total + 0.5 * 0.5 * torch.max((v - r) ** 2, (kept - r) ** 2)
                at += 1
        assert at == count
        mean = total / count
        mean.backward()
        assert w.grad is not None
        return mean.item(), gradients(model) | {"head": w.grad}

    assert_equal(of_ours(), written_out())


def test_rloo_with_correction_equals_the_formula_written_out() -> None:
    made = groups()
    packed = pack_groups(made)
    rolled = known(ADVANTAGE, packed)
    assert rolled.old_S is not None
    olds, sampleds = (
        [t[packed.row_S == n] for n in range(len(ADVANTAGE))] for t in (rolled.old_S, rolled.sampled_S)
    )
    model = policy("eager")
    total = torch.zeros(())
    for n, (logp_L, _) in enumerate(plain_logps(model, made)):
        ratio, a = torch.exp((logp_L - olds[n]).sum()), ADVANTAGE[n]
        gain = torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.28) * a)
        total = total - gain * torch.exp((olds[n] - sampleds[n]).sum()).clamp(max=1.5) / len(ADVANTAGE)
    total.backward()
    found = ours(lambda logp, p: rloo(logp, p, rolled, epsilon_high=0.28, truncate=1.5), packed)
    assert_equal(found, (total.item(), gradients(model)))


def test_an_answer_without_weight_moves_nothing() -> None:
    """As TRL masks truncated completions: no gradient, and still counted among the answers."""
    packed = pack_groups(groups())
    rolled = known(ADVANTAGE, packed)
    without = Rolled(torch.where(packed.row_S == 2, 0.0, rolled.advantage_S), rolled.sampled_S, rolled.old_S)
    with torch.no_grad():
        logp_S = token_logprobs(policy(PACKED), packed)
    packed.weights_S[packed.row_S == 2] = 0.0
    masked = grpo(logp_S, packed, Rolled(rolled.advantage_S, rolled.sampled_S, rolled.old_S))
    packed.weights_S[:] = 1.0
    assert masked.total == pytest.approx(float(grpo(logp_S, packed, without).total), abs=1e-6)
    assert masked.weight == len(ADVANTAGE)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_micro_batches_add_up(method: str) -> None:
    made = groups()
    packed = pack_groups(made)
    rolled = known(ADVANTAGE, packed)

    def loss(which: slice) -> Loss:
        part = pack_groups(made[which])
        first = sum(len(answers) for _, answers in made[: which.start or 0])
        rows = torch.isin(packed.row_S, torch.arange(first, first + ANSWERS * len(made[which])))
        assert rolled.old_S is not None
        assert rolled.reference_S is not None
        of_part = Rolled(
            rolled.advantage_S[rows], rolled.sampled_S[rows], rolled.old_S[rows], rolled.reference_S[rows]
        )
        with torch.no_grad():
            logp_S = token_logprobs(policy(PACKED), part)
        if method == "rloo":
            return rloo(logp_S, part, of_part)
        return grpo(logp_S, part, of_part, beta=0.1)

    whole, parts = loss(slice(0, 3)), [loss(slice(0, 1)), loss(slice(1, 3))]
    assert float(sum(p.total for p in parts)) == pytest.approx(float(whole.total), abs=1e-4)
    assert float(sum(p.weight for p in parts)) == float(whole.weight)


def test_advantages_of_a_group() -> None:
    nan = float("nan")
    rewards = torch.tensor(
        [[1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [nan, 3.0, 1.0, nan], [nan] * 3 + [1.0]]
    )
    scaled = group_relative(rewards, scale=True)
    torch.testing.assert_close(scaled[0], torch.tensor([1.5, -0.5, -0.5, -0.5]), atol=1e-3, rtol=0)
    assert scaled[1].tolist() == [0.0] * 4
    torch.testing.assert_close(scaled[2], torch.tensor([0.0, 0.7071, -0.7071, 0.0]), atol=1e-3, rtol=0)
    assert scaled[3].tolist() == [0.0] * 4
    assert group_relative(rewards, scale=False)[0].tolist() == [0.75, -0.25, -0.25, -0.25]
    alone = leave_one_out(rewards)
    torch.testing.assert_close(alone[0], torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))
    assert alone[2].tolist() == [0.0, 2.0, -2.0, 0.0]
    assert alone[3].tolist() == [0.0] * 4


def test_the_best_of_a_group_is_kept_where_it_is_better() -> None:
    nan = float("nan")
    rewards = torch.tensor(
        [[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [nan, 3.0, 1.0, nan], [nan] * 3 + [1.0]]
    )
    kept = [[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert best_of(rewards).tolist() == kept
    assert best_of(torch.full((1, 4), nan)).tolist() == [[0] * 4]


def test_best_of_n_is_fine_tuning_on_what_was_kept() -> None:
    """Values and gradients of `sft` on the kept answers alone, each after a copy of its prompt."""
    made = groups()
    packed = pack_groups(made)
    kept_N = torch.tensor([0.0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    rolled = known(kept_N, packed)
    alone = pack_groups([(made[0][0], [made[0][1][1]]), (made[1][0], [made[1][1][3]])])
    assert_equal(ours(lambda logp, p: best_of_n(logp, p, rolled), packed), ours(sft, alone))


def test_gae_is_its_sum_of_discounted_errors() -> None:
    """A_t = Σ_k (γλ)^k δ_(t+k), and with λ = γ = 1 the returns are the sums of what is still to come."""
    torch.manual_seed(0)
    rewards, values = torch.randn(6).double(), torch.randn(6).double()
    advantages, returns = gae(rewards, values, gamma=0.9, lam=0.8)
    following = torch.cat((values[1:], torch.zeros(1).double()))
    deltas = rewards + 0.9 * following - values
    expected = [sum((0.72**k) * deltas[t + k] for k in range(6 - t)) for t in range(6)]
    torch.testing.assert_close(advantages, torch.stack(expected))  # type: ignore[arg-type]
    torch.testing.assert_close(returns, advantages + values)
    _, all_to_come = gae(rewards, values, gamma=1.0, lam=1.0)
    torch.testing.assert_close(all_to_come, rewards.flip(0).cumsum(0).flip(0))


def test_an_overlong_answer_is_punished_softly() -> None:
    found = [overlong_penalty(n, most=100, buffer=20) for n in (10, 80, 90, 100, 120)]
    assert found == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_what_is_told_of_a_step() -> None:
    logp = torch.log(torch.tensor([0.5, 0.2, 0.1, 0.4]))
    old = torch.log(torch.tensor([0.5, 0.1, 0.2, 0.2]))
    sampled = torch.log(torch.tensor([0.1, 0.1, 0.2, 0.2]))
    packed = pack_groups([(np.array([5], dtype=np.uint32), [np.array([6, 7, 8, 9], dtype=np.uint32)])])
    rolled = Rolled(torch.tensor([1.0, 1.0, -1.0, -1.0]), sampled, old, old - np.log(2.0))
    told = telemetry(logp, packed, rolled, epsilon=0.2, epsilon_high=0.2, truncate=2.0)
    assert told["tokens"] == 4
    assert told["clipped"] == 2, "the second may not rise further, the third not fall; the fourth may fall"
    assert told["truncated"] == 1
    assert told["sampling_ratio"] == pytest.approx(5 + 3, abs=1e-5)
    assert told["sampling_kl"] == pytest.approx(5 - np.log(5) - 1, abs=1e-5)
    assert told["kl"] == pytest.approx(4 * (0.5 + np.log(2) - 1), abs=1e-5)
    assert told["entropy"] == pytest.approx(-np.log([0.1, 0.1, 0.2, 0.2]).sum(), abs=1e-5)
