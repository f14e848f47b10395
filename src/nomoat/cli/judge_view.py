"""What `nomoat judge` prints: its win rate beside three baselines, its agreement with votes beside the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nomoat.cli.output import table
from nomoat.cli.units import count, share

if TYPE_CHECKING:
    from rich.console import Console

    from nomoat.evaluate.calibration import JudgeReport
    from nomoat.evaluate.comparison import Estimate

_UNKNOWN = "not known"


def print_judge(found: JudgeReport, result: dict[str, Any], failures: str, to: Console) -> None:
    """The report, with the sentences, counts and next command of `result`."""
    to.print(f"{result['judge']} on {result['one']} against {result['other']}", style="bold")
    for sentence in result["said"]:
        to.print(sentence)
    to.print()
    to.print(_baselines(found, result["one"]))
    to.print()
    for name, value in [*_grades(found, result), *_facts(found)]:
        to.print(f"{name}: {value}")
    if failures:
        to.print(failures, style="yellow")
    to.print(cost_said(result), style="dim")
    to.print("\nNext: ", end="")
    to.print(result["next"], style="bold", soft_wrap=True)


def _baselines(found: JudgeReport, one: str) -> Any:
    """The judge and what reads nothing, side by side."""
    calibration = found.calibration
    agrees = calibration.agrees if calibration else {}
    made = table("who", f"win rate of {one}", "agrees with decided votes")
    made.add_row("the judge", _interval(found.contest.rate), _interval(agrees.get("the judge")))
    for name, would_say in found.contest.would_say.items():
        made.add_row(name, share(would_say), _interval(agrees.get(name)))
    return made


def _grades(found: JudgeReport, result: dict[str, Any]) -> list[tuple[str, str]]:
    """How many answers got each grade; their means are among the sentences."""
    if found.grades is None:
        return []
    counts = {"one": found.grades.counts_one, "other": found.grades.counts_other}
    return [
        (f"Grades 1 to {len(counts[side])} of {result[side]}", " ".join(map(str, counts[side])))
        for side in counts
    ]


def _facts(found: JudgeReport) -> list[tuple[str, str]]:
    contest, bias, calibration = found.contest, found.bias, found.calibration
    facts = [
        ("Win rate between answers of the same style", _interval(contest.same_style)),
        ("Both orders, LL LD WL/DD WD WW", " ".join(map(str, contest.ordered))),
    ]
    if contest.elo is not None:
        facts.append(("Elo difference", f"{contest.elo.elo:+.0f} ± {contest.elo.elo_error:.0f}"))
    if bias is not None:
        facts.append(("Says the same in both orders", _interval(bias.consistency)))
        facts.append(("Position bias (prefers the first)", _points(bias.position)))
    if calibration is not None:
        facts.append(("Verbosity bias (prefers the longer, beyond people)", _points(calibration.verbosity)))
        facts.append(("Cohen's kappa with the votes", _number(calibration.kappa)))
        if calibration.voters is not None:
            facts.append(("Krippendorff's alpha of the voters", _number(calibration.voters)))
    return facts


def cost_said(result: dict[str, Any]) -> str:
    """What was asked now and before, and what it took: `asked`, `remembered` and `spent` of a result."""
    said = f"{count(result['asked'], 'question')} asked, {result['remembered']:,} remembered"
    spent = result["spent"]
    if spent is None:
        return said
    tokens = f"{spent['prompt_tokens']:,} tokens read, {spent['completion_tokens']:,} written"
    return f"{said}; {tokens}, ${spent['dollars']:.4f}"


def _interval(found: Estimate | None) -> str:
    return _UNKNOWN if found is None else f"{share(found.value)} ({share(found.low)} to {share(found.high)})"


def _points(found: Estimate | None) -> str:
    if found is None:
        return _UNKNOWN
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    return f"{value:+.0f} points ({low:+.0f} to {high:+.0f})"


def _number(found: Estimate | None) -> str:
    return _UNKNOWN if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
