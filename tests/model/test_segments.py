"""Attention of packed segments, in C and by torch's calls, against a softmax written plainly in double precision."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch

from nomoat.data.pack import Segments
from nomoat.model.fused import compiled, segments

SCALING = 0.1
LENGTHS = (1, 5, 33, 90, 513)
Tensors = tuple[torch.Tensor, ...]


def rows(*lengths: int) -> Segments:
    bounds = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return Segments(tuple(bounds), (-1,) * len(lengths))


PACKS = {
    **{f"{length}": rows(length) for length in LENGTHS},
    "rows": rows(90, 5, 5, 1, 33, 61),
    "answers": Segments((0, 20, 25, 26, 38, 39, 46, 55, 64, 73, 170), (-1, 0, 0, 0, -1, 4, -1, 6, 6, -1)),
    "long answers": Segments((0, 130, 260, 261, 400), (-1, 0, 0, 0)),
    "answers apart": Segments((0, 20, 30, 47, 60, 63), (-1, 0, -1, 0, 2)),
}
HEADS = [(2, 2, 48), (6, 2, 64), (3, 1, 20), (2, 1, 129)]


@pytest.fixture(params=["c", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two, and never the other."""
    if request.param == "torch":
        monkeypatch.setattr(segments.compiled, "attention", lambda number: None)
        return
    if compiled.attention(torch.float32) is None:
        pytest.skip("no C compiler")
    for name in ("_forward_by_calls", "_backward_by_calls"):
        monkeypatch.delattr(segments, name)


def random(pack: Segments, sizes: tuple[int, int, int], dtype: torch.dtype) -> Tensors:
    """Query, key and value, parts of one tensor as a layer makes them, and the gradient to the output."""
    torch.manual_seed(0)
    heads, key_heads, width = sizes
    both = torch.randn(pack.bounds[-1], heads + 2 * key_heads, width).to(dtype)
    return *both.split((heads, key_heads, key_heads), dim=1), torch.randn(len(both), heads, width).to(dtype)


def plainly(pack: Segments, tensors: Tensors) -> Tensors:
    """Output, logarithms of sums, and gradients to query, key and value."""
    query, key, value, grad = (t.double().requires_grad_() for t in tensors)
    shared = query.shape[1] // key.shape[1]
    segment = torch.cat([torch.full((b - a,), i) for i, (a, b) in enumerate(pairwise(pack.bounds))])
    prefix, place = torch.tensor(pack.prefix)[segment], torch.arange(len(segment))
    own = (segment[:, None] == segment) & (place[:, None] >= place)
    seen = own | (prefix[:, None] == segment)
    keys, values = (t.repeat_interleave(shared, dim=1) for t in (key, value))
    scores = torch.einsum("tnd,snd->tns", query, keys) * SCALING
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    output = torch.einsum("tns,snd->tnd", scores.softmax(-1), values)
    grads = torch.autograd.grad(output, (query, key, value), grad)
    return output.detach(), scores.logsumexp(-1).detach(), *grads


def ours(pack: Segments, tensors: Tensors) -> Tensors:
    """The same of `segments`."""
    query, key, value, grad = tensors
    plan = segments.planned(pack)
    output, sums = segments.forward(query, key, value, plan, SCALING)
    return output, sums, *segments.backward(grad, query, key, value, output, sums, plan, SCALING)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", HEADS, ids=str)
@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_in_float32_it_is_a_softmax(pack: Segments, sizes: tuple[int, int, int]) -> None:
    tensors = random(pack, sizes, torch.float32)
    for found, expected in zip(ours(pack, tensors), plainly(pack, tensors), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """In shares of all that there is, or in itself where there is nothing: one token's score gives no gradient."""
    return float((found.double() - expected).norm() / (expected.norm() or 1))


def test_numbers_that_are_not_for_c_are_left_to_torch() -> None:
    pack = PACKS["answers"]
    tensors = random(pack, (6, 2, 64), torch.float16)
    for found, expected in zip(ours(pack, tensors), plainly(pack, tensors), strict=True):
        assert error(found, expected) < 2e-3


@pytest.mark.parametrize("sizes", HEADS, ids=str)
@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_bfloat16_in_c_loses_no_more_than_torch(
    pack: Segments, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.attention(torch.bfloat16) is None:
        pytest.skip("no C compiler")
    tensors = random(pack, sizes, torch.bfloat16)
    exact, in_c = plainly(pack, tensors), ours(pack, tensors)
    monkeypatch.setattr(segments.compiled, "attention", lambda number: None)
    by_torch = ours(pack, tensors)
    for expected, found, other in zip(exact, in_c, by_torch, strict=True):
        assert found.dtype == other.dtype
        assert error(found, expected) <= 1.1 * error(other, expected) + 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    if compiled.attention(dtype) is None:
        pytest.skip("no C compiler")
    pack = PACKS["answers"]
    tensors = random(pack, (6, 2, 64), dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = ours(pack, tensors)
        torch.set_num_threads(2)
        for _ in range(3):
            assert all(map(torch.equal, ours(pack, tensors), alone))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("way")
def test_scores_far_from_zero_neither_overflow_nor_vanish() -> None:
    pack = rows(40)
    query, key, *rest = random(pack, (2, 1, 48), torch.float32)
    tensors = query * 100, key, *rest
    for found, expected in zip(ours(pack, tensors), plainly(pack, tensors), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=1e-3)


def test_families_are_roots_with_what_goes_on_from_them_the_dearest_first() -> None:
    plan: Any = segments.planned(PACKS["answers apart"])
    assert plan.spans.tolist() == [[0, 20], [20, 30], [47, 60], [30, 47], [60, 63]]
    assert plan.families.tolist() == [0, 3, 5]
    assert plan.spans.dtype == plan.families.dtype == torch.int32


def test_one_long_row_on_many_threads_is_torchs() -> None:
    """A family and key head is one thread's in C: the others would have nothing to do."""
    if compiled.attention(torch.float32) is None:
        pytest.skip("no C compiler")
    key = torch.zeros(90, 1, 16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        assert segments._library(key, segments.planned(rows(90))) is None
        assert segments._library(key, segments.planned(rows(*(18,) * 5))) is not None
        torch.set_num_threads(2)
        assert segments._library(key, segments.planned(rows(90))) is not None
    finally:
        torch.set_num_threads(before)


def test_memory_that_c_does_not_get_is_missed_as_torch_misses_it() -> None:
    """So that a batch is halved then."""
    if compiled.attention(torch.float32) is None:
        pytest.skip("no C compiler")
    run = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout.strip() == "missed", run.stderr


SHORT_OF_MEMORY = """
import resource
import torch
from nomoat.data.pack import Segments
from nomoat.model.fused import compiled, segments
from nomoat.model.memory import out_of_memory

torch.set_num_threads(1)
compiled.attention(torch.float32)
plan = segments.planned(Segments((0, 60_000), (-1,)))
query = torch.zeros(60_000, 1, 64)
output, sums = segments.forward(query[:64], query[:64], query[:64], segments.planned(Segments((0, 64), (-1,))), 1.0)
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (30 << 20), resource.RLIM_INFINITY))
try:
    segments.forward(query, query, query, plan, 1.0)
except RuntimeError as error:
    print("missed" if out_of_memory(error) else error)
"""
