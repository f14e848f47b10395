"""What `nomoat check` prints: counts, lengths as bars, bad rows quoted, examples coloured by what is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomoat.cli.output import visible
from nomoat.cli.units import count, one_line, share

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from nomoat.night.check import CheckResult

KEYS = {
    "base": "the base whose tokenizer and chat template were used",
    "said": "the counts as a sentence",
    "files": "a sentence about each file: the format that was found and how its fields are read",
    "template": "{origin, sha256, stop_tokens}: where the chat template comes from, and what ends an answer",
    "max_seq_len": "longest row in tokens",
    "rows": "{read, bad, duplicate, contaminated, not_preferred, without_answer, cut_to_nothing, train, held_out, "
    "truncated, divided}; the last two are among those kept",
    "sequences": "{train, held_out}: rows after long texts were split",
    "tokens": "{train, held_out, train_supervised, held_out_supervised}",
    "lengths": "tokens a row: {p50, p90, p99, longest, histogram}; the histogram is a list of [n, rows], rows of "
    "at most n tokens but more than the n before",
    "bad": "first bad rows as {where, reason, excerpt}",
    "examples": "three rows, each a list of [text, is trained on]; of three pairs both answers",
    "judgements": "the same, from said to examples, of the judged answers that the stage prefer reads after sft; else "
    "null",
    "overlaps": "null where there are no suites, or {rows, prompts, of, found, said}: how many rows hold what how many "
    "of the suites' prompts ask; found is the first of such pairs as {where, row, suite, prompt, how}",
    "next": "the command to type next",
}
"""Keys of `nomoat check --json`, for docs/cli.md."""

_BAR_COLUMNS = 40
_PIECE_CHARS = 600
"""Of one piece of an example; a longer one is shortened in its middle."""
_QUOTED = 10
_OPEN, _CLOSE = "⟦", "⟧"
_REMARKS = {
    "duplicate": "left out: the same as an earlier row (data.dedup)",
    "contaminated": "left out: hold what a held-out prompt asks (data.decontaminate)",
    "not_preferred": "left out: not the preferred answer, or a tie",
    "without_answer": "left out: nothing in it to train on",
    "cut_to_nothing": "left out: too long for any of its answer to fit",
    "truncated": "cut at the end to {trainer}.max_seq_len",
    "divided": "divided, one row an answer: the chat template rewrites earlier turns",
}


def check_json(result: CheckResult, following: str) -> dict[str, Any]:
    """The result under the keys of `KEYS`."""
    first, *others = (
        {key: report[key] for key in KEYS if key in report} for report in result.reports.values()
    )
    judgements = others[0] if others else None
    return {
        "base": result.base,
        **first,
        "judgements": judgements,
        "overlaps": result.overlaps,
        "next": following,
    }


def print_check(result: CheckResult, following: str, to: Console) -> None:
    """The same for people."""
    to.print(f"Base: {result.base}")
    for trainer, report in result.reports.items():
        if len(result.reports) > 1:
            to.print(f"{'' if trainer == 'sft' else chr(10)}For the stage {trainer}", style="bold underline")
        _print_source(report, to)
        _print_counts(report, trainer, to)
        _print_lengths(report["lengths"], report["max_seq_len"], trainer, to)
        _print_bad(report["bad"], report["rows"]["bad"], to)
        _print_examples(report["examples"], to)
    if result.overlaps is not None and result.overlaps["rows"]:
        _print_overlaps(result, result.overlaps, to)
    to.print("\nNext: ", end="")
    to.print(following, style="bold", soft_wrap=True)


def _print_source(report: dict[str, Any], to: Console) -> None:
    for said in report["files"]:
        to.print(said)
    template = report["template"]
    origin = {"tokenizer": "the base's own", "default": "nomoat's default, for this base has none"}
    stops = f"; an answer ends with {' or '.join(template['stop_tokens'])}" if template["stop_tokens"] else ""
    to.print(f"Chat template: {origin.get(template['origin'], template['origin'])}{stops}")


def _print_counts(report: dict[str, Any], trainer: str, to: Console) -> None:
    rows, tokens = report["rows"], report["tokens"]
    to.print(
        f"\n{count(rows['read'], 'row')} read: {rows['train']:,} to train on, {rows['held_out']:,} held out",
        style="bold",
    )
    if rows["bad"]:
        to.print(f"  {rows['bad']:,} bad ({share(rows['bad'] / rows['read'])}), left out", style="yellow")
    for name, remark in _REMARKS.items():
        if rows[name]:
            to.print(f"  {rows[name]:,} {remark.format(trainer=trainer)}")
    trained = tokens["train_supervised"] / max(1, tokens["train"])
    to.print(
        f"{count(tokens['train'], 'token')} to train on, {tokens['train_supervised']:,} of them trained "
        f"({share(trained)}); {tokens['held_out']:,} held out"
    )


def _print_lengths(lengths: dict[str, Any], max_seq_len: int, trainer: str, to: Console) -> None:
    to.print("\nTokens a row", style="bold", end="")
    to.print(
        f": half have at most {lengths['p50']:,}, 90 of 100 at most {lengths['p90']:,}, "
        f"99 of 100 at most {lengths['p99']:,}; the longest has {lengths['longest']:,}"
    )
    bars = lengths["histogram"]
    most = max((rows for _, rows in bars), default=1)
    low = 0
    for high, rows in bars:
        bar = "█" * max(round(_BAR_COLUMNS * rows / max(most, 1)), 1 if rows else 0)
        longer = f"  longer than {trainer}.max_seq_len" if low >= max_seq_len and rows else ""
        to.print(f"  {low + 1:>7,} to {high:>7,}  {bar:<{_BAR_COLUMNS}} {rows:,}{longer}")
        low = high


def _print_bad(bad: list[dict[str, str]], total: int, to: Console) -> None:
    if not bad:
        return
    to.print("\nBad rows", style="bold yellow")
    for row in bad[:_QUOTED]:
        to.print(f"  {row['where']}: {visible(row['reason'])}")
        to.print(f"      {one_line(visible(row['excerpt']), 100)}", style="dim")
    if total > _QUOTED:
        to.print(f"  … and {total - _QUOTED:,} more")


def _print_overlaps(result: CheckResult, overlaps: dict[str, Any], to: Console) -> None:
    to.print(f"\n{overlaps['said'].capitalize()}", style="bold yellow")
    for one in overlaps["found"][:_QUOTED]:
        how = one_line(visible(one["how"]), 100)
        to.print(f"  {one['where']}: {one['suite']} {visible(one['prompt'])}: {how}")
    if len(overlaps["found"]) > _QUOTED:
        to.print("  … and more (--json)")
    if not result.removes:
        to.print("  To leave such rows out: data.decontaminate: remove", style="dim")


def _print_examples(examples: list[list[Any]], to: Console) -> None:
    from rich.text import Text

    has_colour = to.color_system is not None and not to.no_color
    legend = Text("\nAs the model sees them: ", style="bold")
    if has_colour:
        legend.append("trained on", style="not bold green").append(", ", style="not bold")
        legend.append("read only", style="not bold dim")
    else:
        legend.append(f"what stands in {_OPEN}…{_CLOSE} is trained on, the rest only read")
    to.print(legend)
    for number, pieces in enumerate(examples, 1):
        to.print(f"── example {number} ──", style="dim")
        to.print(example_text(pieces, has_colour=has_colour))


def example_text(pieces: list[Any], *, has_colour: bool) -> Text:
    """A row in its pieces; what is trained on is green, or in double brackets where there is no colour."""
    from rich.text import Text

    text = Text()
    for piece, is_trained in pieces:
        shown = _shortened(visible(piece))
        if has_colour:
            text.append(shown, style="green" if is_trained else "dim")
        else:
            text.append(f"{_OPEN}{shown}{_CLOSE}" if is_trained else shown)
    return text


def _shortened(text: str) -> str:
    if len(text) <= _PIECE_CHARS:
        return text
    half = _PIECE_CHARS // 2
    return f"{text[:half]} [… {len(text) - 2 * half:,} characters …] {text[-half:]}"
