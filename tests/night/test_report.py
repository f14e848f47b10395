"""The morning report: what it says, that it is one file without a voice of its own, and that nothing in it is
taken for markup."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from helpers.summaries import answers, comparison, summary
from nomoat.errors import ArtifactError
from nomoat.evaluate.comparison import Answer, Comparison
from nomoat.night.report import MOST_ANSWERS, MOST_CHARS, OPEN_ANSWERS, clean, render, write_report

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
TAGS = (
    "html head meta link title style body header main p h1 h2 h3 h4 b i a br small span bdi div section article "
    "table thead tbody tfoot tr th td figure ul ol li dl dt dd details summary pre code "
    "svg g path use defs text clippath rect"
)
VOID_TAGS = {"meta", "link", "br"}


class Page(HTMLParser):
    """Elements, their attributes, headings and visible text; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "title"):
            self.text.append(data)
            if self._open[-1] == "h2":
                self.headings.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def assert_inert(html: str) -> Page:
    """One document that can load, run and send nothing."""
    page = Page(html)
    assert set(page.tags) <= set(TAGS.split())
    assert [value for tag, name, value in page.attributes if name == "content" and "src" in value] == [POLICY]
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#") or (tag, value) == ("link", "data:,"), (tag, name, value)
        if name == "style":
            assert "url(" not in value.replace("url(#", ""), value
    return page


@pytest.fixture(scope="module")
def html() -> str:
    return render(summary())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return assert_inert(html)


def test_one_file_without_a_request_or_a_script(html: str, page: Page) -> None:
    assert html.startswith("<!doctype html>\n")
    assert page.tags.index("meta") < page.tags.index("link")
    assert "script" not in page.tags
    assert "@import" not in html
    assert re.findall(r"https?://[^\"' <]*", html) == []
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    assert "@media (prefers-color-scheme: dark)" in html


def test_the_order_is_that_of_the_mornings_questions(page: Page) -> None:
    assert page.headings == [
        "How much better",
        "Whether it is served",
        "What it cost",
        "How it learned",
        "What they answer",
        "What it was trained on",
        "Is what is served what was trained",
        "What was planned, and why",
        "Where it comes from",
        "Licences",
        "Recipe",
        "Machine",
        "Warnings",
        "Next",
    ]


def test_the_verdict_stands_first_and_large(html: str) -> None:
    said = summary().comparison.said
    assert said.startswith(
        "The tuned model passes 77 of 120 held-out prompts, the base 5: +60.0 points (95% interval"
    )
    assert f"<h1>{said}</h1>" in html
    assert html.index("Better than its base.") < html.index("How much better")


@pytest.mark.parametrize(
    "shown",
    [
        "pass rate % of prompts, 120 stories",
        "loss nats per token, 200 held-out rows",
        "Of 120 prompts 73 are passed by the tuned model only, 1 by the base only. Were both equally good, a split "
        "at least as uneven would have probability below 0.0001 (exact McNemar test).",
        "7 min 38 s, 4.3 Wh, less than $0.01.",
        "Energy: estimated: 10 W and 12 W for each of 2 cores. Price: 0.30 $/kWh; the machine itself at 0 $/h",
        "reused, cost nothing tonight",
        "best step, kept 240",
        "held-out loss before 2.440",
        "step 41: out of memory, micro-batch now 1024 tokens",
        "The first 60 of 120 in the order of the file, not chosen.",
        "rows read 644",
        "of these, trained on 45,801",
        "chat template from tokenizer",
        "stop tokens <|end|>",
        "Rows that could not be used, 1 quoted",
        "Underlined on a tint: trained on",
        "storyteller-Q4_K_M.gguf (Q4_K_M)",
        "micro-batch 1024 tokens (of 4096 asked): 4096 needs 7.9 GiB, 6.3 GiB are free",
        "└ adapter sft sft-77aa01b2c3d4e5f6",
        "data-1f0e9a33c2b4d5e6 (its inputs are not repeated here)",
        "data: CC0-1.0 (starter stories)",
        "memory 6.8 GB",
        "stories.jsonl:88: not JSON, left out (1 of 641 rows)",
        "nomoat chat",
    ],
)  # fmt: skip
def test_what_the_page_says(page: Page, shown: str) -> None:
    assert shown in page.words


def test_the_deciding_numbers_stand_with_their_intervals(page: Page) -> None:
    whole = next(metric for metric in summary().comparison.metrics if metric.name == "pass rate")
    for estimate, unit in ((whole.base, "%"), (whole.tuned, "%")):
        low, high = 100 * estimate.low, 100 * estimate.high
        assert f"{100 * estimate.value:.1f}{unit} {low:.1f} to {high:.1f}" in page.words
    loss = next(metric for metric in summary().comparison.metrics if metric.name == "loss")
    low, high = (f"{bound:.3f}".replace("-", "−") for bound in (loss.difference.low, loss.difference.high))
    assert f"{low} to {high}" in page.words


def test_each_answer_shows_both_sides_with_every_check() -> None:
    answer = answers(1)[0]
    html = render(summary(comparison=replace(comparison(), answers=[answer])))
    words = assert_inert(html).words
    for text in (answer.messages[0]["content"], answer.base, answer.tuned):
        assert " ".join(text.split()) in words
    shown = html[html.index('<article class="answer">') : html.index("</article>")]
    passes, fails = shown.count('"pass">✓</span>'), shown.count('"fail">✗</span>')
    outcomes = [check[key] for check in answer.checks for key in ("base_passed", "tuned_passed")]
    assert (passes, fails) == (outcomes.count(True), outcomes.count(False))
    assert f"{answer.checks[1]['kind']} {answer.checks[1]['base_detail']}" in words


def test_many_answers_fold_and_the_rest_is_counted(html: str, page: Page) -> None:
    assert html.count('<article class="answer">') == MOST_ANSWERS
    folded = html[html.index("<details><summary>54 more</summary>") :]
    assert folded.count('<article class="answer">') == MOST_ANSWERS - OPEN_ANSWERS
    assert "The other 60 are in the ledger." in page.words


def test_trained_and_read_tokens_are_told_apart_by_more_than_colour(html: str) -> None:
    assert (
        '<span class="trained">Mia had a small red kite. It flew up, up, up. And they all laughed.&lt;|end|&gt;</span>'
        in html
    )
    assert '<span class="read">&lt;|user|&gt;\nWrite a short story about Mia.' in html
    assert ".trained { color: var(--ink); background: var(--mark); border-bottom: 2px solid" in html


def test_a_night_of_pretraining_alone_has_less_to_say() -> None:
    said = "A new base was trained from scratch: held-out loss 1.612 nats a token. It has no rival yet."
    night = summary(
        comparison=Comparison([], [], "not compared", "", said),
        gate=None,
        champion="",
        data_reports=[],
        fidelity=[],
        plan=[],
        licences=[],
        warnings=[],
        trainings=[],
    )
    page = assert_inert(render(night))
    assert page.headings == [
        "What it cost",
        "How it learned",
        "What was planned, and why",
        "Where it comes from",
        "Licences",
        "Recipe",
        "Machine",
        "Next",
    ]
    assert said in page.words
    assert "Not shown better" not in page.words
    assert "None is recorded for base or data." in page.words


@pytest.mark.parametrize(
    ("verdict", "shown"),
    [("worse", "✗ Worse than its base."), ("not shown better", "≈ Not shown better than its base.")],
)
def test_other_verdicts_are_said_in_words(verdict: str, shown: str) -> None:
    night = summary(
        comparison=replace(comparison(), verdict=verdict, said="It moved by -3.5 points (-9 to 2).")
    )
    words = assert_inert(render(night)).words
    assert shown in words
    assert "It moved by −3.5 points (−9 to 2)." in words


HOSTILE = (
    "</pre></textarea></style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='x' "
    "{{ 7*7 }} {% raw %} $\\frac{1}{2}$ &lt; ]]> <!-- \x00\x07\x1b[31m\x7f\x85 \u202egnp.exe\u2066 \ud800 "
    '\r\n#010101 url(http://evil.example/x) id="figure_1"'
)


def poisoned(value: Any, poison: str) -> Any:
    """The same shape with poison behind every text that an owner, a file or a model could have written."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = ("verdict", "decided_by", "how", "started_at", "ended_at", "unit")
        named = {f.name: getattr(value, f.name) for f in fields(value) if f.name not in kept}
        return replace(value, **{name: poisoned(content, poison) for name, content in named.items()})
    if isinstance(value, str):
        return value + poison
    if isinstance(value, list):
        return [poisoned(entry, poison) for entry in value]
    if isinstance(value, dict):
        return {key: poisoned(entry, poison) for key, entry in value.items()}
    return value


def test_everything_is_hostile_and_nothing_becomes_markup(tmp_path: Path) -> None:
    write_report(poisoned(summary(), HOSTILE), tmp_path / "night.html")
    html = (tmp_path / "night.html").read_text(encoding="utf-8")
    page = assert_inert(html)
    assert "<script" not in html
    assert "{{ 7*7 }}" in page.words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert "␀␇␛[31m␡\ufffd ⟨U+202E⟩gnp.exe⟨U+2066⟩ \ufffd" in page.words
    assert page.headings == Page(render(summary())).headings


def test_a_megabyte_in_every_field_stays_a_page() -> None:
    night = summary(comparison=replace(comparison(), answers=answers(3)))
    html = render(poisoned(night, "ab" * 500_000))
    assert_inert(html)
    assert "more characters]" in html
    assert len(html) < 2_000_000


def test_a_long_answer_is_cut_and_the_rest_counted() -> None:
    long = Answer("s", "1", [{"role": "user", "content": "?"}], "x" * (MOST_CHARS + 1234), "", None, None)
    html = render(summary(comparison=replace(comparison(), answers=[long])))
    assert "x" * MOST_CHARS + "… [1,234 more characters]</div>" in html
    assert "x" * (MOST_CHARS + 1) not in html
    assert "<i>no text</i>" in html
    assert ".scroll { max-height: 15rem; overflow: auto; }" in html


def test_long_conversations_and_tool_calls_are_shown_short() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"turn {turn}"} for turn in range(20)]
    messages[-1] = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"name": "weather", "arguments": {"at": "Bern"}}],
    }
    html = render(
        summary(comparison=replace(comparison(), answers=[Answer("s", "1", messages, "a", "b", None, None)]))
    )
    words = assert_inert(html).words
    assert "14 earlier messages are not shown" in words
    assert "turn 13" not in words
    assert "turn 14" in words
    assert json.dumps(messages[-1]["tool_calls"]) in words


def test_a_lineage_deeper_than_the_stack_is_cut() -> None:
    node: dict[str, Any] = {"id": "base:0", "kind": "base", "role": "base", "inputs": []}
    for generation in range(3000):
        node = {"id": f"merge-{generation}", "kind": "merge", "role": "base", "inputs": [node]}
    words = assert_inert(render(summary(lineage=node))).words
    assert "merge-2999" in words
    assert "2901 more are in the ledger." in words


def test_same_summary_same_bytes(tmp_path: Path) -> None:
    night = summary()
    write_report(night, tmp_path / "first.html")
    with matplotlib.rc_context({"svg.hashsalt": None, "lines.linewidth": 9.0, "axes.grid": True}):
        write_report(night, tmp_path / "second.html")
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()


def test_no_two_elements_share_an_id(page: Page) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    uses = {
        value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value[0] == "#"
    }
    clips = set(
        re.findall(
            r"url\(#([^)]*)\)", " ".join(value for _, name, value in page.attributes if name == "clip-path")
        )
    )
    assert uses | clips <= set(ids)


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "night.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nomoat.ledger.files.os.replace", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        write_report(summary(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["night.html"]
    assert path.read_text() == "old"


def test_clean_leaves_honest_text_alone() -> None:
    honest = "Zwölf\tBoxkämpfer\nשלום \u200f123 🦉"
    assert clean(honest) == honest
    assert clean("a\r\nb\rc") == "a\nb␍c"
    assert clean("abcdef", 4) == "abcd… [2 more characters]"


def test_the_gates_verdict_stands_at_the_top_and_its_evidence_below(page: Page) -> None:
    assert "The gate says promote . Served from now on: gen-3 ." in page.words
    assert "gen-3 replaces gen-2. Evidence over a million to 1 that it is better, where" in page.words
    assert "held-out prompts 60 / 9 / 51 71.2% (" in page.words
    assert "blind votes 14 / 8 / 3 62.0% (" in page.words
    assert "Guarded: safety , holds: 0.5% (" in page.words
