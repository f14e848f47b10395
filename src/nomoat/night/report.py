"""The morning report: one HTML file that needs nothing but itself, no script, and no network.

Everything it shows is hostile: models write anything, and so do data files. So every value is cleaned and cut
as it is printed (`clean`), escaped by the template, and forbidden by the page's own policy to load anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nomoat.evaluate.comparison import Answer, Comparison, Estimate, Metric
from nomoat.evaluate.gate import GateVerdict
from nomoat.evaluate.stats.intervals import mcnemar_exact
from nomoat.ledger.files import atomic_write
from nomoat.night import report_plots, units
from nomoat.night.result import NightSummary, TrainingSummary

MOST_CHARS = 10_000
"""Longest text the page shows of any one value; what is cut is counted, and whole in the ledger."""
OPEN_ANSWERS, MOST_ANSWERS = 6, 60
MOST_TURNS = 6
MOST_EXAMPLES = 3
MOST_NODES = 100

_VERDICTS = {
    "better": {"mark": "✓", "style": "better", "text": "Better than its base."},
    "not shown better": {"mark": "≈", "style": "unclear", "text": "Not shown better than its base."},
    "worse": {"mark": "✗", "style": "worse", "text": "Worse than its base."},
}
_TRAINING = {
    "steps": "steps",
    "best_step": "best step, kept",
    "first_loss": "held-out loss before",
    "best_loss": "held-out loss after",
    "best_accuracy": "held-out judgements followed, as a share",
    "best_margin": "held-out margin of the preferred, nats (of prefer: × beta)",
    "held_out_accuracy": "other held-out judgements followed, as a share",
    "accuracy_low": "lower end of its interval",
    "accuracy_high": "upper end of its interval",
    "temperature": "temperature of calibration",
    "calibration_error": "calibration error, as a share",
    "uncalibrated_error": "calibration error before calibration",
    "first_pass_rate": "held-out pass rate before, as a share",
    "best_pass_rate": "held-out pass rate after, as a share",
    "first_reward": "held-out reward before",
    "best_reward": "held-out reward after",
    "tokens": "tokens read",
    "supervised_tokens": "tokens trained on",
    "seconds": "time",
}
_LOSS_PER = {"prefer": "judgement", "reward": "judgement"}
"""What the loss of a stage is a mean over, where that is not tokens."""
_TIMES = {"prefer": " × beta"}
_REWARDED = (
    ("reward", "reward"),
    ("pass_rate", "pass rate"),
    ("length", "length of answers, tokens"),
    ("kl", "KL to the reference, nats a token"),
    ("entropy", "entropy, nats a token"),
    ("clipped", "share of tokens clipped"),
    ("sampling_kl", "KL of sampling to training, nats a token"),
)
"""What is drawn of reinforcement."""
_ROWS = {
    "read": "rows read",
    "train": "rows to train on",
    "held_out": "rows held out",
    "bad": "rows that could not be used",
    "duplicate": "duplicates left out",
    "contaminated": "hold what a held-out prompt asks, left out",
    "not_preferred": "not preferred, left out",
    "without_answer": "without an answer, left out",
    "cut_to_nothing": "too long for any answer, left out",
    "truncated": "rows cut",
    "divided": "rows divided",
}
_TOKENS = {
    "train": "tokens in the rows to train on",
    "train_supervised": "of these, trained on",
    "held_out": "tokens in the rows held out",
    "held_out_supervised": "of these, measured",
}
_LENGTHS = {
    "p50": "tokens in the middle row",
    "p90": "tokens that 90 of 100 rows stay within",
    "p99": "tokens that 99 of 100 rows stay within",
    "longest": "tokens in the longest row",
}
_ODD = {code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)}  # control pictures
_ODD |= {0x7F: "\u2421"} | dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "\ufffd")
_ODD |= {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def write_report(summary: NightSummary, path: Path) -> None:
    """Write the page; the same summary gives the same bytes. Raises ArtifactError where the disk refuses."""
    atomic_write(path, render(summary).encode("utf-8"))


def render(summary: NightSummary) -> str:
    """The page as text."""
    environment = Environment(
        autoescape=True, finalize=_finalize, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "short": _short,
        "duration": units.duration,
        "energy": units.energy,
        "dollars": units.dollars,
    }
    source = resources.files("nomoat.night").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(night=summary, **_view(summary))


def clean(text: str, most: int = MOST_CHARS) -> str:
    """Text that a page can show: cut to `most` characters, control characters and the marks that reverse the
    reading direction made visible, halves of characters replaced."""
    cut = text[:most].replace("\r\n", "\n").translate(_ODD)
    left_out = len(text) - most
    return cut if left_out <= 0 else f"{cut}… [{left_out:,} more characters]"


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else clean(str(value))


def _short(text: object) -> str:
    flat = " ".join(str(text)[:1000].split())
    return flat if len(flat) <= 80 else flat[:79] + "…"


def _view(summary: NightSummary) -> dict[str, Any]:
    """What the template needs beyond the summary itself, ready to print."""
    comparison = summary.comparison
    answers = comparison.answers[:MOST_ANSWERS]
    lineage, lineage_left_out = _flatten(summary.lineage)
    return {
        "said": re.sub(r"(?<!\w)-(?=\d)", "−", comparison.said),
        "ended": _moment(summary.ended_at),
        "verdict": _VERDICTS.get(comparison.verdict),
        "decided_by": comparison.decided_by,
        "metrics": [_metric(metric, metric.name == comparison.decided_by) for metric in comparison.metrics],
        "interval_figures": _interval_figures(comparison.metrics),
        "mcnemar": _mcnemar(comparison),
        "gate": _gate(summary.gate),
        "trainings": [_training(training, str(i or "")) for i, training in enumerate(summary.trainings)],
        "answers": [_answer(answer) for answer in answers],
        "answer_count": len(comparison.answers),
        "open_answers": OPEN_ANSWERS,
        "datas": [_data(report, str(i or "")) for i, report in enumerate(summary.data_reports)],
        "fidelity": [_file(entry) for entry in summary.fidelity],
        "lineage": lineage,
        "lineage_left_out": lineage_left_out,
        "machine": _facts({"seed": str(summary.seed), "nomoat": summary.code_version} | summary.machine, {}),
    }


def _figure(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # matplotlib escaped its text


def _metric(metric: Metric, decides: bool) -> dict[str, Any]:
    is_share = metric.unit.startswith("share")
    scale, digits, sign = (100, ".1f", "%") if is_share else (1, ".3f", "")

    def show(estimate: Estimate, *, plus: str = "", unit: str = "") -> dict[str, str]:
        numbers = {"value": f"{scale * estimate.value:{plus}{digits}}{unit}"}
        numbers |= {end: f"{scale * getattr(estimate, end):{digits}}" for end in ("low", "high")}
        return {key: text.replace("-", "−") for key, text in numbers.items()}

    return {
        "name": metric.name,
        "suite": metric.suite,
        "unit": "% of prompts" if is_share else metric.unit,
        "base": show(metric.base, unit=sign),
        "tuned": show(metric.tuned, unit=sign),
        "difference": show(metric.difference, plus="+"),
        "n": f"{metric.difference.n:,}",
        "decides": decides,
    }


def _interval_figures(metrics: Iterable[Metric]) -> list[Markup]:
    by_unit = sorted(metrics, key=lambda metric: not metric.unit.startswith("share"))
    drawn = (
        report_plots.intervals(list(group)) for _, group in groupby(by_unit, key=lambda metric: metric.unit)
    )
    return [figure for figure in map(_figure, drawn) if figure is not None]


def _mcnemar(comparison: Comparison) -> str | None:
    checked = [answer for answer in comparison.answers if answer.base_passed is not None]
    if not checked:
        return None
    only_tuned = sum(bool(answer.tuned_passed and not answer.base_passed) for answer in checked)
    only_base = sum(bool(answer.base_passed and not answer.tuned_passed) for answer in checked)
    p = mcnemar_exact(only_base, only_tuned)
    return (
        f"Of {len(checked)} prompts {only_tuned} are passed by the tuned model only, {only_base} by the base only. "
        "Were both equally good, a split at least as uneven would have probability "
        f"{'below 0.0001' if p < 1e-4 else f'{p:.2g}'} (exact McNemar test)."
    )


_SOURCES = {"checks": "held-out prompts", "loss": "loss on held-out rows", "votes": "blind votes"}


def _gate(gate: GateVerdict | None) -> dict[str, Any] | None:
    """The gate's verdict, its evidence and its guards, ready to print; None for a night that had no gate."""
    if gate is None:
        return None
    return {
        "verdict": gate.verdict,
        "said": gate.said,
        "rows": [
            {
                "source": _SOURCES[found.source],
                "counts": f"{found.wins:,} / {found.losses:,} / {found.ties:,}",
                "rate": _percent(found.rate),
                "e_value": f"{found.e_value:,.3g}",
            }
            for found in gate.weighed
        ]
        + [
            {
                "source": f"votes of each against {link.third}",
                "counts": f"{link.better:,} / {link.worse:,} / {link.alike:,}",
                "rate": "–",
                "e_value": f"{link.e_value:,.3g}",
            }
            for link in gate.links
        ],
        "guards": [
            {"suite": guard.suite, "finding": guard.finding, "difference": _percent(guard.difference)}
            for guard in gate.guards
        ],
        "asked": f"{1 / gate.alpha:,.0f}",
        "confidence": f"{100 * (1 - gate.alpha):g}",
        "guard_confidence": f"{100 * (1 - 2 * gate.alpha):g}",
    }


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    value, low, high = (
        f"{100 * x:.1f}".replace("-", "−") for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}% ({low} to {high})"


def _answer(answer: Answer) -> dict[str, Any]:
    left_out = len(answer.messages) - MOST_TURNS
    turns = [
        {"role": _short(m.get("role", "")), "content": _content(m)} for m in answer.messages[-MOST_TURNS:]
    ]
    if left_out > 0:
        turns.insert(0, {"role": "earlier", "content": f"{left_out} earlier messages are not shown"})
    sides = [
        {
            "who": who,
            "text": text,
            "passed": passed,
            "checks": [
                {
                    "kind": _short(c["kind"]),
                    "passed": c[f"{who}_passed"],
                    "detail": c.get(f"{who}_detail", ""),
                }
                for c in answer.checks
            ],
        }
        for who, text, passed in (
            ("base", answer.base, answer.base_passed),
            ("tuned", answer.tuned, answer.tuned_passed),
        )
    ]
    return {"suite": answer.suite, "prompt_id": answer.prompt_id, "messages": turns, "sides": sides}


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or message.get("tool_calls") or ""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _training(training: TrainingSummary, name: str) -> dict[str, Any]:
    """Curves, numbers and events of one stage; what a unit is of, its kind says."""
    kind, curve, facts = training.kind, training.curve, training.facts
    if kind == "reinforce":  # its loss says nothing: it is about 0 by construction
        figures = [report_plots.metric_curve(curve, *told, name=name) for told in _REWARDED]
    else:
        per = _LOSS_PER.get(kind, "token")
        figures = [
            report_plots.loss_curve(curve, facts.get("best_step"), name=name, per=per),
            report_plots.metric_curve(curve, "accuracy", "judgements followed", name=name),
            report_plots.metric_curve(
                curve, "margin", "margin of the preferred, nats" + _TIMES.get(kind, ""), name=name
            ),
            report_plots.reliability(facts.get("bins", []), name=name),
        ]
    return {
        "kind": kind,
        "figures": [figure for figure in map(_figure, figures) if figure is not None],
        "facts": _facts({key: facts[key] for key in _TRAINING if key in facts}, _TRAINING),
        "events": curve.get("events", [])[:50],
    }


def _data(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The numbers, histogram and examples of a DataReport."""
    rows, lengths = report["rows"], report["lengths"]
    seen = {_ROWS[key]: rows[key] for key in _ROWS if rows[key] or key in ("train", "held_out")}
    sizes = {_TOKENS[key]: report["tokens"][key] for key in _TOKENS}
    spread = {_LENGTHS[key]: lengths[key] for key in _LENGTHS}
    template = {
        "most tokens a row may have": report["max_seq_len"],
        "chat template from": report["template"]["origin"],
        "stop tokens": " ".join(report["template"]["stop_tokens"]),
    }
    return {
        "said": report["said"],
        "files": report["files"],
        "facts": _facts({**seen, **sizes, **spread, **template}, {}),
        "figure": _figure(report_plots.lengths(lengths["histogram"], name=name)),
        "bad": report["bad"],
        "examples": [_cut_pieces(pieces) for pieces in report["examples"][:MOST_EXAMPLES]],
    }


def _cut_pieces(pieces: Sequence[Sequence[Any]]) -> list[tuple[str, bool]]:
    kept, room = [], MOST_CHARS
    for text, trained in pieces:
        if room <= 0:
            kept.append(("… [the rest is not shown]", False))
            break
        kept.append((clean(text, room), bool(trained)))
        room -= len(text)
    return kept


def _file(entry: dict[str, Any]) -> dict[str, str]:
    def share(key: str) -> str:
        return f"{100 * entry[key]:.1f}%" if entry.get(key) is not None else "–"

    return {
        "file": f"{entry['file']} ({entry['type']})",
        "size": units.size(entry["bytes"]),
        "greedy": share("same_greedy_share"),
        "top": share("same_top_share"),
        "kl": f"{entry['mean_kl']:.2g}" if entry.get("mean_kl") is not None else "–",
        "said": entry.get("said", ""),
    }


def _facts(values: dict[str, Any], labels: dict[str, str]) -> list[tuple[str, str]]:
    """Name and value of everything that is one value; units come from the key."""
    return [
        (labels.get(key, key.removesuffix("_bytes").replace("_", " ")), _fact(key, value))
        for key, value in values.items()
        if isinstance(value, str | int | float)
    ]


def _fact(key: str, value: str | float) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("bytes"):
        return units.size(value)
    if key.endswith("seconds"):
        return units.duration(value)
    if key.endswith("loss"):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _flatten(root: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The lineage tree in reading order with each node's depth, and how many nodes were left out.

    Not recursive: generations grow on generations, and a tree may be deeper than Python's stack.
    """
    shown: list[dict[str, Any]] = []
    left_out, waiting = 0, [(0, root)] if root else []
    while waiting:
        depth, node = waiting.pop()
        if len(shown) < MOST_NODES:
            shown.append({"folded": False, **node, "role": _short(node["role"]), "depth": min(depth, 8)})
        else:
            left_out += 1
        waiting.extend((depth + 1, child) for child in reversed(node["inputs"]))
    return shown, left_out


def _moment(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
