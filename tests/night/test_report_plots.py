"""The report's figures, as the page takes them in."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from helpers.summaries import curve, summary
from nomoat.night.report_plots import intervals, lengths, loss_curve, smooth


def test_figures_use_the_pages_colours_and_fonts() -> None:
    svg = loss_curve(curve(), 240)
    assert svg is not None
    assert svg.startswith('<svg viewBox="0 0 ')
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {
        *(f"var(--{name})" for name in ("ink", "muted", "rule", "tuned", "base")),
        "none",
    }
    assert set(re.findall(r"font-family: ([^;\"]+)", svg)) == {"inherit"}
    assert all(label in svg for label in (">training, smoothed<", ">held-out<", ">best, kept<", ">step<"))


def test_the_best_step_is_marked_only_where_it_was_measured() -> None:
    assert ">best, kept<" not in (loss_curve(curve(), 31) or "")


def test_figures_of_nothing_are_none() -> None:
    assert loss_curve({}, None) is None
    assert loss_curve({"train": [{"step": 1, "loss": float("nan")}], "held_out": []}, None) is None
    assert intervals([]) is None
    assert lengths([]) is None
    assert lengths([[16, 0]]) is None


def test_a_hostile_label_is_text_in_a_figure() -> None:
    metric = replace(summary().comparison.metrics[0], name="<b>$x^2$</b>\x00\u202e" + "y" * 1_000_000)
    svg = intervals([metric])
    assert svg is not None
    assert "&lt;b&gt;$x^2$&lt;/b&gt; yyyyyyy" in svg
    assert len(svg) < 20_000


def test_smoothing_starts_at_the_first_value_and_ends_near_the_last_ones() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0], rel=1e-12)
    stepped = smooth([3.0] * 100 + [1.0] * 100)
    assert stepped[0] == pytest.approx(3.0, rel=1e-12)
    assert 1.0 < stepped[-1] < 1.01
    assert smooth([]) == []


def test_lengths_are_labelled_by_their_bounds() -> None:
    svg = lengths([[16, 3], [32, 0], [1024, 7]])
    assert svg is not None
    assert re.findall(r">([\d,]+|tokens in a row|rows)<", svg)[:5] == [
        "0",
        "16",
        "32",
        "1,024",
        "tokens in a row",
    ]
