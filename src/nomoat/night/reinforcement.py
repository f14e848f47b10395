"""The stages `prompts` and `reinforce`: what the model is asked, and what it learns from its own answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.chat.template import ChatTemplate
from nomoat.data.functions import Question
from nomoat.data.pack import Tokens
from nomoat.data.split import ASKED, asked_keys, held_out
from nomoat.data.store import TokenStore
from nomoat.engine.choose import special_ids
from nomoat.errors import DataError
from nomoat.evaluate.checker import Checker
from nomoat.evaluate.prompts import Prompt as Asked
from nomoat.evaluate.prompts import read_prompts
from nomoat.ledger.files import atomic_write
from nomoat.model.load import Machine
from nomoat.night.contamination import row_of
from nomoat.night.jobs import Folders, Outcome, Report
from nomoat.night.rewards import build_rewards, passes
from nomoat.night.sources import RewardSpec
from nomoat.night.stages import hooks_of, tokenizer_with_template
from nomoat.train.reinforce import reinforce
from nomoat.train.sampled import Prompt, Reader

LEAST_HELD_OUT = 2
SIDES = ("train", "held_out")


def run_prompts(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    chat_template: Path | None,
    files: Sequence[Path],
    held_out_share: float,
    max_seq_len: int,
    max_new_tokens: int,
    needs_checks: bool,
    never: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> Outcome:
    """Read, check, split, render and tokenise the prompts that the model is to answer. Those that ask one of `never`
    (`asked_keys`), and those whose content's hash is in `leave_out`, are left out: models are compared on such.
    Beside the prompts it writes `asked.bin`, as `data` does."""
    report(0.0, None, "reading")
    _, template = tokenizer_with_template(base, chat_template)
    most = max_seq_len - max_new_tokens
    seen = set[str]()
    never, leave_out = frozenset(never), frozenset(leave_out)
    counts: Counter[str] = Counter()
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    asked: list[str] = []
    for number, prompt in ((n, prompt) for n, file in enumerate(files) for prompt in read_prompts(file)):
        counts["read"] += 1
        content_hash = _hash(prompt)
        tokens = template.encode(prompt.conversation, add_generation_prompt=True)
        why = None
        if needs_checks and not prompt.checks:
            why = "without_checks"
        elif not never.isdisjoint(asked_keys(prompt.conversation)):
            why = "held_out_by_suites"
        elif row_of(prompt).content_hash() in leave_out:
            why = "contaminated"
        elif content_hash in seen:
            why = "duplicate"
        elif len(tokens) > most:
            why = "too_long"
        seen.add(content_hash)
        if why is not None:
            counts[why] += 1
            continue
        side = "held_out" if held_out(content_hash, held_out_share) else "train"
        counts[side] += 1
        rows[side].append(_kept(prompt, tokens, number))
        asked += asked_keys(prompt.conversation) if side == "train" else ()
    _refuse(counts, most, held_out_share)
    for side in SIDES:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[side])
        atomic_write(folders.out / f"{side}.jsonl", text.encode())
    (folders.out / ASKED).write_bytes(bytes.fromhex("".join(asked)))
    said = f"{counts['train']} prompts to learn from, {counts['held_out']} held out"
    left_out = {
        "without checks": counts["without_checks"],
        "on held-out prompts": counts["held_out_by_suites"],
        "contaminated": counts["contaminated"],
        "duplicate": counts["duplicate"],
        f"longer than {most} tokens": counts["too_long"],
    }
    said += "".join(f", {count} {why} left out" for why, count in left_out.items() if count)
    reasons = ("without_checks", "held_out_by_suites", "contaminated", "duplicate", "too_long")
    names = ("read", *SIDES, *reasons)
    tokens_of = {side: sum(len(row["tokens"]) for row in rows[side]) for side in SIDES}
    return Outcome({"rows": {name: counts[name] for name in names}, "tokens": tokens_of}, said)


def _hash(prompt: Asked) -> str:
    """As `data` splits its rows, so that what is held out there is held out here."""
    return row_of(prompt).prompt_hash()


def _kept(prompt: Asked, tokens: Iterable[int], file: int) -> dict[str, Any]:
    question = prompt.question
    return {
        "id": question.id,
        "file": file,
        "messages": list(question.messages),
        "row": dict(question.row),
        "tokens": list(tokens),
    }


def _refuse(counts: Counter[str], most: int, share: float) -> None:
    """DataError where the prompts are too few, too long, or hold nothing to be rewarded for."""
    if counts["without_checks"] > counts["read"] / 2:
        raise DataError(
            f"reinforce.prompts: {counts['without_checks']} of {counts['read']} prompts have no checks, and the only "
            "rewards are checks",
            hint='Give the prompts "checks", or name other rewards: reinforce.rewards.',
        )
    if counts["too_long"] > counts["read"] / 2:
        raise DataError(
            f"reinforce.prompts: {counts['too_long']} of {counts['read']} prompts are longer than {most} tokens",
            hint="Raise reinforce.max_seq_len, or lower reinforce.max_new_tokens: a prompt has the room between them.",
        )
    if not counts["train"] or counts["held_out"] < LEAST_HELD_OUT:
        raise DataError(
            f"reinforce.prompts: of {counts['read']} prompts {counts['train']} are left to learn from and "
            f"{counts['held_out']} are held out with data.held_out: {share:g}; expected at least 1 and "
            f"{LEAST_HELD_OUT}",
            hint="Add prompts, or change data.held_out.",
        )


def run_reinforce(
    folders: Folders,
    report: Report,
    *,
    base: Path,
    prompts: Path,
    prompt_folders: Sequence[Path],
    evaluated: Path,
    chat_template: Path | None,
    rewards: Sequence[RewardSpec],
    machine: Machine,
    seconds_left: Callable[[], float | None],
    stop_asked: Callable[[], bool],
    **keys: Any,
) -> Outcome:
    """Learn from rewards of the model's own answers: `adapter/` in PEFT's layout, or `model/` for full weights.

    `prompt_folders` are those of the files of prompts, which the paths in their rows start from.
    """
    tokenizer, template = tokenizer_with_template(base, chat_template)
    with Checker() as checker, closing(build_rewards(rewards, machine, checker)) as sources:
        result = reinforce(
            base,
            tokenizer,
            _read(prompts / "train.jsonl", prompt_folders),
            _read(prompts / "held_out.jsonl", prompt_folders),
            TokenStore.open(evaluated / "held_out"),
            folders.out,
            folders.scratch,
            reader=reader_of(tokenizer, template),
            rewards=sources,
            passes=partial(passes, checker),
            machine=machine,
            hooks=hooks_of(report, seconds_left, stop_asked, what="reward"),
            **keys,
        )
    (folders.out / "training.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    first, best = result.curve.held_out[0], result.best_metrics
    meta = {
        "steps": result.steps,
        "best_step": result.best_step,
        "first_pass_rate": first["pass_rate"],
        "best_pass_rate": best["pass_rate"],
        "first_reward": first["reward"],
        "best_reward": best["reward"],
        "tokens": result.tokens,
        "seconds": result.seconds,
        "failures": dict(sources.failures),
        "events": result.curve.events,
    }
    said = (
        f"held-out pass rate {first['pass_rate']:.0%} → {best['pass_rate']:.0%}, reward {first['reward']:.2f} → "
        f"{best['reward']:.2f}, best at step {result.best_step} of {result.steps}"
    )
    stops = [event.partition(": ")[2] for event in result.curve.events if ": stopped, " in event]
    return Outcome(meta, "; ".join([said, *stops]))


def _read(file: Path, folders: Sequence[Path]) -> list[Prompt]:
    found = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            question = Question(row["id"], tuple(row["messages"]), row["row"], folders[row["file"]])
            found.append(Prompt(question, np.array(row["tokens"], dtype=np.uint32)))
    return found


def reader_of(tokenizer: Any, template: ChatTemplate) -> Reader:
    """What ends an answer, and the text of one: without turn marks, and without space around it."""
    special = special_ids(tokenizer)

    def text(tokens: Tokens) -> str:
        said = [token for token in tokens.tolist() if token not in special]
        decoded: str = tokenizer.decode(said, clean_up_tokenization_spaces=False)
        return decoded.strip()

    return Reader(frozenset(template.stop_token_ids), text)
