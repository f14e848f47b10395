"""A decoder's step on a processor in float32, in C: `decode.c` says what each piece does, this file where it lies.

R rows · H width · N query heads · K key/value heads · D head width · I inputs · O outputs · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nomoat.model.cache import Writing
from nomoat.model.fused import compiled
from nomoat.model.fused.blocks import AttentionHalf, MlpHalf, Norm
from nomoat.model.fused.compiled import at
from nomoat.model.fused.linear import Linear

PANEL = 16
"""Outputs whose weights lie together; `decode.c` has the same number."""


@dataclass(frozen=True)
class Panels:
    """A linear layer without adapters, its weights as [O / 16, I, 16], the last outputs filled up with zeros."""

    library: Any
    weights: torch.Tensor
    bias: torch.Tensor | None
    outputs: int

    @staticmethod
    def of(library: Any, layer: Linear) -> Panels:
        assert layer.lora_a is None
        weight_OI = layer.weight.contiguous()
        outputs, inputs = weight_OI.shape
        weights = weight_OI.new_empty(-(-outputs // PANEL), inputs, PANEL)
        library.pack(weight_OI.data_ptr(), weights.data_ptr(), inputs, outputs)
        return Panels(library, weights, layer.bias, outputs)

    def __call__(
        self,
        x_RI: torch.Tensor,
        *,
        residual_RO: torch.Tensor | None = None,
        out_RO: torch.Tensor | None = None,
    ) -> torch.Tensor:
        y_RO = x_RI.new_empty(len(x_RI), self.outputs) if out_RO is None else out_RO
        self.library.linear(
            x_RI.data_ptr(),
            self.weights.data_ptr(),
            at(self.bias),
            at(residual_RO),
            y_RO.data_ptr(),
            *x_RI.shape,
            self.outputs,
        )
        return y_RO


@dataclass(frozen=True)
class NativeBlock:
    """A block whose layers lie in panels, beside what else its halves say: their own layers are not kept."""

    library: Any
    window: int | None
    norm: Norm
    qkv: Panels
    widths: tuple[int, int, int]
    head_width: int
    scaling: float
    head_norms: tuple[Norm, Norm] | None
    rotates: bool
    out: Panels
    mlp_norm: Norm
    gate_up: Panels
    down: Panels

    @staticmethod
    def of(library: Any, attention: AttentionHalf, mlp: MlpHalf, window: int | None) -> NativeBlock:
        """Of halves with one layer where several share an input."""
        (qkv,), (gate_up,), norms = attention.qkv, mlp.gate_up, attention.head_norms
        return NativeBlock(
            library,
            window,
            norm=_in_float32(attention.norm),
            qkv=Panels.of(library, qkv),
            widths=attention.widths,
            head_width=attention.head_width,
            scaling=attention.scaling,
            head_norms=None if norms is None else (_in_float32(norms[0]), _in_float32(norms[1])),
            rotates=attention.rotates,
            out=Panels.of(library, attention.out),
            mlp_norm=_in_float32(mlp.norm),
            gate_up=Panels.of(library, gate_up),
            down=Panels.of(library, mlp.down),
        )

    def __call__(
        self, x_RH: torch.Tensor, turns: Sequence[torch.Tensor], writing: Writing, index: int
    ) -> torch.Tensor:
        qkv = self.qkv(normed(self.library, x_RH, self.norm))
        x_RH = self.out(self._attend(qkv, turns, writing, index), residual_RO=x_RH)
        both = self.gate_up(normed(self.library, x_RH, self.mlp_norm))
        fed_RI = both.new_empty(len(both), both.shape[1] // 2)
        self.library.swiglu(both.data_ptr(), fed_RI.data_ptr(), *fed_RI.shape)
        return self.down(fed_RI, residual_RO=x_RH)

    def _attend(
        self, qkv: torch.Tensor, turns: Sequence[torch.Tensor], writing: Writing, index: int
    ) -> torch.Tensor:
        width, rows = self.head_width, len(qkv)
        heads, key_heads, _ = (part // width for part in self.widths)
        keys, values = writing.cache.layer(index, qkv.new_empty(key_heads, width))
        assert rows <= writing.cache.rows and writing.seen <= writing.cache.length, "C would write elsewhere"
        assert keys.dtype == qkv.dtype, "C would write over the end"
        scores, mixed_RO = qkv.new_empty(rows, heads, writing.seen), qkv.new_empty(rows, self.widths[0])
        cos, sin = turns if self.rotates else (None, None)
        query_norm, key_norm = self.head_norms or (None, None)
        self.library.attend(
            qkv.data_ptr(),
            at(cos),
            at(sin),
            at(query_norm and query_norm.weight),
            at(key_norm and key_norm.weight),
            query_norm.eps if query_norm else 0.0,
            keys.data_ptr(),
            values.data_ptr(),
            writing.positions_R.data_ptr(),
            scores.data_ptr(),
            mixed_RO.data_ptr(),
            rows,
            heads,
            key_heads,
            width,
            writing.cache.length,
            writing.seen,
            self.window or 0,
            self.scaling,
        )
        return mixed_RO


def normed(library: Any, x_RH: torch.Tensor, norm: Norm) -> torch.Tensor:
    """RMSNorm of every row."""
    y_RH = torch.empty_like(x_RH)
    library.rms_norm(x_RH.data_ptr(), norm.weight.data_ptr(), norm.eps, y_RH.data_ptr(), *x_RH.shape)
    return y_RH


def output_layer(library: Any, norm: Norm, weight_VH: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The last norm and the output layer. Its logits [R, V] lie in one place, until the next call."""
    panels, norm = Panels.of(library, Linear(weight_VH.float(), None)), _in_float32(norm)
    room_RV = torch.empty(0, len(weight_VH))

    def logits(x_RH: torch.Tensor) -> torch.Tensor:
        nonlocal room_RV
        if len(room_RV) < len(x_RH):  # memory that is new in every step costs more than the step writes to it
            room_RV = x_RH.new_empty(len(x_RH), len(weight_VH))
        return panels(normed(library, x_RH, norm), out_RO=room_RV[: len(x_RH)])

    return logits


def drawn(logits_RV: torch.Tensor, uniform_R: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Tokens [R] drawn with numbers in [0, 1), and the logarithms of their shares, both float32; None where C does
    not do it."""
    if logits_RV.device.type != "cpu" or (library := compiled.decoding()) is None:
        return None
    assert logits_RV.dtype == uniform_R.dtype == torch.float32, "C reads float32"
    logits_RV, uniform_R = logits_RV.contiguous(), uniform_R.contiguous()
    tokens_R, logp_R = uniform_R.new_empty(len(uniform_R), dtype=torch.int64), torch.empty_like(uniform_R)
    pointers = (tensor.data_ptr() for tensor in (logits_RV, uniform_R, tokens_R, logp_R))
    library.draw(*pointers, *logits_RV.shape)
    return tokens_R, logp_R


def _in_float32(norm: Norm) -> Norm:
    return Norm(norm.weight.float(), norm.eps)
