"""The chat page as its reader sees it. No real model: echo answers with what it was told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

import nomoat
from browser.conftest import Gate
from helpers.serving import Running, make_keys, serving, wait_until
from helpers.workspaces import ledger_path
from nomoat.engine.echo import EchoEngine
from nomoat.engine.llamaserver import LlamaServerEngine
from nomoat.evaluate.prompts import read_prompts
from nomoat.ledger.chats import chat_rows
from nomoat.ledger.feedback import standing_ratings
from nomoat.ledger.rows import RatingRow
from nomoat.ledger.store import Ledger
from nomoat.quantize.convert import to_gguf
from nomoat.serve.limits import Limits
from nomoat.serve.web.arena import Votes
from nomoat.serve.web.attach import MOST_FILE_BYTES

ASSETS = Path(nomoat.__file__).parent / "assets"
BASE, STARTER = ASSETS / "base", ASSETS / "starter"
BOX = "#box textarea"
IDLE, BUSY = "#stop[disabled]", "#stop:not([disabled])"


class Reader:
    """Somebody at the page. Notes errors of scripts, and whom the page turns to."""

    def __init__(self, browser: Any, running: Running, *, key: str = "", **more: Any) -> None:
        self.context = browser.new_context(**more)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message) or dialog.accept())
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = running.url
        self.page.goto(f"{running.url}/")
        if key:
            self.page.fill("#key", key)
            self.page.click("button")
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function("document.querySelector('#picker input')?.value")

    def say(self, text: str) -> None:
        self.page.fill(BOX, text)
        self.page.press(BOX, "Enter")

    def told(self, text: str, *, shows: str | None = None) -> None:
        """Say it and see it echoed; `shows` is what markdown makes of it."""
        self.say(text)
        self.page.wait_for_function(
            "(text) => [...document.querySelectorAll('#talk .bot.message')].at(-1)?.innerText.includes(text)"
            " && document.querySelector('#stop').disabled",
            arg=shows or text,
        )

    def pick(self, label: str) -> None:
        self.page.click("#picker input")
        self.page.get_by_role("option", name=label, exact=True).click()

    def answers(self) -> list[str]:
        return [one.inner_text().strip() for one in self.page.query_selector_all("#talk .bot.message")]

    def sees(self, condition: str) -> None:
        self.page.wait_for_function(condition)


@pytest.fixture
def reader(browser: Any, running: Running) -> Any:
    found = Reader(browser, running)
    yield found
    found.context.close()


def kept(ledger: Path) -> list[dict[str, Any]]:
    with Ledger.open(ledger) as opened:
        return [row.content for row in chat_rows(opened)]


def thumbs(workspace: Path) -> list[RatingRow]:
    with Ledger.open(ledger_path(workspace)) as ledger:
        return standing_ratings(ledger)


def answered_by(ledger: Path) -> list[str]:
    """The models of the one conversation's answers, once each of its messages has one."""
    for _ in range(100):
        (chat,) = kept(ledger)
        answers = [turn["answer"] for turn in chat["turns"]]
        if all(answers):
            break
        time.sleep(0.1)
    return [answer["model"] for answer in answers]


def test_a_conversation_from_sending_to_undoing(reader: Reader, running: Running, ledger: Path) -> None:
    page = reader.page
    expect(page.locator("#picker input")).to_have_value("★ champion (gen-0002)")
    reader.told("Some *markdown* words:\n\n```python\nx = 1\n```", shows="Some markdown words")
    expect(page.locator("#talk .bot.message em")).to_have_text("markdown")
    assert page.query_selector("#talk .bot.message pre code .token, #talk .bot.message pre code span")
    expect(page.locator("#pace")).to_contain_text("gen-0002, 43 tokens")
    expect(page.locator("#pace")).to_contain_text("tokens/s")

    reader.pick("gen-0001")
    reader.told("Second message")
    expect(page.locator("#pace")).to_contain_text("gen-0001, 14 tokens")

    page.click("#talk button[aria-label='Retry']")
    assert answered_by(ledger) == ["gen-0002", "gen-0001"]
    reader.sees("document.querySelectorAll('#talk .bot.message').length == 2")
    page.wait_for_selector(IDLE)

    page.click("#talk button[aria-label='Undo']")
    reader.sees("document.querySelectorAll('#talk .bot.message').length == 1")
    expect(page.locator(BOX)).to_have_value("Second message")

    assert reader.faults == []
    assert {url for url in reader.asked if not url.startswith((running.url, "data:"))} == set()


def test_formulas_are_set_and_code_and_answers_can_be_copied(browser: Any, running: Running) -> None:
    reader = Reader(browser, running, permissions=["clipboard-read", "clipboard-write"])
    page = reader.page
    reader.told("It is\n\n$$\\frac{1}{2}$$\n\n```python\nx = 1\n```", shows="x = 1")
    answer = page.locator("#talk .bot.message")
    expect(answer.locator(".katex .mfrac")).to_have_count(1)
    copies = {
        "x = 1": answer.locator("pre ~ button, .code_wrap button").first,
        "It is": page.locator("#talk button[title='Copy message']").last,
    }
    for copied, button in copies.items():
        page.evaluate("navigator.clipboard.writeText('')")
        button.click()
        reader.sees(f"navigator.clipboard.readText().then((text) => text.startsWith({copied!r}))")
    assert reader.faults == []
    reader.context.close()


def test_it_streams_and_stops_and_a_reload_finds_the_answer_going_on(
    reader: Reader, gate: Gate, running: Running, ledger: Path
) -> None:
    page = reader.page
    reader.pick("slow")
    reader.say("one two three four five six")
    reader.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'one two three'")
    page.wait_for_selector(BUSY)
    page.reload()
    reader.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'one two three'")
    page.wait_for_selector(BUSY)
    page.click("#stop")
    page.wait_for_selector(IDLE)
    gate.open.set()
    wait_until(lambda: running.metric("nomoat_running_answers") == 0)
    wait_until(lambda: kept(ledger)[0]["turns"][0]["answer"] is not None)
    (chat,) = kept(ledger)
    assert chat["turns"][0]["answer"]["text"] == "one two three"
    assert chat["turns"][0]["answer"]["ended"] == "stopped"


def test_an_edited_message_makes_a_branch(reader: Reader, ledger: Path) -> None:
    page = reader.page
    reader.told("first")
    reader.told("second")
    page.click("#talk button[aria-label='Edit'] >> nth=0")
    page.fill("#talk textarea", "changed")
    page.click("#talk button[aria-label='Submit']")
    reader.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'changed'")
    page.wait_for_selector(IDLE)
    said = sorted([turn["user"] for turn in chat["turns"]] for chat in kept(ledger))
    assert said == [["changed"], ["first", "second"]]


def test_history_is_searched_renamed_exported_and_deleted(
    reader: Reader, running: Running, ledger: Path
) -> None:
    page = reader.page
    reader.told("apples are red")
    page.click("#new")
    reader.sees("document.querySelectorAll('#talk .message').length == 0")
    reader.told("bananas are yellow")
    expect(page.locator("#past label")).to_have_text(["bananas are yellow", "apples are red"])
    page.fill("#search input, #search textarea", "RED")
    reader.sees("document.querySelectorAll('#past label').length == 1")
    page.click("#past label")
    reader.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'apples are red'")
    page.fill("#title input, #title textarea", "Fruit")
    page.press("#title input, #title textarea", "Enter")
    reader.sees("document.querySelector('#past label')?.innerText.trim() == 'Fruit'")

    with page.expect_download() as download:
        page.click("#export")
    row = json.loads(Path(download.value.path()).read_text())
    assert row == {
        "messages": [
            {"role": "user", "content": "apples are red"},
            {"role": "assistant", "content": "apples are red"},
        ]
    }
    page.click("#delete")
    reader.sees("document.querySelectorAll('#talk .message').length == 0")
    wait_until(lambda: [chat["title"] for chat in kept(ledger)] == ["bananas are yellow"])
    assert reader.faults == ["Delete this conversation?"]


def test_system_prompt_sampling_and_the_base_beside(reader: Reader, ledger: Path) -> None:
    page = reader.page
    page.click("text=System prompt and sampling")
    page.fill("#system textarea", "Be brief.")
    page.fill("#temperature input[type=number]", "0")
    page.press("#temperature input[type=number]", "Tab")
    page.check("#compare input")
    reader.told("hello there")
    reader.sees("document.querySelector('#beside .bot.message')?.innerText.trim() == 'hello there'")
    expect(page.locator("#pace")).to_contain_text(" · beside it base, 11 tokens")
    wait_until(lambda: kept(ledger)[0]["turns"][0]["base"] is not None)
    (chat,) = kept(ledger)
    assert (chat["manner"]["system"], chat["manner"]["temperature"]) == ("Be brief.", 0)
    assert chat["turns"][0]["base"]["model"] == "base"


def test_thumbs_are_kept_until_they_are_taken_back(reader: Reader, ledger: Path, tmp_path: Path) -> None:
    page = reader.page
    reader.told("first")
    reader.told("second")
    expect(page.locator("#talk button[title='Like']")).to_have_count(2)
    clicks = (("Like", "Liked", ["up"]), ("Dislike", "Disliked", ["down"]), ("Disliked", "Dislike", []))
    for button, becomes, verdicts in clicks:
        page.locator(f"#talk button[title='{button}']").last.click()
        wait_until(lambda verdicts=verdicts: [r.verdict for r in thumbs(tmp_path)] == verdicts)
        expect(page.locator(f"#talk button[title='{becomes}']").last).to_be_visible()
    expect(page.locator("#talk button[title='Dislike']")).to_have_count(2)
    page.locator("#talk button[title='Like']").first.click()
    wait_until(lambda: len(thumbs(tmp_path)) == 1)
    (row,) = thumbs(tmp_path)
    assert (row.voter, row.model_name, row.verdict, row.answer) == ("owner", "gen-0002", "up", "first")
    assert row.prompt == {"messages": [{"role": "user", "content": "first"}]}
    wait_until(lambda: [turn["answer"]["thumb"] for turn in kept(ledger)[0]["turns"]] == ["up", None])
    assert reader.faults == []


def test_of_two_answers_the_better_one_stays(reader: Reader, ledger: Path, tmp_path: Path) -> None:
    page = reader.page
    reader.pick("dice")
    reader.told("Throw")
    (before,) = reader.answers()
    assert page.locator("#choice").is_hidden()

    page.click("#talk button[aria-label='Retry']")
    page.wait_for_selector("#earlier-better")
    (after,) = reader.answers()
    assert before in page.inner_text("#earlier")
    assert after != before
    page.click("#earlier-better")
    page.wait_for_selector("#choice", state="hidden")
    assert reader.answers() == [before]
    found = {row.answer: row.verdict for row in thumbs(tmp_path)}
    assert found == {before: "up", after: "down"}

    page.click("#talk button[aria-label='Retry']")
    page.wait_for_selector("#equal")
    page.reload()  # the question is not lost
    page.click("#equal")
    page.wait_for_selector("#choice", state="hidden")
    assert len(thumbs(tmp_path)) == 2
    (chat,) = kept(ledger)
    assert (chat["turns"][0]["earlier"], chat["turns"][0]["answer"]["thumb"]) == (None, None)
    assert reader.faults == []


def test_text_files_become_part_of_the_message(reader: Reader, ledger: Path) -> None:
    page = reader.page
    page.fill(BOX, "What is this?")

    def attach(*files: tuple[str, bytes]) -> None:
        with page.expect_file_chooser() as chooser:
            page.click("#attach")
        chooser.value.set_files(
            [{"name": name, "mimeType": "text/plain", "buffer": content} for name, content in files]
        )

    attach(("a.md", b"before\n````\n<script>window.hit = 1</script>\n"), ("b`c.txt", "größer\r\n".encode()))
    text = (
        "What is this?\n\n`a.md`:\n`````\nbefore\n````\n<script>window.hit = 1</script>\n`````\n\n"
        "`b c.txt`:\n```\ngrößer\n```\n\n"
    )
    expect(page.locator(BOX)).to_have_value(text)
    attach(("photo.jpg", b"\xff\xd8\xff"), ("nul", b"a\0b"), ("large.txt", b"x" * (MOST_FILE_BYTES + 1)))
    while len(reader.faults) < 3:
        page.wait_for_timeout(20)
    assert [fault.split(";")[0] for fault in reader.faults] == [
        "photo.jpg is no text in UTF-8",
        "nul is no text in UTF-8",
        f"large.txt has {MOST_FILE_BYTES + 1} bytes",
    ]
    expect(page.locator(BOX)).to_have_value(text)
    page.click("#send")
    page.wait_for_function("document.querySelector('#talk .bot.message pre')?.innerText.includes('<script>')")
    assert kept(ledger)[0]["turns"][0]["user"] == text
    assert page.evaluate("window.hit") is None


HOSTILE = (
    "the beginning <script>window.hit = 1</script> <img src=x onerror='window.hit = 2'> "
    "[a](javascript:window.hit=3) <a href='javascript:window.hit=4'>b</a> "
    "<iframe src='https://example.org'></iframe> ![c](https://example.org/c.png) <svg onload='window.hit=5'> "
    "<details open ontoggle='window.hit=6'>d</details>"
)


def test_a_hostile_answer_stays_harmless(reader: Reader, running: Running) -> None:
    page = reader.page
    refused: list[str] = []
    page.on("requestfinished", lambda request: refused.append(request.url))
    reader.told(HOSTILE, shows="the beginning")
    for link in page.query_selector_all("#talk .bot.message a"):
        assert not (link.get_attribute("href") or "").startswith("javascript:")
    assert page.query_selector("#talk script, #talk iframe, #talk [onerror], #talk [onload]") is None
    assert page.evaluate("window.hit") is None
    assert [url for url in refused if not url.startswith((running.url, "data:"))] == []


def test_a_megabyte_of_answer_leaves_the_page_alive(reader: Reader, ledger: Path) -> None:
    text = ("<b>word</b> " + "x" * 500) * 2000
    reader.page.fill(BOX, text)
    reader.page.press(BOX, "Enter")
    wait_until(lambda: bool(kept(ledger)) and kept(ledger)[0]["turns"][0]["answer"] is not None)
    reader.page.wait_for_selector(IDLE)
    assert len(kept(ledger)[0]["turns"][0]["user"]) == len(text)
    reader.told("still here")


def test_phone_and_dark(browser: Any, running: Running) -> None:
    reader = Reader(browser, running, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = reader.page
    try:
        reader.sees("!document.querySelector('.sidebar.open')")
        reader.told("on the phone " * 20, shows="on the phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for part in ("#attach", "#send", BOX, "#picker"):
            box = page.query_selector(part).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844, part
        wait_until(lambda: _brightness(page) < 60)
        page.click("#theme")
        reader.sees("!document.body.classList.contains('dark')")
        wait_until(lambda: _brightness(page) > 200)
        page.reload()
        reader.ready()
        reader.sees("!document.body.classList.contains('dark')")
    finally:
        reader.context.close()


def _brightness(page: Any) -> float:
    """Of the page's ground, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / 3


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/upload",
        "gradio_api/proxy=http://127.0.0.1/",
        "gradio_api/info",
    ],
)
def test_nothing_else_of_gradio_is_reachable(running: Running, path: str) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{running.url}/app/{path}")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "There is nothing at this address."


def test_logging_in_chatting_and_logging_out(browser: Any, tmp_path: Path) -> None:
    with (
        Ledger.open(ledger_path(tmp_path)) as ledger,
        serving(
            {"echo": EchoEngine},
            keys=ledger,
            chats=ledger_path(tmp_path),
            votes=Votes(ledger_path(tmp_path), lambda holder: holder.name if holder else ""),
        ) as running,
    ):
        right = make_keys(ledger, right="chat")["right"]
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(15_000)
        try:
            page.goto(f"{running.url}/")
            page.fill("#key", "wrong")
            page.click("button")
            expect(page.get_by_role("alert")).to_have_text("This key is not known here, or was revoked.")
            page.fill("#key", right)
            page.click("button")
            page.wait_for_function("document.querySelector('#picker input')?.value")
            page.fill(BOX, "hello")
            page.press(BOX, "Enter")
            page.wait_for_function(
                "document.querySelector('#talk .bot.message')?.innerText.trim() == 'hello'"
            )
            assert page.evaluate("document.cookie") == ""
            page.click("#talk button[title='Like']")
            expect(page.locator("body")).to_contain_text("this key lacks the scope vote")
            page.click("#leave")
            page.wait_for_selector("#key")
            page.goto(f"{running.url}/app/")
            page.wait_for_selector("#key")
        finally:
            context.close()


def test_a_key_that_has_all_it_may_have_is_told_so_and_loses_nothing(
    browser: Any, gate: Gate, tmp_path: Path
) -> None:
    with (
        Ledger.open(tmp_path / "ledger.db") as ledger,
        serving(
            {"slow": lambda: EchoEngine(n_ctx=4096, before_piece=gate)},
            keys=ledger,
            limits=Limits(most_at_once=1),
            chats=tmp_path / "ledger.db",
        ) as running,
    ):
        hers, his = make_keys(ledger, she="chat", he="chat").values()
        laptop, phone = (Reader(browser, running, key=hers) for _ in range(2))
        other = Reader(browser, running, key=his)
        try:
            laptop.say("one two three four five six")
            laptop.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'one two three'")
            phone.say("hello")
            expect(phone.page.locator("body")).to_contain_text("This key has 1 requests running already")
            expect(phone.page.locator(BOX)).to_have_value("hello")
            assert phone.answers() == []
            assert [chat["title"] for chat in kept(tmp_path / "ledger.db")] == ["one two three four five six"]
            by_key = {"Authorization": f"Bearer {hers}"}
            body = {"model": "slow", "messages": [{"role": "user", "content": "hi"}]}
            asked = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=by_key)
            assert asked.status_code == 429  # the page's answers and the API's are counted together
            other.say("mine")  # waits at the gate as well, and not for her
            wait_until(lambda: running.metric("nomoat_running_answers") == 2)
            gate.open.set()
            laptop.sees("document.querySelector('#talk .bot.message')?.innerText.includes('six')")
            laptop.page.wait_for_selector(IDLE)
            phone.page.press(BOX, "Enter")
            phone.sees("document.querySelector('#talk .bot.message')?.innerText.trim() == 'hello'")
            expect(phone.page.locator(BOX)).to_have_value("")
            assert [*laptop.faults, *phone.faults] == []
        finally:
            gate.open.set()
            for reader in (laptop, phone, other):
                reader.context.close()


@pytest.mark.slow
def test_a_real_models_answers_stand_on_the_page_as_the_api_gives_them(browser: Any, tmp_path: Path) -> None:
    gguf = to_gguf(BASE, tmp_path / "base.gguf", type="F16").path
    prompts = [p.conversation for p in read_prompts(STARTER / "heldout.jsonl", most=50)]

    def open_engine() -> LlamaServerEngine:
        return LlamaServerEngine(gguf, tokenizer_dir=BASE, n_parallel=1)

    with serving({"base": open_engine}, chats=ledger_path(tmp_path)) as running:
        reader = Reader(browser, running)
        reader.page.click("text=System prompt and sampling")
        reader.page.fill("#temperature input[type=number]", "0")
        reader.page.press("#temperature input[type=number]", "Tab")
        for prompt in prompts:
            body = {"model": "base", "temperature": 0, **prompt.to_dict()}
            answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=60).json()
            words = answer["choices"][0]["message"]["content"].split()
            assert len(words) > 10
            reader.say(prompt.messages[0].content)
            shown = "document.querySelector('#talk .bot.message')?.innerText.split(/\\s+/).filter(Boolean).join(' ')"
            reader.page.wait_for_function(f"(words) => {shown} == words", arg=" ".join(words))
            reader.page.wait_for_selector(IDLE)
            reader.page.click("#new")
            expect(reader.page.locator("#talk .bot.message")).to_have_count(0)
        assert reader.faults == []
        reader.context.close()
