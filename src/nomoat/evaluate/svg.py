"""A figure as inline SVG whose text and colours are its page's own.

Colours are drawn as placeholders and become CSS variables, so that one figure serves light and dark; text stays text,
in the page's font. The same numbers give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_IN = 4.6  # 331 SVG units: on a phone one unit is about one CSS pixel, so 10-unit text stays readable

INK, MUTED, RULE, TUNED, BASE = "#010101", "#020202", "#030303", "#040404", "#050505"
_CSS = {INK: "--ink", MUTED: "--muted", RULE: "--rule", TUNED: "--tuned", BASE: "--base"}
_STYLE = {
    "svg.hashsalt": "nomoat",  # else ids are random, and the same night gives other bytes
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def svg(name: str, title: str, height_in: float, draw: Callable[[Axes], None]) -> str:
    """A figure as an <svg> element; `name` keeps its ids apart from those of the page's other figures."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(WIDTH_IN, height_in))
        draw(figure.subplots())
        file = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    found = file.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", found, count=1, flags=re.DOTALL)
    found = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", found)
    found = re.sub(r"font-family: [^;\"]*", "font-family: inherit", found)
    for placeholder, variable in _CSS.items():
        found = found.replace(placeholder, f"var({variable})")
    label = f'role="img" aria-label="{html.escape(title)}"'
    return re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda svg: f"<svg {svg[1]} {label}>", found, count=1
    )
