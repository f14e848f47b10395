"""The two ways of packed attention agree: segment by segment, and one kernel with a rule. Forward only: the kernel
has no backward on a processor."""

from __future__ import annotations

import pytest
import torch

from nomoat.data.pack import Segments
from nomoat.model.attention import packed_attention
from nomoat.model.flex import bucket, flex

ROWS = Segments((0, 3, 40, 41, 90), (-1, -1, -1, -1))
GROUPS = Segments((0, 20, 27, 28, 60, 64, 90), (-1, 0, 0, -1, 3, 3))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("segments", [ROWS, GROUPS], ids=["rows", "groups"])
def test_the_rule_is_the_segments(segments: Segments, softcap: float | None, window: int | None) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, 4, 90, 16)
    key, value = (torch.randn(1, 2, 90, 16) for _ in range(2))
    expected, _ = packed_attention(
        torch.nn.Module(),
        query,
        key,
        value,
        None,
        segments=segments,
        scaling=0.3,
        softcap=softcap,
        sliding_window=window,
    )
    got = flex(query, key, value, segments, scaling=0.3, softcap=softcap, window=window).transpose(1, 2)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_few_lengths_are_compiled() -> None:
    assert {bucket(tokens) for tokens in range(1, 2049)} == {512, 1024, 2048}
    assert all(bucket(tokens) >= tokens for tokens in (1, 511, 512, 513, 4096, 5000))
