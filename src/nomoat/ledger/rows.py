"""What the ledger takes and gives: frozen dataclasses whose fields are the columns of `schema`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from nomoat.ledger.process import ProcessMark, is_running

NightStatus = Literal["running", "done", "failed", "interrupted"]
StageStatus = Literal["running", "done", "reused", "failed", "interrupted"]
Subject = Literal["base", "tuned", "difference"]
ChosenBy = Literal["gate", "owner", "rollback"]
EvidenceKind = Literal["checks", "loss"]
VoteVerdict = Literal["left", "right", "tie", "both bad"]
PromptSource = Literal["pool", "typed"]
Side = Literal["left", "right"]
Thumb = Literal["up", "down"]
Reason = Literal["correctness", "instructions", "clarity", "style", "length", "safety"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""What may decide a vote. They name a respect and not a side, so that they serve a tie and "both bad" too."""
Json = dict[str, Any]


def in_order(named: Collection[str]) -> list[Reason] | None:
    """Those of `REASONS` that are named, as votes have them; None for none."""
    return [reason for reason in REASONS if reason in named] or None


@dataclass(frozen=True, kw_only=True)
class NightRow:
    """One run of a recipe. `seconds`, `energy_joules` and `dollars` are None until it has ended."""

    id: int
    name: str
    started_at: str
    ended_at: str | None
    status: NightStatus
    recipe_text: str
    recipe_resolved: Json
    code_version: str
    seed: int
    machine: Json
    plan: Json | None
    verdict: Json | None
    seconds: float | None
    energy_joules: float | None
    dollars: float | None
    error: str | None
    pid: int
    host: str
    process_started: str | None

    def is_lost(self) -> bool:
        """Still written down as running although its process, which was of this machine, is gone."""
        mark = ProcessMark(self.pid, self.host, self.process_started)
        return self.status == "running" and is_running(mark) is False


@dataclass(frozen=True)
class StartedNight:
    """A night just begun, and the nights that were found dead and marked interrupted in the same step."""

    night: NightRow
    interrupted: tuple[NightRow, ...]


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage of a night. `artifact_id` is None until it has made or reused one."""

    id: int
    night_id: int
    name: str
    position: int
    key: str
    artifact_id: str | None
    status: StageStatus
    started_at: str
    ended_at: str | None
    seconds: float | None
    energy_joules: float | None
    dollars: float | None
    detail: Json | None


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """An artifact that was once made; its folder may have been removed since. `path` is relative to the
    workspace."""

    id: str
    kind: str
    key: str
    path: str
    bytes: int
    created_at: str
    meta: Json


@dataclass(frozen=True)
class LineageNode:
    """An artifact (or an outside fingerprint, whose kind is the text before its colon) and what it was made
    from. `role` is its part in its parent, '' at the root. `folded`: what it was made from is not shown here
    but nearer to the root, or lies deeper than was asked for."""

    id: str
    kind: str
    role: str
    inputs: tuple[LineageNode, ...]
    folded: bool


@dataclass(frozen=True, kw_only=True)
class GenerationRow:
    """What a night yielded. `base` is a fingerprint or an artifact; `served_file` is the file to serve,
    relative to the workspace."""

    id: int
    night_id: int
    created_at: str
    base: str
    adapter_artifact: str | None
    merged_artifact: str | None
    gguf_artifact: str | None
    served_file: str | None
    verdict: Json | None

    @property
    def name(self) -> str:
        """As it is shown and typed: 'gen-0001'."""
        return f"gen-{self.id:04d}"

    @property
    def model(self) -> str:
        """As votes name it, in every workspace: '<artifact id>/<file>'."""
        assert self.served_file is not None, self.id
        return model_key(self.served_file)


def model_key(served_file: str) -> str:
    """A GGUF file's name among votes: its artifact's id, which is a hash of its making, and its own name."""
    return "/".join(served_file.replace("\\", "/").split("/")[-2:])


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measured number over `n` prompts or rows, with its interval [low, high] at `confidence` (0..1)."""

    subject: Subject
    suite: str
    metric: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    artifact_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreRow(Score):
    """A score as kept."""

    id: int
    night_id: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Both models' answers to one prompt. `*_passed` is None where the prompt has no checks."""

    suite: str
    prompt_id: str
    prompt: Json | list[Any]
    base_answer: str
    tuned_answer: str
    base_passed: bool | None = None
    tuned_passed: bool | None = None
    checks: Json | list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class SampleRow(Sample):
    """A sample as kept."""

    id: int
    night_id: int


@dataclass(frozen=True, kw_only=True)
class ChampionRow:
    """Who is served since when. `generation_id` is None for the base, `verdict` the gate's at that time."""

    id: int
    generation_id: int | None
    since: str
    chosen_by: ChosenBy
    night_id: int | None
    said: str
    verdict: Json | None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a challenger and its rival did on one prompt or row. checks: 1 passed, 0 failed; loss: nats a token."""

    kind: EvidenceKind
    suite: str
    item: str
    challenger: float
    rival: float


@dataclass(frozen=True, kw_only=True)
class EvidenceRow(Evidence):
    """Evidence as kept. `rival_id` is None for the base."""

    id: int
    night_id: int
    generation_id: int
    rival_id: int | None


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One human judgement of two blind answers. Models are named by `model_key`; `*_name` is how they were called
    when it was cast. `source`: "pool" of a prompt that chance drew from those a night has held out, "typed" of one that
    the voter chose, alone or as a file. `seconds` from showing to voting, None where it is not known."""

    cast_at: str
    voter: str
    verdict: VoteVerdict
    left_model: str
    right_model: str
    left_name: str
    right_name: str
    source: PromptSource
    prompt_hash: str
    prompt: Json
    left_answer: str
    right_answer: str
    sampling: Json
    suite: str | None = None
    prompt_id: str | None = None
    seconds: float | None = None
    note: str | None = None
    """Why, in the voter's own words."""
    better: Side | None = None
    """Of a probe, the side that is better by construction: one model wrote both answers, the other one to another
    prompt. A probe tells of the voter alone. None for all other votes."""
    turns: list[Json] | None = None
    """What was said after the first answers, which the vote is about too: {"asked", "left", "right"} each. None where
    nothing was."""
    reasons: list[Reason] | None = None
    """What decided it, of `REASONS` and in their order, each once. None where the voter named none."""

    def said(self, side: Side) -> list[Json]:
        """All that one side says behind `prompt`, as messages: its answer, and each further turn of the two."""
        told = [{"role": "assistant", "content": self.left_answer if side == "left" else self.right_answer}]
        for turn in self.turns or ():
            told += [
                {"role": "user", "content": turn["asked"]},
                {"role": "assistant", "content": turn[side]},
            ]
        return told


@dataclass(frozen=True, kw_only=True)
class VoteRow(Vote):
    """A vote as kept. `imported_at` is None where it was cast in this workspace, `withdrawn_at` while it stands."""

    id: int
    key: str
    imported_at: str | None
    withdrawn_at: str | None


@dataclass(frozen=True, kw_only=True)
class JudgeVerdict:
    """What a judge said of two models' answers to a prompt: the score of `one_model`'s (1 better, 0 worse, 1/2 alike)
    when it stood first, and when it stood second. `judge` names the judge with all that its verdicts depend on."""

    judge: str
    one_model: str
    other_model: str
    prompt_hash: str
    forward: float
    backward: float


@dataclass(frozen=True, kw_only=True)
class JudgeVerdictRow(JudgeVerdict):
    """A judge's verdict as kept; those of one run have the same `judged_at`."""

    id: int
    judged_at: str


@dataclass(frozen=True, kw_only=True)
class DrawRow:
    """A held-out prompt of a night that was drawn, each as likely as any other, for two models to be voted on.
    `vote_key` is None where nobody has voted: both said the same, or the voter left it."""

    id: int
    drawn_at: str
    night_id: int
    one_model: str
    other_model: str
    prompt_hash: str
    vote_key: str | None


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A thumb up or down for one answer to a prompt {"messages": [...]}; `model` and `prompt_hash` as in `Vote`."""

    voter: str
    verdict: Thumb
    model: str
    model_name: str
    prompt_hash: str
    prompt: Json
    answer: str


@dataclass(frozen=True, kw_only=True)
class RatingRow(Rating):
    """A rating as kept. `withdrawn_at` is None while it stands."""

    id: int
    made_at: str
    withdrawn_at: str | None


@dataclass(frozen=True, kw_only=True)
class OwnAnswerRow:
    """What a person would have answered where the vote `vote_id` found both answers bad."""

    id: int
    made_at: str
    voter: str
    vote_id: int
    prompt_hash: str
    prompt: Json
    answer: str
    withdrawn_at: str | None
