"""The arena as its voter sees it, over echo engines that say which they are only in their seeds."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from browser.conftest import Worded
from helpers.serving import Running, make_keys, serving, wait_until
from helpers.workspaces import held_out, ledger_path, start_night
from nomoat.engine.echo import EchoEngine
from nomoat.engine.request import Ending, Piece, Request
from nomoat.ledger.feedback import standing_own_answers
from nomoat.ledger.rows import REASONS, VoteRow
from nomoat.ledger.store import Ledger
from nomoat.serve.web.arena import Votes

NAMES = ("gen-0002", "gen-0001")
LOCKED = "#vote-left[disabled]"
OPEN = "#vote-left:not([disabled])"


class Hesitant(Worded):
    """Says three words to a prompt with "two" in it, and the rest when it may go on."""

    def __init__(self, word: str, may_go_on: threading.Event) -> None:
        super().__init__(word)
        self._may_go_on = may_go_on

    def answer(self, request: Request, take: Callable[[Piece], bool]) -> Ending | None:
        pieces = count(1)

        def held(piece: Piece) -> bool:
            if b"two" in bytes(request.prompt) and next(pieces) == 4:
                self._may_go_on.wait(20)
            return take(piece)

        return super().answer(request, held)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = ledger_path(tmp_path)
    with Ledger.open(path) as opened:
        night = start_night(opened)
        opened.add_generation(night, base="base:x", served_file=".nomoat/artifacts/q/night.gguf")
        opened.add_samples(night, [held_out(n) for n in range(4)])
    return path


def arena_server(
    path: Path,
    *,
    self_share: float = 0.0,
    probe_share: float = 0.0,
    keys: Ledger | None = None,
    pear: Callable[[], Worded] = lambda: Worded("Pear"),
) -> Any:
    openers: dict[str, Any] = {"gen-0002": lambda: Worded("Plum"), "gen-0001": pear}
    return serving(
        openers,
        aliases={"champion": "gen-0001"},
        chats=path,
        votes=Votes(path, lambda holder: holder.name if holder else "owner", self_share, probe_share),
        keys=keys,
    )


@pytest.fixture
def arena(ledger: Path) -> Iterator[Running]:
    with arena_server(ledger) as found:
        yield found


class Voter:
    """Somebody at the page. Keeps all that the server has told their browser."""

    def __init__(self, browser: Any, running: Running, *, key: str = "", **more: Any) -> None:
        self.context = browser.new_context(**more)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.faults: list[str] = []
        self.urls: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.urls.append(request.url))
        # a stream's body is not kept by the browser's own tools: it is read here, on its way
        self.page.add_init_script(
            """(() => {
              window.wire = "";
              const plain = window.fetch;
              window.fetch = async (...args) => {
                const found = await plain(...args);
                if (!found.body) return found;
                const [mine, theirs] = found.body.tee();
                (async () => {
                  const reader = mine.getReader(), decoder = new TextDecoder();
                  for (;;) {
                    const { done, value } = await reader.read();
                    if (done) return;
                    window.wire += decoder.decode(value, { stream: true });
                  }
                })().catch(() => {}); // the page ends its streams by itself
                return new Response(theirs, found);
              };
            })()"""
        )
        self.page.goto(f"{running.url}/arena/")
        if key:
            self.page.get_by_label("This server demands a key.").fill(key)
            self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_selector("#told", state="attached")

    def sees_battle(self) -> None:
        self.page.wait_for_selector(OPEN)

    def answers(self) -> tuple[str, str]:
        left, right = (self.page.inner_text(f"#{side} .prose").strip() for side in ("left", "right"))
        return left, right

    def known(self) -> str:
        """All that the browser could know: the page, what it keeps, and what came over the network."""
        return str(
            self.page.evaluate(
                "document.documentElement.outerHTML + JSON.stringify(localStorage) + window.wire"
                " + JSON.stringify(window.gradio_config || {})"
            )
        )


@pytest.fixture
def voter(browser: Any, arena: Running) -> Iterator[Voter]:
    found = Voter(browser, arena)
    yield found
    found.context.close()


def kept(path: Path) -> Sequence[VoteRow]:
    with Ledger.open(path) as opened:
        return opened.judgements.votes()


def test_a_vote_by_mouse_is_blind_until_it_is_cast(voter: Voter, arena: Running, ledger: Path) -> None:
    page = voter.page
    voter.sees_battle()
    left, right = voter.answers()
    assert {left.split()[0], right.split()[0]} == {"Plum", "Pear"}
    known = voter.known()
    assert "Plum" in known.split("</html>")[1]  # the network was listened to
    assert [name for name in (*NAMES, "champion", "echo") if name in known] == []
    expect(page.locator("#question")).to_contain_text("Held out")

    for reason in ("style", "correctness"):
        page.get_by_label(reason).check()
    page.fill("#note textarea", "It is kinder.")
    page.click("#vote-left")
    expect(page.locator("#told")).to_contain_text("Kept: the left one. Left was gen-000")
    page.wait_for_selector(LOCKED)
    (vote,) = kept(ledger)
    names = {"Plum": "gen-0002", "Pear": "gen-0001"}
    assert (vote.left_name, vote.right_name) == (names[left.split()[0]], names[right.split()[0]])
    assert [file for file in (vote.left_model, vote.right_model) if file in known] == []
    assert (vote.left_answer, vote.right_answer) == (left, right)
    assert (vote.verdict, vote.voter, vote.note) == ("left", "owner", "It is kinder.")
    assert vote.reasons == ["correctness", "style"]
    expect(page.locator("#reasons input:checked")).to_have_count(0)  # not for the next one too
    assert (vote.source, vote.suite) == ("pool", "heldout")
    assert (vote.sampling["temperature"], vote.sampling["max_new_tokens"]) == (0.7, 512)
    assert left.split()[1] == right.split()[1] == str(vote.sampling["seed"])
    with Ledger.open(ledger) as opened:
        (draw,) = (one for one in opened.judgements.draws() if one.vote_key == vote.key)
    assert draw.prompt_hash == vote.prompt_hash
    assert {draw.one_model, draw.other_model} == {vote.left_model, vote.right_model}
    assert voter.faults == []
    assert {url for url in voter.urls if not url.startswith((arena.url, "data:"))} == set()


def test_votes_by_keyboard_alone(voter: Voter, ledger: Path) -> None:
    page = voter.page
    for number, (key, verdict) in enumerate(
        (("ArrowLeft", "left"), ("b", "right"), ("t", "tie"), ("x", "both bad")), 1
    ):
        voter.sees_battle()
        reasons = page.locator("#reasons input:checked")
        expect(reasons).to_have_count(0)
        page.keyboard.press("3")
        page.keyboard.press(str(number))  # the third one twice is none
        expect(reasons).to_have_count(0 if number == 3 else 2)
        page.keyboard.press(key)
        expect(page.locator("#told")).to_contain_text("Kept: ")
        page.wait_for_selector(LOCKED)
        page.keyboard.press(key)  # a second press is no second vote
        votes = kept(ledger)
        assert (len(votes), votes[-1].verdict) == (number, verdict)
        ticked = {REASONS[2], REASONS[number - 1]} if number != 3 else set()
        assert set(votes[-1].reasons or ()) == ticked
        page.keyboard.press("n")
        expect(page.locator("#told")).not_to_contain_text("Kept: ")
    page.wait_for_selector(OPEN)
    page.fill("#box textarea", "atx")
    page.focus("#box textarea")
    page.keyboard.press("t")  # is typed, and no vote
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_have_text("atxt")
    voter.sees_battle()
    page.locator("#question").click()
    page.keyboard.press("a")
    expect(page.locator("#told")).to_contain_text("Kept: the left one.")
    assert [(vote.source, vote.suite) for vote in kept(ledger)][-1] == ("typed", None)
    assert len(kept(ledger)) == 5


def test_a_reload_shows_the_same_battle_and_gives_no_second_vote(voter: Voter, ledger: Path) -> None:
    page = voter.page
    voter.sees_battle()
    before = voter.answers()
    page.reload()
    voter.sees_battle()
    assert voter.answers() == before
    other = page.context.new_page()  # a second tab has it too
    other.goto(page.url)
    other.wait_for_selector(OPEN)
    page.evaluate("for (let i = 0; i < 3; i++) document.getElementById('vote-right').click()")
    expect(page.locator("#told")).to_contain_text(re.compile("Kept: |voted on already"))
    wait_until(lambda: bool(kept(ledger)))  # a later click may be answered before the first is kept
    assert len(kept(ledger)) == 1
    other.click("#vote-left")
    expect(other.locator("#told")).to_contain_text("the first vote counts")
    page.reload()
    voter.sees_battle()
    assert voter.answers() != before
    assert [vote.verdict for vote in kept(ledger)] == ["right"]


def test_answers_wait_ready_and_sides_are_even(browser: Any, arena: Running, ledger: Path) -> None:
    voter = Voter(browser, arena)
    sides = Counter()
    for _ in range(24):
        voter.sees_battle()
        sides[voter.answers()[0].split()[0]] += 1
        voter.page.keyboard.press("t")
        voter.page.wait_for_selector(LOCKED)
        voter.page.keyboard.press("n")
    assert min(sides["Plum"], sides["Pear"]) >= 3  # 24 tosses leave 2 of one side once in 28,000
    wait_until(lambda: arena.metric("nomoat_running_answers") == 0)
    voter.context.close()


def test_a_model_that_meets_itself_is_told_as_such(browser: Any, ledger: Path) -> None:
    with arena_server(ledger, self_share=1.0) as running:
        voter = Voter(browser, running)
        voter.sees_battle()
        left, right = voter.answers()
        assert left.split()[0] == right.split()[0]
        assert int(left.split()[1]) + 1 == int(right.split()[1])
        voter.page.keyboard.press("t")
        expect(voter.page.locator("#told")).to_contain_text("Both were gen-000")
        voter.page.get_by_role("tab", name="Standings").click()
        expect(voter.page.locator("#standings")).to_contain_text("1 of 1")
        voter.context.close()


def test_a_probe_is_told_by_nothing_but_its_answers_until_the_vote(browser: Any, ledger: Path) -> None:
    with arena_server(ledger, probe_share=1.0) as running:
        voter = Voter(browser, running)
        for _ in range(2):
            voter.sees_battle()
            asked = voter.page.inner_text("#question").strip()
            answers = dict(zip(("left", "right"), voter.answers(), strict=True))
            (wrong,) = [side for side, said in answers.items() if asked not in said]
            assert [name for name in (*NAMES, "champion", "probe") if name in voter.known()] == []
            voter.page.click(f"#vote-{wrong}")
            told = f"This one was to check the voter: the answer on the {wrong} was to another prompt. Both"
            expect(voter.page.locator("#told")).to_contain_text(told)
            vote = kept(ledger)[-1]
            assert (vote.verdict, vote.better in ("left", "right"), vote.better != wrong) == (
                wrong,
                True,
                True,
            )
            assert (vote.source, vote.left_model) == ("pool", vote.right_model)
            voter.page.reload()
        voter.sees_battle()
        voter.page.get_by_role("tab", name="Standings").click()
        expect(voter.page.locator("#standings")).to_contain_text("0 of 2")
        assert voter.faults == []
        voter.context.close()


def test_typed_prompts_stream_in_step_and_may_be_gone_on_with(browser: Any, ledger: Path) -> None:
    words, more = "one two three four five six", threading.Event()
    with arena_server(ledger, pear=lambda: Hesitant("Pear", more)) as running:
        voter = Voter(browser, running)
        page = voter.page
        voter.sees_battle()
        assert page.is_disabled("#go-on")  # drawn prompts are one turn
        page.fill("#box textarea", words)
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_have_text(words)
        for side in ("left", "right"):  # Pear is held up there, and Plum, which has long said all, with it
            expect(page.locator(f"#{side} span.prose")).to_have_text(re.compile(r"^(Plum|Pear) \d+ one\s*$"))
        assert page.is_disabled("#vote-left") and page.is_disabled("#ask")
        assert [name for name in (*NAMES, "champion", "echo") if name in voter.known()] == []
        page.keyboard.press("n")  # whoever does not want to see the end
        expect(page.locator("#question")).to_contain_text("Held out")
        more.set()
        voter.sees_battle()
        wait_until(lambda: running.metric("nomoat_running_answers") == 0)

        page.fill("#box textarea", words)
        page.keyboard.press("Enter")
        expect(page.locator("#question")).to_have_text(words)
        voter.sees_battle()
        page.fill("#box textarea", "And then?")
        page.click("#go-on")
        expect(page.locator("#left")).to_contain_text("you: And then?")
        voter.sees_battle()
        assert all(text.endswith("And then?") and text.count("And then?") == 2 for text in voter.answers())
        page.reload()
        voter.sees_battle()
        assert all(text.count("And then?") == 2 for text in voter.answers())
        page.fill("#box textarea", "x" * 5000)  # longer than their context
        page.click("#go-on")
        expect(page.locator("#told")).to_contain_text("Not answered: ")
        assert all(text.count("And then?") == 2 for text in voter.answers())
        page.click("#vote-left")
        expect(page.locator("#told")).to_contain_text("Kept: the left one.")
        (vote,) = kept(ledger)
        assert vote.turns is not None
        (turn,) = vote.turns
        assert (vote.source, vote.prompt["messages"][0]["content"], turn["asked"]) == (
            "typed",
            words,
            "And then?",
        )
        assert {turn["left"].split()[0], turn["right"].split()[0]} == {"Plum", "Pear"}
        assert turn["left"].split()[0] == vote.left_answer.split()[0]
        assert page.is_disabled("#go-on")
        assert voter.faults == []
        voter.context.close()


def test_where_both_are_bad_the_voter_may_say_what_would_be_good(voter: Voter, ledger: Path) -> None:
    page = voter.page
    voter.sees_battle()
    page.click("#vote-bad")
    page.wait_for_selector(LOCKED)
    expect(page.locator("#told")).to_contain_text("Kept: both bad")
    expect(page.locator("#own")).to_have_count(0)  # held out: nothing is learned from it

    page.fill("#box textarea", "Name a fruit")
    page.click("#ask")
    voter.sees_battle()
    page.click("#vote-bad")
    page.fill("#own textarea", " A fig. ")
    page.click("#keep-own")
    expect(page.locator("#told")).to_contain_text("Kept: your answer.")
    expect(page.locator("#own")).to_have_count(0)
    with Ledger.open(ledger) as opened:
        (own,) = standing_own_answers(opened)
        votes = opened.judgements.votes()
    assert (own.answer, own.voter, own.vote_id) == ("A fig.", "owner", votes[-1].id)
    assert own.prompt == {"messages": [{"role": "user", "content": "Name a fruit"}]}
    page.click("#next")
    voter.sees_battle()
    assert voter.faults == []


def test_standings_with_what_is_still_open(voter: Voter, ledger: Path) -> None:
    page = voter.page
    for key in ("a", "b", "t", "a", "a"):
        voter.sees_battle()
        page.get_by_label("length").check()  # the focus is there now, and keys vote all the same
        page.keyboard.press(key)
        page.wait_for_selector(LOCKED)
        page.keyboard.press("n")
    voter.sees_battle()
    page.get_by_role("tab", name="Standings").click()
    told = page.locator("#standings")
    for text in (
        "Leaderboard",
        "gen-0002",
        "above gen-0001",
        "Head to head",
        "open",
        "length",
        "Votes over time",
        "owner",
        "Prefers left",
    ):
        expect(told).to_contain_text(text)


def test_only_keys_that_may_vote_do_and_votes_are_their_holders(browser: Any, ledger: Path) -> None:
    with Ledger.open(ledger) as opened, arena_server(ledger, keys=opened) as running:
        ada, chatter = make_keys(opened, ada="vote", chatter="chat").values()
        assert httpx.get(f"{running.url}/arena/").status_code == 401
        for key, status in ((ada, 200), (chatter, 403), ("nobody", 401)):
            bearer = {"Authorization": f"Bearer {key}"}
            assert httpx.get(f"{running.url}/arena/", headers=bearer).status_code == status, key

        voter = Voter(browser, running, key=ada)
        voter.sees_battle()
        voter.page.keyboard.press("a")
        expect(voter.page.locator("#told")).to_contain_text("Kept: ")
        assert [vote.voter for vote in kept(ledger)] == ["ada"]
        voter.context.close()


def test_a_phone_in_the_dark(browser: Any, arena: Running) -> None:
    voter = Voter(browser, arena, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = voter.page
    voter.sees_battle()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#left", "#right", "#vote-left", "#vote-right", "#box", "#ask", "#next"):
        box = page.query_selector(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844, part
    assert page.query_selector("#box").bounding_box()["width"] > 300
    assert "dark" in page.evaluate("document.body.className")
    voter.context.close()


def test_without_models_it_says_so(browser: Any, tmp_path: Path) -> None:
    with serving(
        {"base": EchoEngine},
        chats=ledger_path(tmp_path),
        votes=Votes(tmp_path / "none", lambda holder: "owner"),
    ) as running:
        voter = Voter(browser, running)
        expect(voter.page.locator("#told")).to_contain_text("No battle: there is no held-out prompt to draw")
        voter.page.fill("#box textarea", "hello")
        voter.page.press("#box textarea", "Enter")
        expect(voter.page.locator("#told")).to_contain_text("there are no two models to compare yet")
        voter.context.close()
