"""What a night leaves behind, as the report, the ledger and the command line read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nomoat.evaluate.comparison import Comparison
from nomoat.evaluate.gate import GateVerdict
from nomoat.ledger.artifacts import Artifact


@dataclass(frozen=True)
class Results:
    """The artifacts of a night; those of stages it had not are None. `trained` holds those of the stages that trained
    on the base, in order, by kind; `plan` is the planner's sentences, `rival_id` the generation that the gate compared
    with (None: the base)."""

    served: Artifact
    evaluate: Artifact
    plan: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    pretrain: Artifact | None = None
    overlaps: Artifact | None = None
    data: Artifact | None = None
    judgements: Artifact | None = None
    compared: Artifact | None = None
    trained: dict[str, Artifact] = field(default_factory=dict)
    merged: Artifact | None = None
    gate: Artifact | None = None
    rival_id: int | None = None


@dataclass(frozen=True)
class StageSummary:
    """One stage of the night; `how` is done or reused. A reused stage cost nothing tonight."""

    kind: str
    how: str
    seconds: float
    energy_joules: float
    dollars: float
    artifact_id: str
    said: str


@dataclass(frozen=True)
class TrainingSummary:
    """One stage that trained."""

    kind: str
    curve: dict[str, Any]
    """{'train': [{step, loss, learning_rate, grad_norm, tokens}], 'held_out': [{step, loss}], 'events': [str]};
    learning from judgements adds margin and accuracy to each step"""
    facts: dict[str, Any]
    """steps, best_step, best_loss, first_loss, tokens, supervised_tokens, seconds, best_margin, best_accuracy"""


@dataclass(frozen=True)
class NightSummary:
    """Everything the morning report shows."""

    night_id: int
    generation: str
    name: str
    started_at: str
    ended_at: str
    base: str
    seed: int
    code_version: str
    machine: dict[str, Any]
    """device, dtype, threads, cores, memory_bytes, gflops, torch, transformers..."""
    plan: list[str]
    """The planner's sentences: each number chosen, with its reason."""
    recipe_yaml: str
    data_reports: list[dict[str, Any]]
    """DataReport.to_dict() of the stages `data` and `judgements` (of `prefer`, then `reward`), where there were any."""
    trainings: list[TrainingSummary]
    """In order; none where all was reused from elsewhere."""
    comparison: Comparison
    gate: GateVerdict | None
    """None for a night that makes only a base of its own."""
    champion: str
    """Who is served after this night: a generation's name, or 'base'; '' where nobody was ever chosen."""
    fidelity: list[dict[str, Any]]
    """One a file: {file, type, bytes, same_greedy_share, mean_kl, same_top_share, said}"""
    stages: list[StageSummary]
    seconds: float
    energy_joules: float
    energy_said: str
    """How the energy was measured or estimated."""
    dollars: float
    price_said: str
    lineage: dict[str, Any]
    """LineageNode of the served file as nested dicts: {id, kind, role, inputs: [...]}"""
    licences: list[str]
    model_path: str
    served_file: str
    report_path: str
    next_command: str
    warnings: list[str]
    overlaps: dict[str, Any] | None = None
    """{rows, prompts, of, found, said}: rows that hold what the suites ask, the first as {where, suite, prompt, how};
    None where there was no suite to look for."""
