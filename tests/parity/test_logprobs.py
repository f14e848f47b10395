"""Packed log-probabilities equal those of transformers' plain padded forward, for every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.families import FAMILIES, tiny_model
from helpers.rows import Listed
from nomoat.data.pack import pack
from nomoat.model.attention import PACKED
from nomoat.model.logprobs import row_losses, token_logprobs

VOCABULARY = 96


def random_rows(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of 2 to 60 tokens, longer than the sliding windows of the tiny configs, partly supervised."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in (2, 60, 17, 33, 5):
        trained = rng.random(length) < 0.6
        trained[-1] = True
        rows.append((rng.integers(3, VOCABULARY, length).astype(np.uint32), trained))
    return rows


def padded_logprobs(model: torch.nn.Module, rows: list[tuple[np.ndarray, np.ndarray]]) -> torch.Tensor:
    """What a plain user of transformers would compute: a padded batch, all logits, a log-softmax."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, (tokens, _) in enumerate(rows):
        ids[index, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask[index, : len(tokens)] = 1
    logp = model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
    picked = [
        logp[index, position - 1, tokens[position]]
        for index, (tokens, trained) in enumerate(rows)
        for position in range(1, len(tokens))
        if trained[position]
    ]
    return torch.stack(picked)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_padded_in_values_and_gradients(family: str) -> None:
    rows = random_rows(7)
    plain = tiny_model(family, VOCABULARY, attention="eager")
    packed_model = tiny_model(family, VOCABULARY, attention=PACKED)
    packed_model.load_state_dict(plain.state_dict())

    expected = padded_logprobs(plain, rows)
    got = token_logprobs(packed_model, pack(rows))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)

    expected.mean().backward()
    got.mean().backward()
    reference = dict(plain.named_parameters())
    for name, parameter in packed_model.named_parameters():
        torch.testing.assert_close(
            parameter.grad,
            reference[name].grad,
            atol=1e-4,
            rtol=1e-3,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def test_the_sliding_window_matters_in_this_test() -> None:
    """Without its window Mistral gives other numbers: the parity above does see the window."""
    rows = random_rows(7)
    windowed = tiny_model("mistral", VOCABULARY, attention=PACKED)
    open_window = tiny_model("mistral", VOCABULARY, attention=PACKED)
    open_window.config.sliding_window = None
    for layer in open_window.model.layers:
        layer.self_attn.sliding_window = None
    with torch.no_grad():
        difference = (
            (token_logprobs(windowed, pack(rows)) - token_logprobs(open_window, pack(rows))).abs().max()
        )
    assert difference > 1e-2


@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_row_losses_do_not_depend_on_the_batch(batch_tokens: int) -> None:
    rows = random_rows(3)
    model = tiny_model("llama", VOCABULARY, attention=PACKED)
    losses = row_losses(model, Listed(rows), batch_tokens=batch_tokens)
    alone = [-token_logprobs(model, pack([row])).sum().item() for row in rows]
    np.testing.assert_allclose(losses.nll_N, alone, rtol=1e-4)
    assert losses.tokens_N.tolist() == [
        int((trained & (np.arange(len(trained)) > 0)).sum()) for _, trained in rows
    ]
