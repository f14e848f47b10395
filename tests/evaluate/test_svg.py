"""Figures as inline SVG."""

from __future__ import annotations

from html.parser import HTMLParser

from nomoat.evaluate.svg import svg


def test_a_title_is_text_whatever_its_suite_is_called() -> None:
    title = r'pass rate, a "b" onload="alert(1)" <i>&\q\1 of each generation'
    found: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, attrs))

    Parser().feed(svg("x", title, 1.0, lambda axes: None))
    tag, attributes = found[0]
    assert tag == "svg"
    assert [name for name, _ in attributes] == ["viewbox", "role", "aria-label"]
    assert dict(attributes)["aria-label"] == title
