"""The elementwise pieces in C and by torch, against the same formulas in double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nomoat.model.fused import compiled, kernels

FORMATS = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16 products of a float32 sum": (torch.float32, torch.bfloat16),
}
SIZES = [(1, 8), (3, 20), (65, 64), (17, 100)]


@pytest.fixture(params=["c", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two, and never the other."""
    if request.param == "torch":
        monkeypatch.setattr(kernels.compiled, "training", lambda stream, number: None)
    elif compiled.training(torch.float32, torch.float32) is None:
        pytest.skip("no C compiler")


@pytest.fixture(params=FORMATS)
def formats(request: pytest.FixtureRequest) -> tuple[torch.dtype, torch.dtype]:
    found: tuple[torch.dtype, torch.dtype] = FORMATS[request.param]
    return found


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(
    got: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype, *, roundings: float = 1.0
) -> None:
    """`got` is in `dtype` and as near as so many roundings leave it, beside 1e-5."""
    assert got.dtype == dtype
    share = roundings * 2.0**-8 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(
        got.double(), exact.double(), atol=share * float(exact.abs().max()), rtol=share
    )


@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_rms_norm(way: None, formats: tuple[torch.dtype, torch.dtype], rows: int, width: int) -> None:
    stream, number = formats
    x, weight = random(rows, width, dtype=stream), random(width, dtype=stream, seed=1)
    grad, more = random(rows, width, dtype=number, seed=2), random(rows, width, dtype=stream, seed=3)
    wide = x.double().requires_grad_()
    exact = F.rms_norm(wide, (width,), weight.double(), 1e-5)
    (to_x,) = torch.autograd.grad(exact, wide, grad.double())

    got, scale = kernels.rms_norm(x, weight, 1e-5, number)
    assert_near(got, exact.detach(), number)
    assert torch.equal(kernels.rms_norm_again(x, weight, scale, number), got)
    assert_near(kernels.rms_norm_backward(grad, x, weight, scale), to_x, stream)
    together = kernels.rms_norm_backward(grad, x, weight, scale, more)
    assert_near(together, to_x + more.double(), stream, roundings=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_of_a_part_and_back(way: None, dtype: torch.dtype) -> None:
    """Heads as they lie in the output of one layer that makes queries, keys and values."""
    heads = random(7, 5, 12, dtype=dtype)[:, 1:4]
    angles = random(7, 6, dtype=torch.float32, seed=1).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    wide, a, b = heads.double(), cos[:, None].double(), sin[:, None].double()
    turned = wide * a + torch.cat((-wide[..., 6:], wide[..., :6]), dim=-1) * b
    got = kernels.rotate(heads, cos, sin)
    assert_near(got, turned, dtype, roundings=3)
    assert_near(kernels.rotate(got, cos, sin, back=True), wide, dtype, roundings=6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("together", [False, True], ids=["two layers", "one layer"])
def test_swiglu(way: None, together: bool, dtype: torch.dtype) -> None:
    both = random(9, 2 * 50, dtype=dtype) * 4
    gate, up = both.split(50, dim=1) if together else (both[:, :50].contiguous(), both[:, 50:].contiguous())
    gate[0, 0], up[0, 0] = -200.0, 1.0  # the exponential of its negative is more than float32 holds
    grad = random(9, 50, dtype=dtype, seed=1)
    wide = gate.double().requires_grad_(), up.double().requires_grad_()
    exact = F.silu(wide[0]) * wide[1]
    to_gate, to_up = torch.autograd.grad(exact, wide, grad.double())
    assert_near(kernels.swiglu(gate, up), exact.detach(), dtype, roundings=2)
    got_gate, got_up = kernels.swiglu_backward(grad, gate, up)
    assert_near(got_gate, to_gate, dtype, roundings=3)
    assert_near(got_up, to_up, dtype, roundings=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [1, 7, 64, 1001])
def test_log_share_and_its_gradient(way: None, vocabulary: int, dtype: torch.dtype) -> None:
    logits, targets = random(5, vocabulary, dtype=dtype) * 6, torch.arange(5) % vocabulary
    logits[1] += 300
    logits[2] -= 300
    wide = logits.double().requires_grad_()
    exact = wide.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    (to_logits,) = torch.autograd.grad(exact.sum(), wide)
    alone, nothing = kernels.log_share(logits.clone(), targets, with_gradient=False)
    assert nothing is None
    assert_near(alone, exact.detach(), torch.float32)
    logp, scale = kernels.log_share(logits, targets, with_gradient=True)
    assert scale is not None
    assert torch.equal(logp, alone)
    assert_near((logits.float() * scale).to(dtype), to_logits, dtype, roundings=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("some", [3, 64, 1000, 1001])
def test_shares_of_columns_that_come_one_after_another(way: None, some: int, dtype: torch.dtype) -> None:
    logits, targets = random(5, 1001, dtype=dtype) * 6, torch.tensor([0, 1000, 500, 64, 3])
    logits[1] += 300
    logits[2] -= 300
    logits[3, 64] += 60  # all other shares together are next to nothing
    wide = logits.double()
    exact = wide.log_softmax(-1)
    others = exact.exp().scatter(1, targets[:, None], 0.0)
    for with_gradient in (False, True):
        shares, seen = kernels.Shares.none_yet(targets), torch.zeros(5, 0)
        for first in range(0, 1001, some):
            columns = logits[:, first : first + some].clone()
            fades = kernels.share_on(columns, targets, first, shares, with_gradient=with_gradient)
            assert (fades is not None) == with_gradient
            if fades is not None:
                seen = torch.cat((seen * fades, columns.float()), dim=1)
        logp = shares.own - shares.highest - shares.total().log()
        assert_near(logp, exact.gather(1, targets[:, None])[:, 0], torch.float32)
        assert_near(shares.others / shares.total(), others.sum(1), torch.float32)
    assert_near((-seen / shares.total()[:, None]).to(dtype), others, dtype, roundings=2)


def test_what_is_no_number_stays_none(way: None) -> None:
    """A run that diverges is seen by its loss."""
    logits = random(2, 40, dtype=torch.bfloat16)
    logits[1, 3] = torch.nan
    for at in (3, 43):  # in a first piece, or a later one, where it is the target
        shares, targets = kernels.Shares.none_yet(torch.zeros(2)), torch.tensor([0, 43])
        for first in (0, 40):
            piece = random(2, 40, dtype=torch.bfloat16)
            if first <= at < first + 40:
                piece[1, at - first] = torch.nan
            kernels.share_on(piece, targets, first, shares, with_gradient=True)
        assert (shares.total() + shares.own).isfinite().tolist() == [True, False]
    logp, _ = kernels.log_share(logits, torch.tensor([0, 1]), with_gradient=True)
    assert logp.isfinite().tolist() == [True, False]
    x, weight = torch.full((1, 8), torch.nan, dtype=torch.bfloat16), torch.ones(8, dtype=torch.bfloat16)
    assert kernels.rms_norm(x, weight, 1e-5, torch.bfloat16)[0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logits = random(31, 999, dtype=dtype)
            logp, scale = kernels.log_share(logits, torch.arange(31), with_gradient=True)
            assert scale is not None
            some, shares = random(31, 999, dtype=dtype), kernels.Shares.none_yet(logp)
            fades = kernels.share_on(some, torch.arange(31), 0, shares, with_gradient=True)
            assert fades is not None
            x, weight = random(31, 100, dtype=dtype), random(100, dtype=dtype)
            normed, scales = kernels.rms_norm(x, weight, 1e-5, dtype)
            back = kernels.rms_norm_backward(normed, x, weight, scales, x)
            summed = (some, shares.highest, shares.others, shares.own, fades)
            found.append((logits, logp, scale, *summed, normed, scales, back))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
