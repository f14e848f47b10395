"""Rollouts: greedy ones are transformers' own, sampled ones follow the model's distribution, whatever the batch."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from helpers.families import FAMILIES, tiny_model
from helpers.live import LiveBytes
from nomoat.data.pack import pack_groups
from nomoat.engine.base import Sampling
from nomoat.engine.rollouts import draw, roll_out
from nomoat.model.attention import PACKED
from nomoat.model.cache import Cache, Writing
from nomoat.model.fused import compiled, decode
from nomoat.model.fused.families import fuse
from nomoat.model.logprobs import token_logprobs
from parity.test_fused import FUSED, with_adapter

VOCABULARY = 96
NONE: frozenset[int] = frozenset()


def prompts(*lengths: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, length).astype(np.uint32) for length in lengths]


def both(family: str) -> tuple[Any, Any]:
    """transformers' model and ours with the same weights and adapter."""
    plain, ours = (tiny_model(family, VOCABULARY, attention=kind) for kind in ("eager", PACKED))
    ours.load_state_dict(plain.state_dict())
    fuse(ours)
    return with_adapter(plain), with_adapter(ours)


def ours(family: str = "llama", **special: Any) -> Any:
    model = tiny_model(family, VOCABULARY, attention=PACKED, **special)
    fuse(model)
    return model


@pytest.fixture(params=["C", "PyTorch"])
def written_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to take a step on a processor."""
    if request.param == "PyTorch":
        monkeypatch.setattr(compiled, "decoding", lambda: None)
    elif compiled.decoding() is None:
        pytest.skip("no C compiler")
    return str(request.param)


@pytest.mark.usefixtures("written_in")
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers_generate(family: str) -> None:
    """Prompts shorter and longer than the sliding windows, answers that end early, fewer rows than prompts."""
    plain, rolled = both(family)
    asked = prompts(5, 40, 1, 23, 40, 9)
    assert (decode.read_step(rolled) is not None) == (family in FUSED)
    free = roll_out(rolled, asked, sampling=Sampling(max_new_tokens=24), stop_tokens=NONE)
    stop = int(free[0].tokens[7])
    answers = roll_out(rolled, asked, sampling=Sampling(max_new_tokens=24), stop_tokens={stop}, max_rows=4)
    for prompt, answer, unstopped in zip(asked, answers, free, strict=True):
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        said = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=stop
        )[0, len(prompt) :]
        assert answer.tokens.tolist() == said.tolist()
        assert answer.finish_reason == ("stop" if said[-1] == stop else "length")
        assert unstopped.tokens[: len(said)].tolist() == said.tolist()
    assert answers[0].finish_reason == "stop"


@pytest.mark.usefixtures("written_in")
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["as they stand", "side by side"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_log_probabilities_are_those_that_training_computes(
    family: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FOLDED_BYTES", limit)
    _, model = both(family)
    asked = prompts(12, 30)
    asked = [prompt for prompt in asked for _ in range(3)]
    rolled = roll_out(model, asked, sampling=Sampling(32, temperature=1.0, seed=5), stop_tokens=NONE)
    groups = [(asked[i], [r.tokens for r in rolled[i : i + 3]]) for i in (0, 3)]
    with torch.no_grad():
        expected = token_logprobs(model, pack_groups(groups)).numpy()
    np.testing.assert_allclose(np.concatenate([r.logps for r in rolled]), expected, atol=2e-4)


def test_angles_that_depend_on_the_length_take_the_models_own_step() -> None:
    assert decode.read_step(ours("llama", attention_bias=True, mlp_bias=True)) is not None
    scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert decode.read_step(ours("llama", rope_parameters=scaled)) is None


def test_a_step_in_c_keeps_one_copy_of_the_layers() -> None:
    if compiled.decoding() is None:
        pytest.skip("no C compiler")
    model = ours(hidden_size=256, intermediate_size=512)
    copied = [*model.model.layers.parameters(), model.lm_head.weight]
    nbytes = sum(parameter.nbytes for parameter in copied if parameter.ndim == 2)
    with LiveBytes() as live, torch.no_grad():
        step = decode.read_step(model)
    assert step is not None
    assert live.now == nbytes, "outputs are whole panels of 16"
    block = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
    assert live.peak <= nbytes + block, "laid side by side one block at a time"


def test_what_an_adapter_has_learned_is_not_rounded_away() -> None:
    """On a processor steps are in float32: in bfloat16 a change of a thousandth of a weight would be none."""
    if compiled.decoding() is None:
        pytest.skip("no C compiler")
    coarse, exact = ours(), tiny_model("llama", VOCABULARY, attention="eager")
    coarse.to(torch.bfloat16)
    exact.load_state_dict(coarse.state_dict())
    before, coarse, exact = exact, with_adapter(coarse), with_adapter(copy.deepcopy(exact))
    for model in (coarse, exact):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.mul_(0.01)
    tokens_R = torch.tensor([5, 17])
    with torch.no_grad():
        step = decode.read_step(coarse)
        assert step is not None
        got_RV = step(tokens_R, Writing(Cache(2, 4), torch.zeros(2, dtype=torch.int64), 1))
        wanted_RV, unlearned_RV = (model(tokens_R[:, None]).logits[:, 0] for model in (exact, before))
    assert (wanted_RV - unlearned_RV).abs().max() > 1e-3
    torch.testing.assert_close(got_RV, wanted_RV, atol=1e-5, rtol=1e-5)


def test_a_model_of_two_number_formats_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """C reads float32, whatever lies there."""
    model = ours("qwen3")
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data = torch.rand_like(parameter).bfloat16()
    prompt = prompts(7)
    with_step = roll_out(model, prompt, sampling=Sampling(16), stop_tokens=NONE)
    monkeypatch.setattr("nomoat.engine.rollouts.read_step", lambda _: None)
    assert with_step[0].tokens.tolist() == (
        roll_out(model, prompt, sampling=Sampling(16), stop_tokens=NONE)[0].tokens.tolist()
    )


@pytest.mark.usefixtures("written_in")
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["as they stand", "side by side"])
def test_biases_are_added(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "FOLDED_BYTES", limit)
    model = ours("llama", attention_bias=True, mlp_bias=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    prompt = prompts(7)
    with_step = roll_out(model, prompt, sampling=Sampling(16), stop_tokens=NONE)
    monkeypatch.setattr("nomoat.engine.rollouts.read_step", lambda _: None)
    assert with_step[0].tokens.tolist() == (
        roll_out(model, prompt, sampling=Sampling(16), stop_tokens=NONE)[0].tokens.tolist()
    )


def test_an_answer_is_the_same_whatever_it_is_sampled_beside() -> None:
    model = ours()
    asked = prompts(5, 17, 5, 9, 30, 2)
    sampling = Sampling(20, temperature=1.0)
    seeds = [(7, index) for index in range(6)]
    together = roll_out(model, asked, sampling=sampling, stop_tokens={4, 5, 6}, seeds=seeds)
    for index in range(6):
        (alone,) = roll_out(
            model, [asked[index]], sampling=sampling, stop_tokens={4, 5, 6}, seeds=[seeds[index]]
        )
        assert alone.tokens.tolist() == together[index].tokens.tolist()
    few_rows = roll_out(model, asked, sampling=sampling, stop_tokens={4, 5, 6}, seeds=seeds, max_rows=2)
    assert [r.tokens.tolist() for r in few_rows] == [r.tokens.tolist() for r in together]


SAMPLINGS = [
    Sampling(2, temperature=1.0),
    Sampling(2, temperature=1.7, top_k=5),
    Sampling(2, temperature=0.6, top_p=0.8),
    Sampling(2, temperature=1.3, top_k=8, top_p=0.7),
]


def cut(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution that transformers' own processors make of logits, float64 [V]."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    scores = logits_V[None]
    for warp in warpers:
        scores = warp(None, scores)
    return scores[0].double().softmax(-1)


@pytest.mark.usefixtures("written_in")
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda s: f"t{s.temperature} k{s.top_k} p{s.top_p}")
def test_samples_follow_the_distribution(sampling: Sampling) -> None:
    """The joint distribution of two tokens against the model's own, by chi-square, 6,000 answers. What was drawn has
    the log-probability it says."""
    model = tiny_model("llama", 12, attention=PACKED, initializer_range=0.1)
    fuse(model)
    prompt = np.array([3, 9, 4], dtype=np.uint32)
    rolled = roll_out(model, [prompt] * 6000, sampling=sampling, stop_tokens=NONE, max_rows=2000)

    plain = tiny_model("llama", 12, initializer_range=0.1)

    def distribution(*tokens: int) -> torch.Tensor:
        return cut(plain(torch.tensor([[3, 9, 4, *tokens]])).logits[0, -1].detach(), sampling)

    first = distribution()
    joint = {(a, b): float(first[a] * p) for a in range(12) for b, p in enumerate(distribution(a))}
    for answer in rolled[:50]:
        a, b = answer.tokens.tolist()
        assert np.exp(answer.logps.sum()) == pytest.approx(joint[a, b], rel=1e-3)
    counted = dict.fromkeys(product(range(12), range(12)), 0)
    for answer in rolled:
        counted[tuple(answer.tokens.tolist())] += 1
    assert all(count == 0 for pair, count in counted.items() if joint[pair] == 0)
    likely = [pair for pair in joint if joint[pair] * 6000 >= 5]
    rest = 6000 - sum(counted[pair] for pair in likely)
    expected = [joint[pair] * 6000 for pair in likely]
    observed = [counted[pair] for pair in likely]
    if sum(expected) < 5995:
        expected, observed = [*expected, 6000 - sum(expected)], [*observed, rest]
    assert chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue > 1e-3


@pytest.mark.usefixtures("written_in")
def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, float("-inf"), 1.0, float("-inf")]] * 3)
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    tokens, logps = draw(logits, torch.tensor([0.0, 0.27, below_one]), Sampling(1, temperature=1.0))
    assert tokens.tolist() == [0, 2, 2]
    torch.testing.assert_close(logps, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0])


def test_the_model_is_left_as_it_was() -> None:
    _, model = both("llama")
    model.train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    roll_out(model, prompts(4), sampling=Sampling(4, temperature=1.0), stop_tokens=NONE)
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_an_answer_ends_with_the_context() -> None:
    model = ours(max_position_embeddings=32)
    (answer,) = roll_out(model, prompts(30), sampling=Sampling(10), stop_tokens=NONE)
    assert (len(answer.tokens), answer.finish_reason) == (2, "length")


@pytest.mark.usefixtures("written_in")
@pytest.mark.parametrize("vocabulary", [127, 128, 129, 1000])
def test_drawing_inverts_the_running_sum(vocabulary: int) -> None:
    """Against numpy in double precision, over several pieces of a vocabulary, half of it impossible."""
    torch.manual_seed(0)
    logits = torch.randn(1, vocabulary) * 3
    logits[0, ::2] = float("-inf")
    shares = logits[0].double().softmax(-1).numpy()
    running = shares.cumsum()
    uniform = np.linspace(0, 1, 5001)[:-1]
    tokens, logps = draw(
        logits.expand(5000, -1), torch.from_numpy(uniform).float(), Sampling(1, temperature=1.0)
    )
    expected = np.searchsorted(running, uniform, side="right")
    assert (tokens.numpy() != expected).sum() <= 5, "rounding moves a border, nothing else"
    assert (shares[tokens.numpy()] > 0).all()
    np.testing.assert_allclose(logps.numpy(), np.log(shares[tokens.numpy()]), atol=1e-5)
