"""The generations' page: quality with intervals against time and against cost, one point a generation."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import gradio as gr
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator

from nomoat.evaluate.comparison import Estimate
from nomoat.evaluate.history import Course, Point, courses
from nomoat.evaluate.svg import BASE, INK, TUNED, svg
from nomoat.ledger.artifacts import ArtifactStore
from nomoat.ledger.store import Ledger
from nomoat.serve.web.arena_view import CONFIDENCE, html_table
from nomoat.serve.web.look import nav

_DAY = "day"
_LINES = ("-.", ":", (0, (8, 2)), (0, (1, 3)))  # of outside models, one after the other
_DRAWING = threading.Lock()  # matplotlib's styles are the whole process's
_NONE_YET = "<p>No generation was measured yet: nomoat run</p>"


def generations_page(ledger_path: Path) -> gr.Blocks:
    """The page over a workspace's ledger, read anew each time it is opened."""
    with gr.Blocks(title="nomoat generations", analytics_enabled=False) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(nav("Generations"), elem_id="pages")
            gr.Button("◐", elem_id="theme", size="sm", min_width=44)
        shown = gr.HTML(elem_id="generations")

        async def load() -> str:
            return await asyncio.to_thread(_read, ledger_path)

        page.load(load, None, [shown], api_visibility="private", show_progress="hidden")
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _read(ledger_path: Path) -> str:
    if not ledger_path.is_file():
        return _NONE_YET
    with Ledger.open(ledger_path) as ledger:
        store = ArtifactStore(ledger_path.parent.parent)
        found = courses(ledger, store, confidence=CONFIDENCE)
    with _DRAWING:
        return "".join(_section(number, course) for number, course in enumerate(found)) or _NONE_YET


def _section(number: int, course: Course) -> str:
    by_time = _figure(f"time{number}", course, _DAY, lambda point: float(date2num(point.made_at)))
    by_cost = _figure(f"cost{number}", course, *_cost(course))
    rows = [_row(course, point) for point in reversed(course.points)]
    if course.base:
        rows.append(("base", _value(course, course.base), "", "", "", ""))
    rows += [
        (peer.name, _value(course, peer.value), _moment(peer.measured_at), "", "", f"{peer.dollars:.4f}")
        for peer in course.peers
    ]
    better = "higher" if course.higher_is_better else "lower"
    note = (
        f"{100 * CONFIDENCE:g}% intervals; {better} is better; costs are those of all nights until then. "
        "The base is the newest night's. "
    )
    if course.unit == "points":
        note += "400 points are odds of 10 to 1."
    else:
        note += "Generations are comparable where their nights held out the same prompts."
    heads = ("Generation", course.measure, "Made", "Hours", "Energy", "Dollars")
    figures = f"<div class='figures'>{by_time}{by_cost}</div>"
    title = f"{course.measure[0].upper()}{course.measure[1:]}"
    return html_table(title, heads, rows, note, above=figures)


def _figure(name: str, course: Course, label: str, place: Callable[[Point], float]) -> str:
    scale = 100 if course.unit == "share" else 1

    def draw(axes: Axes) -> None:
        if course.base:
            low, value, high = (scale * x for x in (course.base.low, course.base.value, course.base.high))
            axes.axhspan(low, high, color=BASE, alpha=0.12, linewidth=0)
            axes.axhline(value, color=BASE, linewidth=1.4, linestyle="--", label="base")
        for peer, style in zip(course.peers, itertools.cycle(_LINES), strict=False):
            axes.axhline(scale * peer.value.value, color=INK, linewidth=1.2, linestyle=style, label=peer.name)
        for point in course.points:
            if point.value is None:
                continue
            low, value, high = (scale * x for x in (point.value.low, point.value.value, point.value.high))
            axes.plot([place(point)] * 2, [low, high], color=TUNED, linewidth=2, solid_capstyle="butt")
            marker, size = ("*", 12) if point.is_champion else ("o", 6)
            axes.plot([place(point)], [value], color=TUNED, marker=marker, markersize=size, linestyle="none")
            axes.annotate(
                str(int(point.generation.rpartition("-")[2])),
                (place(point), high),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=INK,
            )
        axes.margins(y=0.15)
        places = [place(point) for point in course.points if point.value]
        first, last = (min(places), max(places)) if label == _DAY else (0.0, max(places))
        room = 0.12 * (last - first) or 1.0  # one point alone: a day around it
        axes.set_xlim(first - room if label == _DAY else 0.0, last + room)
        axes.set_xlabel(label)
        axes.set_ylabel(f"{course.measure}, %" if scale == 100 else course.unit)
        if label == _DAY:
            locator = AutoDateLocator(minticks=2, maxticks=5)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        if course.base or course.peers:
            axes.legend(loc="best", fontsize=10)

    return svg(name, f"{course.measure} of each generation, by {label}", 2.6, draw)


def _cost(course: Course) -> tuple[str, Callable[[Point], float]]:
    """Dollars where any were counted, else hours."""
    if any(point.spent.dollars for point in course.points):
        return "dollars until then", lambda point: point.spent.dollars
    return "hours of nights until then", lambda point: point.spent.seconds / 3600


def _row(course: Course, point: Point) -> tuple[str, ...]:
    spent = point.spent
    return (
        f"{point.generation} ★ champion" if point.is_champion else point.generation,
        _value(course, point.value),
        _moment(point.made_at),
        f"{spent.seconds / 3600:.2f}",
        f"{spent.energy_joules / 3600:,.1f} Wh",
        f"{spent.dollars:.4f}",
    )


def _moment(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _value(course: Course, found: Estimate | None) -> str:
    if found is None:
        return "not measured"
    low, value, high = (
        (
            f"{100 * x:.1f}%"
            if course.unit == "share"
            else f"{x:+.0f}"
            if course.unit == "points"
            else f"{x:.3f}"
        )
        for x in (found.low, found.value, found.high)
    )
    return value if low == high else f"{value} ({low} to {high})"
