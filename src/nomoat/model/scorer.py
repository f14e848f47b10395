"""A decoder with a scalar head: transformers' sequence classification with one label, read from packed answers.

T packed tokens · N answers · H width
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nomoat.data.pack import Packed
from nomoat.errors import ModelError
from nomoat.model.fused.parts import decoder_inputs
from nomoat.model.load import Machine, open_as

HEAD = "score.weight"
_WHAT = "a sequence classifier"


def new_scorer(base: Path, tokenizer: Any, machine: Machine, *, weights: torch.dtype) -> Any:
    """A base with a scalar head of zeros, so that nothing is preferred before anything was learned. What pads a batch
    is written in its config, where transformers looks for the end of a row."""
    from transformers import AutoModelForSequenceClassification

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model = open_as(
        AutoModelForSequenceClassification,
        _WHAT,
        base,
        machine,
        weights=weights,
        made_up=(HEAD,),
        num_labels=1,
        pad_token_id=pad,
    )
    torch.nn.init.zeros_(_head(model, base).weight)
    return model


def load_scorer(folder: Path, machine: Machine, *, weights: torch.dtype | None = None) -> Any:
    """The scorer of a folder, as it was saved. ModelError where it is none, or has more labels than one."""
    from transformers import AutoModelForSequenceClassification

    model = open_as(AutoModelForSequenceClassification, _WHAT, folder, machine, weights=weights)
    _head(model, folder)
    return model.eval()


def _head(model: Any, folder: Path) -> torch.nn.Linear:
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or head.out_features != 1 or head.bias is not None:
        found = f"{type(model).__name__} with {model.config.num_labels} labels"
        raise ModelError(
            f"{folder}: is no decoder with a scalar head, but {found}",
            hint="Expected a folder of AutoModelForSequenceClassification with num_labels 1, of a Llama or a Qwen.",
        )
    return head


def scores(model: Any, packed: Packed) -> torch.Tensor:
    """The score of every row of a pack, or of every answer where they share prompts: float32 [N], differentiable.

    It is read where transformers reads it, at the last token that does not pad. Where a base pads with its stop token,
    as many do, that is the token before the stop.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = getattr(inner, inner.base_model_prefix)
    states_TH = decoder(**decoder_inputs(decoder, packed)).last_hidden_state[0]
    end_N = _ends(packed, inner.config.get_text_config().pad_token_id)
    with torch.autocast(states_TH.device.type, enabled=False):  # differences of scores are small
        score_N: torch.Tensor = inner.score(states_TH[end_N].to(inner.score.weight.dtype))[:, 0]
    return score_N.float()


def _ends(packed: Packed, pad: int | None) -> torch.Tensor:
    """Where each answer is read, [N]; an answer that only pads is read where its prompt ends."""
    spans, prefix = packed.segments.spans, packed.segments.prefix
    answers = [i for i in range(len(spans)) if i not in set(prefix)]
    places_T = torch.arange(len(packed.tokens_T), device=packed.tokens_T.device)
    if pad is not None:
        places_T = torch.where(packed.tokens_T == pad, -1, places_T).cummax(0).values

    def last(ends: list[int]) -> torch.Tensor:
        return places_T[torch.tensor(ends, device=places_T.device) - 1]

    own_N = last([spans[i][1] for i in answers])
    before_N = last([spans[prefix[i]][1] if prefix[i] >= 0 else spans[i][1] for i in answers])
    starts_N = torch.tensor([spans[i][0] for i in answers], device=places_T.device)
    return torch.where(own_N >= starts_N, own_N, before_N)
