"""The primitive that everything that learns is written over.

T packed tokens · S supervised positions · V vocabulary · N rows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from nomoat.data.pack import Packed, Rows, fill, pack_rows
from nomoat.model.fused.families import Output, product_dtype, read_output
from nomoat.model.fused.output import logprobs
from nomoat.model.fused.parts import LAST_BLOCK_STEP, OUTPUT_STEP, above, decoder_inputs, longer, spare_rows
from nomoat.model.memory import in_batches_that_fit
from nomoat.model.modes import evaluating


def token_logprobs(model: torch.nn.Module, packed: Packed) -> torch.Tensor:
    """log p of every supervised target, float32 [S], differentiable in the model's trainable weights.

    The output layer runs at the S supervised positions only. The model must read its attention from
    `model.attention.PACKED` (as `load_model` sets it).
    """
    output = read_output(model)
    if output is None:
        logits_SV = model(**decoder_inputs(model, packed), logits_to_keep=packed.source_S).logits[0]
        return -F.cross_entropy(logits_SV.float(), packed.targets_S, reduction="none")
    return _logprobs(_wanted_states(output, packed), output, packed)


def states_and_logprobs(model: torch.nn.Module, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden states at the supervised positions [S, H], without gradient, and `token_logprobs` [S], from one
    forward: what a value head reads beside the policy."""
    output = read_output(model)
    if output is None:
        found = model(
            **decoder_inputs(model, packed), logits_to_keep=packed.source_S, output_hidden_states=True
        )
        logp_S = -F.cross_entropy(found.logits[0].float(), packed.targets_S, reduction="none")
        return found.hidden_states[-1][0, packed.source_S].detach(), logp_S
    states_SH = _wanted_states(output, packed)
    return states_SH[: len(packed.source_S)].detach(), _logprobs(states_SH, output, packed)


def _wanted_states(output: Output, packed: Packed) -> torch.Tensor:
    """The last hidden states at the supervised positions, with some rows more that nobody reads (`spare_rows`)."""
    count = len(packed.source_S)
    spare = spare_rows(count, output.weight, OUTPUT_STEP)
    if packed.below_TH is not None:
        wanted_S = longer(packed.source_S, spare_rows(count, output.weight, LAST_BLOCK_STEP))
        return above(output.decoder, packed, wanted_S)[: count + spare]
    inputs = decoder_inputs(output.decoder, packed)
    states_TH: torch.Tensor = output.decoder(**inputs).last_hidden_state[0]
    return states_TH[longer(packed.source_S, spare)]


def _logprobs(states_SH: torch.Tensor, output: Output, packed: Packed) -> torch.Tensor:
    count = len(packed.source_S)
    targets_S, weights_S = (longer(t, len(states_SH) - count) for t in (packed.targets_S, packed.weights_S))
    return logprobs(
        states_SH.to(product_dtype(states_SH)),
        output.weight,
        targets_S,
        expected_S=-weights_S,
        softcap=output.softcap,
    )[:count]


@dataclass(frozen=True)
class RowLosses:
    """Negative log-likelihood of each row's supervised tokens, in nats, and how many there are. `batch_tokens`
    is the batch they were computed in."""

    nll_N: NDArray[np.float64]
    tokens_N: NDArray[np.int64]
    batch_tokens: int

    @property
    def mean(self) -> float:
        """Mean over all supervised tokens, nats a token."""
        return float(self.nll_N.sum() / max(1, self.tokens_N.sum()))

    @property
    def metrics(self) -> dict[str, float]:
        """Nothing more to tell."""
        return {}


@torch.no_grad()
def row_losses(
    model: torch.nn.Module, rows: Rows, *, batch_tokens: int, device: torch.device | str = "cpu"
) -> RowLosses:
    """The loss of every row, each computed without gradient in packed batches of `batch_tokens`.

    The batch changes nothing but rounding. When memory runs out it is halved and all rows are computed anew,
    so that the losses are those of one batch. Raises BudgetError when one row does not fit into memory.
    """
    with evaluating(model):
        return in_batches_that_fit(
            lambda tokens: _row_losses(model, rows, tokens, device), batch_tokens, int(rows.lengths.max())
        )


def _row_losses(
    model: torch.nn.Module, rows: Rows, batch_tokens: int, device: torch.device | str
) -> RowLosses:
    nll_N = np.zeros(len(rows))
    tokens_N = np.zeros(len(rows), dtype=np.int64)
    for run in fill(range(len(rows)), rows.lengths, batch_tokens):
        packed = pack_rows(rows, run, device)
        row_S = packed.row_S.cpu().numpy()
        logp_S = token_logprobs(model, packed).double().cpu().numpy()
        nll_N[run] = np.bincount(row_S, weights=-logp_S, minlength=len(run))
        tokens_N[run] = np.bincount(row_S, minlength=len(run))
    return RowLosses(nll_N, tokens_N, batch_tokens)
