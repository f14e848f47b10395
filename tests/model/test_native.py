"""The pieces of a step in C against torch in double precision, and what happens where there is no compiler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nomoat.model.fused import compiled
from nomoat.model.fused.blocks import Norm
from nomoat.model.fused.linear import Linear
from nomoat.model.fused.native import Panels, normed


@pytest.fixture
def library() -> Any:
    found = compiled.decoding()
    return found or pytest.skip("no C compiler")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 16])
@pytest.mark.parametrize("outputs", [1, 16, 39])
def test_a_layer_is_a_product_with_bias_and_residual(library: Any, rows: int, outputs: int) -> None:
    torch.manual_seed(0)
    x, weight, bias, more = (
        torch.randn(*shape) for shape in ((rows, 50), (outputs, 50), (outputs,), (rows, outputs))
    )
    product = x.double() @ weight.double().T
    close(Panels.of(library, Linear(weight, None))(x), product)
    close(Panels.of(library, Linear(weight, bias))(x, residual_RO=more), product + bias + more)


def test_a_row_is_the_same_to_the_bit_whatever_it_is_computed_beside(library: Any) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(17, 300), Panels.of(library, Linear(torch.randn(4_000, 300), None))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = layer(x)
        torch.set_num_threads(2)
        assert torch.equal(layer(x), together)
        for row in range(len(x)):
            assert torch.equal(layer(x[row : row + 1]), together[row : row + 1])
    finally:
        torch.set_num_threads(threads)


def test_a_norm_is_that_of_transformers(library: Any) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(50, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 50) * 10
    with torch.no_grad():
        close(normed(library, x, Norm(norm.weight, 1e-5)), norm.double()(x.double()))


def test_gates_far_from_zero_neither_overflow_nor_vanish(library: Any) -> None:
    gate = torch.cat((torch.linspace(-200, 200, 4_001), torch.tensor([-1e30, 1e30])))[None]
    up = torch.linspace(-1, 1, gate.shape[1])[None]
    out = torch.empty_like(gate)
    both = torch.cat((gate, up), dim=1)
    library.swiglu(both.data_ptr(), out.data_ptr(), *out.shape)
    expected = torch.nn.functional.silu(gate.double()) * up
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-7)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """A process that has not compiled yet."""
    for remembered in (compiled._library, compiled._say):
        remembered.cache_clear()
    yield
    for remembered in (compiled._library, compiled._say):
        remembered.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_without_a_compiler_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert compiled.decoding() is None
        assert compiled.training(torch.bfloat16, torch.bfloat16) is None
        assert not compiled.is_there(torch.float32)
    (record,) = caplog.records
    assert record.getMessage() == (
        "PyTorch alone trains and samples, about half as fast: no C compiler is there "
        "(install gcc, or set CC to one, and TMPDIR to where programs may run)"
    )


@pytest.mark.usefixtures("library", "forgotten")
def test_a_blank_cc_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", " ")
    assert compiled.decoding() is not None


@pytest.mark.usefixtures("forgotten")
def test_a_cc_that_cannot_be_read_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "'gcc")
    assert compiled.decoding() is None
    assert "half as fast: No closing quotation (" in caplog.text


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 'decode.c: not today' >&2; exit 1", "decode.c: not today"), ("exit 0", "made.so")],
)
def test_a_compiler_that_fails_is_done_without(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With an error of its own, and without having made anything."""
    broken = tmp_path / "cc"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert compiled.decoding() is None
    assert said in caplog.text
